package core

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/txlb/txlb/engine"
)

// sharing returns a service whose limits are shared.
func sharing(l engine.Limits) *Service {
	s := newService("web", 1)
	l.Shared = true
	s.Route.Store(&engine.Route{Limits: &l})
	return s
}

// Loops that take tokens all the time while the part of a rate changes get no token twice: the clock
// stands still, so there are as many as the greater rate has, at most.
func TestB107RateChangesUnderLoops(t *testing.T) {
	const rate = 1000
	for round := range 50 {
		s := sharing(engine.Limits{Rate: rate})
		l, now := &s.limits, int64(round+1)*second
		limits := s.Route.Load().Limits
		var taken, stop atomic.Int64
		hammer := func(change func()) {
			stop.Store(0)
			var loops sync.WaitGroup
			begun := make(chan struct{}, 2)
			for range 2 {
				loops.Go(func() {
					begun <- struct{}{}
					for stop.Load() == 0 {
						if l.takeToken(limits, now) {
							taken.Add(1)
						}
					}
				})
			}
			<-begun
			change()
			stop.Store(1)
			loops.Wait()
		}
		s.allot(engine.Allotment{Rate: 1}, now)
		hammer(func() { s.allot(engine.Allotment{Rate: rate}, now) })
		for l.takeToken(limits, now) {
			taken.Add(1)
		}
		if n := taken.Load(); n > rate {
			t.Fatalf("round %d: the part grows from 1 to %d, and %d tokens are taken", round, rate, n)
		}
	}
}

// What an allotment says is used is all that may be used beside the part: a session that came
// while the part was lowered is in it, or has no place. Else what the node gives away is used twice.
func TestB107PartShrinksUnderLoops(t *testing.T) {
	s := sharing(engine.Limits{Sessions: 1 << 20})
	l, limits := &s.limits, s.Route.Load().Limits
	var stop atomic.Bool
	var refusals [2]atomic.Int64
	var loops sync.WaitGroup
	for i := range refusals {
		loops.Go(func() {
			for !stop.Load() {
				if !l.takePlace(limits) {
					refusals[i].Add(1)
					runtime.Gosched()
				}
			}
		})
	}
	defer loops.Wait()
	defer stop.Store(true)
	for round := range 2000 {
		s.allot(engine.Allotment{Sessions: int(l.held.Load()) + 5}, second)
		used := s.allot(engine.Allotment{}, second).Sessions
		for i := range refusals { // both have seen it
			for was := refusals[i].Load(); refusals[i].Load() < was+2; {
				runtime.Gosched()
			}
		}
		if n := l.held.Load(); n > used {
			t.Fatalf("round %d: %d are used of none, when %d were told", round, n, used)
		}
	}
}

// A part that shrinks while nobody has taken a token: what it gave away is not there any more, also
// for a loop that comes in the middle.
func TestB107RateShrinks(t *testing.T) {
	s := sharing(engine.Limits{Rate: 1000, Share: engine.Allotment{Rate: 1000}})
	l, limits, now := &s.limits, s.Route.Load().Limits, second
	s.allot(engine.Allotment{Rate: 1}, now)
	n := 0
	for l.takeToken(limits, now) {
		n++
	}
	if n > 1 {
		t.Errorf("a part of 1 has %d tokens", n)
	}
	s.allot(engine.Allotment{}, now)
	if l.takeToken(limits, now+5*second) {
		t.Error("no part has a token")
	}
	s.allot(engine.Allotment{Rate: 10}, now+5*second)
	for n = 0; l.takeToken(limits, now+5*second); {
		n++
	}
	if n < 9 || n > 10 {
		t.Errorf("a part of 10 has %d tokens", n)
	}
}

// Before anybody has said, a service uses its share, and all of a limit that is not shared.
func TestB107ShareUntilTold(t *testing.T) {
	s := sharing(engine.Limits{Sessions: 90, Rate: 60, Share: engine.Allotment{Sessions: 30, Rate: 20}})
	a := &s.limits.allotted
	check := func(what string, sessions, rate int) {
		t.Helper()
		l := s.Route.Load().Limits
		if is := [2]int{a.of(sharedSessions, l), a.of(sharedRate, l)}; is != [2]int{sessions, rate} {
			t.Errorf("%s: it may use %v, want %d and %d", what, is, sessions, rate)
		}
	}
	route := func(l engine.Limits) {
		a.reroute(s.Route.Load().Limits, &l)
		s.Route.Store(&engine.Route{Limits: &l})
	}
	check("nobody has said", 30, 20)
	s.allot(engine.Allotment{Sessions: 50, Rate: -1}, second)
	check("of the sessions alone", 50, 20)
	s.allot(engine.Allotment{Sessions: -1, Rate: 5}, second)
	check("of the rate too", 50, 5)
	route(engine.Limits{Sessions: 40, Rate: 60})
	check("limits of its own", 40, 60)
	s.allot(engine.Allotment{Sessions: 1, Rate: 1}, second)
	check("told of limits that are its own", 40, 60)
	route(engine.Limits{Sessions: 40, Rate: 60, Shared: true, Share: engine.Allotment{Sessions: 20, Rate: 30}})
	check("shared again", 20, 30)
	s.allot(engine.Allotment{Sessions: 33, Rate: 44}, second)
	route(engine.Limits{Sessions: 90, Shared: true})
	s.allot(engine.Allotment{Sessions: 33, Rate: 44}, second)
	route(engine.Limits{Sessions: 90, Rate: 60, Shared: true, Share: engine.Allotment{Sessions: 9, Rate: 6}})
	check("a rate is new", 33, 6)
}

// What the process before still has counts, until it is adopted or the word of it is withdrawn; the
// tokens that it has taken are not there again.
func TestB107TakesOverAPart(t *testing.T) {
	s := sharing(engine.Limits{Sessions: 90, Rate: 60})
	l, limits, now := &s.limits, s.Route.Load().Limits, second
	s.allot(engine.Allotment{Sessions: 30, Rate: 20, Held: 29, Taken: 15}, now)
	room := func() int { return l.allotted.of(sharedSessions, limits) - int(l.held.Load()) }
	if n := room(); n != 1 {
		t.Errorf("29 of 30 are with the process before, and there is room for %d", n)
	}
	for range 29 {
		l.held.Add(1)
		l.allotted.adopted()
		if n := room(); n != 1 {
			t.Fatalf("%d are adopted, and there is room for %d", l.held.Load(), n)
		}
	}
	l.held.Add(1)
	l.allotted.adopted() // one more than it has said
	if n := room(); n != 0 {
		t.Errorf("30 of 30, and there is room for %d", n)
	}
	tokens := 0
	for l.takeToken(limits, now) {
		tokens++
	}
	if tokens != 5 {
		t.Errorf("15 of 20 tokens are taken, and %d are there", tokens)
	}
	s.allot(engine.Allotment{Sessions: 30, Rate: 20, Held: 10}, now)
	if n := room(); n != -10 {
		t.Errorf("ten more, and there is room for %d", n)
	}
	if u := s.allot(engine.Allotment{Sessions: 30, Rate: 20}, now); u.Taken != 20 || u.Sessions != 30 || room() != 0 {
		t.Errorf("used: %+v, room for %d", u, room())
	}
}
