//go:build linux

package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// spread is what several rounds gave.
type spread struct {
	median, low, high float64
	rounds            int
}

// spreadOf summarises values; the zero spread stands for none.
func spreadOf(values []float64) spread {
	n := len(values)
	if n == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	return spread{median: (v[(n-1)/2] + v[n/2]) / 2, low: v[0], high: v[n-1], rounds: n}
}

// String gives the median and, after several rounds, the extremes.
func (s spread) String() string {
	switch {
	case s.rounds == 0:
		return "–"
	case s.rounds == 1 || math.IsNaN(s.low):
		return short(s.median)
	}
	return short(s.median) + " (" + short(s.low) + "–" + short(s.high) + ")"
}

// short writes three digits, or all that stand before the point, with commas.
func short(x float64) string {
	switch a := math.Abs(x); {
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

// values returns a figure of one workload and peer by round, where it was
// measured.
func (r *results) values(w workload, f figure, peer string) map[int]float64 {
	v := map[int]float64{}
	for _, s := range r.samples {
		if s.workload == w.name && s.peer == peer {
			if x := f.of(s); !math.IsNaN(x) {
				v[s.round] = x
			}
		}
	}
	return v
}

// spread returns the spread of a figure over the rounds.
func (r *results) spread(w workload, f figure, peer string) spread {
	var list []float64
	for _, v := range r.values(w, f, peer) {
		list = append(list, v)
	}
	return spreadOf(list)
}

// ratio returns the spread of the ratio of two peers, formed within each
// round, so that a machine that is slower in one round than in another does
// not blur it.
func (r *results) ratio(w workload, f figure, peer, reference string) spread {
	var list []float64
	base := r.values(w, f, reference)
	for round, v := range r.values(w, f, peer) {
		if b, ok := base[round]; ok && b != 0 {
			list = append(list, v/b)
		}
	}
	return spreadOf(list)
}

func (r *results) best(w workload, f figure) string { return bestOf(r, r.peers, w, f) }

// bestOf returns the rival with the best median of a figure, "" if no rival was
// measured.
func bestOf(m measured, peers []peer, w workload, f figure) string {
	name, best := "", 0.0
	for _, p := range peers {
		if !p.rival {
			continue
		}
		s := m.spread(w, f, p.name)
		if s.rounds == 0 {
			continue
		}
		if name == "" || f.more && s.median > best || !f.more && s.median < best {
			name, best = p.name, s.median
		}
	}
	return name
}
