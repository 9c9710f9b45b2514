package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var eventually = testkit.Eventually

// guarded is a listener on loopback that is closed with the test.
func guarded(t *testing.T, k Kind, l Limits, allow ...netip.Prefix) (*Guard, *Listener) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Log: slog.New(slog.DiscardHandler), Change: func(_ Kind, to *Limits) { *to = l }})
	guarded := g.Listen(k, ln, func() []netip.Prefix { return allow })
	t.Cleanup(func() { _ = guarded.Close() })
	return g, guarded
}

// echoes answers each byte with itself, until the listener is closed.
func echoes(t *testing.T, l net.Listener) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_, _ = io.Copy(c, used{c})
				_ = c.Close()
				_ = c.Close() // gives no second place back
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
}

// used tells the guard that its reader was asked something.
type used struct{ net.Conn }

func (u used) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if c := ConnOf(u.Conn); c != nil {
		c.Used()
	}
	return n, err
}

func dial(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: testkit.Patience}
	c, err := d.Dial("tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	return c
}

// served tells whether a new connection is served. It may be reset before
// connect has returned.
func served(t *testing.T, from, to string) bool {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: testkit.Patience}
	c, err := d.Dial("tcp4", to)
	if err != nil {
		return false
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	return answers(c)
}

// answers tells whether a connection is served.
func answers(c net.Conn) bool {
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

func TestOneTooManyEvictsTheOneIdleLongest(t *testing.T) {
	g, l := guarded(t, Page, Limits{Conns: 4, PerSource: 3})
	echoes(t, l)
	addr := l.Addr().String()
	a, b, c := dial(t, "127.0.0.1", addr), dial(t, "127.0.0.1", addr), dial(t, "127.0.0.1", addr)
	for _, one := range []net.Conn{b, c, a} {
		if !answers(one) {
			t.Fatal("there is no place")
		}
	}
	d := dial(t, "127.0.0.1", addr) // the fourth of its source: b has to go
	if !answers(d) || answers(b) || !answers(c) || !answers(a) {
		t.Error("the fourth of a source does not evict its one idle longest")
	}
	if e := dial(t, "127.0.0.2", addr); !answers(e) || !answers(d) {
		t.Error("another source has no place")
	}
	if f := dial(t, "127.0.0.3", addr); !answers(f) || answers(c) || !answers(a) {
		t.Error("the fifth of all does not evict the one idle longest")
	}
	if s := g.Stats()[Page]; s.Open != 4 || s.Rejected[Evicted] != 2 || s.Accepted != 6 {
		t.Errorf("counted are %+v", s)
	}
}

// Who has logged in leaves after all strangers, whatever they do.
func TestUsersGoLast(t *testing.T) {
	_, l := guarded(t, SSH, Limits{Conns: 3, PerSource: 3})
	dial(t, "127.0.0.1", l.Addr().String())
	user, err := l.next()
	if err != nil {
		t.Fatal(err)
	}
	user.LoggedIn()
	echoes(t, l)
	for range 10 {
		if !answers(dial(t, "127.0.0.2", l.Addr().String())) {
			t.Fatal("a stranger has no place")
		}
	}
	select {
	case <-user.closed:
		t.Error("strangers evict a user")
	default:
	}
	_ = user.Close()
}

// A connection at work keeps its place, and who comes is told.
func TestWorkIsNotEvicted(t *testing.T) {
	g, l := guarded(t, Socket, Limits{Conns: 1})
	l.Refuse = func(c net.Conn) {
		_, _ = io.WriteString(c, "busy")
		_ = c.Close()
	}
	dial(t, "127.0.0.1", l.Addr().String())
	c, err := l.next()
	if err != nil {
		t.Fatal(err)
	}
	done := c.Working()
	echoes(t, l)
	if got, err := io.ReadAll(dial(t, "127.0.0.1", l.Addr().String())); string(got) != "busy" {
		t.Errorf("who comes is told %q, %v", got, err)
	}
	done()
	if !answers(dial(t, "127.0.0.1", l.Addr().String())) {
		t.Error("there is no place after the work")
	}
	l.door.mu.Lock()
	l.door.limits.AtWork = time.Hour
	for c := range l.door.conns {
		c.LoggedIn()
	}
	l.door.mu.Unlock()
	if got, err := io.ReadAll(dial(t, "127.0.0.1", l.Addr().String())); string(got) != "busy" {
		t.Errorf("who comes while a command may be about to come is told %q, %v", got, err)
	}
	if s := g.Stats()[Socket]; s.Rejected[Full] != 2 || s.Rejected[Evicted] != 1 {
		t.Errorf("counted are %+v", s)
	}
}

// TestPlacesAreCounted opens and closes from many sources at once.
func TestPlacesAreCounted(t *testing.T) {
	_, l := guarded(t, Page, Limits{Conns: 8, Login: time.Hour})
	echoes(t, l)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for range 20 {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%4))}}
				if c, err := d.Dial("tcp4", l.Addr().String()); err == nil {
					_, _ = c.Write([]byte("x"))
					_ = c.Close()
				}
			}
		})
	}
	clients.Wait()
	eventually(t, "all places are free", func() bool {
		l.door.mu.Lock()
		defer l.door.mu.Unlock()
		open := 0
		for _, s := range l.door.sources {
			open += s.open
		}
		return len(l.door.conns) == 0 && open == 0
	})
}

