package core

import (
	"iter"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// waiting is a session's time in the queue of a group.
type waiting struct {
	waiter *sched.Waiter // nil while it is in none
	table  *sched.Table  // of the group, the last whose hosts were full
	first  int64         // ns: when it began to wait for the host that it looks for; 0: not yet
	since  int64         // ns: since when it is in this queue
	total  time.Duration // that it has waited, all times together
	last   time.Duration // of these, the last time
	none   bool          // the queue has just found no host for it: it asks the table itself
	before int           // how many were there when it came
}

// enqueue makes the session wait in the queue of the group whose hosts are full. The
// engine then calls Join.
func (a *Admission) enqueue() Step {
	a.state = queued
	return Step{Do: Queue}
}

// Join puts the session into the queue. wake is called once, by any goroutine and
// perhaps before Join returns; it must not wait. Call Called then, on the session's own.
func (a *Admission) Join(now int64, wake func()) Step {
	if a.state != queued || a.attempt.wait.waiter != nil {
		return Step{}
	}
	w := &a.attempt.wait
	q := w.table.Queue()
	if w.first == 0 {
		w.first, w.before = now, q.Len()
	}
	w.since = now
	w.waiter = q.Join(w.table, a.attempt.from, &a.attempt.tried, a.Started, wake)
	if !leadsTo(a.Svc.Route.Load(), q) {
		q.Recall() // who has published this route may not have found the session there
	}
	return a.awaitTurn()
}

// awaitTurn waits until the session is called.
func (a *Admission) awaitTurn() Step { return Step{Do: Queued, Until: a.queueLimit()} }

// queueLimit returns when the session has waited for too long.
func (a *Admission) queueLimit() int64 {
	return after(a.attempt.wait.first, a.Svc.Route.Load().Timeouts.Queue)
}

// Called reports that wake was called: the session has a host, or looks for one again
// because its group has changed.
func (a *Admission) Called(now int64) Step {
	if a.state != queued || a.attempt.wait.waiter == nil {
		return Step{}
	}
	host, ok := a.attempt.wait.waiter.Called()
	if !ok {
		return Step{}
	}
	a.attempt.wait.none = a.attempt.wait.waiter.None()
	a.attempt.wait.waiter = nil
	a.waited(now)
	a.state = looking
	if host == nil {
		step := a.Next(now) // and it goes on waiting, if it has to
		if a.state != queued {
			a.attempt.wait.first = 0
		}
		return step
	}
	a.attempt.wait.first = 0
	if r := a.Svc.Route.Load(); r.Tries > 0 && a.attempt.tried.Len() > r.Tries || now >= a.totalLimit(r) { // it has changed
		a.attempt.tried.Forget()
		host.Release(0, 0)
		return a.Next(now)
	}
	if a.attempt.tried.Len() > 1 {
		a.Count().redispatches.Add(1)
	}
	return a.ask(host, now)
}

// waited counts the session's time in the queue. The time for all connects goes on
// behind it.
func (a *Admission) waited(now int64) {
	w := &a.attempt.wait
	d := max(now-w.since, 0)
	w.total += time.Duration(d)
	w.last = time.Duration(d)
	a.attempt.since += d
	w.table.Times().Queued(a.gate.Index, time.Duration(d))
}

// unqueue takes the session out of the queue, for good.
func (a *Admission) unqueue(now int64) {
	w := a.attempt.wait.waiter
	if w == nil { // it has not joined yet
		return
	}
	a.waited(now)
	a.attempt.wait.waiter = nil
	host, abandon := w.Leave()
	switch {
	case host != nil:
		host.Release(0, 0)
	case abandon:
		a.attempt = nil // somebody is picking a host with it
	}
}

// requeue makes the queues of a service go on with its new route: those that it leads to
// with new tables, and the sessions of others look where to go now.
func requeue(before, now *engine.Route) {
	for t := range tablesOf(now) {
		t.Queue().Use(t)
	}
	if before == nil {
		return
	}
	for t := range tablesOf(before) {
		if q := t.Queue(); !leadsTo(now, q) {
			q.Recall()
		}
	}
}

// leadsTo tells whether sessions of a route may wait in a queue.
func leadsTo(r *engine.Route, q *sched.Queue) bool {
	for t := range tablesOf(r) {
		if t.Queue() == q {
			return true
		}
	}
	return false
}

// tablesOf yields the tables of a route that have hosts.
func tablesOf(r *engine.Route) iter.Seq[*sched.Table] {
	return func(yield func(*sched.Table) bool) {
		if r.Table.Queue() != nil && !yield(r.Table) {
			return
		}
		for _, t := range r.Groups {
			if t.Queue() != nil && !yield(t) {
				return
			}
		}
	}
}
