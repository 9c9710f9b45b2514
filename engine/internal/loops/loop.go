//go:build linux

package loops

import (
	"runtime"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/queue"
	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/splice"
)

const (
	// readSize is the room of one recv, and so what one turn copies of a flow.
	readSize = 64 << 10
	// arenaSize is what one batch may read before it has to send.
	arenaSize = 4 * readSize
	// spliceTurn is what all spliced flows together move in a turn that had
	// small messages not long ago, so that those never wait long behind bulk;
	// bulkTurn is what they move when there have been none for quietFor.
	spliceTurn = 256 << 10
	bulkTurn   = 1 << 20
	quietFor   = int64(50 * time.Millisecond)
	// settleFor is how old a stream is before it is told from what came before it
	// and from its own beginning, which is small too.
	settleFor = int64(300 * time.Millisecond)
	// publishEvery is how old the published byte counts of a session may be.
	publishEvery = int64(time.Second)
	// rescheduleEvery is how long a loop runs before it goes through the scheduler.
	// A goroutine that has not for 10 ms is taken for one that hogs its
	// processor: the runtime's monitor signals it, takes the processor away
	// whenever it meets it in a system call, and never comes to rest itself.
	rescheduleEvery = int64(4 * time.Millisecond)
)

// loop owns its listeners, sessions, pipes, buffers and timers. They are touched
// only by the goroutine that runs it, its own or one that carries it; what others
// want done, they submit.
//
// A turn takes in a batch of events, receives for each, and does at its end
// together what the batch asked for: sends, then splices, timers, tasks, and
// last the closes, so that no event of a batch is ever stale.
type loop struct {
	index  int
	eng    *Engine
	gate   core.Gate // for the admissions of its sessions
	poll   *poller
	sys    kernel // for the sessions
	tasks  queue.AsyncTaskQueue
	table  sessionTable
	wheel  wheel
	spares bufferPool
	count  loopCounters

	now    int64 // ns since the engine's epoch, read once a turn
	timing timing
	beat   timer // the loop's own: publishes bytes, takes paused listeners back in

	shards     []*shard // listeners by index; nil where one is gone
	paused     bool     // the listeners are out of the poller
	pausedTill int64    // and stay so until then
	resting    bool     // one of them rests alone
	looked     int      // which other loop was last compared with this one
	rung       bool     // the bell rang in this batch
	quit       bool

	ready   []*session // something may be done for them in this turn
	sends   []sendOp   // the batch's sends; their bytes lie in arena or in held
	bulk    []turnRef  // flows that wait for their turn to splice
	dirty   []*session // have bytes to publish
	owing   []turnRef  // backends that connected in this turn, whose handshake is not acknowledged
	owed    []turnRef  // the same, in the turn before
	closing []int32    // descriptors to close at the end of the batch
	vacated []*session // sessions that ended in this batch
	work    []*session // ready, while it is worked through
	arena   []byte
	smallAt int64  // ns: the last small message
	used    int    // bytes of arena that sends refer to
	retries int    // connects that may still follow a failed one in this turn
	waste   []byte // takes what refused clients have sent

	carried []*loop       // whose turns this goroutine runs beside its own
	tallied int64         // ns: until then the goroutine's time awake is counted
	leaving func()        // gives the loop to another goroutine after this turn
	due     bool          // while carried: there may be events
	home    chan struct{} // says to the goroutine that it runs its own loop again
	done    chan struct{} // closed when run returns
}

// turnRef names a flow; the session may have ended meanwhile.
type turnRef struct {
	s          *session
	generation int32
	dir        int8
}

func newLoop(e *Engine, index int, pipes *splice.Budget) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	k := linux{poller: p, pool: splice.NewPool(e.opt.PipeSize, pipes), ringFrom: e.tuning.RingFrom, pacing: pacing()}
	if e.opt.Ring == engine.RingAuto {
		k.ring, e.noRing = newRing()
	}
	l := assemble(e, index, k)
	l.poll = p
	return l, nil
}

