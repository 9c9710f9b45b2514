//go:build unix

package testkit

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Silent returns the address of a listener on loopback whose queue is full: the system
// answers no further connection, and none is refused.
func Silent(t testing.TB) string {
	t.Helper()
	fd, err := socket(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := sa.(*unix.SockaddrInet4).Port
	for range 8 { // one is queued, the others wait for an answer
		answered, err := answers(t, port)
		if err != nil {
			t.Fatal(err)
		}
		if !answered {
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	t.Skip("this system has no full accept queue that stays silent")
	return ""
}

// answers connects to a port and tells whether the system answers, which takes it no
// time on loopback. It asks the socket itself, so that a busy machine is not taken for
// silence.
func answers(t testing.TB, port int) (bool, error) {
	fd, err := socket(t)
	if err != nil {
		return false, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return false, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return false, err
	}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
		if n, err := unix.Poll(ready, 10); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true, err
		}
	}
	// The time may be over because this process stood still.
	for {
		n, err := unix.Poll(ready, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// socket returns a TCP socket that is open until the end of the test.
func socket(t testing.TB) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return fd, err
}
