package sched

import (
	"sync/atomic"
)

// Queue is where the sessions of a group wait while every host that they could have is
// full: has as many sessions as [Host.SetMaxSessions] allows, and while the group holds its
// clients: see [Gate]. There is one for each
// group; the hosts of the group share it, so that it outlives tables. A host's place that
// becomes free goes to the session that has come first, whichever loop it is of.
//
// No method waits. Whoever has something for the queue (a session that joins or leaves,
// a place that is free, a new table) puts it down and, if nobody is at work on the
// queue, does the work: for itself and for all who come meanwhile, who then go on at
// once. So the list is touched by one goroutine at a time, without a lock.
//
// Nothing is lost: a session that joins is counted before it asks for a place, and a
// place that is freed is free before the count is read. So one of the two sees the other.
type Queue struct {
	_       [cacheLine]byte
	waiting atomic.Int32 // sessions that have joined and have not left
	longest atomic.Int32
	work    atomic.Int64 // what was put down and not done yet, counted
	joins   atomic.Pointer[Waiter]
	leaves  atomic.Pointer[Waiter]
	table   atomic.Pointer[Table] // the newest of the group; nil: each waiter has its own
	recall  atomic.Bool           // all are to ask again
	began   atomic.Pointer[func()]
	_       [cacheLine]byte

	// The list belongs to the goroutine that does the work. The first have waited longest.
	first, last *Waiter
}

// Waiter is a session that waits in a queue. It is used once.
type Waiter struct {
	queue  *Queue
	client Addr
	tried  *Tried
	table  *Table
	since  int64
	wake   func()
	state  atomic.Uint32
	host   *Host // once it is called
	none   bool  // it is called because the table has no host for it
	listed bool

	own     *Host    // the one that it waits for alone, nil: for any
	ownIn   *Table   // of this table
	visitor *visitor // whose host it is

	prev, next          *Waiter // in the list
	nextJoin, nextLeave *Waiter
}

const (
	waits  uint32 = iota
	choice        // a host is being picked for it
	called        // it has a host, or has to ask again
	left
)

// Len returns how many sessions wait.
func (q *Queue) Len() int { return int(q.waiting.Load()) }

// Longest returns how many sessions have waited at once, at most.
func (q *Queue) Longest() int { return int(q.longest.Load()) }

// Outdo makes Longest at least n, which an earlier process has seen.
func (q *Queue) Outdo(n int) {
	for most := q.longest.Load(); int32(n) > most && !q.longest.CompareAndSwap(most, int32(n)); most = q.longest.Load() {
	}
}

// Join lets a session wait for a host of a table: the queue picks one as [Table.Pick]
// does, with tried, which nobody may use meanwhile. Sessions have their turn in the order
// of since, and of joining where that is the same. wake is called once, from any
// goroutine and perhaps before Join returns: then Called tells the outcome. If as many
// sessions as most wait already, Join does nothing and returns nil; 0: there is no limit.
func (q *Queue) Join(t *Table, client Addr, tried *Tried, since int64, most int, wake func()) *Waiter {
	n, ok := q.enter(most)
	if !ok {
		return nil
	}
	w := &Waiter{queue: q, client: client, tried: tried, table: t, since: since, wake: wake}
	q.Outdo(n)
	if began := q.began.Load(); began != nil && n == 1 {
		(*began)()
	}
	for {
		w.nextJoin = q.joins.Load()
		if q.joins.CompareAndSwap(w.nextJoin, w) {
			break
		}
	}
	q.run()
	return w
}

// enter counts a session that joins, unless as many as most wait: not one more does, not
// for a moment.
func (q *Queue) enter(most int) (n int, ok bool) {
	if most == 0 {
		return int(q.waiting.Add(1)), true
	}
	for {
		was := q.waiting.Load()
		if int(was) >= most {
			return int(was), false
		}
		if q.waiting.CompareAndSwap(was, was+1) {
			return int(was) + 1, true
		}
	}
}

// OnBegin makes the queue call f when a session joins and no other waits. f is called on
// the session's goroutine: it must not wait. nil: nothing is called.
func (q *Queue) OnBegin(f func()) {
	if f == nil {
		q.began.Store(nil)
		return
	}
	q.began.Store(&f)
}

// Called returns the host that was picked for the session: counted, and in its tried
// hosts. nil: there is none to wait for any more, so the session should ask again. ok is
// false while it waits.
func (w *Waiter) Called() (h *Host, ok bool) {
	if w.state.Load() != called {
		return nil, false
	}
	return w.host, true
}

// None tells, once it is called, whether the queue has found no host that the session
// could wait for: its hosts have all been tried, or are gone. If it joined again without
// a pick of its own, it would be called again at once.
func (w *Waiter) None() bool { return w.none }

