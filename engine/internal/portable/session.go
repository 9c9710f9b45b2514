package portable

import (
	"context"
	"errors"
	"math"
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
	"github.com/txlb/txlb/splice"
)

// session is one client with its backend. It has the goroutine run, and a second
// one for the other direction.
type session struct {
	e         *Engine
	id        uint64
	svc       *core.Service
	waits     bool                        // for room: it has none yet
	turn      chan struct{}               // has a token when the session may wait no more; nil: it has not waited
	mu        sync.Mutex                  // of the admission, and of turn
	admission core.Admission              // of the goroutine, but for Recount
	origin    atomic.Pointer[core.Origin] // the admission's, for others to read
	hearing   hearing
	opening   []byte                           // the beginning of the client's stream, if it was read before there was a host
	shown     atomic.Pointer[engine.Candidate] // the admission, for others to read
	started   time.Time
	ends      [2]net.Conn                    // client, backend
	local     atomic.Pointer[netip.AddrPort] // of ends[backend], once it is there
	in, out   atomic.Uint64                  // bytes from and to the client

	active  atomic.Int64   // ns after started: the last byte or end
	over    [2]atomic.Bool // direction i has ended: from ends[i] to ends[1-i]
	failed  [2]atomic.Bool // ends[i] was reset
	watch   watch
	cancel  context.CancelFunc
	ctx     context.Context
	endOnce sync.Once
	how     core.Termination // set once, before ctx ends
}

const (
	client  = 0
	backend = 1
)

func newSession(e *Engine, entry *core.Entry, conn net.Conn) *session {
	s := &session{e: e, id: e.ids.Add(1), svc: entry.Svc, started: time.Now()}
	s.ends[client] = conn
	s.ctx, s.cancel = context.WithCancel(context.Background())
	from := addrFrom(conn.RemoteAddr())
	s.admission.Begin(&e.gate, entry, new(core.Attempt), from, e.clock())
	if e.gate.Log.On() {
		s.admission.Record(new(core.Attempts), from.IP())
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
	defer s.e.running.Done()
	roomy := s.e.room != nil
	if s.waits {
		select {
		case s.e.room <- struct{}{}:
		case <-s.ctx.Done():
			roomy = false
		}
	}
	tune(s.ends[client], core.KeptBy(s.svc.Route.Load()))
	if s.admit() {
		s.relay()
	} else if s.ctx.Err() == nil {
		s.refuse(s.admission.Why)
	}
	s.end(core.Normal)
	for _, c := range s.ends {
		if c != nil {
			_ = c.Close()
		}
	}
	s.e.live.Delete(s.id) // before the counters say that it has ended
	s.conclusion()
	s.e.sessions.Add(-1)
	if roomy {
		<-s.e.room
	}
}

// conclusion ends the session's admission. The records of all sessions go into one
// lane, which has one writer.
func (s *session) conclusion() {
	s.e.ending.Lock()
	defer s.e.ending.Unlock()
	s.with(func(a *core.Admission, now int64) core.Step {
		if s.e.gate.Log.On() {
			if !a.Recorded() { // it is older than the log
				a.Record(new(core.Attempts), endpoint(s.ends[client].RemoteAddr()))
			}
			a.Moved(s.in.Load(), s.out.Load())
		}
		a.End(now, s.how)
		return core.Step{}
	})
}

// with calls f with the session's admission and the time.
func (s *session) with(f func(a *core.Admission, now int64) core.Step) core.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(&s.admission, s.e.clock())
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
	if c, ok := s.ends[client].(*net.TCPConn); ok && why.Resets() {
		_ = c.SetLinger(0)
	}
	if why.Resets() || why.OfHeader() { // or it does not say who it is as it should
		s.end(why.Termination())
		return
	}
	defer context.AfterFunc(s.ctx, func() { _ = s.ends[client].SetDeadline(time.Unix(1, 0)) })()
	_ = s.ends[client].(writeCloser).CloseWrite()
	_ = s.ends[client].SetDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 4<<10)
	for left := 256; left > 0; left-- {
		if _, err := s.ends[client].Read(buf); err != nil {
			break
		}
	}
	s.end(why.Termination())
}

