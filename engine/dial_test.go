package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// nobody is the client of a connection that the program makes for itself.
var nobody netip.Addr

// dialHost asks the engine for a connection to a host.
func dialHost(r *enginetest.Rig, who netip.Addr) *enginetest.Peer {
	r.T.Helper()
	c, err := r.E.Dial(enginetest.Within(r.T), "web", who)
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = c.Close() })
	return &enginetest.Peer{T: r.T, Conn: c}
}

// A connection that the program asks for is a session: counted, listed, and given back when
// it is closed.
func TestB101DialIsASession(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo))
		first, second := dialHost(r, nobody), dialHost(r, netip.MustParseAddr("192.0.2.7"))
		for i, h := range r.Hosts {
			if h.Stats().Active != 1 {
				t.Errorf("host %d has %d sessions", i, h.Stats().Active)
			}
		}
		data := enginetest.Payload(3<<20, 5)
		var wg sync.WaitGroup
		wg.Go(func() { first.Send(data) })
		first.Expect(data)
		wg.Wait()
		list := r.E.Sessions(0, everyone)
		if len(list) != 2 || list[0].In != 3<<20 || list[0].Out != 3<<20 || list[0].Client.IsValid() || list[1].Client.Addr().String() != "192.0.2.7" || list[0].Listener != "" {
			t.Errorf("listed: %+v", list)
		}
		local := first.LocalAddr().(*net.TCPAddr).AddrPort()
		if found := r.E.FindByLocal(local); len(found) != 1 || found[0].Local != local {
			t.Errorf("found by its port: %+v", found)
		}
		if got, want := first.RemoteAddr().String(), list[0].Host.Addr().String(); got != want {
			t.Errorf("its remote address is %s, want %s", got, want)
		}
		first.Fin()
		first.ExpectEOF()
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if err := first.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		if s := r.Stats(); s.Active != 0 || s.Sessions != 2 || s.Ended["--"] != 2 || s.In != 3<<20 || s.Out != 3<<20 {
			t.Errorf("counted %+v", s)
		}
	})
}

// What ends sessions makes a dialed connection fail: an operator, the end of a drain, and
// the end of the engine.
func TestDialedConnectionsFailWithTheirSession(t *testing.T) {
	for what, end := range map[string]func(*enginetest.Rig){
		"an operator": func(r *enginetest.Rig) {
			if r.E.EndSessions(engine.ByOperator, all) != 1 {
				r.T.Error("no session ended")
			}
		},
		"one by its ID": func(r *enginetest.Rig) {
			if !r.E.EndSession(r.E.Sessions(0, everyone)[0].ID) {
				r.T.Error("no session ended")
			}
		},
		"a drain": func(r *enginetest.Rig) {
			ended, cancel := context.WithCancel(r.T.Context())
			cancel()
			if err := r.E.Drain(ended); !errors.Is(err, context.Canceled) {
				r.T.Error(err)
			}
		},
		"the engine": func(r *enginetest.Rig) {
			if err := r.E.Close(); err != nil {
				r.T.Error(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				reset := make(chan error, 1)
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					_, err := io.Copy(io.Discard, p)
					reset <- err
				}))
				c := dialHost(r, nobody)
				done := make(chan error, 1)
				go func() {
					_, err := c.Conn.Read(make([]byte, 1))
					done <- err
				}()
				c.Send([]byte("half a message"))
				end(r)
				if err := <-done; err == nil {
					t.Error("a byte came")
				}
				if err := <-reset; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the host sees %v, want a reset: its client has not ended its stream", err)
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("it can still be written to")
				}
			})
		})
	}
}

// A drain waits for dialed connections.
func TestDrainWaitsForDialedConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		c := dialHost(r, nobody)
		drained := make(chan error, 1)
		go func() { drained <- r.E.Drain(enginetest.Within(t)) }()
		testkit.Eventually(t, "the drain has begun", func() bool {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := r.E.Dial(ended, "web", nobody)
			return errors.Is(err, engine.ErrClosed)
		})
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		select {
		case err := <-drained:
			t.Errorf("the drain did not wait: %v", err)
		default:
		}
		_ = c.Close()
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

