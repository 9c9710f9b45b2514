package core

import (
	"iter"
	"maps"
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
	closed bool          // a sched.Gate has held it: then only the end of that begins its time
	joined bool          // it has waited, now or before
	out    bool          // the queue has let it out: a gate that lets out does not stop it again
	parked bool          // it waits because the group holds its clients, not for a full host
	down   int64         // ns: when it began to wait for a host to be up; 0: it did not, or a gate was closed
	held   time.Duration // of total, that it was parked
}

// enqueue makes the session wait in the queue of the group whose hosts are full, or that
// holds its clients. The engine then calls Join.
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
	most := 0
	if w.first == 0 {
		w.first, w.before = now, q.Len()
		if w.parked && !w.joined { // one that has waited before keeps its place
			most = w.table.MostHeld()
		}
	}
	w.since, w.joined = now, true
	a.noteQueued(now)
	if w.waiter = q.Join(w.table, a.attempt.from, &a.attempt.tried, a.Started, most, wake); w.waiter == nil {
		return a.refuse(holdFull)
	}
	if !leadsTo(a.Svc.Route.Load(), q) {
		q.Recall() // who has published this route may not have found the session there
	}
	return a.awaitTurn(now)
}

// awaitTurn waits until the session is called.
func (a *Admission) awaitTurn(now int64) Step { return Step{Do: Queued, Until: a.queueLimit(now)} }

// queueLimit returns when the session has waited for too long. A gate has its own end, by
// which it lets all out: the time of the session begins only then.
func (a *Admission) queueLimit(now int64) int64 {
	w, r := &a.attempt.wait, a.Svc.Route.Load()
	switch held := a.table(r).Held(); {
	case held:
		w.closed, w.parked = true, true
		return Never
	case w.closed:
		w.closed, w.first, w.down = false, now, 0
	}
	if w.parked && w.down != 0 {
		return after(w.down, r.Timeouts.Queue)
	}
	return after(w.first, r.Timeouts.Queue)
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
	a.attempt.wait.out = host != nil || a.attempt.wait.none
	a.attempt.wait.waiter = nil
	a.waited(now)
	a.state = looking
	if host == nil {
		step := a.Next(now) // and it goes on waiting, if it has to
		if a.state != queued {
			a.waitsNoMore()
		}
		return step
	}
	a.waitsNoMore()
	if r := a.Svc.Route.Load(); r.Tries > 0 && a.attempt.tried.Len() > r.Tries || now >= a.totalLimit(r) { // it has changed
		a.attempt.tried.Forget()
		host.Release(0, 0)
		return a.Next(now)
	}
	if a.attempt.tried.Len() > 1 {
		a.Count().redispatches.Add(1)
	}
	a.noteMirrors(a.attempt.wait.table)
	return a.ask(host, now)
}

// waitsNoMore notes that the session has a host, or none to wait for. If no host was up, one
// may be for a moment alone: then the time goes on, so that a host that comes and goes does
// not make a client wait for ever.
func (a *Admission) waitsNoMore() {
	w := &a.attempt.wait
	if w.parked && !w.closed && w.down == 0 {
		w.down = w.first
	}
	w.first, w.closed, w.parked = 0, false, false
}

// addWait adds the session's time in the queue to what is known of it, and returns it in
// nanoseconds.
func (a *Admission) addWait(now int64) (d int64) {
	w := &a.attempt.wait
	d = max(now-w.since, 0)
	w.total += time.Duration(d)
	w.last = time.Duration(d)
	if w.parked {
		w.held += time.Duration(d)
	}
	a.attempt.since += d
	a.noteWaited(d)
	return d
}

// waited counts the session's time in the queue. The time for all connects goes on
// behind it.
func (a *Admission) waited(now int64) {
	w := &a.attempt.wait
	d := a.addWait(now)
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

// Held returns for how long the session has waited until now because its group held its
// clients. Of one that stays with its host only its record says so.
func (a *Admission) Held(now int64) time.Duration {
	if a.attempt == nil {
		if a.notes != nil {
			return a.notes.held
		}
		return 0
	}
	w := &a.attempt.wait
	if w.waiter != nil && w.parked {
		return w.held + time.Duration(max(now-w.since, 0))
	}
	return w.held
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

// Dismiss lets those go who are held in services that next no longer has: nobody would ever open
// their gate. They go to the active group, as if their own had been deleted, or are rejected if
// that is the one. Who waits for a host that is full waits on, as its sessions go on and end.
func (s *Serving[L]) Dismiss(next *Serving[L]) {
	for name, svc := range s.Services {
		before := svc.Route.Load()
		if next.Services[name] == svc || before == nil || !holdsAny(before) {
			continue
		}
		route := *before
		if route.Table.Held() {
			route.Table = nil
		}
		route.Groups = maps.Clone(route.Groups)
		maps.DeleteFunc(route.Groups, func(_ engine.GroupID, t *sched.Table) bool { return t.Held() })
		svc.Route.Store(&route)
		requeue(before, &route)
	}
}

// holdsAny tells whether a gate holds sessions of a route.
func holdsAny(r *engine.Route) bool {
	for t := range tablesOf(r) {
		if t.Held() {
			return true
		}
	}
	return false
}

// holdsOtherwise tells whether a gate holds sessions of a route that it did not hold with
// the route before, or the other way round: then the time of those that wait is another.
func holdsOtherwise(before, now *engine.Route) bool {
	for t := range tablesOf(now) {
		for was := range tablesOf(before) {
			if t.Queue() == was.Queue() && t.Held() != was.Held() {
				return true
			}
		}
	}
	return false
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
