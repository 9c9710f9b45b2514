package health

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A host whose address family the system lacks has failed its check.
func TestB70MissingFamilyIsAFailedCheck(t *testing.T) {
	if !sandbox.NoFamily(t, syscall.AF_INET6) {
		return
	}
	for way, probe := range ways {
		if r := probe(t.Context(), Probe{Addr: parse(t, "[::1]:9"), Timeout: testkit.Patience}); r.Code != L4Con || r.Text != syscall.EAFNOSUPPORT.Error() {
			t.Errorf("%s: %v", way, r)
		}
	}
}

// So has one whose UNIX socket we may not connect to.
func TestB70ForbiddenIsAFailedCheck(t *testing.T) {
	if !sandbox.Unprivileged(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	for way, probe := range ways {
		if r := probe(t.Context(), Probe{Addr: sched.UnixAddr(path), Timeout: testkit.Patience}); r.Code != L4Con || r.Text != syscall.EACCES.Error() {
			t.Errorf("%s: %v", way, r)
		}
	}
}

// A check waits for room in the queue of a UNIX socket, and times out where there
// is none.
func TestB70FullQueueIsAskedAgain(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	path := filepath.Join(t.TempDir(), "s")
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for way, probe := range ways {
		first, err := net.Dial("unix", path) // takes the only place
		if err != nil {
			t.Fatal(err)
		}
		p := Probe{Addr: sched.UnixAddr(path), Timeout: 100 * time.Millisecond}
		if r := probe(t.Context(), p); r.Code != L4Tout || r.Text != "no answer within 100ms" || r.Took < p.Timeout {
			t.Errorf("%s: full for good: %v after %v", way, r, r.Took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p.Timeout = time.Hour
		ended := make(chan Result, 1)
		go func() { ended <- probe(ctx, p) }()
		cancel()
		if r := <-ended; r.Tells() {
			t.Errorf("%s: given up: %v", way, r)
		}
		go func() { ended <- probe(t.Context(), p) }()
		select {
		case r := <-ended:
			t.Errorf("%s: full: %v", way, r)
		case <-time.After(50 * time.Millisecond): // it waits; nothing to see from outside tells so
		}
		for range 2 { // the first and the probe
			c, _, err := syscall.Accept(fd)
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Close(c)
		}
		if r := <-ended; !r.OK() {
			t.Errorf("%s: room again: %v", way, r)
		}
		_ = first.Close()
	}
}

// A check that meets itself has met nobody, and leaves the host its port.
func TestB74NoCheckMeetsItself(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	sandbox.LocalPorts(t, 40000, 40001) // the kernel tries the first one first
	for way, probe := range ways {
		for _, addr := range []string{"127.0.0.1:40000", "[::1]:40000"} {
			if r := probe(t.Context(), Probe{Addr: parse(t, addr), Timeout: testkit.Patience}); r.Code != L4Con || r.Text != syscall.ECONNREFUSED.Error() {
				t.Errorf("%s, %s: %v", way, addr, r)
			}
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				t.Errorf("%s, %s: the host cannot have its port: %v", way, addr, err)
				continue
			}
			_ = ln.Close()
		}
	}
}
