package sched

import (
	"math/bits"
	"slices"
)

// roundRobin takes the hosts in turn.
type roundRobin struct{ tier }

func newRoundRobin(members []Member, c *cursor, _ uint64) chooser {
	return &roundRobin{newTier(members, c)}
}

func (r *roundRobin) choose(tried *Tried) *Host {
	n := r.cursor.next()
	return r.from(n%uint64(len(r.hosts)), n, tried)
}

// A weighted round is as many picks as the sum of the weights, divided by what
// they have in common: each host is picked in it as often as its weight says,
// whoever makes the picks. Short rounds are laid out in advance; long ones are
// found on a circle.
func newWeightedRoundRobin(members []Member, c *cursor, _ uint64) chooser {
	shared, round := uint64(0), uint64(0)
	for _, m := range members {
		shared = gcd(uint64(m.Weight), shared)
	}
	weights := make([]uint64, len(members))
	for i, m := range members {
		weights[i] = uint64(m.Weight) / shared
		round += weights[i]
	}
	t := newTier(members, c)
	if round*uint64(len(members)) <= longestLayout {
		return newLaidOut(t, weights, round)
	}
	return newCircle(t, weights, round)
}

// longestLayout bounds the work, and so the size, of a round laid out in
// advance: picks times hosts.
const longestLayout = 1 << 16

// laidOut is a round as a list.
type laidOut struct {
	tier
	order []uint16 // hosts by index
}

// newLaidOut lays a round out smoothly: at each pick every host earns its
// weight, and the one that has most pays a whole round (the smooth weighted
// round robin of nginx).
func newLaidOut(t tier, weights []uint64, round uint64) *laidOut {
	l := &laidOut{t, make([]uint16, round)}
	earned := make([]int64, len(weights))
	for n := range l.order {
		best := 0
		for i, w := range weights {
			earned[i] += int64(w)
			if earned[i] > earned[best] {
				best = i
			}
		}
		earned[best] -= int64(round)
		l.order[n] = uint16(best)
	}
	return l
}

func (l *laidOut) choose(tried *Tried) *Host {
	var i, n uint64
	for range redraws {
		n = l.cursor.next()
		i = uint64(l.order[n%uint64(len(l.order))])
		if h := l.hosts[i]; free(h, tried) {
			h.take(n)
			return h
		}
	}
	return l.from(i, n, tried)
}

// circle is a round whose hosts lie on a circle, each on an arc as long as its
// weight. Pick number n lands n steps along it. A step is coprime to the
// length, so that each point is met once a round, and about the golden section
// of it, so that the visits to an arc are spread as evenly as a fixed step can
// (the three gap theorem).
type circle struct {
	tier
	ends  []uint64 // where the arc of each host ends
	first []int32  // by bucket of the circle: the host of its first point
	size  uint64   // of the circle
	step  uint64
}

func newCircle(t tier, weights []uint64, round uint64) *circle {
	w := &circle{tier: t, size: round, step: goldenStep(round)}
	end := uint64(0)
	for _, weight := range weights {
		end += weight
		w.ends = append(w.ends, end)
	}
	// One bucket a host: a look-up then searches few hosts.
	buckets := uint64(len(weights))
	w.first = make([]int32, buckets+1)
	for b := range w.first {
		i, _ := slices.BinarySearch(w.ends, uint64(b)*w.size/buckets+1)
		w.first[b] = int32(min(i, len(weights)-1))
	}
	return w
}

// goldenStep returns the number nearest to size times the golden section that
// is coprime to size.
func goldenStep(size uint64) uint64 {
	golden, _ := bits.Mul64(size, 0x9E3779B97F4A7C15) // 2^64 times 0.618…
	for d := uint64(0); ; d++ {
		if gcd(golden+d, size) == 1 {
			return (golden + d) % size
		}
		if d <= golden && gcd(golden-d, size) == 1 {
			return golden - d
		}
	}
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// at returns the host on whose arc a point lies.
func (w *circle) at(point uint64) int {
	b := point * uint64(len(w.hosts)) / w.size
	low, high := int(w.first[b]), int(w.first[b+1])
	for low < high {
		middle := (low + high) / 2
		if w.ends[middle] > point {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// redraws is how many further picks a weighted scheduler makes when it has met
// a host that is down or tried, before it takes the next one it finds.
const redraws = 8

func (w *circle) choose(tried *Tried) *Host {
	var i int
	var n uint64
	for range redraws {
		n = w.cursor.next()
		i = w.at(n % w.size * w.step % w.size)
		if h := w.hosts[i]; free(h, tried) {
			h.take(n)
			return h
		}
	}
	return w.from(uint64(i), n, tried)
}