// Dial goes through the admission: rules, limits, tries, queue.
func TestDialIsAdmitted(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo))
		c := dialHost(r, nobody)
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		if r.Hosts[0].Up() {
			t.Error("the dead host is still up")
		}
		_ = c.Close()

		refused := func(route engine.Route, who netip.Addr, why string) {
			t.Helper()
			r.Apply(engine.Service{Name: "web", Route: &route})
			_, err := r.E.Dial(enginetest.Within(t), "web", who)
			no, ok := errors.AsType[*engine.NoHostError](err)
			if !errors.Is(err, engine.ErrNoHost) || !ok || no.Service != "web" || no.Why != why {
				t.Errorf("%v, want %s", err, why)
			}
		}
		client := netip.MustParseAddr("192.0.2.7")
		refused(engine.Route{Timeouts: enginetest.TestTimeouts}, nobody, "no_group")
		refused(engine.Route{Timeouts: enginetest.TestTimeouts, Fallback: func(net.Conn) { t.Error("it falls back") }}, nobody, "no_group")
		refused(engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{}, enginetest.DeadAddr(t))}, nobody, "no_host")
		if _, err := r.E.Dial(enginetest.Within(t), "web", nobody); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v does not say why", err)
		}
		refused(engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Route.Table, Denied: func(netip.Addr) bool { return true }}, client, "access")
		rate := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Route.Table, Limits: &engine.Limits{PerClient: 1}}
		r.Apply(engine.Service{Name: "web", Route: &rate})
		c = dialHost(r, client)
		refused(rate, client, "limit_client")
		_ = c.Close()
		dialHost(r, client)

		if _, err := r.E.Dial(enginetest.Within(t), "none", nobody); !errors.Is(err, engine.ErrNoService) {
			t.Errorf("an unknown service: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.E.Dial(ended, "web", nobody); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
	})
}

// While the host is full, Dial waits in the queue, as long as it may.
func TestDialWaitsInTheQueue(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		timeouts := enginetest.TestTimeouts
		timeouts.Queue = time.Hour
		r := newRig(t, opt, engine.Route{Timeouts: timeouts}, enginetest.BackendServer(t, enginetest.Echo))
		r.Hosts[0].SetMaxSessions(1)
		first := dialHost(r, nobody)
		waits, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		gaveUp := make(chan error, 1)
		go func() {
			_, err := r.E.Dial(waits, "web", nobody)
			gaveUp <- err
		}()
		testkit.Eventually(t, "it waits", func() bool { return queue(r).Len() == 1 })
		giveUp()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("a full host: %v", err)
		}
		if s := r.Stats(); s.Ended["CQ"] != 1 || s.Active != 1 {
			t.Errorf("counted %+v", s)
		}
		second := make(chan error, 1)
		go func() {
			c, err := r.E.Dial(enginetest.Within(t), "web", nobody)
			if err == nil {
				err = c.Close()
			}
			second <- err
		}()
		testkit.Eventually(t, "it waits", func() bool { return queue(r).Len() == 1 })
		_ = first.Close()
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

// The limit of sessions holds for dialed connections.
func TestDialWaitsForRoom(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		opt.MaxSessions = 1
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		first := dialHost(r, nobody)
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := r.E.Dial(short, "web", nobody); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("over the limit: %v", err)
		}
		client := r.Dial() // it waits, too
		client.Send([]byte("x"))
		_ = first.Close()
		client.Expect([]byte("x"))
		_ = client.Close()
		_ = dialHost(r, nobody).Close()
	})
}

