package sched

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func TestB39LeastConnections(t *testing.T) {
	for _, scheduler := range []string{"leastc", "weightlc"} {
		// Ties go to the longest unused: with none released, all in turn.
		m := equal(5)
		tab := table(t, Policy{Scheduler: scheduler}, m)
		order := ""
		for range 15 {
			order += pick(t, tab).Name()
		}
		if order != "012340123401234" {
			t.Errorf("%s: order %s", scheduler, order)
		}
		// 3 is released first, then 1: both have one less, 1 was picked longer ago.
		m[3].Host.Release(0, 0)
		m[1].Host.Release(0, 0)
		if got := pick(t, tab).Name() + pick(t, tab).Name(); got != "13" {
			t.Errorf("%s: then %s, want 13", scheduler, got)
		}
	}
}

// Loops pick at the same moment and nobody releases: with as many picks as
// hosts each gets one, time after time. Two loops that took the same host would
// show at once, before later picks make it good.
func TestB39LeastConnectionsUnderConcurrency(t *testing.T) {
	const loops, rounds = 4, 5000
	for _, scheduler := range []string{"leastc", "weightlc"} {
		m := equal(loops)
		tab := table(t, Policy{Scheduler: scheduler}, m)
		var round, picked atomic.Int64
		var wg sync.WaitGroup
		for range loops {
			wg.Go(func() {
				for r := range int64(rounds) {
					for round.Load() <= r { // all start together: no lock wakes them one by one
						runtime.Gosched()
					}
					pick(t, tab)
					picked.Add(1)
				}
			})
		}
		uneven := 0
		for r := range int64(rounds) {
			round.Store(r + 1)
			for picked.Load() < loops*(r+1) {
				runtime.Gosched()
			}
			for _, m := range m {
				if m.Host.Stats().Active != r+1 {
					uneven++
				}
			}
		}
		wg.Wait()
		if uneven > 0 {
			t.Errorf("%s: a host was off its share %d times in %d rounds", scheduler, uneven, rounds)
		}
	}
}

func TestWeightedLeastFollowsTheWeights(t *testing.T) {
	m := members(1, 2, 5)
	tab := table(t, Policy{Scheduler: "weightlc"}, m)
	for range 80 {
		pick(t, tab)
	}
	for i, want := range []int64{10, 20, 50} {
		if got := m[i].Host.Stats().Active; got != want {
			t.Errorf("host %d has %d sessions, want %d", i, got, want)
		}
	}
}

// Beyond 64 hosts least connections samples: not exact, but never far off.
func TestLeastOfManyIsNear(t *testing.T) {
	m := equal(1000)
	tab := table(t, Policy{Scheduler: "leastc", Seed: 7}, m)
	for range 10_000 {
		pick(t, tab)
	}
	for _, m := range m {
		if n := m.Host.Stats().Active; n < 5 || n > 13 {
			t.Errorf("host %s has %d sessions, want about 10", m.Host.Name(), n)
		}
	}
}

// Numbers of picks go on where a host comes from a table that the new one does
// not continue, as when a group is switched off and on again: otherwise one
// host would seem the longest unused for as many picks as there were.
func TestB39TiesHoldAcrossTables(t *testing.T) {
	for _, before := range Names() {
		m := equal(3)
		old := table(t, Policy{Scheduler: before, Seed: 1}, m)
		for range 1000 {
			pick(t, old).Release(0, 0)
		}
		again := table(t, Policy{Scheduler: "leastc"}, m)
		order := ""
		for range 9 {
			h := pick(t, again)
			h.Release(0, 0)
			order += h.Name()
		}
		if order[:3] != order[3:6] || order[:3] != order[6:] || order[0] == order[1] || order[1] == order[2] || order[0] == order[2] {
			t.Errorf("after %s: order %s, want the three in turn", before, order)
		}
	}
}

// Sessions that never overlap leave all hosts without load, whatever their
// weights: the longest unused is next, and none is left out.
func TestWeightedLeastUsesIdleHostsInTurn(t *testing.T) {
	tab := table(t, Policy{Scheduler: "weightlc"}, members(5, 2, 1))
	order := ""
	for range 9 {
		h := pick(t, tab)
		h.Release(0, 0)
		order += h.Name()
	}
	if order != "012012012" {
		t.Errorf("order %s", order)
	}
}

// While others pick and release, no host is ever seen with less than no
// session, and at the end all is given back.
func TestB39LeastConnectionsWithReleases(t *testing.T) {
	for _, scheduler := range []string{"leastc", "weightlc", "p2c"} {
		m := equal(2)
		tab := table(t, Policy{Scheduler: scheduler, Seed: 1}, m)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20_000 {
					pick(t, tab).Release(0, 0)
				}
			})
		}
		wg.Go(func() {
			for range 400_000 {
				if n := m[0].Host.Stats().Active; n < 0 {
					t.Errorf("%s: a host has %d sessions", scheduler, n)
					return
				}
			}
		})
		wg.Wait()
		picks := uint64(0)
		for _, m := range m {
			s := m.Host.Stats()
			picks += s.Picks
			if s.Active != 0 {
				t.Errorf("%s: host %s keeps %d sessions", scheduler, m.Host.Name(), s.Active)
			}
		}
		if picks != 80_000 {
			t.Errorf("%s: %d picks are counted, want 80000", scheduler, picks)
		}
	}
}

// A loop finds a host that is not full, another loop takes the last place, and only then the
// first one counts the sessions of the host. It does not take one more.
func TestLeastConnectionsTakesNoPlaceThatIsNotThere(t *testing.T) {
	h := NewHost("a", Addr{})
	h.SetMaxSessions(1)
	if !free(h, new(Tried)) || !h.takeIf(0, 1) {
		t.Fatal("a host without sessions is full")
	}
	_, seen := h.load()
	if h.takeIf(seen, 2) || h.Sessions() != 1 {
		t.Errorf("%d sessions of a host that may have one", h.Sessions())
	}
	h.Release(0, 0)
	if !h.takeIf(seen, 3) || h.Sessions() != 1 {
		t.Error("the place that is free again is not taken")
	}
}
