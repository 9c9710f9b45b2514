package txlb

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

const module = "github.com/txlb/txlb"

var update = flag.Bool("update", false, "write the table of rooms in docs/architecture.md")

// rooms says which packages of the module each room may import; the table in
// docs/architecture.md is made from it. What is not listed may import none. The
// tests of a room may import more.
var rooms = map[string][]string{
	"":                           {"config", "config/changes", "engine", "engine/native", "internal/director", "internal/edits", "internal/metrics", "internal/status", "sched"},
	"cmd/txlb":                   {"config", "config/changes", "config/document", "engine", "engine/native", "internal/accesslog", "internal/admin", "internal/admin/console", "internal/admin/control", "internal/admin/socket", "internal/admin/ssh", "internal/admin/users", "internal/admin/web", "internal/convert", "internal/director", "internal/health", "internal/logs", "internal/manual", "internal/metrics", "internal/passwd", "internal/status", "internal/words", "sched", "splice", "internal/guard", "internal/keeper", "internal/handover", "internal/fleet", "internal/fleet/etcd"},
	"config":                     {"config/internal/address", "config/internal/charset", "config/internal/tree", "internal/words", "sched"},
	"config/changes":             {"config", "config/internal/address", "config/internal/tree", "internal/words"},
	"config/document":            {"config", "config/changes", "config/internal/charset", "config/internal/tree"},
	"config/internal/address":    {},
	"config/internal/charset":    {},
	"config/internal/models":     {"config", "config/internal/address", "sched"},
	"config/internal/tree":       {},
	"sched":                      {},
	"splice":                     {},
	"engine":                     {"sched"},
	"engine/native":              {"engine", "engine/internal/loops", "engine/internal/portable", "internal/connect"},
	"engine/internal/core":       {"engine", "internal/clienthello", "internal/connect", "internal/proxyproto", "internal/zone", "sched"},
	"engine/internal/conns":      {"engine", "engine/internal/core", "internal/clienthello", "internal/connect", "internal/gate", "internal/zone", "sched", "splice"},
	"engine/internal/loops":      {"engine", "engine/internal/conns", "engine/internal/core", "internal/connect", "internal/uring", "internal/zone", "sched", "splice"},
	"engine/internal/portable":   {"engine", "engine/internal/conns", "engine/internal/core", "internal/connect", "sched"},
	"engine/internal/enginetest": {"engine", "internal/servers", "internal/testkit", "sched"},
	"internal/acl":               {},
	"internal/routing":           {},
	"internal/certs":             {},
	"internal/clienthello":       {},
	"internal/keeper":            {"engine"},
	"internal/admin":             {"config", "config/changes", "engine", "internal/director", "internal/edits", "internal/explain", "internal/passwd", "internal/status", "internal/words", "sched", "internal/admin/users", "internal/logs", "internal/guard"},
	"internal/admin/users":       {"config", "internal/passwd", "internal/logs", "internal/guard"},
	"internal/admin/control":     {"engine", "internal/guard"},
	"internal/admin/socket":      {"config", "engine", "internal/admin", "internal/director", "internal/health", "internal/status", "internal/words", "sched", "internal/admin/users", "internal/guard"},
	"internal/admin/console":     {"config", "internal/admin", "internal/status", "internal/words", "sched"},
	"internal/admin/ssh":         {"internal/admin", "internal/admin/console", "internal/words", "internal/admin/users", "internal/guard"},
	"internal/director":          {"config", "config/changes", "config/document", "engine", "internal/acl", "internal/certs", "internal/health", "internal/routing", "sched"},
	"internal/edits":             {"config", "engine", "internal/director", "internal/words"},
	"internal/connect":           {},
	"internal/convert":           {"config", "sched"},
	"internal/fleet":             {"config", "config/changes", "engine", "internal/director", "internal/fleet/peers", "internal/fleet/quota", "internal/words"},
	"internal/fleet/etcd":        {"config", "internal/fleet"},
	"internal/fleet/peers":       {},
	"internal/fleet/quota":       {},
	"internal/gate":              {},
	"internal/guard":             {"internal/gate"},
	"internal/handover":          {},
	"internal/health":            {"internal/connect", "internal/proxyproto", "internal/zone", "sched"},
	"internal/words":             {},
	"internal/zone":              {},
	"internal/proxyproto":        {},
	"internal/uring":             {},
	"internal/logs":              {},
	"internal/manual":            {"config", "internal/admin", "sched"},
	"internal/accesslog":         {"engine", "internal/explain", "internal/logs", "internal/words", "sched"},
	"internal/explain":           {"engine", "internal/words", "sched"},
	"internal/debian":            {},
	"internal/servers":           {"internal/debian"},
	"internal/testkit":           {"internal/servers"},
	"internal/rig":               {"config", "config/document", "engine", "engine/native", "internal/director", "internal/testkit", "sched"},
	"internal/sandbox":           {},
	"internal/systems":           {},
	"internal/container":         {"internal/debian", "internal/sandbox", "internal/testkit"},
	"internal/examples":          {},
	"internal/metrics":           {"engine", "internal/director", "internal/fleet", "internal/status", "sched", "internal/guard"},
	"internal/status":            {"config", "config/changes", "engine", "internal/director", "internal/fleet", "internal/logs", "internal/words", "sched", "internal/guard"},
	"internal/packaging":         {},
	"internal/passwd":            {},
	"bench":                      {"bench/internal/floor", "config", "engine", "internal/debian", "internal/servers", "sched", "splice"},
	"bench/internal/floor":       {"internal/uring"},
	"soak":                       {"config", "engine", "internal/debian", "internal/director", "internal/rig", "internal/servers", "sched"},
	"soak/fleet":                 {"internal/debian", "internal/sandbox", "internal/servers"},
	"internal/admin/web":         {"internal/certs", "config", "engine", "internal/admin", "internal/admin/web/page", "internal/director", "internal/explain", "internal/fleet", "internal/status", "internal/words", "sched", "internal/admin/users", "internal/logs", "internal/guard"},
	"internal/admin/web/page":    {"config", "engine", "internal/admin", "internal/director", "internal/explain", "internal/fleet", "internal/status", "internal/words", "sched"},
}

