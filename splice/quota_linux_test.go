package splice

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/sandbox"
)

// A user without privileges has less than he asks for, and exactly what the pool can get.
func TestQuota(t *testing.T) {
	if !sandbox.Unprivileged(t) {
		return
	}
	const size, most = 1 << 20, 1 << 30
	got := Quota(size, most)
	if got > most {
		t.Errorf("%d bytes", got)
	}
	text, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Skip(err)
	}
	t.Logf("%d MiB, and pipe-user-pages-soft is %s", got>>20, text)
	if got := Quota(size, size); got > size {
		t.Errorf("%d bytes of at most one pipe", got)
	}
	// Without descriptors nothing is known, and none is lost.
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 8, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	if got := Quota(size, most); got != most {
		t.Errorf("without descriptors: %d", got)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
}
