package core

import (
	"sync/atomic"
	"syscall"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
)

// Termination tells how a session ended, in HAProxy's two letters: who ended
// it, and what it was doing (see "Session state at disconnection" in HAProxy's
// manual, and semantics).
type Termination uint8

const (
	Normal        Termination = iota // --: both sides ended
	ClientAborted                    // CD: the client reset the connection
	ServerAborted                    // SD: the backend reset it
	ClientTimeout                    // cD: idle, or half closed and the client silent
	ServerTimeout                    // sD: half closed and the backend silent
	ClientGone                       // CC: the client reset it while a backend was connected
	noServer                         // SC: no host answered
	connectTime                      // sC: the time for all connects ran out
	noResource                       // RC: no descriptor, memory or local port
	Killed                           // KD: closed by an operator or at the end of a drain
	terminations
)

// String gives the two letters.
func (t Termination) String() string {
	return [terminations]string{"--", "CD", "SD", "cD", "sD", "CC", "SC", "sC", "RC", "KD"}[t]
}

// Refusal tells why a client was closed without a host.
type Refusal uint8

const (
	noGroup       Refusal = iota // the service has no enabled group
	noHost                       // no host was left to try
	OutOfResource                // no descriptor, memory or local port
	outOfTime                    // the time for all connects ran out
	refusals
)

// String names the reason in metrics and logs.
func (r Refusal) String() string {
	return [refusals]string{"no_group", "no_host", "resource", "timeout"}[r]
}

// Termination is how a session ends that was refused.
func (r Refusal) Termination() Termination {
	return [refusals]Termination{noServer, noServer, noResource, connectTime}[r]
}

// connectFailure groups what connect(2) can answer.
type connectFailure uint8

const (
	refused connectFailure = iota
	timedOut
	unreachable
	dropped   // reset after the connect, before the first byte
	local     // the fault is on our side: it says nothing about the backend
	forbidden // by the mode of a UNIX socket, a packet filter or a security module
	other
	connectFailures
)

// String names the reason in metrics.
func (c connectFailure) String() string {
	return [connectFailures]string{"refused", "timeout", "unreachable", "dropped", "local", "forbidden", "other"}[c]
}

// classify returns the kind of a failed connect by its errno.
func classify(errno syscall.Errno) connectFailure {
	if connect.Ours(errno) {
		return local
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENOENT:
		return refused
	case syscall.ETIMEDOUT:
		return timedOut
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN:
		return unreachable
	case syscall.EACCES, syscall.EPERM:
		return forbidden
	}
	return other
}

// Counters are one loop's counts of one service. The loop writes them, any
// goroutine may read them; the padding gives each loop's copy its own cache line.
type Counters struct {
	active       atomic.Int64
	sessions     atomic.Uint64
	In, Out      atomic.Uint64
	redispatches atomic.Uint64
	refused      [refusals]atomic.Uint64
	failed       [connectFailures]atomic.Uint64
	ended        [terminations]atomic.Uint64
	_            [64]byte
}

// addTo adds the counts to a service's sum.
func (c *Counters) addTo(s *engine.ServiceStats) {
	s.Active += c.active.Load()
	s.Sessions += c.sessions.Load()
	s.In += c.In.Load()
	s.Out += c.Out.Load()
	s.Redispatches += c.redispatches.Load()
	for i := range c.refused {
		s.Refused[Refusal(i).String()] += c.refused[i].Load()
	}
	for i := range c.failed {
		s.ConnectFailures[connectFailure(i).String()] += c.failed[i].Load()
	}
	for i := range c.ended {
		s.Ended[Termination(i).String()] += c.ended[i].Load()
	}
}
