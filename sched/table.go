// Package sched chooses hosts.
//
// A [Table] is an immutable choice of [Host]s: every change builds a new one with
// [NewTable] and publishes it behind an atomic pointer. [Table.Pick] returns a host
// that is already counted, so that a burst does not herd onto one host.
// [Host.Release] gives it back, exactly once. Both are lock-free, may be called
// from any goroutine, and allocate only for sessions that try more than four hosts.
// All picks of one session together look at each host a few times at most, however
// many of them fail.
//
// Hosts outlive tables and carry counters and health. A host that goes down is
// skipped at once; its share goes to the next host that the scheduler finds, until
// the director builds a table without it. Then the shares are exact again. A host
// that comes back is used at once only if no other is left, otherwise with the next
// table.
//
// Picks are numbered, and a host keeps the number of its last one. That is how
// leastc and weightlc find the host that was unused longest. A new table continues
// the numbers of the old one. Only picks that the old table makes after the new one
// was built are out of order.
//
// A program may choose by itself: see [Scheduler].
//
// Two ways send a client back to the host that it had. The scheduler maglev computes the
// host from the client's address. With ",sticky" behind a scheduler's name, a [Sticky]
// remembers whom the scheduler has chosen.
//
// Limits: a table holds at most 65,536 hosts. leastc and weightlc are exact up
// to 64 hosts; beyond that they take the best of eight random ones. A pick that
// finds no primary host up looks at each host.
//
// Compatibility: this package may change in a minor version; package txlb does not.
package sched

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// Verdict tells why Pick returned a host, or none.
type Verdict uint8

const (
	Picked     Verdict = iota // the host is up
	LastResort                // no host is up; this one is down and was not tried yet
	None                      // no host is left to try
	Full                      // every host that is left has as many sessions as it may; with a host: that one has, and the client waits for it alone
	Held                      // the group holds its clients: see Policy.Gate and Policy.Await
)

// MaxWeight is the greatest weight that a member can have.
const MaxWeight = 65535

// maxMembers bounds a table, so that the place of a pick in a weighted round times
// the length of the round fits in 64 bits.
const maxMembers = 1 << 16

// Member is one host's place in a table.
type Member struct {
	Host   *Host
	Weight int  // 0 to MaxWeight; 0 takes no new session
	Backup bool // picked only when no other host is left
	Far    bool // in another zone: picked only when no near host of its kind is left
	// Full is what Weight grows to in a slow start; 0: Weight. Schedulers that are
	// consistent look at it, so that a growing weight moves the clients of its host alone.
	Full int
}

// Policy says how a table chooses.
type Policy struct {
	Group     string  // the group's name, for logs
	Scheduler string  // a name or alias, see Names, or "custom:NAME"; ",sticky" may follow; "" is leastc
	Refuse    bool    // no last resort when every host is down (allDown="refuse")
	Seed      uint64  // of all that is random; the same seed gives the same sequence, 0 one of its own each time
	Start     uint64  // where to go on: Next of the table before, or 0
	Before    *Table  // the table before, or nil: what has not changed is shared with it
	Sticky    *Sticky // whose clients come back to their hosts; needed with ",sticky", else nil
	Custom    *Custom // who chooses; needed with "custom:NAME", else nil

	Mirrors  []MirrorShare // who gets a copy of what the clients send; nil: nobody
	Gate     *Gate         // the clients of the group wait; nil: they do not
	Await    bool          // they wait as well while no host is up (allDown="hold"); Refuse does not count then
	MostHeld int           // of both: how many wait at once; 0: any number
	Times    *Times        // of the group; needed where clients wait for a table without hosts
}

// Table is an immutable choice of hosts.
type Table struct {
	// first is the chooser of the first rank; nil if none of its hosts was up, or if the
	// client has a say: then its picks need more than this.
	first chooser
	// ranks are the tiers that have hosts, in order of preference.
	ranks []rank
	// hosts are all that have a weight, rank by rank.
	hosts  []*Host
	group  string
	refuse bool
	// turns number the picks of scan.
	turns *cursor
	// consistent says that the choosers look at who the client is.
	consistent bool
	sticky     *Sticky            // nil: clients do not come back
	listed     map[*Host]struct{} // hosts, for sticky
	mirrors    []MirrorShare      // nil: nothing is copied

	gate     *Gate // nil: there is none; else first is nil, so that a pick asks for it only then
	await    bool
	mostHeld int
	times    *Times // of the group; nil: it has no host, and nobody waits for one
}

// rank is a tier of the table: its hosts are picked when none is left in the ranks
// before it.
type rank struct {
	hosts  []*Host
	backup bool
	// chooser, or the program's own, chooses among those that were up when the table was
	// built; nil if there was none.
	chooser chooser
	own     *custom
	// turns number its picks. With a counter that is shared, a rank might see only every
	// second number and so only every second host.
	turns *cursor
}

