package connect

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestDialTimesOut(t *testing.T) {
	const within = 100 * time.Millisecond
	address := testkit.Silent(t)
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
	for address, want := range map[string]bool{ln.Addr().String(): false, testkit.Silent(t): true} {
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
