package core

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// What a session notes of its way, for [engine.Story]. All have a course, which is small. A trail, in
// Notes, have only those to which something happened that happens to few.

// course has the times that every session notes.
type course struct {
	connected stamp // its host was ready for it
	firstIn   stamp // the first byte from the client was sent on
	firstOut  stamp // and the first from the host
	closed    stamp // one side ended first
}

// marks are what a session notes in a bit.
type marks uint8

const (
	clientFirst marks = 1 << iota // the client ended first
	hostFirst                     // the host did
	withReset                     // and it was a reset
	hasMoved                      // it came from another process
	wasDown                       // the host, when the connect began: it was a last resort
	isDialed                      // by the program itself
)

func (a *Admission) mark(m marks, on bool) {
	a.marks &^= m
	if on {
		a.marks |= m
	}
}

// trail is what only some sessions note.
type trail struct {
	heard  stamp // its PROXY header, ClientHello or TLS handshake was whole
	asked  stamp // its host was asked, later than at once
	queued stamp // it came into a queue
	waited int64 // ns in queues, all together
	length int   // of the queue when it came

	tries  []try
	untold int // tries that were left out before the last

	stalled [2]stall // by client, host
}

// stall is how long a side did not take what was there for it.
type stall struct {
	since int64 // ns; 0: it takes what comes
	total int64 // ns
}

// try is a host that did not take the session.
type try struct {
	host  *sched.Host
	at    stamp
	took  int64 // ns
	times int
	what  tried
	why   error // nil: there is no more to say
}

// tried is what became of a connect: the reasons of connectFailure, and what is none.
type tried = connectFailure

const (
	noPledge  tried = connectFailures + iota // the host did not agree to TLS
	abandoned                                // the session could not wait for the answer
)

// wires are the numbers of the results in a passport. They are never used again.
var wires = [...]tried{refused, timedOut, unreachable, dropped, local, forbidden, noHostTLS, other, noPledge, abandoned}

func (c connectFailure) wire() uint8 { return uint8(max(slices.Index(wires[:], c), 0)) }

// triedOf is its inverse; a result of a version to come is another one.
func triedOf(wire uint8) tried {
	if int(wire) < len(wires) {
		return wires[wire]
	}
	return other
}

// mostTries bounds what a session notes of hosts that did not take it: the first ones, and the last.
const mostTries = 16

// stamp is a time since the session was accepted; 0: it has not come. It counts µs for 35 minutes and
// ms from then on, for 25 days, where it stays.
type stamp uint32

const coarse stamp = 1 << 31

// stampOf returns the stamp of a time so many ns after the accept.
func stampOf(since int64) stamp {
	if us := uint64(max(since, 0)) / uint64(time.Microsecond); us < uint64(coarse)-1 {
		return stamp(us) + 1
	}
	return coarse | stamp(min(uint64(since)/uint64(time.Millisecond), uint64(coarse)-1))
}

// since is the inverse of stampOf, -1 of none.
func (s stamp) since() time.Duration {
	switch {
	case s == 0:
		return -1
	case s&coarse != 0:
		return time.Duration(s&^coarse) * time.Millisecond
	}
	return time.Duration(s-1) * time.Microsecond
}

// stamped is the stamp of now for this session.
func (a *Admission) stamped(now int64) stamp { return stampOf(now - a.Started) }

// Sent notes that the first byte that came from a side was sent on.
func (a *Admission) Sent(from engine.Side, now int64) {
	if from == engine.OfClient {
		a.firstIn = a.stamped(now)
	} else {
		a.firstOut = a.stamped(now)
	}
}

// Closed notes that a side has ended, and whether with a reset. Only the first counts.
func (a *Admission) Closed(side engine.Side, reset bool, now int64) {
	if a.marks&(clientFirst|hostFirst) == 0 {
		a.mark(clientFirst, side == engine.OfClient)
		a.mark(hostFirst, side == engine.OfHost)
		a.mark(withReset, reset)
		a.closed = a.stamped(now)
	}
}

