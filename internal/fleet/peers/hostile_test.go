package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// besiege keeps very many connections to a node open that prove nothing, until the test ends
// them. Each says what say writes into it.
func besiege(t *testing.T, to *node, say func(ctx context.Context, c net.Conn)) (made func() int, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	const each = 50 // open at once
	var running sync.WaitGroup
	var count atomic.Int64
	for range 20 {
		running.Go(func() {
			var open []net.Conn
			var talks sync.WaitGroup
			for ctx.Err() == nil {
				c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", to.addr)
				if err != nil {
					continue
				}
				talks.Go(func() { say(ctx, c) })
				open = append(open, c)
				count.Add(1)
				if len(open) > each {
					_ = open[0].Close()
					open = open[1:]
				}
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
			for _, c := range open {
				_ = c.Close()
			}
			talks.Wait()
		})
	}
	return func() int { return int(count.Load()) }, func() {
		cancel()
		running.Wait()
	}
}

// served is how many connections have a goroutine of a server now. To find out takes a while.
func served() int {
	stacks := make([]byte, 16<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "created by net/http.(*Server).Serve ")
}

// clientHello is the beginning of a handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer func() { _ = here.Close(); _ = there.Close() }()
	go func() { _ = tls.Client(there, &tls.Config{ServerName: "a", InsecureSkipVerify: true}).Handshake() }()
	b := make([]byte, 4096)
	n, err := here.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// However many connections strangers keep open, and whatever they say there, a node hears the
// others, its goroutines are bounded, and its log is not filled.
func TestStrangersShutNobodyOut(t *testing.T) {
	hello := clientHello(t)
	for what, say := range map[string]func(ctx context.Context, c net.Conn){
		"nothing":  func(context.Context, net.Conn) {},
		"garbage":  func(_ context.Context, c net.Conn) { _, _ = c.Write([]byte("\x00GET / HTTP/1.1\r\n\xff\r\n\r\n")) },
		"half":     func(_ context.Context, c net.Conn) { _, _ = c.Write(hello[:len(hello)/2]) },
		"replayed": func(_ context.Context, c net.Conn) { _, _ = c.Write(hello); _, _ = c.Write(hello) },
		"slowly": func(ctx context.Context, c net.Conn) {
			for _, b := range hello {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := startAt(t, "a", testkit.Nobody(t), bySecret(), func(x *Exchange) { x.opt.Beat = maxBeat }) // a busy machine is no siege
			b := start(t, "b", bySecret())
			b.Follow([]Member{{"a", a.addr}})
			b.sees(t, "a", true, "")
			before := runtime.NumGoroutine()
			made, end := besiege(t, a, say)
			testkit.Eventually(t, "the siege has begun", func() bool { return runtime.NumGoroutine() > before+20 })
			b.mu.RLock()
			began := b.peers["a"].began
			b.mu.RUnlock()
			c := start(t, "c", bySecret()) // one that comes meanwhile
			c.Follow([]Member{{"a", a.addr}})
			c.sees(t, "a", true, "")
			a.Tell(map[Host]Finding{web: {Up: true}}, nil)
			testkit.Eventually(t, "it is heard", func() (is bool) {
				c.Read(func(h *Heard) { is = h.Verdict(web).Up })
				return is
			})
			b.mu.RLock()
			is := b.peers["a"].began
			b.mu.RUnlock()
			if !is.Equal(began) {
				t.Error("the stream that was there has ended")
			}
			most, next := 0, 0 // of those that were sent away, some may not have noticed yet
			testkit.Eventually(t, "there are far more connections than room", func() bool {
				n := made()
				if n >= next {
					most, next = max(most, served()), n+maxStrangers/2
				}
				return n > 10*maxStrangers
			})
			most = max(most, served())
			if most > 5*maxStrangers {
				t.Errorf("%d connections were served at once", most)
			}
			end()
			t.Logf("%d connections, at most %d served at once", made(), most)
			if n := len(a.log.Lines("")) - len(a.log.Lines("level=DEBUG")); n > 20 {
				t.Errorf("%d lines in the log:\n%s", n, a.log)
			}
			testkit.Eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before+20 })
		})
	}
}

