//go:build linux

package loops

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// drive moves an established session on as far as it goes without sending:
// what it reads joins the batch's sends, bulk joins the queue for splicing,
// and flows that are through are finished. There must be room for two reads
// in the arena: sending in the middle of it could end the session.
func (l *loop) drive(s *session) {
	for i := range s.flows {
		f, src, dst := &s.flows[i], &s.ends[i], &s.ends[1-i]
		for again := true; again; {
			again = false
			switch f.next(src, dst) {
			case greet:
				again = !l.greet(s)
			case read:
				again = !l.receive(s, i, 0)
			case write:
				l.batch.add(s, i, f.held[f.taken:], false)
			case fill, drain:
				l.bulk.add(s, i)
			}
		}
	}
	l.settle(s)
}

// settle finishes the flows that are through, and the session when both are.
func (l *loop) settle(s *session) {
	if s.mayFailOver() {
		if b := &s.ends[backend]; b.is(readable) && !b.is(ended) {
			l.agenda.add(s) // it may have answered before it went
			return
		}
		if l.failOver(s) {
			return
		}
	}
	for again := true; again; {
		again = false
		for i := range s.flows {
			f, src, dst := &s.flows[i], &s.ends[i], &s.ends[1-i]
			if f.next(src, dst) != finish {
				continue
			}
			again = true
			f.done = true
			if s.copies != nil && i == client {
				how := cleanEnd
				if src.is(reset) || !src.is(ended) {
					how = cutOffEnd
				}
				l.endCopies(s, how)
			}
			s.closed(i, l.now)
			l.letGo(f)
			l.narrow(f, dst)
			// When the other flow has finished too, close says it all; after a
			// reset, an end would be a lie.
			switch {
			case dst.is(broken):
			case src.is(reset):
				if f.corked && !dst.is(unixSocket) {
					// The source was reset after its end had been announced to
					// the kernel. TCP_NODELAY pushes what waits for that end.
					dst.set(nodelay)
					_ = l.sys.setInt(dst.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
				}
			case !s.flows[1-i].done:
				l.sys.shutdownWrite(dst.fd)
			}
			s.active = l.now
			l.expectBy(s)
		}
	}
	if s.flows[0].done && s.flows[1].done {
		l.conclude(s)
	}
}

// sides are what stories call the ends.
var sides = [...]engine.Side{engine.OfClient, engine.OfHost}

// closed notes who has ended flow i: its source, or its destination if that takes nothing more.
func (s *session) closed(i int, now int64) {
	if s.ends[i].is(ended) || !s.ends[1-i].is(broken) {
		s.Closed(sides[i], s.ends[i].is(reset), now)
	} else {
		s.Closed(sides[1-i], true, now)
	}
}

// mayFailOver tells whether the backend is gone and no byte has moved yet. A
// clean end that the client has got is an answer too.
func (s *session) mayFailOver() bool {
	return !s.Settled() && s.ends[backend].is(reset) && !s.ends[client].is(reset) &&
		!s.flows[client].sending && !s.flows[backend].done
}

// greet queues the PROXY header for the host, together with what the client has sent
// so far. It returns false if nothing is queued: the host wants no header any more, or
// the header stands before the bytes that a host before has not taken.
func (l *loop) greet(s *session) bool {
	f := &s.flows[client]
	f.header = false
	header := s.Header(l.batch.room()[:0], func() netip.AddrPort { return l.sys.localAddr(s.ends[client].fd) })
	n := len(header)
	f.ahead, s.headerSent = uint8(n), uint8(n)
	if n == 0 {
		l.keepSoon(s)
	}
	if len(f.held) > 0 {
		both := slices.Concat(header, f.held[f.taken:]) // seldom, so it need not be of the pool
		l.letGoHeld(f)
		f.held = both
		return false
	}
	if n == 0 || f.next(&s.ends[client], &s.ends[backend]) == read && l.receive(s, client, n) {
		return n > 0
	}
	l.batch.addRead(s, client, n, false)
	return true
}

// receive reads once from the source of flow i into the arena and queues the
// send, of the bytes ahead that are in the arena too. It returns false when
// nothing came.
func (l *loop) receive(s *session, i, ahead int) bool {
	f, src := &s.flows[i], &s.ends[i]
	room := l.batch.room()[ahead:]
	total := 0
	for {
		n, errno := l.sys.recv(src.fd, room[total:])
		f.onRead(src, n, len(room)-total, errno)
		total += n
		l.readOn(src)
		if n == 0 || total == len(room) || src.is(ended) || !src.is(readable) {
			break
		}
		// Something may have ended this read early: only another one can tell that
		// nothing is left.
	}
	if total == 0 {
		return false
	}
	switch {
	case total >= l.eng.sustained:
		f.splice()
	case f.streamed > 0:
		f.streamed-- // a gap in a stream, for all that is known
	case s.flows[1-i].mode == splicing:
		// It belongs to the stream that comes the other way: what asks for it or answers.
	default:
		l.bulk.small(l.now)
	}
	s.active = l.now
	if i == backend {
		l.heard(s)
	} else if s.copies != nil {
		l.copyBytes(s, room[:total])
	}
	// An end that is known already is passed on with the last bytes: they wait
	// in the kernel for the shutdown or close that settle does next.
	l.batch.addRead(s, i, ahead+total, src.is(ended) && !src.is(reset))
	return true
}

// keepUrgent makes urgent bytes stay in the stream. Without it a read that
// begins at one skips it.
func (l *loop) keepUrgent(e *end) {
	if !e.is(inline) {
		e.set(inline)
		_ = l.sys.setInt(e.fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	}
}

// readOn makes it safe to read on from a socket without another event: an urgent
// byte may have come that no event has told of. Behind a FIN none can come.
func (l *loop) readOn(src *end) {
	if src.is(readable) && !src.is(ended|hungUp) {
		l.keepUrgent(src)
	}
}

// flush sends what the batch has gathered. It is the place where all sends of
// a batch can become one system call.
func (l *loop) flush() {
	ops := l.batch.ops
	if len(ops) == 0 {
		return
	}
	for i := range ops {
		op := &ops[i]
		dst := &op.s.ends[1-op.dir]
		l.tune(dst)
		op.fd = dst.fd
	}
	l.sys.send(ops)
	for i := range ops {
		op := &ops[i]
		if op.s.phase == established { // else an answer before has ended it
			l.sent(op)
		}
		op.s = nil
	}
	if len(l.copies.ops) > 0 {
		l.flushCopies()
	}
	l.batch.clear()
}

// sent takes in the answer of a send and moves the session on.
func (l *loop) sent(op *sendOp) {
	s, i, p, n := op.s, int(op.dir), op.p, op.n
	f, dst := &s.flows[i], &s.ends[1-i]
	f.sending = false
	f.onWrite(dst, n, len(p), op.errno)
	if dst.is(reset) {
		l.readOn(dst)
	}
	f.corked = op.last && n == len(p) // else the rest pushes
	if dst.is(broken) {
		l.readOn(dst) // what it sent before is read without an event
	}
	streamed := n
	if f.ahead > 0 {
		streamed -= l.headed(s, f, dst, n)
	}
	if streamed > 0 {
		l.moved(s, i, streamed)
		l.count.copied.Add(uint64(streamed))
	}
	switch {
	case f.held != nil:
		f.taken += int32(n)
		if int(f.taken) == len(f.held) {
			l.letGoHeld(f)
		}
	case n < len(p) && (!dst.is(broken) || !s.Settled()):
		f.held = l.spares.hold(p[n:])
	}
	if n < len(p) && !dst.is(broken) {
		s.Stalled(sides[1-i], l.now, &l.table.tries)
	}
	l.settle(s)
	l.goOn(s, i)
}

// headed takes in that a send of n bytes began with a PROXY header, or the rest of it,
// and returns how many bytes were of that. They are not the stream's: the session may
// still go to another host.
func (l *loop) headed(s *session, f *flow, dst *end, n int) int {
	n = min(n, int(f.ahead))
	f.ahead -= uint8(n)
	if n > 0 {
		dst.set(headed)
		dst.clear(owesAck)
		if f.ahead == 0 {
			l.keepSoon(s)
		}
	}
	return n
}

// goOn makes sure that a flow which can move is moved in the next turn.
func (l *loop) goOn(s *session, i int) {
	if s.phase != established {
		return
	}
	switch s.flows[i].next(&s.ends[i], &s.ends[1-i]) {
	case greet, read, write:
		l.agenda.add(s)
	case fill, drain:
		l.bulk.add(s, i)
	case finish: // its turn was over before that showed
		l.settle(s)
	}
}

// moved counts n bytes that flow i has sent.
func (l *loop) moved(s *session, i, n int) {
	s.active = l.now
	l.table.settle(s)
	s.ends[1-i].set(sentOnce)
	s.ends[1-i].clear(owesAck)
	if l.ledger.note(s) {
		l.timers.beatBy(l.now + publishEvery)
	}
	if i == client {
		if s.in == 0 {
			s.Sent(engine.OfClient, l.now)
		}
		s.in += uint64(n)
		s.turning.Passed(l.now)
	} else {
		if s.out == 0 {
			s.Host.Answered()
			s.Sent(engine.OfHost, l.now)
		}
		s.out += uint64(n)
	}
}

// spliceSome gives the flows that wait to splice their turn, until budget bytes are
// used up.
func (l *loop) spliceSome(budget int) {
	for l.bulk.begin(); budget > 0; {
		s, i := l.bulk.next()
		if s == nil {
			break
		}
		budget -= l.spliceFlow(s, i, budget)
		l.goOn(s, i)
	}
	l.bulk.end()
}

// spliceFlow moves up to budget bytes of flow i and returns how many it moved.
func (l *loop) spliceFlow(s *session, i, budget int) (moved int) {
	f, src, dst := &s.flows[i], &s.ends[i], &s.ends[1-i]
	for moved < budget {
		switch f.next(src, dst) {
		case fill:
			if s.copies != nil && i == client && l.copies.noTee {
				f.mode = copying
				l.readOn(src)
				return moved
			}
			if f.pipe == nil {
				pipe, err := l.sys.lend()
				if err != nil { // none to be had: copy
					f.mode = copying
					l.readOn(src)
					return moved
				}
				f.pipe = pipe
				l.count.pipes.Store(int64(l.sys.pipes()))
			}
			n, st, err := f.pipe.Fill(int(src.fd), min(int(f.window), max(budget-moved, minWindow)))
			f.onFill(src, n, st, err)
			if f.mode == copying {
				l.readOn(src)
			}
			if n > 0 {
				s.active = l.now
				if i == backend {
					l.heard(s)
				} else if s.copies != nil {
					l.copyPipe(s, f.pipe)
				}
			}
		case drain:
			l.tune(dst)
			n, st, err := f.pipe.Drain(int(dst.fd))
			f.onDrain(dst, n, st, err)
			switch {
			case err != nil:
				l.readOn(dst)
			case !dst.is(writable):
				s.Stalled(sides[1-i], l.now, &l.table.tries)
			}
			if n > 0 {
				moved += n
				l.moved(s, i, n)
				l.count.spliced.Add(uint64(n))
			}
			if s.copies != nil && i == client {
				l.pushAll(s)
			}
			if f.drained = min(f.drained+int32(n), maxWindow); st == splice.Again && int(f.drained) >= l.eng.tuning.Pace {
				l.pace(f, dst)
			}
		default:
			// The source is empty, the destination full, or recv has to look.
			// An empty pipe is of use to others meanwhile.
			if f.pipe != nil && f.pipe.Held() == 0 {
				l.letGo(f)
			}
			l.settle(s)
			return moved
		}
	}
	return moved
}

// pace is called when a destination is full and has taken paceBytes since the last time. A
// fast stream gets a longer queue in the kernel: with a short one, and a congestion control
// that paces, the loop would be woken for every few segments. A slow one loses it again.
func (l *loop) pace(f *flow, dst *end) {
	now := uint32(l.now / paceTick)
	took := now - f.since
	f.drained, f.since = 0, now
	switch {
	case took <= fast && !f.wide && !dst.is(unixSocket):
		f.wide = l.sys.widen(dst.fd)
	case took >= slow:
		l.narrow(f, dst)
	}
}

// narrow takes the longer queue back.
func (l *loop) narrow(f *flow, dst *end) {
	if f.wide {
		f.wide = false
		l.sys.narrow(dst.fd)
	}
}

// letGo gives the flow's buffer and pipe back.
func (l *loop) letGo(f *flow) {
	l.letGoHeld(f)
	if f.pipe != nil {
		l.sys.takeBack(f.pipe)
		f.pipe = nil
		l.count.pipes.Store(int64(l.sys.pipes()))
	}
}

// letGoHeld gives the flow's buffer back.
func (l *loop) letGoHeld(f *flow) {
	if f.held != nil {
		l.spares.put(f.held)
		f.held, f.taken = nil, 0
	}
}

// heard is called when bytes were read from the backend. If they are an answer, that is a
// turnaround. The first ones are acknowledged at once. A request makes the kernel put acknowledgements off
// (ping-pong mode, see TCP_QUICKACK in tcp(7)), and a server that writes twice
// with Nagle's algorithm on sends its second bytes only when it has this
// acknowledgement: 40 ms later.
//
// A server that spoke first gets this for its greeting and again for its first
// answer: a request that is sent just after the greeting has come starts ping-pong
// mode as well. The call is spared after a FIN, behind which no bytes follow.
func (l *loop) heard(s *session) {
	if s.turning.Waits() {
		if d, bucket := s.turning.Answered(l.now); l.turns.Add(s.Host, d, bucket) {
			l.timers.beatBy(l.now + publishEvery)
		}
	}
	l.table.settle(s)
	e := &s.ends[backend]
	if e.is(answered) {
		return
	}
	if e.is(sentOnce) {
		e.set(answered)
	}
	if e.is(sentOnce|owesAck|headed) && !e.is(hungUp|ended|reset) {
		e.clear(owesAck)
		_ = l.sys.setInt(e.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
}

// tune sets TCP_NODELAY before the second send to a backend: Nagle's algorithm
// never holds the first one back, and many sessions need no second.
func (l *loop) tune(dst *end) {
	if dst.is(sentOnce|headed) && !dst.is(nodelay) {
		dst.set(nodelay)
		_ = l.sys.setInt(dst.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// limit returns when an established session is to be ended if nothing happens.
func (s *session) limit() int64 { return min(s.silenceLimit(), s.AgeLimit(s.slot)) }

// silenceLimit returns when a session has been silent for too long.
func (s *session) silenceLimit() int64 {
	t := &s.Svc.Route.Load().Timeouts
	d := t.Idle
	if s.flows[0].done != s.flows[1].done {
		d = t.HalfClosed
	}
	if d == 0 {
		return core.Never
	}
	return s.active + int64(d)
}

// expectBy makes the session's timer go off no later than its limit. A later
// limit costs nothing: the timer goes off early and is set again.
func (l *loop) expectBy(s *session) { l.expect(s, s.limit()) }

func (l *loop) expect(s *session, when int64) {
	if !s.ends[backend].is(tuned) {
		when = min(when, s.Started+core.TuneAfter)
	}
	if when != core.Never && (!s.timer.armed() || when < s.timer.when) {
		l.timers.set(&s.timer, when)
	}
}

// deadline is called when the timer of an established session goes off.
func (l *loop) deadline(s *session, now int64) {
	if e := &s.ends[backend]; !e.is(tuned) {
		e.set(tuned | nodelay)
		for _, o := range socketOptions {
			if o != notSentOption || !s.flows[client].wide {
				l.setOption(e, o)
			}
		}
		if k := core.KeptBy(s.Svc.Route.Load()); k.Alive > 0 {
			for _, o := range keepAliveOptions(k) {
				l.setOption(e, o)
			}
		}
	}
	switch {
	case s.limit() > now:
		l.expectBy(s)
		return
	case s.AgeLimit(s.slot) <= now:
		l.end(s, core.Aged)
		return
	}
	if s.ready || s.flows[0].queued || s.flows[1].queued {
		// What has come waits for its turn in this loop.
		l.timers.set(&s.timer, now)
		return
	}
	how := core.ClientTimeout
	if s.flows[client].done && !s.flows[backend].done {
		how = core.ServerTimeout
	}
	l.end(s, how)
}

// setOption sets an option that the session can do without.
func (l *loop) setOption(e *end, o socketOption) {
	_ = l.sys.setInt(e.fd, o.level, o.name, o.value)
}

// conclude ends a session whose flows are both done. If one side was reset,
// the other is to learn of it by a reset too, but only behind the bytes that
// it has not acknowledged yet.
func (l *loop) conclude(s *session) {
	switch c, b := s.ends[client].is(reset), s.ends[backend].is(reset); {
	case c && b:
		l.end(s, core.ClientAborted)
	case c || b:
		if b && s.out == 0 {
			s.ResetEarly(sched.TCPAddr(l.clientAddr(s)))
		}
		s.phase = lingering
		s.active = l.now
		l.linger(s)
	default:
		s.Host.Answered() // it ended the session as it should, without a byte perhaps
		l.end(s, core.Normal)
	}
}

// linger resets the side that is left as soon as its peer has all bytes, or
// when the time for it is over.
func (l *loop) linger(s *session) {
	left, how := &s.ends[backend], core.ClientAborted
	if s.ends[backend].is(reset) {
		left, how = &s.ends[client], core.ServerAborted
	}
	waited := l.now - s.active
	allowed := int64(core.LingerFor(s.Svc.Route.Load()))
	if left.is(reset) || l.sys.unsent(left.fd) == 0 || waited >= allowed {
		l.reset(left)
		l.end(s, how)
		return
	}
	// Look again at intervals that grow with the time waited.
	l.timers.set(&s.timer, l.now+min(max(waited/4, tickSize), int64(maxLook)))
}
