package conns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// session is one client with its backend. It has the goroutine run, and a second
// one for the other direction.
type session struct {
	of        *Sessions
	id        uint64
	svc       *core.Service
	from      sched.Addr                       // the client, as it was accepted
	room      func(ended <-chan struct{}) bool // see Client; nil: it has room
	turn      chan struct{}                    // has a token when the session may wait no more; nil: it has not waited
	mu        sync.Mutex                       // of the admission, and of turn
	admission core.Admission                   // of the goroutine, but for Recount
	origin    atomic.Pointer[core.Origin]      // the admission's, for others to read
	hearing   hearing
	opening   []byte                           // the beginning of the client's stream, if it was read before there was a host
	shown     atomic.Pointer[engine.Candidate] // the admission, for others to read
	started   time.Time
	ends      [2]net.Conn                    // client, backend: their sockets; no client: the program has dialed
	tls       [2]*secured                    // over ends[i]; nil: none
	bound     atomic.Pointer[bound]          // of a handshake that is under way
	local     atomic.Pointer[netip.AddrPort] // of ends[backend], once it is there
	lost      error                          // of the last host that could not be had
	copies    []*replica                     // of what the client sends, for mirrors; of the goroutine run
	in, out   atomic.Uint64                  // bytes from and to the client
	turning   turning

	active  atomic.Int64   // ns after started: the last byte or end
	over    [2]atomic.Bool // direction i has ended: from ends[i] to ends[1-i]
	failed  [2]atomic.Bool // ends[i] was reset
	told    bool           // the host has said something since the client has; of pump(backend)
	cutOff  [2]atomic.Bool // the session was cut, and ends[i] is reset for it
	watch   watch
	cancel  context.CancelFunc
	ctx     context.Context
	endOnce sync.Once
	how     core.Termination // set once, before ctx ends

	inherits bool // see Client
	roomy    bool // it has room, to be given back
	given    bool // the client is the program's
	finished sync.Once

	toward [2]patient                  // over ends[i]: the client's bytes and the host's are written to it
	socket atomic.Pointer[net.TCPConn] // of ends[backend], for others to ask
	tcp    [2]engine.TCPInfo           // when it ended
	asked  sync.Once                   // of tcp
}

const (
	client  = 0
	backend = 1
)

// sides are the ends of a session as a story names them.
var sides = [...]engine.Side{client: engine.OfClient, backend: engine.OfHost}

func newSession(c *Sessions, of Client) *session {
	s := &session{of: c, id: core.GoroutineID(c.ids.Add(1)), svc: of.Entry.Svc, from: of.From, room: of.Room, inherits: of.Inherits, started: time.Now()}
	s.ends[client] = of.Conn
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.admission.Begin(&c.gate, of.Entry, new(core.Attempt), of.From, c.home.Clock())
	for i, side := range sides {
		s.toward[i].s, s.toward[i].side = s, side
	}
	s.toward[client].onto(of.Conn)
	if c.gate.Log.On() {
		s.admission.Record(new(core.Attempts), of.From.IP())
	}
	s.show()
	return s
}

// show lets others see how far the admission is.
func (s *session) show() {
	c := s.admission.Candidate(s.id)
	s.shown.Store(&c)
}

// host returns the session's host, nil while it has none.
func (s *session) host() *sched.Host { return s.shown.Load().Host }

// run takes the session from the accept to its end.
func (s *session) run() {
	defer s.finish()
	s.roomy = s.room == nil || s.room(s.ctx.Done())
	if !s.inherits {
		s.tune(client)
	}
	switch did := s.admit(); {
	case s.ctx.Err() != nil:
	case did == core.Relay:
		s.relay()
	case did == core.GiveAway:
		s.giveAway()
	default:
		s.refuse(s.admission.Why)
	}
}

// finish ends the session, if nothing has, and gives back what it holds.
func (s *session) finish() {
	s.finished.Do(func() {
		s.end(core.Normal)
		s.leaveCopies()
		s.askTCP()
		for i, c := range s.ends {
			if c != nil && !(i == client && s.given) {
				_ = c.Close()
			}
		}
		s.conclusion()
		s.of.count.Add(-1)
		if s.roomy {
			s.of.home.Left()
		}
		s.of.done()
	})
}

