package sched

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Sticky remembers which host a client address has had, so that the client comes back
// to it. It outlives tables: every table of a group gets the same one
// (Policy.Sticky). A client is forgotten a while after its last session has ended. Of
// a full Sticky, a client without a session that came long ago makes room for a new one;
// if none is found soon, the new client is not remembered.
//
// All methods may be called from any goroutine. Those that Pick and sessions use are
// lock-free, and allocate only for a client that is new.
//
// Limits: it tells clients apart by their whole IP address; those of UNIX sockets have
// none. A table of 100,000 clients takes 5.2 MB when it is full, and 0.4 MB from the start.
type Sticky struct {
	size int64
	keep uint32 // ticks
	seed uint64
	// chains has the visitors whose addresses have a hash in common. A chain is immutable:
	// every change of it puts a new one into its place, so that of two sessions which bring
	// the same new client, one finds the visitor of the other.
	chains []atomic.Pointer[link]
	now    *atomic.Uint32 // the time in ticks; shared with the Sticky before
	began  time.Time      // tick 0
	_      [cacheLine]byte
	count  atomic.Int64  // visitors in the chains
	hand   atomic.Uint64 // where to look for one to evict next
	swept  uint64        // where Tick goes on
}

// tick is the unit of time.
const tick = time.Second

// link is a part of a chain.
type link struct {
	visitor *visitor
	next    *link
}

// visitor is what a Sticky knows of a client address.
type visitor struct {
	address [16]byte
	host    atomic.Pointer[Host] // nil: not chosen yet, or forgotten
	// state is the sessions now and, above them in 32 bits, the tick in which that changed
	// last. It is gone once the visitor has left the chains; only one without sessions does.
	state atomic.Uint64
}

const gone = ^uint64(0)

// sessionsOf and changedAt are the parts of a state.
func sessionsOf(state uint64) uint32 { return uint32(state) }
func changedAt(state uint64) uint32  { return uint32(state >> 32) }

func stateOf(now, sessions uint32) uint64 { return uint64(now)<<32 | uint64(sessions) }

// NewSticky returns a Sticky for at most size clients, at least 1. They are forgotten
// when they have had no session for keep. Nothing is forgotten without [Sticky.Tick].
func NewSticky(size int, keep time.Duration) *Sticky {
	size = max(size, 1)
	return &Sticky{
		size: int64(size), keep: uint32(min((keep+tick-1)/tick, 1<<31)), seed: rand.Uint64(),
		chains: make([]atomic.Pointer[link], size/2+1), now: new(atomic.Uint32), began: time.Now(),
	}
}

// Size returns for how many clients there is room.
func (s *Sticky) Size() int { return int(s.size) }

// Len returns how many clients are remembered.
func (s *Sticky) Len() int { return int(s.count.Load()) }

// Resized returns a Sticky of another size or time that has the clients of s, as far as
// there is room. s goes on until it is replaced; [Sticky.Adopt] takes over what it has
// learned meanwhile.
func (s *Sticky) Resized(size int, keep time.Duration) *Sticky {
	n := NewSticky(size, keep)
	n.now, n.began = s.now, s.began
	n.Adopt(s)
	return n
}

// Adopt takes in the clients of another Sticky with their hosts and sessions, as far as
// there is room. Those of whom it knows already stay as they are.
func (s *Sticky) Adopt(from *Sticky) {
	for i := range from.chains {
		for l := from.chains[i].Load(); l != nil; l = l.next {
			if l.visitor.state.Load() != gone {
				s.insert(l.visitor)
			}
		}
	}
}

