package conns

import (
	"net"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// turning measures the turnarounds of a session. The goroutines of both directions call it, and
// whoever lists sessions.
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

// passed is called after a write that may have taken long.
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
func (t *turning) heard(clock func() int64) (d time.Duration, answer bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spoke = true
	if !t.of.Waits() {
		return 0, false // without a look at the clock
	}
	d, _ = t.of.Answered(clock())
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

// largeWrite is how much of a write fits into the buffers of a socket, if they are empty.
const largeWrite = 64 << 10

// wrote is called after a write of n bytes to the host that began at a time. One that has waited
// for the host is passed on now.
func (s *session) wrote(n int, began, now int64) {
	if n > largeWrite || now-began > int64(noticed) {
		s.turning.passed(now)
	}
}

// coming is called when bytes from a side have come and are about to be sent on.
func (s *session) coming(i int) {
	if i == client {
		s.turning.passing(s.of.home.Clock())
	} else if d, answer := s.turning.heard(s.of.home.Clock); answer {
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
	p.s.coming(p.from)
	return p.Conn.Write(b)
}