// writeCloser is what TCP and UNIX connections have in common.
type writeCloser interface{ CloseWrite() error }

// admit finds a host for the client and connects to it. It returns false if there is
// none, or if the session was ended meanwhile. Nothing is read from the client.
func (s *session) admit() (admitted bool) {
	step := s.with((*core.Admission).Next)
	if step.Do == core.Hear {
		step = s.hear(step)
	}
	defer s.watchClient()()
	for s.ctx.Err() == nil {
		s.show()
		now := s.e.clock()
		switch step.Do {
		case core.Connect:
			step = s.answered(syscall.EINPROGRESS)
		case core.Wait:
			step = s.dial(step.Until)
		case core.Rest:
			s.e.rest(step.Until)
			select {
			case <-time.After(time.Duration(step.Until - now)):
			case <-s.ctx.Done():
			}
			step = s.with((*core.Admission).Deadline)
		case core.Queue:
			step = s.with(func(a *core.Admission, now int64) core.Step {
				s.turn = make(chan struct{}, 1)
				return a.Join(now, s.called)
			})
		case core.Queued:
			step = s.wait(step.Until)
		case core.Retry:
			step = s.with((*core.Admission).Next)
		case core.Pledge:
			step = s.pledge(step)
		case core.Relay:
			s.greet()
			s.with(func(a *core.Admission, _ int64) core.Step {
				a.Settle(new(core.Attempts))
				return core.Step{}
			})
			return true
		default:
			s.tell(step) // a refusal's last words
			return false
		}
	}
	return false
}

// wait waits in the queue of the session's group, at most until a time.
func (s *session) wait(until int64) core.Step {
	late := make(<-chan time.Time)
	if until != core.Never {
		timer := time.NewTimer(time.Duration(until - s.e.clock()))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-s.turn:
		return s.with(func(a *core.Admission, now int64) core.Step {
			if step := a.Called(now); step.Do != core.Nothing {
				return step
			}
			return a.Retimed()
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
	return endpoint(s.ends[client].RemoteAddr())
}

// dial connects to the session's host, at most until a time, and reports the
// outcome to the admission.
func (s *session) dial(until int64) core.Step {
	host, within := s.admission.Host, time.Duration(0)
	if until != core.Never {
		within = time.Duration(max(until-s.e.clock(), 1))
	}
	conn, err := dialHost(s.ctx, host, s.admission.Source(), within)
	errno, told := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		tune(conn, core.KeptBy(s.svc.Route.Load()))
		s.ends[backend] = conn
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
	var d net.Dialer
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

func tune(c net.Conn, k core.Kept) {
	if tcp, ok := c.(*net.TCPConn); ok { // TCP_NODELAY is on already
		_ = tcp.SetKeepAliveConfig(k.KeepAlive())
		if k.Unacked > 0 {
			setUnacked(tcp, k.Unacked)
		}
		boundQueue(tcp)
		keepUrgent(tcp)
	}
}

func addrFrom(a net.Addr) sched.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return sched.TCPAddr(tcp.AddrPort())
	}
	return sched.Addr{}
}

// watchClient ends the session if the client resets the connection. The function it
// returns ends the watch.
func (s *session) watchClient() (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
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
	})
	return func() {
		close(done)
		_ = s.ends[client].SetReadDeadline(time.Unix(1, 0))
		wg.Wait()
		_ = s.ends[client].SetReadDeadline(time.Time{})
	}
}