// conclusion ends the session's admission. The records of all sessions go into one
// lane, which has one writer.
func (s *session) conclusion() {
	s.of.ending.Lock()
	defer s.of.ending.Unlock()
	s.of.live.Delete(s.id) // before the counters say that it has ended; its story is known until then
	s.with(func(a *core.Admission, now int64) core.Step {
		if s.of.gate.Log.On() && !a.Recorded() { // it is older than the log
			a.Record(new(core.Attempts), s.from.IP())
		}
		a.End(now, s.how, s.last())
		return core.Step{}
	})
}

// with calls f with the session's admission and the time.
func (s *session) with(f func(a *core.Admission, now int64) core.Step) core.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(&s.admission, s.of.home.Clock())
}

// answered tells the admission what connect(2) has answered.
func (s *session) answered(errno syscall.Errno) core.Step {
	return s.with(func(a *core.Admission, now int64) core.Step { return a.Answered(now, errno) })
}

// end ends the session. Only the first reason counts; end tells whether this was
// the first. Any goroutine may call it.
func (s *session) end(how core.Termination) (first bool) {
	s.endOnce.Do(func() {
		s.how = how
		s.cancel()
		first = true
	})
	return first
}

// refuse closes a client without a host. A client that an access rule or a limit rejects is
// reset.
// For a moment it discards what any other sends, until the client has ended too:
// closing with unread bytes would reset the connection.
func (s *session) refuse(why core.Refusal) {
	if why.Resets() {
		resetOnClose(s.ends[client])
	}
	if why.Resets() || why.OfHeader() || !endsAlone(s.ends[client]) { // or it does not say who it is as it should
		s.end(why.Termination())
		return
	}
	defer context.AfterFunc(s.ctx, func() { cut(s.ends[client]) })()
	_ = s.ends[client].SetDeadline(time.Now().Add(time.Second))
	s.closeWrite(client)
	buf := make([]byte, 4<<10)
	for left := 256; left > 0; left-- {
		if _, err := s.ends[client].Read(buf); err != nil {
			break
		}
	}
	s.end(why.Termination())
}

// admit finds a host for the client and connects to it. It returns what is to be done
// then: Relay, or GiveAway or Refuse if there is none. If the session was ended meanwhile,
// that means nothing. Nothing is read from the client.
func (s *session) admit() core.Action {
	step := s.with((*core.Admission).Next)
	if step.Do == core.Hear {
		step = s.hear(step)
	}
	if step.Do == core.Handshake {
		step = s.handshake(step)
	}
	defer s.watchClient()()
	for s.ctx.Err() == nil {
		s.show()
		now := s.of.home.Clock()
		switch step.Do {
		case core.Connect:
			step = s.answered(syscall.EINPROGRESS)
		case core.Wait:
			step = s.dial(step.Until)
		case core.Rest:
			s.of.home.Rest(step.Until)
			select {
			case <-time.After(time.Duration(step.Until - now)):
			case <-s.ctx.Done():
			}
			step = s.with((*core.Admission).Deadline)
		case core.Queue:
			s.grownUp() // it may be long until its host comes
			step = s.with(func(a *core.Admission, now int64) core.Step {
				if s.turn == nil { // else the wake of an earlier wait may still be under way to it
					s.turn = make(chan struct{}, 1)
				}
				return a.Join(now, s.called)
			})
		case core.Queued:
			step = s.wait(step.Until)
		case core.Retry:
			step = s.with((*core.Admission).Next)
		case core.Pledge:
			step = s.pledge(step)
		case core.Secure:
			step = s.secure(step)
		case core.Relay:
			s.mirrorTo()
			s.greet()
			s.with(func(a *core.Admission, _ int64) core.Step {
				a.Settle(new(core.Attempts))
				return core.Step{}
			})
			return core.Relay
		default:
			s.tell(step) // a refusal's last words
			return step.Do
		}
	}
	return core.Nothing
}

// wait waits in the queue of the session's group, at most until a time.
func (s *session) wait(until int64) core.Step {
	late := make(<-chan time.Time)
	if until != core.Never {
		timer := time.NewTimer(time.Duration(until - s.of.home.Clock()))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.turn:
		return s.with(func(a *core.Admission, now int64) core.Step {
			if step := a.Called(now); step.Do != core.Nothing {
				return step
			}
			return a.Retimed(now)
		})
	case <-late:
		return s.with((*core.Admission).Deadline)
	case <-s.ctx.Done():
		return core.Step{}
	}
}

// called makes the goroutine look whether it waits no more. It does not wait.
func (s *session) called() {
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// retime makes the goroutine look at the timeouts of the queue again.
func (s *session) retime() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != nil {
		s.called()
	}
}