// Tick sets the time, and forgets the clients that have been away for too long. It is to
// be called about once a second, by one goroutine at a time. Each call goes through a
// sixtieth of the table.
func (s *Sticky) Tick(now time.Time) {
	s.now.Store(uint32(max(now.Sub(s.began)/tick, 0)))
	if s.count.Load() == 0 {
		return // nor touch the memory of a table that is not used
	}
	for range len(s.chains)/60 + 1 {
		s.swept = (s.swept + 1) % uint64(len(s.chains))
		chain := &s.chains[s.swept]
		for l := chain.Load(); l != nil; l = l.next {
			s.expire(chain, l.visitor)
		}
		s.unlink(chain) // those that are gone from the Sticky before this one
	}
}

// Forget forgets the clients of a host, nil: of all hosts, and returns how many. Those
// that have sessions keep them, and get another choice with the next one.
func (s *Sticky) Forget(host *Host) (clients int) {
	for i := range s.chains {
		chain := &s.chains[i]
		for l := chain.Load(); l != nil; l = l.next {
			v := l.visitor
			h := v.host.Load()
			if h == nil || host != nil && h != host {
				continue
			}
			if state := v.state.Load(); sessionsOf(state) == 0 && s.remove(chain, v, state) || v.host.CompareAndSwap(h, nil) {
				clients++
			}
		}
	}
	return clients
}

// Count returns how many clients have a host, nil: any.
func (s *Sticky) Count(host *Host) (clients int) {
	for i := range s.chains {
		for l := s.chains[i].Load(); l != nil; l = l.next {
			if h := l.visitor.host.Load(); h != nil && (host == nil || h == host) && l.visitor.state.Load() != gone {
				clients++
			}
		}
	}
	return clients
}

// age is for how many ticks a state has not changed. A client that another process knew may
// have changed before tick 0: the numbers go round.
func (s *Sticky) age(state uint64) uint32 { return s.now.Load() - changedAt(state) }

// Client is what a Sticky knows of a client, for [Sticky.Remember] in another process.
type Client struct {
	Address [16]byte // as [netip.Addr.As16] has it
	Host    *Host
	Away    time.Duration // since its sessions have changed; 0: it has some
}

// Clients calls yield with the clients that have a host and have come or gone within a
// time, until it returns false.
func (s *Sticky) Clients(within time.Duration, yield func(Client) bool) {
	for i := range s.chains {
		for l := s.chains[i].Load(); l != nil; l = l.next {
			host, state := l.visitor.host.Load(), l.visitor.state.Load()
			if host == nil || state == gone {
				continue
			}
			age := time.Duration(s.age(state)) * tick
			if age > within {
				continue
			}
			if sessionsOf(state) > 0 {
				age = 0
			}
			if !yield(Client{l.visitor.address, host, age}) {
				return
			}
		}
	}
}

// Remember takes in a client that another process knew. It returns false if the client is
// known already, if its time is over, or if there is no room.
func (s *Sticky) Remember(c Client) bool {
	away := uint32(max(c.Away, 0) / tick)
	if away > s.keep {
		return false
	}
	v := &visitor{address: c.Address}
	v.host.Store(c.Host)
	v.state.Store(stateOf(s.now.Load()-away, 0))
	return s.insert(v)
}

// hold is a session's hold on the visitor that it belongs to: while there is one, the
// client is not forgotten.
type hold struct {
	visitor *visitor // nil: the client is not remembered
	in      *Sticky
}

// enter counts a session of a client, and tells which visitor it belongs to.
func (s *Sticky) enter(client Addr) hold {
	ip := client.ip.Addr()
	if !ip.IsValid() {
		return hold{in: s}
	}
	address := ip.As16()
	chain := s.chain(address)
	var fresh *visitor
	for {
		first := chain.Load()
		for l := first; l != nil; l = l.next {
			if l.visitor.address == address && s.join(chain, l.visitor) {
				if fresh != nil {
					s.count.Add(-1)
				}
				return hold{l.visitor, s}
			}
		}
		// Slow path: a client that is new.
		if fresh == nil {
			if s.count.Add(1) > s.size && !s.evict() {
				s.count.Add(-1)
				return hold{in: s}
			}
			fresh = &visitor{address: address}
			fresh.state.Store(stateOf(s.now.Load(), 1))
		}
		if chain.CompareAndSwap(first, &link{fresh, first}) {
			return hold{fresh, s}
		}
	}
}