// reopened forgets that a host has ended, because the session goes to another.
func (a *Admission) reopened() {
	if a.marks&hostFirst != 0 {
		a.mark(hostFirst|withReset, false)
		a.closed = 0
	}
}

// Stalled notes that a side does not take what is there for it.
func (a *Admission) Stalled(side engine.Side, now int64, free *Attempts) {
	if s := &a.note(free).stalled[side-engine.OfClient]; s.since == 0 {
		s.since = now
	}
}

// Takes notes that a side takes what comes. It is called often, and has seldom something to do.
func (a *Admission) Takes(side engine.Side, now int64) {
	if a.notes != nil {
		a.notes.stalled[side-engine.OfClient].over(now)
	}
}

// StalledFor notes that a side has taken nothing for so long. The write that has waited may return
// when the session is over.
func (a *Admission) StalledFor(side engine.Side, ns int64, free *Attempts) {
	if a.state != over {
		a.note(free).stalled[side-engine.OfClient].total += ns
	}
}

func (s *stall) over(now int64) {
	if s.since != 0 {
		s.total += max(now-s.since, 0)
		s.since = 0
	}
}

// noteHeard notes that what was to be heard of the client is whole.
func (a *Admission) noteHeard(now int64, free *Attempts) { a.note(free).heard = a.stamped(now) }

// noteAsked notes when the session's host was picked, if that was not in the turn of the accept.
func (a *Admission) noteAsked(now int64) {
	if now != a.Started {
		a.note(a.gate.free()).asked = a.stamped(now)
	}
}

// noteQueued notes that the session has come into a queue.
func (a *Admission) noteQueued(now int64) {
	n := a.note(a.gate.free())
	if n.queued == 0 {
		n.queued, n.length = a.stamped(now), a.attempt.wait.before
	}
	n.table = a.attempt.wait.table
}

// noteWaited notes that the session was in a queue for so long.
func (a *Admission) noteWaited(ns int64) { a.note(a.gate.free()).waited += ns }

// began returns when the session's host was asked, as far as that is noted: to a µs or a ms.
func (a *Admission) began() int64 {
	if a.notes == nil || a.notes.asked == 0 {
		return a.Started // at once
	}
	return a.Started + int64(a.notes.asked.since())
}

// noteTry notes what became of the connect to the session's host, and why, if more is known.
func (a *Admission) noteTry(now int64, what tried, why error) {
	n, t := a.note(a.gate.free()), a.attempt
	a.connected = 0
	if n.table == nil && t != nil {
		n.table = a.table(a.Svc.Route.Load())
	}
	at, took := a.Started, now-a.Started
	if t != nil {
		at, took = t.began, now-t.began
	}
	last := len(n.tries) - 1
	switch {
	case last >= 0 && n.tries[last].host == a.Host && n.tries[last].what == what:
		n.tries[last].took += took
		n.tries[last].times++
		return
	case last+1 == mostTries:
		n.untold++
		last--
		n.tries = n.tries[:last+1]
	}
	n.tries = append(n.tries, try{a.Host, a.stamped(at), took, 1, what, why})
}

// noteErrno is noteTry of a connect that the system has answered with an error.
func (a *Admission) noteErrno(now int64, what tried, errno syscall.Errno) {
	switch {
	case what == refused && errno == syscall.ECONNREFUSED, what == timedOut:
		a.noteTry(now, what, nil)
	default:
		a.noteTry(now, what, connect.Reason(errno, a.Source()))
	}
}

// drop forgets what was noted, and keeps the room for it.
func (t *trail) drop() {
	clear(t.tries)
	*t = trail{tries: t.tries[:0]}
}

// result names what became of a connect.
func (t *try) result() engine.TryResult {
	switch t.what {
	case noPledge:
		return engine.TryNoTLS
	case abandoned:
		return engine.TryAbandoned
	}
	return engine.TryResult(t.what.String())
}