// maxTiers is how many ranks a table has at most: near and far primaries, then near
// and far backups.
const maxTiers = 4

// tierOf returns the place of a member in the order of preference.
func (m *Member) tierOf() int {
	n := 0
	if m.Backup {
		n = 2
	}
	if m.Far {
		n++
	}
	return n
}

// chooser picks among the hosts of one tier. The host is up, not in tried, and
// counted; nil if there is none such.
type chooser interface {
	choose(tried *Tried) *Host
}

// cursor gives every pick of a tier its number. It has its own cache line, because
// every loop writes it.
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
	base, sticky := strings.CutSuffix(p.Scheduler, sticking)
	how := find(base)
	_, own := CustomName(base)
	switch {
	case how == nil && !own:
		return nil, fmt.Errorf("unknown scheduler %q; there are %v", p.Scheduler, Names())
	case own != (p.Custom != nil):
		return nil, fmt.Errorf("scheduler %q: with a Custom and only then it begins with %q", p.Scheduler, customPrefix)
	}
	if sticky != (p.Sticky != nil) {
		return nil, fmt.Errorf("scheduler %q: with a Sticky and only then it ends with %q", p.Scheduler, sticking)
	}
	if err := check(members); err != nil {
		return nil, err
	}
	t := &Table{
		group: p.Group, refuse: p.Refuse, hosts: make([]*Host, 0, len(members)), consistent: !own && how.build == nil, sticky: p.Sticky,
		gate: p.Gate, await: p.Await, mostHeld: p.MostHeld, mirrors: p.Mirrors,
	}
	if t.consistent {
		members = slices.SortedFunc(slices.Values(members), compareMembers)
	}
	start := p.Start
	var up [maxTiers][]Member // of the ranks; of a consistent scheduler all
	for tier := range maxTiers {
		from := len(t.hosts)
		var alive []Member
		for i := range members {
			m := &members[i]
			if m.Weight == 0 || m.tierOf() != tier {
				continue
			}
			t.hosts = append(t.hosts, m.Host)
			// A host may come from a table that Start does not continue. Its last pick must
			// not lie ahead of Start: it would count as the longest unused until the numbers
			// catch up.
			start = max(start, m.Host.lastUse.Load())
			if t.consistent || m.Host.Up() {
				if alive == nil {
					alive = make([]Member, 0, len(members))
				}
				alive = append(alive, *m)
			}
		}
		if len(t.hosts) > from {
			up[len(t.ranks)] = alive
			t.ranks = append(t.ranks, rank{hosts: t.hosts[from:len(t.hosts):len(t.hosts)], backup: tier >= maxTiers/2})
		}
	}
	seed := p.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	turns := make([]cursor, len(t.ranks)+1)
	for i := range turns {
		turns[i].n.Store(start)
	}
	t.turns = &turns[len(t.ranks)]
	for i := range t.ranks {
		r := &t.ranks[i]
		r.turns = &turns[i]
		switch {
		case t.consistent:
			r.chooser = newMaglev(up[i], r.turns, seed, p.Before.slots())
		case len(up[i]) == 0:
		case own:
			r.own = newCustom(up[i], r.turns, p.Custom)
		default:
			r.chooser = how.build(up[i], r.turns, seed)
		}
	}
	switch {
	case t.sticky != nil:
		t.listed = make(map[*Host]struct{}, len(t.hosts))
		for _, h := range t.hosts {
			t.listed[h] = struct{}{}
		}
	case len(t.ranks) > 0 && !t.consistent && t.gate == nil:
		t.first = t.ranks[0].chooser
	}
	switch {
	case len(t.hosts) > 0:
		t.times = t.hosts[0].times
	case t.gate != nil || t.await:
		t.times = p.Times
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

// Group returns the name of the group whose table this is.
func (t *Table) Group() string { return t.group }

// Mirrors returns who gets a copy of what the table's clients send; nil: nobody. It must not
// be changed.
func (t *Table) Mirrors() []MirrorShare { return t.mirrors }

// Sessions returns how many sessions the hosts of the table have now.
func (t *Table) Sessions() (n int64) {
	for _, h := range t.hosts {
		n += h.Sessions()
	}
	return n
}

// Queue returns the queue of the table's group; nil if there is no table, or it has no
// host and holds no clients.
func (t *Table) Queue() *Queue {
	if t == nil || t.times == nil {
		return nil
	}
	return &t.times.Queue
}

// Times returns where the times of the table's group are counted; nil if the table has no
// host and holds no clients.
func (t *Table) Times() *Times { return t.times }

// Next returns where the successor of the table should Start, so that a
// rebuilt table does not begin at the first host again.
func (t *Table) Next() uint64 {
	next := t.turns.n.Load()
	for i := range t.ranks {
		next = max(next, t.ranks[i].turns.n.Load())
	}
	return next
}

// Pick chooses a host that is not in tried, counts the session on it and adds
// it to tried, which must not be nil. Every Pick that returned a host needs
// one Release.
//
// Hosts that are up come first, those of the own zone before those of others, then
// backups that are up, in the same order. When no host of the table is up, backups
// included, those that are down are tried as a last resort, each once, unless the policy
// refuses that or waits for one. While any host is up, one that is down is not picked, even if this
// session has tried all that are up: a session whose hosts have all failed just now has
// marked them down itself, so it continues with the last resort. A host of weight 0 is
// never picked, and its health counts for nothing here.
//
// client is who the session belongs to; maglev looks at it, a Custom and a Sticky. With a Sticky,
// a client gets the host that it had, whatever its rank, while that is up and has a
// weight.
//
// The scheduler chooses the first four hosts of a session. After that the session
// goes through the others in the order of the table, so that all its picks together
// cost no more than a few looks at each host. A host that it has passed and that
// then comes up is left to the next session.
func (t *Table) Pick(client Addr, tried *Tried) (*Host, Verdict) {
	// Fast path: the scheduler's choice among the hosts that were up.
	if t.first == nil {
		return t.pickFor(client, tried)
	}
	if tried.n < first {
		if h := t.first.choose(tried); h != nil {
			return tried.add(h, Picked)
		}
	}
	return t.pickSlow(netip.Addr{}, tried)
}

// pickFor is Pick where the client may have a say.
//
// It is not inlined: then Pick would keep the client for it in all tables.
//
//go:noinline
func (t *Table) pickFor(client Addr, tried *Tried) (*Host, Verdict) {
	if t.gate != nil {
		return nil, Held
	}
	return t.pickAny(client, tried)
}

// pickAny is pickFor in spite of a Gate.
func (t *Table) pickAny(client Addr, tried *Tried) (*Host, Verdict) {
	if t.consistent {
		tried.client = hashOf(client)
	}
	if t.sticky != nil {
		return t.comeBack(client, tried)
	}
	return t.pickSlow(client.ip.Addr(), tried)
}

// pickSlow is used when the scheduler of the first tier has no host left: none is
// up, or the session has tried them all. Where the client has a say, that scheduler has
// not been asked yet; client matters only there.
func (t *Table) pickSlow(client netip.Addr, tried *Tried) (*Host, Verdict) {
	if tried.n >= first {
		return t.goOn(tried)
	}
	up, full := false, false
	for i := range t.ranks {
		r := &t.ranks[i]
		if full && r.backup {
			break // a host that is full is not down
		}
		var h *Host
		switch {
		case r.own != nil:
			h = r.own.choose(client, tried)
		case r.chooser != nil && (i > 0 || t.first == nil):
			h = r.chooser.choose(tried)
		}
		if h == nil {
			var some, busy bool
			h, some, busy = t.scan(r.hosts, tried) // came back since the build
			up, full = up || some, full || busy
		}
		if h != nil {
			return tried.add(h, Picked)
		}
	}
	switch {
	case full:
		return nil, Full
	case t.await && (!up || !t.anyStands(tried)):
		return nil, Held
	case up || t.refuse || len(t.hosts) == 0:
		return nil, None
	}
	if t.consistent {
		return t.ownLastResort(tried)
	}
	n := t.turns.next()
	i := int(n % uint64(len(t.hosts)))
	for range t.hosts {
		if h := t.hosts[i]; !tried.Has(h) {
			if h.claim(n) {
				return tried.add(h, LastResort)
			}
			full = true
		}
		if i++; i == len(t.hosts) {
			i = 0
		}
	}
	if full {
		return nil, Full
	}
	return nil, None
}

// scan takes the untried hosts that are up in turn. It tells whether any host is up,
// tried or not, and whether one that is untried is full. Turns count only the hosts that
// can be taken, not places in the table, so that no host inherits the turns of its
// unusable neighbours.
func (t *Table) scan(hosts []*Host, tried *Tried) (h *Host, up, full bool) {
	left := uint64(0)
	for _, h := range hosts {
		if !h.Up() {
			continue
		}
		up = true
		if !tried.Has(h) {
			if h.full() {
				full = true
			} else {
				left++
			}
		}
	}
	if left == 0 {
		return nil, up, full
	}
	n, skip := t.turn(tried, left)
	for range 2 { // again from the first, where health or sessions have changed since the count
		for _, h := range hosts {
			switch {
			case !free(h, tried):
			case skip > 0:
				skip--
			case h.claim(n):
				return h, up, full
			default:
				full = true
			}
		}
		skip = 0
	}
	return nil, up, full
}

// turn returns the number of a pick, and which of so many hosts has its turn. With a
// consistent scheduler the client says which.
func (t *Table) turn(tried *Tried, hosts uint64) (n, i uint64) {
	if t.consistent && tried.client != 0 {
		return 0, tried.client % hosts
	}
	n = t.turns.next()
	return n, n % hosts
}
