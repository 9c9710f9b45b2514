package quota

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// world is nodes that share one limit, and what they have told each other. Clients come and go.
type world struct {
	t     *testing.T
	limit int64
	// lowered is that the limit was: nodes may hold more for a while.
	lowered bool
	changed bool // the limit was
	apart   bool // a node was given up that lives on
	calm    bool // all nodes live on: then shares count too
	nodes   map[string]*actor
	lives   int
	log     []string
}

// actor is a node in a world.
type actor struct {
	*Node
	name    string
	used    int64
	allowed int64
	settled bool
	wants   int64
	fresh   bool            // it does not know its part, and takes a share
	looked  int64           // the limit that it has last looked at
	come    int64           // these clients come while it looks
	still   bool            // another look would change nothing
	there   bool            // the store has it
	joined  bool            // it hears the store
	store   []string        // as it has last heard
	told    [][]byte        // all that it has ever told, in order
	heard   map[string]int  // by node: how much of that it has heard
	mute    map[string]bool // it does not hear these
}

// said is what a node tells the others.
type said struct {
	Life string
	Top  View
	Row  Row
}

func newWorld(t *testing.T, limit int64, names ...string) *world {
	w := &world{t: t, limit: limit, nodes: map[string]*actor{}}
	for _, name := range names {
		w.start(name)
	}
	return w
}

