package engine_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// pairOf makes a connection and returns both ends: the client's, and the one that the
// engine is given.
type pairOf func(t *testing.T) (client, own net.Conn)

// kindsOfConn are connections that programs have.
var kindsOfConn = map[string]pairOf{
	"tcp": func(t *testing.T) (client, own net.Conn) { return socketPair(t, "tcp", "127.0.0.1:0") },
	"unix": func(t *testing.T) (client, own net.Conn) {
		return socketPair(t, "unix", filepath.Join(t.TempDir(), "s"))
	},
	"pipe": func(t *testing.T) (client, own net.Conn) { return pipePair(t) },
	"tls":  tlsPair,
	"ssh":  sshPair,
	"wrapped": func(t *testing.T) (client, own net.Conn) {
		return wrappedPair(t, func(c net.Conn) net.Conn { return struct{ net.Conn }{c} })
	},
	"without deadlines": func(t *testing.T) (client, own net.Conn) {
		return wrappedPair(t, func(c net.Conn) net.Conn { return timeless{c} })
	},
	"without addresses": func(t *testing.T) (client, own net.Conn) {
		return wrappedPair(t, func(c net.Conn) net.Conn { return nameless{c} })
	},
}

func socketPair(t *testing.T, network, address string) (client, own net.Conn) {
	t.Helper()
	ln := enginetest.ListenOn(t, network, address)
	defer func() { _ = ln.Close() }()
	client, err := net.DialTimeout(network, ln.Addr().String(), testkit.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if own, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, own
}

func pipePair(t *testing.T) (client, own net.Conn) {
	client, own = net.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	return client, own
}

func wrappedPair(t *testing.T, wrap func(net.Conn) net.Conn) (client, own net.Conn) {
	client, own = socketPair(t, "tcp", "127.0.0.1:0")
	return client, wrap(own)
}

// timeless has no deadlines.
type timeless struct{ net.Conn }

var errTimeless = errors.New("deadlines are not supported")

func (timeless) SetDeadline(time.Time) error      { return errTimeless }
func (timeless) SetReadDeadline(time.Time) error  { return errTimeless }
func (timeless) SetWriteDeadline(time.Time) error { return errTimeless }

// nameless has no addresses.
type nameless struct{ net.Conn }

func (nameless) LocalAddr() net.Addr  { return nil }
func (nameless) RemoteAddr() net.Addr { return (*net.TCPAddr)(nil) }

// aCertificate returns a certificate for "txlb.example".
var aCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"txlb.example"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func tlsPair(t *testing.T) (client, own net.Conn) {
	client, own = socketPair(t, "tcp", "127.0.0.1:0")
	return tls.Client(client, &tls.Config{InsecureSkipVerify: true}), //nolint:gosec // it is its own
		tls.Server(own, &tls.Config{Certificates: []tls.Certificate{aCertificate()}})
}

// sshPair returns a direct-tcpip channel: the client's end is that of the SSH server, which
// has forwarded the connection.
func sshPair(t *testing.T) (client, own net.Conn) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan net.Conn, 1)
	near, far := socketPair(t, "tcp", "127.0.0.1:0")
	var wg sync.WaitGroup
	wg.Go(func() {
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(signer)
		_, channels, requests, err := ssh.NewServerConn(far, config)
		if err != nil {
			t.Error(err)
			close(ends)
			return
		}
		wg.Go(func() { ssh.DiscardRequests(requests) })
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() { ssh.DiscardRequests(requests) })
			ends <- channelConn{channel}
		}
	})
	conn, channels, requests, err := ssh.NewClientConn(near, "", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	through := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() {
		_ = through.Close()
		_ = far.Close()
		wg.Wait()
	})
	if own, err = through.Dial("tcp", "web.example:80"); err != nil {
		t.Fatal(err)
	}
	client, ok := <-ends
	if !ok {
		t.FailNow()
	}
	return client, own
}

// channelConn is a channel as a test's client: its deadlines do nothing.
type channelConn struct{ ssh.Channel }

func (channelConn) LocalAddr() net.Addr              { return nil }
func (channelConn) RemoteAddr() net.Addr             { return nil }
func (channelConn) SetDeadline(time.Time) error      { return nil }
func (channelConn) SetReadDeadline(time.Time) error  { return nil }
func (channelConn) SetWriteDeadline(time.Time) error { return nil }