// outside says which rooms alone may know an outside library.
var outside = map[string][]string{
	"github.com/panjf2000/gnet/v2":       {"engine/internal/loops"},
	"github.com/beevik/etree":            {"config"},
	"github.com/VictoriaMetrics/metrics": {"internal/metrics"},
	"github.com/coreos/go-systemd/v22":   {"cmd/txlb"},
	"github.com/go-crypt/x":              {"internal/passwd"},
	"github.com/gaissmai/bart":           {"internal/acl", "internal/routing"},
	"golang.org/x/crypto/cryptobyte":     {"internal/clienthello", "internal/health"},
	"golang.org/x/crypto/ssh":            {"internal/admin/ssh"},
	"github.com/cilium/ebpf":             {"bench"},
	"go.etcd.io/etcd":                    {"internal/fleet/etcd"},
	"go.uber.org/zap":                    {"internal/fleet/etcd"},
	"google.golang.org/grpc":             {"internal/fleet/etcd"},
	"golang.org/x/term":                  {"internal/admin/console", "cmd/txlb"},
}

// pkg is what `go list -json` says of a package, as far as the fence needs it.
type pkg struct {
	ImportPath, Name, Doc string
	Imports               []string
}

// room is the folder of a package, "" for the root.
func (p pkg) room() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// TestImportsKeepToTheRooms fails when an import breaks the table of rooms.
func TestImportsKeepToTheRooms(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range list(t, goos) {
			room := p.room()
			allowed, known := rooms[room]
			if !known {
				t.Errorf("package %q is in no room: add it to the table in txlb_test.go", room)
				continue
			}
			for _, path := range p.Imports {
				if in, ours := strings.CutPrefix(path, module+"/"); ours {
					if !slices.Contains(allowed, in) {
						t.Errorf("%s (GOOS=%s) imports %s, which the table of rooms does not allow", room, goos, in)
					}
					continue
				}
				for lib, owners := range outside {
					if (path == lib || strings.HasPrefix(path, lib+"/")) && !slices.Contains(owners, room) {
						t.Errorf("%s (GOOS=%s) imports %s, which only %s may know", room, goos, path, strings.Join(owners, ", "))
					}
				}
			}
		}
	}
}

// TestArchitectureHasTheRooms holds the table of rooms in docs/architecture.md
// and the code together. What a room is for is the first sentence of its
// package comment.
func TestArchitectureHasTheRooms(t *testing.T) {
	testkit.Tables(t, "docs/architecture.md", *update, "go test . -run TestArchitectureHasTheRooms -update",
		map[string]string{"rooms": roomTable(list(t, "linux"))})
}

// roomTable writes rooms as a table, with the outside libraries that only they
// may import.
func roomTable(packages []pkg) string {
	link := regexp.MustCompile(`\[([\w.]+)\]`)
	var b strings.Builder
	b.WriteString("| room | what it does | may import | libraries of its own |\n|---|---|---|---|\n")
	for _, p := range packages {
		if p.Doc == "" { // of a folder that has tests alone
			continue
		}
		about := strings.TrimPrefix(strings.TrimPrefix(p.Doc, "Package "+p.Name+" "), "Command "+path.Base(p.ImportPath)+" ")
		about = link.ReplaceAllString(strings.TrimSuffix(about, "."), "`$1`")
		var imports, libraries []string
		for _, in := range rooms[p.room()] {
			imports = append(imports, strings.TrimPrefix(in, "internal/"))
		}
		for lib, owners := range outside {
			if slices.Contains(owners, p.room()) {
				libraries = append(libraries, strings.TrimPrefix(lib, "github.com/"))
			}
		}
		slices.Sort(imports)
		slices.Sort(libraries)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.room(), about, orDash(imports), orDash(libraries))
	}
	return b.String()
}

