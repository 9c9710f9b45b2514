//go:build linux

package loops

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// A mirror gets a copy of what the clients of a group send, on a connection of its own for each
// session. What was copied for the host is sent to the mirror as well, in a call of its own
// behind those of the sessions; what is spliced is duplicated by tee(2) before the host gets it.
// What the mirror does not take at once waits in pieces. If there are too many, the copy of
// this session is lost: no session ever waits for a mirror.

// copies are the connections of a loop to mirrors.
type copies struct {
	slots []*replica // by number, which events carry
	free  []*replica
	gone  []*replica // ended in this turn: events of its batch may name them

	ops   []sendOp   // what the batch sends to mirrors
	of    []*replica // whose ops these are
	ready []*replica // whose answers are not all dropped yet
	next  []*replica // ready before, while it is worked through

	one   [1]sendOp // of push
	held  int       // bytes of memory that wait
	noTee bool      // the kernel refuses tee(2)

	looked int64 // when checkCopies was called
}

// replica is the copy of what one client sends, on its way to one mirror.
type replica struct {
	mirror *sched.Mirror
	to     sched.Addr
	s      *session // nil: the session is over
	next   *replica // of the same session, for another mirror

	slot, generation int32
	fd               int32 // -1: it is over

	connected bool
	writable  bool
	ended     bool // the mirror has ended its stream
	shut      bool // it has got the end of the client's
	sending   bool // there is an op for it in the batch
	queued    bool // it is in copies.ready
	lost      bool // nothing is copied any more; how its connect ends has to be known
	trying    bool // it finds out for all whether the mirror is back
	rest      rest

	stood  int64 // ns that pieces have waited since the mirror took anything
	until  int64 // when the connect, or the rest of a session that is over, has taken too long
	held   int   // bytes of memory in pieces
	pieces []piece
}

// rest is what the mirror still has to learn of the client's stream.
type rest uint8

const (
	more      rest = iota // the stream goes on
	cleanEnd              // its end, behind the pieces
	cutOffEnd             // a reset, behind the pieces
)

// piece is a part of the stream that the mirror has not taken yet.
type piece struct {
	buf   []byte // of the loop's spare buffers; nil: pipe has the bytes
	taken int    // of buf
	pipe  pipe
	skip  int // bytes at the beginning of pipe that the piece before has
}

// keyMirror is the key of the first copy; that of number i is keyMirror-i.
const keyMirror = -1 << 30

// dropsAtOnce is how many reads of a mirror's answers one event makes at most: 1 MiB.
const dropsAtOnce = 16

// copyBeat is how often the loop looks which copies have taken too long.
const copyBeat = int64(core.CopyFor / 20)

// get returns a blank copy.
func (m *copies) get() *replica {
	if n := len(m.free); n > 0 {
		c := m.free[n-1]
		m.free = m.free[:n-1]
		return c
	}
	c := &replica{slot: int32(len(m.slots)), fd: -1}
	m.slots = append(m.slots, c)
	return c
}

// at returns the copy that an event names, nil if it is over.
func (m *copies) at(slot, generation int32) *replica {
	if c := m.slots[slot]; c.generation == generation && c.fd >= 0 {
		return c
	}
	return nil
}

// sweep makes what has ended in this turn free for others.
func (m *copies) sweep() {
	for _, c := range m.gone {
		*c = replica{slot: c.slot, generation: c.generation + 1, fd: -1, pieces: c.pieces[:0]}
	}
	m.free = append(m.free, m.gone...)
	m.gone = m.gone[:0]
}

// mirrorTo begins the copies of a session that has its host.
func (l *loop) mirrorTo(s *session, list []sched.MirrorShare) {
	if len(s.flows[client].held) > 0 { // it has come from another process, and not from its beginning
		return
	}
	for i := range list {
		if m := &list[i]; m.Drawn() {
			l.replicate(s, m)
		}
	}
}

