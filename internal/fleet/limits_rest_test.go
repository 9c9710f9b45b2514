package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/fleet/quota"
)

// restingLimits returns the limits of a node of fifty that share the sessions of a service, when all
// has been said.
func restingLimits() (*limits, *sharedLimits, *fleetNow) {
	const nodes, limit = 50, 100_000
	all, lives := map[string]*quota.Node{}, map[string]string{}
	fleet := &fleetNow{joined: true, nodes: nodes}
	for i := range nodes {
		name := fmt.Sprintf("n%02d", i)
		lives[name] = "life " + name
		all[name] = quota.NewNode(name, lives[name])
		if i > 0 {
			fleet.there = append(fleet.there, name)
		}
	}
	first := all["n00"]
	first.Propose(lives, fleet.there)
	for _, n := range all {
		n.Hear(first.View())
	}
	l := &limits{n: new(Node), quota: first, rows: map[string]*heardRows{}, said: map[string]string{}}
	l.allot = func(string, engine.Allotment) (engine.Usage, bool) { return engine.Usage{}, true }
	s := &sharedLimits{config: &config.Service{Name: "web"}}
	s.is[sessions].limit = limit
	key := s.key(sessions)
	rows := map[string]quota.Row{}
	heard := func(of string) map[string]*quota.Row {
		by := map[string]*quota.Row{}
		for name, row := range rows {
			if name != of {
				by[name] = &row
			}
		}
		return by
	}
	for range 5 {
		for name, n := range all {
			n.Look(key, &quota.Limit{Limit: limit, Share: even(limit, nodes), Rows: heard(name)})
			rows[name] = *n.Row(key)
		}
	}
	l.rows[key] = &heardRows{heard("n00"), l.move()}
	return l, s, fleet
}

// A node spends little on a limit of which nobody has said anything new.
func BenchmarkLimitAtRest(b *testing.B) {
	l, s, fleet := restingLimits()
	for b.Loop() {
		l.share(s, fleet, time.Now())
	}
}

// The same when another node has said something.
func BenchmarkLimitThatMoves(b *testing.B) {
	l, s, fleet := restingLimits()
	for b.Loop() {
		l.rows[s.key(sessions)].moved = l.move()
		l.share(s, fleet, time.Now())
	}
}

// A limit at rest is not looked at again until another node says something of it, or goes.
func TestLimitsAtRestAreLeftAlone(t *testing.T) {
	l, s, fleet := restingLimits()
	now := time.Now()
	look := func() {
		for range 3 {
			if !l.share(s, fleet, now) {
				t.Fatal("the node does not know its part")
			}
		}
	}
	key := s.key(sessions)
	look()
	part := s.is[sessions].allowed
	other := l.rows[key].by["n07"]
	more := *other
	more.Given = map[string]int64{"n00": other.Given["n00"] + 5}
	l.rows[key].by["n07"] = &more
	look()
	if got := s.is[sessions].allowed; got != part {
		t.Errorf("it may use %d, want %d: it has looked at a limit at rest", got, part)
	}
	l.rows[key].moved = l.move()
	look()
	if got := s.is[sessions].allowed; got != part+5 {
		t.Errorf("it may use %d after a gift of 5, want %d", got, part+5)
	}
}

// What a node says of itself has all nodes: it is read again when that is another text, and not
// with each row.
func TestAHeaderIsReadOnce(t *testing.T) {
	l, _, _ := restingLimits()
	l.heard = map[string]*heardNode{}
	says := func(version uint64, head, row string) *header {
		return &l.hearNode(peers.NodeLimits{Node: "n07", Addr: "10.0.0.7:1", Version: version, Says: map[string]string{theNode: head, "rate x": row}}).head
	}
	head := encode(header{Life: "first", View: l.quota.View()})
	if got := says(1, head, `{"part":1}`); got.Life != "first" || len(got.View.Members) != 50 {
		t.Fatalf("it hears %+v", got)
	}
	l.heard["n07"].head.Life = "read before"
	if got := says(2, head, `{"part":2}`); got.Life != "read before" || l.rows["rate x"].by["n07"].Part != 2 {
		t.Errorf("it has read %q again, and a part of %d", got.Life, l.rows["rate x"].by["n07"].Part)
	}
	if got := says(3, `{"life":"second"}`, `{"part":2}`); got.Life != "second" || len(got.View.Members) != 0 {
		t.Errorf("it hears %+v, and another one was said", got)
	}
}

// BenchmarkRowAmongFifty is what a node does when another one of fifty has said a row.
func BenchmarkRowAmongFifty(b *testing.B) {
	l, _, _ := restingLimits()
	l.heard = map[string]*heardNode{}
	head, version := encode(header{Life: "life", View: l.quota.View()}), uint64(0)
	for b.Loop() {
		version++
		l.hearNode(peers.NodeLimits{Node: "n07", Version: version, Says: map[string]string{theNode: head, "rate x": `{"part":1}`}})
	}
}

// What the process before might use counts once: a service that goes and comes back does not begin
// with it.
func TestB107PartsOfTheProcessBeforeCountOnce(t *testing.T) {
	l, s, fleet := restingLimits()
	l.before = map[string]engine.Allotment{"web": {Sessions: 70_000, Rate: -1}}
	var first []engine.Allotment
	l.allot = func(_ string, a engine.Allotment) (engine.Usage, bool) {
		first = append(first, a)
		return engine.Usage{}, true
	}
	l.share(s, fleet, time.Now())
	if len(first) == 0 || first[0].Sessions != 70_000 {
		t.Fatalf("it begins with %v", first)
	}
	again := &sharedLimits{config: s.config}
	again.is[sessions].limit = s.is[sessions].limit
	first = nil
	l.share(again, fleet, time.Now())
	if first[0].Sessions != 2000 {
		t.Errorf("when it comes back it begins with %v, want an even share of 2000", first[0])
	}
}