// giveTo gives a connection of a kind to the service of a rig, and returns the client's end.
func giveTo(r *enginetest.Rig, kind pairOf) *enginetest.Peer {
	r.T.Helper()
	client, own := kind(r.T)
	if err := r.E.Take(enginetest.Within(r.T), "web", own); err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = client.Close() })
	return &enginetest.Peer{T: r.T, Conn: client}
}

// Whatever a program calls a connection is balanced like a client of a listener: bytes both
// ways, listing, counters, and an end in one direction where there is such a thing.
func TestB100TakeCarriesEveryConnection(t *testing.T) {
	for kind, pair := range kindsOfConn {
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
				c := giveTo(r, pair)
				data := enginetest.Payload(1<<20, 7)
				var wg sync.WaitGroup
				wg.Go(func() { c.Send(data) })
				c.Expect(data)
				wg.Wait()
				list := r.E.Sessions(0, everyone)
				if len(list) != 1 || list[0].Service != "web" || list[0].Host != r.Hosts[0] || list[0].ID == 0 {
					t.Fatalf("listed: %+v", list)
				}
				if found := r.E.FindByLocal(list[0].Local); len(found) != 1 || found[0].ID != list[0].ID {
					t.Errorf("found by its port: %+v", found)
				}
				if a, ok := c.LocalAddr().(*net.TCPAddr); ok && kind != "without addresses" && list[0].Client != a.AddrPort() {
					t.Errorf("the client is %v, want %v", list[0].Client, a)
				}
				if w, ok := c.Conn.(interface{ CloseWrite() error }); ok && kind != "wrapped" && !strings.HasPrefix(kind, "without") {
					if err := w.CloseWrite(); err != nil {
						t.Error(err)
					}
					c.ExpectEOF()
				}
				_ = c.Close()
				r.Quiet()
				if s := r.Stats(); s.Sessions != 1 || s.In != 1<<20 || s.Out != 1<<20 || s.Ended["--"] != 1 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

// An operator ends a taken session, however its connection waits: for bytes, or for room.
func TestEndSessionsOfTakenConnections(t *testing.T) {
	for kind, pair := range kindsOfConn {
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					if _, err := p.Read(make([]byte, 1)); err == nil {
						_, _ = p.Write(make([]byte, 64<<20)) // nobody reads it
					}
				}))
				silent, stalled := giveTo(r, pair), giveTo(r, pair)
				stalled.Send([]byte("x"))
				stalled.Expect([]byte{0}) // and no more: a write waits, or will
				testkit.Eventually(t, "both have their host", func() bool { return r.Hosts[0].Stats().Active == 2 })
				if n := r.E.EndSessions(engine.ByOperator, all); n != 2 {
					t.Errorf("%d sessions ended", n)
				}
				r.Quiet()
				_ = silent.Close()
				_ = stalled.Close()
				// The host of the silent one may not have answered yet.
				if s := r.Stats(); s.Ended["KD"]+s.Ended["KC"] != 2 || s.Ended["KD"] == 0 {
					t.Errorf("ended %v", s.Ended)
				}
			})
		})
	}
}

// Idle sessions end in time, also where the connection knows no deadlines.
func TestTakenConnectionsTimeOut(t *testing.T) {
	for kind, pair := range kindsOfConn {
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				timeouts := enginetest.TestTimeouts
				timeouts.Idle = 50 * time.Millisecond
				r := newRig(t, opt, engine.Route{Timeouts: timeouts}, enginetest.BackendServer(t, enginetest.Echo))
				c := giveTo(r, pair)
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("a byte came")
				}
				r.Quiet()
				if s := r.Stats(); s.Ended["cD"] != 1 {
					t.Errorf("ended %v", s.Ended)
				}
			})
		})
	}
}

// A route that waits for a ClientHello does not wait for ever for one that cannot be given a
// deadline, and no byte is lost.
func TestTakenConnectionsAreHeard(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	for kind, pair := range kindsOfConn {
		if kind == "tls" { // what its client sends is not what the engine reads
			continue
		}
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
				r.Apply(engine.Service{Name: "web", Route: named(r, testkit.Patience, mirror(t, "db"))})
				c := giveTo(r, pair)
				c.Send(hello)
				c.Expect(append([]byte("db"), hello...))
				r.Apply(engine.Service{Name: "web", Route: named(r, 50*time.Millisecond, mirror(t, "db"))})
				c = giveTo(r, pair)
				c.Expect([]byte("main"))
				c.Send([]byte("late"))
				c.Expect([]byte("late"))
			})
		})
	}
}

