//go:build linux

package loops

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// open makes a session of an accepted connection. The engine has counted it.
func (l *loop) open(fd int32, from sched.Addr, entry *core.Entry) {
	s, t := l.table.get()
	s.phase = connecting
	s.active = l.now
	l.table.cameFrom(s, from.IP())
	s.Begin(&l.gate, entry, t, from, l.now)
	if l.gate.Log.On() {
		s.Record(&l.table.tries, from.IP())
	}
	// The listener has handed its options down.
	s.ends[client] = end{fd: fd, flags: writable | nodelay | tuned | inline}
	if !from.IsValid() {
		s.ends[client] = end{fd: fd, flags: writable | unixEnd}
	}
	l.count.active.Add(1)
	l.leftovers.watch(s, client)
	l.follow(s, s.Next(l.now))
}

// follow carries out the steps of a session's admission until it has to wait, has
// a host or is refused. When the loop has made its retries for this turn, the
// session waits for the next.
func (l *loop) follow(s *session, step core.Step) {
	for {
		switch step.Do {
		case core.Connect:
			if step = l.connect(s); step.Do != core.Retry {
				continue
			}
			l.dropBackend(s)
			if l.retries--; l.retries <= 0 {
				l.agenda.add(s)
				return
			}
			step = s.Next(l.now)
		case core.Again:
			step = l.connectMade(s, l.sys.connectAgain(s.ends[backend].fd, s.Host.Addr()))
		case core.Retry:
			l.dropBackend(s)
			step = s.Next(l.now)
		case core.Rest:
			l.acceptor.pause(core.PauseFor)
			l.timers.set(&s.timer, step.Until)
			return
		case core.Queue:
			generation := s.generation
			step = s.Join(l.now, func() {
				l.inbox.submit(func() {
					if s.generation == generation {
						l.follow(s, s.Called(l.now))
					}
				})
			})
		case core.Hear, core.Wait, core.Queued:
			l.tell(s, step)
			if step.Until != core.Never {
				l.timers.set(&s.timer, step.Until)
			}
			return
		case core.Pledge:
			if !l.pledge(s, step) {
				_, step = s.HostSaid(l.now, nil, true)
				continue
			}
			if step.Until != core.Never {
				l.timers.set(&s.timer, step.Until)
			}
			if step.Say != "" {
				return // what it answers is an event
			}
			step = l.hostSays(s) // it speaks first, and may have with the event that told of the connect
		case core.Relay:
			l.establish(s)
			return
		case core.Refuse:
			l.dropBackend(s)
			l.tell(s, step)
			l.refuse(s, step.Why)
			return
		default:
			return
		}
	}
}

// hear takes in what a client has said that has no host yet. It looks at the bytes
// without taking them, and then takes off what is not the stream's: all else stays in
// the kernel, for the flow that comes.
func (l *loop) hear(s *session) {
	for s.Hears() {
		e := &s.ends[client]
		n, errno := l.sys.peek(e.fd, l.waste[:s.Listens()])
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0:
			l.end(s, s.Left())
			return
		}
		s.active = l.now
		take, step := s.Heard(l.now, l.waste[:n], n == 0 || e.is(hungUp), &l.table.tries)
		if !l.takeOff(s, client, take) {
			return
		}
		l.follow(s, step)
		if take == 0 { // else no event tells of what is behind it
			return
		}
	}
}

// tell sends the client what a step says to it. If it cannot be sent, the client is gone.
func (l *loop) tell(s *session, step core.Step) {
	if step.Say != "" {
		s.apart = true
		l.sys.say(s.ends[client].fd, []byte(step.Say))
	}
}

// takeOff takes bytes off a stream that were there a moment ago. It returns false if its
// end is gone.
func (l *loop) takeOff(s *session, side, size int) bool {
	for size > 0 {
		n, errno := l.sys.recv(s.ends[side].fd, l.waste[:size])
		if errno != 0 || n == 0 {
			l.end(s, core.ClientGone)
			return false
		}
		size -= n
		if side == client {
			s.took += int32(n)
		}
	}
	return true
}

