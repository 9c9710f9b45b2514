// Package engine is the data plane.
package engine

import (
	"log/slog"
	"time"

	"github.com/txlb/txlb/sched"
)

// SpliceMode says when a stream goes through a pipe instead of a buffer.
type SpliceMode uint8

const (
	SpliceAuto   SpliceMode = iota // sustained streams
	SpliceAlways                   // every stream from its first byte
	SpliceNever                    // none
)

// Options are fixed for the life of an Engine.
type Options struct {
	Loops       int        // event loops; 0: one a CPU
	Splice      SpliceMode //
	PipeSize    int        // bytes a pipe should hold; 0: 1 MiB
	PipeMemory  int64      // bytes all pipes together may hold; 0: 256 MiB
	MaxSessions int        // sessions at once; 0: no limit. At the limit, accepting pauses
	Backlog     int        // of each listener; 0: 4096
	Log         *slog.Logger
}

// Plan is all that the engine should do: it replaces the plan before it.
type Plan struct {
	Services []Service
}

// Service is one named set of listeners with the route of their sessions.
type Service struct {
	Name   string
	Listen []string // host:port, [v6]:port, *:port, :port, unix:/path; port 0 takes a free one
	Route  *Route
}

// Route is what a loop needs to serve a session. It is immutable, and a
// session reads it once for each decision: one load, one generation.
type Route struct {
	Table    *sched.Table // nil: no group, clients are closed
	Timeouts Timeouts
	Tries    int // connects of one session at most, the first included; 0: each host once
}

// Timeouts of a session; 0 means none.
type Timeouts struct {
	Connect    time.Duration // one connect
	Total      time.Duration // all connects of one session
	Idle       time.Duration // no byte in either direction
	HalfClosed time.Duration // one side has ended, no byte from the other
}

// Failure reports that a failed connect took a host from up to down.
type Failure struct {
	Host *sched.Host
	Err  error
}

// Listener is a listening address in use.
type Listener struct {
	Service string
	Listen  string // as the plan says it
	Addr    string // as it is bound, with the port that a 0 became
}

// Snapshot is the state of the counters.
type Snapshot struct {
	Services map[string]ServiceStats
	Loops    []LoopStats
}

// ServiceStats counts the sessions of one service.
type ServiceStats struct {
	Active          int64             // sessions now
	Sessions        uint64            // sessions ever accepted
	In, Out         uint64            // bytes from and to clients
	Redispatches    uint64            // sessions moved to another host before the first byte
	Refused         map[string]uint64 // sessions closed without a host, by reason
	Ended           map[string]uint64 // sessions ended, by HAProxy's two-letter termination
	ConnectFailures map[string]uint64 // failed connects, by reason
}

// LoopStats counts the work of one loop.
type LoopStats struct {
	Active, Pipes                    int64
	Events, Accepts, Spliced, Copied uint64
}