// chain returns the chain of an address.
func (s *Sticky) chain(address [16]byte) *atomic.Pointer[link] {
	hi, lo := halves(address)
	i, _ := below(noise(noise(s.seed, hi), lo), uint64(len(s.chains)))
	return &s.chains[i]
}

// join counts a session of a visitor; false: the visitor is gone.
func (s *Sticky) join(chain *atomic.Pointer[link], v *visitor) bool {
	for {
		if s.expire(chain, v) {
			return false
		}
		state := v.state.Load()
		if state == gone {
			return false
		}
		if v.state.CompareAndSwap(state, stateOf(s.now.Load(), sessionsOf(state)+1)) {
			return true
		}
	}
}

// Leave ends the hold, and may be called again.
func (h *hold) Leave() {
	v := h.visitor
	if v == nil {
		*h = hold{}
		return
	}
	for {
		state := v.state.Load()
		if v.state.CompareAndSwap(state, stateOf(h.in.now.Load(), sessionsOf(state)-1)) {
			*h = hold{}
			return
		}
	}
}

// insert puts a visitor of another Sticky into the chains, unless one of the address is
// there or there is no room. It tells whether it did.
func (s *Sticky) insert(v *visitor) bool {
	chain := s.chain(v.address)
	for {
		first := chain.Load()
		for l := first; l != nil; l = l.next {
			if l.visitor.address == v.address && l.visitor.state.Load() != gone {
				return false
			}
		}
		if s.count.Add(1) > s.size {
			s.count.Add(-1)
			return false
		}
		if chain.CompareAndSwap(first, &link{v, first}) {
			return true
		}
		s.count.Add(-1)
	}
}

// expire removes a visitor whose time is over, and tells whether it did.
func (s *Sticky) expire(chain *atomic.Pointer[link], v *visitor) bool {
	state := v.state.Load()
	if state == gone || sessionsOf(state) > 0 || s.age(state) <= s.keep {
		return false
	}
	return s.remove(chain, v, state)
}

// remove makes a visitor without sessions go, if its state is still the same.
func (s *Sticky) remove(chain *atomic.Pointer[link], v *visitor, state uint64) bool {
	if state == gone || !v.state.CompareAndSwap(state, gone) {
		return false
	}
	s.unlink(chain)
	return true
}

// unlink takes the visitors that are gone out of a chain.
func (s *Sticky) unlink(chain *atomic.Pointer[link]) {
	for {
		first := chain.Load()
		rest, left := first.present()
		if left == 0 {
			return
		}
		if chain.CompareAndSwap(first, rest) {
			s.count.Add(int64(-left))
			return
		}
	}
}

// present returns the chain without the visitors that are gone, and how many these are.
func (l *link) present() (rest *link, left int) {
	if l == nil {
		return nil, 0
	}
	rest, left = l.next.present()
	switch {
	case l.visitor.state.Load() == gone:
		return rest, left + 1
	case left > 0:
		return &link{l.visitor, rest}, left
	}
	return l, 0
}

const (
	// evictFrom is how many visitors are looked at for one to evict. The one that came
	// longest ago is then, in the mean, among the oldest ninth.
	evictFrom = 8
	// evictChains bounds the search where most visitors have sessions.
	evictChains = 32
)

// evict makes room: it removes the one of some visitors without sessions that came
// longest ago. It returns false if it finds none.
func (s *Sticky) evict() bool {
	var oldest *visitor
	var from *atomic.Pointer[link]
	var state uint64
	var greatest uint32
	seen := 0
	for range evictChains {
		chain := &s.chains[s.hand.Add(1)%uint64(len(s.chains))]
		for l := chain.Load(); l != nil; l = l.next {
			one := l.visitor.state.Load()
			if one == gone || sessionsOf(one) > 0 {
				continue
			}
			if age := s.age(one); oldest == nil || age > greatest {
				oldest, from, state, greatest = l.visitor, chain, one, age
			}
			seen++
		}
		if seen >= evictFrom {
			break
		}
	}
	return oldest != nil && s.remove(from, oldest, state)
}