// assemble makes a loop whose sessions live on sys. It waits for nothing yet.
func assemble(e *Engine, index int, sys kernel) *loop {
	l := &loop{
		index: index, eng: e, sys: sys, gate: core.Gate{Index: index, Report: e.failures.Report}, tasks: queue.NewLockFreeQueue(),
		arena: make([]byte, arenaSize), waste: make([]byte, readSize),
		home: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.wheel.fire = l.onTimer
	l.count.runner.Store(int32(index))
	return l
}

// run is the loop's goroutine. It ends after a task has set quit.
func (l *loop) run() {
	defer close(l.done)
	busy := false
	rescheduled := int64(0)
	var offer offer
	for !l.quit {
		var events []unix.EpollEvent
		idle := l.allIdle()
		if busy || !idle {
			if len(l.bulk) > 0 && l.amongSmall() {
				// Beside small messages, bulk leaves the processor to whoever
				// answers them: a loop that never sleeps would be taken for a
				// program that has no hurry, and they would wait with it.
				schedYield()
			}
			events = l.poll.ready()
			if len(events) == 0 && idle && offer.due(l.now) {
				schedYield()
				events = l.poll.ready()
				offer.made(l.eng.clock()-l.now, len(events) > 0)
			}
		}
		if len(events) == 0 && idle {
			l.payOff()
			l.tally(l.eng.clock())
			events = l.poll.wait()
			l.tallied = l.eng.clock()
			offer.awake = l.tallied
		}
		busy = len(events) > 0
		l.now = l.eng.clock()
		if l.now-rescheduled > rescheduleEvery {
			rescheduled = l.now
			l.tally(l.now)
			runtime.Gosched()
		}
		l.turn(events)
		if len(l.carried) > 0 {
			busy = l.turnCarried() || busy
		}
		if l.leaving != nil {
			l.leave()
		}
	}
	for _, c := range l.carried {
		c.home <- struct{}{}
	}
	l.shut()
}

// offer decides when a loop that has nothing to do offers its processor to
// others (sched_yield(2)) before it sleeps. Where programs share a processor
// with the loop and bring it new work as soon as they run, neither sleeps nor
// has to be woken then. It pays only while there is no end of work: a loop that
// sleeps often is woken sooner than its turn would come. An offer in vain is
// not repeated for some chances, and one that took long not for many.
type offer struct {
	awake int64 // ns: when the loop last woke
	skip  int   // chances to let pass
	vain  int   // offers in vain in a row
}

const (
	// offerAfter is how long a loop is awake before it makes offers, in ns.
	offerAfter = 300e3
	// longOffer is how long a turn and an offer may take, in ns.
	longOffer = 2e6
	// offerLess bounds the doubling of how many chances pass after an offer in
	// vain; offerLater is how many pass after a long one.
	offerLess  = 2
	offerLater = 1000
)

func (o *offer) due(now int64) bool {
	if now-o.awake < offerAfter {
		return false
	}
	if o.skip > 0 {
		o.skip--
		return false
	}
	return true
}

// made takes in what became of an offer.
func (o *offer) made(took int64, found bool) {
	switch {
	case took > longOffer:
		o.skip = offerLater
	case found:
		o.vain = 0
	default:
		o.skip = 1 << min(o.vain, offerLess)
		o.vain++
	}
}

// turn does one batch.
func (l *loop) turn(events []unix.EpollEvent) {
	l.retries = retriesPerTurn
	l.count.events.Add(uint64(len(events)))
	for i := range events {
		l.takeIn(&events[i])
	}
	l.work, l.ready = l.ready, l.work[:0]
	for _, s := range l.work {
		s.ready = false
		if len(l.arena)-l.used < 2*readSize {
			l.flush()
		}
		switch {
		case s.phase == established:
			l.drive(s)
		case s.phase == connecting && s.Host == nil: // it has to try another host
			if l.retries > 0 {
				l.follow(s, s.Next(l.now))
			} else {
				l.wake(s)
			}
		}
	}
	budget := bulkTurn
	if l.amongSmall() {
		budget = spliceTurn
	}
	l.flush()
	l.spliceSome(budget)
	l.runTimers(len(events))
	if l.rung {
		l.runTasks()
	}
	l.acknowledge(&l.owed)
	l.owed, l.owing = l.owing, l.owed
	l.sweep()
	l.setAlarm()
}

// takeIn notes what an event says and moves on what only it can.
func (l *loop) takeIn(ev *unix.EpollEvent) {
	switch {
	case ev.Fd >= 0:
		l.sessionEvent(ev)
	case ev.Fd == keyBell:
		l.rung = true
	case ev.Fd == keyClock:
		l.poll.ticked()
	case ev.Fd < keyCarried+int32(len(l.eng.loops)):
		l.eng.loops[ev.Fd-keyCarried].due = true
	default:
		if sh := l.shards[keyListener-ev.Fd]; sh != nil && !sh.out {
			_, _ = l.acceptFrom(sh, acceptBurst)
		}
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
	if ev.Events&unix.EPOLLPRI != 0 {
		l.keepUrgent(e)
	}
	switch s.phase {
	case established:
		l.wake(s)
	case connecting:
		switch {
		case side == backend:
			l.connectEvent(s, ev.Events)
		case e.is(reset):
			l.end(s, core.ClientGone)
		}
	case refusing:
		l.discard(s)
	case lingering:
		l.linger(s)
	}
}

// wake puts a session on the list of those that go on in the next turn, or in this
// one if its events are still taken in: one that is established, or has to try
// another host.
func (l *loop) wake(s *session) {
	if !s.ready {
		s.ready = true
		l.ready = append(l.ready, s)
	}
}

// beatBy makes the loop's own timer go off at when or before.
func (l *loop) beatBy(when int64) {
	if !l.beat.armed() || when < l.beat.when {
		l.wheel.set(&l.beat, when)
	}
}

func (l *loop) onBeat() {
	for i, s := range l.dirty {
		s.dirty = false
		l.publish(s)
		l.dirty[i] = nil
	}
	l.dirty = l.dirty[:0]
	if l.paused || l.resting {
		l.resume()
	}
}

// publish makes the session's bytes visible in the counters.
func (l *loop) publish(s *session) {
	in, out := s.in-s.inTold, s.out-s.outTold
	if s.phase == vacant || in|out == 0 {
		return
	}
	s.Host.AddBytes(in, out)
	s.Admission.Count().In.Add(in)
	s.Admission.Count().Out.Add(out)
	s.inTold, s.outTold = s.in, s.out
}

// submit makes the loop run f at the end of a batch. Any goroutine may call it.
func (l *loop) submit(f func()) {
	t := queue.GetTask()
	t.Exec = func(any) error { f(); return nil }
	l.tasks.Enqueue(t)
	l.poll.ring()
}

// runTasks runs the tasks that are there. One that comes meanwhile, as the next
// step of a walk does, rings again and has to wait for the next batch: what was
// put down before hush has its length counted by then.
func (l *loop) runTasks() {
	l.rung = false
	l.poll.hush()
	for range l.tasks.Length() {
		t := l.tasks.Dequeue()
		_ = t.Exec(t.Param)
		queue.PutTask(t)
	}
}

// end takes a session out of life: what it holds is given back now, its
// descriptors are closed and its slot is freed at the end of the batch.
func (l *loop) end(s *session, how core.Termination) {
	l.publish(s)
	l.wheel.stop(&s.timer)
	for i := range s.ends {
		if s.ends[i].fd < 0 {
			continue
		}
		if s.cutsOff(i) {
			l.sys.resetOnClose(s.ends[i].fd)
		}
		l.closing = append(l.closing, s.ends[i].fd)
	}
	for i := range s.flows {
		l.letGo(&s.flows[i])
	}
	s.Admission.End(l.now, how)
	l.count.active.Add(-1)
	s.phase = vacant
	l.vacated = append(l.vacated, s)
}

// cutsOff tells whether side i is cut off from the rest of its stream if the
// session ends now: bytes on the way to it are lost, or it has ended and still
// waits for the other side's answer. A clean end would hide that, so such a side
// gets a reset.
func (s *session) cutsOff(i int) bool {
	f := &s.flows[1-i]
	return s.ends[i].is(broken) || f.pending() || !f.done && (s.ends[1-i].is(readable) || s.flows[i].done)
}

// sweep closes what the batch ended.
func (l *loop) sweep() {
	for _, fd := range l.closing {
		l.sys.close(fd)
	}
	l.closing = l.closing[:0]
	if len(l.vacated) == 0 {
		return
	}
	for _, s := range l.vacated {
		l.table.put(s)
	}
	l.eng.leave(len(l.vacated))
	l.vacated = l.vacated[:0]
	if l.paused && l.now >= l.pausedTill && l.eng.hasRoom() {
		l.resume()
	}
}

// shut ends everything that the loop still has.
func (l *loop) shut() {
	l.table.each(func(s *session) { l.end(s, core.Killed) })
	l.closeShards()
	l.sweep()
	l.sys.(linux).shut()
}

// bufferPool keeps buffers for what a destination did not take, in three
// sizes. It belongs to one loop.
type bufferPool struct {
	free [3][][]byte
}

var bufferSizes = [3]int{4 << 10, 16 << 10, readSize}

// spareBuffers is how many unused buffers of each size are kept.
const spareBuffers = 32

// hold returns a copy of p.
func (b *bufferPool) hold(p []byte) []byte {
	class := 0
	for bufferSizes[class] < len(p) {
		class++
	}
	var buf []byte
	if n := len(b.free[class]); n > 0 {
		buf = b.free[class][n-1]
		b.free[class] = b.free[class][:n-1]
	} else {
		buf = make([]byte, bufferSizes[class])
	}
	return buf[:copy(buf[:cap(buf)], p)]
}

// put takes back a buffer that hold gave.
func (b *bufferPool) put(buf []byte) {
	for class, size := range bufferSizes {
		if cap(buf) == size && len(b.free[class]) < spareBuffers {
			b.free[class] = append(b.free[class], buf)
		}
	}
}
