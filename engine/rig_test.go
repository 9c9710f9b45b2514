package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Tests that run at once wait most of the time, so more of them than there are
// processors do.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8")
	testkit.Main(m)
}

const patience = testkit.Patience

var eventually = testkit.Eventually

// modesToTest yields every mode that the engine has, with two loops.
func modesToTest(yield func(name string, opt Options) bool) {
	for name, opt := range modes {
		if testing.Short() && slices.Contains(longModes, name) {
			continue
		}
		opt.Loops = 2
		if !yield(name, opt) {
			return
		}
	}
}

// eachMode runs a test in every mode.
func eachMode(t *testing.T, test func(t *testing.T, opt Options)) {
	for name, opt := range modesToTest {
		t.Run(name, func(t *testing.T) { test(t, opt) })
	}
}

// eachModeAtOnce is eachMode for a test that waits most of its time and does not
// measure what it costs.
func eachModeAtOnce(t *testing.T, test func(t *testing.T, opt Options)) {
	eachMode(t, func(t *testing.T, opt Options) {
		t.Parallel()
		test(t, opt)
	})
}

// rig is an engine with one service, "web", in front of hosts that the test
// runs.
type rig struct {
	t     *testing.T
	e     *Engine
	hosts []*sched.Host
	route *Route
	addr  string // where clients connect to
}

// testTimeouts are long enough never to matter where a test does not ask.
var testTimeouts = Timeouts{Connect: patience, Total: 2 * patience, Idle: time.Hour, HalfClosed: time.Hour}

// newRig starts an engine and the service. The route's table is made of the
// backends, in round robin order, unless the caller brings one.
func newRig(t *testing.T, opt Options, route Route, backends ...sched.Addr) *rig {
	t.Helper()
	e, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, e: e}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for _, h := range r.hosts {
			if n := h.Stats().Active; n != 0 {
				t.Errorf("host %s: %d sessions are counted after the end", h.Name(), n)
			}
		}
	})
	if route.Timeouts == (Timeouts{}) {
		route.Timeouts = testTimeouts
	}
	if route.Table == nil && len(backends) > 0 {
		route.Table = r.table(sched.Policy{Scheduler: "roundr"}, backends...)
	}
	r.route = &route
	r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.route})
	r.addr = e.Listeners()[0].Addr
	return r
}

// table makes hosts of addresses and a table of them.
func (r *rig) table(p sched.Policy, backends ...sched.Addr) *sched.Table {
	r.t.Helper()
	var members []sched.Member
	for i, a := range backends {
		h := sched.NewHost("h"+string(rune('0'+i)), a)
		r.hosts = append(r.hosts, h)
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	table, err := sched.NewTable(p, members)
	if err != nil {
		r.t.Fatal(err)
	}
	return table
}

func (r *rig) apply(services ...Service) {
	r.t.Helper()
	if err := r.e.Apply(Plan{Services: services}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stats() ServiceStats { return r.e.Snapshot().Services["web"] }

// dial connects a client to the service.
func (r *rig) dial() *peer {
	r.t.Helper()
	return dial(r.t, r.addr)
}

// quiet waits until no session is left.
func (r *rig) quiet() {
	r.t.Helper()
	eventually(r.t, "sessions end", func() bool {
		return r.stats().Active == 0
	})
}

// backendServer runs handle for every connection to a new loopback address.
// The end of the test waits for the handlers, which end with their connections.
func backendServer(t *testing.T, handle func(*peer)) sched.Addr {
	t.Helper()
	return serveOn(t, listenLoopback(t), handle)
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func serveOn(t *testing.T, ln net.Listener, handle func(*peer)) sched.Addr {
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
				handle(&peer{t, c})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return addrOf(t, ln.Addr())
}

func addrOf(t *testing.T, a net.Addr) sched.Addr {
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

// deadAddr is an address on which nobody listens. The port stays reserved by a
// bound socket that never listens, so that no other test can get it.
func deadAddr(t *testing.T) sched.Addr {
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
	return addrOf(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port})
}

// peer is one end of a connection in the hands of a test: a client, or the
// backend's side. Its verbs fail the test when what must happen does not.
type peer struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t, c}
}

// send writes p whole.
func (p *peer) send(data []byte) {
	p.t.Helper()
	_ = p.SetWriteDeadline(time.Now().Add(patience))
	if n, err := p.Write(data); err != nil {
		p.t.Errorf("send: %d of %d bytes: %v", n, len(data), err)
	}
}

// expect reads until it has as many bytes as want, which they must equal.
func (p *peer) expect(want []byte) {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p, got); err != nil {
		p.t.Errorf("expect %d bytes: got %d: %v", len(want), n, err)
	} else if !bytes.Equal(got, want) {
		p.t.Errorf("expect %d bytes: other bytes came", len(want))
	}
}

// expectEOF reads to the end of the stream, which must be clean and without
// further bytes.
func (p *peer) expectEOF() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	if n, err := p.Read(make([]byte, 1)); err != io.EOF {
		p.t.Errorf("expect the end: got %d bytes, %v", n, err)
	}
}

// expectReset reads until the connection fails with a reset.
func (p *peer) expectReset() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, p.Conn); !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("expect a reset: got %v", err)
	}
}

// rest reads to the clean end and returns what came.
func (p *peer) rest() []byte {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(p)
	if err != nil {
		p.t.Errorf("read to the end: %d bytes, then %v", len(got), err)
	}
	return got
}

// fin ends the sending direction.
func (p *peer) fin() {
	p.t.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		p.t.Errorf("fin: %v", err)
	}
}

// rst resets the connection.
func (p *peer) rst() {
	p.t.Helper()
	if err := p.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		p.t.Errorf("rst: %v", err)
	}
	_ = p.Close()
}

// echo sends back what comes until the peer ends, then ends too. It hides that
// the ends are sockets: the net package would keep pipes of its own open.
func echo(p *peer) { _, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p}) }

// payload returns n bytes that look like no other payload.
func payload(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}))
	_, _ = r.Read(b)
	return b
}

// within returns a context that ends after patience.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// reachable returns the addresses at which a client finds a listener.
func reachable(kind, bound string) []string {
	_, port, err := net.SplitHostPort(bound)
	switch {
	case err == nil && kind == "any":
		return []string{"127.0.0.1:" + port, "[::1]:" + port}
	case err == nil && kind == "any4":
		return []string{"127.0.0.1:" + port}
	}
	return []string{bound}
}
