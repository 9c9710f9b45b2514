package engine_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestEndSessionsOfOneHost(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo))
		var clients []*enginetest.Peer
		for range 8 { // in turn, so four each
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			clients = append(clients, c)
		}
		if n := r.E.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Service != "web" }); n != 0 {
			t.Errorf("%d sessions of no service ended", n)
		}
		doomed := r.Hosts[0]
		if n := r.E.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Service == "web" && c.Host == doomed }); n != 4 {
			t.Errorf("%d sessions ended, want 4", n)
		}
		testkit.Eventually(t, "the host is free", func() bool { return doomed.Stats().Active == 0 })
		if n := r.Hosts[1].Stats().Active; n != 4 {
			t.Errorf("the other host has %d sessions, want 4", n)
		}
		testkit.Eventually(t, "the service has four sessions", func() bool { return r.Stats().Active == 4 })
		if n := r.Stats().Ended["KD"]; n != 4 {
			t.Errorf("%d sessions are counted as killed", n)
		}
		if n := r.E.EndSessions(engine.ByOperator, all); n != 4 {
			t.Errorf("%d of the others ended, want 4", n)
		}
		for _, c := range clients {
			c.ExpectGone()
		}
		r.Quiet()
	})
}

// A session ended by an operator while bytes are on the way ends by a reset.
func TestEndSessionsLoseNoBytesSilently(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) { _, _ = p.Write(make([]byte, 32<<20)) }))
		c := r.Dial()
		r.Standstill()
		if n := r.E.EndSessions(engine.ByOperator, all); n != 1 {
			t.Errorf("%d sessions ended", n)
		}
		c.ExpectReset()
	})
}

func TestEndSessionsAfterClose(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		e, err := opt.start(opt.Options)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if n := e.EndSessions(engine.ByOperator, all); n != 0 {
			t.Errorf("%d sessions ended", n)
		}
	})
}

// all picks out all sessions to be ended.
func all(engine.Candidate) bool { return true }

// everyone picks out all sessions.
func everyone(string, *sched.Host) bool { return true }

func TestSessionsTellsWhoIsConnected(t *testing.T) {
	testkit.Long(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		// Connections to two backends may have the same address on our side, so both ends are compared.
		type ends struct{ local, host netip.AddrPort }
		peers := make(chan ends, 8)
		server := func(p *enginetest.Peer) {
			peers <- ends{p.RemoteAddr().(*net.TCPAddr).AddrPort(), p.LocalAddr().(*net.TCPAddr).AddrPort()}
			enginetest.Echo(p)
		}
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, server), enginetest.BackendServer(t, server))
		before := time.Now()
		clients := map[netip.AddrPort]*enginetest.Peer{}
		for i := range 8 {
			c := r.Dial()
			data := make([]byte, i+1)
			c.Send(data)
			c.Expect(data)
			clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		}
		r.Published(36, 36)
		connected := map[ends]bool{}
		for range 8 {
			connected[<-peers] = true
		}
		list := r.E.Sessions(0, everyone)
		if len(list) != 8 {
			t.Fatalf("%d sessions, want 8", len(list))
		}
		ids, hosts, sum := map[uint64]bool{}, map[*sched.Host]int{}, uint64(0)
		for i, s := range list {
			ids[s.ID] = true
			hosts[s.Host]++
			sum += s.In
			both := ends{s.Local, s.Host.Addr().IP()}
			if s.Service != "web" || clients[s.Client] == nil || !connected[both] || s.In != s.Out || s.In == 0 || s.In > 8 {
				t.Errorf("a session that is none of ours: %+v", s)
			}
			delete(connected, both)
			if s.Started.Before(before.Add(-time.Second)) || s.Started.After(time.Now()) || s.Idle < 0 || s.Idle > time.Since(before)+time.Second {
				t.Errorf("session %d: it began at %v, and is idle for %v", i, s.Started, s.Idle)
			}
			if i > 0 && s.Started.Before(list[i-1].Started) {
				t.Errorf("session %d is older than the one before it", i)
			}
		}
		if len(ids) != 8 || ids[0] || sum != 36 || hosts[r.Hosts[0]] != 4 || hosts[r.Hosts[1]] != 4 {
			t.Errorf("%d IDs, %d bytes, sessions of hosts: %v", len(ids), sum, hosts)
		}
		if n := len(r.E.Sessions(3, everyone)); n != 3 {
			t.Errorf("%d sessions where 3 were asked for", n)
		}
		if n := len(r.E.Sessions(5, func(service string, h *sched.Host) bool { return service == "web" && h == r.Hosts[1] })); n != 4 {
			t.Errorf("%d sessions of one host, want 4", n)
		}
		// What is published in between does not make it less.
		for _, c := range clients {
			c.Send([]byte("more"))
			c.Expect([]byte("more"))
		}
		r.Published(68, 68)
		sum = 0
		for _, s := range r.E.Sessions(0, everyone) {
			sum += s.Out
		}
		if sum != 68 {
			t.Errorf("all sessions together have had %d bytes, want 68", sum)
		}
		for _, c := range clients {
			_ = c.Close()
		}
		r.Quiet()
		if list := r.E.Sessions(0, everyone); len(list) != 0 {
			t.Errorf("sessions after the last: %v", list)
		}
	})
}

