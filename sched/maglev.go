package sched

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// maglev sends a client address to the same host each time, on every node that has the
// same hosts: consistent hashing as in Maglev (Eisenbud et al., NSDI 2016), weighted as
// in Envoy. Hosts are told apart by their address, so neither their names nor their order
// matter.
//
// The table of slots has the hosts that are down too. A client whose host is down hashes
// on to another slot, and each time to the same. So a host that fails or comes back moves
// its own clients alone, and needs no new table of slots.
type maglev struct {
	slots *slots
	// hosts are in the order of the slots; up has nil for those that were down when the
	// table was built, which have to wait for the next one as with other schedulers.
	hosts, up []*Host
	// share of the hashes that a host in its slow start accepts, in 1<<32; nil: all hosts
	// accept all.
	share []uint64
	// rest are the hosts that were up, each with the sum of the weights up to it, if they had
	// less than half of all weights; else there are none.
	rest   []place
	cursor *cursor
	seed   uint64
}

// slots maps the hash of a client to a host. They are immutable, and tables that have
// the same hosts with the same weights share them.
type slots struct {
	ids     []slotID
	weights []uint64 // divided by their greatest common divisor
	host    []uint16 // of each slot; none if there is one host
}

// slotID is what makes a host the same one on every node.
type slotID struct {
	addr Addr
	same int // how many hosts before it have this address too
}

// slotCounts are the prime numbers of slots: the first with 100 slots for each host, so
// that none has 1 % more than its share (the paper's rule), else the last. They are few
// because with another number of slots most clients move.
var slotCounts = [...]uint64{65_537, 1_048_583, 6_553_621}

// slotsPerHost is how many slots a host of the mean weight has at least.
const slotsPerHost = 100

// rehashes is how often a client hashes on from hosts that are down. With half of
// them down, one client in 2^32 needs more. If more are down, it then hashes over the rest.
const rehashes = 32

// newMaglev makes the chooser of a tier. members are in the order of compareMembers. It
// shares the slots of before if they are the same; nil: there are none.
func newMaglev(members []Member, c *cursor, seed uint64, before []*slots) *maglev {
	m := &maglev{cursor: c, seed: seed, hosts: make([]*Host, len(members)), up: make([]*Host, len(members))}
	s := &slots{ids: make([]slotID, len(members)), weights: make([]uint64, len(members))}
	shared := uint64(0)
	for i, one := range members {
		m.hosts[i] = one.Host
		if one.Host.Up() {
			m.up[i] = one.Host
		}
		s.ids[i].addr = one.Host.addr
		if i > 0 && one.Host.addr == members[i-1].Host.addr {
			s.ids[i].same = s.ids[i-1].same + 1
		}
		s.weights[i] = uint64(one.Weight)
		if one.Full > one.Weight {
			if m.share == nil {
				m.share = slices.Repeat([]uint64{1 << 32}, len(members))
			}
			m.share[i] = uint64(one.Weight) << 32 / uint64(one.Full)
			s.weights[i] = uint64(one.Full)
		}
		shared = gcd(s.weights[i], shared)
	}
	for i := range s.weights {
		s.weights[i] /= shared
	}
	m.rest = restOf(members)
	for _, b := range before {
		if slices.Equal(b.ids, s.ids) && slices.Equal(b.weights, s.weights) {
			m.slots = b
			return m
		}
	}
	s.fill()
	m.slots = s
	return m
}

// restOf returns what maglev.rest is.
func restOf(members []Member) []place {
	all, up := uint64(0), uint64(0)
	var rest []place
	for _, m := range members {
		all += uint64(m.Weight)
		if m.Host.Up() {
			up += uint64(m.Weight)
			rest = append(rest, place{m.Host, up})
		}
	}
	if 2*up >= all {
		return nil
	}
	return rest
}

// compareMembers is the order of members by which nodes agree.
func compareMembers(a, b Member) int {
	return cmp.Or(
		a.Host.addr.ip.Compare(b.Host.addr.ip), cmp.Compare(a.Host.addr.path, b.Host.addr.path),
		cmp.Compare(a.Host.name, b.Host.name))
}

// fill gives each slot a host. The hosts take turns, each as often as its weight says;
// with each turn a host takes the next free slot of its own sequence, which goes through
// all slots, as their number is prime.
func (s *slots) fill() {
	if len(s.ids) == 1 {
		return
	}
	sum, most := uint64(0), uint64(0)
	for _, w := range s.weights {
		sum, most = sum+w, max(most, w)
	}
	hosts := uint64(len(s.ids))
	size := slotCounts[len(slotCounts)-1]
	for _, n := range slotCounts {
		if slotsPerHost*hosts <= n {
			size = n
			break
		}
	}
	s.host = make([]uint16, size)
	taken := make([]uint64, size/64+1)
	at, skip := make([]uint32, hosts), make([]uint32, hosts)
	for i, id := range s.ids {
		h := id.hash()
		first, _ := below(noise(h, 0), size)
		step, _ := below(noise(h, 1), size-1)
		at[i], skip[i] = uint32(first), uint32(step+1)
	}
	take := func(i uint32) {
		slot, step := at[i], skip[i]
		for {
			free := taken[slot/64]>>(slot%64)&1 == 0
			if free {
				taken[slot/64] |= 1 << (slot % 64)
				s.host[slot] = uint16(i)
			}
			if slot += step; slot >= uint32(size) {
				slot -= uint32(size)
			}
			if free {
				at[i] = slot
				return
			}
		}
	}
	// Turn number k of a host of weight w is in round k·most/w: the heaviest has one in
	// each round. due has the hosts of each round to come, as lists.
	const none = ^uint32(0)
	due := slices.Repeat([]uint32{none}, int(size*most/sum)+2)
	next, turns := make([]uint32, hosts), make([]uint64, hosts)
	for i := len(next) - 1; i >= 0; i-- {
		next[i], due[0] = due[0], uint32(i)
	}
	for left, round := size, 0; ; round++ {
		for i := due[round]; i != none; {
			take(i)
			if left--; left == 0 {
				return
			}
			this := i
			i = next[i]
			turns[this]++
			if r := turns[this] * most / s.weights[this]; r < uint64(len(due)) {
				next[this], due[r] = due[r], this
			}
		}
	}
}

