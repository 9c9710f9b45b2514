//go:build linux

package loops

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/uring"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// loop owns its listeners, sessions, pipes, buffers and timers. They are touched
// only by its goroutine; what others want done, they submit.
//
// A turn takes in a batch of events, receives for each, and does at its end
// together what the batch asked for: sends, then splices, timers, tasks, and
// last the closes, so that no event of a batch is ever stale. Each of these has a
// part, which keeps what waits for it.
type loop struct {
	index int
	eng   *Engine
	gate  core.Gate // for the admissions of its sessions
	poll  *poller
	sys   kernel // for the sessions
	table sessionTable
	count loopCounters

	now     int64  // ns since the engine's epoch, read once a turn
	tallied int64  // ns: until then its time awake is counted
	retries int    // connects that may still follow a failed one in this turn
	looked  int    // which other loop was last compared with this one
	waste   []byte // takes what refused clients have sent
	spares  bufferPool

	acceptor  acceptor         // where sessions come from
	agenda    agenda           // which go on in this turn
	batch     batch            // what they send
	bulk      bulk             // which wait to splice
	timers    timers           // which wait for a time
	inbox     inbox            // what others want done
	acks      acks             // what is owed to backends
	ledger    ledger           // what has to be published
	turns     *sched.TurnTally // likewise
	leftovers leftovers        // what has ended
	copies    copies           // connections to mirrors

	keeping *keeping // nil: there is no keeper
	youths  []youth  // sessions that are going to be kept, the oldest first

	quit bool
	done chan struct{} // closed when run returns
}

func newLoop(e *Engine, index int, pipes *splice.Budget) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	k := linux{poller: p, pool: splice.NewPool(e.opt.PipeSize, pipes), ringFrom: e.tuning.RingFrom}
	if e.opt.Ring == engine.RingAuto {
		if k.ring.Ring, err = uring.New(e.tuning.OldRing); err != nil {
			e.ring = engine.Facility{Name: engine.IOUring, Why: err.Error(), Refused: true}
		}
	}
	return assemble(e, index, p, k), nil
}

// assemble makes a loop that waits on p and whose sessions live on sys.
func assemble(e *Engine, index int, p *poller, sys kernel) *loop {
	l := &loop{
		index: index, eng: e, sys: sys, keeping: e.keeping, gate: core.Gate{Index: index, Report: e.failures.Report, Active: e.census.active},
		batch: newBatch(), inbox: newInbox(p), turns: sched.NewTurnTally(index), waste: make([]byte, readSize), poll: p, done: make(chan struct{}),
	}
	l.gate.Free, l.gate.Past = &l.table.tries, new(core.Past)
	l.timers.fire = l.onTimer
	l.agenda = agenda{ready: onLines[*session](), taken: onLines[*session]()}
	l.bulk.line = onLines[turnRef]()
	l.acks = acks{owing: onLines[turnRef](), owed: onLines[turnRef]()}
	l.ledger.dirty = onLines[told]()
	l.leftovers = leftovers{watches: onLines[watchOp](), fds: onLines[int32](), sessions: onLines[*session]()}
	l.acceptor = acceptor{
		poll: p, census: e.census, inbox: &l.inbox, timers: &l.timers, now: &l.now,
		backlog: e.opt.Backlog, accepts: &l.count.accepts, open: l.place,
	}
	return l
}

// onLines returns an empty list that shares no cache line with anything else: from 512
// bytes on, the sizes in which Go allocates are multiples of a line. Short lists of
// different loops would lie side by side, and every loop writes its own in each turn.
func onLines[T any]() []T {
	var one T
	return make([]T, 0, 512/unsafe.Sizeof(one))
}

