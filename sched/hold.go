package sched

import (
	"math"
	"sync/atomic"
)

// Gate holds the clients of a group: while the group's table has one (Policy.Gate), Pick
// gives no host, and sessions join the group's queue. Tables that are built meanwhile get
// the same Gate. A table without one ends it.
//
// All methods may be called from any goroutine. NewGate makes a Gate.
type Gate struct{ keep atomic.Int64 }

// NewGate returns a Gate that lets nobody out.
func NewGate() *Gate {
	g := new(Gate)
	g.Keep(math.MaxInt64)
	return g
}

// Keep lets sessions out of the queue, in their order, while more than n wait. They get
// their hosts when the queue is told to look: see [Queue.Look].
func (g *Gate) Keep(n int64) { g.keep.Store(n) }

// keeps tells whether all of so many sessions have to go on waiting.
func (g *Gate) keeps(waiting int32) bool { return int64(waiting) <= g.keep.Load() }

// Held tells whether the table gives no host because of a [Gate]. It may be nil.
func (t *Table) Held() bool { return t != nil && t.gate != nil }

// Holds tells whether clients wait for this table rather than being rejected, be it
// because of a [Gate] or because no host is up (Policy.Await). It may be nil.
func (t *Table) Holds() bool { return t.Held() || t.Awaits() }

// Awaits tells whether clients wait for this table because no host is up (Policy.Await). It
// may be nil.
func (t *Table) Awaits() bool { return t.AwaitsFor(&Tried{}) }

// AwaitsFor is Awaits for a session that has tried some hosts: those that have come back since do not
// count. They are up for others, and the session would have waited for them.
func (t *Table) AwaitsFor(tried *Tried) bool {
	return t != nil && t.await && t.noneStands(tried)
}

func (t *Table) noneStands(tried *Tried) bool {
	for _, h := range t.hosts {
		if tried.stands(h) {
			return false
		}
	}
	return true
}

// LetsOut tells whether a [Gate] of the table lets sessions out. It may be nil.
func (t *Table) LetsOut() bool { return t.Held() && t.gate.keep.Load() < math.MaxInt64 }

// MostHeld returns how many clients may wait at once while the table holds them; 0: any
// number.
func (t *Table) MostHeld() int { return t.mostHeld }

// Empty tells whether no host of the table can be picked. It may be nil.
func (t *Table) Empty() bool { return t == nil || len(t.hosts) == 0 }

// PickOut is [Table.Pick] for a session that the queue lets out, or has let out: it passes a
// [Gate].
func (t *Table) PickOut(client Addr, tried *Tried) (*Host, Verdict) {
	if t.gate != nil {
		return t.pickAny(client, tried)
	}
	return t.Pick(client, tried)
}
