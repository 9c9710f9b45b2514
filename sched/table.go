// Package sched chooses hosts.
//
// A [Table] is an immutable choice of [Host]s: whoever changes anything builds
// a new one with [NewTable] and publishes it behind an atomic pointer. [Table.Pick]
// returns a host that is already counted, so that a burst does not herd onto
// one host, and [Host.Release] gives it back, exactly once. Both are lock-free,
// allocate nothing and may be called from any goroutine.
//
// Hosts outlive tables and carry counters and health. A host that goes down is
// passed over at once; its share falls to whoever the scheduler meets next
// until the table is built anew without it, which is the director's work and
// makes the shares exact again. A host that comes back is found at once only
// where nothing else is left, else with the next table.
//
// Limits: leastc and weightlc look at every host up to 64 of them; beyond that
// they take the best of eight random ones.
package sched

import (
	"fmt"
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
	Seed      uint64 // of the random schedulers; the same seed gives the same sequence
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
	cursor    *cursor
}

// chooser picks among the hosts of one tier. The host is up, not in tried, and
// counted; nil if there is none such.
type chooser interface {
	choose(tried *Tried) *Host
}

// cursor gives every pick of a table its number. It stands alone on its cache
// line, because every loop writes it.
type cursor struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

// next returns the number of this pick: what the atomic add returned, so that
// no two picks share one.
func (c *cursor) next() uint64 { return c.n.Add(1) - 1 }

// NewTable builds a table. It refuses an unknown scheduler, a weight out of
// range and a host that is listed twice.
func NewTable(p Policy, members []Member) (*Table, error) {
	name := p.Scheduler
	if name == "" {
		name = defaultScheduler
	}
	canonical, ok := Canonical(name)
	if !ok {
		return nil, fmt.Errorf("there is no scheduler %q; there are %v", p.Scheduler, Names())
	}
	build := builders[canonical]
	t := &Table{refuse: p.Refuse, cursor: new(cursor)}
	t.cursor.n.Store(p.Start)
	listed := make(map[*Host]bool, len(members))
	var up [2][]Member
	for tier, backup := range []bool{false, true} {
		for _, m := range members {
			if m.Backup != backup {
				continue
			}
			if m.Weight < 0 || m.Weight > MaxWeight {
				return nil, fmt.Errorf("host %s: weight %d is not between 0 and %d", m.Host.Name(), m.Weight, MaxWeight)
			}
			if listed[m.Host] {
				return nil, fmt.Errorf("host %s is listed twice", m.Host.Name())
			}
			listed[m.Host] = true
			if m.Weight == 0 {
				continue
			}
			t.hosts = append(t.hosts, m.Host)
			if m.Host.Up() {
				up[tier] = append(up[tier], m)
			}
		}
		if !backup {
			t.primaries = len(t.hosts)
		}
	}
	if len(up[0]) > 0 {
		t.primary = build(up[0], t.cursor, p.Seed)
	}
	if len(up[1]) > 0 {
		t.backup = build(up[1], t.cursor, p.Seed)
	}
	return t, nil
}

// Next returns where the successor of the table should Start, so that a
// rebuilt table does not begin at the first host again.
func (t *Table) Next() uint64 { return t.cursor.n.Load() }

// Pick chooses a host that is not in tried, counts the session on it and adds
// it to tried. Every Pick that returned a host needs one Release.
//
// Hosts that are up come first, then backups that are up. When no host of the
// table is up, backups included, those that are down are tried as a last
// resort, unless the policy refuses that. While any host is up, one that is
// down is never picked, even if this session has tried all that are up. A host
// of weight 0 is never picked. client is for schedulers that look at it.
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

// pickSlow is for when no primary host of the tier is left: none is up, or
// the session has tried them all.
func (t *Table) pickSlow(tried *Tried) (*Host, Verdict) {
	h := t.scan(t.hosts[:t.primaries], tried, true) // came back since the build
	if h == nil && t.backup != nil {
		if h = t.backup.choose(tried); h != nil {
			tried.add(h)
			return h, Picked
		}
	}
	if h == nil {
		h = t.scan(t.hosts[t.primaries:], tried, true)
	}
	if h != nil {
		return h, Picked
	}
	if t.refuse {
		return nil, None
	}
	for _, h := range t.hosts {
		if h.Up() {
			return nil, None
		}
	}
	if h := t.scan(t.hosts, tried, false); h != nil {
		return h, LastResort
	}
	return nil, None
}

// scan takes the first untried host from where the cursor points on.
func (t *Table) scan(hosts []*Host, tried *Tried, up bool) *Host {
	if len(hosts) == 0 {
		return nil
	}
	n := t.cursor.next()
	for i := range hosts {
		h := hosts[(n+uint64(i))%uint64(len(hosts))]
		if (!up || h.Up()) && !tried.Has(h) {
			h.take(n)
			tried.add(h)
			return h
		}
	}
	return nil
}
