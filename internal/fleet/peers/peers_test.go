package peers

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// node is an Exchange that runs.
type node struct {
	*Exchange
	addr string
	log  *testkit.Log
	stop func()
}

const testBeat = 100 * time.Millisecond

// bySecret is the Auth of the nodes of tests, which takes a while to make.
var bySecret = sync.OnceValue(func() *Auth {
	a, err := BySecret("edge", "0123456789abcdef")
	if err != nil {
		panic(err)
	}
	return a
})

func start(t *testing.T, name string, auth *Auth) *node {
	t.Helper()
	return startAt(t, name, testkit.Nobody(t), auth)
}

func startAt(t *testing.T, name, addr string, auth *Auth, set ...func(*Exchange)) *node {
	t.Helper()
	n := &node{addr: addr, log: new(testkit.Log)}
	n.Exchange = New(Options{
		Fleet: "edge", Node: name, Instance: "of " + name, Version: "1.2.3", Listen: n.addr, Advertise: n.addr, Auth: auth, Beat: testBeat, Log: n.log.Logger(),
	})
	for _, f := range set {
		f(n.Exchange)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	n.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(n.stop)
	return n
}

// sees waits until a peer is live, or not live with a reason that has this text.
func (n *node) sees(t *testing.T, name string, live bool, why string) {
	t.Helper()
	var last []Peer
	defer func() {
		if t.Failed() {
			t.Logf("it sees %v", last)
		}
	}()
	testkit.Eventually(t, fmt.Sprintf("it sees %s, live %v, %q", name, live, why), func() bool {
		last, _ = n.Peers()
		for _, p := range last {
			if p.Name == name {
				return p.Live == live && strings.Contains(p.Why, why)
			}
		}
		return false
	})
}

var web = Host{"web", "g", "a", "10.0.0.1:80"}

func TestNodesHearEachOther(t *testing.T) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	a.Tell(map[Host]Finding{web: {Up: true}}, map[Host]int64{web: 3})
	b.Follow([]Member{{"a", a.addr}, {"b", b.addr}})
	b.sees(t, "a", true, "")
	verdict := func(ok func(Verdict, int64) bool) func() bool {
		return func() (is bool) {
			n := b.Sessions(web.Service, web.Group, web.Name)
			b.Read(func(h *Heard) { is = ok(h.Verdict(web), n) })
			return is
		}
	}
	testkit.Eventually(t, "it is up", verdict(func(v Verdict, n int64) bool { return v.Known && v.Up && v.By == "a" && n == 3 }))
	a.Tell(map[Host]Finding{web: {Reason: "connection\nrefused"}}, nil)
	testkit.Eventually(t, "nobody else has found it down", verdict(func(v Verdict, n int64) bool { return v == Verdict{} && n == 0 }))
	c := start(t, "c", bySecret())
	c.Tell(map[Host]Finding{web: {Reason: "timeout"}}, nil)
	b.Follow([]Member{{"a", a.addr}, {"c", c.addr}})
	testkit.Eventually(t, "it is down", verdict(func(v Verdict, n int64) bool {
		return v.Known && !v.Up && v.Reason == "node a: connection refused" && v.By == "a c" && n == 0
	}))
	c.Tell(map[Host]Finding{web: {Up: true}}, nil)
	testkit.Eventually(t, "one finds it up", verdict(func(v Verdict, _ int64) bool { return v.Known && v.Up }))
	c.stop()
	b.sees(t, "c", false, "")
	b.Follow([]Member{{"a", a.addr}})
	a.Tell(nil, nil)
	testkit.Eventually(t, "nobody checks it", verdict(func(v Verdict, _ int64) bool { return !v.Known }))

	// More rows than fit into an event, and more that go than are remembered.
	many := map[Host]Finding{}
	for i := range 3 * spareGone {
		many[Host{"web", "g", fmt.Sprint(i), "10.0.0.1:80"}] = Finding{Up: true}
	}
	a.Tell(many, nil)
	count := func(want int) func() bool {
		return func() bool { list, _ := b.Peers(); return list[0].Live && list[0].Checks == want }
	}
	testkit.Eventually(t, "all are there", count(len(many)))
	a.Tell(map[Host]Finding{web: {Up: true}}, nil)
	testkit.Eventually(t, "one is left", count(1))

	a.stop()
	b.sees(t, "a", false, "")
	b.Read(func(h *Heard) {
		if h.Verdict(web).Known {
			t.Error("it still counts on a node that has gone")
		}
	})
	b.Follow(nil)
	if list, _ := b.Peers(); len(list) != 0 {
		t.Errorf("it follows %v", list)
	}
}