// comeBack picks the host that the client has had, if that is up, else another one, which
// is the client's from now on. Of several sessions that choose one at the same time, all
// get the same.
func (t *Table) comeBack(client Addr, tried *Tried) (*Host, Verdict) {
	if tried.hold.in != t.sticky { // the first pick, or the route has changed
		tried.hold.Leave()
		tried.hold = t.sticky.enter(client)
	}
	v := tried.hold.visitor
	if v == nil {
		return t.pickSlow(client.ip.Addr(), tried)
	}
	was := v.host.Load()
	if tried.n >= first { // it has tried its host long ago
		h, verdict := t.pickSlow(client.ip.Addr(), tried)
		if h != nil {
			v.host.Store(h)
			was.deserted()
		}
		return h, verdict
	}
	if t.serves(was) && was.Up() && !tried.Has(was) {
		if !t.claim(was) {
			return was, Full // a host that is full is not down: its client waits for it
		}
		return tried.add(was, Picked)
	}
	h, verdict := t.pickSlow(client.ip.Addr(), tried)
	if h == nil {
		return nil, verdict
	}
	if verdict == LastResort && was != h && t.serves(was) && !tried.Has(was) && t.claim(was) {
		h = t.instead(was, h, tried, LastResort)
	}
	if v.host.CompareAndSwap(was, h) {
		was.deserted()
		return h, verdict
	}
	other := v.host.Load() // another session of the client was faster
	if other != h && t.serves(other) && free(other, tried) && t.claim(other) {
		return t.instead(other, h, tried, Picked), Picked
	}
	if v.host.CompareAndSwap(other, h) {
		other.deserted()
	}
	return h, verdict
}

// deserted is called when a client has another host now: its sessions that wait for this
// one may have that.
func (h *Host) deserted() {
	if h != nil && h.most.Load() != 0 {
		h.times.Queue.look()
	}
}

// serves tells whether a host is one of the table's.
func (t *Table) serves(h *Host) bool {
	_, listed := t.listed[h]
	return listed
}

// claim counts a session on the client's host, if that has room. It takes no turn: those
// are for clients that are new.
func (t *Table) claim(h *Host) bool { return h.claim(t.ranks[0].turns.n.Load()) }

// instead gives the session another host, which counts it already, than the one that was
// just picked.
func (t *Table) instead(h, picked *Host, tried *Tried, v Verdict) *Host {
	tried.Forget()
	picked.untake()
	tried.add(h, v)
	return h
}

// Home returns the host that a client comes back to: nil if there is none, or if it is
// not in the table, has no weight or is down.
func (t *Table) Home(client Addr) *Host {
	if t.sticky == nil {
		return nil
	}
	if h := t.sticky.host(client); t.serves(h) && h.Up() {
		return h
	}
	return nil
}

// host returns the host of a client, nil if none is known.
func (s *Sticky) host(client Addr) *Host {
	ip := client.ip.Addr()
	if !ip.IsValid() {
		return nil
	}
	address := ip.As16()
	for l := s.chain(address).Load(); l != nil; l = l.next {
		if state := l.visitor.state.Load(); l.visitor.address == address && state != gone {
			return l.visitor.host.Load()
		}
	}
	return nil
}

// Hold keeps a Sticky from forgetting the client of a session. The zero Hold keeps
// nothing.
type Hold struct{ hold }

// Keep takes the hold on the session's client out of the set: from now on the caller has
// to end it. ok is false if there is none.
func (t *Tried) Keep() (h Hold, ok bool) {
	h, t.hold = Hold{t.hold}, hold{}
	return h, h.visitor != nil
}