// hash is of the address alone, the same on every node and in every version: FNV-1a.
func (id slotID) hash() uint64 {
	h := uint64(0xcbf29ce484222325)
	add := func(b byte) { h = (h ^ uint64(b)) * 0x100000001b3 }
	for _, b := range []byte(id.addr.String()) {
		add(b)
	}
	for n := id.same; n > 0; n >>= 8 {
		add(byte(n))
	}
	return h
}

// hashOf returns the hash of a client's address without the port, the same on every node
// and in every version; 0: it has none.
func hashOf(client Addr) uint64 {
	ip := client.ip.Addr()
	if !ip.IsValid() {
		return 0
	}
	hi, lo := halves(ip.As16())
	return max(noise(noise(0, hi), lo), 1)
}

// choose returns the client's host. Clients without an address go anywhere, by weight.
func (m *maglev) choose(tried *Tried) *Host {
	client, n := tried.client, uint64(0)
	if client == 0 {
		n = m.cursor.next()
		client = noise(m.seed, n)
	}
	i, hash := uint64(0), client
	for k := range uint64(rehashes) {
		i = m.at(hash)
		this := hash
		hash = noise(client, k)
		h := m.up[i]
		if h == nil || !free(h, tried) || m.share != nil && !m.accepts(i, this) {
			continue
		}
		if h.claim(n) {
			return h
		}
	}
	if size := len(m.rest); size > 0 {
		for k := range uint64(redraws) {
			point, _ := below(noise(^hash, k), m.rest[size-1].weight)
			j, _ := slices.BinarySearchFunc(m.rest, point+1, func(p place, at uint64) int { return cmp.Compare(p.weight, at) })
			if h := m.rest[j].host; free(h, tried) && h.claim(n) {
				return h
			}
		}
	}
	return m.from(i, n, tried)
}

// at returns the host of a hash.
func (m *maglev) at(hash uint64) uint64 {
	if len(m.slots.host) == 0 {
		return 0
	}
	slot, _ := below(hash, uint64(len(m.slots.host)))
	return uint64(m.slots.host[slot])
}

// accepts tells whether a host takes the client of a hash during its slow start. Once it
// does, it does so in all further steps. A client that hashes on may meet the host again,
// so that the host's share is that of its weight now.
func (m *maglev) accepts(i, hash uint64) bool {
	return noise(^hash, i)>>32 < m.share[i]
}

// from takes the first host behind index i that is up, all around.
func (m *maglev) from(i, n uint64, tried *Tried) *Host {
	for range m.up {
		if i++; i >= uint64(len(m.up)) {
			i = 0
		}
		if h := m.up[i]; h != nil && free(h, tried) && h.claim(n) {
			return h
		}
	}
	return nil
}

// lastResort takes the client's host, or the next that was not tried, whether it is up
// or not.
func (m *maglev) lastResort(tried *Tried) *Host {
	client := tried.client
	if client == 0 {
		client = noise(m.seed, m.cursor.next())
	}
	i := m.at(client)
	for range m.hosts {
		if h := m.hosts[i]; !tried.Has(h) && h.claim(0) {
			return h
		}
		if i++; i >= uint64(len(m.hosts)) {
			i = 0
		}
	}
	return nil
}

// halves returns an address of 16 bytes as two numbers.
func halves(a [16]byte) (hi, lo uint64) {
	return binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
}

// slots returns those of the table's ranks.
func (t *Table) slots() (list []*slots) {
	if t == nil || !t.consistent {
		return nil
	}
	for i := range t.ranks {
		list = append(list, t.ranks[i].chooser.(*maglev).slots)
	}
	return list
}

// ownLastResort is the last resort of a consistent scheduler, where every host is down:
// the one that would be the client's, then the next.
func (t *Table) ownLastResort(tried *Tried) (*Host, Verdict) {
	for i := range t.ranks {
		if h := t.ranks[i].chooser.(*maglev).lastResort(tried); h != nil {
			return tried.add(h, LastResort)
		}
	}
	for _, h := range t.hosts {
		if !tried.Has(h) { // it has sessions that still run
			return nil, Full
		}
	}
	return nil, None
}