// An HTTP client that proves nothing gets nothing, and cannot keep its connection.
func TestNothingWithoutProof(t *testing.T) {
	a := start(t, "a", bySecret())
	testkit.Eventually(t, "it listens", func() bool {
		_, closed := a.Peers()
		c, err := net.Dial("tcp", a.addr)
		if err == nil {
			_ = c.Close()
		}
		return closed == nil && err == nil
	})
	c, err := tls.Dial("tcp", a.addr, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		_, _ = fmt.Fprintf(c, "GET %s?fleet=edge HTTP/1.1\r\nHost: a\r\n\r\n", path)
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("%v", err)
	}
	// With the secret, but of another fleet.
	secure, err := bySecret().client("a")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}}
	r, err := client.Get("https://" + a.addr + path + "?fleet=other")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", r.StatusCode)
	}
}

// odd is a node that says what a test wants.
func odd(t *testing.T, say func(w http.ResponseWriter, r *http.Request)) Member {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		say(w, r)
	})}
	go func() { _ = server.Serve(tls.NewListener(ln, bySecret().listener())) }()
	t.Cleanup(func() { _ = server.Close() })
	return Member{"odd", ln.Addr().String()}
}

// hi is a hello that is in order.
func hi() hello {
	return hello{Protocol: protocol, Least: 1, Fleet: "edge", Node: "odd", Instance: "x", Version: "9", Beat: testBeat}
}

func say(w http.ResponseWriter, name string, v any) {
	_ = writeEvent(w, name, v)
	_ = http.NewResponseController(w).Flush()
}

func TestOddNodes(t *testing.T) {
	fill := strings.Repeat("x", maxEvent)
	rest := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for what, c := range map[string]struct {
		say func(w http.ResponseWriter, r *http.Request)
		why string
	}{
		"too many sessions": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "hello", hi())
			say(w, "sessions", change[sessionRow]{Set: []sessionRow{{web, maxSessions + 1}}})
		}, "a host makes no sense"},
		"no number": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "hello", hi())
			_, _ = w.Write([]byte("event: sessions\ndata: {\"set\":[{\"s\":\"web\",\"n\":NaN}]}\n\n"))
		}, "its sessions cannot be read"},
		"a number that is too large": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "hello", hi())
			_, _ = w.Write([]byte("event: sessions\ndata: {\"set\":[{\"s\":\"web\",\"n\":1e99}]}\n\n"))
		}, "its sessions cannot be read"},
		"an old protocol": {func(w http.ResponseWriter, _ *http.Request) { h := hi(); h.Protocol = -1; say(w, "hello", h) }, "whose protocol (-1) this node does not know (1)"},
		"a long instance": {func(w http.ResponseWriter, _ *http.Request) {
			h := hi()
			h.Instance = fill[:maxName+1]
			say(w, "hello", h)
		}, "it does not say who it is"},
		"ten million hosts": {func(w http.ResponseWriter, r *http.Request) {
			h := hi()
			h.Beat = maxBeat
			say(w, "hello", h)
			c := change[checkRow]{}
			for i := 0; i < 10_000_000 && r.Context().Err() == nil; i++ {
				c.Set = append(c.Set, checkRow{Host: Host{"web", "g", fmt.Sprint(i), "10.0.0.1:80"}})
				if len(c.Set) == 10_000 {
					if writeEvent(w, "checks", c) != nil {
						return
					}
					c.Set = c.Set[:0]
				}
			}
		}, "it tells of more than 262144 hosts"},
		"garbage":             {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\xff\n\n")) }, "it says what is no event"},
		"nothing":             {func(http.ResponseWriter, *http.Request) {}, "it has ended the stream"},
		"no hello":            {func(w http.ResponseWriter, _ *http.Request) { say(w, "beat", 1) }, "it does not say who it is"},
		"a hello of no sense": {func(w http.ResponseWriter, _ *http.Request) { say(w, "hello", "x") }, "it does not say who it is"},
		"an empty hello":      {func(w http.ResponseWriter, _ *http.Request) { say(w, "hello", hello{}) }, "whose protocol (0) this node does not know"},
		"another fleet":       {func(w http.ResponseWriter, _ *http.Request) { h := hi(); h.Fleet = "x"; say(w, "hello", h) }, `it is of the fleet "x"`},
		"another node":        {func(w http.ResponseWriter, _ *http.Request) { h := hi(); h.Node = "x\n"; say(w, "hello", h) }, `it is the node "x "`},
		"too new": {func(w http.ResponseWriter, _ *http.Request) {
			h := hi()
			h.Protocol, h.Least = 3, 2
			say(w, "hello", h)
		}, `it has version "9", whose protocol (3) this node does not know (1): upgrade the older one`},
		"no beat":            {func(w http.ResponseWriter, _ *http.Request) { h := hi(); h.Beat = 0; say(w, "hello", h) }, "it does not say who it is"},
		"a long line":        {func(w http.ResponseWriter, _ *http.Request) { say(w, "hello", hi()); say(w, "checks", fill) }, "bytes in one line"},
		"checks of no sense": {func(w http.ResponseWriter, _ *http.Request) { say(w, "hello", hi()); say(w, "checks", 7) }, "its checks cannot be read"},
		"a host of no sense": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "hello", hi())
			say(w, "checks", change[checkRow]{Set: []checkRow{{Host: web, Ago: -1}}})
		}, "a host makes no sense"},
		"sessions of no sense": {func(w http.ResponseWriter, _ *http.Request) {
			say(w, "hello", hi())
			say(w, "sessions", change[sessionRow]{Set: []sessionRow{{web, -1}}})
		}, "a host makes no sense"},
		"never ready": {func(w http.ResponseWriter, r *http.Request) { say(w, "hello", hi()); say(w, "beat", 1); rest(w, r) }, "it has said nothing for too long"},
		"an error":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no\x1b[31m", http.StatusTeapot) }, "it answers 418: no [31m"},
		"hangs, then not": {func(w http.ResponseWriter, r *http.Request) {
			say(w, "hello", hi())
			say(w, "ready", 1)
			say(w, "checks", change[checkRow]{Set: []checkRow{{Host: web}}})
			rest(w, r)
		}, "it has said nothing for too long"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			m := odd(t, c.say)
			a := start(t, "a", bySecret())
			a.Follow([]Member{m})
			a.sees(t, "odd", false, c.why)
			a.stop()
		})
	}
}