// The host has ended, and the client's connection cannot end one direction alone: it is
// closed, and the session has ended as it should.
func TestTakenConnectionWithoutHalfClose(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		heard := make(chan []byte, 1)
		r := newRig(t, opt, engine.Route{Timeouts: enginetest.TestTimeouts}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Send([]byte("all of it"))
			p.Fin()
			got, err := io.ReadAll(p)
			if err != nil {
				t.Errorf("the host's end: %v", err)
			}
			heard <- got
		}))
		c := giveTo(r, kindsOfConn["pipe"])
		c.Send([]byte("a question"))
		if got, err := io.ReadAll(c); err != nil || string(got) != "all of it" {
			t.Errorf("the client has read %q, %v", got, err)
		}
		if got := <-heard; string(got) != "a question" {
			t.Errorf("the host has heard %q", got)
		}
		r.Quiet()
		if ended := r.Stats().Ended; ended["--"] != 1 {
			t.Errorf("ended: %v, want one that is normal", ended)
		}
	})
}

// strange is a connection that does what it must not.
type strange struct {
	net.Conn
	read  func(b []byte) (int, error)
	write func(b []byte) (int, error)
	local func() net.Addr
	close func() error
}

func (s strange) Read(b []byte) (int, error) {
	if s.read != nil {
		return s.read(b)
	}
	return s.Conn.Read(b)
}

func (s strange) Write(b []byte) (int, error) {
	if s.write != nil {
		return s.write(b)
	}
	return s.Conn.Write(b)
}

func (s strange) LocalAddr() net.Addr {
	if s.local != nil {
		return s.local()
	}
	return s.Conn.LocalAddr()
}

func (s strange) Close() error {
	if s.close != nil {
		_ = s.Conn.Close()
		return s.close()
	}
	return s.Conn.Close()
}

// A connection that panics, or answers nonsense, ends its own session and nothing else. A
// panic is reported once, and counted.
func TestB100TakeContainsTheProgramsFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault  strange
		panics uint64
		failed bool // Take says so
	}{
		"panics in Read":       {fault: strange{read: func([]byte) (int, error) { panic("a fault") }}, panics: 1},
		"panics in Write":      {fault: strange{write: func([]byte) (int, error) { panic("a fault") }}, panics: 1},
		"panics in Close":      {fault: strange{close: func() error { panic("a fault") }}, panics: 1},
		"panics in LocalAddr":  {fault: strange{local: func() net.Addr { panic("a fault") }}, panics: 1, failed: true},
		"reads nothing":        {fault: strange{read: func([]byte) (int, error) { return 0, nil }}},
		"reads too much":       {fault: strange{read: func(b []byte) (int, error) { return len(b) + 1, nil }}},
		"reads less than none": {fault: strange{read: func([]byte) (int, error) { return -1, nil }}},
		"writes too little":    {fault: strange{write: func([]byte) (int, error) { return 0, nil }}},
		"writes too much":      {fault: strange{write: func(b []byte) (int, error) { return len(b) + 1, nil }}},
	} {
		t.Run(name, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				var told atomic.Int64
				opt.OnPanic = func(p engine.Panic) {
					told.Add(1)
					if p.Service != "web" || p.Where != "connection" || p.Value != "a fault" || !bytes.Contains(p.Stack, []byte("strange")) {
						t.Errorf("told of %q %q %v", p.Service, p.Where, p.Value)
					}
				}
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					_, _ = p.Write([]byte("hello"))
					_, _ = io.Copy(io.Discard, p)
				}))
				client, own := socketPair(t, "tcp", "127.0.0.1:0")
				fault := c.fault
				fault.Conn = own
				if err := r.E.Take(enginetest.Within(t), "web", fault); (err != nil) != c.failed {
					t.Fatalf("Take: %v", err)
				}
				other := giveTo(r, kindsOfConn["pipe"])
				other.Expect([]byte("hello"))
				if name == "panics in Close" {
					_ = client.Close()
				} else {
					(&enginetest.Peer{T: t, Conn: client}).ExpectEnd()
				}
				_ = other.Close()
				r.Quiet()
				if n := r.E.Snapshot().Panics; n != c.panics || told.Load() != int64(c.panics) {
					t.Errorf("%d panics counted and %d told, want %d", n, told.Load(), c.panics)
				}
			})
		})
	}
}