func orDash(names []string) string {
	if len(names) == 0 {
		return "–"
	}
	return strings.Join(names, ", ")
}

// TestBehavioursHaveTests holds docs/behaviours.md and the tests together: each
// statement that is not planned has a test, and each test named after a number
// has a statement. A test is named after the numbers it is about: TestB07…, or
// TestB07…AndB08….
func TestBehavioursHaveTests(t *testing.T) {
	const page = "docs/behaviours.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	planned := map[int]bool{} // by number
	next := 1
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. (\*\*Planned\.\*\*)?`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[1])
		if n != next {
			t.Errorf("%s: statement %d stands where %d should", page, n, next)
		}
		planned[n], next = m[2] != "", n+1
	}
	tested := testedBehaviours(t)
	for n, later := range planned {
		switch name := tested[n]; {
		case later && name != "":
			t.Errorf("%s: statement %d is marked **Planned.**, but has the test %s: delete the mark", page, n, name)
		case !later && name == "":
			t.Errorf("%s: statement %d has no test; name one TestB%02d…, or mark it **Planned.**", page, n, n)
		}
	}
	for n, name := range tested {
		if _, stated := planned[n]; !stated {
			t.Errorf("%s: %s has no statement %d", page, name, n)
		}
	}
}

// testedBehaviours returns the numbers in names of tests, each with a test.
func testedBehaviours(t *testing.T) map[int]string {
	t.Helper()
	tested := map[int]string{}
	name := regexp.MustCompile(`(?m)^func (TestB\d{2,3}\w*)\(`)
	number := regexp.MustCompile(`B(\d{2,3})`)
	for _, text := range testFiles(t) {
		for _, test := range name.FindAllStringSubmatch(text, -1) {
			for _, n := range number.FindAllStringSubmatch(test[1], -1) {
				i, _ := strconv.Atoi(n[1])
				tested[i] = test[1]
			}
		}
	}
	return tested
}

// testFiles returns the text of each file with tests, by its path.
func testFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestBubblesAreSafe fails for a bubble that the race detector may crash in: see
// testkit.Bubble.
func TestBubblesAreSafe(t *testing.T) {
	bare := regexp.MustCompile(`\bsynctest\.(Test|Run)\(`)
	for path, text := range testFiles(t) {
		if at := bare.FindStringIndex(text); at != nil {
			t.Errorf("%s:%d: use testkit.Bubble instead of synctest.Test", path, 1+strings.Count(text[:at[0]], "\n"))
		}
	}
}

// TestDependenciesStayFew holds the set of modules that the program is built
// of: a small tree that one person can read is a goal of its own.
func TestDependenciesStayFew(t *testing.T) {
	want := []string{
		"github.com/VictoriaMetrics/metrics", "github.com/beevik/etree", "github.com/coreos/go-systemd/v22", "github.com/gaissmai/bart", "github.com/go-crypt/x",
		"github.com/panjf2000/gnet/v2", "github.com/valyala/fastrand", "github.com/valyala/histogram", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/term",
		// etcd's client and what that needs, for fleets.
		"go.etcd.io/etcd/api/v3", "go.etcd.io/etcd/client/pkg/v3", "go.etcd.io/etcd/client/v3", "github.com/coreos/go-semver", "github.com/golang/protobuf",
		"github.com/grpc-ecosystem/grpc-gateway/v2", "go.uber.org/multierr", "go.uber.org/zap", "golang.org/x/net", "golang.org/x/text",
		"google.golang.org/genproto/googleapis/api", "google.golang.org/genproto/googleapis/rpc", "google.golang.org/grpc", "google.golang.org/protobuf",
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/txlb").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, m := range slices.Compact(slices.Sorted(strings.FieldsSeq(string(out)))) {
		if m != module && !slices.Contains(want, m) {
			t.Errorf("cmd/txlb depends on %s, which is not agreed on", m)
		}
	}
}

func list(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports", "./...")
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v", goos, err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// make fuzz runs every fuzz function, each alone in its package.
func TestMakeFuzzRunsEveryFuzzFunction(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not here")
	}
	out, err := exec.Command("make", "--no-print-directory", "-n", "fuzz").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	function := regexp.MustCompile(`(?m)^func (Fuzz\w*)\(f \*testing\.F\)`)
	err = filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			folder := "./" + filepath.ToSlash(filepath.Dir(file))
			if folder == "./." {
				folder = "."
			}
			want = append(want, folder+" -run '^$' -fuzz '^"+m[1]+"$'")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	command := regexp.MustCompile(`^\S+ test (.+) -fuzztime 60s$`)
	for line := range strings.Lines(string(out)) {
		if m := command.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			got = append(got, m[1])
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("make fuzz runs\n%s\nand not\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
