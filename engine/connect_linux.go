//go:build !portable

package engine

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// open makes a session of an accepted connection. The engine has counted it.
func (l *loop) open(fd int32, from sched.Addr, svc *service) {
	s := l.table.get()
	s.phase = connecting
	s.svc, s.count = svc, &svc.counts[l.index]
	s.started, s.active = l.now, l.now
	s.attempt.from = from
	// The listener has handed its options down.
	s.ends[client] = end{fd: fd, flags: writable | nodelay | tuned | inline}
	if !from.IsValid() {
		s.ends[client] = end{fd: fd, flags: writable | unixEnd}
	}
	s.count.sessions.Add(1)
	s.count.active.Add(1)
	l.count.active.Add(1)
	if errno := l.sys.add(fd, s.slot<<1|client, s.generation, sessionEvents); errno != 0 {
		l.refuse(s, outOfResource)
		return
	}
	l.tryHosts(s)
}

// retriesPerTurn is how many connects may fail at once in one turn of a loop
// before sessions have to wait for the next turn. Hosts on this machine refuse
// within the call, and thousands of them must not delay the other sessions.
const retriesPerTurn = 16

// tryHosts picks hosts until one answers, is on its way, or none is left. When
// the loop has made its retries for this turn, the session waits for the next.
func (l *loop) tryHosts(s *session) {
	for {
		host, why := l.pick(s)
		if host == nil {
			l.refuse(s, why)
			return
		}
		if l.connect(s, host) {
			return
		}
		if l.retries--; l.retries <= 0 {
			l.wake(s)
			return
		}
	}
}

// pick picks a host that the session has not tried, if it may try another.
func (l *loop) pick(s *session) (host *sched.Host, why refusal) {
	route := s.svc.route.Load()
	switch {
	case route.Table == nil:
		return nil, noGroup
	case route.spent(&s.attempt.tried):
		return nil, s.attempt.noHost()
	case l.now >= s.totalLimit(route):
		return nil, outOfTime
	}
	host, _ = route.Table.Pick(s.attempt.from, &s.attempt.tried)
	if host == nil {
		return nil, s.attempt.noHost()
	}
	if s.attempt.tried.Len() > 1 {
		s.count.redispatches.Add(1)
	}
	return host, 0
}

// connect starts to connect to a host that was picked. It returns false if the
// connect has failed already and another host may be tried.
func (l *loop) connect(s *session, host *sched.Host) bool {
	s.host = host
	s.active = l.now
	s.era = host.Era()
	fd, errno := l.sys.connectTo(host.Addr(), host.Source())
	s.ends[backend] = end{fd: fd}
	if host.Addr().Path() != "" {
		s.ends[backend].set(unixEnd)
	}
	if fd < 0 && connect.Shortage(errno) {
		l.await(s)
		return true
	}
	return l.answered(s, errno)
}

// answered takes in what connect(2) said, or why there is no socket for it. It
// returns false if the connect has failed.
func (l *loop) answered(s *session, errno syscall.Errno) bool {
	fd := s.ends[backend].fd
	s.attempt.queueFull = errno == unix.EAGAIN && s.ends[backend].is(unixSocket)
	switch {
	case s.attempt.queueFull:
		l.expectRoom(s)
		return true
	case errno != 0 && errno != unix.EINPROGRESS:
		l.hostFailed(s, errno)
		return false
	}
	if e := l.sys.add(fd, s.slot<<1|backend, s.generation, sessionEvents); e != 0 {
		l.refuse(s, outOfResource)
		return true
	}
	if errno != 0 {
		l.expectConnect(s, s.svc.route.Load())
		return true
	}
	return l.connected(s)
}

// expectRoom waits for room in the queue of a UNIX socket, for as long as a
// connect may take: over TCP the kernel would. Nothing tells when there is room,
// so the loop asks again, less often the longer it has waited.
func (l *loop) expectRoom(s *session) {
	wait := min(max((l.now-s.active)/4, minQueueWait), maxQueueWait)
	l.wheel.set(&s.timer, min(l.now+wait, s.connectLimit(s.svc.route.Load())))
}

const (
	minQueueWait = int64(time.Millisecond)
	maxQueueWait = int64(50 * time.Millisecond)
)

// await keeps a client for which there is no descriptor now: another host would
// need one just as well. The listeners rest meanwhile, so few clients wait like
// this, and none beyond the time for all connects.
func (l *loop) await(s *session) {
	s.count.failed[local].Add(1)
	s.host.Release(0, 0)
	s.host = nil
	s.attempt.tried.Forget()
	l.pause(pauseFor)
	l.wheel.set(&s.timer, l.now+pauseFor)
}

// failOver moves an established session to another host. The backend has reset
// the connection before it took or gave a byte, as a process does that dies
// with connections in its queue: nothing can be lost or done twice. The host is
// not marked down, because it did answer; the next connect tells. failOver
// returns false if there is no other host: the client gets the reset then.
func (l *loop) failOver(s *session) bool {
	host, _ := l.pick(s)
	if host == nil {
		l.table.settled(s)
		return false
	}
	l.sys.resetOnClose(s.ends[backend].fd) // it has not had the client's end
	l.closing = append(l.closing, s.ends[backend].fd)
	s.count.failed[dropped].Add(1)
	l.eng.resetEarly(s.host, s.era, s.attempt.from)
	s.attempt.heard = true
	s.host.Release(0, 0)
	s.flows[client].done = false // what was shut down is another socket now
	s.phase = connecting
	if !l.connect(s, host) {
		l.tryHosts(s)
	}
	return true
}