// stage returns how far the session has come.
func (a *Admission) stage() engine.Stage {
	switch a.state {
	case unheard, unwelcome:
		return engine.StageHeader
	case untold:
		return engine.StageHello
	case shaking:
		return engine.StageHandshake
	case queued:
		return engine.StageQueued
	case picked, asked, queueFull:
		return engine.StageConnecting
	case pledging, securing:
		return engine.StageSecuring
	case admitted:
		return engine.StageConnected
	case turnedAway:
		return engine.StageRejected
	case over:
		return engine.StageEnded
	}
	return engine.StageLooking
}

// pass returns what goes along to another process.
func (a *Admission) pass(now int64) *PassStory {
	s := &PassStory{
		Connected: uint32(a.connected), FirstIn: uint32(a.firstIn), FirstOut: uint32(a.firstOut), Closed: uint32(a.closed),
		Marks: uint8(a.marks &^ wasDown),
	}
	n := a.notes
	if n == nil {
		return s
	}
	s.Heard, s.Asked, s.Queued, s.Waited, s.Length = uint32(n.heard), uint32(n.asked), uint32(n.queued), n.waited, n.length
	s.Name, s.Untold = append([]byte(nil), n.name.Bytes()...), n.untold
	s.Held = int64(a.Held(now))
	for i := range n.stalled {
		n.stalled[i].over(now) // where it goes on, it is seen again
		s.Stalled[i] = n.stalled[i].total
	}
	for i := range n.tries {
		t := &n.tries[i]
		one := PassTried{Host: nameOf(t.host), At: uint32(t.at), Took: t.took, Times: t.times, What: t.what.wire()}
		if t.why != nil {
			one.Why = t.why.Error()
		}
		s.Tries = append(s.Tries, one)
	}
	return s
}

// resume takes on what another process has noted. hosts are those that it may have tried.
func (a *Admission) resume(s *PassStory, find func(PassHost) *sched.Host) {
	a.mark(hasMoved, true)
	if s == nil {
		return
	}
	a.course = course{stamp(s.Connected), stamp(s.FirstIn), stamp(s.FirstOut), stamp(s.Closed)}
	a.marks |= marks(s.Marks) & (clientFirst | hostFirst | withReset)
	if s.Heard|s.Asked|s.Queued == 0 && len(s.Name)+len(s.Tries) == 0 && s.Stalled == [2]int64{} {
		return
	}
	n := a.note(a.gate.free())
	n.heard, n.asked, n.queued, n.waited, n.length = stamp(s.Heard), stamp(s.Asked), stamp(s.Queued), max(s.Waited, 0), s.Length
	n.name.Set(s.Name)
	n.untold, n.held = s.Untold, time.Duration(max(s.Held, 0))
	for i := range s.Stalled {
		n.stalled[i].total = max(s.Stalled[i], 0)
	}
	for _, t := range s.Tries {
		one := try{host: find(t.Host), at: stamp(t.At), took: max(t.Took, 0), times: t.Times, what: triedOf(t.What)}
		if t.Why != "" {
			one.why = errors.New(t.Why)
		}
		n.tries = append(n.tries, one)
	}
}

// Tell writes into a story what the admission of a session that runs knows.
func (a *Admission) Tell(s *engine.Story, epoch time.Time, now int64) {
	s.Service, s.Stage = a.Svc.Name, a.stage()
	s.Accepted, s.Age = epoch.Add(time.Duration(a.Started)), time.Duration(max(now-a.Started, 0))
	a.notes.tell(s, now)
	a.course.tell(s, a.marks)
	s.Host, s.Held = a.Host, a.Held(now)
	if t := a.attempt; t != nil {
		if a.Host != nil {
			s.Asked = stampOf(t.began - a.Started).since()
		}
		if t.wait.waiter != nil {
			s.Waited += time.Duration(max(now-t.wait.since, 0))
		}
	} else if s.Asked < 0 {
		s.Asked = 0 // at once
	}
	if s.Host == nil && len(s.Tries) > 0 {
		s.Host = s.Tries[len(s.Tries)-1].Host
	}
	if a.state == turnedAway {
		s.Rejected = a.Why.String()
	}
}

