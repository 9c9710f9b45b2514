//go:build unix

package socket

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// The profiles are what go tool pprof reads, whichever way they come.
func TestProfiles(t *testing.T) {
	testkit.Long(t)
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	c := r.client()
	file := filepath.Join(t.TempDir(), "x.pprof")
	read := func(name string, data []byte, want string) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%.2000s", name, err, out)
		}
	}
	read("heap", []byte(r.raw("show pprof heap")), "Type: inuse_space")
	read("goroutine", r.do(c, "show pprof goroutine").Raw, "Type: goroutine")
	read("cpu", r.do(c, "show pprof profile 1").Raw, "Type: cpu")
	if got := r.ask("show pprof goroutine text"); !strings.Contains(got, "goroutine profile: total ") {
		t.Errorf("got %.300q", got)
	}
	for line, want := range map[string]string{
		"show pprof": "usage: ", "show pprof x": "usage: ", "show pprof heap 5": "usage: ", "show pprof heap text now": "usage: ",
		"show pprof profile 0": "1 to 60 seconds", "show pprof profile 61": "1 to 60 seconds", "show pprof profile x": "1 to 60 seconds",
	} {
		if got := r.ask(line); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
	if !strings.Contains(r.log.String(), `verb="show pprof heap"`) {
		t.Error("who makes a profile is not in the log")
	}
	info := into[runtimeInfo](t, r.do(c, "show runtime"))
	if info.Goroutines < 3 || info.Mapped <= info.Heap || info.Heap == 0 || info.Processors == 0 {
		t.Errorf("%+v", info)
	}
}
