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
// tag portable, a session has one goroutine a direction. On Linux that also holds for the
// sessions that a loop cannot carry: see [Route.Goroutines]. The tests of this package
// hold both to the contract.
//
// Limits: the engine decides nothing about health. It marks a host down at its first
// failed connect and says so on [Engine.Failures].
//
// Compatibility: this package may change in a minor version; package txlb does not.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

	// Inherited are listening sockets that are open already. Where a plan asks for the address
	// of some, the engine uses them instead of opening its own, so that no client is refused
	// between two processes. New takes over the files, also on error.
	Inherited []Inherited

	// FindHost returns the host of a session that [Engine.Adopt] takes on, if no table of the
	// plan has it: it drains, for one, or is of a group that is not active. nil, or nil
	// returned: the session goes on with a host that nobody else knows. Any goroutine may
	// call it, and loops wait for it.
	FindHost func(service, group, host string, addr sched.Addr) *sched.Host

	// Keeper keeps the sessions of loops that last longer than a moment, and has those that a
	// process before has left: the first plan takes them on. nil: nobody keeps them. TCP alone
	// can be kept, and no session that goroutines carry. Linux only.
	Keeper Keeper

	// OnPanic is told when code of the program has panicked that the engine has called: a
	// connection given to [Engine.Take], or [Route].Fallback. nil: nobody is. It is called
	// by the goroutine that has panicked, and must not panic itself.
	OnPanic func(Panic)
}

// Inherited is a listening stream socket that somebody else has opened: systemd, or the
// process whose place this one takes. Several may have the same address (SO_REUSEPORT).
type Inherited struct {
	File *os.File

	// Service and Listen are those of the [Listener] that it was of, as its plan said them. They
	// are needed where Listen has the port 0; else the socket is known by where it is bound.
	Service, Listen string

	// Lent: who gave it has it as well, for processes to come. The engine does not end it: when a
	// listener closes, clients wait in its queue. A later plan may use it again. One that is
	// not lent belongs to the engine from the first plan on that Apply accepts. If that does not
	// use it, the engine ends it; one of a Service it only closes, for the process that has passed
	// it on may go on.
	Lent bool
}

// Panic is a panic in code of the program. The engine has contained it: the session has
// ended, or the client of the fallback is closed.
type Panic struct {
	Service string
	Where   string // "connection" or "fallback"
	Value   any    // of the panic
	Stack   []byte // as runtime/debug has it
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
	Lent    bool   // its socket is, see [Inherited]
}

// Snapshot holds the engine's counters at about one moment.
type Snapshot struct {
	Services   map[string]ServiceStats
	Loops      []LoopStats // empty on the portable engine
	Facilities []Facility
	Keeper     KeeperStats
	Panics     uint64 // in code of the program, see [Options].OnPanic
}

// KeeperStats counts what [Options].Keeper has to do with.
type KeeperStats struct {
	Kept    int64  // sessions that the keeper has now
	Unkept  uint64 // sessions that it does not have, because it was full or did not answer
	Revived uint64 // sessions that go on, of a process before
	Cut     uint64 // sessions of a process before that do not: their bytes were lost with it, or they were over
}

// Facility is something that the engine uses where the kernel has it and allows it.
// Without it, the engine does the same in another way.
type Facility struct {
	Name    string // IOUring, CPUSteering or SessionKeeper
	On      bool   // it is in use
	Why     string // not on: why
	Refused bool   // not on, although the options ask for it
}

// Names of facilities.
const (
	IOUring     = "io_uring"     // the sends of a batch go out in one call
	CPUSteering = "cpu_steering" // clients go to a loop by the CPU that receives them

	SessionKeeper = "session_keeper" // sessions outlive the process; listed only with one
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
	TLS          TLSStats

	// The maps are shared with others who ask: they must not be changed.
	Refused         map[string]uint64 // sessions closed without a host, by reason
	Ended           map[string]uint64 // sessions ended, by HAProxy's two-letter termination
	ConnectFailures map[string]uint64 // failed connects, by reason
}