func (c *course) tell(s *engine.Story, m marks) {
	s.Connected, s.FirstIn, s.FirstOut, s.Closed = c.connected.since(), c.firstIn.since(), c.firstOut.since(), c.closed.since()
	switch {
	case m&clientFirst != 0:
		s.First = engine.OfClient
	case m&hostFirst != 0:
		s.First = engine.OfHost
	}
	s.Reset, s.Moved, s.Dialed = m&withReset != 0, m&hasMoved != 0, m&isDialed != 0
}

// tell writes what the notes have; nil: there are none.
func (n *Notes) tell(s *engine.Story, now int64) {
	s.Heard, s.Queued, s.Asked = -1, -1, -1
	if n == nil {
		return
	}
	if n.table != nil {
		s.Group = n.table.Group()
	}
	if n.headed {
		s.Proxied, s.Client, s.To = true, n.origin.Client, n.origin.To
	}
	s.ServerName = string(n.name.Bytes())
	s.Heard, s.Asked = n.heard.since(), n.asked.since()
	s.Queued, s.Waited, s.Before = n.queued.since(), time.Duration(n.waited), n.length
	s.Untold = n.untold
	for i := range n.tries {
		t := &n.tries[i]
		why := ""
		if t.why != nil {
			why = t.why.Error()
		}
		s.Tries = append(s.Tries, engine.Try{Host: t.host, At: t.at.since(), Took: time.Duration(t.took), Result: t.result(), Why: why, Times: t.times})
	}
	for i := range n.stalled {
		one := n.stalled[i]
		one.over(now)
		s.Stalled[i] = time.Duration(one.total)
	}
}

// Last is what only the engine knows of a session that ends.
type Last struct {
	ID        uint64
	Client    netip.AddrPort // that it was accepted from
	In, Out   uint64
	Turns     engine.Turnarounds
	TCP       [2]engine.TCPInfo // client, host
	Goroutine bool
}

// Past keeps the stories of the last sessions of a gate that have ended. Those that never came as
// far as a host or a queue, as of strangers whom a limit rejects, push out none of the others. It
// belongs to the gate's goroutine.
type Past struct {
	served, rejected ring
}

// pastSessions is how many stories of a kind are kept: 264 bytes each, and 360 more for a session with
// notes. Memory is taken as they come.
const pastSessions = 1000

// ring keeps the last stories of a kind.
type ring struct {
	list  []past
	added uint64 // in all; number n, from 0, is at n%pastSessions
}

// past is a session that has ended.
type past struct {
	last           Last
	service, group string
	host           *sched.Host
	notes          *Notes // nil: it had none
	started, ended int64
	course         course
	marks          marks
	how            Termination
	why            Refusal
	turnedAway     bool
}

// add keeps the story of a session that ends now, and takes its notes. Those that it
// overwrites become free.
func (p *Past) add(a *Admission, host *sched.Host, now int64, how Termination, last *Last, free *Attempts) {
	r := &p.served
	if host == nil && (a.notes == nil || a.notes.queued == 0 && len(a.notes.tries) == 0) {
		r = &p.rejected
	}
	if len(r.list) < pastSessions {
		r.list = append(r.list, past{})
	}
	one := &r.list[r.added%pastSessions]
	r.added++
	free.putNotes(one.notes)
	*one = past{
		last: *last, service: a.Svc.Name, host: host, notes: a.notes, started: a.Started, ended: now, course: a.course, marks: a.marks,
		how: how, why: a.Why, turnedAway: a.state == turnedAway,
	}
	if a.notes != nil {
		for i := range a.notes.stalled {
			a.notes.stalled[i].over(now)
		}
		if t := a.notes.table; t != nil { // which has all that a scheduler needs
			one.group, a.notes.table = t.Group(), nil
		}
		a.notes = nil
	}
}

