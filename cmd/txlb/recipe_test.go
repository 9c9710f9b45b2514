//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// counterRecipe is what CONTRIBUTING.md says of a new counter: texts behind which
// others are put.
var counterRecipe = []struct{ file, behind, put string }{
	{"sched/host.go", "	failures atomic.Uint64\n", "	trials   atomic.Uint64\n"},
	{"sched/host.go", "	Failures    uint64 // failed connects\n", "	Trials      uint64\n"},
	{"sched/host.go", "	s.Failures += o.Failures\n", "	s.Trials += o.Trials\n"},
	{"sched/host.go", "		EarlyResets: h.resets.total.Load(),\n", "		Trials: h.trials.Load(),\n"},
	{"sched/host.go", "func (h *Host) Connected(shard int, d time.Duration) {\n", "	h.trials.Add(42)\n"},
	{"internal/status/counters.go", "var HostCounters = []Counter[sched.HostStats]{\n", `	{
		Metric: "txlb_host_trials_total", Column: "wretr", Key: "trials", Label: "Trials", Short: "trial", Help: "Trials of the recipe",
		Value: func(s *sched.HostStats) uint64 { return s.Trials },
	},
`},
}

// TestCounterRecipe follows the recipe for a new counter in a copy of the tree: the
// counter shows up everywhere. The compiler takes the changed files from the copy and
// all others from the tree (-overlay), so that the build cache has what stays.
func TestCounterRecipe(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a copy of the program")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]string{}
	for _, r := range counterRecipe {
		text, ok := changed[r.file]
		if !ok {
			was, err := os.ReadFile(filepath.Join(root, r.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(was)
		}
		if strings.Count(text, r.behind) != 1 {
			t.Fatalf("%s has %q %d times", r.file, r.behind, strings.Count(text, r.behind))
		}
		changed[r.file] = strings.Replace(text, r.behind, r.behind+r.put, 1)
	}
	if len(changed) > 3 {
		t.Errorf("the recipe has %d files; want three at most", len(changed))
	}
	tree := t.TempDir()
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for file, text := range changed {
		path := filepath.Join(tree, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, file)] = path
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	replaced := filepath.Join(tree, "overlay.json")
	if err := os.WriteFile(replaced, list, 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(tree, "trial")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-w", "-overlay", replaced, "-o", program, "./cmd/txlb")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	socket, page := filepath.Join(socketFolder(t), "a.sock"), freePort(t)
	p := run(t, program, "run", "-c", write(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip="%s"/></group></service>
		<admin><web listen="127.0.0.1:%d" secure="no"/><socket path="%s"/><user name="boss" password="$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1" access="full"/></admin></config>`,
		answering(t, repeat), page, socket)))
	p.expect("msg=ready")
	c, err := net.Dial("tcp4", p.addr("web", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if err := hear(c, "ping"); err != nil {
		t.Fatal(err)
	}

	ctl := func(words ...string) string {
		out, err := exec.CommandContext(t.Context(), program, append([]string{"ctl", "-s", socket}, words...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", words, err, out)
		}
		return string(out)
	}
	_, body, err := visit("127.0.0.1", "http", fmt.Sprint("127.0.0.1:", page), "/manage?service=web&group=main&name=a")
	if err != nil {
		t.Fatal(err)
	}
	stat := strings.Split(ctl("show", "stat"), "\n")
	column := -1
	for i, name := range strings.Split(stat[0], ",") {
		if name == "wretr" {
			column = i
		}
	}
	for _, line := range stat {
		if f := strings.Split(line, ","); strings.HasPrefix(line, "web.main,a,") && f[column] != "42" {
			t.Errorf("show stat: wretr is %q", f[column])
		}
	}
	for where, has := range map[string][2]string{
		"metrics":    {ctl("show", "metrics"), "# HELP txlb_host_trials_total Trials of the recipe\n# TYPE txlb_host_trials_total counter\ntxlb_host_trials_total{service=\"web\",group=\"main\",host=\"a\"} 42\n"},
		"JSON":       {ctl("--json", "show", "hosts"), `"trials":42`},
		"show hosts": {ctl("show", "hosts"), "trials"},
		"the page":   {body, "<dt>Trials</dt><dd>42</dd>"},
	} {
		if !strings.Contains(has[0], has[1]) {
			t.Errorf("%s: no %q in\n%s", where, has[1], has[0])
		}
	}
}
