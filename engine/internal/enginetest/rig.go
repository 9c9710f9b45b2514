// Package enginetest runs an engine with clients and backends on real sockets, for the
// tests of both engines.
package enginetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Rig is an engine with one service, "web", in front of hosts that the test
// runs.
type Rig struct {
	T     *testing.T
	E     engine.Engine
	Hosts []*sched.Host
	Route *engine.Route
	Addr  string // where clients connect to
}

// TestTimeouts are long enough never to matter where a test does not ask.
var TestTimeouts = engine.Timeouts{Connect: testkit.Patience, Total: 2 * testkit.Patience, Idle: time.Hour, HalfClosed: time.Hour}

// Start starts the service on an engine, which it closes at the end of the test.
// The route's table is made of the backends, in round robin order, unless the caller
// brings one.
func Start(t *testing.T, e engine.Engine, route engine.Route, backends ...sched.Addr) *Rig {
	t.Helper()
	return StartWith(t, e, route, nil, backends...)
}

// StartWith is Start with options of the listener, which is 127.0.0.1:0.
func StartWith(t *testing.T, e engine.Engine, route engine.Route, options map[string]engine.ListenOptions, backends ...sched.Addr) *Rig {
	t.Helper()
	r := &Rig{T: t, E: e}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for _, h := range r.Hosts {
			if n := h.Stats().Active; n != 0 {
				t.Errorf("host %s: %d sessions are counted after the end", h.Name(), n)
			}
		}
	})
	if route.Timeouts == (engine.Timeouts{}) {
		route.Timeouts = TestTimeouts
	}
	if route.Table == nil && len(backends) > 0 {
		route.Table = r.Table(sched.Policy{Scheduler: "roundr"}, backends...)
	}
	r.Route = &route
	r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route, ListenOptions: options})
	r.Addr = e.Listeners()[0].Addr
	return r
}

// Table makes hosts of addresses and a table of them.
func (r *Rig) Table(p sched.Policy, backends ...sched.Addr) *sched.Table {
	r.T.Helper()
	var members []sched.Member
	group := new(sched.Times)
	for i, a := range backends {
		h := sched.NewHostIn(group, "h"+string(rune('0'+i)), a)
		r.Hosts = append(r.Hosts, h)
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	table, err := sched.NewTable(p, members)
	if err != nil {
		r.T.Fatal(err)
	}
	return table
}

func (r *Rig) Apply(services ...engine.Service) {
	r.T.Helper()
	if err := r.E.Apply(engine.Plan{Services: services}); err != nil {
		r.T.Fatal(err)
	}
}

func (r *Rig) Stats() engine.ServiceStats { return r.E.Snapshot().Services["web"] }

// Dial connects a client to the service.
func (r *Rig) Dial() *Peer {
	r.T.Helper()
	return Dial(r.T, r.Addr)
}

// Quiet waits until no session is left.
func (r *Rig) Quiet() {
	r.T.Helper()
	testkit.Eventually(r.T, "sessions end", func() bool {
		return r.Stats().Active == 0
	})
}

// BackendServer runs handle for every connection to a new loopback address.
// The end of the test waits for the handlers, which end with their connections.
func BackendServer(t *testing.T, handle func(*Peer)) sched.Addr {
	t.Helper()
	return ServeOn(t, ListenLoopback(t), handle)
}

func ListenLoopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func ServeOn(t *testing.T, ln net.Listener, handle func(*Peer)) sched.Addr {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(&Peer{t, c})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return AddrOf(t, ln.Addr())
}

func AddrOf(t *testing.T, a net.Addr) sched.Addr {
	t.Helper()
	text := a.String()
	if a.Network() == "unix" {
		text = "unix:" + text
	}
	addr, err := sched.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// DeadAddr is an address on which nobody listens. The port stays reserved by a
// bound socket that never listens, so that no other test can get it.
func DeadAddr(t *testing.T) sched.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return AddrOf(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port})
}

// Peer is one end of a connection in the hands of a test: a client, or the
// backend's side. Its verbs fail the test when what must happen does not.
type Peer struct {
	T *testing.T
	net.Conn
}

