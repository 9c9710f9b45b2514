package conns

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// patient is the socket of a side that bytes are written to. It notes how long the side did not take
// them, and when the host was passed the last of them.
//
// It tells the two from a write that takes long because the machine is busy: a socket of the system's
// says when it has no room. What others bring does not, and there a write that takes long has waited.
type patient struct {
	net.Conn
	s     *session
	side  engine.Side
	since atomic.Int64 // ns: the side takes nothing since then; 0: it takes all

	mu   sync.Mutex // the program may write to a connection that it has dialed from anywhere
	send *sender    // to a socket of the system's; nil: nothing tells whether a write waits
}

// onto makes c the socket.
func (p *patient) onto(c net.Conn) {
	p.Conn = c
	p.send = senderTo(c, p)
}

func (p *patient) Write(b []byte) (n int, err error) {
	if p.send == nil {
		return p.guess(b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err = p.send.write(b)
	p.goesOn(0) // the write may have failed while it waited
	return n, err
}

// waits is called when the side has no room.
func (p *patient) waits() { p.since.Store(p.s.of.home.Clock()) }

// again is called before what is left of a write is tried once more. The answer to it may come
// before that returns.
func (p *patient) again() {
	now := p.s.of.home.Clock()
	p.goesOn(now)
	if p.side == engine.OfHost {
		p.s.turning.passed(now)
	}
}

// goesOn notes that the side has waited until now, if it has; 0: look at the clock.
func (p *patient) goesOn(now int64) {
	since := p.since.Load()
	if since == 0 {
		return
	}
	p.since.Store(0)
	if now == 0 {
		now = p.s.of.home.Clock()
	}
	p.stalledFor(now - since)
}

func (p *patient) stalledFor(ns int64) {
	p.s.with(func(a *core.Admission, _ int64) core.Step {
		a.StalledFor(p.side, ns, new(core.Attempts))
		return core.Step{}
	})
}

// noticed is how long a write takes at least that has waited, as far as one can guess: one that finds
// room takes microseconds, and a TLS record's a few more.
const noticed = time.Millisecond

// largeWrite is how much of a write fits into the buffers of a socket, if they are empty.
const largeWrite = 64 << 10

// guess writes where nothing tells whether that waits.
func (p *patient) guess(b []byte) (int, error) {
	began := p.s.of.home.Clock()
	p.since.Store(began)
	n, err := p.Conn.Write(b)
	p.since.Store(0)
	now := p.s.of.home.Clock()
	if p.side == engine.OfHost && (n > largeWrite || now-began > int64(noticed)) {
		p.s.turning.passed(now)
	}
	if took := now - began; took > int64(noticed) {
		p.stalledFor(took)
	}
	return n, err
}
