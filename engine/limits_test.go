package engine_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// greeter is a host that says hello and keeps the connection until the client ends it.
func greeter(t *testing.T) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		_, _ = p.Write([]byte("a")) // the client may be gone
		_, _ = io.Copy(io.Discard, p)
	})
}

// limited starts a service with limits on four loops, or on the portable engine.
func limited(t *testing.T, opt setup, limits *engine.Limits) *enginetest.Rig {
	opt.Loops *= 2
	return newRig(t, opt, engine.Route{Limits: limits}, greeter(t))
}

// setLimits gives the rig's service other limits.
func setLimits(r *enginetest.Rig, limits *engine.Limits) {
	route := *r.Route
	route.Limits = limits
	r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
}

// knock connects a client from an address, and returns its connection if it is served,
// nil if it is reset.
func knock(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: testkit.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
		if _, err = c.Read(make([]byte, 1)); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client from %s gets %v, want an answer or a reset", from, err)
	}
	return nil
}

// knockAll connects n clients at once and returns those that are served.
func knockAll(t *testing.T, n int, from, to string) (served []net.Conn) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if c := knock(t, from, to); c != nil {
				mu.Lock()
				served = append(served, c)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return served
}

// A service has no more sessions than it may, over all loops together, and as many. A
// client that is rejected is reset, reaches no host and is counted.
func TestB42SessionsOfAService(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := limited(t, opt, &engine.Limits{Sessions: 10})
		served := knockAll(t, 40, "127.0.0.1", r.Addr)
		if len(served) != 10 {
			t.Fatalf("%d of 40 clients are served, want 10", len(served))
		}
		testkit.Eventually(t, "the rejected clients end", func() bool { return r.Stats().Active == 10 })
		if s := r.Stats(); s.Refused["limit_sessions"] != 30 || s.Ended["PR"] != 30 || r.Hosts[0].Stats().Picks != 10 {
			t.Errorf("counted: %+v, host: %+v", s, r.Hosts[0].Stats())
		}
		// Each that ends makes room for one.
		for _, c := range served[:3] {
			_ = c.Close()
		}
		testkit.Eventually(t, "three sessions end", func() bool { return r.Stats().Active == 7 })
		if again := knockAll(t, 8, "127.0.0.1", r.Addr); len(again) != 3 {
			t.Errorf("three sessions have ended, and %d clients are served", len(again))
		}
		// A lower limit ends no session, and lets none in before it has room.
		setLimits(r, &engine.Limits{Sessions: 4})
		if knock(t, "127.0.0.1", r.Addr) != nil {
			t.Error("ten sessions, at most four, and one more is served")
		}
		testkit.Eventually(t, "the rejected client ends", func() bool { return r.Stats().Active == 10 })
		setLimits(r, nil)
		if knock(t, "127.0.0.1", r.Addr) == nil {
			t.Error("a client is rejected without a limit")
		}
	})
}

// A client has no more sessions than it may, and disturbs no other. A PROXY header says
// who the client is; an IPv6 client is its /64; clients of UNIX listeners are not counted.
func TestB42SessionsOfAClient(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := limited(t, opt, &engine.Limits{PerClient: 5})
		for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
			served := knockAll(t, 20, from, r.Addr)
			if len(served) != 5 {
				t.Errorf("%d of 20 sessions of %s are served, want 5", len(served), from)
			}
			_ = served[0].Close()
			testkit.Eventually(t, "it has another", func() bool { return knock(t, from, r.Addr) != nil })
			if knock(t, from, r.Addr) != nil {
				t.Errorf("%s has a sixth session", from)
			}
		}
		testkit.Eventually(t, "rejected clients have ended", func() bool {
			s := r.Stats()
			return s.Refused["limit_client"] >= 30 && s.Refused["limit_client"] == s.Ended["PR"]
		})

		path := "unix:" + filepath.Join(t.TempDir(), "s")
		r.Apply(engine.Service{
			Name: "web", Listen: []string{"127.0.0.1:0", path, "127.0.0.2:0"},
			Route:         &engine.Route{Table: r.Route.Table, Timeouts: enginetest.TestTimeouts, Limits: &engine.Limits{PerClient: 5}},
			ListenOptions: map[string]engine.ListenOptions{"127.0.0.2:0": {Proxy: engine.ProxyRequire}},
		})
		for range 8 {
			c := enginetest.Dial(t, path)
			c.Expect([]byte("a"))
		}
		var named string
		for _, l := range r.E.Listeners() {
			if l.Listen == "127.0.0.2:0" {
				named = l.Addr
			}
		}
		served := 0
		for i := range 8 {
			c := enginetest.Dial(t, named)
			from := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:7:%x::1", i+1)), 1)
			c.Send(proxyproto.Append(nil, proxyproto.V2, from, netip.MustParseAddrPort("[2001:db8::2]:80")))
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				served++
			} else if !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		}
		if served != 5 {
			t.Errorf("%d sessions of one /64 are served, want 5", served)
		}
	})
}

