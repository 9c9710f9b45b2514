package engine_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/engine/internal/loops"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// resetter accepts and resets at once, as a process does that dies with
// connections in its queue.
func resetter(t *testing.T, count *atomic.Int64) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		count.Add(1)
		p.Rst()
	})
}

// A backend that resets the connection before a byte has moved costs the client
// nothing: it gets another host, with every byte it sent, and its end.
func TestB22ResetBeforeTheFirstByteFailsOver(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		var resets atomic.Int64
		request := enginetest.Payload(200<<10, 22)
		r := newRig(t, opt, engine.Route{}, resetter(t, &resets), resetter(t, &resets), enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Expect(request)
			p.ExpectEOF()
			p.Send([]byte("thanks"))
		}))
		sessions := 0
		for ; sessions < 30 || sessions < 3000 && r.Stats().ConnectFailures["dropped"] == 0; sessions++ {
			r.Hosts[0].MarkUp()
			r.Hosts[1].MarkUp()
			c := r.Dial()
			// What is sent to a host before it resets is lost with it, and so
			// is the right to another: send when the resets have been.
			testkit.Eventually(t, "the session is with the last host", func() bool { return r.Hosts[2].Stats().Active == 1 })
			var wg sync.WaitGroup
			wg.Go(func() { c.Send(request); c.Fin() })
			c.Expect([]byte("thanks"))
			c.ExpectEOF()
			wg.Wait()
			_ = c.Close()
			r.Quiet()
		}
		s := r.Stats()
		if s.Ended["--"] != uint64(sessions) || s.ConnectFailures["dropped"] == 0 || resets.Load() == 0 || s.ConnectFailures["dropped"]+s.ConnectFailures["refused"] != uint64(resets.Load()) {
			t.Errorf("%d resets, counted %+v", resets.Load(), s)
		}
	})
}

// A host that resets while bytes are on the way to it loses them, but no
// session ever hangs: the client is served by the next host or gets a reset.
func TestResetWhileTheRequestIsOnTheWay(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		var resets atomic.Int64
		request := enginetest.Payload(200<<10, 23)
		r := newRig(t, opt, engine.Route{}, resetter(t, &resets), resetter(t, &resets), enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Expect(request)
			p.ExpectEOF()
			p.Send([]byte("thanks"))
		}))
		for range 100 {
			c := r.Dial()
			_, _ = c.Write(request)
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if got, err := io.ReadAll(c); string(got) != "thanks" && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("got %q, %v", got, err)
			}
			_ = c.Close()
			r.Quiet()
		}
	})
}

// With no other host the client gets the reset.
func TestB18ResetBeforeTheFirstByteWithNoOtherHost(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		var resets atomic.Int64
		r := newRig(t, opt, engine.Route{}, resetter(t, &resets))
		// A reset that is quicker than the loop looks like a refused connect,
		// and the client gets a clean end.
		testkit.Eventually(t, "a reset comes after the connect", func() bool {
			r.Hosts[0].MarkUp()
			c, err := net.Dial("tcp", r.Addr)
			if err != nil {
				return errors.Is(err, syscall.ECONNRESET) && r.Stats().Ended["SD"] > 0
			}
			defer func() { _ = c.Close() }()
			_, err = c.Read(make([]byte, 1))
			return errors.Is(err, syscall.ECONNRESET) && r.Stats().Ended["SD"] > 0
		})
	})
}

// BenchmarkKilledServer kills and restarts one of three servers under short
// sessions, once an iteration. It tells how many clients a kill resets, and how
// many of those that fail-over has spared it.
func BenchmarkKilledServer(b *testing.B) {
	for name, greets := range map[string]bool{"server speaks first": true, "client speaks first": false} {
		b.Run(name, func(b *testing.B) {
			e, err := loops.New(engine.Options{Loops: 2})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = e.Close() }()
			servers := make([]*mortal, 3)
			var members []sched.Member
			for i := range servers {
				servers[i] = &mortal{greets: greets}
				servers[i].start(b)
				addr, err := sched.ParseAddr(servers[i].addr)
				if err != nil {
					b.Fatal(err)
				}
				members = append(members, sched.Member{Host: sched.NewHost("h", addr), Weight: 1})
			}
			table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, members)
			if err != nil {
				b.Fatal(err)
			}
			if err := e.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: table, Timeouts: enginetest.TestTimeouts}}}}); err != nil {
				b.Fatal(err)
			}
			var stop atomic.Bool
			var served, resets atomic.Int64
			var clients sync.WaitGroup
			for range 32 {
				clients.Go(func() {
					for !stop.Load() {
						c, err := net.Dial("tcp", e.Listeners()[0].Addr)
						if err != nil {
							continue
						}
						if !greets {
							_, _ = c.Write([]byte("?"))
						}
						switch got, err := io.ReadAll(c); {
						case len(got) > 0:
							served.Add(1)
						case errors.Is(err, syscall.ECONNRESET):
							resets.Add(1)
						}
						_ = c.Close()
					}
				})
			}
			for i := 0; b.Loop(); i++ {
				s := servers[i%len(servers)]
				for before := served.Load(); served.Load() < before+300; {
					time.Sleep(time.Millisecond)
				}
				s.kill()
				for before := served.Load(); served.Load() < before+100; {
					time.Sleep(time.Millisecond)
				}
				s.start(b)
				members[i%len(servers)].Host.MarkUp()
			}
			stop.Store(true)
			clients.Wait()
			for _, s := range servers {
				s.kill()
			}
			b.ReportMetric(float64(resets.Load())/float64(b.N), "resets/kill")
			b.ReportMetric(float64(e.Snapshot().Services["web"].ConnectFailures["dropped"])/float64(b.N), "spared/kill")
		})
	}
}

// mortal is a server that takes a few sessions at a time, the others wait in its
// queue, and that dies as a process does: with a reset for all that it has.
type mortal struct {
	greets bool
	addr   string
	ln     net.Listener
	mu     sync.Mutex
	open   map[net.Conn]bool // nil: it is dead
	all    sync.WaitGroup
}

func (m *mortal) start(b *testing.B) {
	address := m.addr
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	m.ln, m.addr, m.open = ln, ln.Addr().String(), map[net.Conn]bool{}
	for range 4 {
		m.all.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				m.mu.Lock()
				if m.open == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
				} else {
					m.open[c] = true
				}
				m.mu.Unlock()
				if !m.greets {
					_, _ = c.Read(make([]byte, 1))
				}
				time.Sleep(time.Millisecond) // its work
				_, _ = c.Write([]byte("hello"))
				m.mu.Lock()
				delete(m.open, c)
				m.mu.Unlock()
				_ = c.Close()
			}
		})
	}
}

func (m *mortal) kill() {
	m.mu.Lock()
	for c := range m.open {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	m.open = nil
	m.mu.Unlock()
	_ = m.ln.Close()
	m.all.Wait()
}