// Dial connects a client. One that is reset before its connect(2) returns gets a connection
// that was reset, as any other that the server resets at once.
func Dial(t *testing.T, addr string) *Peer {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.DialTimeout(network, addr, testkit.Patience)
	if errors.Is(err, syscall.ECONNRESET) {
		c, err = dialReset(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &Peer{t, c}
}

// dialReset returns a connection that its server has reset.
func dialReset(t *testing.T) (net.Conn, error) {
	t.Helper()
	ln := ListenLoopback(t)
	defer func() { _ = ln.Close() }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	server, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	(&Peer{t, server}).Rst()
	return c, nil
}

// patient reads from a peer, each time with a deadline of its own.
type patient struct{ p *Peer }

func (r patient) Read(buf []byte) (int, error) {
	_ = r.p.SetReadDeadline(time.Now().Add(testkit.Patience))
	return r.p.Read(buf)
}

// Send writes p whole.
func (p *Peer) Send(data []byte) {
	p.T.Helper()
	const piece = 1 << 20 // has a deadline of its own
	for sent := 0; sent < len(data); {
		_ = p.SetWriteDeadline(time.Now().Add(testkit.Patience))
		n, err := p.Write(data[sent:min(sent+piece, len(data))])
		if sent += n; err != nil {
			p.T.Errorf("send: %d of %d bytes: %v", sent, len(data), err)
			return
		}
	}
}

// Expect reads until it has as many bytes as want, which they must equal.
func (p *Peer) Expect(want []byte) {
	p.T.Helper()
	buf := make([]byte, min(len(want), 256<<10)) // with the race detector, memory for a large stream costs more than the stream
	for came := 0; came < len(want); {
		n, err := io.ReadFull(patient{p}, buf[:min(len(buf), len(want)-came)])
		if !bytes.Equal(buf[:n], want[came:came+n]) {
			p.T.Errorf("expect %d bytes: other bytes came behind %d", len(want), came)
			return
		}
		if came += n; err != nil {
			p.T.Errorf("expect %d bytes: got %d: %v", len(want), came, err)
			return
		}
	}
}

// ExpectEOF reads to the end of the stream, which must be clean and without
// further bytes.
func (p *Peer) ExpectEOF() {
	p.T.Helper()
	_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
	if n, err := p.Read(make([]byte, 1)); err != io.EOF {
		p.T.Errorf("expect the end: got %d bytes, %v", n, err)
	}
}

// ExpectReset reads until the connection fails with a reset.
func (p *Peer) ExpectReset() {
	p.T.Helper()
	if _, err := io.Copy(io.Discard, patient{p}); !errors.Is(err, syscall.ECONNRESET) {
		p.T.Errorf("expect a reset: got %v", err)
	}
}

// Rest reads to the clean end and returns what came.
func (p *Peer) Rest() []byte {
	p.T.Helper()
	var got bytes.Buffer // which grows by doubling: with io.ReadAll a large stream is copied a dozen times
	if _, err := got.ReadFrom(patient{p}); err != nil {
		p.T.Errorf("read to the end: %d bytes, then %v", got.Len(), err)
	}
	return got.Bytes()
}

// Fin ends the sending direction.
func (p *Peer) Fin() {
	p.T.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		p.T.Errorf("fin: %v", err)
	}
}

// Rst resets the connection.
func (p *Peer) Rst() {
	p.T.Helper()
	c := p.Conn
	if t, ok := c.(*OverTLS); ok { // which would say goodbye
		c = t.TCP
	}
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		p.T.Errorf("rst: %v", err)
	}
	_ = c.Close()
}

// Echo sends back what comes until the peer ends, then ends too. It hides that
// the ends are sockets: the net package would keep pipes of its own open.
func Echo(p *Peer) { _, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p}) }

// Payload returns n bytes that look like no other payload.
func Payload(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}))
	_, _ = r.Read(b)
	return b
}

// Within returns a context that ends after patience.
func Within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	return ctx
}

func ListenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Reachable returns the addresses at which a client finds a listener.
func Reachable(kind, bound string) []string {
	_, port, err := net.SplitHostPort(bound)
	switch {
	case err == nil && kind == "any":
		return []string{"127.0.0.1:" + port, "[::1]:" + port}
	case err == nil && kind == "any4":
		return []string{"127.0.0.1:" + port}
	}
	return []string{bound}
}

// Standstill waits until no byte moves any more.
func (r *Rig) Standstill() {
	r.T.Helper()
	clock := testkit.NewClock(r.T)
	defer clock.Stop()
	last, since := uint64(0), clock.Now()
	testkit.Eventually(r.T, "the streams stand still", func() bool {
		if n := r.Stats().Out; n != last {
			last, since = n, clock.Now()
		}
		// Bytes are published once a second.
		return last > 0 && clock.Since(since) > 1500*time.Millisecond
	})
}

// PipeFDs returns how many descriptors the loops' pools of pipes hold: they
// keep some for the next stream.
func (r *Rig) PipeFDs() int {
	pipes := 0
	for _, l := range r.E.Snapshot().Loops {
		pipes += int(l.Pipes)
	}
	return 2 * pipes
}

// Ask asks and returns the answer.
func (r *Rig) Ask() string {
	r.T.Helper()
	c := r.Dial()
	defer func() { _ = c.Close() }()
	c.Send([]byte("?"))
	return string(c.Rest())
}

// Reported returns the error of the next failure, which must be of a host.
func (r *Rig) Reported(h *sched.Host) error {
	r.T.Helper()
	select {
	case f := <-r.E.Failures():
		if f.Host != h {
			r.T.Errorf("host %s is reported, want %s", f.Host.Name(), h.Name())
		}
		return f.Err
	case <-time.After(testkit.Patience):
		r.T.Error("nothing is reported")
		return nil
	}
}

// ExpectGone reads until the connection is over, cleanly or not.
func (p *Peer) ExpectGone() {
	p.T.Helper()
	_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
	if n, err := p.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.T.Errorf("the session goes on: %d bytes, %v", n, err)
	}
}

// ExpectEnd reads until the connection is over, cleanly or not.
func (p *Peer) ExpectEnd() {
	p.T.Helper()
	if _, err := io.Copy(io.Discard, patient{p}); errors.Is(err, os.ErrDeadlineExceeded) {
		p.T.Error("the session goes on")
	}
}

// Published waits until the bytes of all sessions have been counted.
func (r *Rig) Published(in, out uint64) {
	r.T.Helper()
	testkit.Eventually(r.T, "the bytes are counted", func() bool {
		s := r.Stats()
		return s.In == in && s.Out == out
	})
}
