package conns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
)

// hearing lets others wake the goroutine that waits for a client's header, and nobody
// else who reads from the client.
type hearing struct {
	mu    sync.Mutex
	conn  net.Conn // nil: nobody waits
	woken bool     // since the goroutine began to wait the last time
}

func (h *hearing) set(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = c
}

// until is called before each wait. It sets the deadline of that; the zero time is none. If
// others have called wake meanwhile, it sets none and returns true: the goroutine has to look
// at its timeout again before it waits.
func (h *hearing) until(t time.Time) (woken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if woken, h.woken = h.woken, false; !woken {
		_ = h.conn.SetReadDeadline(t)
	}
	return woken
}

// wake makes the goroutine look at its timeout again.
func (h *hearing) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.woken = true
	if h.conn != nil {
		_ = h.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// hear reads what the client says before it gets a host: its header, to the last byte
// and no further, and then the beginning of its stream, which goes to the host first.
func (s *session) hear(step core.Step) core.Step {
	defer context.AfterFunc(s.ctx, func() { cut(s.ends[client]) })()
	defer func() { _ = s.ends[client].SetReadDeadline(time.Time{}) }()
	s.hearing.set(s.ends[client])
	defer s.hearing.set(nil) // before the deadline is taken back
	var b []byte
	free := new(core.Attempts)
	excused := false // its time is over, and what has come meanwhile is looked at
	for need, most := 1, step.Most; step.Do == core.Hear; {
		s.tell(step)
		step.Say = ""
		var deadline time.Time
		if step.Until != core.Never {
			left := time.Duration(step.Until - s.of.home.Clock())
			if excused {
				left = tolerated
			}
			deadline = time.Now().Add(left)
		}
		if s.hearing.until(deadline) {
			step = s.with((*core.Admission).Retimed)
			continue
		}
		if s.ctx.Err() != nil {
			break
		}
		var err error
		if had := len(b); had < need {
			most = max(most, need)
			b = slices.Grow(b, most-had)
			var n int
			n, err = s.ends[client].Read(b[had:most])
			b = b[:had+n]
		}
		switch {
		case isTimeout(err) && !excused && hasUnread(s.ends[client]):
			excused = true
			continue
		case isTimeout(err):
			excused = false
			step = s.with((*core.Admission).Deadline)
			continue
		case err != nil && err != io.EOF:
			s.end(s.admission.Left())
			return core.Step{}
		}
		take := 0
		step = s.with(func(a *core.Admission, now int64) (next core.Step) {
			take, next = a.Heard(now, b, err != nil, free)
			return next
		})
		b, need, most = b[take:], step.Need, step.Most
	}
	s.opening = b
	s.with(func(a *core.Admission, _ int64) core.Step {
		s.origin.Store(a.Origin())
		return core.Step{}
	})
	return step
}

// tell sends the client what a step says to it. If it cannot be sent, the client is gone.
func (s *session) tell(step core.Step) {
	if step.Say != "" && s.ends[client] != nil {
		_, _ = s.ends[client].Write([]byte(step.Say))
	}
}

// greet sends the host the PROXY header that it expects, and with it what was read of the
// client's stream to choose the host by, or what has come of it. If they cannot be sent,
// the session will find out.
func (s *session) greet() {
	var header []byte
	s.with(func(a *core.Admission, _ int64) core.Step {
		if a.Pledged() { // it has its header
			return core.Step{}
		}
		header = a.Header(nil, s.reached)
		return core.Step{}
	})
	if len(header) > 0 && len(s.opening) == 0 && s.ends[client] != nil && s.tls[client] == nil && hasUnread(s.ends[client]) {
		// One segment for both, as the loops send it. A few bytes fit into any new queue.
		b := make([]byte, 4<<10)
		n, _ := s.ends[client].Read(b)
		s.opening = b[:n]
	}
	began := s.of.home.Clock()
	if len(s.opening) > 0 {
		s.coming(client, began)
	}
	if first := append(header, s.opening...); len(first) > 0 {
		_, _ = s.sink(backend).Write(first)
	}
	if n := len(s.opening); n > 0 {
		s.copyBytes(s.opening)
		s.sent(client, began)
		s.moved(client, n)
		s.opening = nil
	}
}

// reached returns the address that the client has connected to: that of the host, if the
// program has dialed.
func (s *session) reached() netip.AddrPort {
	if s.ends[client] == nil {
		return endpoint(s.ends[backend].RemoteAddr())
	}
	return endpoint(s.ends[client].LocalAddr())
}

// pledge asks the host for the TLS that the client has been promised, behind its PROXY
// header, and takes in the answer.
func (s *session) pledge(step core.Step) core.Step {
	host := s.ends[backend]
	defer context.AfterFunc(s.ctx, func() { _ = host.SetDeadline(time.Unix(1, 0)) })()
	answer := make([]byte, 0, s.admission.HostListens())
	var err error
	for step.Do == core.Pledge || step.Do == core.Wait {
		if step.Do == core.Pledge {
			var b []byte
			if step.First {
				s.with(func(a *core.Admission, _ int64) core.Step {
					b = a.Header(nil, s.reached)
					return core.Step{}
				})
			}
			if b = append(b, step.Say...); len(b) > 0 {
				_, err = host.Write(b)
			}
			step.Do = core.Wait
		}
		if step.Until != core.Never {
			_ = host.SetReadDeadline(time.Now().Add(time.Duration(step.Until - s.of.home.Clock())))
		}
		if err == nil && s.ctx.Err() == nil {
			var n int
			n, err = host.Read(answer[len(answer):cap(answer)])
			answer = answer[:len(answer)+n]
		}
		if s.ctx.Err() != nil {
			return core.Step{}
		}
		if isTimeout(err) {
			err = nil
			step = s.with((*core.Admission).Deadline)
			continue
		}
		step = s.with(func(a *core.Admission, now int64) (next core.Step) {
			var take int
			take, next = a.HostSaid(now, answer, err != nil)
			answer = answer[:copy(answer, answer[take:])]
			return next
		})
	}
	_ = host.SetReadDeadline(time.Time{})
	if step.Do != core.Relay && step.Do != core.Secure {
		_ = host.Close()
	}
	return step
}
