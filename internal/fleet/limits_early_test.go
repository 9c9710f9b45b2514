package fleet

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// opens is a network of TCP that calls a function before it opens a port.
type opens func()

func (f opens) Listen(ctx context.Context, address string) (net.Listener, error) {
	f()
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

func (opens) Dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// A process has said what it has of limits before others can hear it, also if its first look takes
// long: who hears it and learns nothing of limits gives its part to others, which at a hand-over has
// sessions.
func TestB107PartsAreSaidBeforeOthersHear(t *testing.T) {
	opened := make(chan struct{})
	slow := sync.OnceFunc(func() {
		select {
		case <-opened:
		case <-time.After(200 * time.Millisecond): // a look at many services
		}
	})
	var n *limited
	open := sync.OnceFunc(func() {
		if len(n.Status().Limits) == 0 {
			t.Error("others can hear it before it has looked at its limits")
		}
		close(opened)
	})
	n = newLimited(t, newMemoryStore(), "a", folder(t, limitService(keeper(t), `sessions="90" scope="fleet"`)), func(o *Options) {
		allot := o.Allot
		o.Allot = func(service string, a engine.Allotment) (engine.Usage, bool) {
			slow()
			return allot(service, a)
		}
		o.Network = opens(open)
	})
	n.run()
	testkit.Eventually(t, "its port is open", func() bool {
		select {
		case <-opened:
			return true
		default:
			return false
		}
	})
	parts(t, "sessions", 90, n)
}