// Leave takes the session out of the queue. If it was called, its host comes back, which
// somebody has to release. abandon says that its tried hosts are still in use: whoever
// does resets them, and they must not be used again.
func (w *Waiter) Leave() (h *Host, abandon bool) {
	was := w.state.Swap(left)
	if was == called {
		return w.host, false
	}
	q := w.queue
	for {
		w.nextLeave = q.leaves.Load()
		if q.leaves.CompareAndSwap(w.nextLeave, w) {
			break
		}
	}
	q.run()
	return nil, was == choice
}

// Use makes the queue pick from a new table of its group.
func (q *Queue) Use(t *Table) {
	q.table.Store(t)
	q.look()
}

// Recall makes all sessions that wait ask again: their group takes no clients any more.
func (q *Queue) Recall() {
	q.recall.Store(true)
	q.look()
}

// Look lets sessions out that a [Gate] keeps no longer.
func (q *Queue) Look() { q.look() }

// look gives free places away, if there are sessions that wait.
func (q *Queue) look() {
	if q.waiting.Load() > 0 {
		q.run()
	}
}

// run does the work that was put down, unless somebody is at it, who then does it.
func (q *Queue) run() {
	if q.work.Add(1) != 1 {
		return
	}
	for n := int64(1); n > 0; n = q.work.Add(-n) {
		n = q.work.Load() // one turn is for all
		q.takeIn()
		if q.recall.Swap(false) {
			for w := q.first; w != nil; w = q.first {
				q.call(w, nil)
			}
		}
		q.serve()
	}
}

// takeIn updates the list by who has joined and left.
func (q *Queue) takeIn() {
	var joined *Waiter // in the order of joining
	for w := q.joins.Swap(nil); w != nil; {
		next := w.nextJoin
		w.nextJoin, joined = joined, w
		w = next
	}
	for w := joined; w != nil; w = w.nextJoin {
		if w.state.Load() == left { // and it may be among those that have left already
			q.waiting.Add(-1)
			continue
		}
		q.insert(w)
	}
	for w := q.leaves.Swap(nil); w != nil; w = w.nextLeave {
		q.remove(w)
	}
}

// insert puts a waiter behind all that have waited as long.
func (q *Queue) insert(w *Waiter) {
	behind := q.last
	if q.first != nil && w.since < q.first.since {
		behind = nil
	}
	for behind != nil && behind.since > w.since {
		behind = behind.prev
	}
	w.prev, w.listed = behind, true
	if behind == nil {
		w.next, q.first = q.first, w
	} else {
		w.next, behind.next = behind.next, w
	}
	if w.next == nil {
		q.last = w
	} else {
		w.next.prev = w
	}
}

// remove takes a waiter off the list, if it is on it.
func (q *Queue) remove(w *Waiter) {
	if !w.listed {
		return
	}
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.listed = nil, nil, false
	q.waiting.Add(-1)
}

// serve gives hosts to those who wait, in their order. Who could have any host and gets
// none ends it: then nobody behind gets one. Who has tried some, or waits for one host,
// is passed.
func (q *Queue) serve() {
	for w := q.first; w != nil; {
		next := w.next
		t := q.table.Load()
		if t == nil {
			t = w.table
		}
		if t.gate != nil && t.gate.keeps(q.waiting.Load()) {
			return
		}
		if w.own != nil && w.ownIn == t && w.visitor.host.Load() == w.own && w.own.Up() && w.own.full() {
			w = next
			continue
		}
		if !w.state.CompareAndSwap(waits, choice) { // it has left
			q.remove(w)
			w = next
			continue
		}
		h, verdict := t.PickOut(w.client, w.tried)
		switch verdict {
		case Full:
			w.own, w.ownIn, w.visitor = h, t, w.tried.hold.visitor
		case Held: // no host is up: when one is, each may be tried again
			w.tried.Reset()
		}
		switch {
		case verdict != Full && verdict != Held:
			w.none = h == nil
			if q.call(w, h) {
				break
			}
			w.tried.Reset() // it has left while the host was picked, and nobody else will
			if h != nil {
				h.Release(0, 0) // for the next
			}
		case !w.state.CompareAndSwap(choice, waits):
			w.tried.Reset()
			q.remove(w)
		case w.tried.Len() == 0 && h == nil:
			return
		}
		w = next
	}
}

// call tells a waiter that it has a host, or nil for that it should ask again. It returns
// false if the waiter has left.
func (q *Queue) call(w *Waiter, h *Host) bool {
	w.host = h
	q.remove(w)
	if w.state.CompareAndSwap(waits, called) || w.state.CompareAndSwap(choice, called) {
		w.wake()
		return true
	}
	return false
}
