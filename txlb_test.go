package txlb

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/txlb/txlb"

// rooms says which packages of the module each room may import: the table of
// docs/architecture.md. What is not listed may import none. The tests of a room
// may import whatever the room may, and what they are listed for below.
var rooms = map[string][]string{
	"":                        {"config", "engine", "internal/director", "internal/logs", "sched"},
	"cmd/txlb":                {"config", "engine", "internal/admin", "internal/admin/console", "internal/admin/control", "internal/admin/socket", "internal/admin/ssh", "internal/admin/web", "internal/director", "internal/health", "internal/logs", "internal/metrics", "internal/passwd", "sched", "splice"},
	"config":                  {"sched"},
	"sched":                   {},
	"splice":                  {},
	"engine":                  {"internal/connect", "sched", "splice"},
	"internal/admin":          {"config", "engine", "internal/director", "internal/passwd", "sched"},
	"internal/admin/control":  {"engine"},
	"internal/admin/socket":   {"config", "sched", "engine", "internal/admin", "internal/director", "internal/health"},
	"internal/admin/console":  {"config", "internal/admin"},
	"internal/admin/ssh":      {"internal/admin", "internal/admin/console"},
	"internal/director":       {"config", "engine", "internal/health", "sched"},
	"internal/connect":        {},
	"internal/health":         {"internal/connect", "sched"},
	"internal/logs":           {},
	"internal/debian":         {},
	"internal/leaktest":       {},
	"internal/sandbox":        {},
	"internal/metrics":        {"engine", "internal/director", "sched"},
	"internal/passwd":         {},
	"bench":                   {"config", "engine", "internal/debian", "sched", "splice"},
	"soak":                    {"config", "engine", "internal/debian", "internal/director", "sched"},
	"internal/admin/web":      {"config", "sched", "engine", "internal/admin", "internal/admin/web/page", "internal/director"},
	"internal/admin/web/page": {"config", "sched", "engine", "internal/director", "internal/admin"},
}

// outside says which rooms alone may know an outside library.
var outside = map[string][]string{
	"github.com/panjf2000/gnet/v2":       {"engine"},
	"github.com/beevik/etree":            {"config"},
	"github.com/VictoriaMetrics/metrics": {"internal/metrics"},
	"github.com/coreos/go-systemd/v22":   {"cmd/txlb"},
	"github.com/go-crypt/x":              {"internal/passwd"},
	"golang.org/x/crypto/cryptobyte":     {"internal/health"},
	"golang.org/x/crypto/ssh":            {"internal/admin/ssh"},
	"golang.org/x/term":                  {"internal/admin/console", "cmd/txlb"},
}

// pkg is what `go list -json` says of a package, as far as the fence needs it.
type pkg struct {
	ImportPath string
	Imports    []string
}

// TestImportsKeepToTheRooms fails when an import breaks the table of rooms.
func TestImportsKeepToTheRooms(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range list(t, goos) {
			room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
			allowed, known := rooms[room]
			if !known {
				t.Errorf("package %q is in no room: add it to the table here and in docs/architecture.md", room)
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

// covered are the numbered statements of what the balancer does that must have
// a test; the others come with the parts that they are about.
var covered = []struct{ from, to int }{{1, 39}, {43, 54}, {57, 57}, {59, 61}, {63, 66}, {68, 74}, {76, 76}}

// TestBehavioursHaveTests fails when a statement has lost its test. A test is
// named after the numbers it is about: TestB07…, or TestB07…AndB08….
func TestBehavioursHaveTests(t *testing.T) {
	tested := map[int]bool{}
	name := regexp.MustCompile(`(?m)^func Test(B\d\d\w*)\(`)
	number := regexp.MustCompile(`B(\d\d)`)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, test := range name.FindAllStringSubmatch(string(text), -1) {
			for _, n := range number.FindAllStringSubmatch(test[1], -1) {
				i, _ := strconv.Atoi(n[1])
				tested[i] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range covered {
		for n := r.from; n <= r.to; n++ {
			if !tested[n] {
				t.Errorf("behaviour %d has no test", n)
			}
		}
	}
}

// TestDependenciesStayFew holds the set of modules that the program is built
// of: a small tree that one person can read is a goal of its own.
func TestDependenciesStayFew(t *testing.T) {
	want := []string{
		"github.com/VictoriaMetrics/metrics", "github.com/beevik/etree", "github.com/coreos/go-systemd/v22", "github.com/go-crypt/x",
		"github.com/panjf2000/gnet/v2", "github.com/valyala/fastrand", "github.com/valyala/histogram", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/term",
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
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
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
