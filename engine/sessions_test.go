package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// expectGone reads until the connection is over, cleanly or not.
func (p *peer) expectGone() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	if n, err := p.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Errorf("the session goes on: %d bytes, %v", n, err)
	}
}

func TestEndSessionsOfOneHost(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo), backendServer(t, echo))
		var clients []*peer
		for range 8 { // in turn, so four each
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			clients = append(clients, c)
		}
		if n := r.e.EndSessions(func(service string, _ *sched.Host) bool { return service != "web" }); n != 0 {
			t.Errorf("%d sessions of no service ended", n)
		}
		doomed := r.hosts[0]
		if n := r.e.EndSessions(func(service string, h *sched.Host) bool { return service == "web" && h == doomed }); n != 4 {
			t.Errorf("%d sessions ended, want 4", n)
		}
		eventually(t, "the host is free", func() bool { return doomed.Stats().Active == 0 })
		if n := r.hosts[1].Stats().Active; n != 4 {
			t.Errorf("the other host has %d sessions, want 4", n)
		}
		eventually(t, "the service has four sessions", func() bool { return r.stats().Active == 4 })
		if n := r.stats().Ended["KD"]; n != 4 {
			t.Errorf("%d sessions are counted as killed", n)
		}
		if n := r.e.EndSessions(func(string, *sched.Host) bool { return true }); n != 4 {
			t.Errorf("%d of the others ended, want 4", n)
		}
		for _, c := range clients {
			c.expectGone()
		}
		r.quiet()
	})
}

// A session ended by an operator while bytes are on the way ends by a reset.
func TestEndSessionsLoseNoBytesSilently(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, func(p *peer) { _, _ = p.Write(make([]byte, 32<<20)) }))
		c := r.dial()
		r.standstill()
		if n := r.e.EndSessions(func(string, *sched.Host) bool { return true }); n != 1 {
			t.Errorf("%d sessions ended", n)
		}
		c.expectReset()
	})
}

func TestEndSessionsAfterClose(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		e, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if n := e.EndSessions(func(string, *sched.Host) bool { return true }); n != 0 {
			t.Errorf("%d sessions ended", n)
		}
	})
}

// everyone picks out all sessions.
func everyone(string, *sched.Host) bool { return true }

// published waits until the bytes of all sessions have been counted.
func (r *rig) published(in, out uint64) {
	r.t.Helper()
	eventually(r.t, "the bytes are counted", func() bool {
		s := r.stats()
		return s.In == in && s.Out == out
	})
}

func TestSessionsTellsWhoIsConnected(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		peers := make(chan netip.AddrPort, 8)
		server := func(p *peer) {
			peers <- p.RemoteAddr().(*net.TCPAddr).AddrPort()
			echo(p)
		}
		r := newRig(t, opt, Route{}, backendServer(t, server), backendServer(t, server))
		before := time.Now()
		clients := map[netip.AddrPort]*peer{}
		for i := range 8 {
			c := r.dial()
			data := make([]byte, i+1)
			c.send(data)
			c.expect(data)
			clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		}
		r.published(36, 36)
		locals := map[netip.AddrPort]bool{}
		for range 8 {
			locals[<-peers] = true
		}
		list := r.e.Sessions(0, everyone)
		if len(list) != 8 {
			t.Fatalf("%d sessions, want 8", len(list))
		}
		ids, hosts, sum := map[uint64]bool{}, map[*sched.Host]int{}, uint64(0)
		for i, s := range list {
			ids[s.ID] = true
			hosts[s.Host]++
			sum += s.In
			if s.Service != "web" || clients[s.Client] == nil || !locals[s.Local] || s.In != s.Out || s.In == 0 || s.In > 8 {
				t.Errorf("a session that is none of ours: %+v", s)
			}
			delete(locals, s.Local)
			if s.Started.Before(before.Add(-time.Second)) || s.Started.After(time.Now()) || s.Idle < 0 || s.Idle > time.Since(before)+time.Second {
				t.Errorf("session %d: it began at %v, and is idle for %v", i, s.Started, s.Idle)
			}
			if i > 0 && s.Started.Before(list[i-1].Started) {
				t.Errorf("session %d is older than the one before it", i)
			}
		}
		if len(ids) != 8 || ids[0] || sum != 36 || hosts[r.hosts[0]] != 4 || hosts[r.hosts[1]] != 4 {
			t.Errorf("%d IDs, %d bytes, sessions of hosts: %v", len(ids), sum, hosts)
		}
		if n := len(r.e.Sessions(3, everyone)); n != 3 {
			t.Errorf("%d sessions where 3 were asked for", n)
		}
		if n := len(r.e.Sessions(5, func(service string, h *sched.Host) bool { return service == "web" && h == r.hosts[1] })); n != 4 {
			t.Errorf("%d sessions of one host, want 4", n)
		}
		// What is published in between does not make it less.
		for _, c := range clients {
			c.send([]byte("more"))
			c.expect([]byte("more"))
		}
		r.published(68, 68)
		sum = 0
		for _, s := range r.e.Sessions(0, everyone) {
			sum += s.Out
		}
		if sum != 68 {
			t.Errorf("all sessions together have had %d bytes, want 68", sum)
		}
		for _, c := range clients {
			_ = c.Close()
		}
		r.quiet()
		if list := r.e.Sessions(0, everyone); len(list) != 0 {
			t.Errorf("sessions after the last: %v", list)
		}
	})
}