// TLSStats counts the TLS handshakes of a service that did not fail: with clients whose TLS
// ends here, and with hosts. Those that resume a session exchange no certificate. What
// failed is in [ServiceStats].Refused under the reasons tls_…, and in ConnectFailures
// under tls.
type TLSStats struct {
	Full, Resumed         uint64
	HostFull, HostResumed uint64
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

// Count adds what another loop has counted, without what it has now.
func (s *LoopStats) Count(o LoopStats) {
	s.Events += o.Events
	s.Accepts += o.Accepts
	s.Spliced += o.Spliced
	s.Copied += o.Copied
	s.Awake += o.Awake
}

// Engine serves plans. Apply, Drain, Leave, MoveSessions and Close are for one
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

	// Pause makes the engine accept no connection any more until Resume. The listening
	// sockets stay open, so that clients wait in their queues, or are accepted by another
	// process that has the same sockets. Sessions go on, and so do changes.
	Pause()
	// Resume makes the engine accept again after Pause.
	Resume()
	// Leave is Drain for an engine whose listening sockets another process has. It closes its
	// own descriptors and accepts nothing from the queues. It ends no socket, and removes no
	// file of a UNIX socket.
	Leave(ctx context.Context) error
	// MoveSessions gives sessions to another process, where [Engine.Adopt] takes them on. The
	// engine should be paused. It freezes a few sessions at a time and calls give with them:
	// the files are valid until that returns. nil means that the other process has adopted
	// the batch. With an error the sessions of the batch go on here, as after [Move.TakeBack],
	// and MoveSessions ends; give must not return one while the other process may still touch
	// them. Sessions with clients that wait for a host come last, so that they find the hosts as
	// full as they are. IDs of sessions change with the move.
	//
	// Some sessions stay: those that goroutines carry, such as those with TLS or of the program
	// itself, clients that are being rejected, and those that only wait for a reset to be
	// sent. The portable engine moves none.
	//
	// The move is not nil, also with an error: that of give, or of ctx, which ends the move
	// between two batches.
	MoveSessions(ctx context.Context, give func(batch []Moved) error) (*Move, error)
	// Adopt takes on sessions of another process, whose services, groups and hosts are found
	// by their names. They count for limits, and are let in above them. Adopt owns the files.
	// The errors are those of the sessions of the same index: where one is not nil, both peers
	// of the session have got a reset. Sessions have begun to move bytes when it returns.
	Adopt(batch []Moved) []error

	// Listeners returns the addresses in use. Equal ones of a service, with port 0, are in the
	// order of the plan. It never waits for a change.
	Listeners() []Listener
	// Sockets returns duplicates of the sockets that it listens on, for who gives them to the
	// next process, in the order of [Engine.Listeners]. The name of a file is the address as
	// Listeners has it. Behind them, without a Service, are those that are lent and that no plan
	// uses now. It waits for a change. The caller closes the files.
	Sockets() ([]Inherited, error)
	// Snapshot returns the counters. It never waits for a session or a change.
	Snapshot() Snapshot
	// Inherit makes the counters of Snapshot go on where those of an earlier process were
	// when before was taken there: for services that are in the plan now and were in the
	// plan there, and for loops. Those of loops that are no more count with another one. What
	// before has of sessions and pipes now is ignored. Another call takes the place of the
	// one before it, so that counts of that process can be updated.
	Inherit(before Snapshot)
	// Refused calls yield with every service that has rejected clients, a reason and
	// how many it were for that, since the service was first there in this process. It never waits
	// for a session or a change, and allocates nothing.
	Refused(yield func(service, reason string, clients uint64))
	// Allot says how much of its [Limits] a service may use from now on, if they are Shared. Less
	// than it uses ends no session. It returns what it uses; ok is false if the plan does not have
	// the service. It is for one caller at a time, never waits for a session or a change, and
	// allocates nothing.
	Allot(service string, a Allotment) (u Usage, ok bool)
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
	// bytes are on the way to a side, that side gets a reset. Those on event loops have
	// ended when it returns, those that goroutines carry have been told to. A loop ends a
	// few at a time and turns to its other clients in between. EndSessions does not wait
	// for a change or a drain.
	EndSessions(why Ending, which func(Candidate) bool) int
	// EndSession ends one session as an operator's kill. It returns false if there is
	// none with that ID any more.
	EndSession(id uint64) (ended bool)
	// Explain tells what is known of a session: of one that runs, or of the last ones that
	// have ended on its loop. ok is false for any other. Its loop is asked, as with
	// Sessions. For a session that runs, the kernel is asked about its sockets.
	Explain(id uint64) (story Story, ok bool)
	// Ended returns the stories of the sessions that have ended last, the last one first, but no
	// more than most. A closed engine has none.
	Ended(most int) []Story

	// Take serves conn as if a listener of the service without [ListenOptions] had
	// accepted it. The engine owns conn from the call on, also if Take returns an error:
	// then it has closed conn. While the limit of sessions is reached, Take waits until
	// ctx ends. Errors are ErrNoService, ErrClosed, that of ctx, and what is wrong with
	// conn.
	Take(ctx context.Context, service string, conn net.Conn) error
	// Dial returns a connection to a host of the service. The host is found as for a
	// client: by limits, routes by network, scheduler, queue and tries. client is who the
	// connection is for, as affinity, access rules, limits and a PROXY header see it; the
	// zero Addr: nobody. ctx bounds Dial alone. The connection is a session until it is
	// closed: it is counted and listed, and EndSessions, the end of a drain and Close make
	// it fail; the timeouts Idle, HalfClosed and MaxAge do not apply to it. Errors are
	// [*NoHostError], ErrNoService, ErrClosed, and that of ctx.
	Dial(ctx context.Context, service string, client netip.Addr) (net.Conn, error)
}

// ErrClosed is returned by calls on an engine that is closed or draining.
var ErrClosed = errors.New("engine: closed")

// ErrNoService is returned for a service that the plan does not have.
var ErrNoService = errors.New("engine: no such service")

// ErrNoHost is what every [NoHostError] is.
var ErrNoHost = errors.New("no host for the connection")

// ListenError is that of [Engine.Apply] for a listener that cannot be opened: another program
// has the address, or the machine does not. If there are several, Apply joins their errors.
// A program may leave these listeners out and apply the rest.
type ListenError struct {
	Service, Listen string // as the plan has them
	Err             error  // says where, and what would be right
}

func (e *ListenError) Error() string { return fmt.Sprintf("service %q: %v", e.Service, e.Err) }
func (e *ListenError) Unwrap() error { return e.Err }

// NoHostError tells why [Engine.Dial] has found no host.
type NoHostError struct {
	Service string
	Why     string // as in [ServiceStats].Refused
	Err     error  // of the last host that it has tried; nil: none
}

func (e *NoHostError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("service %q: %v: %s: %v", e.Service, ErrNoHost, e.Why, e.Err)
	}
	return fmt.Sprintf("service %q: %v: %s", e.Service, ErrNoHost, e.Why)
}

func (e *NoHostError) Unwrap() error { return e.Err }

// Is makes errors.Is find ErrNoHost.
func (e *NoHostError) Is(target error) bool { return target == ErrNoHost }