func TestFindByLocalKnowsWhoseConnectionItIs(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		type met struct {
			peer netip.AddrPort
			said string
		}
		peers := make(chan met, 600)
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			said := make([]byte, 8)
			if _, err := io.ReadFull(p, said); err != nil {
				return
			}
			peers <- met{p.RemoteAddr().(*net.TCPAddr).AddrPort(), string(said)}
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{p})
		}))
		clients := map[string]netip.AddrPort{} // by what they say
		for i := range 600 {                   // more than one step of a walk
			c := r.Dial()
			said := fmt.Sprintf("%8d", i)
			clients[said] = c.LocalAddr().(*net.TCPAddr).AddrPort()
			c.Send([]byte(said))
		}
		for i := range len(clients) {
			m := <-peers
			if i%7 != 0 { // a walk looks at all sessions: some of all places will do
				continue
			}
			for _, local := range []netip.AddrPort{m.peer, netip.AddrPortFrom(netip.AddrFrom16(m.peer.Addr().As16()), m.peer.Port())} {
				found := r.E.FindByLocal(local)
				if len(found) != 1 || found[0].Client != clients[m.said] || found[0].Local != m.peer || found[0].Host != r.Hosts[0] {
					t.Fatalf("%v is the connection of %v; found: %+v", local, clients[m.said], found)
				}
			}
		}
		for _, nobody := range []netip.AddrPort{
			{}, netip.MustParseAddrPort(r.Addr), netip.AddrPortFrom(r.Hosts[0].Addr().IP().Addr(), 1),
		} {
			if found := r.E.FindByLocal(nobody); len(found) != 0 {
				t.Errorf("%v: found %+v", nobody, found)
			}
		}
	})
}

// Two connections to different backends may have the same address on our side.
func TestFindByLocalFindsAll(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		hold := func(p *enginetest.Peer) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{p}) }
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, hold), enginetest.BackendServer(t, hold), enginetest.BackendServer(t, hold))
		for range 300 {
			r.Dial()
		}
		testkit.Eventually(t, "all are connected", func() bool {
			list := r.E.Sessions(0, everyone)
			return len(list) == 300 && !slices.ContainsFunc(list, func(s engine.SessionInfo) bool { return !s.Local.IsValid() })
		})
		same := map[netip.AddrPort]int{}
		list := r.E.Sessions(0, everyone)
		for _, s := range list {
			same[s.Local]++
		}
		for local, n := range same {
			if found := r.E.FindByLocal(local); len(found) != n {
				t.Errorf("%v: found %d sessions, want %d", local, len(found), n)
			}
		}
	})
}

