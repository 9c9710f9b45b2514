package sched

import (
	"fmt"
	"math"
	"testing"
)

func TestB37WeightsOfRandomAreRight(t *testing.T) {
	const picks = 200_000
	for scheduler, weights := range map[string][]int{
		"weightr": {1, 2, 3, 10, 100, 1000, 0, 7},
		"rand":    {1, 1, 1, 1, 1, 1, 1, 1},
		"p2c":     {1, 2, 3, 10, 100, 1000, 0, 7}, // each session ends before the next pick
	} {
		sum := 0
		for _, w := range weights {
			sum += w
		}
		got := pickMany(t, table(t, Policy{Scheduler: scheduler, Seed: 42}, members(weights...)), picks, 1)
		chi := 0.0
		for i, w := range weights {
			n := got[fmt.Sprint(i)]
			if w == 0 {
				if n != 0 {
					t.Errorf("%s: host %d of weight 0 was picked", scheduler, i)
				}
				continue
			}
			want := float64(picks) * float64(w) / float64(sum)
			chi += math.Pow(float64(n)-want, 2) / want
		}
		// Seven degrees of freedom: 24.3 is passed once in a thousand seeds.
		if chi > 24.3 {
			t.Errorf("%s: chi-square is %.1f: %v", scheduler, chi, got)
		}
	}
}

func TestSeedFixesTheSequence(t *testing.T) {
	for _, scheduler := range []string{"rand", "weightr", "p2c"} {
		draw := func(seed uint64) (s string) {
			tab := table(t, Policy{Scheduler: scheduler, Seed: seed}, equal(9))
			for range 50 {
				s += pick(t, tab).Name()
			}
			return s
		}
		if first, again, other := draw(1), draw(1), draw(2); first != again || first == other {
			t.Errorf("%s: the seed does not fix the sequence", scheduler)
		}
		if first, second := draw(0), draw(0); first == second {
			t.Errorf("%s: without a seed two tables give the same sequence", scheduler)
		}
	}
}

// With two hosts the two choices are both of them, so the sessions they have
// are in proportion to their weights.
func TestTwoChoicesPrefersTheLessLoaded(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {3, 1}, {1, 9}} {
		m := members(weights...)
		tab := table(t, Policy{Scheduler: "p2c", Seed: 1}, m)
		for range 1000 {
			pick(t, tab)
		}
		want := int64(1000 * weights[0] / (weights[0] + weights[1]))
		if got := m[0].Host.Stats().Active; got < want-1 || got > want+1 {
			t.Errorf("weights %v: %d of 1000 sessions are on the first host, want %d", weights, got, want)
		}
	}
}

// Among many hosts the sessions that stay are near the weights, and those that
// end at once are spread by weight within chance.
func TestTwoChoicesFollowsTheWeights(t *testing.T) {
	m := members(1, 2, 3, 4, 10, 20, 60, 0)
	tab := table(t, Policy{Scheduler: "p2c", Seed: 3}, m)
	for range 10_000 {
		pick(t, tab)
	}
	for _, m := range m {
		want := float64(m.Weight) * 100
		if got := float64(m.Host.Stats().Active); math.Abs(got-want) > max(10, want/20) {
			t.Errorf("host of weight %d has %v sessions, want about %v", m.Weight, got, want)
		}
	}
}