func (w *world) logf(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// start starts a node, or starts it again: what it had is lost, and its sessions have ended.
func (w *world) start(name string) *actor {
	w.lives++
	a := &actor{
		Node: NewNode(name, fmt.Sprint("life", w.lives)), name: name, there: true, joined: true,
		heard: map[string]int{}, mute: map[string]bool{},
	}
	w.nodes[name] = a
	return a
}

// die ends a node: the store forgets it later.
func (w *world) die(name string) {
	a := w.nodes[name]
	a.used, a.allowed, a.told = 0, 0, nil
	delete(w.nodes, name)
}

// last returns what a node has last heard of another one, nil if it hears nothing of it now.
func (w *world) last(a *actor, of string) *said {
	b := w.nodes[of]
	if b == nil || a.mute[of] || len(b.told) == 0 {
		return nil
	}
	s := new(said)
	if err := json.Unmarshal(b.told[max(0, min(a.heard[of], len(b.told)-1))], s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// look makes a node look once.
func (w *world) look(a *actor) {
	heard := map[string]string{}
	in := &Limit{Limit: w.limit, Share: max(1, w.limit/int64(len(w.nodes))), Used: a.used, Wants: a.wants, Rows: map[string]*Row{}}
	for name := range w.nodes {
		if name == a.name {
			continue
		}
		if s := w.last(a, name); s != nil {
			heard[name] = s.Life
			in.Rows[name] = &s.Row
			a.Hear(s.Top)
		}
	}
	if a.joined {
		a.store = nil
		for name, b := range w.nodes {
			if b.there {
				a.store = append(a.store, name)
			}
		}
		slices.Sort(a.store)
		first := true
		for name := range heard {
			first = first && (a.name < name || !w.nodes[name].joined)
		}
		if first {
			a.Propose(heard, a.store)
		}
	}
	before := a.allowed
	a.allowed, a.settled = a.Look("k", in)
	a.used += max(0, min(a.come, before-a.used))
	if in.Used = a.used; a.used > a.allowed {
		a.allowed, a.settled = a.Reclaim("k", in)
	}
	if !a.Row("k").Plausible() {
		w.fail("node %s has come to %+v, which the others do not take", a.name, *a.Row("k"))
	}
	if a.still = a.Still("k", in); a.still {
		w.still(a, in)
	}
	a.wants, a.come, a.looked, a.fresh = 0, 0, w.limit, a.Row("k").Even
	text, err := json.Marshal(said{a.Life(), a.View(), *a.Row("k")})
	if err != nil {
		w.t.Fatal(err)
	}
	a.told = append(a.told, text)
	w.check()
}

// still fails unless another look at the same changes nothing.
func (w *world) still(a *actor, in *Limit) {
	w.t.Helper()
	all := func() string {
		text, err := json.Marshal(a.State())
		if err != nil {
			w.t.Fatal(err)
		}
		return string(text)
	}
	before := all()
	if allowed, settled := a.Look("k", in); allowed != a.allowed || settled != a.settled || all() != before {
		w.fail("node %s was still, and another look makes allowed %d, settled %v, %s of %s", a.name, allowed, settled, all(), before)
	}
}

// hear makes a node hear more of what another one has told: some messages are left out, and some
// are heard again.
func (w *world) hear(a *actor, of string, next int) {
	if b := w.nodes[of]; b != nil {
		a.heard[of] = min(max(next, 0), len(b.told)-1)
	}
}

// latest makes everybody hear everything.
func (w *world) latest() {
	for _, a := range w.nodes {
		for name, b := range w.nodes {
			a.heard[name] = len(b.told) - 1
		}
	}
}

// check fails if nodes hold more than there is.
func (w *world) check() {
	w.t.Helper()
	var held int64
	for _, a := range w.nodes {
		if l := a.ledgers["k"]; l != nil {
			held += max(0, l.row.Part)
		}
	}
	if held > w.limit && !w.lowered {
		w.fail("nodes hold %d of %d", held, w.limit)
	}
	if w.apart {
		return
	}
	var allowed, used int64
	for _, a := range w.nodes {
		if a.looked != w.limit {
			return // it does not know the limit
		}
		if !a.fresh || w.calm {
			allowed += a.allowed
		}
		used += a.used
	}
	if allowed > w.limit {
		w.fail("nodes may use %d of %d", allowed, w.limit)
	}
	if w.calm && !w.changed && used > w.limit {
		w.fail("nodes use %d of %d", used, w.limit)
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		a := w.nodes[name]
		fmt.Fprintf(&b, "\n%s used %d allowed %d top %v mine %v row %+v", name, a.used, a.allowed, a.top, a.mine.ID, a.Row("k"))
	}
	w.t.Fatalf(format+"%s\n%s", append(args, b.String(), strings.Join(w.log, "\n"))...)
}

// settle makes all look and hear each other until nothing changes, and fails if places are
// missing then.
func (w *world) settle() {
	w.t.Helper()
	for range 12 {
		for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
			w.latest()
			w.look(w.nodes[name])
		}
	}
	var held int64
	for _, a := range w.nodes {
		held += a.Row("k").Part
		if !a.settled {
			w.fail("node %s does not know what it has", a.name)
		}
		if !a.still {
			w.fail("node %s looks for ever when all has been said", a.name)
		}
	}
	if held != w.limit {
		w.fail("nodes hold %d of %d when all has been said", held, w.limit)
	}
}

var allNames = []string{"a", "b", "c", "d"}

// act does one thing that may happen, as four bytes say.
func (w *world) act(what, who, of, n byte) {
	name, other := allNames[int(who)%len(allNames)], allNames[int(of)%len(allNames)]
	a := w.nodes[name]
	w.logf("%d %s %s %d", what%12, name, other, n)
	switch what % 12 {
	case 0: // it starts, or starts again
		w.start(name)
	case 1:
		if a != nil && len(w.nodes) > 1 {
			w.die(name)
		}
	case 2, 3: // clients come
		if a != nil {
			come := int64(n)
			stay := min(come, max(0, a.allowed-a.used))
			a.used += stay
			a.wants += come - stay
		}
	case 4: // clients go
		if a != nil {
			a.used = max(0, a.used-int64(n))
		}
	case 5: // a message is heard, late, or again
		if b := w.nodes[other]; a != nil && b != nil && a != b {
			w.hear(a, other, len(b.told)-1-int(n%4))
		}
	case 6: // it hears another no more, or again; or the store
		if a != nil && n%4 == 0 {
			a.joined = !a.joined
		} else if a != nil && name != other {
			a.mute[other] = !a.mute[other]
		}
	case 7: // the process hands over
		if a != nil {
			text, err := json.Marshal(a.State())
			var s State
			if err == nil {
				err = json.Unmarshal(text, &s)
			}
			if err != nil {
				w.t.Fatal(err)
			}
			next := NewNode(name, "unused")
			next.Take(&s)
			a.Node = next
		}
	default:
		if a != nil {
			if n%3 == 0 && w.nodes[other] != nil && other != name {
				w.hear(a, other, len(w.nodes[other].told)-1)
			}
			w.look(a)
		}
	}
}

// run does what bytes say, and then lets everybody hear everything.
func (w *world) run(script []byte) {
	for len(script) >= 4 {
		w.act(script[0], script[1], script[2], script[3])
		script = script[4:]
	}
	for _, a := range w.nodes {
		a.mute, a.joined, a.wants = map[string]bool{}, true, 0
	}
	w.settle()
}

// calmWorld is nodes that are in one view from the beginning, and to which the limit is new.
func calmWorld(t *testing.T, limit int64) *world {
	w := newWorld(t, limit, "a", "b", "c")
	w.calm = true
	a, lives := w.nodes["a"], map[string]string{}
	for name, b := range w.nodes {
		if b != a {
			lives[name] = b.Life()
		}
	}
	a.Propose(lives, []string{"b", "c"})
	for _, b := range w.nodes {
		b.Hear(a.View())
	}
	return w
}

// While no node starts or ends, all that nodes may use is never more than the limit, from the first
// look at a new limit on; nor is what they use, though clients come while a node looks. A lower
// limit holds for all once each node knows it.
func TestB107SharesAndPartsTogether(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		w := calmWorld(t, 1+random.Int64N(300))
		steady := random.IntN(2) == 0 // the limit does not change
		for range 20 + random.IntN(300) {
			what, n := byte(2+random.IntN(10)), byte(random.Uint32())
			switch {
			case what == 6: // nodes stay joined; some stop to hear each other
				n |= 1
			case what == 11 && n < 20 && steady:
			case what == 11 && n < 20:
				limit := 1 + random.Int64N(300)
				w.lowered = w.lowered || limit < w.limit
				w.logf("limit %d", limit)
				w.limit, w.changed = limit, true
				continue
			case what == 11:
				w.nodes[allNames[n%3]].come = int64(random.IntN(50))
			}
			w.act(what, byte(random.IntN(3)), byte(random.IntN(3)), n)
		}
		w.run(nil)
	}
}

// Two nodes make a view of the same one, and of the same number: what a node had in the other one
// is not there twice.
func TestB107TwoViewsFromOne(t *testing.T) {
	w := newWorld(t, 1000, "a", "b", "c", "d", "e")
	w.settle()
	a, b, c, d := w.nodes["a"], w.nodes["b"], w.nodes["c"], w.nodes["d"]
	w.apart = true
	w.die("e")
	delete(w.nodes, "b")
	delete(w.nodes, "d")
	w.settle() // a and c have all
	w.nodes["b"], w.nodes["d"] = b, d
	b.Propose(map[string]string{}, []string{"a", "c", "d"}) // it has heard nobody
	for _, n := range []*actor{a, c, d} {
		n.Hear(b.View())
	}
	for range 12 {
		for _, n := range []*actor{d, c, b, a} {
			w.latest()
			w.look(n)
		}
		w.apart = false
		w.check()
	}
	w.settle()
}

// Whatever is lost, late or repeated, whichever node starts, dies or hands over, nodes never hold more
// than the limit together, and when all has been said they hold all of it.
func FuzzParts(f *testing.F) {
	f.Add(int64(100), []byte{8, 0, 0, 0, 8, 1, 0, 0, 8, 0, 1, 3, 8, 1, 0, 3, 2, 1, 0, 90, 8, 1, 0, 3, 8, 0, 1, 3, 8, 1, 0, 3})
	f.Add(int64(2), []byte{0, 3, 0, 0, 8, 3, 0, 0, 1, 0, 0, 0, 8, 1, 2, 3, 6, 2, 1, 0, 8, 2, 1, 3, 2, 2, 0, 3, 7, 2, 0, 0, 8, 2, 1, 3})
	f.Fuzz(func(t *testing.T, limit int64, script []byte) {
		w := newWorld(t, min(max(limit, 1), 1<<30), "a", "b", "c")
		w.run(script[:min(len(script), 4<<10)])
	})
}

func TestB107PartsAreNeverMoreThanTheLimit(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 120 {
		w := newWorld(t, 1+random.Int64N(300), "a", "b", "c")
		script := make([]byte, 4*(20+random.IntN(300)))
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		w.run(script)
	}
}

// What one node uses others do not have, and what they do not use it gets, in few looks.
func TestPartsGoWhereTheyAreUsed(t *testing.T) {
	w := newWorld(t, 900, "a", "b", "c")
	w.settle()
	for name, a := range w.nodes {
		if a.allowed != 300 {
			t.Errorf("node %s may use %d of 900 when nobody uses any, want 300", name, a.allowed)
		}
	}
	round := func() {
		for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
			w.latest()
			w.look(w.nodes[name])
		}
	}
	for _, name := range []string{"a", "c", "b"} { // all the demand is at one node, and then at another
		a, rounds := w.nodes[name], 0
		for a.used < 880 {
			if rounds++; rounds > 30 {
				w.fail("node %s has got %d of 900 in %d rounds", name, a.used, rounds)
			}
			come := int64(100)
			stay := min(come, max(0, a.allowed-a.used))
			a.used, a.wants = a.used+stay, come-stay
			round()
		}
		t.Logf("node %s has 880 of 900 after %d rounds of 100 clients", name, rounds)
		a.used = 0
		round()
	}
}

