package fleet

import (
	"context"
	"net"
	"path/filepath"
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

// A process that takes over without the store leaves nodes that nobody hears their shares, as the
// one before did.
func TestB107AnUpgradeLeavesSharesOfOthers(t *testing.T) {
	store, doc := newMemoryStore(), limitService(keeper(t), `sessions="90" scope="fleet"`)
	limit(t, store, "a", doc, func(o *Options) { o.Config.Listen, o.Config.Secret = "", "" })
	old, c := limit(t, store, "b", doc), limit(t, store, "c", doc) // b takes what is left of the limit
	parts(t, "sessions", 60, old, c)
	testkit.Eventually(t, "it has remembered how many they are", func() bool {
		m, err := recall(old.path, old.Node.before)
		return err == nil && m.Nodes == 3
	})
	given := old.Parts(true)
	before, _ := old.part("sessions")
	next := newLimited(t, store, "b", filepath.Dir(old.path), func(o *Options) {
		o.Config.Listen = old.opt.Config.Listen
		o.Connect = func(context.Context) (Store, error) { return nil, errCut }
	})
	next.TakeParts(given)
	old.HandOver()
	old.stop()
	next.run()
	testkit.Eventually(t, "it knows its part", func() bool { _, even := next.part("sessions"); return !even })
	if part, _ := next.part("sessions"); part != before {
		t.Errorf("it may use %d, and the process before %d", part, before)
	}
}

// When all nodes have been away from the store for longer than their leases, those that come back
// first leave nodes that nobody hears their shares.
func TestB107SharesOfNodesThatComeBackLater(t *testing.T) {
	store, doc := newMemoryStore(), limitService(keeper(t), `sessions="90" scope="fleet"`)
	a := limit(t, store, "a", doc, func(o *Options) { o.Config.Listen, o.Config.Secret = "", "" })
	b, c := limit(t, store, "b", doc), limit(t, store, "c", doc)
	parts(t, "sessions", 60, b, c)
	all := []*limited{a, b, c}
	for _, n := range all {
		n.link.set(func() { n.link.cut = errCut })
	}
	testkit.Eventually(t, "their leases end", func() bool { return len(store.keysBelow("/txlb/edge/node/")) == 0 })
	for _, n := range []*limited{b, c} {
		n.link.set(func() { n.link.cut = nil })
	}
	testkit.Eventually(t, "two nodes are back", func() bool { return b.Status().Joined && c.Status().Joined })
	lease := b.opt.Config.Lease
	testkit.Eventually(t, "most of a lease is over", func() bool {
		one, _ := b.part("sessions")
		other, _ := c.part("sessions")
		over := max(time.Since(b.Status().Since), time.Since(c.Status().Since))
		if sum := one + other; sum > 60 && over < lease {
			t.Fatalf("two of three nodes may use %d of 90, %v after they came back", sum, over)
		}
		return over > lease/2
	})
	a.link.set(func() { a.link.cut = nil })
	parts(t, "sessions", 60, b, c)
}
