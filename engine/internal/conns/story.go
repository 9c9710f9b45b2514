package conns

import (
	"errors"
	"net"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/splice"
)

// Explain returns the story of a session that runs, or of one of the last that have ended.
func (c *Sessions) Explain(id uint64) (engine.Story, bool) {
	if s, ok := c.live.Load(id); ok {
		if story := s.(*session).story(); story.Stage != engine.StageEnded {
			return story, true
		}
	}
	c.ending.Lock()
	defer c.ending.Unlock()
	return c.gate.Past.Find(id, c.epoch())
}

// Ended returns the stories of the sessions that have ended last, at most so many.
func (c *Sessions) Ended(most int) []engine.Story {
	c.ending.Lock()
	defer c.ending.Unlock()
	r := c.gate.Past.Read(most, c.epoch())
	for r.Step() { // sessions that end do not wait for the whole
		c.ending.Unlock()
		c.ending.Lock()
	}
	return r.List()
}

// epoch returns 0 on the engine's clock as a time, by the clock of the machine as it is set now.
func (c *Sessions) epoch() time.Time { return time.Now().Add(-time.Duration(c.home.Clock())) }

// story tells what is known of a session.
func (s *session) story() engine.Story {
	i := s.info()
	story := engine.Story{
		ID: i.ID, Client: i.Client, Listener: i.Listener, Local: i.Local, Idle: i.Idle, In: i.In, Out: i.Out, Turns: i.Turns, Waiting: i.Waiting, Goroutine: true,
		TCP: [2]engine.TCPInfo{client: tcpInfo(s.ends[client])},
	}
	s.with(func(a *core.Admission, now int64) core.Step {
		a.Tell(&story, s.of.epoch(), now)
		for i := range s.toward {
			if since := s.toward[i].since.Load(); since != 0 && now-since > int64(noticed) {
				story.Stalled[i] += time.Duration(now - since)
			}
		}
		return core.Step{}
	})
	if tcp := s.socket.Load(); tcp != nil {
		story.TCP[backend] = tcpInfo(tcp)
	}
	return story
}

// tcpInfo asks the kernel what it knows of a connection.
func tcpInfo(c net.Conn) (info engine.TCPInfo) {
	if tcp := tcpOf(c); tcp != nil {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { info = core.TCPInfo(int(fd)) })
		}
	}
	return info
}

// askTCP asks the kernel what it knows of the sockets of a session that ends, if its end is
// to be explained.
func (s *session) askTCP() {
	s.asked.Do(func() {
		asks := false
		s.with(func(a *core.Admission, now int64) core.Step {
			asks = a.AsksTCP(now, s.how)
			return core.Step{}
		})
		for i, c := range s.ends {
			if asks && c != nil {
				s.tcp[i] = tcpInfo(c)
			}
		}
	})
}

// last is what is left of a session that ends.
func (s *session) last() core.Last {
	return core.Last{ID: s.id, Client: core.Unmapped(s.from.IP()), In: s.in.Load(), Out: s.out.Load(), Turns: s.turning.sum(), TCP: s.tcp, Goroutine: true}
}

// sent is called before bytes that came from ends[i] are counted. It notes when the first one was
// sent on: when the write of it began. By the time that a write returns, its answer may have come,
// and would be noted as the earlier one.
func (s *session) sent(i int, began int64) {
	if s.through(i).Load() > 0 {
		return
	}
	s.with(func(a *core.Admission, _ int64) core.Step {
		a.Sent(sides[i], began)
		return core.Step{}
	})
}

// closed notes who has ended the direction that begins at ends[i], and whether it was whole.
func (s *session) closed(i int, err error) {
	from := sides[i]
	if errors.Is(err, splice.ErrWrite) {
		from = sides[1-i]
	}
	if isTimeout(err) && errors.Is(err, splice.ErrRead) { // it was woken, because the other side is gone
		return
	}
	s.sideEnded(from, err != nil)
}

// sideEnded notes that a side has ended, and whether with a reset.
func (s *session) sideEnded(side engine.Side, reset bool) {
	s.with(func(a *core.Admission, now int64) core.Step {
		a.Closed(side, reset, now)
		return core.Step{}
	})
}