// The last places go to the node where a client was rejected.
func TestTheLastPlaces(t *testing.T) {
	w := newWorld(t, 2, "a", "b", "c")
	w.settle()
	for range 3 {
		for _, name := range []string{"b", "c", "a"} {
			a := w.nodes[name]
			for rounds := 0; a.used < 2; rounds++ {
				if rounds > 5 {
					w.fail("node %s does not get the last places", name)
				}
				if a.allowed > a.used {
					a.used++
				} else {
					a.wants = 1
				}
				w.settle()
			}
			a.used = 0
			w.settle()
		}
	}
}

// A lower limit ends no session, and lets in none before as many have ended. A higher one is there
// at once.
func TestAnotherLimit(t *testing.T) {
	w := newWorld(t, 300, "a", "b", "c")
	w.settle()
	w.nodes["b"].used, w.nodes["c"].used = 100, 60
	w.settle()
	w.limit = 100
	w.lowered = true // what nodes hold that use it is above the limit
	w.settle()
	var room int64
	for _, a := range w.nodes {
		room += max(0, a.allowed-a.used)
	}
	if room != 0 {
		w.fail("160 sessions, a limit of 100, and there is room for %d", room)
	}
	w.nodes["b"].used = 30 // 90 of 100
	w.settle()
	w.lowered = false
	w.check()
	for _, a := range w.nodes {
		room += max(0, a.allowed-a.used)
	}
	if room != 10 {
		w.fail("90 sessions, a limit of 100, and there is room for %d", room)
	}
	w.limit = 1000
	w.settle()
	for _, a := range w.nodes {
		if a.allowed-a.used < 300 {
			w.fail("node %s has room for %d of 910", a.name, a.allowed-a.used)
		}
	}
}

