package conns

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// relay moves bytes until both directions have ended.
func (s *session) relay() {
	s.touch()
	s.watch.start(s)
	defer s.watch.stop()
	// Whatever ends the session wakes both directions.
	woken := make(chan struct{})
	unblock := context.AfterFunc(s.ctx, func() {
		for _, c := range s.ends {
			cut(c)
		}
		close(woken)
	})
	defer unblock()
	var wg sync.WaitGroup
	wg.Go(func() { s.pump(backend) })
	s.pump(client)
	wg.Wait()
	if s.ctx.Err() == nil {
		s.conclude()
		return
	}
	<-woken
	s.farewell()
}

// pump moves the bytes that come from ends[i].
func (s *session) pump(i int) {
	dst, to := s.ends[1-i], s.sink(1-i)
	copies := i == client && len(s.copies) > 0
	if copies {
		to = copied{to, s}
	}
	err := splice.Copy(passage{to, s, i}, s.stream(i), func(n int) { s.moved(i, n) })
	if err != nil && s.ctx.Err() != nil {
		// The session is cut. If bytes on the way are lost, or dst has ended and
		// waits for an answer, a clean end would hide that.
		cutOff := errors.Is(err, splice.ErrWrite) || s.over[1-i].Load() || s.hasUnread(i)
		s.cutOff[1-i].Store(cutOff)
		if cutOff {
			resetOnClose(dst)
		} else if copies {
			s.endCopies(cleanEnd)
		}
		return
	}
	s.over[i].Store(true)
	if copies && err == nil && !s.failed[i].Load() {
		s.endCopies(cleanEnd)
	} else if copies {
		s.endCopies(cutOffEnd)
	}
	s.closed(i, err)
	switch {
	case err == nil:
		switch {
		case s.failed[i].Load():
		case s.over[1-i].Load(): // the connection is closed soon
			s.closeTLS(1 - i)
		default:
			s.closeWrite(1 - i)
		}
	case isTimeout(err) && s.failed[1-i].Load():
		// The other pump has found dst gone: nothing that src sends can arrive.
	case errors.Is(err, splice.ErrWrite):
		// Only what goes to dst is over; what it has sent still comes.
		s.failed[1-i].Store(true)
	case errors.Is(err, splice.ErrRead):
		// The connection is gone: nothing can be sent to it either.
		s.failed[i].Store(true)
		_ = dst.SetReadDeadline(time.Unix(1, 0))
	}
	s.touch()
	s.watch.reset(s)
}

// through returns the count of the bytes that came from ends[i] and were sent on.
func (s *session) through(i int) *atomic.Uint64 {
	if i == client {
		return &s.in
	}
	return &s.out
}

// moved counts n bytes that came from ends[i] and were sent on: for the session, for its host, and last
// for the service, so that who sees them there finds them in the session.
func (s *session) moved(i, n int) {
	s.touch()
	if i == client {
		s.in.Add(uint64(n))
		s.host().AddBytes(uint64(n), 0)
		s.admission.Count().In.Add(uint64(n))
	} else {
		if s.out.Load() == 0 {
			s.host().Answered()
		}
		if !s.told {
			s.told = s.in.Load() > 0
			s.acknowledge()
		}
		s.out.Add(uint64(n))
		s.host().AddBytes(0, uint64(n))
		s.admission.Count().Out.Add(uint64(n))
	}
}

// acknowledge acknowledges at once what the host has sent, as the loops do: a server that
// writes twice with Nagle's algorithm on waits for that with its second bytes, and the kernel
// puts it off for 40 ms behind a request (ping-pong mode). So it is done for a greeting, and
// again for the first answer.
func (s *session) acknowledge() {
	if tcp, ok := s.ends[backend].(*net.TCPConn); ok {
		quickAck(tcp)
	}
}

func (s *session) touch() { s.active.Store(int64(time.Since(s.started))) }

// left returns how much longer the session may go on if nothing happens.
func (s *session) left() time.Duration {
	return min(s.silence(), s.until(s.admission.AgeLimit(int32(s.id))))
}

// until returns how long it is until a time on the engine's clock.
func (s *session) until(when int64) time.Duration {
	if when == core.Never {
		return math.MaxInt64
	}
	return time.Duration(when - s.of.home.Clock())
}

// silence returns how much longer the session may be silent.
func (s *session) silence() time.Duration {
	t := &s.svc.Route.Load().Timeouts
	d := t.Idle
	if s.over[0].Load() != s.over[1].Load() {
		d = t.HalfClosed
	}
	if d == 0 {
		return math.MaxInt64
	}
	return time.Duration(s.active.Load()) + d - time.Since(s.started)
}

// conclude passes a reset on: the other side gets one too, after it has
// acknowledged the bytes that were sent to it. If the system cannot tell whether it
// has, the bytes matter more and that side gets a plain end.
func (s *session) conclude() {
	c, b := s.failed[client].Load(), s.failed[backend].Load()
	if !c && !b {
		s.host().Answered() // it ended the session as it should, without a byte perhaps
		return
	}
	if b && !c && s.out.Load() == 0 {
		s.admission.ResetEarly(sched.TCPAddr(s.client()))
	}
	how, left := core.ClientAborted, s.ends[backend]
	if b {
		how, left = core.ServerAborted, s.ends[client]
	}
	if tcp := tcpOf(left); tcp != nil && c != b && s.acknowledged(tcp) {
		_ = tcp.SetLinger(0)
	}
	s.end(how)
}

// acknowledged waits until the peer of c has acknowledged all bytes, within
// bounds.
func (s *session) acknowledged(c *net.TCPConn) bool {
	deadline := time.NewTimer(core.LingerFor(s.svc.Route.Load()))
	defer deadline.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		n, known := unsentBytes(c)
		if !known || n == 0 {
			return known
		}
		select {
		case <-s.ctx.Done():
			return false
		case <-deadline.C:
			return true
		case <-time.After(pause):
		}
	}
}
