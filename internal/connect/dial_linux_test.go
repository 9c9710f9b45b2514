package connect

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full is the address of a listener whose queue is full: connects to it are not
// answered.
func full(t *testing.T) string {
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
	address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	return address
}

func TestDialTimesOut(t *testing.T) {
	const within = 100 * time.Millisecond
	address := full(t)
	start := time.Now()
	_, err := Dial(t.Context(), net.Dialer{}, "tcp", address, within)
	var netErr net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() || time.Since(start) < within {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, net.Dialer{}, "tcp", address, within); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := Dial(ctx, net.Dialer{}, "tcp", address, time.Hour); !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("out of the caller's time: %v", err)
	}
}

// B66: an answer that is there when the time is over counts.
func TestAnswerInTimeCounts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for address, want := range map[string]bool{ln.Addr().String(): false, full(t): true} {
		var l *limit
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			l.watch(c)
			return nil
		}}
		var ctx context.Context
		within := time.Hour
		if want {
			within = 50 * time.Millisecond
		}
		ctx, l = newLimit(t.Context(), within)
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			l.end() // as late as it may be
			_ = conn.Close()
		}
		if l.over.Load() != want || (err != nil) != want {
			t.Errorf("%s: out of time %v, %v", address, l.over.Load(), err)
		}
		l.stop()
	}
}
