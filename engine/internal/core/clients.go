package core

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// clients are the clients of one service that have sessions, or have had some in the
// last second: as many as are counted against a limit. Any loop may use it at any time,
// without a lock.
//
// It is a hash table of lists. An entry is put in front of its list by a compare-and-swap
// that fails if another was put there since the list was looked through, so no client has
// two. An entry that tells nothing (no session, all tokens there) is as good as none: it
// is marked dead, which is final, and then taken out. A list that somebody still walks
// goes on behind it, since an entry that is taken out leads to all that stood behind it
// and live.
type clients struct {
	seed  uint64
	most  int64
	lists [1 << clientBits]atomic.Pointer[client]
	_     [64]byte
	n     atomic.Int64  // entries that are not dead
	hand  atomic.Uint64 // the list that is tidied next
	_     [64]byte
}

// client is an entry: 32 bytes.
type client struct {
	key uint64
	// use is how many sessions the client has, and in the upper half how often that has
	// changed, so that an entry is marked dead only if nobody has used it since it was
	// looked at.
	use  atomic.Uint64
	rate bucket
	next atomic.Pointer[client]
}

const (
	dead     = 1<<64 - 1
	sessions = 1<<32 - 1 // of use
	change   = 1 << 32
)

func newClients(most int64) *clients { return &clients{seed: rand.Uint64(), most: most} }

// keyOf returns what a client is counted by: its IPv4 address, or the /64 of its IPv6
// address, since a client has at least that many addresses to come from. IPv4 gets the
// place of a multicast prefix, from which no client comes.
func keyOf(ip netip.Addr) uint64 {
	if ip.Is4() {
		b := ip.As4()
		return 0xffff<<48 | uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := ip.As16()
	return binary.BigEndian.Uint64(b[:])
}

// list returns the list of a key. The seed keeps strangers from filling one list.
func (t *clients) list(key uint64) *atomic.Pointer[client] {
	z := (key ^ t.seed) * 0xBF58476D1CE4E5B9 // SplitMix64's steps
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return &t.lists[(z^z>>31)>>(64-clientBits)]
}

// enter counts a session for a client that may have so many; 0 is no limit. It returns
// nil if the client has them. room is false if the table is full.
func (t *clients) enter(key uint64, limit int, now int64) (c *client, room bool) {
	list := t.list(key)
	for {
		first := list.Load()
		for c := first; c != nil; c = c.next.Load() {
			if c.key != key {
				continue
			}
			switch c.take(limit) {
			case taken:
				return c, true
			case limited:
				return nil, true
			}
			// It is dead, and there is no other behind it.
		}
		if t.n.Add(1) > t.most {
			t.n.Add(-1)
			if t.makeRoom(now) {
				continue
			}
			return nil, false
		}
		c := &client{key: key}
		c.use.Store(change | 1)
		c.next.Store(first)
		if list.CompareAndSwap(first, c) {
			t.tidy(list, now)
			t.tidy(&t.lists[t.hand.Add(1)%(1<<clientBits)], now)
			return c, true
		}
		t.n.Add(-1)
	}
}

// taking is what became of a session for a client.
type taking uint8

const (
	taken taking = iota
	limited
	gone
)

func (c *client) take(limit int) taking {
	for {
		use := c.use.Load()
		switch {
		case use == dead:
			return gone
		case limit > 0 && use&sessions >= uint64(limit):
			return limited
		case c.use.CompareAndSwap(use, use+change+1):
			return taken
		}
	}
}

// leave takes a session off.
func (t *clients) leave(c *client, now int64) {
	if c.use.Add(change-1)&sessions == 0 && t.bury(c, now) {
		t.tidy(t.list(c.key), now)
	}
}

// bury marks an entry dead that tells nothing, and tells whether it has.
func (t *clients) bury(c *client, now int64) bool {
	use := c.use.Load()
	if use == dead || use&sessions != 0 || !c.rate.full(now) || !c.use.CompareAndSwap(use, dead) {
		return false
	}
	t.n.Add(-1)
	return true
}

// tidy takes out what is dead, or tells nothing.
func (t *clients) tidy(at *atomic.Pointer[client], now int64) {
	for c := at.Load(); c != nil; {
		next := c.next.Load()
		if c.use.Load() == dead || t.bury(c, now) {
			at.CompareAndSwap(c, next) // if it fails, another time
		} else {
			at = &c.next
		}
		c = next
	}
}

// makeRoom tidies some lists of a table that is full, and tells whether it has room then.
func (t *clients) makeRoom(now int64) bool {
	for range tidyAtOnce {
		t.tidy(&t.lists[t.hand.Add(1)%(1<<clientBits)], now)
	}
	return t.n.Load() < t.most
}
