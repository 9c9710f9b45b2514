//go:build linux

package loops

import (
	"github.com/txlb/txlb/engine/internal/core"
)

// timers are those of a loop, with when they may fire. A timer says that nothing has come for
// a while, and only the sockets know: a process that stood still (SIGSTOP, a paused
// machine, no processor) wakes up with its timers due and with all that has come
// meanwhile unread. So a timer fires only after a poll that began when the timer
// was due already, and after everything that was pending then has been taken in.
type timers struct {
	wheel
	beat timer // the loop's own: it publishes bytes, and takes paused listeners back in

	alarmAt int64 // when the clock goes off; 0: it is not set
	polled  int64 // the loop's time before it asked for the events of this turn

	// While polls return full batches, more events are pending. They come in
	// order, so that after this many batches all have come that were pending at
	// backlogAt.
	backlog   int
	backlogAt int64

	holdTill int64 // no timer fires before
}

// due tells whether the clock has gone off, or would have if it had been set.
func (t *timers) due(now int64) bool { return t.alarmAt != 0 && t.alarmAt <= now }

// run fires the timers that may fire in this turn. pending is how many events there may
// have been when the poller was asked, 0 if all of them have been taken in.
func (t *timers) run(now int64, pending int) {
	asOf := t.polled
	t.polled = now
	if !t.due(asOf) {
		return
	}
	if pending > 0 {
		if t.backlog == 0 {
			t.backlog, t.backlogAt = 1+pending/batchSize, asOf
		}
		if t.backlog--; t.backlog > 0 {
			return
		}
		asOf = t.backlogAt
	}
	t.backlog = 0
	late := asOf - t.alarmAt
	afterHold := t.alarmAt == t.holdTill // never twice in a row: timers have to fire some time
	t.alarmAt = 0
	if late > stoodStill && !afterHold {
		t.holdTill = now + catchUp
		return
	}
	t.wheel.run(asOf)
}

// setAlarm sets the clock if the wheel is due before it goes off. For what is due
// already it need not be set: the loop does not sleep then.
func (t *timers) setAlarm(now int64, sys kernel) {
	if t.count == 0 {
		return
	}
	due, ok := t.wheel.next()
	// The wheel names the beginning of a slot, which after a quiet time may be long
	// past. That does not mean that the loop stood still.
	if due = max(due, t.holdTill, now); !ok || t.alarmAt != 0 && due >= t.alarmAt {
		return
	}
	t.alarmAt = due
	if due > now {
		sys.alarm(due - now)
	}
}

// beatBy makes the loop's own timer go off at when or before.
func (t *timers) beatBy(when int64) {
	if !t.beat.armed() || when < t.beat.when {
		t.set(&t.beat, when)
	}
}

// onTimer is called by the wheel with the time as of which timers fire.
func (l *loop) onTimer(t *timer, now int64) {
	s := t.owner
	switch {
	case s == nil:
		l.onBeat()
	case s.phase == connecting:
		l.follow(s, s.Admission.Deadline(now))
	case s.phase == established:
		l.deadline(s, now)
	case s.phase == refusing:
		l.end(s, s.Why.Termination())
	case s.phase == lingering:
		l.linger(s)
	}
}

// retime makes the sessions of some services look at their time-outs, which have
// changed. A timer that goes off too early is set again anyway; one that would go
// off too late is not. The value of a service is true if the kernel's have changed
// too. retime does not wait; any goroutine may call it.
func (l *loop) retime(services map[*core.Service]bool) {
	l.visit(func(s *session) bool {
		if keep, concerned := services[s.Svc]; concerned {
			if keep {
				l.keep(s)
			}
			l.look(s)
		}
		return true
	}, func() {})
}

// look sets the timer of a session whose time-outs have changed.
func (l *loop) look(s *session) {
	switch {
	case s.phase == established:
		l.expect(s, min(s.silenceLimit(), s.LateAgeLimit(s.slot, l.now)))
	case s.phase == connecting:
		l.follow(s, s.Retimed(l.now))
	}
}

// keep sets the time-outs that the kernel keeps for us on both sockets.
func (l *loop) keep(s *session) {
	k := core.KeptBy(s.Svc.Route.Load())
	for i := range s.ends {
		e := &s.ends[i]
		if e.fd < 0 || e.is(unixSocket) {
			continue
		}
		if i == client || s.phase == established { // a backend gets it when it is connected
			l.setOption(e, unackedOption(k))
		}
		if e.is(tuned) {
			for _, o := range keepAliveOptions(k) {
				l.setOption(e, o)
			}
		}
	}
}
