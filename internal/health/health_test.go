package health

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/leaktest"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func parse(t *testing.T, s string) sched.Addr {
	t.Helper()
	a, err := sched.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": path} {
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		if network == "unix" {
			addr = "unix:" + addr
		}
		if err := TCP(t.Context(), parse(t, addr)); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		// The other side sees a reset at once, or an end on a UNIX socket.
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
			t.Errorf("%s: the probe left the connection: %v", network, err)
		}
		_ = c.Close()
		_ = ln.Close()
		if err := TCP(t.Context(), parse(t, addr)); err == nil {
			t.Errorf("%s: a closed port passed", network)
		} else if !strings.Contains(err.Error(), addr) || strings.Count(err.Error(), addr) > 1 {
			t.Errorf("%s: reason %q", network, err)
		}
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := TCP(ctx, parse(t, "127.0.0.1:1")); err == nil {
		t.Error("a probe passed after its context had ended")
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := TCP(ctx, parse(t, "127.0.0.1:1")); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("reason %v", err)
	}
}
