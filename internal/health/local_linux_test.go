package health

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process without a free descriptor cannot tell whether a host is up.
func TestB30OurOwnFaultsAreTold(t *testing.T) {
	for way, probe := range ways {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := Probe{Addr: parse(t, ln.Addr().String()), Timeout: 5 * time.Second}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		none := limit
		none.Cur = 0
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
			t.Fatal(err)
		}
		r := probe(t.Context(), p)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if r.Code != SockErr || r.Tells() || r.Text != syscall.EMFILE.Error() {
			t.Errorf("%s without a descriptor: %v", way, r)
		}
		_ = ln.Close()
		if r := probe(t.Context(), p); r.Code != L4Con || !r.Tells() {
			t.Errorf("%s to a closed port: %v", way, r)
		}
	}
}

// fullListener listens with a queue of one, and fills it.
func fullListener(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()
	for range 3 {
		c, err := net.DialTimeout("tcp", addr, 50*time.Millisecond)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
	return ""
}

// A TCP probe by Connect is over before the host has a connection to accept.
func TestConnectLeavesNothingToAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	p := Probe{Addr: parse(t, ln.Addr().String()), Timeout: 5 * time.Second}
	for range 10 {
		if r := ways["Connect"](t.Context(), p); !r.OK() {
			t.Fatal(r)
		}
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	if got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("the first connection to accept is of %v, not of %v", got.RemoteAddr(), c.LocalAddr())
	}
}
