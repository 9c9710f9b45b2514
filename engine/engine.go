// Package engine is the data plane: it accepts clients, picks a host for each
// and moves bytes until both sides have ended.
//
// [New] starts the event loops, [Engine.Apply] tells them what to serve,
// [Engine.Drain] takes leave of the clients and [Engine.Close] ends the loops.
// A plan is declarative: the engine finds the difference to the one before,
// opens what is new before it closes what is gone, and touches no session and
// no listener that stays.
//
// On Linux one loop a core owns its listeners (SO_REUSEPORT), sessions, pipes
// and timers; it takes no lock and starts no goroutine. On other systems, and
// with the build tag portable, a session has one goroutine a direction. The
// exported API and what a client sees are the same.
//
// Limits: Apply, Drain and Close are for one caller at a time; everything else
// may be called from anywhere. The engine decides nothing about health: it
// marks a host down at its first failed connect and says so on
// [Engine.Failures].
package engine

import (
	"errors"
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
	ringFrom    int        // sends from which on a batch goes through the ring; 0: what pays
	governor    governor   // of the loops' goroutines; none: what pays
	PipeSize    int        // bytes that a pipe should hold; 0: 1 MiB
	PipeMemory  int64      // bytes that all pipes together may hold; 0: 256 MiB
	MaxSessions int        // sessions at once; 0: no limit. At the limit, accepting pauses
	Backlog     int        // of each listener; 0: 4096
}

// Failure reports that a failed connect took a host from up to down or, with
// Suspect, that three clients in a row were reset before they had an answer, see
// [sched.Host.ResetEarly]. A host that is suspect is still up: whoever knows its
// group decides.
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
}

// Snapshot holds the engine's counters at about one moment.
type Snapshot struct {
	Services map[string]ServiceStats
	Loops    []LoopStats // empty on the portable engine
}

// ServiceStats counts the sessions of one service. A removed service is
// forgotten with its last session.
type ServiceStats struct {
	Active          int64             // sessions now
	Sessions        uint64            // sessions ever accepted
	In, Out         uint64            // bytes from and to clients
	Redispatches    uint64            // connects to another host than the first
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
	Runner  int           // the loop whose goroutine runs this one: few do at low load
	Awake   time.Duration // how long this loop's goroutine was not asleep
}

const (
	defaultPipeSize   = 1 << 20
	defaultPipeMemory = 256 << 20
	defaultBacklog    = 4096
	// failureQueue is how many reports wait for the director; further ones
	// are dropped, and its scan of the hosts finds what they said.
	failureQueue = 1024
	// notSent is TCP_NOTSENT_LOWAT: how many bytes may wait in the kernel that
	// TCP has not sent yet. More would only move a queue from the source's
	// buffer to ours.
	notSent = 128 << 10
)

// withDefaults fills in what is 0.
func (o Options) withDefaults(cpus int) (Options, error) {
	if o.Loops < 0 || o.PipeSize < 0 || o.PipeMemory < 0 || o.MaxSessions < 0 || o.Backlog < 0 {
		return o, errors.New("engine: an option is negative")
	}
	if o.Loops == 0 {
		o.Loops = cpus
	}
	if o.PipeSize == 0 {
		o.PipeSize = defaultPipeSize
	}
	if o.PipeMemory == 0 {
		o.PipeMemory = defaultPipeMemory
	}
	if o.Backlog == 0 {
		o.Backlog = defaultBacklog
	}
	return o, nil
}

// ErrClosed is returned by calls on an engine that is closed or draining.
var ErrClosed = errors.New("engine: closed")