// A node that the others had given up, and that comes back, has nothing: they may have its part. Its
// sessions count, so that no node lets in more before enough have ended.
func TestB107ANodeThatComesBack(t *testing.T) {
	w := newWorld(t, 90, "a", "b", "c")
	w.settle()
	c := w.nodes["c"]
	c.used = 30
	delete(w.nodes, "c") // cut off from the store and from the others
	w.settle()
	if sum := w.nodes["a"].allowed + w.nodes["b"].allowed; sum != 90 {
		w.fail("the others have %d of 90", sum)
	}
	w.nodes["a"].used, w.nodes["b"].used = 45, 45
	c.used = 10
	w.nodes["c"] = c
	w.lowered, w.apart = true, true // 100 sessions
	before := c.mine.ID
	for range 12 {
		for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
			w.latest()
			w.look(w.nodes[name])
			if c.mine.ID != before && c.allowed > c.used {
				w.fail("100 sessions of 90, and node c lets in %d more", c.allowed-c.used)
			}
		}
	}
	w.settle()
	for _, a := range w.nodes {
		if a.allowed > a.used {
			w.fail("100 sessions of 90, and node %s lets in more", a.name)
		}
	}
	w.nodes["a"].used = 0
	w.settle()
	w.lowered, w.apart = false, false
	w.check()
}

