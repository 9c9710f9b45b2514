//go:build linux

package loops

import (
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/sched"
)

// An event accepts as many connections as the one before found, more from turn to turn
// while some are left, and all come in.
func TestAcceptsAsManyAsTheLastEventFound(t *testing.T) {
	ln := &listener{}
	defer ln.close()
	// A UNIX socket has a connection in its queue when connect(2) returns.
	if err := ln.openUnix(filepath.Join(t.TempDir(), "s"), 1, 64); err != nil {
		t.Fatal(err)
	}
	var accepts atomic.Uint64
	sh := &shard{listener: ln, fd: ln.fds[0]}
	a := acceptor{
		shards: []*shard{sh}, census: newCensus(0), accepts: &accepts,
		open: func(fd int32, _ sched.Addr, _ *shard) { closeFD(fd) },
	}
	to := &unix.SockaddrUnix{Name: ln.file.Path}
	for i, step := range []struct {
		come int // connections before the turn
		want int // of all that wait, accepted in the turn
	}{
		{1, 1}, {0, 0}, {0, 0}, // one is found without a look for another
		{7, 1}, {0, 2}, {0, 4}, {0, 0}, // a crowd is found out
		{0, 0}, {5, 4}, {0, 1}, // the crowd before is remembered
		{2, 1}, {0, 1}, {1, 1}, // and forgotten
	} {
		for range step.come {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(fd) }()
			if err := unix.Connect(fd, to); err != nil {
				t.Fatal(err)
			}
		}
		a.turn++
		before := accepts.Load()
		if waits(sh.fd) {
			a.event(0)
		}
		if got := int(accepts.Load() - before); got != step.want {
			t.Errorf("step %d: %d accepted, want %d", i, got, step.want)
		}
	}
}

// waits tells whether a listener has connections: whether epoll would tell the loop.
func waits(fd int32) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}