// run is the loop's goroutine. It ends after a task has set quit.
func (l *loop) run() {
	defer close(l.done)
	busy := false
	rescheduled := int64(0)
	for !l.quit {
		var events []unix.EpollEvent
		idle := l.idle()
		if busy || !idle {
			if !l.bulk.empty() && l.bulk.amongSmall(l.now) {
				// Beside small messages, bulk leaves the processor to the programs
				// that answer them. The kernel makes a loop that never sleeps wait
				// longer, and the small messages would wait with it.
				schedYield()
			}
			events = l.poll.ready()
		}
		if len(events) == 0 && idle {
			l.acks.payAll(l.sys)
			l.tally(l.eng.clock())
			events = l.poll.wait()
			l.tallied = l.eng.clock()
		}
		busy = len(events) > 0
		l.now = l.eng.clock()
		if l.now-rescheduled > rescheduleEvery {
			rescheduled = l.now
			l.tally(l.now)
			runtime.Gosched()
		}
		l.turn(events)
	}
	l.shut()
}

// tally counts the time awake until now.
func (l *loop) tally(now int64) {
	l.count.awake.Add(now - l.tallied)
	l.tallied = now
}

// turn does one batch.
func (l *loop) turn(events []unix.EpollEvent) {
	l.retries = retriesPerTurn
	l.acceptor.turn++
	l.count.events.Add(uint64(len(events)))
	for i := range events {
		l.takeIn(&events[i])
	}
	for _, s := range l.agenda.take() {
		s.begun()
		if !l.batch.roomy() {
			l.flush()
		}
		switch {
		case s.phase == established:
			l.drive(s)
		case s.phase == connecting && s.Host == nil: // it has to try another host
			if l.retries > 0 {
				l.follow(s, s.Next(l.now))
			} else {
				l.agenda.add(s)
			}
		}
	}
	l.flush()
	l.spliceSome(l.bulk.budget(l.now))
	if len(l.copies.ready) > 0 {
		l.dropMore()
	}
	pending := 0
	if len(events) == batchSize {
		// Two sockets a session, the listeners, bell and clock.
		pending = 2*int(l.count.active.Load()) + len(l.acceptor.shards) + 2
	}
	l.timers.run(l.now, pending)
	l.inbox.run()
	l.acks.turn(l.sys)
	l.sweep()
	l.timers.setAlarm(l.now, l.sys)
}

// idle tells whether nothing can be done before an event comes.
func (l *loop) idle() bool {
	return l.agenda.empty() && l.bulk.empty() && !l.timers.due(l.now) && len(l.copies.ready) == 0
}

// takeIn notes what an event says and moves on what only it can.
func (l *loop) takeIn(ev *unix.EpollEvent) {
	switch {
	case ev.Fd >= 0:
		l.sessionEvent(ev)
	case ev.Fd == keyBell:
		l.inbox.rung = true
	case ev.Fd == keyClock:
		l.poll.ticked()
	case ev.Fd <= keyMirror:
		l.mirrorEvent(ev)
	default:
		l.acceptor.event(keyListener - ev.Fd)
	}
}

func (l *loop) sessionEvent(ev *unix.EpollEvent) {
	s := l.table.at(ev.Fd>>1, ev.Pad)
	if s == nil {
		return
	}
	side := ev.Fd & 1
	e := &s.ends[side]
	e.hint(ev.Events)
	if ev.Events&unix.EPOLLOUT != 0 {
		s.Takes(sides[side], l.now)
	}
	if ev.Events&unix.EPOLLPRI != 0 {
		l.keepUrgent(e)
	}
	switch s.phase {
	case established:
		l.agenda.add(s)
	case connecting:
		switch {
		case side == backend && s.Pledges():
			l.follow(s, l.hostSays(s))
		case side == backend:
			l.connectEvent(s, ev.Events)
		case e.is(reset):
			l.end(s, s.Left())
		case s.Hears():
			l.hear(s)
		}
	case refusing:
		l.discard(s)
	case lingering:
		l.linger(s)
	}
}

func (l *loop) onBeat() {
	l.ledger.publish()
	l.turns.Publish()
	l.acceptor.beat()
	l.keepYouths()
	if len(l.copies.slots) > 0 {
		l.checkCopies()
	}
}

