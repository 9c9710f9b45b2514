package engine_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// TCP's keep-alive runs on both sides of a half-closed session: a client that
// has gone without a word is found out long before the timeout.
func TestHalfClosedSessionsAreProbed(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	ended := make(chan *enginetest.Peer, 1)
	times := enginetest.TestTimeouts
	times.KeepAlive = time.Minute
	r := newRig(t, onLoops(engine.Options{Loops: 1}), engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		p.ExpectEOF()
		ended <- p
		<-p.T.Context().Done()
	}))
	c := r.Dial()
	c.Fin()
	b := <-ended
	// The engine's socket is the other end of each connection.
	for what, p := range map[string]*enginetest.Peer{"client": c, "backend": b} {
		testkit.Eventually(t, "keep-alive runs toward the "+what, func() bool {
			return probed(t, p.RemoteAddr(), p.LocalAddr())
		})
	}
}

// probed tells whether the keep-alive timer runs on the socket of a TCP
// connection over 127.0.0.1 (/proc/net/tcp, see proc_net_tcp.txt of Linux).
func probed(t *testing.T, local, remote net.Addr) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	ends := fmt.Sprintf(": 0100007F:%04X 0100007F:%04X ", local.(*net.TCPAddr).Port, remote.(*net.TCPAddr).Port)
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, ends); ok {
			f := strings.Fields(rest) // state, queues, timer
			return len(f) > 2 && strings.HasPrefix(f[2], "02:")
		}
	}
	return false
}