// client returns who the client is.
func (s *session) client() netip.AddrPort {
	if o := s.origin.Load(); o != nil {
		return o.Client
	}
	return core.Unmapped(s.from.IP())
}

// dial connects to the session's host, at most until a time, and reports the
// outcome to the admission.
func (s *session) dial(until int64) core.Step {
	host, within := s.admission.Host, time.Duration(0)
	if until != core.Never {
		within = time.Duration(max(until-s.of.home.Clock(), 1))
	}
	conn, err := dialHost(s.ctx, host, s.admission.Source(), within)
	errno, told := errors.AsType[syscall.Errno](err)
	if err != nil {
		s.lost = err
	}
	switch {
	case err == nil:
		s.ends[backend] = conn
		s.toward[backend].onto(conn)
		s.socket.Store(tcpOf(conn))
		s.tune(backend)
		local := endpoint(conn.LocalAddr())
		s.local.Store(&local)
		return s.answered(0)
	case s.ctx.Err() != nil:
		return core.Step{}
	case !told && isTimeout(err):
		return s.with((*core.Admission).Deadline)
	case !told:
		errno = syscall.EINVAL
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "socket" {
		return s.with(func(a *core.Admission, now int64) core.Step { return a.NoSocket(now, errno) })
	}
	return s.answered(errno)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func dialHost(ctx context.Context, host *sched.Host, from connect.Source, within time.Duration) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // as the route says, see grownUp
	to := host.Addr()
	if path := to.Path(); path != "" {
		return connect.Dial(ctx, d, "unix", path, within)
	}
	ip, err := zone.Numbered(to.IP())
	if err != nil {
		return nil, err
	}
	connect.From(&d, from, ip.Addr())
	return connect.Dial(ctx, d, "tcp", ip.String(), within)
}

// tune sets the options that a socket needs from the start. TCP_NODELAY is on already.
func (s *session) tune(i int) {
	if tcp := tcpOf(s.ends[i]); tcp != nil {
		if k := core.KeptBy(s.svc.Route.Load()); k.Unacked > 0 {
			setUnacked(tcp, k.Unacked)
		}
		if i == client { // it may not read from the start
			boundQueue(tcp)
		}
		keepUrgent(tcp)
	}
}

// grownUp sets those that only a session needs that lives for a while (core.TuneAfter), on
// both sockets: a short one has no use for them.
func (s *session) grownUp() {
	for i := range s.ends {
		if tcp := tcpOf(s.ends[i]); tcp != nil {
			keepAlive(tcp, core.KeptBy(s.svc.Route.Load()))
			if i == backend {
				boundQueue(tcp)
			}
		}
	}
}

func keepAlive(c *net.TCPConn, k core.Kept) {
	if k.Alive > 0 {
		_ = c.SetKeepAliveConfig(k.KeepAlive())
	} else {
		_ = c.SetKeepAlive(false)
	}
}

// watchAfter is how long a client may wait for its host before it is watched. Most hosts have
// answered by then, and the watch of a client costs as much as a part of its connection does.
const watchAfter = 20 * time.Millisecond

// watchClient ends the session if the client resets the connection while it waits for a
// host. The function it returns ends the watch.
func (s *session) watchClient() (stop func()) {
	if rawOf(s.ends[client]) == nil { // only who reads learns that it has gone
		return func() {}
	}
	done, over := make(chan struct{}), make(chan struct{})
	begin := time.AfterFunc(watchAfter, func() {
		defer close(over)
		s.watchUntil(done)
	})
	return func() {
		if begin.Stop() {
			return
		}
		close(done)
		_ = s.ends[client].SetReadDeadline(time.Unix(1, 0))
		<-over
		_ = s.ends[client].SetReadDeadline(time.Time{})
	}
}

// watchUntil watches the client until it has gone or done is closed; then a read deadline
// has to wake it.
func (s *session) watchUntil(done <-chan struct{}) {
	err := peek(s.ends[client])
	// The first byte hides what comes behind it. It stays where it is, so the watch looks again
	// and again.
	for pause := 5 * time.Millisecond; err == nil; pause = min(2*pause, time.Second) {
		select {
		case <-time.After(pause):
		case <-done:
			return
		}
		if hasFailed(s.ends[client]) {
			err = syscall.ECONNRESET
		}
	}
	if errors.Is(err, syscall.ECONNRESET) {
		how := core.ClientGone
		s.with(func(a *core.Admission, _ int64) core.Step {
			how = a.Left()
			return core.Step{}
		})
		s.end(how)
	}
}
