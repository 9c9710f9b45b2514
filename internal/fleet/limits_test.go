package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	files "github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// limited is a node with a real engine, whose clients are connections of the test.
type limited struct {
	*Node
	t    *testing.T
	eng  engine.Engine
	dir  *director.Director
	link *link
	log  *testkit.Log
	stop func() // ends it in order
	kill func() // ends it as a crash does

	conns []net.Conn
}

// limitService is a document with a service that has these limits.
func limitService(host, limits string) string {
	return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><limits %s/><group name="g"><host name="h" ip="%s"/></group></service></config>`, limits, host)
}

// keeper is a host that keeps its connections.
func keeper(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// limit starts a node.
func limit(t *testing.T, store *memoryStore, name, doc string, change ...func(*Options)) *limited {
	t.Helper()
	return limitIn(t, store, name, folder(t, doc), change...)
}

// limitIn starts a node whose files are in a folder.
func limitIn(t *testing.T, store *memoryStore, name, dir string, change ...func(*Options)) *limited {
	t.Helper()
	l := newLimited(t, store, name, dir, change...)
	l.run()
	return l
}

func newLimited(t *testing.T, store *memoryStore, name, dir string, change ...func(*Options)) *limited {
	t.Helper()
	l := &limited{t: t, log: new(testkit.Log), link: store.link()}
	text, problems := files.Open(filepath.Join(dir, "config.xml"))
	if text == nil {
		t.Fatal(problems)
	}
	var err error
	if l.eng, err = native.New(engine.Options{Loops: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.eng.Close() })
	opt := Options{
		Config: config.Fleet{
			Name: "edge", Node: name, Store: []string{"http://127.0.0.1:1"}, Lease: 3 * time.Second, Listen: testkit.Nobody(t), Secret: fleetKey,
		},
		Connect: l.link.connect, StateDir: dir, Version: "1.2.3", Log: l.log.Logger(), Allot: l.eng.Allot,
	}
	for _, f := range change {
		f(&opt)
	}
	if l.Node, err = New(opt); err != nil {
		t.Fatal(err)
	}
	l.dir, err = director.New(text.Config, l.eng, director.Options{
		Log: l.log.Logger(), Document: text, Commit: l.Commit, Fleet: l, Generation: l.Generation(), Notify: l.Notice,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run makes it run.
func (l *limited) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.dir.Run(ctx) })
	running.Go(func() { l.Run(ctx, l.dir) })
	l.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	l.kill = func() {
		l.link.set(func() { l.link.cut = errors.New("dead") }) // nothing is given back to the store
		l.stop()
		_ = l.eng.Close()
	}
	l.t.Cleanup(l.stop)
}

// open lets a client in, and tells whether that was possible.
func (l *limited) open() bool {
	c, err := l.eng.Dial(l.t.Context(), "web", netip.Addr{})
	if err == nil {
		l.conns = append(l.conns, c)
		return true
	}
	if none := (*engine.NoHostError)(nil); !errors.As(err, &none) || !strings.HasPrefix(none.Why, "limit_") {
		l.t.Errorf("node %s: %v", l.name, err)
	}
	return false
}

// end ends as many sessions as that.
func (l *limited) end(n int) {
	for _, c := range l.conns[:n] {
		_ = c.Close()
	}
	l.conns = l.conns[n:]
}

// part is what the node may use of the limit of its service, as it says.
func (l *limited) part(limit string) (part int64, even bool) {
	for _, one := range l.Status().Limits {
		if one.Limit == limit {
			return one.Part, one.Even
		}
	}
	return -1, true
}

// parts waits until all nodes know their parts, which are all of a limit together.
func parts(t *testing.T, kind string, limit int64, nodes ...*limited) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d nodes have %s of %d", len(nodes), kind, limit), func() bool {
		var sum int64
		for _, n := range nodes {
			part, even := n.part(kind)
			if even {
				return false
			}
			sum += part
		}
		return sum == limit
	})
}

// three nodes with these limits.
func threeLimited(t *testing.T, limits string) (store *memoryStore, nodes []*limited) {
	t.Helper()
	store = newMemoryStore()
	doc := limitService(keeper(t), limits)
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, limit(t, store, name, doc))
	}
	return store, nodes
}

// waiting is what a node has waited for places.
type waiting struct {
	total, over, most int // sessions of all nodes, how many were too many, and the limit
	rejected          int
	times             []time.Duration
}

// open lets a client in on a node, which comes again until it is.
func (w *waiting) open(n *limited) {
	n.t.Helper()
	began, rejected := time.Now(), w.rejected
	testkit.Eventually(n.t, "a client is let in on node "+n.name, func() bool {
		if n.open() {
			return true
		}
		w.rejected++
		return false
	})
	if w.rejected > rejected {
		w.times = append(w.times, time.Since(began))
	}
	w.total++
	w.over = max(w.over, w.total-w.most)
}

func (w *waiting) end(n *limited, number int) {
	n.end(number)
	w.total -= number
}

func (w *waiting) String() string {
	slices.Sort(w.times)
	if len(w.times) == 0 {
		return fmt.Sprintf("%d too many, no client waited", w.over)
	}
	return fmt.Sprintf("%d too many, waited %d times: median %v, longest %v", w.over, len(w.times), w.times[len(w.times)/2].Round(time.Millisecond), w.times[len(w.times)-1].Round(time.Millisecond))
}

// Three nodes have as many sessions together as the limit says, wherever the clients are, and
// never more. Demand goes from one node to the next: as 50 sessions end on one, 50 begin on another,
// as fast as that lets them in.
func TestB107SessionsOfAFleet(t *testing.T) {
	const most = 300
	_, nodes := threeLimited(t, fmt.Sprintf(`sessions="%d" scope="fleet"`, most))
	parts(t, "sessions", most, nodes...)
	w := &waiting{most: most}
	for round := range 6 {
		n, before := nodes[round%3], nodes[(round+2)%3]
		for len(n.conns) < most {
			if w.total == most {
				w.end(before, min(len(before.conns), 50))
			}
			w.open(n)
		}
		if n.open() {
			t.Errorf("node %s has a session more than all nodes may have", n.name)
		}
	}
	t.Logf("%d sessions moved between nodes, 50 at once: %v", 5*most, w)
	if w.over > 0 {
		t.Errorf("there were %d sessions more than the limit", w.over)
	}
}

// A node asks before it is full: clients that do not come all at once are never rejected while
// there are places elsewhere.
func TestB107ANodeAsksBeforeItIsFull(t *testing.T) {
	const most, pace = 3000, 500
	_, nodes := threeLimited(t, fmt.Sprintf(`sessions="%d" scope="fleet"`, most))
	parts(t, "sessions", most, nodes...)
	testkit.BestOf(t, 5, func() error {
		nodes[1].end(len(nodes[1].conns))
		began, rejected := time.Now(), 0
		for len(nodes[1].conns) < most*9/10 {
			due := int(time.Since(began) * pace / time.Second)
			for len(nodes[1].conns)+rejected < due {
				if !nodes[1].open() {
					rejected++
				}
			}
			time.Sleep(time.Millisecond) // the pace
		}
		if rejected > 0 {
			return fmt.Errorf("%d clients a second on one node: %d rejected before it has %d of %d sessions", pace, rejected, most*9/10, most)
		}
		return nil
	})
}

// The part of a node that dies comes back when its lease has ended. A node that is new gets its
// part from others. One that starts again has lost its sessions, and others get its part at once.
func TestB107NodesThatComeAndGo(t *testing.T) {
	store, nodes := threeLimited(t, `sessions="90" scope="fleet"`)
	a, b, c := nodes[0], nodes[1], nodes[2]
	parts(t, "sessions", 90, a, b, c)
	first := &waiting{most: 90}
	for range 30 { // a node has its part in two steps: one from each of the others
		first.open(a)
		first.open(c)
	}
	began := time.Now()
	c.kill()
	parts(t, "sessions", 90, a, b)
	took := time.Since(began)
	t.Logf("the part of a dead node was back after %v, with a lease of 3s", took)
	if slices.Contains(store.keysBelow("/txlb/edge/node/"), "/txlb/edge/node/c") {
		t.Error("it was back while its lease lasted")
	}
	d := limit(t, store, "d", limitService(keeper(t), `sessions="90" scope="fleet"`))
	began = time.Now()
	d.AwaitLimits(t.Context())
	t.Logf("a new node knew its part after %v", time.Since(began))
	parts(t, "sessions", 90, a, b, d)
	testkit.Eventually(t, "the new node has a part", func() bool { part, _ := d.part("sessions"); return part >= 15 })
	w := &waiting{most: 90, total: len(a.conns)}
	for w.total < 90 {
		w.open(b)
	}
	b.stop() // in order: its lease ends at once, and its sessions go on
	ctx, cancel := context.WithCancel(t.Context())
	var lingers sync.WaitGroup
	lingers.Go(func() { b.Linger(ctx, b.dir) })
	testkit.Eventually(t, "the others have what it does not use", func() bool {
		ofA, _ := a.part("sessions")
		ofD, _ := d.part("sessions")
		return ofA+ofD == 30
	})
	if a.open() || d.open() {
		t.Error("others take places of sessions that go on")
	}
	b.end(20)
	w.total -= 20
	for w.total < 90 {
		w.open(d)
	}
	b.end(len(b.conns))
	cancel()
	lingers.Wait()
	began = time.Now()
	parts(t, "sessions", 90, a, d)
	t.Logf("the part of a node that has shut down was back after %v", time.Since(began))
	if w.over > 0 {
		t.Error(w)
	}
}

// Without the store nodes that hear each other go on. One that hears nobody keeps its part.
func TestB108LimitsWithoutTheStore(t *testing.T) {
	store, nodes := threeLimited(t, `sessions="90" scope="fleet"`)
	a, b, c := nodes[0], nodes[1], nodes[2]
	parts(t, "sessions", 90, nodes...)
	store.set(func() { store.down = errCut })
	for _, n := range nodes {
		testkit.Eventually(t, "node "+n.name+" has left the store", func() bool { return !n.Status().Joined })
	}
	w := &waiting{most: 90}
	for range 90 {
		w.open(a)
	}
	w.end(a, 90)
	for range 60 {
		w.open(b)
	}
	t.Log(w)
	if w.over > 0 {
		t.Error(w)
	}
	c.sharing.stop() // it hears nobody, and nobody hears it
	for _, n := range []*limited{a, b} {
		testkit.Eventually(t, "node "+n.name+" does not hear c", func() bool { return n.Status().Shares.Nodes == 2 })
	}
	testkit.Eventually(t, "c hears nobody", func() bool { return c.Status().Shares.Nodes == 1 || !c.Status().Shares.Peers[0].Live })
	part, even := c.part("sessions")
	if part == 0 || even {
		t.Fatalf("c has lost its part: %d, %v", part, even)
	}
	for range part {
		if !c.open() {
			t.Error("c does not use its part")
		}
	}
	if c.open() {
		t.Error("c uses more than its part")
	}
}

// Another limit, another scope and a service that goes hold on all nodes.
func TestB107LimitsChange(t *testing.T) {
	_, nodes := threeLimited(t, `sessions="90" scope="fleet"`)
	a, b, c := nodes[0], nodes[1], nodes[2]
	parts(t, "sessions", 90, nodes...)
	set := func(f func(*config.Limits)) {
		t.Helper()
		testkit.Eventually(t, "the change is made", func() bool {
			_, err := b.dir.Do(t.Context(), director.Change{By: "test", Verb: "setService web", Apply: func(cfg *config.Config) error {
				f(&cfg.Services[0].Limits)
				return nil
			}})
			return err == nil
		})
	}
	w := &waiting{most: 90}
	for range 40 {
		w.open(a)
		w.open(b)
	}
	set(func(l *config.Limits) { l.Sessions = 60 })
	testkit.Eventually(t, "nobody may let anybody in", func() bool {
		for _, n := range nodes {
			if part, _ := n.part("sessions"); part > int64(len(n.conns)) {
				return false
			}
		}
		return true
	})
	if a.open() || b.open() || c.open() {
		t.Error("80 sessions, a limit of 60, and a client is let in")
	}
	if n := len(a.conns) + len(b.conns) + len(c.conns); n != 80 {
		t.Errorf("%d sessions, of 80", n)
	}
	w.end(a, 40)
	w.total, w.most = 40, 60
	for range 20 {
		w.open(c)
	}
	if w.over > 0 {
		t.Error(w)
	}
	set(func(l *config.Limits) { l.Scope = "node" })
	testkit.Eventually(t, "each node has its own limit", func() bool { return len(c.Status().Limits)+len(a.Status().Limits) == 0 })
	for range 30 {
		w.open(c)
	}
	set(func(l *config.Limits) { l.Scope, l.Sessions, l.Rate = "fleet", 200, 1000 })
	parts(t, "sessions", 200, nodes...)
	parts(t, "rate", 1000, nodes...)
	text := c.Status().String()
	if !strings.Contains(text, "\nsessions of service web, shared: 200 of all nodes, this one uses 50 of ") || !strings.Contains(text, "(its part)") {
		t.Errorf("show fleet says:\n%s", text)
	}
}

// As many sessions begin in all nodes together as the rate says, and a node that has all the
// clients lets in as many.
func TestB107RateOfAFleet(t *testing.T) {
	const each = 200
	_, nodes := threeLimited(t, fmt.Sprintf(`rate="%d" scope="fleet"`, each))
	parts(t, "rate", each, nodes...)
	begun := func() (n int) {
		for _, one := range nodes {
			n += len(one.conns)
		}
		return n
	}
	hammer := func(d time.Duration, some ...*limited) (n int, took time.Duration) {
		for _, one := range nodes {
			one.end(len(one.conns))
		}
		began := time.Now()
		for time.Since(began) < d {
			for _, one := range some {
				for time.Since(began) < d && one.open() { // all that it has
				}
			}
			time.Sleep(time.Millisecond) // a fifth of what one client more takes
		}
		took = time.Since(began)
		return begun(), took
	}
	within := func(n int, took time.Duration) {
		t.Helper()
		if most := each + int(took*each/time.Second) + 1; n > most {
			t.Errorf("%d sessions have begun in %v, %d may", n, took, most)
		}
	}
	n, took := hammer(2*time.Second, nodes...)
	t.Logf("three nodes: %d in %v", n, took)
	within(n, took)
	testkit.BestOf(t, 5, func() error {
		n, took := hammer(2*time.Second, nodes[2])
		t.Logf("one node: %d in %v", n, took)
		within(n, took)
		if n < each*3/2 {
			return fmt.Errorf("one node with all the clients lets in %d in %v, of a rate of %d", n, took, each)
		}
		return nil
	})
}

// The process that takes a node's place has its part, and no node has it twice.
func TestB107AnUpgradeKeepsThePart(t *testing.T) {
	store, nodes := threeLimited(t, `sessions="90" scope="fleet"`)
	a, b, old := nodes[0], nodes[1], nodes[2]
	parts(t, "sessions", 90, nodes...)
	first := &waiting{most: 90}
	for range 45 {
		first.open(old)
	}
	old.Parts(true)
	before, _ := old.part("sessions")
	if before < 45 {
		t.Fatalf("a part of %d for 45 sessions", before)
	}
	old.Keep() // that upgrade has failed
	testkit.Eventually(t, "it goes on", func() bool { return old.open() })
	given := old.Parts(true)
	before, _ = old.part("sessions")
	text, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	var taken Parts
	if err := json.Unmarshal(text, &taken); err != nil {
		t.Fatal(err)
	}
	next := newLimited(t, store, "c", filepath.Dir(old.path), func(o *Options) { o.Config.Listen = old.opt.Config.Listen })
	next.TakeParts(&taken)
	free := before - int64(len(old.conns))
	for range free {
		if !next.open() {
			t.Errorf("it has less than the %d of a part of %d that the process before does not use", free, before)
		}
	}
	if next.open() {
		t.Errorf("it has more than the %d of a part of %d that the process before does not use", free, before)
	}
	old.HandOver()
	old.stop()
	old.end(len(old.conns))
	next.run()
	testkit.Eventually(t, "the next process shares", func() bool { return next.Status().Shares.Nodes == 3 })
	parts(t, "sessions", 90, a, b, next)
	w := &waiting{most: 90, total: len(next.conns)}
	for w.total < 90 {
		w.open(next)
	}
	if a.open() || b.open() || next.open() {
		t.Error("there are more sessions than the limit")
	}
	if life := next.limits.quota.Life(); life != given.Quota.Life {
		t.Errorf("it is another one: %s, and not %s", life, given.Quota.Life)
	}
}

// Nodes that nobody hears take an even share each, and the others what is left.
func TestB108EvenShares(t *testing.T) {
	store := newMemoryStore()
	doc := limitService(keeper(t), `sessions="90" rate="3000" scope="fleet"`)
	alone := func(o *Options) { o.Config.Listen, o.Config.Secret = "", "" }
	a := limit(t, store, "a", doc, alone)
	has := func(n *limited, want int64) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("node %s has %d", n.name, want), func() bool { part, _ := n.part("sessions"); return part == want })
	}
	has(a, 90)
	b := limit(t, store, "b", doc)
	c := limit(t, store, "c", doc)
	has(a, 30)
	parts(t, "sessions", 60, b, c)
	parts(t, "rate", 2000, b, c)
	for range 60 {
		(&waiting{most: 60}).open(b)
	}
	if b.open() || c.open() {
		t.Error("they take the share of a node that they do not hear")
	}
	folder := filepath.Dir(a.path)
	a.stop()
	again := limitIn(t, newMemoryStore(), "a", folder, alone, func(o *Options) {
		o.Connect = func(context.Context) (Store, error) { return nil, errCut }
	})
	has(again, 30) // it remembers how many they were
	if text := again.Status().String(); !strings.Contains(text, "0 of 30 (an even share)") {
		t.Errorf("show fleet says:\n%s", text)
	}
}

// A node whose port others cannot reach says so, and serves: it takes an even share.
func TestB108ANodeThatNobodyHears(t *testing.T) {
	store := newMemoryStore()
	doc := limitService(keeper(t), `sessions="90" scope="fleet"`)
	a := limit(t, store, "a", doc)
	parts(t, "sessions", 90, a)
	odd := limit(t, store, "odd", doc, func(o *Options) { o.Config.Secret = "another secret of a fleet" })
	testkit.Eventually(t, "it takes an even share", func() bool { part, even := odd.part("sessions"); return part == 45 && even })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	odd.AwaitLimits(ctx)
	if ctx.Err() == nil {
		t.Error("it says that it knows its part")
	}
	if !odd.open() {
		t.Error("it does not serve")
	}
}