// Still is about a look at the same: each thing that this node needs counts.
func TestStillIsAboutTheSame(t *testing.T) {
	w := newWorld(t, 300, "a", "b", "c")
	w.settle()
	a := w.nodes["b"]
	if a.Still("none", new(Limit)) {
		t.Error("a limit that was never looked at is still")
	}
	is := a.ledgers["k"].last
	if !a.Still("k", &is) {
		t.Fatal("it looks for ever")
	}
	for what, change := range map[string]func(*Limit){
		"limit": func(in *Limit) { in.Limit++ }, "share": func(in *Limit) { in.Share++ }, "used": func(in *Limit) { in.Used++ },
		"wants": func(in *Limit) { in.Wants++ }, "leaves": func(in *Limit) { in.Leaves = true },
	} {
		in := is
		if change(&in); a.Still("k", &in) {
			t.Errorf("another %s changes nothing", what)
		}
	}
	w.start("d") // another view
	w.settle()
	view := a.mine
	view.ID.Number++
	view.Past = append(view.Past, a.mine.ID)
	if a.Hear(view); a.Still("k", &is) {
		t.Error("another view changes nothing")
	}
	a.Look("k", &is)
	if a.Only(map[string]bool{}); a.Still("k", &is) {
		t.Error("a limit that is no more is still")
	}
}

// What no node can have come to would make sums overflow.
func TestImplausibleRows(t *testing.T) {
	for what, change := range map[string]func(*Row){
		"carried": func(r *Row) { r.Carried = math.MinInt64 }, "part": func(r *Row) { r.Part = math.MaxInt64 }, "used": func(r *Row) { r.Used = -1 },
		"wants": func(r *Row) { r.Wants = 1 << 50 }, "limit": func(r *Row) { r.Limit = -5 }, "given": func(r *Row) { r.Given["a"] = -1 }, "taken": func(r *Row) { r.Taken["a"] = math.MaxInt64 },
	} {
		r := Row{Carried: -3, Part: 5, Used: 5, Wants: 2, Limit: 100, Given: map[string]int64{"a": 7}, Taken: map[string]int64{"a": 1 << 40}}
		if !r.Plausible() {
			t.Fatalf("%+v is not plausible", r)
		}
		if change(&r); r.Plausible() {
			t.Errorf("%s: %+v is plausible", what, r)
		}
	}
}

// Accounts of limits that are no more do not pile up where nodes never change.
func TestAccountsOfFormerLimitsEnd(t *testing.T) {
	n := NewNode("a", "life")
	propose := func() ID {
		n.Propose(map[string]string{"b": "other"}, []string{"b"})
		return n.mine.ID
	}
	first := propose()
	for i := range maxIdle + 1 {
		n.Look(fmt.Sprint("former ", i), &Limit{Limit: 10, Share: 5})
	}
	n.Look("k", &Limit{Limit: 10, Share: 5})
	if propose() != first {
		t.Error("there is another view, and all limits are there")
	}
	n.Only(map[string]bool{"k": true})
	if propose() == first || len(n.ledgers) != 1 || n.ledgers["k"] == nil {
		t.Errorf("%d accounts are left", len(n.ledgers))
	}
	if second := n.mine.ID; propose() != second {
		t.Error("each look makes a view")
	}
}
