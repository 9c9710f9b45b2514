package engine_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// handler runs a test's handlers of given connections, and waits for them at its end.
type handler struct {
	wg sync.WaitGroup
	t  *testing.T
}

func newHandler(t *testing.T) *handler {
	h := &handler{t: t}
	t.Cleanup(h.wg.Wait)
	return h
}

// by returns a fallback that runs handle.
func (h *handler) by(handle func(*enginetest.Peer)) func(net.Conn) {
	return func(c net.Conn) {
		h.wg.Go(func() {
			defer func() { _ = c.Close() }()
			handle(&enginetest.Peer{T: h.t, Conn: c})
		})
	}
}

// The program answers until there are hosts, and again once there are none. Its connections
// are sockets; they are counted, and no sessions.
func TestB102FallbackServesUntilThereAreHosts(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		kinds := make(chan net.Conn, 9)
		h := newHandler(t)
		fallback := h.by(func(p *enginetest.Peer) {
			kinds <- p.Conn
			p.Send([]byte("own "))
			enginetest.Echo(p)
		})
		r := newRig(t, opt, engine.Route{Fallback: fallback})
		ask := func(want string) {
			t.Helper()
			c := r.Dial()
			c.Send([]byte("x"))
			c.Fin()
			if got := string(c.Rest()); got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
		}
		ask("own x")
		if c := <-kinds; c == nil {
			t.Fatal("no connection")
		} else if _, ok := c.(*net.TCPConn); !ok {
			t.Errorf("the fallback gets a %T", c)
		}
		drained, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("a", enginetest.DeadAddr(t))}})
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []*sched.Table{drained, nil} {
			setTable(r, r.Table(sched.Policy{}, mirror(t, "host ")))
			ask("host x")
			setTable(r, table)
			ask("own x")
		}
		testkit.Eventually(t, "all is counted", func() bool { s := r.Stats(); return s.Active == 0 && s.Ended["LR"] == 3 && s.Ended["--"] == 2 })
		if s := r.Stats(); s.Sessions != 5 || s.Refused["no_group"]+s.Refused["no_host"] != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

// The program owns what it was given: a drain does not wait for it, and Close leaves it.
func TestFallbackOwnsTheConnection(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{Fallback: newHandler(t).by(enginetest.Echo)})
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		if list := r.E.Sessions(0, everyone); len(list) != 0 {
			t.Errorf("listed: %+v", list)
		}
		if err := r.E.Drain(enginetest.Within(t)); err != nil {
			t.Error(err)
		}
		if err := r.E.Close(); err != nil {
			t.Error(err)
		}
		c.Send([]byte("y"))
		c.Expect([]byte("y"))
		_ = c.Close()
	})
}

// A connection of the program comes back as it is, or with all bytes if it was read ahead.
func TestFallbackGetsTakenConnections(t *testing.T) {
	for kind, pair := range kindsOfConn {
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				back := make(chan net.Conn, 1)
				h := newHandler(t)
				r := newRig(t, opt, engine.Route{Fallback: func(c net.Conn) {
					back <- c
					h.by(enginetest.Echo)(c)
				}})
				client, own := pair(t)
				if err := r.E.Take(enginetest.Within(t), "web", own); err != nil {
					t.Fatal(err)
				}
				if c := <-back; c != own && kind != "ssh" && kind != "without deadlines" {
					t.Errorf("%T comes back as %T", own, c)
				}
				p := &enginetest.Peer{T: t, Conn: client}
				p.Send([]byte("x"))
				p.Expect([]byte("x"))
				_ = p.Close()
			})
		})
	}
}

// Access rules and PROXY headers come first: the program sees the client that the header
// names, and its stream from the first byte behind it.
func TestFallbackSeesTheTrueClient(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		whom := make(chan string, 1)
		fallback := newHandler(t).by(func(p *enginetest.Peer) {
			whom <- p.RemoteAddr().String()
			enginetest.Echo(p)
		})
		hello := testkit.ClientHello(t, &tls.Config{ServerName: "other.example"})
		evil := netip.MustParseAddr("203.0.113.9")
		for _, byHello := range []bool{false, true} {
			route := engine.Route{Fallback: fallback, Timeouts: enginetest.TestTimeouts, Denied: func(a netip.Addr) bool { return a == evil }}
			if byHello {
				route.ByHello, route.Choose = true, func(engine.Asking) engine.GroupID { return engine.Default }
			}
			r := proxied(t, opt, required, route)
			c := r.Dial()
			c.Send(append(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), hello...))
			if got := <-whom; got != aClient.String() {
				t.Errorf("the client is %s, want %v", got, aClient)
			}
			c.Fin()
			if got := c.Rest(); string(got) != string(hello) {
				t.Errorf("by hello %v: %d bytes came back, want %d", byHello, len(got), len(hello))
			}
			c = r.Dial()
			c.Send(proxyproto.Append(nil, proxyproto.V1, netip.AddrPortFrom(evil, 1), itsGoal))
			c.ExpectReset()
		}
	})
}

// A panic in the program's fallback closes its client and is counted. It ends nothing else.
func TestFallbackPanics(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		var told atomic.Int64
		opt.OnPanic = func(p engine.Panic) {
			if p.Service != "web" || p.Where != "fallback" || p.Value != "a fault" || len(p.Stack) == 0 {
				t.Errorf("told of %+v", p)
			}
			told.Add(1)
		}
		r := newRig(t, opt, engine.Route{Fallback: func(net.Conn) { panic("a fault") }})
		for range 3 {
			r.Dial().ExpectEnd()
		}
		testkit.Eventually(t, "the panics are counted", func() bool { return r.E.Snapshot().Panics == 3 && told.Load() == 3 })
		r.Quiet()
	})
}

// An http.Server serves the clients of a fallback.
func TestFallbackForHTTP(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		ln := &givenListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.RemoteAddr) })}
		served := make(chan error, 1)
		go func() { served <- web.Serve(ln) }()
		r := newRig(t, opt, engine.Route{Fallback: ln.give})
		transport := &http.Transport{}
		client := &http.Client{Transport: transport, Timeout: testkit.Patience}
		answer, err := client.Get("http://" + r.Addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if host, _, splitErr := net.SplitHostPort(string(body)); err != nil || splitErr != nil || host != "127.0.0.1" {
			t.Errorf("the server sees %q, %v", body, err)
		}
		transport.CloseIdleConnections()
		if err := web.Shutdown(context.WithoutCancel(enginetest.Within(t))); err != nil {
			t.Error(err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

// givenListener accepts what it is given.
type givenListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *givenListener) give(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

func (l *givenListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *givenListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *givenListener) Addr() net.Addr { return &net.TCPAddr{} }