// find returns the story of a session, if it is kept.
func (p *Past) find(id uint64) *past {
	for _, r := range []*ring{&p.served, &p.rejected} {
		for i := range r.list {
			if r.list[i].last.ID == id {
				return &r.list[i]
			}
		}
	}
	return nil
}

// Find returns the story of a session that has ended, if it is kept. epoch is 0 on the clock of
// the engine.
func (p *Past) Find(id uint64, epoch time.Time) (s engine.Story, ok bool) {
	one := p.find(id)
	if one == nil {
		return s, false
	}
	one.tell(&s, epoch)
	return s, true
}

// PastReader reads the stories of the sessions that have ended last in steps, the last one first,
// while others go on to end. It may lose the oldest ones, and has none of those that end later.
type PastReader struct {
	past  *Past
	next  [2]uint64 // the story behind the one that is next, of each ring
	epoch time.Time
	list  []engine.Story
	most  int
}

// storiesAtOnce is how many stories a step takes: each costs about a microsecond.
const storiesAtOnce = 128

// Read begins to read at most so many stories.
func (p *Past) Read(most int, epoch time.Time) PastReader {
	most = max(min(most, len(p.served.list)+len(p.rejected.list)), 0)
	return PastReader{past: p, next: [2]uint64{p.served.added, p.rejected.added}, epoch: epoch, list: make([]engine.Story, 0, most), most: most}
}

// Step reads some. more tells whether there are more.
func (r *PastReader) Step() (more bool) {
	for range storiesAtOnce {
		served, rejected := r.past.served.before(r.next[0]), r.past.rejected.before(r.next[1])
		one := served
		switch {
		case len(r.list) == r.most || served == nil && rejected == nil:
			return false
		case served == nil || rejected != nil && rejected.ended > served.ended:
			one = rejected
			r.next[1]--
		default:
			r.next[0]--
		}
		r.list = append(r.list, engine.Story{})
		one.tell(&r.list[len(r.list)-1], r.epoch)
	}
	return true
}

// List returns what was read.
func (r *PastReader) List() []engine.Story { return r.list }

// Latest returns those of list that have ended last, at most so many, the last one first.
func Latest(list []engine.Story, most int) []engine.Story {
	ended := func(s *engine.Story) time.Time { return s.Accepted.Add(s.Age) }
	slices.SortStableFunc(list, func(a, b engine.Story) int { return ended(&b).Compare(ended(&a)) })
	return list[:min(len(list), most)]
}

// before returns the story before the n-th that was added, nil behind the oldest.
func (r *ring) before(n uint64) *past {
	if n == 0 || r.added-n >= uint64(len(r.list)) {
		return nil
	}
	return &r.list[(n-1)%pastSessions]
}

func (p *past) tell(s *engine.Story, epoch time.Time) {
	s.ID, s.Service, s.Stage = p.last.ID, p.service, engine.StageEnded
	s.Accepted, s.Age = epoch.Add(time.Duration(p.started)), time.Duration(max(p.ended-p.started, 0))
	s.Client, s.In, s.Out, s.TCP = Unmapped(p.last.Client), p.last.In, p.last.Out, p.last.TCP
	s.Turns = p.last.Turns
	s.Goroutine = p.last.Goroutine
	p.notes.tell(s, p.ended)
	s.Group = p.group
	if p.notes != nil {
		s.Held = p.notes.held
	}
	p.course.tell(s, p.marks)
	s.Host = p.host
	if n := len(s.Tries); s.Host == nil && n > 0 {
		s.Host = s.Tries[n-1].Host
	}
	if s.Asked < 0 && s.Connected >= 0 {
		s.Asked = 0 // at once
	}
	s.Termination = p.how.String()
	if p.turnedAway {
		s.Rejected = p.why.String()
	}
}
