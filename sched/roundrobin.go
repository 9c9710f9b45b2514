package sched

import (
	"math/bits"
	"slices"
)

// roundRobin takes the hosts in turn.
type roundRobin struct{ tier }

func newRoundRobin(members []Member, c *cursor, _ uint64) chooser {
	r := &roundRobin{newTier(members, c)}
	r.follow(r.at)
	return r
}

// at returns the host whose turn pick n is.
func (r *roundRobin) at(n uint64) int { return int(n % uint64(len(r.hosts))) }

// A host that is down loses its turn, and the pick takes the next number, so that
// its neighbour does not get two shares until the table is rebuilt.
func (r *roundRobin) choose(tried *Tried) *Host {
	var n uint64
	for range redraws {
		n = r.cursor.next()
		if h := r.hosts[r.at(n)]; free(h, tried) && h.claim(n) {
			return h
		}
	}
	return r.from(uint64(r.at(n)), n, tried)
}

// follow sets the cursor to the turn after one of the host that was picked last. So
// a new table continues with the next host, whichever hosts have left or come back.
// Each round of at has each host once.
func (t *tier) follow(at func(n uint64) int) {
	n := t.cursor.n.Load() // beyond the last use of every host
	if n == 0 {
		return
	}
	last, used := len(t.hosts)-1, uint64(0)
	for i, h := range t.hosts {
		if u := h.lastUse.Load(); u > used {
			last, used = i, u
		}
	}
	for at(n-1) != last {
		n++
	}
	t.cursor.n.Store(n)
}

// weightedRoundRobin goes by rounds. A round is as many picks as the sum of the
// weights, divided by their greatest common divisor. In a round each host is picked
// as often as its weight says, whichever loops pick.
//
// A host with half the round or more is heavy. The others are then spread over
// the round as evenly as whole numbers allow, and the heavy host has the rest:
// no two others follow each other, and no run of the heavy one is longer than
// its weight over theirs, rounded up. Without a heavy host no run is longer
// than two.
//
// A new table continues at the same number: any stretch of a round is about right
// for the weights, so a change costs a host no more than a pick or two. Hosts of
// equal weight are taken in turn, as roundr does, and a new table continues with
// the next host, as roundr does.
type weightedRoundRobin struct {
	tier
	round  uint64
	heavy  int    // index, or -1
	others uint64 // picks of a round that are not the heavy host's
	// Which of the others has a pick: a list if they are few, else a circle.
	list   []uint16
	circle *circle
}

func newWeightedRoundRobin(members []Member, c *cursor, _ uint64) chooser {
	shared := uint64(0)
	for _, m := range members {
		shared = gcd(uint64(m.Weight), shared)
	}
	w := &weightedRoundRobin{tier: newTier(members, c), heavy: -1}
	weights := make([]uint64, len(members))
	for i, m := range members {
		weights[i] = uint64(m.Weight) / shared
		w.round += weights[i]
	}
	for i, weight := range weights {
		if 2*weight >= w.round {
			w.heavy, weights[i] = i, 0
			break
		}
	}
	for _, weight := range weights {
		w.others += weight
	}
	if w.others*uint64(len(members)) <= longestLayout {
		w.list = layOut(weights, w.others)
	} else {
		w.circle = newCircle(weights, w.others)
	}
	if w.round == uint64(len(members)) {
		w.follow(w.at) // equal weights: the hosts in turn
	}
	return w
}

func (w *weightedRoundRobin) choose(tried *Tried) *Host {
	var i int
	var n uint64
	for range redraws {
		n = w.cursor.next()
		i = w.at(n)
		if h := w.hosts[i]; free(h, tried) && h.claim(n) {
			return h
		}
	}
	return w.from(uint64(i), n, tried)
}

// at returns the host whose turn pick n is.
func (w *weightedRoundRobin) at(n uint64) int {
	n %= w.round
	if w.heavy >= 0 {
		before := n * w.others / w.round
		if before == (n+1)*w.others/w.round {
			return w.heavy
		}
		n = before
	}
	if w.circle != nil {
		return w.circle.at(n)
	}
	return int(w.list[n])
}

// longestLayout bounds the work, and so the size, of a round that is laid out
// in advance: picks times hosts.
const longestLayout = 1 << 16

// layOut lists the hosts of a round smoothly: at each pick every host earns
// its weight, and the one that has most pays a whole round (the smooth
// weighted round robin of nginx).
func layOut(weights []uint64, round uint64) []uint16 {
	list := make([]uint16, round)
	earned := make([]int64, len(weights))
	for n := range list {
		best := 0
		for i, w := range weights {
			earned[i] += int64(w)
			if earned[i] > earned[best] {
				best = i
			}
		}
		earned[best] -= int64(round)
		list[n] = uint16(best)
	}
	return list
}

// circle is a round whose hosts lie on a circle, each on an arc as long as its
// weight. Pick number n lands n steps along it. A step is coprime to the
// length, so that each point is met once a round, and about the golden section
// of it, so that the visits to an arc are spread as evenly as a fixed step can
// (the three gap theorem).
type circle struct {
	size uint64
	step uint64
	ends []uint64 // where the arc of each host ends
	// first says for each bucket of 1<<shift points whose arc the bucket's
	// first point is on. There are about as many buckets as hosts.
	first []int32
	shift int
}

func newCircle(weights []uint64, size uint64) *circle {
	c := &circle{size: size, step: goldenStep(size), ends: make([]uint64, len(weights))}
	end := uint64(0)
	for i, weight := range weights {
		end += weight
		c.ends[i] = end
	}
	c.shift = max(0, bits.Len64(size/uint64(len(weights)))-1)
	host := 0
	for point := uint64(0); point < size; point += 1 << c.shift {
		for c.ends[host] <= point {
			host++
		}
		c.first = append(c.first, int32(host))
	}
	c.first = append(c.first, int32(len(weights)-1))
	return c
}

// at returns the host on whose arc n steps end. n is below the size.
func (c *circle) at(n uint64) int {
	point := n * c.step % c.size
	bucket := point >> c.shift
	low, high := int(c.first[bucket]), int(c.first[bucket+1])
	i, _ := slices.BinarySearch(c.ends[low:high], point+1)
	return low + i
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