// What Take refuses, it closes.
func TestTakeRefuses(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		within := enginetest.Within(t)
		if err := r.E.Take(within, "web", nil); err == nil {
			t.Error("nil is taken")
		}
		if err := r.E.Take(within, "web", (*net.TCPConn)(nil)); err == nil {
			t.Error("a nil TCP connection is taken")
		}
		if err := r.E.Take(within, "web", (*net.UnixConn)(nil)); err == nil {
			t.Error("a nil UNIX connection is taken")
		}
		if err := r.E.Take(within, "web", (*tls.Conn)(nil)); err == nil {
			t.Error("a nil TLS connection is taken")
		}
		for kind, pair := range kindsOfConn {
			refuses := func(service string, ctx context.Context, want error) {
				t.Helper()
				client, own := pair(t)
				if err := r.E.Take(ctx, service, own); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", kind, err, want)
				}
				if _, err := client.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s: it is not closed", kind)
				}
			}
			refuses("none", within, engine.ErrNoService)
			ended, cancel := context.WithCancel(within)
			cancel()
			refuses("web", ended, context.Canceled)
			if kind != "ssh" && kind != "without deadlines" && kind != "tls" { // they say so to who reads
				_, own := pair(t)
				_ = own.Close()
				if err := r.E.Take(within, "web", own); err == nil {
					t.Errorf("%s: a closed connection is taken", kind)
				}
			}
		}
		r.Quiet()
		before := r.Stats().Sessions
		if err := r.E.Close(); err != nil {
			t.Fatal(err)
		}
		_, own := pipePair(t)
		if err := r.E.Take(within, "web", own); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("a closed engine: %v", err)
		}
		if before != 0 {
			t.Errorf("%d sessions are counted", before)
		}
	})
}

// The limit of sessions holds for taken connections: Take waits for room, as long as it may.
func TestTakeWaitsForRoom(t *testing.T) {
	for _, kind := range []string{"tcp", "pipe"} {
		eachMode(t, func(t *testing.T, opt setup) {
			opt.MaxSessions = 2
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			first, second := r.Dial(), giveTo(r, kindsOfConn[kind])
			for _, c := range []*enginetest.Peer{first, second} {
				c.Send([]byte("x"))
				c.Expect([]byte("x"))
			}
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			client, own := kindsOfConn[kind](t)
			if err := r.E.Take(short, "web", own); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: Take over the limit: %v", kind, err)
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: it is not closed", kind)
			}
			took := make(chan error, 3)
			for range 3 { // one after the other, as there is room
				client, own := kindsOfConn[kind](t)
				go func() {
					took <- r.E.Take(enginetest.Within(t), "web", own)
					_ = client.Close()
				}()
			}
			_ = first.Close()
			for range 3 {
				if err := <-took; err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
			third := r.Dial()
			third.Send([]byte("y"))
			third.Expect([]byte("y"))
		})
	}
}

// Access rules look at the client of a taken connection.
func TestTakenConnectionsAreJudged(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		denied := func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }
		r := newRig(t, opt, engine.Route{Denied: denied}, enginetest.BackendServer(t, enginetest.Echo))
		giveTo(r, kindsOfConn["tcp"]).ExpectReset()
		giveTo(r, kindsOfConn["wrapped"]).ExpectEnd()
		c := giveTo(r, kindsOfConn["pipe"])
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		testkit.Eventually(t, "two are rejected", func() bool { return r.Stats().Refused["access"] == 2 })
	})
}

// A service without listeners takes connections, and a drain waits for them.
func TestDrainWaitsForTakenConnections(t *testing.T) {
	for kind, pair := range kindsOfConn {
		t.Run(kind, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
				r.Apply(engine.Service{Name: "web", Route: r.Route})
				c := giveTo(r, pair)
				c.Send([]byte("x"))
				c.Expect([]byte("x"))
				drained := make(chan error, 1)
				go func() { drained <- r.E.Drain(enginetest.Within(t)) }()
				testkit.Eventually(t, "the drain has begun", func() bool {
					client, own := pipePair(t)
					_ = client.Close() // it is refused for that before
					return errors.Is(r.E.Take(t.Context(), "web", own), engine.ErrClosed)
				})
				c.Send([]byte("y"))
				c.Expect([]byte("y"))
				_ = c.Close()
				if err := <-drained; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