// The door keeps who has proved something, and sends away a stranger of those that are most.
func TestDoor(t *testing.T) {
	d := newDoor(nil)
	come := func(from string) *guest {
		here, there := net.Pipe()
		t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
		d.Listener = one{addressed{here, from}}
		c, err := d.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*guest)
	}
	friend := come("192.0.2.9:1")
	if friend.enter() != nil || friend.enter() == nil {
		t.Error("a follower enters once")
	}
	quiet := come("192.0.2.1:1")
	var many []*guest
	for i := range 3 * maxStrangers {
		many = append(many, come(fmt.Sprintf("[2001:db8::%x]:7", i))) // of one network
	}
	if d.strangers.Len() != maxStrangers || d.followers != 1 {
		t.Errorf("%d strangers, %d followers", d.strangers.Len(), d.followers)
	}
	if quiet.enter() != nil {
		t.Error("who came alone was sent away")
	}
	if err := many[0].enter(); !errors.Is(err, errSentAway) {
		t.Error("who was sent away enters", err)
	}
	if many[len(many)-1].enter() != nil {
		t.Error("the last one was sent away")
	}
	for _, g := range append(many, friend, quiet) {
		_ = g.Close()
		_ = g.Close()
	}
	if d.strangers.Len() != 0 || d.followers != 0 || len(d.from) != 0 {
		t.Errorf("%d strangers, %d followers, %v", d.strangers.Len(), d.followers, d.from)
	}
	for range maxFollowers {
		if come("192.0.2.1:1").enter() != nil {
			t.Fatal("there is room")
		}
	}
	if err := come("192.0.2.1:1").enter(); !errors.Is(err, errFull) {
		t.Error("there is no room", err)
	}
}

// one is a listener with one connection.
type one struct{ c net.Conn }

func (o one) Accept() (net.Conn, error) { return o.c, nil }
func (o one) Close() error              { return nil }
func (o one) Addr() net.Addr            { return o.c.LocalAddr() }

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from string
}

func (a addressed) RemoteAddr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", a.from)
	if err != nil {
		panic(err)
	}
	return addr
}

// A node that has the secret, and is broken, cannot take all room, and harms nobody by what it
// asks.
func TestBrokenFollower(t *testing.T) {
	a := start(t, "a", bySecret())
	for range maxStreams {
		status, text, stop := followAs(t, bySecret(), a, "b")
		defer stop()
		if status != http.StatusOK {
			t.Fatal(status, text)
		}
	}
	streams := func() []*follower {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return slices.Clone(a.streams["b"])
	}
	before := streams()
	status, text, stop := followAs(t, bySecret(), a, "b") // the others may be dead, which nobody has told
	defer stop()
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if is := streams(); len(is) != maxStreams || is[0] != before[1] {
		t.Error("the oldest stream has not made room")
	}
	testkit.Eventually(t, "the oldest stream ends", func() bool {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.followers == maxStreams
	})
	if status, text, _ := followAs(t, bySecret(), a, strings.Repeat("x", maxName+1)); status != http.StatusForbidden {
		t.Errorf("%d %s", status, text)
	}
	for what, say := range map[string]string{
		"garbage":            "\x00\xff\r\n\r\n",
		"a long line":        "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n\r\n",
		"many headers":       "GET " + path + " HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Y: z\r\n", 100_000) + "\r\n",
		"another path":       "GET /v9/follow?fleet=edge HTTP/1.1\r\nHost: a\r\n\r\n",
		"another method":     "POST " + path + "?fleet=edge HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
		"an old protocol":    "GET " + path + "?fleet=edge HTTP/0.9\r\n\r\n",
		"no fleet":           "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"a preface of h2":    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"two lengths":        "GET " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"an endless request": "GET " + path,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			secure, err := bySecret().client("a")
			if err != nil {
				t.Fatal(err)
			}
			c, err := tls.Dial("tcp", a.addr, secure)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(testkit.Patience))
			go func() { _, _ = io.WriteString(c, say) }() // it may not be read
			answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
			if err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("the connection stays: %v", err)
			}
			if strings.Contains(string(answer), "200 OK") || strings.Contains(string(answer), "hello") {
				t.Errorf("it is told %.300s", answer)
			}
		})
	}
	t.Cleanup(func() { // when those are done
		b := start(t, "b2", bySecret())
		b.Follow([]Member{{"a", a.addr}})
		b.sees(t, "a", true, "")
	})
}

// What is read of another node ends, whatever that says of itself.
func FuzzHello(f *testing.F) {
	f.Add(`{"protocol":1,"least":1,"fleet":"edge","node":"odd","instance":"x","version":"9","beat":1000000000}`)
	f.Add(`{"protocol":-1,"least":1e3,"beat":-5}`)
	f.Fuzz(func(t *testing.T, text string) {
		r := newReader(strings.NewReader("event: hello\ndata: " + text + "\n\n"))
		who, err := readHello(r)
		if err != nil {
			return
		}
		if err := who.check("edge", "odd"); err == nil {
			if who.Beat < minBeat || who.Beat > maxBeat || who.Least > protocol || who.Instance == "" {
				t.Errorf("%+v", who)
			}
		} else if len(err.Error()) > 500 {
			t.Errorf("a long error: %v", err)
		}
	})
}