// end takes a session out of life: what it holds is given back now, its
// descriptors are closed and its slot is freed at the end of the batch.
func (l *loop) end(s *session, how core.Termination) {
	l.ledger.settle(s)
	l.timers.stop(&s.timer)
	last := l.lastOf(s, how)
	if s.copies != nil {
		how := cleanEnd
		if s.phase != established || s.cutsOff(backend) {
			how = cutOffEnd
		}
		l.leaveCopies(s, how)
	}
	for i := range s.ends {
		if s.ends[i].fd < 0 {
			continue
		}
		if s.cutsOff(i) {
			l.reset(&s.ends[i])
		}
		l.narrow(&s.flows[1-i], &s.ends[i])
		l.drop(s, i)
	}
	for i := range s.flows {
		l.letGo(&s.flows[i])
	}
	if l.gate.Log.On() && !s.Recorded() { // it is older than the log
		s.Record(&l.table.tries, last.Client)
	}
	s.Admission.End(l.now, how, last)
	l.count.active.Add(-1)
	s.phase = vacant
	l.leftovers.addSession(s)
}

// reset makes the peer of an end get a reset, now or with its drop, which has to follow.
func (l *loop) reset(e *end) {
	e.set(cutShort)
	switch {
	case e.is(shared):
		l.sys.disconnect(e.fd)
	case !e.is(lingers):
		l.sys.resetOnClose(e.fd)
	}
}

// drop ends the connection of side i: it is closed at the end of the batch, or when the keeper has
// forgotten it.
func (l *loop) drop(s *session, i int) {
	e := &s.ends[i]
	if e.is(lingers) && !e.is(cutShort) {
		l.sys.lingerOn(e.fd, false)
	}
	if e.is(shared) {
		l.sys.remove(e.fd)
		l.sys.shutdownBoth(e.fd)
	}
	if s.kept == kept {
		l.unkeep(s, e.fd)
		return
	}
	l.leftovers.addFD(e.fd)
}

// lastOf returns what is left of a session that ends. The kernel is asked before something is
// done to the sockets.
func (l *loop) lastOf(s *session, how core.Termination) core.Last {
	last := core.Last{ID: l.idOf(s), Client: l.table.client(s), In: s.in, Out: s.out, Turns: s.turning.Sum()}
	if s.AsksTCP(l.now, how) {
		last.TCP = l.tcpOf(s)
	}
	return last
}

// tcpOf asks the kernel what it knows of the session's sockets.
func (l *loop) tcpOf(s *session) (tcp [2]engine.TCPInfo) {
	for i := range s.ends {
		if e := &s.ends[i]; e.fd >= 0 && !e.is(unixSocket) {
			tcp[i] = l.sys.tcpInfo(e.fd)
		}
	}
	return tcp
}

// cutsOff tells whether side i is cut off from the rest of its stream if the
// session ends now: bytes on the way to it are lost, or it has ended and still
// waits for the other side's answer. A clean end would hide that, so such a side
// gets a reset.
func (s *session) cutsOff(i int) bool {
	f := &s.flows[1-i]
	return s.ends[i].is(broken) || f.pending() || !f.done && (s.ends[1-i].is(readable) || s.flows[i].done)
}

// sweep watches new sockets and closes what the batch ended.
func (l *loop) sweep() {
	for !l.leftovers.empty() {
		if n := l.leftovers.sweep(l.sys, &l.table, l.unwatched); n > 0 {
			l.eng.census.leave(n)
			l.acceptor.roomAgain()
		}
	}
	if len(l.copies.gone) > 0 {
		l.copies.sweep()
	}
}

// unwatched ends a session because the poller has no room for one of its sockets. If
// its backend is connected already, both sides get a reset.
func (l *loop) unwatched(s *session) {
	if s.phase == connecting {
		l.follow(s, s.NoRoom(l.now))
		return
	}
	s.ends[client].set(broken)
	s.ends[backend].set(broken)
	l.end(s, core.OutOfResource.Termination())
}

// shut ends everything that the loop still has.
func (l *loop) shut() {
	l.table.each(func(s *session) { l.end(s, core.Killed) })
	l.turns.Publish()
	l.shutCopies()
	l.acceptor.closeAll()
	l.sweep()
	l.sys.shut()
}
