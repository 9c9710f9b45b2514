package engine_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// namedServers are backends that say their number first, and then echo.
func namedServers(t *testing.T, n int) (list []sched.Addr) {
	for i := range n {
		list = append(list, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Send([]byte{byte('0' + i)})
			enginetest.Echo(p)
		}))
	}
	return list
}

// dialAs connects a client whose address a PROXY header says: number n, from some port.
func dialAs(r *enginetest.Rig, n, port int) *enginetest.Peer {
	p := r.Dial()
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), uint16(port))
	p.Send(proxyproto.Append(nil, proxyproto.V2, from, itsGoal))
	return p
}

// serverOf reads which server a client has.
func serverOf(t *testing.T, p *enginetest.Peer) string {
	t.Helper()
	var name [1]byte
	_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
	if _, err := p.Read(name[:]); err != nil {
		t.Error(err)
	}
	return string(name[:])
}

// forgetAll lets a Sticky forget all clients that have no session. Days are counted from
// the start of the test.
func forgetAll(s *sched.Sticky, day int) {
	for range 61 {
		s.Tick(time.Now().Add(time.Duration(day) * 24 * time.Hour))
	}
}

// A client has the same host each time, through whichever loop and from whichever port,
// also where its sessions begin at the same moment. It is who the PROXY header says.
func TestB40ClientsComeBack(t *testing.T) {
	const clients, at = 24, 4
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, scheduler := range []string{"maglev", "roundr,sticky", "leastc,sticky"} {
			p := sched.Policy{Scheduler: scheduler}
			if sched.IsSticky(scheduler) {
				p.Sticky = sched.NewSticky(100, time.Hour)
			}
			r := newRig(t, opt, engine.Route{}, namedServers(t, 3)...)
			addrs := []sched.Addr{r.Hosts[0].Addr(), r.Hosts[1].Addr(), r.Hosts[2].Addr()}
			r.Hosts = nil
			r.Route = &engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(p, addrs...)}
			listenAs(r, required)
			var mu sync.Mutex
			servers, used := map[int]string{}, map[string]bool{}
			for round := range 3 {
				var all sync.WaitGroup
				for n := range clients {
					for k := range at {
						all.Go(func() {
							c := dialAs(r, n, 1000*round+k+1)
							got := serverOf(t, c)
							c.Send([]byte("x"))
							c.Expect([]byte("x"))
							if k%2 == 0 {
								c.Fin()
								c.ExpectEOF()
							} else {
								c.Rst()
							}
							mu.Lock()
							defer mu.Unlock()
							used[got] = true
							if servers[n] == "" {
								servers[n] = got
							}
							if got != servers[n] {
								t.Errorf("%s: client %d has server %s and had %s", scheduler, n, got, servers[n])
							}
						})
					}
				}
				all.Wait()
			}
			if len(used) != 3 {
				t.Errorf("%s: only servers %v were used", scheduler, used)
			}
			r.Quiet()
		}
	})
}

// While a client has a session, it is remembered, however long that takes. Once all are
// over, however they have ended, nothing keeps it: not a client that left before the
// first byte, none that met hosts which refused it, and none without a host.
func TestB40RememberedDuringASession(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		s := sched.NewSticky(1000, time.Minute)
		r := newRig(t, opt, engine.Route{}, namedServers(t, 2)...)
		two := []sched.Addr{r.Hosts[0].Addr(), r.Hosts[1].Addr()}
		route := func(refuse bool, addrs ...sched.Addr) {
			r.Hosts = nil
			table := r.Table(sched.Policy{Scheduler: "roundr,sticky", Sticky: s, Refuse: refuse}, addrs...)
			r.Route = &engine.Route{Timeouts: enginetest.TestTimeouts, Table: table}
			listenAs(r, required)
		}
		route(false, two...)
		first := dialAs(r, 1, 1)
		server := serverOf(t, first)
		first.Send([]byte("settled"))
		first.Expect([]byte("settled"))
		forgetAll(s, 1)
		for n := range 3 {
			other := dialAs(r, 10+n, 1) // takes a turn
			serverOf(t, other)
			again := dialAs(r, 1, 2+n)
			if got := serverOf(t, again); got != server {
				t.Errorf("a day later, with a session open, the client has server %s and had %s", got, server)
			}
			again.Fin()
			other.Rst()
		}
		first.Fin()
		first.ExpectEOF()
		r.Quiet()
		if s.Len() == 0 {
			t.Error("no client is remembered")
		}
		forgetAll(s, 2)
		if n := s.Len(); n != 0 {
			t.Errorf("%d clients are remembered, and none has a session", n)
		}

		for n := range 10 {
			c := dialAs(r, 20+n, 1)
			serverOf(t, c)
			c.Rst() // the server has sent, and the client nothing
		}
		r.Quiet()
		route(true, enginetest.DeadAddr(t), enginetest.DeadAddr(t), two[0])
		for n := range 4 {
			c := dialAs(r, 30+n, 1)
			serverOf(t, c)
			c.Fin()
			c.ExpectEOF()
		}
		r.Quiet()
		route(true, enginetest.DeadAddr(t))
		for n := range 4 {
			dialAs(r, 40+n, 1).ExpectGone()
		}
		r.Quiet()
		forgetAll(s, 3)
		if n := s.Len(); n != 0 {
			t.Errorf("%d clients are remembered, and none has a session", n)
		}
	})
}