func TestFindByLocalKnowsWhoseConnectionItIs(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		type met struct {
			peer netip.AddrPort
			said string
		}
		peers := make(chan met, 600)
		r := newRig(t, opt, Route{}, backendServer(t, func(p *peer) {
			said := make([]byte, 8)
			if _, err := io.ReadFull(p, said); err != nil {
				return
			}
			peers <- met{p.RemoteAddr().(*net.TCPAddr).AddrPort(), string(said)}
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{p})
		}))
		clients := map[string]netip.AddrPort{} // by what they say
		for i := range 600 {                   // more than one step of a walk
			c := r.dial()
			said := fmt.Sprintf("%8d", i)
			clients[said] = c.LocalAddr().(*net.TCPAddr).AddrPort()
			c.send([]byte(said))
		}
		for range clients {
			m := <-peers
			for _, local := range []netip.AddrPort{m.peer, netip.AddrPortFrom(netip.AddrFrom16(m.peer.Addr().As16()), m.peer.Port())} {
				found := r.e.FindByLocal(local)
				if len(found) != 1 || found[0].Client != clients[m.said] || found[0].Local != m.peer || found[0].Host != r.hosts[0] {
					t.Fatalf("%v is the connection of %v; found: %+v", local, clients[m.said], found)
				}
			}
		}
		for _, nobody := range []netip.AddrPort{
			{}, netip.MustParseAddrPort(r.addr), netip.AddrPortFrom(r.hosts[0].Addr().IP().Addr(), 1),
		} {
			if found := r.e.FindByLocal(nobody); len(found) != 0 {
				t.Errorf("%v: found %+v", nobody, found)
			}
		}
	})
}

// Two connections to different backends may have the same address on our side.
func TestFindByLocalFindsAll(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		hold := func(p *peer) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{p}) }
		r := newRig(t, opt, Route{}, backendServer(t, hold), backendServer(t, hold), backendServer(t, hold))
		for range 300 {
			r.dial()
		}
		eventually(t, "all are connected", func() bool {
			list := r.e.Sessions(0, everyone)
			return len(list) == 300 && !slices.ContainsFunc(list, func(s SessionInfo) bool { return !s.Local.IsValid() })
		})
		same := map[netip.AddrPort]int{}
		list := r.e.Sessions(0, everyone)
		for _, s := range list {
			same[s.Local]++
		}
		for local, n := range same {
			if found := r.e.FindByLocal(local); len(found) != n {
				t.Errorf("%v: found %d sessions, want %d", local, len(found), n)
			}
		}
	})
}

