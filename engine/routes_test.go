package engine_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// says is a backend that says a word and ends.
func says(t *testing.T, word string) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte(word)) })
}

// heard returns what a client from an address is told.
func heard(t *testing.T, from, to string) string {
	t.Helper()
	d := net.Dialer{Timeout: testkit.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("from %s: %v", from, err)
	}
	return string(b)
}

// A route picks the group of a session, and its hosts alone are tried. A group that has
// gone, and no route at all, leave the active one.
func TestB85RouteChoosesTheGroup(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, says(t, "main"))
		const canary, gone, dead = 1, 2, 3
		route := *r.Route
		route.Groups = map[engine.GroupID]*sched.Table{
			canary: r.Table(sched.Policy{Scheduler: "roundr"}, enginetest.DeadAddr(t), says(t, "canary")),
			dead:   r.Table(sched.Policy{Scheduler: "roundr"}, enginetest.DeadAddr(t)),
		}
		var asked sync.Map
		route.Choose = func(a engine.Asking) engine.GroupID {
			n, _ := asked.LoadOrStore(a.Client, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			switch a.Client {
			case netip.MustParseAddr("127.0.0.2"):
				return canary
			case netip.MustParseAddr("127.0.0.3"):
				return gone
			case netip.MustParseAddr("127.0.0.4"):
				return dead
			}
			return engine.Default
		}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		for from, want := range map[string]string{"127.0.0.1": "main", "127.0.0.2": "canary", "127.0.0.3": "main", "127.0.0.4": ""} {
			if got := heard(t, from, r.Addr); got != want {
				t.Errorf("a client from %s gets %q, want %q", from, got, want)
			}
			if n, ok := asked.Load(netip.MustParseAddr(from)); !ok || n.(*atomic.Int64).Load() != 1 {
				t.Errorf("a client from %s was not asked about once", from)
			}
		}
		r.Quiet()
		if s := r.Stats(); s.Sessions != 4 || s.Refused["no_host"] != 1 || s.Redispatches != 1 {
			t.Errorf("counted: %+v", s)
		}
	})
}

// named is a route that sends clients that ask for db.example to a group of its own.
func named(r *enginetest.Rig, hello time.Duration, backend sched.Addr) *engine.Route {
	route := *r.Route
	route.ByHello, route.Timeouts.Hello = true, hello
	route.Groups = map[engine.GroupID]*sched.Table{1: r.Table(sched.Policy{Scheduler: "roundr"}, backend)}
	route.Choose = func(a engine.Asking) engine.GroupID {
		if string(a.Name) == "db.example" {
			return 1
		}
		return engine.Default
	}
	return &route
}

// mirror is a backend that says a word and then all that it has been sent.
func mirror(t *testing.T, word string) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		p.Send([]byte(word))
		enginetest.Echo(p)
	})
}

// The ClientHello chooses the group, however it comes: whole, byte by byte, in many
// records, as large as post-quantum keys make it. What is none, or too large, or ends too
// early gets the active group. All bytes arrive whole and in order.
func TestB85ClientHelloChooses(t *testing.T) {
	plain := testkit.ClientHello(t, &tls.Config{ServerName: "DB.example", NextProtos: []string{"x"}})
	other := testkit.ClientHello(t, &tls.Config{ServerName: "other.example"})
	behind := enginetest.Payload(100_000, 1)
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: named(r, testkit.Patience, mirror(t, "db"))})
		for what, c := range map[string]struct {
			says [][]byte // one write each
			want string
		}{
			"whole":         {[][]byte{plain, behind}, "db"},
			"more behind":   {[][]byte{append(bytes.Clone(plain), behind...)}, "db"},
			"each byte":     {bytes.SplitAfter(plain, nil), "db"},
			"small records": {[][]byte{testkit.SplitHello(plain, 20), behind}, "db"},
			"16 KiB":        {[][]byte{testkit.GrowHello(plain, 16<<10), behind}, "db"},
			"another name":  {[][]byte{other, behind}, "main"},
			"too large":     {[][]byte{testkit.GrowHello(plain, 24<<10), behind}, "main"},
			"HTTP":          {[][]byte{[]byte("G"), []byte("ET / HTTP/1.1\r\n\r\n")}, "main"},
			"cut off":       {[][]byte{plain[:len(plain)/2]}, "main"},
			"an end":        {nil, "main"},
		} {
			p := r.Dial()
			go func() {
				for _, b := range c.says {
					p.Send(b)
				}
				p.Fin()
			}()
			want := append([]byte(c.want), bytes.Join(c.says, nil)...)
			if got := p.Rest(); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %.20q…; want %d, %.20q…", what, len(got), got, len(want), want)
			}
		}
		r.Quiet()
		if s := r.Stats(); s.Sessions != 10 || s.Ended["--"] != 10 || s.In != s.Out-uint64(len("db")*5+len("main")*5) {
			t.Errorf("counted: %+v", s)
		}
	})
}

