package engine

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// TCP's keep-alive runs on both sides of a half-closed session: a client that
// has gone without a word is found out long before the timeout.
func TestHalfClosedSessionsAreProbed(t *testing.T) {
	ended := make(chan net.Addr)
	r := newRig(t, Options{Loops: 1}, Route{}, backendServer(t, func(p *peer) {
		p.expectEOF()
		ended <- p.RemoteAddr()
		<-ended
	}))
	c := r.dial()
	c.fin()
	toBackend := <-ended
	for what, port := range map[string]int{
		"client":  c.LocalAddr().(*net.TCPAddr).Port,
		"backend": toBackend.(*net.TCPAddr).Port,
	} {
		eventually(t, "keep-alive runs toward the "+what, func() bool {
			return probed(t, port, what == "backend")
		})
	}
	close(ended)
	c.expectEOF()
}

// probed tells whether the keep-alive timer runs on the engine's socket that has
// port on its own side, or else on the other.
func probed(t *testing.T, port int, own bool) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	column := 2 // sl, local, remote, state, queues, timer
	if own {
		column = 1
	}
	for line := range strings.Lines(string(text)) {
		// What is accepted by the engine and what it connects both live on
		// 127.0.0.1; the port of the connecting end is on one socket of each side.
		f := strings.Fields(line)
		if len(f) > 5 && strings.HasSuffix(f[column], fmt.Sprintf(":%04X", port)) {
			return strings.HasPrefix(f[5], "02:")
		}
	}
	return false
}