func TestEndSessionEndsOne(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		clients := map[netip.AddrPort]*peer{}
		for range 5 {
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		}
		doomed := r.e.Sessions(0, everyone)[2]
		if !r.e.EndSession(doomed.ID) {
			t.Error("it is not there")
		}
		clients[doomed.Client].expectGone()
		delete(clients, doomed.Client)
		eventually(t, "four are left", func() bool { return r.stats().Active == 4 })
		if n := r.stats().Ended["KD"]; n != 1 {
			t.Errorf("%d sessions are counted as killed", n)
		}
		// One that takes its place has another ID.
		c := r.dial()
		clients[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
		eventually(t, "five are there", func() bool { return r.stats().Active == 5 })
		for _, id := range []uint64{doomed.ID, 0, 1, 1 << 22, 5<<22 | 77, 1<<64 - 1, doomed.ID + 1<<32} {
			taken := slices.ContainsFunc(r.e.Sessions(0, everyone), func(s SessionInfo) bool { return s.ID == id })
			if !taken && r.e.EndSession(id) {
				t.Errorf("a session that is not there, %#x, has been ended", id)
			}
		}
		for _, c := range clients {
			c.send([]byte("y"))
			c.expect([]byte("y"))
		}
	})
}

func TestSessionsOfUnixSocketsHaveNoAddresses(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		dir := t.TempDir()
		r := newRig(t, opt, Route{}, serveOn(t, listenOn(t, "unix", dir+"/backend"), echo))
		r.apply(Service{Name: "web", Listen: []string{"unix:" + dir + "/front"}, Route: r.route})
		c := dial(t, "unix:"+dir+"/front")
		c.send([]byte("x"))
		c.expect([]byte("x"))
		list := r.e.Sessions(0, everyone)
		if len(list) != 1 || list[0].Client.IsValid() || list[0].Local.IsValid() || list[0].Host != r.hosts[0] {
			t.Errorf("sessions: %+v", list)
		}
		if found := r.e.FindByLocal(netip.AddrPort{}); len(found) != 0 {
			t.Errorf("no address belongs to %+v", found)
		}
	})
}

// Who asks while the engine is draining gets an answer, and nothing once it is
// closed.
func TestSessionsWhileDrainingAndAfterClose(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		var clients []*peer
		for range 3 {
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			clients = append(clients, c)
		}
		drained := make(chan error, 1)
		go func() { drained <- r.e.Drain(within(t)) }()
		eventually(t, "the listeners are closed", func() bool { return len(r.e.Listeners()) == 0 })
		list := r.e.Sessions(0, everyone)
		if len(list) != 3 || len(r.e.FindByLocal(list[0].Local)) != 1 || !r.e.EndSession(list[0].ID) {
			t.Errorf("while draining: %+v", list)
		}
		if n := r.e.EndSessions(everyone); n != 2 && n != 3 { // portable: the first may be about to end
			t.Errorf("%d sessions ended, want 2", n)
		}
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		for _, c := range clients {
			c.expectGone()
		}
		if err := r.e.Close(); err != nil {
			t.Fatal(err)
		}
		if got := r.e.Sessions(0, everyone); len(got) != 0 {
			t.Errorf("after the end: %+v", got)
		}
		if len(r.e.FindByLocal(list[1].Local)) != 0 || r.e.EndSession(list[1].ID) {
			t.Error("after the end there are sessions")
		}
	})
}

// Sessions that come and go while others are asked for, and a Close in the
// middle of it, harm nobody.
func TestSessionsBesideTraffic(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo))
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
					c, err := net.Dial("tcp", r.addr)
					if err != nil {
						t.Errorf("a client was refused: %v", err)
						return
					}
					p := &peer{t, c}
					p.send([]byte("hello"))
					p.expect([]byte("hello"))
					_ = c.Close()
				}
			})
		}
		askers.Go(func() {
			for seen := 0; seen < 300; {
				for _, s := range r.e.Sessions(0, everyone) {
					seen++
					for _, f := range r.e.FindByLocal(s.Local) {
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
					r.e.Sessions(1, everyone)
					r.e.EndSession(1 << 22)
				}
			})
		}
		if err := r.e.Close(); err != nil {
			t.Error(err)
		}
		askers.Wait()
	})
}
