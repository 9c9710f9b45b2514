package sched

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Mirror is where copies of what clients send go. Its answers are dropped. Like a [Host]
// it outlives the tables that list it, with its counters. All methods may be called from any
// goroutine; none waits.
//
// A mirror that cannot be reached is left alone for a while: the copies of these sessions are
// lost without a connect. Then one session tries, and all others wait for what becomes of it.
type Mirror struct {
	name    string
	addr    atomic.Pointer[Addr]
	retryAt atomic.Int64 // ns on the engine's clock: until then nobody connects; 0: it can be reached
	failed  atomic.Uint32
	trouble atomic.Pointer[MirrorTrouble]

	sessions, bytes atomic.Uint64
	active          atomic.Int64
	lost            [lostCopies]atomic.Uint64
}

// MirrorTrouble is why a mirror is not connected to.
type MirrorTrouble struct {
	Reason string
	Since  time.Time
}

// LostCopy is why the copy of a session is not whole.
type LostCopy uint8

const (
	CopyBehind     LostCopy = iota // the mirror took less than the client sent, for longer than there was room, or nothing for too long
	CopyUnreached                  // the connect failed
	CopyBackOff                    // a connect failed a moment ago, and it was not tried again
	CopyReset                      // the mirror has ended the connection
	CopyNoResource                 // there was no socket, pipe or memory, or too few sessions were free
	CopyMoved                      // the session has moved to another process
	lostCopies
)

// String is the reason as metrics have it.
func (l LostCopy) String() string {
	return [...]string{"behind", "connect", "backoff", "reset", "resource", "moved"}[l]
}

// MirrorShare is a mirror of a table, with what the configuration says of it.
type MirrorShare struct {
	Mirror        *Mirror
	Percent       int // of the sessions, drawn by lot
	ProxyProtocol int // version of the PROXY header ahead of each copy; 0: none
}

// Drawn draws whether a session is copied.
func (m *MirrorShare) Drawn() bool {
	return m.Percent >= 100 || rand.Uint32N(100) < uint32(max(m.Percent, 0))
}

// NewMirror returns a mirror without an address: nothing can be copied to it yet.
func NewMirror(name string) *Mirror { return &Mirror{name: name} }

// Name returns the address as the configuration has it.
func (m *Mirror) Name() string { return m.name }

// SetAddr sets where to connect; an invalid Addr: nowhere. A new address is tried at once.
func (m *Mirror) SetAddr(a Addr) {
	if was := m.addr.Load(); was == nil || *was != a {
		m.addr.Store(&a)
		m.failed.Store(0)
		m.trouble.Store(nil)
		m.retryAt.Store(0)
	}
}

// Addr returns where to connect; it is not valid if that is not known.
func (m *Mirror) Addr() Addr {
	if a := m.addr.Load(); a != nil {
		return *a
	}
	return Addr{}
}

// A mirror that cannot be reached is tried again after leastBackOff, twice as long after each
// further failure, and mostBackOff at most.
const (
	leastBackOff = time.Second
	mostBackOff  = 30 * time.Second
)

// Begin counts a session that is to be copied and returns where to connect. now is on the
// clock that Failed is told, in ns; within is how long the connect may take. ok is false if the
// copy is lost at once, which is counted. If try is true, this session alone finds out
// whether the mirror is back, and tells Reached or Failed so.
func (m *Mirror) Begin(now int64, within time.Duration) (to Addr, try, ok bool) {
	m.sessions.Add(1)
	to = m.Addr()
	if !to.IsValid() {
		m.Lose(CopyUnreached)
		return to, false, false
	}
	if at := m.retryAt.Load(); at != 0 {
		// Who tries leaves the others this long at least, should it never tell.
		if now < at || !m.retryAt.CompareAndSwap(at, now+int64(within+leastBackOff)) {
			m.Lose(CopyBackOff)
			return to, false, false
		}
		try = true
	}
	m.active.Add(1)
	return to, try, true
}

// Reached tells that a connect has succeeded.
func (m *Mirror) Reached() {
	if m.retryAt.Load() != 0 {
		m.failed.Store(0)
		m.trouble.Store(nil)
		m.retryAt.Store(0)
	}
}

// Failed tells that a connect has failed, of a session whose Begin has returned to and try,
// and why. The copy has to be lost with CopyUnreached besides. It says nothing about an address
// that was set since.
func (m *Mirror) Failed(now int64, to Addr, try bool, why error) {
	if to != m.Addr() {
		return
	}
	first := m.retryAt.CompareAndSwap(0, now+int64(leastBackOff))
	switch {
	case first:
		m.failed.Store(1)
		m.trouble.Store(&MirrorTrouble{Reason: fmt.Sprintf("connect to %v: %v", to, why), Since: time.Now()})
	case try:
		n := min(m.failed.Add(1), 16)
		m.retryAt.Store(now + int64(min(leastBackOff<<(n-1), mostBackOff)))
	}
}

// Trouble returns why the mirror is not connected to; nil: it can be reached, as far as is known.
func (m *Mirror) Trouble() *MirrorTrouble { return m.trouble.Load() }

// Copied counts bytes that the mirror's connection has taken.
func (m *Mirror) Copied(n int) { m.bytes.Add(uint64(n)) }

// Lose counts a copy that is not whole.
func (m *Mirror) Lose(why LostCopy) { m.lost[why].Add(1) }

// End tells that the copy of a session is over, whole or not, whose Begin has returned ok.
func (m *Mirror) End() { m.active.Add(-1) }

// MirrorStats is a snapshot of a mirror's counters.
type MirrorStats struct {
	Active   int64             // copies now
	Sessions uint64            // that were to be copied
	Bytes    uint64            // that its connections have taken
	Lost     map[string]uint64 // copies that are not whole, by reason; all reasons
}

// LostAll returns how many copies are not whole, for any reason.
func (s MirrorStats) LostAll() (n uint64) {
	for _, lost := range s.Lost {
		n += lost
	}
	return n
}

// Stats returns the counters as they are now.
func (m *Mirror) Stats() MirrorStats {
	s := MirrorStats{
		Active: m.active.Load(), Sessions: m.sessions.Load(), Bytes: m.bytes.Load(),
		Lost: make(map[string]uint64, lostCopies),
	}
	for why := range lostCopies {
		s.Lost[why.String()] = m.lost[why].Load()
	}
	return s
}

// Add adds the counters of another mirror.
func (s *MirrorStats) Add(o MirrorStats) {
	s.Active += o.Active
	s.Sessions += o.Sessions
	s.Bytes += o.Bytes
	for why, n := range o.Lost {
		s.Lost[why] += n
	}
}