// replicate begins the copy of a session for one mirror.
func (l *loop) replicate(s *session, m *sched.MirrorShare) {
	within := core.MirrorConnect(s.Svc.Route.Load())
	to, try, ok := m.Mirror.Begin(l.now, within)
	if !ok {
		return
	}
	if !l.eng.census.admitCopy() {
		m.Mirror.Lose(sched.CopyNoResource)
		m.Mirror.End()
		return
	}
	c := l.copies.get()
	c.mirror, c.to, c.trying, c.until = m.Mirror, to, try, l.now+int64(within)
	fd, errno := l.sys.connectTo(to, connect.Source{})
	if c.fd = fd; fd < 0 {
		l.lose(c, sched.CopyNoResource)
		return
	}
	c.s, c.next = s, s.copies
	s.copies = c
	if errno != 0 && errno != unix.EINPROGRESS {
		l.mirrorAnswers(c, errno)
		return
	}
	event := unix.EpollEvent{Events: sessionEvents, Fd: keyMirror - c.slot, Pad: c.generation}
	if l.sys.watch(fd, &event) != 0 {
		l.lose(c, sched.CopyNoResource)
		return
	}
	if header := s.MirrorHeader(l.waste[:0], m.ProxyProtocol, func() netip.AddrPort { return l.sys.localAddr(s.ends[client].fd) }); len(header) > 0 && !l.hold(c, header) {
		l.lose(c, sched.CopyBehind)
		return
	}
	l.timers.beatBy(l.now + copyBeat)
	if errno == 0 {
		l.mirrorAnswers(c, 0)
	}
}

