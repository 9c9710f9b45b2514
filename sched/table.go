// Package sched chooses hosts.
//
// A [Table] is an immutable choice of [Host]s: whoever changes anything builds
// a new one with [NewTable] and publishes it behind an atomic pointer. [Table.Pick]
// returns a host that is already counted, so that a burst does not herd onto
// one host, and [Host.Release] gives it back, exactly once. Both are lock-free,
// may be called from any goroutine and allocate nothing, but for sessions that
// try more than four hosts.
//
// Hosts outlive tables and carry counters and health. A host that goes down is
// passed over at once; its share falls to whoever the scheduler meets next
// until the table is built anew without it, which is the director's work and
// makes the shares exact again. A host that comes back is found at once only
// where nothing else is left, else with the next table.
//
// Picks are numbered, and a host keeps the number of its last one, which is
// how leastc and weightlc find the longest unused. Numbers go on from table to
// table, so the order holds across them, but for what the old table still
// picks after the new one was built.
//
// Limits: a table holds at most 65,536 hosts. leastc and weightlc are exact up
// to 64 hosts; beyond that they take the best of eight random ones. A pick that
// finds no primary host up looks at each of them.
package sched

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// Verdict tells why Pick returned a host, or none.
type Verdict uint8

const (
	Picked     Verdict = iota // the host is up
	LastResort                // no host is up; this one is down and was not tried yet
	None                      // no host is left to try
)

// MaxWeight is the greatest weight that a member can have.
const MaxWeight = 65535

// maxMembers bounds a table, so that products of a pick's place in a weighted
// round and the length of the round fit 64 bits.
const maxMembers = 1 << 16

// Member is one host's place in a table.
type Member struct {
	Host   *Host
	Weight int  // 0 to MaxWeight; 0 takes no new session
	Backup bool // picked only when no other host is left
}

// Policy says how a table chooses.
type Policy struct {
	Scheduler string // a name or alias, see Names; "" is leastc
	Refuse    bool   // no last resort when every host is down (allDown="refuse")
	Seed      uint64 // of all that is random; the same seed gives the same sequence, 0 one of its own each time
	Start     uint64 // where to go on: Next of the table before, or 0
}

// Tried is the set of hosts that one session has tried. The zero value is
// empty. It belongs to one goroutine and must not be copied while in use.
type Tried struct {
	few  [4]*Host
	n    int
	more []*Host // beyond the first four; the only thing here that allocates
}

// Has tells whether h is in the set.
func (t *Tried) Has(h *Host) bool {
	if t.n == 0 {
		return false
	}
	for _, other := range t.few[:min(t.n, len(t.few))] {
		if other == h {
			return true
		}
	}
	for _, other := range t.more {
		if other == h {
			return true
		}
	}
	return false
}

// Len returns the number of hosts in the set.
func (t *Tried) Len() int { return t.n }

// Forget takes the host that was added last out again: it was picked, and then
// not asked.
func (t *Tried) Forget() {
	t.n--
	if t.n < len(t.few) {
		t.few[t.n] = nil
	} else {
		t.more = t.more[:len(t.more)-1]
	}
}

// Reset empties the set and keeps no host alive.
func (t *Tried) Reset() {
	clear(t.few[:])
	clear(t.more)
	t.n, t.more = 0, t.more[:0]
}

func (t *Tried) add(h *Host) {
	if t.n < len(t.few) {
		t.few[t.n] = h
	} else {
		t.more = append(t.more, h)
	}
	t.n++
}

// Table is an immutable choice of hosts.
type Table struct {
	// primary and backup choose among the hosts that were up when the table
	// was built; nil where there was none.
	primary, backup chooser
	// hosts are all that have a weight, backups last; primaries are the first
	// of them.
	hosts     []*Host
	primaries int
	refuse    bool
	// turns number the picks of primary, of backup and of scan. Each counts
	// alone: a tier that took its turns from a counter that others move on
	// too could meet every second host only.
	turns [3]cursor
}

// chooser picks among the hosts of one tier. The host is up, not in tried, and
// counted; nil if there is none such.
type chooser interface {
	choose(tried *Tried) *Host
}

// cursor gives every pick of a tier its number. It stands alone on its cache
// line, because every loop writes it.
type cursor struct {
	_ [cacheLine]byte
	n atomic.Uint64
	_ [cacheLine - 8]byte
}

// next returns the number of this pick: what the atomic add returned, so that
// no two picks share one.
func (c *cursor) next() uint64 { return c.n.Add(1) - 1 }