func TestEndSessionEndsOne(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		clients := map[netip.AddrPort]*enginetest.Peer{}
		for range 5 {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		}
		doomed := r.E.Sessions(0, everyone)[2]
		if !r.E.EndSession(doomed.ID) {
			t.Error("it is not there")
		}
		clients[doomed.Client].ExpectGone()
		delete(clients, doomed.Client)
		testkit.Eventually(t, "four are left", func() bool { return r.Stats().Active == 4 })
		if n := r.Stats().Ended["KD"]; n != 1 {
			t.Errorf("%d sessions are counted as killed", n)
		}
		// One that takes its place has another ID.
		c := r.Dial()
		clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		testkit.Eventually(t, "five are there", func() bool { return r.Stats().Active == 5 })
		for _, id := range []uint64{doomed.ID, 0, 1, 1 << 22, 5<<22 | 77, 1<<64 - 1, doomed.ID + 1<<32} {
			taken := slices.ContainsFunc(r.E.Sessions(0, everyone), func(s engine.SessionInfo) bool { return s.ID == id })
			if !taken && r.E.EndSession(id) {
				t.Errorf("a session that is not there, %#x, has been ended", id)
			}
		}
		for _, c := range clients {
			c.Send([]byte("y"))
			c.Expect([]byte("y"))
		}
	})
}

func TestSessionsOfUnixSocketsHaveNoAddresses(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		dir := t.TempDir()
		r := newRig(t, opt, engine.Route{}, enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", dir+"/backend"), enginetest.Echo))
		r.Apply(engine.Service{Name: "web", Listen: []string{"unix:" + dir + "/front"}, Route: r.Route})
		c := enginetest.Dial(t, "unix:"+dir+"/front")
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		list := r.E.Sessions(0, everyone)
		if len(list) != 1 || list[0].Client.IsValid() || list[0].Local.IsValid() || list[0].Host != r.Hosts[0] {
			t.Errorf("sessions: %+v", list)
		}
		if found := r.E.FindByLocal(netip.AddrPort{}); len(found) != 0 {
			t.Errorf("no address belongs to %+v", found)
		}
	})
}

// Who asks while the engine is draining gets an answer, and nothing once it is
// closed.
func TestSessionsWhileDrainingAndAfterClose(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		var clients []*enginetest.Peer
		for range 3 {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			clients = append(clients, c)
		}
		drained := make(chan error, 1)
		go func() { drained <- r.E.Drain(enginetest.Within(t)) }()
		testkit.Eventually(t, "the listeners are closed", func() bool { return len(r.E.Listeners()) == 0 })
		list := r.E.Sessions(0, everyone)
		if len(list) != 3 || len(r.E.FindByLocal(list[0].Local)) != 1 || !r.E.EndSession(list[0].ID) {
			t.Errorf("while draining: %+v", list)
		}
		if n := r.E.EndSessions(engine.ByOperator, all); n != 2 && n != 3 { // portable: the first may be about to end
			t.Errorf("%d sessions ended, want 2", n)
		}
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		for _, c := range clients {
			c.ExpectGone()
		}
		if err := r.E.Close(); err != nil {
			t.Fatal(err)
		}
		if got := r.E.Sessions(0, everyone); len(got) != 0 {
			t.Errorf("after the end: %+v", got)
		}
		if len(r.E.FindByLocal(list[1].Local)) != 0 || r.E.EndSession(list[1].ID) {
			t.Error("after the end there are sessions")
		}
	})
}

// Sessions that come and go while others are asked for, and a Close in the
// middle of it, harm nobody.
func TestSessionsBesideTraffic(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		stop := make(chan struct{})
		var clients, askers sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.Dial("tcp", r.Addr)
					if err != nil {
						t.Errorf("a client was refused: %v", err)
						return
					}
					p := &enginetest.Peer{T: t, Conn: c}
					p.Send([]byte("hello"))
					p.Expect([]byte("hello"))
					_ = c.Close()
				}
			})
		}
		askers.Go(func() {
			for seen := 0; seen < 300; {
				for _, s := range r.E.Sessions(0, everyone) {
					seen++
					for _, f := range r.E.FindByLocal(s.Local) {
						if f.Local != s.Local {
							t.Errorf("asked for %v, found %+v", s.Local, f)
						}
					}
				}
			}
		})
		askers.Wait()
		close(stop)
		clients.Wait()
		for range 4 {
			askers.Go(func() {
				for range 200 {
					r.E.Sessions(1, everyone)
					r.E.EndSession(1 << 22)
				}
			})
		}
		if err := r.E.Close(); err != nil {
			t.Error(err)
		}
		askers.Wait()
	})
}
