// Package engine is the data plane: it accepts clients, picks a host for each
// and moves bytes until both sides have ended.
//
// This package is the contract: [Engine] with its parameters and results. Package
// native makes an engine. [Engine.Apply] tells it what to serve, [Engine.Drain]
// lets the sessions finish, and [Engine.Close] ends it. A plan is declarative: the
// engine finds the difference to the one before, opens what is new before it closes
// what is gone, and touches no session and no listener that stays.
//
// There are two engines, and a client sees no difference. On Linux one event loop a core
// owns its listeners, sessions, pipes and timers. On other systems, and with the build
// tag portable, a session has one goroutine a direction. The tests of this package hold
// both to the contract.
//
// Limits: the engine decides nothing about health. It marks a host down at its first
// failed connect and says so on [Engine.Failures].
package engine

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// SpliceMode says when a stream goes through a pipe instead of a buffer.
type SpliceMode uint8

const (
	SpliceAuto   SpliceMode = iota // streams that fill the buffer
	SpliceAlways                   // every stream, from its first byte
	SpliceNever                    // none
)

// RingMode says whether a loop makes the sends of a batch in one system call.
type RingMode uint8

const (
	RingAuto RingMode = iota // where the kernel has io_uring(7) to give
	RingOff
)

// Options are fixed for the life of an Engine. The zero value is the default.
type Options struct {
	Loops       int        // event loops; 0: one a CPU
	Splice      SpliceMode // Linux only
	Ring        RingMode   // Linux only
	Steer       bool       // a loop gets the TCP clients whose handshake its CPU has received; Linux only
	PipeSize    int        // bytes that a pipe should hold; 0: 1 MiB
	PipeMemory  int64      // bytes that all pipes together may hold; 0: 256 MiB
	MaxSessions int        // sessions at once; 0: no limit. At the limit, accepting pauses
	Backlog     int        // of each listener; 0: 4096
	Recorder    *Recorder  // takes records of sessions that end; nil: nobody does
}

// Failure reports that a failed connect took a host from up to down or, with
// Suspect, that three clients in a row were reset before they had an answer, see
// [sched.Host.ResetEarly]. A suspect host is still up: the receiver, which knows
// its group, decides.
type Failure struct {
	Host    *sched.Host
	Err     error
	Suspect bool
}

// Listener is a listening address in use.
type Listener struct {
	Service string
	Listen  string // as the plan says it
	Addr    string // as it is bound, with the port that a 0 became
	MPTCP   bool   // clients may use Multipath TCP
}

// Snapshot holds the engine's counters at about one moment.
type Snapshot struct {
	Services   map[string]ServiceStats
	Loops      []LoopStats // empty on the portable engine
	Facilities []Facility
}

// Facility is something that the engine uses where the kernel has it and allows it.
// Without it, the engine does the same in another way.
type Facility struct {
	Name    string // IOUring or CPUSteering
	On      bool   // it is in use
	Why     string // not on: why
	Refused bool   // not on, although the options ask for it
}

// Names of facilities.
const (
	IOUring     = "io_uring"     // the sends of a batch go out in one call
	CPUSteering = "cpu_steering" // clients go to a loop by the CPU that receives them
)

// ServiceStats counts the sessions of one service. A removed service is
// forgotten with its last session.
type ServiceStats struct {
	Active       int64  // sessions now
	Sessions     uint64 // sessions ever accepted
	In, Out      uint64 // bytes from and to clients
	Redispatches uint64 // connects to another host than the first
	ProxyHeaders uint64 // sessions that began with a right PROXY header
	MPTCP        uint64 // sessions whose client used Multipath TCP

	// The maps are shared with others who ask: they must not be changed.
	Refused         map[string]uint64 // sessions closed without a host, by reason
	Ended           map[string]uint64 // sessions ended, by HAProxy's two-letter termination
	ConnectFailures map[string]uint64 // failed connects, by reason
}

// LoopStats counts the work of one loop.
type LoopStats struct {
	Active  int64         // sessions now
	Pipes   int64         // pipes open
	Events  uint64        // events taken in
	Accepts uint64        // connections accepted
	Spliced uint64        // bytes moved through pipes
	Copied  uint64        // bytes moved through buffers
	Awake   time.Duration // how long the loop was not asleep
}

// Engine serves plans. Apply, Drain and Close are for one
// caller at a time; every other method may be called from any goroutine.
type Engine interface {
	// Apply makes the engine serve p. New listeners are opened before anything
	// else; if one of them cannot be, nothing changes and the error names each
	// such address and its service.
	Apply(p Plan) error
	// Drain closes the listeners and lets the sessions finish. On Linux it first
	// accepts the connections in their queues; at the session limit these are served
	// as other sessions end. It returns nil once the last session has ended. If ctx
	// ends first, it closes those that are left and returns ctx's error. The engine
	// accepts nothing afterwards.
	Drain(ctx context.Context) error
	// Close ends every session. It is done when it returns.
	Close() error

	// Listeners returns the addresses in use. It never waits for a change.
	Listeners() []Listener
	// Snapshot returns the counters. It never waits for a session or a change.
	Snapshot() Snapshot
	// Refused calls yield with every service that has rejected clients, a reason and
	// how many it were for that, since the service was first there. It never waits
	// for a session or a change, and allocates nothing.
	Refused(yield func(service, reason string, clients uint64))
	// Failures returns the channel on which a host's way from up to down is
	// reported. Reports that nobody takes in time are dropped.
	Failures() <-chan Failure
	// Sessions returns the sessions that which picks out, the oldest first, but no
	// more than most; 0 is no limit. Which of them are left out is not defined. host
	// is nil for a client that has none. which may be called by several goroutines at
	// the same moment, and sessions wait for it: it must be quick and call nothing of
	// the engine. Sessions does not wait for a change or a drain. It is no picture of
	// one moment: a session that begins or ends meanwhile may be in it or not. A
	// closed engine has no sessions.
	Sessions(most int, which func(service string, host *sched.Host) bool) []SessionInfo
	// FindByLocal returns the sessions whose connection to the backend has this
	// address on our side, which is what the backend sees as its peer. There may be
	// several: the kernel uses a port again for connections to other addresses.
	FindByLocal(local netip.AddrPort) []SessionInfo
	// EndSessions ends the sessions that which picks out and returns how many those
	// were; why is what counters and logs say of them. For which see Sessions. Where
	// bytes are on the way to a side, that side gets a reset. On Linux the sessions have
	// ended when it returns, on the portable engine they have been told to. A loop ends a
	// few at a time and turns to its other clients in between. EndSessions does not wait
	// for a change or a drain.
	EndSessions(why Ending, which func(Candidate) bool) int
	// EndSession ends one session as an operator's kill. It returns false if there is
	// none with that ID any more.
	EndSession(id uint64) (ended bool)
}

// ErrClosed is returned by calls on an engine that is closed or draining.
var ErrClosed = errors.New("engine: closed")