// mirrorAnswers takes in what became of a connect.
func (l *loop) mirrorAnswers(c *replica, errno syscall.Errno) {
	if ip := c.to.IP(); errno == 0 && ip.IsValid() && l.eng.isLocalPort(ip.Port()) && connect.Self(l.sys.localAddr(c.fd), ip) {
		errno = unix.ECONNREFUSED // no program listens there
	}
	if connect.Ours(errno) {
		l.lose(c, sched.CopyNoResource)
		return
	}
	if errno != 0 {
		c.mirror.Failed(l.now, c.to, c.trying, connect.Reason(errno, connect.Source{}))
		l.lose(c, sched.CopyUnreached)
		return
	}
	c.mirror.Reached()
	c.connected, c.writable, c.until = true, true, core.Never
	if c.to.Path() == "" {
		_ = l.sys.setInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		// See connectTo: the acknowledgement of the handshake may wait no longer.
		_ = l.sys.setInt(c.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
	if c.rest != more && c.s == nil {
		c.until = l.now + int64(core.CopyFor)
	}
	l.push(c)
}

// mirrorEvent takes in what epoll said of the connection to a mirror.
func (l *loop) mirrorEvent(ev *unix.EpollEvent) {
	c := l.copies.at(keyMirror-ev.Fd, ev.Pad)
	if c == nil {
		return
	}
	if !c.connected {
		var errno syscall.Errno
		switch {
		case ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
			if errno = l.sys.socketError(c.fd); errno == 0 {
				errno = unix.ECONNRESET
			}
		case ev.Events&unix.EPOLLOUT == 0:
			return
		}
		if l.mirrorAnswers(c, errno); c.fd < 0 {
			return
		}
	}
	if ev.Events&unix.EPOLLOUT != 0 {
		c.writable = true
	}
	if ev.Events&^unix.EPOLLOUT != 0 {
		l.dropAnswers(c)
	}
	if c.fd >= 0 {
		l.push(c)
	}
}

// dropAnswers throws away what a mirror has sent. For TCP the kernel need not copy it.
func (l *loop) dropAnswers(c *replica) {
	for range dropsAtOnce {
		n, errno := l.sys.discard(c.fd, l.waste)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0 && c.shut && len(c.pieces) == 0: // it has all
			l.finishCopy(c)
			return
		case errno != 0:
			l.lose(c, sched.CopyReset)
			return
		case n == 0:
			c.ended = true
			l.finish(c)
			return
		}
	}
	if !c.queued {
		c.queued = true
		l.copies.ready = append(l.copies.ready, c)
	}
}

// dropMore goes on with the mirrors that have sent more than an event's share.
func (l *loop) dropMore() {
	l.copies.next, l.copies.ready = l.copies.ready, l.copies.next[:0]
	for i, c := range l.copies.next {
		if c.queued { // otherwise it is over, and another has its place
			if c.queued = false; c.fd >= 0 {
				l.dropAnswers(c)
			}
		}
		l.copies.next[i] = nil
	}
}

// endCopies tells the mirrors of a session that the client's stream has ended, or was cut off.
func (l *loop) endCopies(s *session, how rest) {
	for c := s.copies; c != nil; {
		next := c.next
		if c.rest == more {
			c.rest = how
			l.finish(c)
		}
		c = next
	}
}

// leaveCopies lets the mirrors of a session that is over have the rest.
func (l *loop) leaveCopies(s *session, how rest) {
	l.timers.beatBy(l.now + copyBeat)
	for c := s.copies; c != nil; {
		next := c.next
		c.s, c.next = nil, nil
		if c.connected {
			c.until = l.now + int64(core.CopyFor)
		}
		if c.rest == more {
			c.rest = how
		}
		l.finish(c)
		c = next
	}
	s.copies = nil
}

// loseCopies gives up the copies of a session.
func (l *loop) loseCopies(s *session, why sched.LostCopy) {
	for s.copies != nil {
		l.lose(s.copies, why)
	}
}

// finish passes the end of the stream on when the mirror has all before it, and ends a copy
// that is through.
func (l *loop) finish(c *replica) {
	if c.rest == more || !c.connected || c.sending || len(c.pieces) > 0 {
		return
	}
	switch {
	case c.rest == cutOffEnd && l.sys.unsent(c.fd) == 0:
		l.sys.resetOnClose(c.fd)
		l.finishCopy(c)
	case c.rest == cutOffEnd: // the beat looks again
		c.until = min(c.until, l.now+int64(core.CopyFor))
		l.timers.beatBy(l.now + copyBeat)
	case c.ended:
		l.finishCopy(c)
	case !c.shut:
		c.shut = true
		l.sys.shutdownWrite(c.fd)
	}
}

// lose gives up a copy, which is not whole: the mirror gets a reset.
func (l *loop) lose(c *replica, why sched.LostCopy) {
	if !c.lost {
		c.mirror.Lose(why)
	}
	if why == sched.CopyBehind && !c.connected {
		// A mirror that is down may be slow to say so.
		c.lost, c.rest = true, cutOffEnd
		l.leaveSession(c)
		for len(c.pieces) > 0 {
			l.letGoPiece(c)
		}
		return
	}
	if c.fd >= 0 {
		l.sys.resetOnClose(c.fd)
	}
	l.finishCopy(c)
}

// leaveSession takes a copy off the list of its session.
func (l *loop) leaveSession(c *replica) {
	if c.s != nil {
		at := &c.s.copies
		for *at != c {
			at = &(*at).next
		}
		*at = c.next
	}
	c.s, c.next = nil, nil
}

// finishCopy gives back what a copy has. Its descriptor is closed at the end of the turn.
func (l *loop) finishCopy(c *replica) {
	for len(c.pieces) > 0 {
		l.letGoPiece(c)
	}
	l.leaveSession(c)
	if c.fd >= 0 {
		l.leftovers.addFD(c.fd)
	}
	c.fd, c.writable = -1, false
	c.mirror.End()
	l.eng.census.leaveCopy()
	l.copies.gone = append(l.copies.gone, c)
}

// checkCopies ends copies that have taken too long.
func (l *loop) checkCopies() {
	// A process that was stopped has not given the mirror this time.
	passed := min(l.now-l.copies.looked, copyBeat)
	l.copies.looked = l.now
	again := false
	for _, c := range l.copies.slots {
		if c.fd < 0 {
			continue
		}
		if c.rest == cutOffEnd {
			l.finish(c)
		}
		if c.fd >= 0 && c.connected && len(c.pieces) > 0 {
			if c.stood += passed; c.stood >= int64(core.CopyFor) {
				l.lose(c, sched.CopyBehind)
			} else {
				again = true
			}
		}
		switch late := l.now >= c.until; {
		case c.fd < 0:
		case !late:
			again = again || c.until != core.Never
		case !c.connected:
			l.mirrorAnswers(c, unix.ETIMEDOUT)
		case len(c.pieces) > 0, l.sys.unsent(c.fd) > 0:
			l.lose(c, sched.CopyBehind)
		case c.rest == cutOffEnd:
			l.sys.resetOnClose(c.fd)
			l.finishCopy(c)
		default: // it has all, and only its answer goes on
			l.finishCopy(c)
		}
	}
	if again {
		l.timers.beatBy(l.now + copyBeat)
	}
}

// shutCopies ends the copies that a loop still has.
func (l *loop) shutCopies() {
	for _, c := range l.copies.slots {
		if c.fd >= 0 {
			if c.rest != cleanEnd || len(c.pieces) > 0 {
				l.sys.resetOnClose(c.fd)
			}
			l.finishCopy(c)
		}
	}
}
