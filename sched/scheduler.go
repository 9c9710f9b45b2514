package sched

import "slices"

// builders holds every scheduler under its canonical name. Members have a
// weight above 0; there is at least one.
var builders = map[string]func(members []Member, c *cursor, seed uint64) chooser{
	"rand":     newRandom,
	"roundr":   newRoundRobin,
	"leastc":   newLeast,
	"weightr":  newWeightedRandom,
	"weightrr": newWeightedRoundRobin,
	"weightlc": newWeightedLeast,
	"p2c":      newTwoChoices,
}

// aliases are the other names that txLoadBalancer and PythonDirector used, and
// the default.
var aliases = map[string]string{
	"":             "leastc",
	"random":       "rand",
	"roundrobin":   "roundr",
	"leastconns":   "leastc",
	"leastconnsrr": "leastc",
	"lweighted":    "weightr",
}

// Names returns the canonical scheduler names, sorted.
func Names() []string {
	names := make([]string, 0, len(builders))
	for name := range builders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Canonical returns the canonical name of a scheduler or alias, and whether
// there is one. Names are matched exactly; "" is the default, leastc.
func Canonical(name string) (string, bool) {
	if long, ok := aliases[name]; ok {
		return long, true
	}
	_, ok := builders[name]
	return name, ok
}

// redraws is how many further picks a scheduler makes when it has met a host
// that is down or tried, before it takes the next one it finds. They spread
// the share of that host over all others.
const redraws = 8

// tier is what all schedulers have: hosts, and the numbers of the picks.
type tier struct {
	hosts  []*Host
	cursor *cursor
}

func newTier(members []Member, c *cursor) tier {
	t := tier{hosts: make([]*Host, len(members)), cursor: c}
	for i, m := range members {
		t.hosts[i] = m.Host
	}
	return t
}

// free tells whether h may be chosen.
func free(h *Host, tried *Tried) bool { return h.Up() && !tried.Has(h) }

// from takes the first free host at or behind index i, all around, for pick n.
func (t *tier) from(i, n uint64, tried *Tried) *Host {
	for range t.hosts {
		if i >= uint64(len(t.hosts)) {
			i = 0
		}
		if h := t.hosts[i]; free(h, tried) {
			h.take(n)
			return h
		}
		i++
	}
	return nil
}