// A client that says nothing goes to the active group when its time is up, so that a
// server may speak first; what it says later arrives whole. One that resets the connection
// before is counted.
func TestB85LateHello(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		route := named(r, time.Hour, mirror(t, "db"))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: route})
		gone, late := r.Dial(), r.Dial()
		late.Send([]byte("\x16\x03"))
		gone.Rst()
		testkit.Eventually(t, "the client that resets has ended", func() bool { return r.Stats().Ended["CR"] == 1 })
		sooner := *route
		sooner.Timeouts.Hello = 10 * time.Millisecond
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &sooner})
		late.Expect([]byte("main\x16\x03"))
		late.Send([]byte("\x01more"))
		late.Fin()
		late.Expect([]byte("\x01more"))
		late.ExpectEOF()
		r.Quiet()
	})
}

// The stream behind a hello is spliced.
func TestB85StreamBehindAHelloIsSpliced(t *testing.T) {
	plain := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	body := enginetest.Payload(1<<20, 2)
	eachLoopMode(t, func(t *testing.T, opt setup) {
		if opt.Options.Splice != engine.SpliceAlways {
			t.Skip("it may splice nothing")
		}
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: named(r, testkit.Patience, mirror(t, "db"))})
		p := r.Dial()
		go func() {
			p.Send(plain)
			p.Send(body)
			p.Fin()
		}()
		if got, want := p.Rest(), slices.Concat([]byte("db"), plain, body); !bytes.Equal(got, want) {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
		r.Quiet()
		var spliced uint64
		for _, l := range r.E.Snapshot().Loops {
			spliced += l.Spliced
		}
		// Where the stream pauses, as it may between hello and body, the next read is copied.
		if spliced == 0 {
			t.Error("nothing was spliced")
		}
	})
}

// Where a PROXY header comes first, the hello is behind it, and both may come at once.
func TestB85HelloBehindAProxyHeader(t *testing.T) {
	plain := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	header := []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n")
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		route := named(r, testkit.Patience, mirror(t, "db"))
		byName := route.Choose
		route.Choose = func(a engine.Asking) engine.GroupID {
			if a.Client != netip.MustParseAddr("192.0.2.1") {
				return engine.Default
			}
			return byName(a)
		}
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {Proxy: engine.ProxyRequire}}})
		whole := append(bytes.Clone(header), plain...)
		for what, says := range map[string][][]byte{"at once": {whole}, "one by one": {header, plain}, "each byte": bytes.SplitAfter(whole, nil)} {
			p := r.Dial()
			go func() {
				for _, b := range says {
					p.Send(b)
				}
				p.Fin()
			}()
			if got, want := p.Rest(), append([]byte("db"), plain...); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %.20q…; want %d", what, len(got), got, len(want))
			}
		}
		r.Quiet()
	})
}

// pgServer is a backend that agrees to TLS, or does not, as PostgreSQL does, and then
// says a word and all that it is sent.
func pgServer(t *testing.T, word, answer string) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		p.Expect([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
		p.Send([]byte(answer))
		if answer == "S" {
			p.Send([]byte(word))
			enginetest.Echo(p)
		}
	})
}

