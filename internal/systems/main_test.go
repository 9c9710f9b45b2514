package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module writes a module of some files.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.26\n"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What compiles here and not elsewhere is found, in programs and in both kinds of tests.
func TestFindsWhatIsOfOneSystem(t *testing.T) {
	dir := module(t, map[string]string{
		"a/a.go":           "package a\n\nimport \"syscall\"\n\n// Kill kills.\nfunc Kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }\n",
		"b/b.go":           "package b\n\nvar Size = 1 << 20\n",
		"b/b_test.go":      "package b\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) {\n\tSize = 1 << 40\n}\n",
		"b/x_test.go":      "package b_test\n\nimport (\n\t\"syscall\"\n\t\"testing\"\n\n\t\"example.com/m/b\"\n)\n\nfunc TestX(t *testing.T) {\n\tvar s syscall.Stat_t\n\t_ = s.Ino\n\t_ = b.Size\n}\n",
		"c/c.go":           "package main\n\nfunc main() { run() }\n",
		"c/run_linux.go":   "package main\n\nfunc run() {}\n",
		"d/d_portable.go":  "//go:build portable\n\npackage d\n\nimport \"fmt\"\n",
		"d/d.go":           "package d\n",
		"internal/i/ok.go": "package i\n",
	})
	want := map[string][]string{
		"linux/amd64":          nil,
		"linux/arm":            {"b/b_test.go:6:9: cannot use 1 << 40"},
		"darwin/arm64":         {"c/c.go:3:15: undefined: run"},
		"windows/amd64":        {"a/a.go:6:43: undefined: syscall.Kill", "c/c.go:3:15: undefined: run", "b/x_test.go:11:16: undefined: syscall.Stat_t"},
		"linux/amd64/portable": {`d/d_portable.go:5:8: "fmt" imported and not used`},
		"linux/none":           {`unknown processor "none"`},
	}
	// As a program of its own: with the race detector it takes ten times as long.
	program := filepath.Join(t.TempDir(), "systems.exe")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, slices.Sorted(maps.Keys(want))...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	said := strings.ReplaceAll(string(out), `\`, "/")
	if err == nil {
		t.Errorf("it found nothing: %s", said)
	}
	for system, problems := range want {
		if len(problems) == 0 {
			problems = []string{"compiles, tests too"}
		}
		for _, p := range problems {
			if !strings.Contains(said, system+": "+p) {
				t.Errorf("it does not say %q", system+": "+p)
			}
		}
	}
	if lines := strings.Count(said, "\n"); lines != 8 || t.Failed() {
		t.Errorf("it says\n%s", said)
	}
}
