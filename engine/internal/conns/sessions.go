// Package conns carries sessions by goroutines: one for each session, and one more for
// its second direction.
//
// On Linux these are the sessions that no event loop can carry. Elsewhere they are all.
// [Sessions] has them; who accepts their clients is the engine's business.
package conns

import (
	"context"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/gate"
	"github.com/txlb/txlb/sched"
)

// Home is the engine of the sessions.
type Home struct {
	Gate    core.Gate          // of their admissions
	Clock   func() int64       // ns on the engine's clock
	Rest    func(until int64)  // there is no descriptor: nothing should be accepted until then
	Left    func()             // a session that had room has ended
	OnPanic func(engine.Panic) // code of the program has panicked; nil: nobody is told
	Copy    func() bool        // there is room for a connection to a mirror; Copied gives it back
	Copied  func()
}

// Sessions are the sessions of an engine that goroutines carry. All methods may be
// called from any goroutine.
type Sessions struct {
	home   Home
	gate   core.Gate
	turns  *gate.Gate // that handshakes pass
	live   sync.Map   // *session by its ID
	ids    atomic.Uint64
	count  atomic.Int64 // sessions now
	ending sync.Mutex   // held by a session that ends: their records go into one lane

	panics atomic.Uint64

	copies     context.Context // of what goes to mirrors
	lose       context.CancelFunc
	copying    sync.WaitGroup
	copiesHeld atomic.Int64 // bytes that wait for mirrors

	mu      sync.Mutex
	shut    bool       // the program may begin no session
	closed  bool       // nobody may
	running int        // sessions, until the last of them is done
	none    *sync.Cond // running is 0
}

// New returns no sessions yet.
func New(h Home) *Sessions {
	h.Gate.TLS, h.Gate.Gives, h.Gate.Past = true, true, new(core.Past)
	c := &Sessions{home: h, gate: h.Gate, turns: newTurns()}
	c.none = sync.NewCond(&c.mu)
	c.copies, c.lose = context.WithCancel(context.Background())
	return c
}

// Client is a connection that a service has accepted.
type Client struct {
	Conn  net.Conn   // nil: there is no client, the program asks for a connection to a host
	From  sched.Addr // as sched.Table.Pick wants it
	Entry *core.Entry
	// Inherits says that a listener has handed down the options that Conn needs, but for
	// keep-alive, which net.FileConn sets as it likes.
	Inherits bool
	// Room waits until the session has room, and returns false if ended is closed before.
	// nil: it has room.
	Room func(ended <-chan struct{}) bool
}

// Serve begins the session of a client, and does not wait for it. It returns false after
// Close: then the connection is still the caller's.
func (c *Sessions) Serve(of Client) bool {
	s := c.begin(of, false)
	if s == nil {
		return false
	}
	go s.run()
	return true
}

// begin returns a new session; nil after Close, and for the program after Shut. Its finish
// must be called.
func (c *Sessions) begin(of Client, program bool) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || program && c.shut {
		return nil
	}
	s := newSession(c, of)
	c.running++
	c.count.Add(1)
	c.live.Store(s.id, s)
	return s
}

// done tells that a session is over.
func (c *Sessions) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 {
		c.none.Broadcast()
	}
}

// TurnAway counts a client for which there is no descriptor.
func (c *Sessions) TurnAway(of Client) {
	s := newSession(c, of)
	s.with((*core.Admission).NoRoom)
	s.end(s.admission.Why.Termination())
	s.conclusion()
}

// Count returns how many sessions there are.
func (c *Sessions) Count() int64 { return c.count.Load() }

// Panics returns how often code of the program has panicked.
func (c *Sessions) Panics() uint64 { return c.panics.Load() }

// panicked takes in that code of the program has panicked.
func (c *Sessions) panicked(service, where string, value any) {
	c.panics.Add(1)
	if c.home.OnPanic != nil {
		c.home.OnPanic(engine.Panic{Service: service, Where: where, Value: value, Stack: debug.Stack()})
	}
}

// Wait waits until no session is left.
func (c *Sessions) Wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running > 0 {
		c.none.Wait()
	}
}

// Shut makes Take and Dial fail from now on.
func (c *Sessions) Shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
}

// Kill tells all sessions to end.
func (c *Sessions) Kill() {
	c.live.Range(func(_, s any) bool {
		s.(*session).end(core.Killed)
		return true
	})
}

