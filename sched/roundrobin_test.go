package sched

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestB36RoundRobinExact(t *testing.T) {
	for _, hosts := range []int{1, 2, 3, 7, 100} {
		got := pickMany(t, table(t, Policy{Scheduler: "roundr"}, equal(hosts)), 8*hosts*50, 8)
		for name, n := range got {
			if n != 400 {
				t.Errorf("%d hosts: host %s was picked %d times, want 400", hosts, name, n)
			}
		}
	}
}

// Round robin goes on with the host behind the one picked last, whichever hosts
// go down, come back, leave or join, and before the table is built again as after.
// Where the host picked last has left the table, the one before it counts.
func TestB36RoundRobinKeepsItsPlace(t *testing.T) {
	for _, scheduler := range []string{"roundr", "weightrr"} {
		rapid.Check(t, func(rt *rapid.T) {
			all := equal(rapid.IntRange(1, 9).Draw(rt, "hosts"))
			p := Policy{Scheduler: scheduler}
			listed := all
			tab := table(t, p, listed)
			place := len(all) - 1
			var order []int // all picks
			rebuild := func() {
				p.Start = tab.Next()
				tab = table(t, p, listed)
				up := func(i int) bool { return all[i].Host.Up() && slices.Contains(listed, all[i]) }
				for _, i := range slices.Backward(order) {
					if up(i) {
						place = i
						return
					}
				}
				place = len(all) - 1
			}
			for range 60 {
				switch rapid.IntRange(0, 5).Draw(rt, "change") {
				case 0: // one goes down, and the table is not built again yet
					rapid.SampledFrom(all).Draw(rt, "down").Host.MarkDown()
				case 1:
					rapid.SampledFrom(all).Draw(rt, "up").Host.MarkUp()
					rebuild()
				case 2:
					listed = nil
					for _, m := range all {
						if rapid.IntRange(0, 4).Draw(rt, "listed") > 0 {
							listed = append(listed, m)
						}
					}
					rebuild()
				}
				var want *Host
				for i := range all {
					if m := all[(place+1+i)%len(all)]; m.Host.Up() && slices.Contains(listed, m) {
						want = m.Host
						break
					}
				}
				if want == nil {
					continue
				}
				got := pick(t, tab)
				if got != want {
					rt.Fatalf("picked host %s after host %d, want %s", got.Name(), place, want.Name())
				}
				place, _ = strconv.Atoi(got.Name())
				order = append(order, place)
			}
		})
	}
}

// When one of three hosts leaves and comes back, over and over, the others have
// the same share to a pick.
func TestB36RoundRobinIsEvenWhileAHostComesAndGoes(t *testing.T) {
	for _, scheduler := range []string{"roundr", "weightrr"} {
		for every := 1; every < 10; every++ {
			m := equal(3)
			p := Policy{Scheduler: scheduler}
			tab := table(t, p, m)
			for i := range 300 {
				if i%every == 0 {
					if !m[2].Host.MarkDown() {
						m[2].Host.MarkUp()
					}
					p.Start = tab.Next()
					tab = table(t, p, m)
				}
				pick(t, tab)
			}
			if a, b := m[0].Host.Stats().Picks, m[1].Host.Stats().Picks; a != b && a != b+1 {
				t.Errorf("%s, a change every %d picks: %d and %d picks", scheduler, every, a, b)
			}
		}
	}
}

