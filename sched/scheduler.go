package sched

import (
	"slices"
	"strings"
)

// scheduler is one row of the table of schedulers. A new one is a file with its
// chooser and a row here.
type scheduler struct {
	name    string   // canonical
	aliases []string // as txLoadBalancer and PythonDirector named it
	picks   string   // whom it picks, for people
	equals  string   // whom of equals
	// kin is the scheduler that is the same with equal weights, "" for one that
	// obeys weights itself.
	kin string
	// peaks tells that it looks at Host.Peak.
	peaks bool
	// build makes the chooser of a tier. Members have a weight above 0; there is
	// at least one. nil: a consistent scheduler, which newMaglev makes.
	build func(members []Member, c *cursor, seed uint64) chooser
}

// Default is the scheduler of a group that names none.
const Default = "leastc"

// schedulers holds them all, the default first.
var schedulers = [...]scheduler{
	{
		name: "leastc", aliases: []string{"leastconns", "leastconnsrr"}, kin: "weightlc", build: newLeast,
		picks: "the host with the fewest sessions", equals: "the longest unused",
	},
	{
		name: "roundr", aliases: []string{"roundrobin"}, kin: "weightrr", build: newRoundRobin,
		picks: "each host in turn, exactly, whatever the number of loops",
	},
	{name: "rand", aliases: []string{"random"}, kin: "weightr", build: newRandom, picks: "any host"},
	{name: "weightr", aliases: []string{"lweighted"}, build: newWeightedRandom, picks: "any host, in proportion to the weights"},
	{name: "weightrr", build: newWeightedRoundRobin, picks: "each host as often as its weight says, in every round, smoothly"},
	{name: "weightlc", build: newWeightedLeast, picks: "the host with the fewest sessions for its weight", equals: "the longest unused"},
	{
		name: "p2c", build: newTwoChoices, equals: "the first drawn, so by weight",
		picks: "two random hosts, drawn by weight: the one with fewer sessions for its weight",
	},
	{
		name: "ewma", build: newEWMA, equals: "the first drawn, so by weight", peaks: true,
		picks: "two random hosts, drawn by weight: the one where sessions times the moving average of turnarounds is less, for its weight",
	},
	{name: "maglev", picks: "the same host for the same client address, in proportion to the weights (consistent hashing)"},
}

// sticking behind a scheduler's name makes clients come back to their hosts.
const sticking = ",sticky"

// Names returns the canonical scheduler names, the default first.
func Names() []string {
	names := make([]string, len(schedulers))
	for i := range schedulers {
		names[i] = schedulers[i].name
	}
	return names
}

// Aliases returns the other names that schedulers are known by.
func Aliases() []string {
	var names []string
	for i := range schedulers {
		names = append(names, schedulers[i].aliases...)
	}
	return names
}

// Choices returns all that a group's scheduler may be: the canonical names, then the
// same with ",sticky".
func Choices() []string {
	list := Names()
	for _, name := range list {
		list = append(list, name+sticking)
	}
	return list
}

// IsSticky tells whether a scheduler's clients come back to the hosts that they had.
func IsSticky(name string) bool { return strings.HasSuffix(name, sticking) }

// Canonical returns the canonical name of a scheduler or alias, which ",sticky" may
// follow, and whether there is one. Names are matched exactly; "" is the default. Any
// "custom:NAME" is canonical, see [CustomName].
func Canonical(name string) (string, bool) {
	if _, own := CustomName(name); own {
		return name, true
	}
	base, sticky := strings.CutSuffix(name, sticking)
	s := find(base)
	switch {
	case s == nil || sticky && base == "":
		return "", false
	case sticky:
		return s.name + sticking, true
	}
	return s.name, true
}

// Weighted returns the scheduler that does the same as name when all weights are
// equal, and obeys weights when they are not. If name obeys weights, it is name
// itself and same is true.
func Weighted(name string) (weighted string, same bool) {
	base, sticky := strings.CutSuffix(name, sticking)
	if s := find(base); s != nil && s.kin != "" {
		if sticky {
			return s.kin + sticking, false
		}
		return s.kin, false
	}
	return name, true
}

// Peaks tells whether a scheduler looks at turnarounds, see [Host.Peak].
func Peaks(name string) bool {
	s := find(strings.TrimSuffix(name, sticking))
	return s != nil && s.peaks
}

// Describe returns the aliases of a scheduler and says whom it picks, and whom
// of equals.
func Describe(name string) (aliases []string, picks, equals string) {
	if s := find(name); s != nil {
		return s.aliases, s.picks, s.equals
	}
	return nil, "", ""
}

// find returns the row of a name or alias, nil if there is none.
func find(name string) *scheduler {
	if name == "" {
		name = Default
	}
	for i := range schedulers {
		if s := &schedulers[i]; s.name == name || slices.Contains(s.aliases, name) {
			return s
		}
	}
	return nil
}

// redraws is how many further draws a scheduler makes after a host that is down or
// tried, before it takes the next free one. They spread the share of that host over
// all others.
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
func free(h *Host, tried *Tried) bool { return h.Up() && !h.full() && !tried.Has(h) }

// from takes the first free host at or behind index i, all around, for pick n.
func (t *tier) from(i, n uint64, tried *Tried) *Host {
	for range t.hosts {
		if i >= uint64(len(t.hosts)) {
			i = 0
		}
		if h := t.hosts[i]; free(h, tried) && h.claim(n) {
			return h
		}
		i++
	}
	return nil
}
