//go:build linux

package main

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestShort(t *testing.T) {
	for want, x := range map[string]float64{
		"0.00": 0, "0.65": 0.654, "9.99": 9.99, "10.0": 9.997, "66.1": 66.14, "100": 99.96, "9,843": 9843.4, "1,234,567": 1234567, "-1,200": -1200,
	} {
		if got := short(x); got != want {
			t.Errorf("%v gives %s, want %s", x, got, want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := range 1000 {
		d = append(d, time.Duration(1000-i))
	}
	sorted := sortedDurations(d)
	for _, test := range []struct {
		p    float64
		want time.Duration
	}{{0, 1}, {0.1, 1}, {50, 500}, {99, 990}, {99.9, 999}, {99.95, 1000}, {100, 1000}} {
		if got := percentile(sorted, test.p); got != test.want {
			t.Errorf("p%v of 1 to 1000 is %d, want %d", test.p, got, test.want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("p99 of nothing is %v", got)
	}
}

// pairsOf returns pairs of a program that takes ratio times what the other takes.
// Both are as slow as the machine is just now, and each has noise of its own.
func pairsOf(random *rand.Rand, n int, ratio float64, noise func(*rand.Rand) float64) []pair {
	var all []pair
	machine := 1.0
	for range n {
		machine *= math.Exp(0.05 * random.NormFloat64())
		all = append(all, pair{ratio * machine * noise(random), machine * noise(random)})
	}
	return all
}

// The noise of a calm machine, of one on which something else runs now and then, and
// of one that has two speeds.
var noises = map[string]func(*rand.Rand) float64{
	"calm": func(r *rand.Rand) float64 { return math.Exp(0.05 * r.NormFloat64()) },
	"disturbed": func(r *rand.Rand) float64 {
		x := math.Exp(0.05 * r.NormFloat64())
		if r.Float64() < 0.1 {
			x *= 1 + r.ExpFloat64()
		}
		return x
	},
	"two speeds": func(r *rand.Rand) float64 { return math.Exp(0.03*r.NormFloat64()) * (1 + 0.25*float64(r.IntN(2))) },
}

// A ratio that is clearly on one side of the goal is decided, and rightly.
func TestVerdictsWhereTheAnswerIsKnown(t *testing.T) {
	for name, noise := range noises {
		random := rand.New(rand.NewPCG(3, 4))
		for _, test := range []struct {
			ratio float64
			more  bool
			want  verdict
		}{{0.5, false, ahead}, {1, false, behind}, {1, true, ahead}, {0.5, true, behind}} {
			in := medianOfRatios(pairsOf(random, 16, test.ratio, noise))
			if got := in.against(0.7, test.more); got != test.want || in.n != 16 || in.low > in.middle || in.middle > in.high {
				t.Errorf("%s, ratio %v, more is better: %v: %v is %s, want %s", name, test.ratio, test.more, in, got, test.want)
			}
		}
	}
}

// Where the truth is the bound itself no verdict is right. One is given in no more
// than 5 % of cases, all looks together.
func TestLooksTogetherAreRarelyWrong(t *testing.T) {
	const cases = 60
	for name, noise := range noises {
		random := rand.New(rand.NewPCG(5, 6))
		wrong, wide := 0, 0.0
		for range cases {
			pairs := pairsOf(random, looks*usualRounds, 0.7, noise)
			given := false
			for look := 1; look <= looks; look += 2 { // 1, 3 and 5: the others lie between
				in := medianOfRatios(pairs[:look*usualRounds])
				given = given || in.against(0.7, false) != undecided
				wide = (in.high - in.low) / in.middle
			}
			if given {
				wrong++
			}
		}
		// One more than expected is chance; the draws are the same each time.
		if wrong > cases/20+1 {
			t.Errorf("%s: %d of %d verdicts are chance", name, wrong, cases)
		}
		if wide > 0.3 {
			t.Errorf("%s: after all looks the interval is still %.2f wide", name, wide)
		}
	}
}

// An estimate that has no value for some draws is open at both ends.
func TestNoBaseNoVerdict(t *testing.T) {
	var pairs []pair
	for i := range 16 {
		pairs = append(pairs, pair{1, float64(i%2)*4 - 2}) // as often below zero as above
	}
	if in := ratioOfMedians(pairs); in.against(1, false) != undecided || !math.IsInf(in.high, 1) {
		t.Errorf("%+v", in)
	}
	for i := range pairs {
		pairs[i] = pair{-1, 2} // less than no proxy: noise, but better than 2
	}
	if in := ratioOfMedians(pairs); in.against(1, false) != ahead {
		t.Errorf("%+v", in)
	}
}

func TestFewSlicesDecideNothing(t *testing.T) {
	for n := range fewest {
		in := bootstrap(make([]float64, n), median)
		if in.against(1, false) != undecided || in.n != n {
			t.Errorf("%d slices: %+v", n, in)
		}
	}
	if in := extremes([]float64{0.38, 0.36}); in.against(0.4, false) != undecided || in.n != 2 {
		t.Errorf("two counts: %v", in)
	}
	if in := extremes([]float64{0.38, 0.36, 0.37}); in.against(0.4, false) != ahead || in.String() != "0.36–0.38" {
		t.Errorf("counts: %v", in)
	}
	if nothing().String() != "–" || (interval{middle: 2, low: math.Inf(-1), high: math.Inf(1), n: 1}).String() != "2.00" {
		t.Error("how intervals without bounds are written")
	}
}

// The same data give the same interval.
func TestBootstrapRepeats(t *testing.T) {
	pairs := pairsOf(rand.New(rand.NewPCG(1, 1)), 20, 0.7, noises["calm"])
	if a, b := medianOfRatios(pairs), medianOfRatios(pairs); a != b {
		t.Errorf("%v and %v", a, b)
	}
}