// pledge asks the host for the TLS that the client has been promised, behind its PROXY
// header. It returns false if the host is gone.
func (l *loop) pledge(s *session, step core.Step) bool {
	s.apart = true
	b := l.waste[:0]
	if step.First {
		b = s.Header(b, func() netip.AddrPort { return l.sys.localAddr(s.ends[client].fd) })
	}
	e := &s.ends[backend]
	if b = append(b, step.Say...); len(b) > 0 {
		return l.sys.say(e.fd, b)
	}
	if !e.is(unixEnd) { // no bytes carry the acknowledgement that connectTo has put off: see acks
		_ = l.sys.setInt(e.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
	return true
}

// hostSays takes in what the host says about TLS.
func (l *loop) hostSays(s *session) core.Step {
	e := &s.ends[backend]
	n, errno := l.sys.peek(e.fd, l.waste[:s.HostListens()])
	if errno == unix.EAGAIN {
		return core.Step{}
	}
	take, step := s.HostSaid(l.now, l.waste[:n], n == 0 || e.is(hungUp|reset))
	if !l.takeOff(s, backend, take) {
		return core.Step{}
	}
	return step
}

// connect starts to connect to the session's host.
func (l *loop) connect(s *session) core.Step {
	s.active = l.now
	fd, errno := l.sys.connectTo(s.Host.Addr(), s.Source())
	s.ends[backend], s.localPort = end{fd: fd}, 0
	if s.Host.Addr().Path() != "" {
		s.ends[backend].set(unixEnd)
	}
	if fd < 0 {
		return s.NoSocket(l.now, errno)
	}
	return l.connectMade(s, errno)
}

// connectMade takes in what connect(2) said.
func (l *loop) connectMade(s *session, errno syscall.Errno) core.Step {
	if errno == 0 || errno == unix.EINPROGRESS {
		l.leftovers.watch(s, backend)
	}
	return s.Answered(l.now, l.unlessSelf(s, errno))
}

// connectEvent takes in what epoll said of the socket that is connecting.
// Closes wait for the end of the batch, so the event is of this very socket,
// and writable without an error means connected: no getsockopt is needed.
func (l *loop) connectEvent(s *session, events uint32) {
	var errno syscall.Errno
	switch {
	case events&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
		if errno = l.sys.socketError(s.ends[backend].fd); errno == unix.ECONNRESET {
			// It was connected, and is reset already. What it sent before that
			// is delivered, and without that there is another host to try:
			// both are work for the flows, which find the reset marked.
			errno = 0
		}
	case events&unix.EPOLLOUT == 0:
		return
	}
	l.follow(s, s.Answered(l.now, l.unlessSelf(s, errno)))
}

// unlessSelf returns ECONNREFUSED for a connection that was made to itself: no program
// listens there. Other answers stay as they are.
func (l *loop) unlessSelf(s *session, errno syscall.Errno) syscall.Errno {
	if fd, to := s.ends[backend].fd, s.Host.Addr().IP(); errno == 0 && l.eng.isLocalPort(to.Port()) && connect.Self(l.sys.localAddr(fd), to) {
		l.sys.resetOnClose(fd) // the host's port must not stay taken for a minute
		return unix.ECONNREFUSED
	}
	return errno
}

// establish starts the flows. How long the connect took is known to a turn.
func (l *loop) establish(s *session) {
	s.phase = established
	s.active = l.now
	s.ends[backend].set(writable)
	if !s.ends[backend].is(unixSocket) {
		if k := core.KeptBy(s.Svc.Route.Load()); k.Unacked > 0 {
			l.setOption(&s.ends[backend], unackedOption(k))
		}
		l.acks.owe(s)
	}
	if mirrors := s.Mirrors(); mirrors != nil {
		l.mirrorTo(s, mirrors)
	}
	s.flows[client].header = s.Host.ProxyProtocol() != 0 && !s.Pledged()
	s.headerSent = 0
	l.guard(s)
	if l.eng.opt.Splice == engine.SpliceAlways {
		s.flows[0].splice()
		s.flows[1].splice()
	}
	l.expectBy(s)
	l.agenda.add(s)
}

// failOver moves an established session to another host, or into the queue of a group that
// holds its clients: the backend has reset the connection before a byte has moved. It returns
// false if there is no other host.
func (l *loop) failOver(s *session) bool {
	step := s.Dropped(l.now)
	if step.Do != core.Connect && step.Do != core.Queue {
		l.table.settle(s)
		return false
	}
	l.reset(&s.ends[backend]) // it has not had the client's end
	l.dropBackend(s)
	s.flows[client].done = false            // what was shut down is another socket now
	if f := &s.flows[client]; f.ahead > 0 { // the next host gets a header of its own
		if f.taken += int32(f.ahead); int(f.taken) == len(f.held) {
			l.letGoHeld(f)
		}
		f.ahead = 0
	}
	s.phase = connecting
	l.follow(s, step)
	return true
}

// dropBackend closes the socket of a host that the session has left, if there is
// one.
func (l *loop) dropBackend(s *session) {
	if s.ends[backend].fd >= 0 {
		l.drop(s, backend)
		s.grow()
	}
	s.ends[backend] = end{fd: -1}
}

// refuse closes a client that gets no host. Where descriptors are short it is closed at
// once, and so is one that does not say who it is as it should. One that may not come in, by
// a rule or a limit, is reset. Any other gets an end, and what it sends is thrown away until
// it has ended too, for a moment: closing over unread bytes would reset the connection.
func (l *loop) refuse(s *session, why core.Refusal) {
	if why.Resets() {
		l.reset(&s.ends[client])
	}
	if why.Resets() || why == core.OutOfResource || why.OfHeader() {
		l.end(s, why.Termination())
		return
	}
	s.phase = refusing
	l.sys.shutdownWrite(s.ends[client].fd)
	l.timers.set(&s.timer, l.now+refuseFor)
	l.discard(s)
}

// discard throws away what a refused client has sent, and ends the session
// when that is all.
func (l *loop) discard(s *session) {
	for range 4 {
		n, errno := l.sys.recv(s.ends[client].fd, l.waste)
		switch {
		case errno == unix.EAGAIN:
			return
		case n == 0:
			l.end(s, s.Why.Termination())
			return
		}
	}
	l.end(s, s.Why.Termination()) // it pours: not worth the bytes
}
