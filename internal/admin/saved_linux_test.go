package admin

import (
	"strings"
	"syscall"
	"testing"

	"github.com/txlb/txlb/internal/sandbox"
)

// Who saves is told if the file could not be replaced; the log says so once.
func TestSaveSaysHowItWasWritten(t *testing.T) {
	if !sandbox.Mounts(t) {
		return
	}
	r := newRig(t, plainDoc())
	if err := syscall.Mount(r.file, r.file, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(r.file, syscall.MNT_DETACH) })
	const note = "cannot be replaced (device or resource busy): it was written in place"
	for range 3 {
		r.do("addHost web spare x 127.0.0.1:9")
		r.contains(r.do("saveConfig"), "written with 1 change\nwarning: "+r.file+" "+note)
		r.do("delHost web spare x")
		r.do("saveConfig")
	}
	if log := r.log.String(); strings.Count(log, note) != 1 {
		t.Errorf("the log has:\n%s", log)
	}
}