// NewTable builds a table. It refuses an unknown scheduler, too many members,
// a weight out of range and a host that is listed twice.
func NewTable(p Policy, members []Member) (*Table, error) {
	canonical, ok := Canonical(p.Scheduler)
	if !ok {
		return nil, fmt.Errorf("there is no scheduler %q; there are %v", p.Scheduler, Names())
	}
	if err := check(members); err != nil {
		return nil, err
	}
	t := &Table{refuse: p.Refuse, hosts: make([]*Host, 0, len(members))}
	start := p.Start
	var up [2][]Member
	for tier, backup := range []bool{false, true} {
		for _, m := range members {
			if m.Backup != backup || m.Weight == 0 {
				continue
			}
			t.hosts = append(t.hosts, m.Host)
			// A host may come from a table that Start does not continue. Its
			// last pick must not seem to lie ahead: it would be the longest
			// unused for as many picks.
			start = max(start, m.Host.lastUse.Load())
			if m.Host.Up() {
				if up[tier] == nil {
					up[tier] = make([]Member, 0, len(members))
				}
				up[tier] = append(up[tier], m)
			}
		}
		if !backup {
			t.primaries = len(t.hosts)
		}
	}
	for i := range t.turns {
		t.turns[i].n.Store(start)
	}
	seed := p.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	build := builders[canonical]
	if len(up[0]) > 0 {
		t.primary = build(up[0], &t.turns[0], seed)
	}
	if len(up[1]) > 0 {
		t.backup = build(up[1], &t.turns[1], seed)
	}
	return t, nil
}

// check tells what is wrong with the members of a table.
func check(members []Member) error {
	if len(members) > maxMembers {
		return fmt.Errorf("%d hosts are too many for one table: at most %d", len(members), maxMembers)
	}
	listed := make(map[*Host]bool, len(members))
	for _, m := range members {
		if m.Weight < 0 || m.Weight > MaxWeight {
			return fmt.Errorf("host %s: weight %d is not between 0 and %d", m.Host.Name(), m.Weight, MaxWeight)
		}
		if listed[m.Host] {
			return fmt.Errorf("host %s is listed twice", m.Host.Name())
		}
		listed[m.Host] = true
	}
	return nil
}

// Next returns where the successor of the table should Start, so that a
// rebuilt table does not begin at the first host again.
func (t *Table) Next() uint64 {
	next := uint64(0)
	for i := range t.turns {
		next = max(next, t.turns[i].n.Load())
	}
	return next
}

// Pick chooses a host that is not in tried, counts the session on it and adds
// it to tried, which must not be nil. Every Pick that returned a host needs
// one Release.
//
// Hosts that are up come first, then backups that are up. When no host of the
// table is up, backups included, those that are down are tried as a last
// resort, each once, unless the policy refuses that. While any host is up, one
// that is down is not picked, even if this session has tried all that are up:
// a session whose hosts have all failed just now has marked them down itself,
// so it goes on with the last resort. A host of weight 0 is never picked, and
// its health counts for nothing here. client is for schedulers that look at it.
func (t *Table) Pick(client Addr, tried *Tried) (*Host, Verdict) {
	// Fast path: the scheduler's choice among the hosts that were up.
	if t.primary != nil {
		if h := t.primary.choose(tried); h != nil {
			tried.add(h)
			return h, Picked
		}
	}
	return t.pickSlow(tried)
}

// pickSlow is for when the scheduler of the first tier has no host left: none
// is up, or the session has tried them all.
func (t *Table) pickSlow(tried *Tried) (*Host, Verdict) {
	h := t.scan(t.hosts[:t.primaries], tried, true) // came back since the build
	if h == nil && t.backup != nil {
		h = t.backup.choose(tried)
	}
	if h == nil {
		h = t.scan(t.hosts[t.primaries:], tried, true)
	}
	if h != nil {
		tried.add(h)
		return h, Picked
	}
	if t.refuse {
		return nil, None
	}
	for _, h := range t.hosts {
		// One that is up but untried came up this moment: serve the client.
		if h.Up() && tried.Has(h) {
			return nil, None
		}
	}
	if h := t.scan(t.hosts, tried, false); h != nil {
		tried.add(h)
		return h, LastResort
	}
	return nil, None
}

// scan takes the untried hosts in turn, only those that are up if up is set.
// A turn goes by the number of hosts that can be taken, not by their places,
// so that none inherits the turns of those that cannot.
func (t *Table) scan(hosts []*Host, tried *Tried, up bool) *Host {
	can := func(h *Host) bool { return (!up || h.Up()) && !tried.Has(h) }
	left := uint64(0)
	for _, h := range hosts {
		if can(h) {
			left++
		}
	}
	if left == 0 {
		return nil
	}
	n := t.turns[2].next()
	skip := n % left
	var last *Host // the fallback where health has changed since the count
	for _, h := range hosts {
		if !can(h) {
			continue
		}
		last = h
		if skip == 0 {
			break
		}
		skip--
	}
	if last != nil {
		last.take(n)
	}
	return last
}