// relay moves bytes until both directions have ended.
func (s *session) relay() {
	s.touch()
	s.watch.start(s)
	defer s.watch.stop()
	// Whatever ends the session wakes both directions.
	unblock := context.AfterFunc(s.ctx, func() {
		for _, c := range s.ends {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})
	defer unblock()
	var wg sync.WaitGroup
	wg.Go(func() { s.pump(backend) })
	s.pump(client)
	wg.Wait()
	if s.ctx.Err() == nil {
		s.conclude()
	}
}

// pump moves the bytes that come from ends[i].
func (s *session) pump(i int) {
	src, dst := s.ends[i], s.ends[1-i]
	err := splice.Copy(dst, src, func(n int) { s.moved(i, n) })
	if err != nil && s.ctx.Err() != nil {
		// The session is cut. If bytes on the way are lost, or dst has ended and
		// waits for an answer, a clean end would hide that.
		cutOff := errors.Is(err, splice.ErrWrite) || s.over[1-i].Load() || hasUnread(src)
		if tcp, ok := dst.(*net.TCPConn); ok && cutOff {
			_ = tcp.SetLinger(0)
		}
		return
	}
	s.over[i].Store(true)
	switch {
	case err == nil:
		if !s.over[1-i].Load() && !s.failed[i].Load() {
			_ = dst.(writeCloser).CloseWrite()
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The other pump has found dst gone: nothing that src sends can arrive.
	case errors.Is(err, splice.ErrWrite):
		// Only what goes to dst is over; what it has sent still comes.
		s.failed[1-i].Store(true)
	case errors.Is(err, splice.ErrRead):
		// The connection is gone: nothing can be sent to it either.
		s.failed[i].Store(true)
		_ = dst.SetReadDeadline(time.Unix(1, 0))
	}
	s.touch()
	s.watch.reset(s)
}

func (s *session) moved(i, n int) {
	s.touch()
	if i == client {
		s.host().AddBytes(uint64(n), 0)
		s.svc.Counts[0].In.Add(uint64(n))
		s.in.Add(uint64(n))
	} else {
		if s.out.Load() == 0 {
			s.host().Answered()
		}
		s.host().AddBytes(0, uint64(n))
		s.svc.Counts[0].Out.Add(uint64(n))
		s.out.Add(uint64(n))
	}
}

func (s *session) touch() { s.active.Store(int64(time.Since(s.started))) }

// left returns how much longer the session may go on if nothing happens.
func (s *session) left() time.Duration {
	return min(s.silence(), s.until(s.admission.AgeLimit(int32(s.id))))
}

// until returns how long it is until a time on the engine's clock.
func (s *session) until(when int64) time.Duration {
	if when == core.Never {
		return math.MaxInt64
	}
	return time.Duration(when - s.e.clock())
}

// silence returns how much longer the session may be silent.
func (s *session) silence() time.Duration {
	t := &s.svc.Route.Load().Timeouts
	d := t.Idle
	if s.over[0].Load() != s.over[1].Load() {
		d = t.HalfClosed
	}
	if d == 0 {
		return math.MaxInt64
	}
	return time.Duration(s.active.Load()) + d - time.Since(s.started)
}

// conclude passes a reset on: the other side gets one too, after it has
// acknowledged the bytes that were sent to it. If the system cannot tell whether it
// has, the bytes matter more and that side gets a plain end.
func (s *session) conclude() {
	c, b := s.failed[client].Load(), s.failed[backend].Load()
	if !c && !b {
		s.host().Answered() // it ended the session as it should, without a byte perhaps
		return
	}
	if b && !c && s.out.Load() == 0 {
		s.admission.ResetEarly(sched.TCPAddr(s.client()))
	}
	how, left := core.ClientAborted, s.ends[backend]
	if b {
		how, left = core.ServerAborted, s.ends[client]
	}
	if tcp, ok := left.(*net.TCPConn); ok && c != b && s.acknowledged(tcp) {
		_ = tcp.SetLinger(0)
	}
	s.end(how)
}

// acknowledged waits until the peer of c has acknowledged all bytes, within
// bounds.
func (s *session) acknowledged(c *net.TCPConn) bool {
	deadline := time.NewTimer(core.LingerFor(s.svc.Route.Load()))
	defer deadline.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		n, known := unsentBytes(c)
		if !known || n == 0 {
			return known
		}
		select {
		case <-s.ctx.Done():
			return false
		case <-deadline.C:
			return true
		case <-time.After(pause):
		}
	}
}