// A newer node that can be understood is: what is not known is passed over.
func TestNewerNode(t *testing.T) {
	m := odd(t, func(w http.ResponseWriter, r *http.Request) {
		h := hi()
		h.Protocol, h.Beat = protocol+1, time.Second // it is not silent by chance
		say(w, "hello", h)
		_, _ = w.Write([]byte(": a comment\nevent: checks\ndata: {\"set\":[{\"s\":\"web\",\"g\":\"g\",\"h\":\"a\",\"a\":\"10.0.0.1:80\",\"up\":true,\"new\":[1]}],\"new\":{}}\n\n"))
		say(w, "weather", "fine")
		say(w, "ready", 1)
		for r.Context().Err() == nil {
			say(w, "beat", "still here")
			select {
			case <-time.After(testBeat):
			case <-r.Context().Done():
			}
		}
	})
	a := start(t, "a", bySecret())
	a.Follow([]Member{m})
	a.sees(t, "odd", true, "")
	a.Read(func(h *Heard) {
		if v := h.Verdict(web); !v.Up {
			t.Errorf("%+v", v)
		}
	})
	a.stop()
}

// A follower that reads nothing is left, and costs no memory: what it is told is not queued.
func TestSlowFollower(t *testing.T) {
	testkit.Long(t)
	a := start(t, "a", bySecret())
	testkit.Eventually(t, "it listens", func() bool { _, closed := a.Peers(); return closed == nil })
	secure, err := bySecret().client("a")
	if err != nil {
		t.Fatal(err)
	}
	var c *tls.Conn
	testkit.Eventually(t, "it takes the connection", func() bool { c, err = tls.Dial("tcp", a.addr, secure); return err == nil })
	defer func() { _ = c.Close() }()
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(c, "GET %s?fleet=edge HTTP/1.1\r\nHost: a\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	checks := map[Host]Finding{}
	for i := range 5000 {
		checks[Host{"web", "g", fmt.Sprint(i), strings.Repeat("x", 100)}] = Finding{}
	}
	followers := func() int {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return a.followers
	}
	testkit.Eventually(t, "it is told something", func() bool { return followers() == 1 })
	i, told := 0, time.Time{}
	testkit.Eventually(t, "it is left", func() bool {
		if time.Since(told) < 5*gather { // followers are not told more often in any case
			return followers() == 0
		}
		for h := range checks {
			checks[h] = Finding{Reason: fmt.Sprint(i)}
		}
		i++
		a.Tell(checks, nil)
		told = time.Now()
		a.mu.RLock()
		defer a.mu.RUnlock()
		if rows := len(a.checks.rows); rows != len(checks) {
			t.Fatalf("%d rows", rows)
		}
		return a.followers == 0
	})
}

func TestRowsAreBounded(t *testing.T) {
	table, text := map[Host]int64{}, 0
	for i := range maxRows {
		if err := put(table, Host{Name: fmt.Sprint(i)}, 1, &text); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(table, Host{Name: "0"}, 2, &text); err != nil {
		t.Error(err)
	}
	if err := put(table, web, 1, &text); err == nil || err.Error() != "it tells of more than 262144 hosts" {
		t.Error(err)
	}
	for h := range table {
		drop(table, h, &text)
	}
	if text != 0 {
		t.Errorf("%d bytes are left", text)
	}
	var err error
	n := 0
	for pad := strings.Repeat("x", maxName-10); err == nil && n < maxRows; n++ {
		err = put(table, Host{pad, pad, pad, fmt.Sprint(n)}, 1, &text)
	}
	if err == nil || !strings.Contains(err.Error(), "have more than 67108864 bytes") {
		t.Errorf("after %d rows: %v", n, err)
	}
}

// Each host has two nodes of any number; when one goes, only its hosts find another.
func TestOwners(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	view := func(self string, all []string) *Nodes {
		var others []string
		for _, n := range all {
			if n != self {
				others = append(others, n)
			}
		}
		return NewNodes(self, others)
	}
	owners := func(h Host, all []string) (list string) {
		for _, n := range all {
			if view(n, all).Mine(h.Hash()) {
				list += n
			}
		}
		return list
	}
	counts := map[rune]int{}
	const hosts = 2000
	for i := range hosts {
		h := Host{"web", "g", fmt.Sprint(i), fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)}
		five, four := owners(h, names), owners(h, names[:4])
		if len(five) != Copies || len(four) != Copies {
			t.Fatalf("%v: %s, %s", h, five, four)
		}
		if !strings.Contains(five, "e") && five != four {
			t.Fatalf("%v moves from %s to %s", h, five, four)
		}
		for _, c := range five {
			counts[c]++
		}
		if one := owners(h, names[:1]); one != "a" {
			t.Fatal(one)
		}
	}
	for n, c := range counts {
		if share := hosts * Copies / len(names); c < share*8/10 || c > share*12/10 {
			t.Errorf("node %c checks %d of %d", n, c, hosts)
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add("event: checks\ndata: {\"set\":[{\"s\":\"web\",\"up\":true}]}\n\n")
	f.Add("event: sessions\ndata: {\"gone\":[{\"s\":\"web\"}],\"set\":[{\"s\":\"x\",\"n\":1}]}\n\nevent: beat\ndata: 1\n\n")
	f.Add(":\n\nevent: \n\ndata: x\n\n")
	f.Add("event: limits\ndata: {\"set\":[{\"k\":\"rate web\",\"v\":{}}],\"gone\":[{\"k\":\"a\"}]}\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, tables := newReader(strings.NewReader(text)), newTables()
		for {
			e, err := r.next()
			if err != nil {
				break
			}
			if _, err := tables.take(e); err != nil {
				break
			}
		}
		for h, n := range tables.sessions {
			if !h.Valid() || n < 0 {
				t.Errorf("%v %d", h, n)
			}
		}
		for h, f := range tables.checks {
			if !h.Valid() || len(f.Reason) > maxReason {
				t.Errorf("%v %v", h, f)
			}
		}
	})
}

// A follower of a feed that looks at any time ends with what the feed has.
func FuzzFeed(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 4, 250, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		feed, all := newFeed[int, int](), map[int]int{}
		cursor, has := uint64(0), map[int]int{}
		look := func(most int) bool {
			rows, next, ok := feed.since(cursor, most)
			if !ok {
				cursor, has = 0, map[int]int{}
				return true
			}
			cursor = next
			for _, r := range rows {
				if r.gone {
					delete(has, r.key)
				} else {
					has[r.key] = r.value
				}
			}
			return len(rows) > 0
		}
		for i, b := range script {
			switch {
			case b < 150:
				all[int(b%16)] = i
				feed.replace(all)
			case b < 200:
				delete(all, int(b%16))
				feed.replace(all)
			case b < 210: // very many come and go
				for k := range spareGone + 20 {
					all[1000+k] = i
				}
				feed.replace(all)
				for k := range spareGone + 20 {
					delete(all, 1000+k)
				}
				feed.replace(all)
			default:
				look(int(b%4) + 1)
			}
		}
		for look(3) {
		}
		if !maps.Equal(has, all) {
			t.Errorf("it has %v of %v", has, all)
		}
	})
}