func TestOnlyAllowedAddressesConnect(t *testing.T) {
	g, l := guarded(t, Page, Limits{Conns: 4}, netip.MustParsePrefix("127.0.0.4/30"))
	echoes(t, l)
	if !served(t, "127.0.0.5", l.Addr().String()) {
		t.Error("one of the network is kept out")
	}
	if served(t, "127.0.0.9", l.Addr().String()) {
		t.Error("one of another network is let in")
	}
	if n := g.Stats()[Page].Rejected[NotAllowed]; n != 1 {
		t.Errorf("%d are counted", n)
	}
	for in, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "fe80::1%eth0": true, "fe81::1": false} {
		if got := Allowed([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/16")}, netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

// A source that is too fast is reset, and others are not.
func TestRates(t *testing.T) {
	g, l := guarded(t, Page, Limits{Conns: 100, PerSource: 100, Rate: 10, SourceRate: 3})
	echoes(t, l)
	good := 0
	for range 12 {
		if served(t, "127.0.0.1", l.Addr().String()) {
			good++
		}
	}
	if good < 6 { // six at once, and more while time passes
		t.Errorf("%d of 12 are served", good)
	}
	if !served(t, "127.0.0.2", l.Addr().String()) {
		t.Error("another source is reset")
	}
	if s := g.Stats()[Page]; s.Rejected[Rate] != uint64(12-good) {
		t.Errorf("counted are %+v", s)
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Unix(1e9, 0)
	for i := range 20 {
		if !b.take(10, now) {
			t.Fatalf("token %d is missing", i)
		}
	}
	if b.take(10, now) || b.full(10, now) {
		t.Error("there is one too many")
	}
	if !b.take(10, now.Add(100*time.Millisecond)) || b.take(10, now.Add(100*time.Millisecond)) {
		t.Error("a tenth of a second is not one token")
	}
	if wait := b.owe(10, now.Add(100*time.Millisecond)); wait < 99*time.Millisecond || wait > 101*time.Millisecond {
		t.Errorf("the next one comes in %v", wait)
	}
	if !b.full(10, now.Add(time.Minute)) {
		t.Error("it does not fill up")
	}
}

// Sources that have gone are forgotten.
func TestSourcesAreForgotten(t *testing.T) {
	d := newDoor(Page, Limits{Conns: 4, Rate: 1e6, SourceRate: 10}, NewGate(), slog.New(slog.DiscardHandler))
	now := time.Unix(1e9, 0)
	for i := range 1000 {
		c := &Conn{door: d, source: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}
		if _, why := d.enter(c, now); why != letIn {
			t.Fatal(why)
		}
	}
	d.source(netip.MustParsePrefix("10.9.9.9/32"), now.Add(sweepEvery))
	if n := len(d.sources); n > 6 {
		t.Errorf("%d sources are remembered", n)
	}
}

// A login that does not come ends with its time, and one that never ends with
// its bytes.
func TestLoginsAreBounded(t *testing.T) {
	g, l := guarded(t, SSH, Limits{Conns: 4, PerSource: 4, Login: 50 * time.Millisecond})
	echoes(t, l)
	if _, err := io.Copy(io.Discard, dial(t, "127.0.0.1", l.Addr().String())); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it is open still")
	}
	if s := g.Stats()[SSH]; s.Rejected[LoginTimeout] != 1 {
		t.Errorf("counted are %+v", s)
	}
	g, l = guarded(t, SSH, Limits{Conns: 4, PerSource: 4, LoginBytes: 1000})
	echoes(t, l)
	c := dial(t, "127.0.0.1", l.Addr().String())
	go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
	if n, err := io.Copy(io.Discard, c); n > 1000 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes are worked on, %v", n, err)
	}
	if s := g.Stats()[SSH]; s.Rejected[LoginTooLong] != 1 {
		t.Errorf("counted are %+v", s)
	}
}

// weary is a listener whose accepts fail a few times.
type weary struct {
	net.Listener
	left int
}

func (w *weary) Accept() (net.Conn, error) {
	if w.left--; w.left >= 0 {
		return nil, errors.New("too many open files")
	}
	return w.Listener.Accept()
}

// TestAcceptGoesOnWithoutDescriptors has what would close net/http pass.
func TestAcceptGoesOnWithoutDescriptors(t *testing.T) {
	_, l := guarded(t, Page, Limits{Conns: 4})
	l.Listener = &weary{l.Listener, 3}
	dial(t, "127.0.0.1", l.Addr().String())
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	l.Listener = &weary{l.Listener, 1 << 30}
	failed := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		failed <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection in its handshake holds the gate while it works, and not while it
// waits for its client.
func TestSlowClientHoldsNoPlace(t *testing.T) {
	g, l := guarded(t, SSH, Limits{Conns: 4})
	g.gate = newGate(1)
	l.door.gate = g.gate
	free := g.gate.Free
	client := dial(t, "127.0.0.1", l.Addr().String())
	c, err := l.next()
	if err != nil {
		t.Fatal(err)
	}
	c.Handshake()
	read := func() {
		t.Helper()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	read()
	if free() != 0 {
		t.Error("it works without a place")
	}
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		read()
	}()
	eventually(t, "the place is given back for the time of Read", func() bool { return free() == 1 })
	// Another goroutine writes meanwhile, as that of SSH's transport does.
	if _, err := c.Write([]byte("y")); err != nil || free() != 1 {
		t.Errorf("Write: %v, %d free", err, free())
	}
	if err := g.gate.Enter(t.Context(), Hash); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for its turn", func() bool { return g.gate.Waiting(KeyExchange) == 1 })
	g.gate.Leave()
	<-reading
	if free() != 0 {
		t.Error("it works without a place")
	}
	c.Yield()
	if free() != 1 {
		t.Error("Yield gives nothing back")
	}
	c.LoggedIn()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if read(); free() != 1 {
		t.Error("a user takes a place")
	}
	_ = c.Close()
}

// A connection that ends while it waits for the gate, or while it has it, leaves
// nothing behind.
func TestClosedConnectionLeavesTheGate(t *testing.T) {
	g, l := guarded(t, SSH, Limits{Conns: 64, PerSource: 64})
	var running sync.WaitGroup
	for range 32 {
		client := dial(t, "127.0.0.1", l.Addr().String())
		c, err := l.next()
		if err != nil {
			t.Fatal(err)
		}
		c.Handshake()
		if _, err := client.Write([]byte("xxxx")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // readers, as more than one goroutine may be at it
			running.Go(func() {
				for {
					if _, err := c.Read(make([]byte, 1)); err != nil {
						return
					}
					_, _ = c.Write([]byte("y"))
				}
			})
		}
		running.Go(func() { _ = c.Close() })
	}
	running.Wait()
	eventually(t, "all places of the gate are free", func() bool { return g.gate.Free() == g.gate.Places() })
	for w := range works {
		if n := g.gate.Waiting(w); n > 0 {
			t.Errorf("%d wait still", n)
		}
	}
}

// certificate makes one.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Handshakes that come to nothing hold up neither others nor the end.
func TestTLS(t *testing.T) {
	cert := certificate(t)
	_, l := guarded(t, Page, Limits{Conns: 8, PerSource: 8, Login: time.Minute})
	over := l.TLS(&tls.Config{Certificates: []tls.Certificate{cert}})
	var server http.Server
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Proto, FromContext(r.Context()) != nil)
	})
	Harden(&server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(over) }()
	silent := dial(t, "127.0.0.1", l.Addr().String())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	a, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(a.Body)
	if err != nil || string(body) != "HTTP/1.1true" {
		t.Errorf("the answer is %q, %v", body, err)
	}
	_ = a.Body.Close()
	client.CloseIdleConnections()
	plain := dial(t, "127.0.0.1", l.Addr().String())
	if _, err := io.WriteString(plain, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	if told, _ := io.ReadAll(plain); !strings.Contains(string(told), "HTTPS") {
		t.Errorf("plain HTTP is told %q", told)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
	if _, err := io.Copy(io.Discard, silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a handshake outlives the listener")
	}
}

// Requests of strangers wait for their turn; those of users do not.
func TestRequestsHaveTurns(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := newDoor(Page, Limits{Conns: 4, Requests: 100, SourceRequests: 10}, NewGate(), slog.New(slog.DiscardHandler))
		c := &Conn{door: d, source: netip.MustParsePrefix("10.0.0.1/32")}
		other := &Conn{door: d, source: netip.MustParsePrefix("10.0.0.2/32")}
		for range 20 {
			if wait, ok := d.await(c, time.Now()); wait != 0 || !ok {
				t.Fatalf("a request waits for %v", wait)
			}
		}
		if wait, ok := d.await(c, time.Now()); wait != 100*time.Millisecond || !ok {
			t.Errorf("one too many waits for %v", wait)
		}
		if wait, ok := d.await(other, time.Now()); wait != 0 || !ok {
			t.Errorf("another source waits for %v", wait)
		}
		refused := 0
		for range 100 {
			if wait, ok := d.await(c, time.Now()); !ok {
				refused++
			} else if wait > longestTurn {
				t.Errorf("a request waits for %v", wait)
			}
		}
		if refused != 100-49 {
			t.Errorf("%d are refused", refused)
		}
		h := turns{http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		r, _ := http.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, c), "GET", "/", nil)
		began := time.Now()
		w := &recorder{header: http.Header{}}
		if h.ServeHTTP(w, r); w.status != http.StatusTooManyRequests || w.header.Get("Retry-After") == "" {
			t.Errorf("status %d after %v", w.status, time.Since(began))
		}
		time.Sleep(time.Minute)
		c.loggedIn.Store(true)
		for range 1000 {
			h.ServeHTTP(&recorder{header: http.Header{}}, r)
		}
	})
}

// recorder is an answer.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

func TestSharesFitTheLimitOfFiles(t *testing.T) {
	for files, most := range map[uint64]int{64: 20, 1024: 96, 20_000: 384, 1 << 40: 384} {
		if got := Files(files); got != most {
			t.Errorf("%d open files: %d connections", files, got)
		}
	}
	for k := range kinds {
		l := LimitsFor(k, 1024)
		if l.Conns < 4 || strings.TrimSpace(k.String()) == "" || len(k.Reasons()) == 0 {
			t.Errorf("%v: %+v", k, l)
		}
	}
}
