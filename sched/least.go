package sched

const (
	// lookAtAll is the largest number of hosts of which leastc and weightlc look at
	// each.
	lookAtAll = 64
	// sample is how many random ones they look at beyond that.
	sample = 8
	// contended is how often they look again when another loop was faster,
	// before they take the best they saw anyway. Each time at least one loop has
	// got its host, so 64 loops that pick at the same moment all get the best.
	contended = 64
)

// least takes the host with the least sessions for its weight; of equals, the
// one that was unused the longest. leastc is the same with equal weights. A loop
// whose host another has just taken takes any of equals, by the number of its pick:
// the loops would all take the same one again, and only one would get it.
type least struct {
	tier
	seed   uint64
	places []place
}

// place is a host with its weight, by which its sessions are divided.
type place struct {
	host   *Host
	weight uint64
}

func newLeast(members []Member, c *cursor, seed uint64) chooser {
	l := &least{newTier(members, c), seed, make([]place, len(members))}
	for i, m := range members {
		l.places[i] = place{m.Host, 1}
	}
	return l
}

func newWeightedLeast(members []Member, c *cursor, seed uint64) chooser {
	l := &least{newTier(members, c), seed, make([]place, len(members))}
	for i, m := range members {
		l.places[i] = place{m.Host, uint64(m.Weight)}
	}
	return l
}

func (l *least) choose(tried *Tried) *Host {
	var best *Host
	var n uint64
	for lost := range contended {
		var active uint64
		n = l.cursor.next()
		best, active = l.look(n, lost, tried)
		if best == nil {
			return l.from(n%uint64(len(l.hosts)), n, tried)
		}
		// Take it only if no other loop has meanwhile: two loops that saw the same host
		// as the best must not both give it a session.
		if best.takeIf(active, n) {
			return best
		}
	}
	if !best.claim(n) {
		return l.from(n%uint64(len(l.hosts)), n, tried)
	}
	return best
}

// look returns the best host for pick n, which was lost to other loops so often, and how
// many sessions the host has.
func (l *least) look(n uint64, lost int, tried *Tried) (best *Host, active uint64) {
	switch {
	case len(l.places) > lookAtAll:
		var drawn [sample]place
		l.draw(&drawn, n)
		return leastOf(drawn[:], 0, false, tried)
	case lost > 0:
		return leastOf(l.places, int(n%uint64(len(l.places))), true, tried)
	}
	return leastOf(l.places, 0, false, tried)
}

// leastOf returns the best of the places' hosts that are free, nil without one,
// and how many sessions it had when it was seen. Of equals it takes the first from place
// number from on, or the one unused the longest.
func leastOf(places []place, from int, first bool, tried *Tried) (*Host, uint64) {
	var best *place
	active, weight, used := uint64(1), uint64(0), uint64(0) // a session for no weight: more than any host has
	next := from
	for range places {
		p := &places[next]
		if next++; next == len(places) {
			next = 0
		}
		if !free(p.host, tried) {
			continue
		}
		_, a := p.host.load()
		// a/p.weight against active/weight, without a division.
		mine, theirs := a*weight, active*p.weight
		if mine > theirs || first && mine == theirs {
			continue
		}
		u := p.host.lastUse.Load()
		if mine == theirs && u >= used {
			continue
		}
		best, active, weight, used = p, a, p.weight, u
	}
	if best == nil {
		return nil, 0
	}
	return best.host, active
}

// draw fills in a random choice of the places.
func (l *least) draw(drawn *[sample]place, n uint64) {
	size := uint64(len(l.places))
	a, b := noise(l.seed, n), noise(^l.seed, n)
	for k := range sample / 2 { // 64 random bits are enough for four of at most 1<<16 places
		var i, j uint64
		i, a = below(a, size)
		j, b = below(b, size)
		drawn[2*k], drawn[2*k+1] = l.places[i], l.places[j]
	}
}
