//go:build linux

package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How verdicts are made. A comparison is looked at after each visit, and visited
// no more than looks times. Every look has an interval of this confidence, so that
// all of them together are wrong in no more than 5 % of cases (Bonferroni), however
// they depend on each other.
const (
	looks      = 5
	confidence = 1 - 0.05/looks
	fewest     = 6 // pairs; of fewer no interval is formed
	resamples  = 2000
)

// interval is an estimate and the bounds of what it may be.
type interval struct {
	middle, low, high float64
	n                 int // slices or pairs of slices that it was made of
}

// nothing is the interval of no data.
func nothing() interval {
	return interval{middle: math.NaN(), low: math.Inf(-1), high: math.Inf(1)}
}

// bootstrap estimates something of a sample and, from samples drawn of it with
// replacement, an interval of it. The estimate may reorder what it is given. It is
// a function of its arguments alone: the draws have a fixed seed. A draw whose
// estimate is NaN widens the interval at both ends.
func bootstrap[T any](sample []T, estimate func([]T) float64) interval {
	n := len(sample)
	if n == 0 {
		return nothing()
	}
	draw := slices.Clone(sample)
	in := interval{middle: estimate(draw), low: math.Inf(-1), high: math.Inf(1), n: n}
	if n < fewest {
		return in
	}
	random := rand.New(rand.NewPCG(1, 2))
	low, high := make([]float64, resamples), make([]float64, resamples)
	for i := range resamples {
		for k := range draw {
			draw[k] = sample[random.IntN(n)]
		}
		e := estimate(draw)
		low[i], high[i] = e, e
		if math.IsNaN(e) {
			low[i], high[i] = math.Inf(-1), math.Inf(1)
		}
	}
	slices.Sort(low)
	slices.Sort(high)
	cut := int(tail(n) * resamples)
	in.low, in.high = low[cut], high[resamples-1-cut]
	return in
}

// tail returns the share of draws to leave out at each end. Percentiles of few
// values lie too close together: with n values they have to be taken as far out as
// Student's distribution has it ("expanded percentiles", T. Hesterberg, What
// Teachers Should Know about the Bootstrap, 2015).
func tail(n int) float64 {
	const z = 2.5758 // of the normal distribution, for 99 %
	v := float64(n - 1)
	// Student's quantile by the first three terms of its expansion in 1/v.
	t := z + (z*z*z+z)/(4*v) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*v*v)
	t *= math.Sqrt(float64(n) / v)
	return math.Erfc(t/math.Sqrt2) / 2
}

// pair is what two programs took in one round.
type pair struct{ ours, other float64 }

// medianOfRatios is the usual comparison. A slice that something has disturbed
// moves a ratio of sums as far as it is long; the median it moves by one place.
func medianOfRatios(pairs []pair) interval {
	var ratios []float64
	for _, p := range pairs {
		if r := p.ours / p.other; !math.IsNaN(r) && !math.IsInf(r, 0) {
			ratios = append(ratios, r)
		}
	}
	return bootstrap(ratios, median)
}

// ratioOfMedians compares what may be zero or less in a slice, so that the slice
// has no ratio: what is left of a latency without that of no proxy.
func ratioOfMedians(pairs []pair) interval {
	a, b := make([]float64, len(pairs)), make([]float64, len(pairs))
	return bootstrap(pairs, func(draw []pair) float64 {
		for i, p := range draw {
			a[i], b[i] = p.ours, p.other
		}
		if other := median(b); other > 0 {
			return median(a) / other
		}
		return math.NaN()
	})
}

// extremes is the interval of what is counted, not timed: it repeats, or nearly. Of
// fewer than three values none is formed.
func extremes(values []float64) interval {
	in := nothing()
	in.middle, in.n = median(slices.Clone(values)), len(values)
	if in.n >= 3 {
		in.low, in.high = slices.Min(values), slices.Max(values)
	}
	return in
}

// median sorts the values; no number if there are none.
func median(v []float64) float64 {
	n := len(v)
	if n == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// verdict is what an interval says about a bound.
type verdict string

const (
	ahead     verdict = "ahead"     // the goal is reached
	behind    verdict = "behind"    // it is missed
	undecided verdict = "undecided" // the interval contains the bound
	// outOfReach is behind or undecided where the bare relay is behind: no proxy that
	// works as these do can reach the goal on this kernel.
	outOfReach verdict = "out of reach"
)

// against holds an interval against a bound, which what counts may not exceed or,
// where more is better, has to reach.
func (in interval) against(bound float64, more bool) verdict {
	switch {
	case more && in.low >= bound, !more && in.high <= bound:
		return ahead
	case more && in.high < bound, !more && in.low > bound:
		return behind
	}
	return undecided
}

// String writes the bounds, or the estimate where there are none.
func (in interval) String() string {
	switch {
	case in.n == 0:
		return "–"
	case math.IsInf(in.low, 0) || math.IsInf(in.high, 0), in.low == in.high:
		return short(in.middle)
	}
	return short(in.low) + "–" + short(in.high)
}

// short writes three digits, or all that stand before the point, with commas.
func short(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "–"
	case a < 9.995:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(math.Abs(x), 'f', 0, 64)
	var b strings.Builder
	if x < 0 {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// sortedDurations returns a sorted copy.
func sortedDurations(d []time.Duration) []time.Duration {
	return slices.Sorted(slices.Values(d))
}

// percentile returns the smallest of sorted values that at least p of 100 of
// them do not exceed; 0 of none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	// The subtraction keeps 99.9 % of 1000, which is a little more than 999
	// in binary, from being the last.
	rank := int(math.Ceil(p*float64(n)/100 - 1e-9))
	return sorted[min(n, max(1, rank))-1]
}
