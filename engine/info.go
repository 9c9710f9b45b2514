package engine

import (
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// Ending is why sessions are ended that could go on.
type Ending uint8

const (
	ByOperator   Ending = iota // an operator or the end of a drain: termination KD
	HostDown                   // their host was marked down: DD
	BackupUnused               // a host is up again that theirs stood in for: UD
)

// Candidate is a session that may be ended, see [Engine.EndSessions].
type Candidate struct {
	ID      uint64 // as SessionInfo has it
	Service string
	Host    *sched.Host // nil while the client has none
	// Connected tells that the host has answered: what is not connected can still go to
	// another host.
	Connected bool
	// Era is the host's when the session began to connect, see [sched.Host.Era], and
	// WasDown tells that the host was down then: a last resort.
	Era     uint32
	WasDown bool
}

// Before tells whether the session began before its host was marked down in an era.
func (c Candidate) Before(era uint32) bool {
	ago := int32(era - c.Era) // eras come round
	return ago > 0 || ago == 0 && !c.WasDown
}

// SessionInfo is one session as it was when its loop was asked.
type SessionInfo struct {
	// ID names the session to [Engine.EndSession]. No other session of this
	// engine has it, before or after: on a loop it is the place of the session
	// and how often that place has been used, which comes round after 2^32
	// sessions in the same place. Sessions that goroutines carry are numbered.
	ID      uint64
	Service string
	Host    *sched.Host // nil while the client has none
	// Listener is the address that the client has connected to, as host:port or
	// unix:/path. Of one that listens on all addresses it is the client's choice.
	Listener string
	Client   netip.AddrPort // as a PROXY header says, if there was one; not valid for a UNIX socket, or when the client has gone
	Local    netip.AddrPort // our own address toward the backend; not valid for a UNIX socket, or without a backend
	Started  time.Time
	Idle     time.Duration // since the last byte, end or change of phase
	In, Out  uint64        // bytes from and to the client

	Turns    Turnarounds
	Waiting  time.Duration // how long what the client sent last has had no answer; 0: it has, or nothing was sent
	Answered bool          // the host has sent a byte
	// Held is for how long the client has waited because its group holds its clients. Once
	// the host has answered, only sessions that are recorded still say so.
	Held time.Duration
}

// Turnarounds sums up the turnarounds of a session: each is the time from the last byte that
// was passed on from the client to the first byte back from the host, to the precision of a
// turn of its loop.
type Turnarounds struct {
	Count  uint32
	Median time.Duration // within 27 %, mostly of the last few dozen
	Worst  time.Duration // to the next µs or two
	Total  time.Duration
}