// So many sessions begin at once as the rate says, and then one more each time a token
// comes back, over all loops together.
func TestB42Rates(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for name, limits := range map[string]engine.Limits{"limit_rate": {Rate: 5}, "limit_client_rate": {PerClientRate: 5}} {
			r := limited(t, opt, &limits)
			began := time.Now()
			served := len(knockAll(t, 30, "127.0.0.1", r.Addr))
			most := 5 + int(5*time.Since(began)/time.Second) + 1
			if served < 5 || served > most {
				t.Errorf("%s: %d clients are served within %v, want 5 to %d", name, served, time.Since(began), most)
			}
			if n := r.Stats().Refused[name]; n != uint64(30-served) {
				t.Errorf("%s: %d rejected, want %d", name, n, 30-served)
			}
			testkit.Eventually(t, "a token comes back", func() bool { return knock(t, "127.0.0.1", r.Addr) != nil })
			if name == "limit_client_rate" && knock(t, "127.0.0.3", r.Addr) == nil {
				t.Error("another client has to do with it")
			}
		}
	})
}

// Limits that change under load hold, and lose no session: what is there when it is
// quiet again is what may be there. The clients count themselves, from the first byte to
// before they leave, so they are never more than the greatest limit.
func TestB42LimitsChangeUnderLoad(t *testing.T) {
	testkit.Long(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := limited(t, opt, &engine.Limits{Sessions: 12})
		// Some began without limits, and are counted all the same.
		setLimits(r, nil)
		old := knockAll(t, 4, "127.0.0.1", r.Addr)
		if len(old) != 4 {
			t.Fatalf("%d clients of 4 without limits", len(old))
		}
		var inside, most atomic.Int64
		stop := make(chan struct{})
		var clients sync.WaitGroup
		setLimits(r, &engine.Limits{Sessions: 12, PerClient: 9})
		for i := range 16 {
			clients.Go(func() {
				from := fmt.Sprint("127.0.0.", 1+i%2)
				for {
					select {
					case <-stop:
						return
					default:
					}
					if c := knock(t, from, r.Addr); c != nil {
						n := inside.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						inside.Add(-1)
						_ = c.(*net.TCPConn).SetLinger(0) // the port is free again
						_ = c.Close()
					}
				}
			})
		}
		for i := range 60 {
			limits := &engine.Limits{Sessions: 5 + i%8}
			if i%3 > 0 {
				limits.PerClient = 4 + rand.IntN(6)
			}
			if i%5 == 0 {
				limits.PerClientRate = 1_000_000
			}
			setLimits(r, limits)
			before := r.Stats().Sessions
			testkit.Eventually(t, "clients come", func() bool { return r.Stats().Sessions >= before+20 })
		}
		close(stop)
		clients.Wait()
		if n := most.Load(); n+4 > 12 {
			t.Errorf("%d clients at once beside four, at most 12", n)
		}
		setLimits(r, &engine.Limits{Sessions: 10, PerClient: 7})
		testkit.Eventually(t, "the four are left", func() bool { return r.Stats().Active == 4 })
		if n := len(knockAll(t, 10, "127.0.0.1", r.Addr)); n != 3 { // with the four that began without limits
			t.Errorf("%d more sessions of a client that has four and may have seven", n)
		}
		if n := len(knockAll(t, 10, "127.0.0.2", r.Addr)); n != 3 {
			t.Errorf("%d more sessions of a service that has seven and may have ten", n)
		}
	})
}

