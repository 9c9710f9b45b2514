package sched

// ewma draws two hosts by weight, as p2c does, and takes the one where the next session has
// less to wait for: its sessions for its weight, and one more, times the peak of its
// turnarounds. A host that has become slow is avoided at its first slow answer, and asked again
// when its peak has fallen. The one more is of the mean weight, so that of two idle hosts with
// the same peak none is preferred: the draw has seen to the weights.
//
// A host without turnarounds, because it is new or has come back, counts as being like the
// other one, but with its sessions squared. So a burst does not herd onto it: while it has not
// answered, it gets about the square root of what the others have. A penalty without an end
// would starve it where clients connect and then say nothing for long.
type ewma struct {
	twoChoices
	peaks []*peak
	parts []float64 // that a session is of a host: 1/weight
	more  float64   // 1/the mean weight
}

func newEWMA(members []Member, c *cursor, seed uint64) chooser {
	e := &ewma{
		twoChoices: *newTwoChoices(members, c, seed).(*twoChoices),
		peaks:      make([]*peak, len(members)), parts: make([]float64, len(members)),
	}
	e.more = float64(len(members)) / float64(e.total)
	for i, m := range members {
		e.parts[i] = 1 / float64(m.Weight)
		for e.peaks[i] == nil {
			m.Host.SetPeak(true)
			e.peaks[i] = m.Host.peak.Load()
		}
	}
	return e
}

func (e *ewma) choose(tried *Tried) *Host {
	n, i, j := e.pair()
	if i != j {
		a, b := e.hosts[i], e.hosts[j]
		if !free(a, tried) || free(b, tried) && e.lessToWait(j, i) {
			return e.take(n, i, b, tried)
		}
	}
	return e.take(n, i, e.hosts[i], tried)
}

// lessToWait tells whether the next session has less to wait for on host i than on host j.
func (e *ewma) lessToWait(i, j uint64) bool {
	now := peakClock()
	_, a := e.hosts[i].load()
	_, b := e.hosts[j].load()
	mine, theirs := float64(a)*e.parts[i]+e.more, float64(b)*e.parts[j]+e.more
	switch p, q := e.peaks[i].at(now), e.peaks[j].at(now); {
	case p != 0 && q != 0:
		mine, theirs = mine*float64(p), theirs*float64(q)
	case p != 0:
		theirs *= theirs / e.more
	case q != 0:
		mine *= mine / e.more
	}
	return mine < theirs
}
