package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"
)

const (
	dashboardFile = "../../etc/grafana/txlb.json"
	rulesFile     = "../../etc/prometheus/txlb.rules.yml"
	runbookFile   = "../../docs/runbook.md"
	runbookURL    = "https://github.com/txlb/txlb/blob/main/docs/runbook.md#"
)

// limited has what some metrics are of alone.
const limited = `<config><service name="l"><listen ip=":2"/><limits sessions="9"/>
	<group name="g" enable="yes"><host name="a" ip="10.0.0.1:80" maxSessions="1"/><mirror ip="10.0.0.9:80"/></group></service></config>`

// encrypted is a document whose service has TLS on both sides.
func encrypted(t *testing.T) string {
	t.Helper()
	cert, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
	c, k := testkit.NewAuthority(t, "ca").Issue(t, testkit.Leaf{Names: []string{"a.example"}})
	testkit.Put(t, cert, c)
	testkit.Put(t, key, k)
	return fmt.Sprintf(`<config><service name="s"><listen ip=":3" tls="%s %s"/>
		<group name="g"><host name="a" ip="10.0.0.1:80" tls="unverified"/></group></service></config>`, cert, key)
}

// written returns the metrics that Write writes, each with its labels. Some of
// them come only with what has happened, so that has happened.
func written(t *testing.T) map[string][]string {
	t.Helper()
	r := reading(t)
	r.HasFile, r.ReloadFailed = true, true
	r.Logs = []logs.Stats{{Name: "log"}, {Name: "audit"}}
	r.Fleet = &fleet.Status{Fleet: "edge", Node: "lb1", Shares: &fleet.Shares{}}
	all := map[string][]string{}
	label := regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="(?:\\.|[^"\\])*"`)
	for _, r := range []*status.Reading{r, status.Read(status.Facts{State: rig.Hold(t, limited).State()}), status.Read(status.Facts{State: rig.Hold(t, encrypted(t)).State()})} {
		var out strings.Builder
		Write(&out, r)
		for name := range read(t, out.String()) {
			name, labels, _ := strings.Cut(name, "{")
			all[name] = append(all[name], "job", "instance") // Prometheus adds those
			for _, m := range label.FindAllStringSubmatch(labels, -1) {
				all[name] = append(all[name], m[1])
			}
		}
	}
	all["txlb_admin_rejected_total"] = []string{"job", "instance", "interface", "reason"}
	// Only programs that embed txlb have these.
	all["txlb_callback_panics_total"] = []string{"job", "instance", "callback"}
	all["txlb_scheduler_faults_total"] = []string{"job", "instance", "scheduler"}
	// No probe has ended in the source.
	all["txlb_checks_total"] = []string{"job", "instance", "service", "group", "host", "result"}
	return all
}

var (
	metricName = regexp.MustCompile(`\b(?:txlb|process|go)_[a-z0-9_]+\b`)
	selector   = regexp.MustCompile(`\b((?:txlb|process|go)_[a-z0-9_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!=|!~|=)`)
	grouping   = regexp.MustCompile(`\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
)

// checkExpression compares the names in an expression with what is written.
func checkExpression(t *testing.T, where, text string, all map[string][]string) (names int) {
	t.Helper()
	var known []string // labels of any of the metrics in the text
	for _, name := range metricName.FindAllString(text, -1) {
		names++
		labels, there := all[name]
		if !there {
			t.Errorf("%s names %s, which no scrape has", where, name)
		}
		known = append(known, labels...)
	}
	for _, m := range selector.FindAllStringSubmatch(text, -1) {
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if labels, there := all[m[1]]; there && !slices.Contains(labels, l[1]) {
				t.Errorf("%s looks at the label %s of %s, which has none", where, l[1], m[1])
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(text, -1) {
		for _, l := range strings.FieldsFunc(m[1], func(c rune) bool { return c == ',' || c == ' ' }) {
			if !slices.Contains(known, l) {
				t.Errorf("%s groups by the label %s, which none of its metrics has", where, l)
			}
		}
	}
	return names
}

// What a name in the rules means, promtool does not know.
func TestRulesNameWhatIsWritten(t *testing.T) {
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	all := written(t)
	rules := strings.Split(string(text), "- alert: ")[1:]
	for _, r := range rules {
		name, r, _ := strings.Cut(r, "\n")
		_, expr, ok := strings.Cut(r, "expr:")
		expr, rest, ok2 := strings.Cut(expr, "labels:")
		if !ok || !ok2 {
			t.Fatalf("%s has no expression or no labels", name)
		}
		if n := checkExpression(t, name, expr, all); n == 0 && name != "TxlbMetricsDown" {
			t.Errorf("%s names no metric", name)
		}
		checkExpression(t, name+"'s text", rest, all)
		for _, word := range []string{"severity: ", "summary: ", "description: "} {
			if !strings.Contains(rest, word) {
				t.Errorf("%s has no %s", name, word)
			}
		}
	}
	if len(rules) < 10 {
		t.Errorf("%d rules were found", len(rules))
	}
}

// alerts returns the names of the rules with their texts.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range strings.Split(string(text), "- alert: ")[1:] {
		name, rest, _ := strings.Cut(r, "\n")
		all[name] = rest
	}
	return all
}

// Every alert has an entry in the runbook, which its annotation leads to, and every entry an
// alert. Entries answer the same questions.
func TestRunbookHasTheAlerts(t *testing.T) {
	text, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{}
	for _, e := range strings.Split(string(text), "\n## ")[1:] {
		if name, rest, _ := strings.Cut(e, "\n"); strings.HasPrefix(name, "Txlb") {
			entries[name] = rest
		}
	}
	rules := alerts(t)
	for name, rule := range rules {
		if want := `runbook_url: "` + runbookURL + strings.ToLower(name) + `"`; !strings.Contains(rule, want) {
			t.Errorf("%s has no %s", name, want)
		}
		entry, ok := entries[name]
		if !ok {
			t.Errorf("%s has no entry of %s", name, runbookFile)
			continue
		}
		for _, question := range []string{"**Means.**", "**Clients.**", "**Look.**", "**Do.**", "**Ignore.**"} {
			if !strings.Contains(entry, question) {
				t.Errorf("the entry of %s has no %s", name, question)
			}
		}
		if !strings.Contains(entry, "```sh\n") {
			t.Errorf("the entry of %s has no command to look with", name)
		}
	}
	for name := range entries {
		if _, ok := rules[name]; !ok {
			t.Errorf("%s has an entry of %s, which is no alert", runbookFile, name)
		}
	}
}