// Close ends all sessions. They have ended when it returns.
func (c *Sessions) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.Kill()
	c.Wait()
	c.lose()
	c.copying.Wait()
}

// List returns the sessions that which picks out, at most so many; 0 is no limit.
func (c *Sessions) List(most int, which func(service string, host *sched.Host) bool) (list []engine.SessionInfo) {
	c.live.Range(func(_, value any) bool {
		if s := value.(*session); which(s.svc.Name, s.host()) {
			list = append(list, s.info())
		}
		return most == 0 || len(list) < most
	})
	return list
}

// FindByLocal returns the sessions whose connection to the host has this address on our
// side. It is unmapped.
func (c *Sessions) FindByLocal(local netip.AddrPort) (list []engine.SessionInfo) {
	c.live.Range(func(_, value any) bool {
		if i := value.(*session).info(); i.Local.IsValid() && i.Local == local {
			list = append(list, i)
		}
		return true
	})
	return list
}

// End tells the sessions to end that which picks out, and returns how many those were.
func (c *Sessions) End(why engine.Ending, which func(engine.Candidate) bool) int {
	ended, how := 0, core.TerminationOf(why)
	c.live.Range(func(_, value any) bool {
		s := value.(*session)
		if which(*s.shown.Load()) && s.end(how) {
			ended++
		}
		return true
	})
	return ended
}

// EndOne tells the session with an ID to end. It returns false if there is none.
func (c *Sessions) EndOne(id uint64) (ended bool) {
	s, ok := c.live.Load(id)
	return ok && s.(*session).end(core.Killed)
}

// Recount counts the sessions of services that began without their limits.
func (c *Sessions) Recount(uncounted map[*core.Service]bool) {
	c.live.Range(func(_, s any) bool {
		if one := s.(*session); uncounted[one.svc] {
			one.with(func(a *core.Admission, _ int64) core.Step {
				a.Recount(one.client)
				return core.Step{}
			})
		}
		return true
	})
}

// Retime makes the sessions of services look at their timeouts, which have changed. The
// value of a service is true if those that the kernel keeps have changed too.
func (c *Sessions) Retime(retimed map[*core.Service]bool) {
	c.live.Range(func(_, s any) bool {
		one := s.(*session)
		keep, concerned := retimed[one.svc]
		if !concerned {
			return true
		}
		one.hearing.wake()
		if b := one.bound.Load(); b != nil {
			b.retime()
		}
		one.retime()
		if one.watch.retime(one) && keep {
			for _, c := range one.ends {
				if tcp := tcpOf(c); tcp != nil {
					k := core.KeptBy(one.svc.Route.Load())
					setUnacked(tcp, k.Unacked)
					keepAlive(tcp, k)
				}
			}
		}
		return true
	})
}

// info describes a session.
func (s *session) info() engine.SessionInfo {
	i := engine.SessionInfo{
		ID: s.id, Service: s.svc.Name, Host: s.host(), Client: s.client(), Listener: listenerOf(s.ends[client]),
		Started: s.started, Idle: max(time.Since(s.started)-time.Duration(s.active.Load()), 0),
		In: s.in.Load(), Out: s.out.Load(),
	}
	if local := s.local.Load(); local != nil {
		i.Local = *local
	}
	s.turning.tell(&i, s.of.home.Clock(), s.over[backend].Load())
	s.with(func(a *core.Admission, now int64) core.Step {
		i.Held = a.Held(now)
		return core.Step{}
	})
	return i
}

// PeerOf returns the address of a connection's peer as clients have it; the zero Addr for
// one that is no TCP connection.
func PeerOf(c net.Conn) sched.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok && tcp != nil && !tcp.IP.IsUnspecified() {
		if from := sched.TCPAddr(tcp.AddrPort()); from.IsValid() {
			return from
		}
	}
	return sched.Addr{}
}

// endpoint returns the address of one end of a connection, not valid for a UNIX
// socket.
func endpoint(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return core.Unmapped(tcp.AddrPort())
	}
	return netip.AddrPort{}
}

// listenerOf returns the address that a client has connected to.
func listenerOf(c net.Conn) string {
	if c == nil {
		return ""
	}
	if a := endpoint(c.LocalAddr()); a.IsValid() {
		return a.String()
	}
	if u, ok := c.LocalAddr().(*net.UnixAddr); ok && u.Name != "" {
		return "unix:" + u.Name
	}
	return ""
}
