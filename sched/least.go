package sched

const (
	// lookAtAll is up to how many hosts leastc and weightlc look at each.
	lookAtAll = 64
	// sample is how many random ones they look at beyond that.
	sample = 8
	// contended is how often they look again when another loop was faster,
	// before they take what they saw last.
	contended = 16
)

// least takes the host with the least sessions for its weight, counting the
// one that is to be placed; of equals, the one that was unused the longest.
// leastc is the same with equal weights.
type least struct {
	tier
	seed    uint64
	weights []int64
}

func newLeast(members []Member, c *cursor, seed uint64) chooser {
	l := &least{newTier(members, c), seed, make([]int64, len(members))}
	for i := range l.weights {
		l.weights[i] = 1
	}
	return l
}

func newWeightedLeast(members []Member, c *cursor, seed uint64) chooser {
	l := &least{newTier(members, c), seed, make([]int64, len(members))}
	for i, m := range members {
		l.weights[i] = int64(m.Weight)
	}
	return l
}

// candidate is the best host seen so far.
type candidate struct {
	host   *Host
	active int64
	used   uint64
	weight int64
}

// consider replaces the candidate if host i is better.
func (l *least) consider(best *candidate, i int, tried *Tried) {
	h := l.hosts[i]
	if !free(h, tried) {
		return
	}
	active, used, weight := h.active.Load(), h.lastUse.Load(), l.weights[i]
	if best.host != nil {
		mine, theirs := (active+1)*best.weight, (best.active+1)*weight
		if mine > theirs || mine == theirs && used >= best.used {
			return
		}
	}
	*best = candidate{h, active, used, weight}
}

func (l *least) choose(tried *Tried) *Host {
	n := l.cursor.next()
	for range contended {
		var best candidate
		if len(l.hosts) <= lookAtAll {
			for i := range l.hosts {
				l.consider(&best, i, tried)
			}
		} else {
			r := noise(l.seed, n)
			for range sample {
				var i uint64
				i, r = below(r, uint64(len(l.hosts)))
				r = noise(r, n)
				l.consider(&best, int(i), tried)
			}
			if best.host == nil {
				i, _ := below(r, uint64(len(l.hosts)))
				return l.from(i, n, tried)
			}
		}
		if best.host == nil {
			return nil
		}
		// Take it only if nobody else has meanwhile: two loops that saw the
		// same host as the best must not both place a session on it.
		if best.host.takeIf(best.active, n+1) {
			return best.host
		}
		n = l.cursor.next()
	}
	return l.from(n%uint64(len(l.hosts)), n+1, tried)
}