func TestB37WeightsOfRoundRobinAreExact(t *testing.T) {
	for _, weights := range [][]int{{1}, {5, 1, 1}, {2, 2}, {10, 20, 30}, {65535, 1, 1}, {3, 0, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		sum, shared := 0, 0
		for _, w := range weights {
			sum += w
			shared = int(gcd(uint64(w), uint64(shared)))
		}
		round := sum / shared
		tab := table(t, Policy{Scheduler: "weightrr"}, members(weights...))
		got := map[string]int{}
		for range round {
			h := pick(t, tab)
			got[h.Name()]++
		}
		for i, w := range weights {
			if got[fmt.Sprint(i)] != w/shared {
				t.Errorf("weights %v: host %d was picked %d times of %d, want %d", weights, i, got[fmt.Sprint(i)], round, w/shared)
			}
		}
		// And from many goroutines, round after round.
		rounds := 8 * max(1, 20000/round)
		if round > 1000 {
			rounds = 8
		}
		for name, n := range pickMany(t, tab, rounds*round, 8) {
			var i int
			_, _ = fmt.Sscan(name, &i)
			if n != rounds*weights[i]/shared {
				t.Errorf("weights %v, 8 goroutines: host %s was picked %d times, want %d", weights, name, n, rounds*weights[i]/shared)
			}
		}
	}
}

// A host's turns are spread: no run is longer than its weight against the
// others' makes necessary, plus one; at the seam of two rounds too.
func TestWeightedRoundRobinIsSmooth(t *testing.T) {
	smooth := func(t interface{ Fatalf(string, ...any) }, weights []uint64) {
		sum, ms := uint64(0), make([]Member, len(weights))
		for i, w := range weights {
			sum += w
			ms[i] = Member{Host: NewHost("h", Addr{}), Weight: int(w)}
		}
		w := newWeightedRoundRobin(ms, new(cursor), 0).(*weightedRoundRobin)
		run, last := uint64(0), -1
		for n := range min(2*sum, 20_000) {
			i := w.at(n)
			if i == last {
				run++
			} else {
				run, last = 1, i
			}
			rest := sum - weights[i]
			if longest := (weights[i]+rest-1)/rest + 1; run > longest {
				t.Fatalf("weights %v: host %d came %d times in a row, want at most %d", weights, i, run, longest)
			}
		}
	}
	for _, weights := range [][]uint64{{912, 1, 1}, {1, 1, 4, 71}, {3, 275}, {2934, 130, 489}, {1, 1}, {3, 2, 1}, {65535, 65534}, slices.Repeat([]uint64{700, 3}, 500)} {
		smooth(t, weights)
	}
	rapid.Check(t, func(rt *rapid.T) {
		greatest := rapid.SampledFrom([]uint64{2, 5, 40, 9000}).Draw(rt, "greatest")
		smooth(rt, rapid.SliceOfN(rapid.Uint64Range(1, greatest), 2, 12).Draw(rt, "weights"))
	})
}

// Both ways to find who has the others' picks are exact for any weights, with
// a heavy host and without: each round has every host as often as its weight.
func TestB37AnyRoundIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, rapid.SampledFrom([]int{3, 300, 20_000}).Draw(rt, "greatest")), 1, 60).Draw(rt, "weights")
		ms, shared := members(weights...), uint64(0)
		for _, w := range weights {
			shared = gcd(uint64(w), shared)
		}
		w := newWeightedRoundRobin(ms, new(cursor), 0).(*weightedRoundRobin)
		from := rapid.Uint64Range(0, 1<<40).Draw(rt, "from") // a round begins anywhere
		got := make([]uint64, len(weights))
		for n := range w.round {
			got[w.at(from+n)]++
		}
		for i, n := range got {
			if n*shared != uint64(weights[i]) {
				rt.Fatalf("weights %v: host %d has %d picks of a round of %d", weights, i, n, w.round)
			}
		}
	})
}

// The greatest table there can be: nothing overflows, and neither the first
// nor the last point of the circle is lost.
func TestGreatestRound(t *testing.T) {
	weights := slices.Repeat([]uint64{MaxWeight}, maxMembers)
	weights[0]--
	size := uint64(MaxWeight)*maxMembers - 1
	c := newCircle(weights, size)
	if gcd(c.step, size) != 1 || (size-1) > math.MaxUint64/c.step {
		t.Fatalf("step %d on a circle of %d", c.step, size)
	}
	for _, n := range []uint64{0, 1, size / 2, size - 1} {
		point := n * c.step % size
		end := c.ends[c.at(n)]
		if point >= end || point+weights[c.at(n)] < end {
			t.Errorf("pick %d at point %d went to host %d, whose arc ends at %d", n, point, c.at(n), end)
		}
	}
}
