package core

import (
	"net/netip"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// Notes are what only some sessions have: what a PROXY header has said, a hold on what is
// remembered of their client, which client they count for against a limit, and, while
// sessions are recorded, what their records will say.
type Notes struct {
	origin Origin
	headed bool       // origin is what a header has said
	hold   sched.Hold // of a settled session

	counted *client // which the session is counted for; nil: for none

	trail
	name engine.ServerName // that the client's TLS asks for, if it was read

	recorded  bool // from here on: what the record will say
	client    netip.AddrPort
	table     *sched.Table
	host      *sched.Host // the last that was asked
	picked    int64       // ns
	connected int64       // ns
	retries   int
	before    int // sessions in the queue when it came
	held      time.Duration

	next *Notes // free, of Attempts
}

// Origin is what a PROXY header has said of a session.
type Origin struct {
	Client netip.AddrPort
	To     netip.AddrPort // what the client has connected to
}

// Origin returns what a PROXY header has said; nil: there was none, or it said nothing.
func (a *Admission) Origin() *Origin {
	if a.notes == nil || !a.notes.headed {
		return nil
	}
	return &a.notes.origin
}

// PutNotes takes the session's notes back, if it has some.
func (l *Attempts) PutNotes(a *Admission) {
	l.putNotes(a.notes)
	a.notes = nil
}

func (l *Attempts) putNotes(n *Notes) {
	if n != nil {
		n.drop()
		*n = Notes{next: l.notes, trail: n.trail}
		l.notes = n
	}
}

// note returns the session's notes, blank ones if it had none.
func (a *Admission) note(free *Attempts) *Notes {
	if a.notes == nil {
		a.notes = free.notes
		if a.notes == nil {
			a.notes = new(Notes)
		}
		free.notes, a.notes.next = a.notes.next, nil
	}
	return a.notes
}

func (a *Admission) noteHeader(free *Attempts, client, to netip.AddrPort) {
	n := a.note(free)
	n.origin, n.headed = Origin{client, to}, true
}

// Recorded tells whether the session has noted what its record needs.
func (a *Admission) Recorded() bool { return a.notes != nil && a.notes.recorded }

// Record makes the session note what its record will say. client is the address that
// it was accepted from.
func (a *Admission) Record(free *Attempts, client netip.AddrPort) {
	n := a.note(free)
	n.recorded, n.client, n.host = true, Unmapped(client), a.Host
}

func (a *Admission) noteTable(t *sched.Table) {
	if a.notes != nil {
		a.notes.table = t
	}
}

// noteName notes what server the client's TLS asks for.
func (a *Admission) noteName(name []byte) {
	if len(name) > 0 {
		a.note(a.gate.free()).name.Set(name)
	}
}

// notePick notes that the session's host was picked.
func (a *Admission) notePick(now int64) {
	if n := a.notes; n != nil {
		n.host, n.picked, n.connected = a.Host, now, 0
		n.retries = max(a.attempt.tried.Len()-1, 0)
		n.before, n.held = a.attempt.wait.before, a.attempt.wait.held
	}
}

func (a *Admission) noteConnected(now int64) {
	if a.notes != nil {
		a.notes.connected = now
	}
}

// endingOf says more exactly how a session ends: what one was doing that was killed, and
// whether the last host refused or did not answer.
func (a *Admission) endingOf(how Termination) Termination {
	switch {
	case how == noServer && a.attempt != nil && a.attempt.late:
		return connectTime
	case how != Killed || a.state == admitted:
		return how
	case a.state == turnedAway: // it only waits for the client to close
		return a.endingOf(a.Why.Termination())
	case a.state == unheard || a.state == untold || a.state == shaking:
		return killedUnheard
	case a.state == queued:
		return queueKilled
	}
	return killedConnecting
}

// record hands the session's record over, if sessions are recorded. The session is
// off its host's count, and still on all others.
func (a *Admission) record(now int64, how Termination, last *Last) {
	if !a.Recorded() {
		return
	}
	n := a.notes
	if t := a.attempt; t != nil && t.wait.first != 0 { // it left the queue without a host
		n.before, n.picked, n.held = t.wait.before, now, a.Held(now)
		if t.wait.total > 0 {
			n.picked = t.wait.since + int64(t.wait.last)
		}
	}
	a.gate.Log.Put(func(r *engine.Record) {
		r.ID, r.Service, r.Table, r.Host = last.ID, a.Svc.Name, n.table, n.host
		r.Client, r.Proxied = n.client, n.headed
		if n.headed {
			r.Client = Unmapped(n.origin.Client)
		}
		r.Accepted, r.Picked, r.Connected, r.Ended = a.Started, n.picked, n.connected, now
		r.In, r.Out, r.Turns = last.In, last.Out, last.Turns
		r.Retries, r.ServerName, r.Before, r.Held = n.retries, n.name, n.before, n.held
		r.How, r.Why = how.String(), ""
		if a.state == turnedAway {
			r.Why = a.Why.String()
		}
		r.Sessions, r.OnHost = a.gate.Active(), 0
		if n.host != nil {
			r.OnHost = n.host.Sessions()
		}
		r.CountService(a.Count().active.Load(), a.gate.Index, a.Svc)
	})
}