// The host gets the PROXY header that it expects, before the program says a word.
func TestDialSendsThePROXYHeader(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		said := make(chan string, 1)
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			b := make([]byte, 200)
			n, err := p.Read(b)
			if err != nil {
				t.Error(err)
			}
			said <- string(b[:n])
		}))
		r.Hosts[0].SetProxyProtocol(1)
		ip, port, _ := net.SplitHostPort(r.Hosts[0].Addr().String())
		for who, want := range map[string]string{
			"":            "PROXY UNKNOWN\r\n",
			"192.0.2.7":   fmt.Sprintf("PROXY TCP4 192.0.2.7 %s 0 %s\r\n", ip, port),
			"2001:db8::7": fmt.Sprintf("PROXY TCP6 2001:db8::7 ::ffff:%s 0 %s\r\n", ip, port),
		} {
			addr, _ := netip.ParseAddr(who)
			c := dialHost(r, addr)
			if got := <-said; got != want {
				t.Errorf("client %q: the host is told %q, want %q", who, got, want)
			}
			_ = c.Close()
		}
	})
}

// A route by what TLS asks for is not waited for: there is nobody who says it. One by network
// counts.
func TestDialChoosesItsGroup(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, says(t, "main"))
		route := named(r, time.Hour, says(t, "net"))
		route.Choose = func(a engine.Asking) engine.GroupID {
			if a.Client == netip.MustParseAddr("192.0.2.7") {
				return 1
			}
			return engine.Default
		}
		r.Apply(engine.Service{Name: "web", Route: route})
		dialHost(r, nobody).Expect([]byte("main"))
		dialHost(r, netip.MustParseAddr("192.0.2.7")).Expect([]byte("net"))
	})
}

// A host that resets a dialed connection is counted as for clients.
func TestDialedConnectionIsReset(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Expect([]byte("x"))
			p.Rst()
		}))
		c := dialHost(r, nobody)
		c.Send([]byte("x"))
		c.ExpectReset()
		_ = c.Close()
		if s := r.Stats(); s.Ended["SD"] != 1 || s.Active != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

// io.Copy moves bytes between a dialed connection and another one, both ways, and they are
// counted.
func TestDialedConnectionsCopy(t *testing.T) {
	const size = 5<<20 + 77
	data := enginetest.Payload(size, 9)
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		for _, network := range []string{"tcp", "pipe"} {
			c := dialHost(r, nobody)
			far, near := kindsOfConn[network](t)
			var wg sync.WaitGroup
			wg.Go(func() {
				(&enginetest.Peer{T: t, Conn: far}).Send(data)
				if w, ok := far.(*net.TCPConn); ok {
					_ = w.CloseWrite()
				}
			})
			wg.Go(func() {
				from := io.Reader(near)
				if network == "pipe" { // it cannot end alone
					from = io.LimitReader(near, size)
				}
				if n, err := io.Copy(c.Conn, from); n != size || err != nil {
					t.Errorf("%s to the host: %d, %v", network, n, err)
				}
				c.Fin()
			})
			wg.Go(func() {
				if n, err := io.Copy(near, c.Conn); n != size || err != nil {
					t.Errorf("%s from the host: %d, %v", network, n, err)
				}
			})
			got := make([]byte, size)
			if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: other bytes came, %v", network, err)
			}
			wg.Wait()
			_ = near.Close()
			_ = c.Close()
		}
		if s := r.Stats(); s.In != 2*size || s.Out != 2*size {
			t.Errorf("counted %d and %d", s.In, s.Out)
		}
	})
}

// net/http dials through the engine.
func TestDialForHTTP(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })}
		ln := enginetest.ListenLoopback(t)
		go func() { _ = web.Serve(ln) }()
		t.Cleanup(func() { _ = web.Close() })
		r := newRig(t, opt, engine.Route{}, enginetest.AddrOf(t, ln.Addr()))
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.E.Dial(ctx, "web", nobody) }}
		client := &http.Client{Transport: transport, Timeout: testkit.Patience}
		for range 3 {
			answer, err := client.Get("http://web.example/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if string(body) != "hello" || err != nil {
				t.Errorf("answer %q, %v", body, err)
			}
		}
		transport.CloseIdleConnections()
		r.Quiet()
		if s := r.Stats(); s.Sessions == 0 || s.Sessions > 3 {
			t.Errorf("%d connections for three requests", s.Sessions)
		}
	})
}
