package engine

import (
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/connect"
)

// termination tells how a session ended, in HAProxy's two letters: who ended
// it, and what it was doing (see "Session state at disconnection" in HAProxy's
// manual, and semantics).
type termination uint8

const (
	normal        termination = iota // --: both sides ended
	clientAborted                    // CD: the client reset the connection
	serverAborted                    // SD: the backend reset it
	clientTimeout                    // cD: idle, or half closed and the client silent
	serverTimeout                    // sD: half closed and the backend silent
	clientGone                       // CC: the client reset it while a backend was connected
	noServer                         // SC: no host answered
	connectTime                      // sC: the time for all connects ran out
	noResource                       // RC: no descriptor, memory or local port
	killed                           // KD: closed by an operator or at the end of a drain
	terminations
)

// String gives the two letters.
func (t termination) String() string {
	return [terminations]string{"--", "CD", "SD", "cD", "sD", "CC", "SC", "sC", "RC", "KD"}[t]
}

// refusal tells why a client was closed without a host.
type refusal uint8

const (
	noGroup       refusal = iota // the service has no enabled group
	noHost                       // no host was left to try
	outOfResource                // no descriptor, memory or local port
	outOfTime                    // the time for all connects ran out
	refusals
)

// String names the reason in metrics and logs.
func (r refusal) String() string {
	return [refusals]string{"no_group", "no_host", "resource", "timeout"}[r]
}

// termination is how a session ends that was refused.
func (r refusal) termination() termination {
	return [refusals]termination{noServer, noServer, noResource, connectTime}[r]
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

// classify sorts the errno of a failed connect.
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

// counters are one loop's counts of one service. The loop writes them, anybody
// reads them; the padding keeps the loops' copies on lines of their own.
type counters struct {
	active       atomic.Int64
	sessions     atomic.Uint64
	in, out      atomic.Uint64
	redispatches atomic.Uint64
	refused      [refusals]atomic.Uint64
	failed       [connectFailures]atomic.Uint64
	ended        [terminations]atomic.Uint64
	_            [64]byte
}

// addTo adds the counts to a service's sum.
func (c *counters) addTo(s *ServiceStats) {
	s.Active += c.active.Load()
	s.Sessions += c.sessions.Load()
	s.In += c.in.Load()
	s.Out += c.out.Load()
	s.Redispatches += c.redispatches.Load()
	for i := range c.refused {
		s.Refused[refusal(i).String()] += c.refused[i].Load()
	}
	for i := range c.failed {
		s.ConnectFailures[connectFailure(i).String()] += c.failed[i].Load()
	}
	for i := range c.ended {
		s.Ended[termination(i).String()] += c.ended[i].Load()
	}
}

// service is a service as its sessions see it. It lives until its last session has
// ended, whatever the plan says by then.
type service struct {
	name   string
	route  atomic.Pointer[Route]
	counts []counters // one for each gate
}

func newService(name string, gates int) *service {
	return &service{name: name, counts: make([]counters, gates)}
}

// stats returns the sum of the counters, with every reason.
func (s *service) stats() ServiceStats {
	sum := ServiceStats{
		Refused:         map[string]uint64{},
		Ended:           map[string]uint64{},
		ConnectFailures: map[string]uint64{},
	}
	for i := range s.counts {
		s.counts[i].addTo(&sum)
	}
	return sum
}

// refused returns how many clients were refused for one reason.
func (s *service) refused(why refusal) (n uint64) {
	for i := range s.counts {
		n += s.counts[i].refused[why].Load()
	}
	return n
}

// loopCounters are one loop's counts of its own work.
type loopCounters struct {
	active, pipes                    atomic.Int64
	awake                            atomic.Int64 // ns that the loop's goroutine was not asleep
	runner                           atomic.Int32 // the loop whose goroutine runs this one
	events, accepts, spliced, copied atomic.Uint64
	_                                [64]byte
}

func (c *loopCounters) stats() LoopStats {
	return LoopStats{
		Active: c.active.Load(), Pipes: c.pipes.Load(),
		Events: c.events.Load(), Accepts: c.accepts.Load(),
		Spliced: c.spliced.Load(), Copied: c.copied.Load(),
		Runner: int(c.runner.Load()), Awake: time.Duration(c.awake.Load()),
	}
}
