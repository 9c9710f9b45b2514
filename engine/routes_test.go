package engine_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// says is a backend that says a word and ends.
func says(t *testing.T, word string) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte(word)) })
}

// heard returns what a client from an address is told.
func heard(t *testing.T, from, to string) string {
	t.Helper()
	d := net.Dialer{Timeout: testkit.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("from %s: %v", from, err)
	}
	return string(b)
}

// A route picks the group of a session, and its hosts alone are tried. A group that has
// gone, and no route at all, leave the active one.
func TestB85RouteChoosesTheGroup(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, says(t, "main"))
		const canary, gone, dead = 1, 2, 3
		route := *r.Route
		route.Groups = map[engine.GroupID]*sched.Table{
			canary: r.Table(sched.Policy{Scheduler: "roundr"}, enginetest.DeadAddr(t), says(t, "canary")),
			dead:   r.Table(sched.Policy{Scheduler: "roundr"}, enginetest.DeadAddr(t)),
		}
		var asked sync.Map
		route.Choose = func(a engine.Asking) engine.GroupID {
			n, _ := asked.LoadOrStore(a.Client, new(int))
			*n.(*int)++
			switch a.Client {
			case netip.MustParseAddr("127.0.0.2"):
				return canary
			case netip.MustParseAddr("127.0.0.3"):
				return gone
			case netip.MustParseAddr("127.0.0.4"):
				return dead
			}
			return engine.Default
		}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		for from, want := range map[string]string{"127.0.0.1": "main", "127.0.0.2": "canary", "127.0.0.3": "main", "127.0.0.4": ""} {
			if got := heard(t, from, r.Addr); got != want {
				t.Errorf("a client from %s gets %q, want %q", from, got, want)
			}
			if n, ok := asked.Load(netip.MustParseAddr(from)); !ok || *n.(*int) != 1 {
				t.Errorf("a client from %s was not asked about once", from)
			}
		}
		r.Quiet()
		if s := r.Stats(); s.Sessions != 4 || s.Refused["no_host"] != 1 || s.Redispatches != 1 {
			t.Errorf("counted: %+v", s)
		}
	})
}
