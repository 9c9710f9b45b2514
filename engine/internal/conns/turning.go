package conns

import (
	"net"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// turning measures the turnarounds of a session. The goroutines of both directions call it, and
// those that list sessions.
type turning struct {
	mu    sync.Mutex
	of    core.Turning
	spoke bool // the host has sent a byte
}

// passing is called before bytes of the client are passed on: their answer may come before the
// write returns.
func (t *turning) passing(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of.Passed(now)
}

// passed is called before the rest of a write that had to wait, and after one that may have.
func (t *turning) passed(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of.Waits() {
		t.of.Passed(now)
	}
}

func (t *turning) waits() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of.Waits()
}

// forget is called when bytes of the host have come that nobody has seen coming.
func (t *turning) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of.Forget()
	t.spoke = true
}

// heard is called when bytes of the host have come. answer says that they are an answer, which
// took d.
func (t *turning) heard(now int64) (d time.Duration, answer bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spoke = true
	if !t.of.Waits() {
		return 0, false
	}
	d, _ = t.of.Answered(now)
	return d, true
}

// tell writes what was measured into what is known of the session.
func (t *turning) tell(i *engine.SessionInfo, now int64, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i.Turns, i.Answered = t.of.Sum(), t.spoke
	if !ended { // else there will be no answer
		i.Waiting = t.of.Waiting(now)
	}
}

func (t *turning) sum() engine.Turnarounds {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of.Sum()
}

// coming is called at a time when bytes from a side have come and are about to be sent on.
func (s *session) coming(i int, now int64) {
	if i == client {
		s.turning.passing(now)
	} else if d, answer := s.turning.heard(now); answer {
		s.host().Turned(s.of.gate.Index, d)
	}
}

// passage is the end of a session to which the bytes of the other side go.
type passage struct {
	net.Conn
	s    *session
	from int // the other side
}

func (p passage) Write(b []byte) (int, error) {
	began := p.s.of.home.Clock()
	p.s.coming(p.from, began)
	n, err := p.Conn.Write(b)
	if n > 0 {
		p.s.sent(p.from, began)
	}
	return n, err
}