// totalLimit returns when the time for all connects of the session is over.
func (s *session) totalLimit(r *Route) int64 {
	if r.Timeouts.Total == 0 {
		return never
	}
	return s.started + int64(r.Timeouts.Total)
}

// connectLimit returns when the connect under way has taken too long.
func (s *session) connectLimit(r *Route) int64 { return min(s.totalLimit(r), s.hostLimit(r)) }

// hostLimit returns when the host has had the full time to answer. Only then is
// it the host's fault that the connect has taken too long.
func (s *session) hostLimit(r *Route) int64 {
	if r.Timeouts.Connect == 0 {
		return never
	}
	return s.active + int64(r.Timeouts.Connect)
}

func (l *loop) expectConnect(s *session, r *Route) {
	if when := s.connectLimit(r); when != never {
		l.wheel.set(&s.timer, when)
	}
}

// connectEvent takes in what epoll said of the socket that is connecting.
// Closes wait for the end of the batch, so the event is of this very socket,
// and writable without an error means connected: no getsockopt is needed.
func (l *loop) connectEvent(s *session, events uint32) {
	switch {
	case events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
		errno := l.sys.socketError(s.ends[backend].fd)
		if errno != 0 && errno != unix.ECONNRESET {
			l.hostFailed(s, errno)
			l.tryHosts(s)
			return
		}
		// It was connected, and is reset already. What it sent before that
		// is delivered, and without that there is another host to try:
		// both are work for the flows, which find the reset marked.
		if !l.connected(s) {
			l.tryHosts(s)
		}
	case events&unix.EPOLLOUT != 0:
		if !l.connected(s) {
			l.tryHosts(s)
		}
	}
}

// connectDeadline is called when the timer of a connecting session goes off.
func (l *loop) connectDeadline(s *session, now int64) {
	if s.host == nil {
		l.tryHosts(s)
		return
	}
	route := s.svc.route.Load()
	switch full := s.attempt.queueFull; {
	case full && now < s.connectLimit(route):
		if !l.answered(s, l.sys.connectAgain(s.ends[backend].fd, s.host.Addr())) {
			l.tryHosts(s)
		}
	case now < s.connectLimit(route): // the route has changed
		l.expectConnect(s, route)
	case now < s.hostLimit(route):
		// The time for all connects is over, which says nothing about this host.
		l.leaveHost(s)
		l.refuse(s, outOfTime)
	default:
		l.hostFailed(s, unix.ETIMEDOUT)
		l.tryHosts(s)
	}
}

// connected starts the flows. How long the connect took is known to a turn. It
// returns false if the connection was made to itself: nobody listens there.
func (l *loop) connected(s *session) bool {
	if fd, to := s.ends[backend].fd, s.host.Addr().IP(); l.eng.isLocalPort(to.Port()) && connect.Self(l.sys.localAddr(fd), to) {
		l.sys.resetOnClose(fd) // the host's port must not stay taken for a minute
		l.hostFailed(s, unix.ECONNREFUSED)
		return false
	}
	s.host.Connected(l.index, time.Duration(l.now-s.active))
	s.phase = established
	s.active = l.now
	s.ends[backend].set(writable)
	if !s.ends[backend].is(unixSocket) {
		if k := s.svc.route.Load().Timeouts.kept(); k.unacked > 0 {
			l.setOption(&s.ends[backend], k.unackedOption())
		}
		s.ends[backend].set(owesAck)
		l.owing = append(l.owing, turnRef{s, s.generation, backend})
	}
	if l.eng.opt.Splice == SpliceAlways {
		s.flows[0].splice()
		s.flows[1].splice()
	}
	l.expectBy(s)
	l.wake(s)
	return true
}

// hostFailed gives the pick back and, if the fault is the host's, marks it
// down. The first to do so reports it.
func (l *loop) hostFailed(s *session, errno syscall.Errno) {
	host := s.host
	why := classify(errno)
	s.count.failed[why].Add(1)
	s.attempt.heard = s.attempt.heard || why != local
	if why != local && host.FailIn(s.era) {
		l.eng.report(Failure{Host: host, Err: fmt.Errorf("connect to %v: %w", host.Addr(), connect.Reason(errno, host.Source()))})
	}
	l.leaveHost(s)
}

// leaveHost gives the pick of a session back and closes its connection.
func (l *loop) leaveHost(s *session) {
	if fd := s.ends[backend].fd; fd >= 0 {
		l.closing = append(l.closing, fd)
	}
	s.ends[backend] = end{fd: -1}
	s.host.Release(0, 0)
	s.host = nil
}

// refuse closes a client that gets no host. Where descriptors are short it is
// closed at once; else it gets an end, and what it sends is thrown away until
// it has ended too, for a moment: closing over unread bytes would reset the
// connection.
func (l *loop) refuse(s *session, why refusal) {
	s.count.refused[why].Add(1)
	if why == outOfResource {
		l.end(s, why.termination())
		return
	}
	s.phase = refusing
	s.why = why
	l.sys.shutdownWrite(s.ends[client].fd)
	l.wheel.set(&s.timer, l.now+refuseFor)
	l.discard(s)
}

// refuseFor is how long a refused client may take to end.
const refuseFor = 1e9 // ns

// discard throws away what a refused client has sent, and ends the session
// when that is all.
func (l *loop) discard(s *session) {
	for range 4 {
		n, errno := l.sys.recv(s.ends[client].fd, l.waste)
		switch {
		case errno == unix.EAGAIN:
			return
		case n == 0:
			l.end(s, s.why.termination())
			return
		}
	}
	l.end(s, s.why.termination()) // it pours: not worth the bytes
}