// Where clients ask for TLS in the words of PostgreSQL, the engine agrees, looks at the
// hello, and has the host of that name agree as well. Who does not ask goes to the active
// group with all that has come.
func TestB85StartTLSPostgres(t *testing.T) {
	const ask, gss, cancel = "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x08\x04\xd2\x16\x30", "\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"
	start := "\x00\x00\x00\x0f\x00\x03\x00\x00user\x00a\x00"
	hello := string(testkit.ClientHello(t, &tls.Config{ServerName: "db.example"}))
	other := string(testkit.ClientHello(t, &tls.Config{ServerName: "other.example"}))
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		route := named(r, testkit.Patience, pgServer(t, "db", "S"))
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSPostgres}}})
		for what, dialogue := range map[string][]string{ // what the client says and is told in turn
			"TLS":          {ask, "S", hello, "db" + hello},
			"each byte":    {"\x00", "", ask[1:5], "", ask[5:], "S", hello[:1], "", hello[1:9], "", hello[9:], "db" + hello},
			"GSSAPI first": {gss, "N", ask, "S", hello, "db" + hello},
			"GSSAPI twice": {gss, "N", gss, "main" + gss},
			"cancel":       {cancel, "main" + cancel},
			"plain":        {start, "main" + start},
			"after GSSAPI": {gss, "N", start, "main" + start},
			"another name": {other, "main" + other},
		} {
			p := r.Dial()
			for i := 0; i < len(dialogue); i += 2 {
				p.Send([]byte(dialogue[i]))
				p.Expect([]byte(dialogue[i+1]))
			}
			p.Fin()
			p.ExpectEOF()
			if t.Failed() {
				t.Fatalf("%s", what)
			}
		}
		r.Quiet()
		if s := r.Stats(); s.Sessions != 8 || s.Ended["--"] != 8 || s.In == 0 {
			t.Errorf("counted: %+v", s)
		}
	})
}

// A host that does not agree to the TLS that its client has been promised resets the
// client, which is counted. One that ends before it has answered is left for another.
func TestB85HostWithoutTLS(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		listen := []string{"127.0.0.1:0"}
		serve := func(backends ...sched.Addr) {
			route := named(r, testkit.Patience, backends[0])
			route.Groups[1] = r.Table(sched.Policy{Scheduler: "roundr"}, backends...)
			r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSPostgres}}})
		}
		for i, answer := range []string{"N", "E"} {
			serve(pgServer(t, "db", answer))
			p := r.Dial()
			p.Send([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
			p.Expect([]byte("S"))
			p.Send(hello)
			p.ExpectGone()
			testkit.Eventually(t, "it is counted", func() bool { return r.Stats().Refused["starttls"] == uint64(i+1) })
		}
		gone := enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Expect([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f")) })
		serve(gone, pgServer(t, "db", "S"))
		goesOn(t, r, hello, func() *enginetest.Peer {
			p := r.Dial()
			p.Send([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
			p.Expect([]byte("S"))
			p.Send(hello)
			return p
		})
	})
}

// goesOn has two clients that have sent a hello served by "db", one of two hosts. The other
// ends before it has agreed on TLS, and one client has met it.
func goesOn(t *testing.T, r *enginetest.Rig, hello []byte, dial func() *enginetest.Peer) {
	t.Helper()
	before := r.Stats().ConnectFailures["dropped"]
	for range 2 {
		p := dial()
		p.Expect(append([]byte("db"), hello...))
		p.Fin()
		p.ExpectEOF()
	}
	r.Quiet()
	if s := r.Stats(); s.ConnectFailures["dropped"] <= before {
		t.Errorf("nobody has met the host that ends: %+v", s)
	}
}

// The PROXY header comes before the words in which the host is asked for TLS.
func TestB85StartTLSBehindTheProxyHeader(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		backend := enginetest.BackendServer(t, func(p *enginetest.Peer) {
			for b := make([]byte, 1); b[0] != '\n'; {
				if _, err := io.ReadFull(p, b); err != nil {
					return
				}
			}
			p.Expect([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
			p.Send([]byte("S"))
			enginetest.Echo(p)
		})
		route := named(r, testkit.Patience, backend)
		host := sched.NewHost("proxied", backend)
		host.SetProxyProtocol(1)
		table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, []sched.Member{{Host: host, Weight: 1}})
		if err != nil {
			t.Fatal(err)
		}
		route.Groups[1] = table
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSPostgres}}})
		p := r.Dial()
		p.Send([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
		p.Expect([]byte("S"))
		p.Send(hello)
		p.Expect(hello)
		p.Fin()
		p.ExpectEOF()
		r.Quiet()
	})
}