// A service uses the part of its shared limits that it is allotted, and its share before that.
// A smaller part ends no session. Its own limits, and those of clients, do not depend on it.
func TestB107AllottedPart(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		shared := func(sessions, share int) *engine.Limits {
			return &engine.Limits{Sessions: sessions, Shared: true, Share: engine.Allotment{Sessions: share}}
		}
		r := limited(t, opt, shared(10, 3))
		served := knockAll(t, 20, "127.0.0.1", r.Addr)
		if len(served) != 3 {
			t.Fatalf("%d of 20 clients are served before a part is known, want 3", len(served))
		}
		r.E.Allot("web", engine.Allotment{Sessions: 10})
		if served := knockAll(t, 10, "127.0.0.1", r.Addr); len(served) != 7 {
			t.Fatalf("three have a part of ten, and %d more clients are served, want 7", len(served))
		}
		testkit.Eventually(t, "the rejected clients end", func() bool { return r.Stats().Active == 10 })
		u, ok := r.E.Allot("web", engine.Allotment{Sessions: 4, Rate: 1})
		if !ok || u != (engine.Usage{Sessions: 10, Begun: 10, OverSessions: 20}) {
			t.Errorf("used: %+v, %v", u, ok)
		}
		if r.Stats().Active != 10 || knock(t, "127.0.0.1", r.Addr) != nil {
			t.Error("ten sessions, a part of four, and one more is served, or one has ended")
		}
		testkit.Eventually(t, "the rejected client ends", func() bool { return r.Stats().Active == 10 })
		r.E.Allot("web", engine.Allotment{Sessions: 99})
		if knock(t, "127.0.0.1", r.Addr) != nil {
			t.Error("a part that is more than the limit lets in more than the limit")
		}
		testkit.Eventually(t, "the rejected client ends", func() bool { return r.Stats().Active == 10 })
		setLimits(r, shared(12, 3))
		if n := len(knockAll(t, 5, "127.0.0.1", r.Addr)); n != 2 {
			t.Errorf("a higher limit, a part that is more, and %d clients are served, want 2", n)
		}
		r.E.Allot("web", engine.Allotment{})
		setLimits(r, &engine.Limits{Sessions: 14})
		if n := len(knockAll(t, 5, "127.0.0.1", r.Addr)); n != 2 {
			t.Errorf("limits of its own, and %d clients are served, want 2", n)
		}
		// What it was told before does not count when they are shared again.
		setLimits(r, shared(20, 15))
		if n := len(knockAll(t, 5, "127.0.0.1", r.Addr)); n != 1 {
			t.Errorf("shared again, with 14 sessions and a share of 15, and %d clients are served, want 1", n)
		}
		// Nor does what is said about other limits count for one that is new.
		r.E.Allot("web", engine.Allotment{Sessions: 20, Rate: -1})
		setLimits(r, &engine.Limits{Sessions: 20, Rate: 100, Shared: true, Share: engine.Allotment{Sessions: 15, Rate: 2}})
		r.E.Allot("web", engine.Allotment{Sessions: 20, Rate: -1})
		if n := len(knockAll(t, 5, "127.0.0.1", r.Addr)); n != 2 && n != 3 { // in half a second there is one more
			t.Errorf("five places, a share of 2 sessions a second, and %d clients are served", n)
		}
		if _, ok := r.E.Allot("no", engine.Allotment{}); ok {
			t.Error("a service that is not there has a part")
		}
	})
}

// A part of a rate takes its tokens along: two engines let in no more than one with all of it.
func TestB107AllottedRate(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		const rate = 40
		a, b := limited(t, opt, &engine.Limits{Rate: rate, Shared: true}), limited(t, opt, &engine.Limits{Rate: rate, Shared: true})
		allot := func(ofA int) {
			a.E.Allot("web", engine.Allotment{Rate: ofA})
			b.E.Allot("web", engine.Allotment{Rate: rate - ofA})
		}
		allot(rate)
		if knock(t, "127.0.0.1", b.Addr) != nil {
			t.Error("a client is served without a part")
		}
		began, served := time.Now(), 0
		for _, step := range []struct{ ofA, ofB, part int }{{15, 0, 40}, {15, 15, 20}, {20, 20, 25}} {
			allot(step.part)
			served += len(knockAll(t, step.ofA, "127.0.0.1", a.Addr))
			served += len(knockAll(t, step.ofB, "127.0.0.1", b.Addr))
		}
		most := rate + int(rate*time.Since(began)/time.Second) + 2
		if served > most || served < rate-5 { // each change of a part may cost a token
			t.Errorf("%d clients are served within %v, want %d to %d", served, time.Since(began), rate-5, most)
		}
	})
}
