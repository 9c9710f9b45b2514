package sched

import "math/bits"

// noise turns the number of a pick into 64 random bits: SplitMix64 (Steele,
// Lea and Flood, 2014), whose n-th output depends on the seed and n alone, so
// that no state but the table's cursor is shared.
func noise(seed, n uint64) uint64 {
	z := seed + (n+1)*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// below maps random bits to a number below n, and returns fresh bits.
func below(bitsOf, n uint64) (number, rest uint64) { return bits.Mul64(bitsOf, n) }

// random takes any host with the same chance.
type random struct {
	tier
	seed uint64
}

func newRandom(members []Member, c *cursor, seed uint64) chooser {
	return &random{newTier(members, c), seed}
}

func (r *random) choose(tried *Tried) *Host {
	var i, n uint64
	for range redraws {
		n = r.cursor.next()
		i, _ = below(noise(r.seed, n), uint64(len(r.hosts)))
		if h := r.hosts[i]; free(h, tried) && h.claim(n) {
			return h
		}
	}
	return r.from(i, n, tried)
}

// weightedRandom takes each host with a chance in proportion to its weight, by
// the alias method (Walker, 1977; Vose, 1991) in whole numbers: column i is
// host i below its mark and another host above it.
type weightedRandom struct {
	tier
	seed  uint64
	total uint64   // sum of the weights: the height of a column
	mark  []uint64 // 0 to total
	other []int32
}

func newWeightedRandom(members []Member, c *cursor, seed uint64) chooser {
	n := len(members)
	w := &weightedRandom{tier: newTier(members, c), seed: seed, mark: make([]uint64, n), other: make([]int32, n)}
	var small, large []int32
	for _, m := range members {
		w.total += uint64(m.Weight)
	}
	for i, m := range members {
		w.mark[i] = uint64(m.Weight) * uint64(n)
		w.other[i] = int32(i)
		if w.mark[i] < w.total {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	// Fill each low column up from a high one. The sums are exact, so what is
	// left at the end is exactly full.
	for len(small) > 0 && len(large) > 0 {
		low, high := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		w.other[low] = high
		w.mark[high] -= w.total - w.mark[low]
		if w.mark[high] < w.total {
			large = large[:len(large)-1]
			small = append(small, high)
		}
	}
	return w
}

// draw maps random bits to a host.
func (w *weightedRandom) draw(bits uint64) uint64 {
	i, rest := below(bits, uint64(len(w.hosts)))
	if height, _ := below(rest, w.total); height >= w.mark[i] {
		return uint64(w.other[i])
	}
	return i
}

func (w *weightedRandom) choose(tried *Tried) *Host {
	var i, n uint64
	for range redraws {
		n = w.cursor.next()
		i = w.draw(noise(w.seed, n))
		if h := w.hosts[i]; free(h, tried) && h.claim(n) {
			return h
		}
	}
	return w.from(i, n, tried)
}

// twoChoices draws two hosts by weight and takes the one with fewer sessions for
// its weight (Mitzenmacher, 2001). Of equals it takes the first, so that hosts
// without sessions are picked by weight too.
type twoChoices struct {
	weightedRandom
	weights []uint64
}

func newTwoChoices(members []Member, c *cursor, seed uint64) chooser {
	p := &twoChoices{*newWeightedRandom(members, c, seed).(*weightedRandom), make([]uint64, len(members))}
	for i, m := range members {
		p.weights[i] = uint64(m.Weight)
	}
	return p
}

func (p *twoChoices) choose(tried *Tried) *Host {
	n, i, j := p.pair()
	if i != j {
		a, b := p.hosts[i], p.hosts[j]
		if !free(a, tried) || free(b, tried) && p.lessLoaded(j, i) {
			return p.take(n, i, b, tried)
		}
	}
	return p.take(n, i, p.hosts[i], tried)
}

// pair returns the number of a pick and the two hosts that were drawn for it, which are the
// same only if there is one host.
func (p *twoChoices) pair() (n, i, j uint64) {
	size := uint64(len(p.hosts))
	n = p.cursor.next()
	i = p.draw(noise(p.seed, n))
	if size == 1 {
		return n, i, i
	}
	bits := noise(^p.seed, n)
	if j = p.draw(bits); j == i { // any other host, each with the same chance
		j, _ = below(noise(bits, n), size-1)
		if j >= i {
			j++
		}
	}
	return n, i, j
}

// take counts pick n on a host or, if that is not free, on the next one from i on that is.
func (p *twoChoices) take(n, i uint64, h *Host, tried *Tried) *Host {
	if !free(h, tried) || !h.claim(n) {
		return p.from(i, n, tried)
	}
	return h
}

// lessLoaded tells whether host i has fewer sessions for its weight than host j.
func (p *twoChoices) lessLoaded(i, j uint64) bool {
	_, mine := p.hosts[i].load()
	_, theirs := p.hosts[j].load()
	return mine*p.weights[j] < theirs*p.weights[i]
}