// Every kind of problem that the status page has is watched by an alert, or is what somebody
// has ordered.
func TestProblemsHaveAlerts(t *testing.T) {
	rules := alerts(t)
	for kind, alert := range status.Kinds {
		if _, ok := rules[alert]; alert != "" && !ok {
			t.Errorf("the alert %s, of problems of the kind %s, is in no rule", alert, kind)
		}
	}
	for name, rule := range rules {
		for _, m := range regexp.MustCompile(`kind=~?"([^"]*)"`).FindAllStringSubmatch(rule, -1) {
			for kind := range strings.SplitSeq(m[1], "|") {
				if status.Kinds[status.Kind(kind)] != name {
					t.Errorf("%s looks at problems of the kind %q, which is not its", name, kind)
				}
			}
		}
	}
}

// dashboard is what this test looks at of Grafana's model.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct{ RefID, Expr, LegendFormat string }
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Annotations struct{ List []struct{ Expr string } }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// expressions returns what the dashboard asks Prometheus for.
func (d dashboard) expressions() (list []string) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list = append(list, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		list = append(list, a.Expr)
	}
	return list
}

func TestDashboardNamesWhatIsWritten(t *testing.T) {
	d, all := readDashboard(t), written(t)
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if q, ok := v.Query.(map[string]any); ok {
			text := fmt.Sprint(q["query"])
			if checkExpression(t, "the variable "+v.Name, text, all) == 0 || !strings.HasSuffix(text, ", "+v.Name+")") {
				t.Errorf("the variable %s asks for %s", v.Name, text)
			}
		}
	}
	for _, name := range []string{"datasource", "instance", "service", "group"} {
		if !variables[name] {
			t.Errorf("there is no variable %s", name)
		}
	}
	shown := map[string]bool{}
	for _, e := range d.expressions() {
		if checkExpression(t, e, e, all) == 0 {
			t.Errorf("%q names no metric", e)
		}
		for _, name := range metricName.FindAllString(e, -1) {
			shown[name] = true
		}
		for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(e, -1) {
			if !variables[m[1]] {
				t.Errorf("%s uses the variable %s, which there is not", e, m[1])
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "txlb_") && !shown[name] && name != "txlb_build_info" {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// Panels have what to ask and a place of their own.
func TestDashboardIsLaidOut(t *testing.T) {
	d := readDashboard(t)
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %d %q: no title, or a number twice", p.ID, p.Title)
		}
		ids[p.ID] = true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q asks for %d things", p.Title, len(p.Targets))
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q is where %q is", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if d.UID == "" || d.Title != "txlb" || len(d.Panels) < 20 {
		t.Errorf("dashboard %q (%s) has %d panels", d.Title, d.UID, len(d.Panels))
	}
}

// Prometheus's own tool takes the rules, finds that alerts come when they
// should, and takes every expression of the dashboard.
func TestPromtoolTakesThem(t *testing.T) {
	debian.NeedFor(t, "promtool")
	promtool := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	promtool("check", "rules", rulesFile)
	promtool("test", "rules", "testdata/txlb.rules.test.yml")
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	fill := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$service", ".*", "$group", ".*")
	for i, e := range readDashboard(t).expressions() {
		fmt.Fprintf(&rules, "  - {record: 'dashboard:%d', expr: '%s'}\n", i, strings.ReplaceAll(fill.Replace(e), "'", "''"))
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool("check", "rules", file)
}

// The number of descriptors is right, whichever way the kernel tells it.
func TestOpenDescriptors(t *testing.T) {
	for name, count := range map[string]func() (uint64, bool){"told": openFDs, "listed": listFDs} {
		// What other tests have left to the network's poller may close meanwhile.
		right := func() bool {
			before, ok := count()
			if !ok {
				t.Fatal("not known")
			}
			for range 10 {
				f, err := os.Open("/dev/null")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = f.Close() }()
			}
			after, _ := count()
			return after == before+10
		}
		tries := 1
		for ; !right() && tries < 20; tries++ {
		}
		if tries == 20 {
			t.Errorf("%s: ten more descriptors are not ten more", name)
		}
	}
	if told, _ := openFDs(); told < 3 || told > 1000 {
		t.Errorf("%d descriptors are open", told)
	}
}
