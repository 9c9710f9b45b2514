// Package portable is the engine for systems without epoll and splice: a goroutine for
// each listener, one for each session and one more for its second direction.
//
// Limits in addition to those of package engine: connections in the queue of a
// removed listener are reset, a new listener cannot take the port of one that the
// same plan removes, and a session whose backend resets before the first byte does
// not go to another host.
package portable

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
)

// Engine implements [engine.Engine].
type Engine struct {
	opt      engine.Options
	epoch    time.Time
	gate     core.Gate
	failures core.Reports
	room     chan struct{} // holds a token for each session; nil: no limit

	zones core.ZoneFollower[*listener]

	mu      sync.Mutex // held by Apply, Drain and Close
	closed  bool
	drained chan struct{} // closed when listeners have closed for good
	serving atomic.Pointer[core.Serving[*listener]]

	accepting sync.WaitGroup
	running   sync.WaitGroup // sessions
	live      sync.Map       // *session by its ID
	ids       atomic.Uint64  // given out
	sessions  atomic.Int64   // now
	ending    sync.Mutex     // held by a session that ends: their records go into one lane
	restTill  atomic.Int64   // ns: accepting pauses until then, without descriptors
}

// listener is one listening address.
type listener struct {
	net.Listener
	core.BoundZone
	opt   engine.ListenOptions
	mptcp bool            // as opt says; constant
	file  core.SocketFile // of a UNIX socket
	entry atomic.Pointer[core.Entry]
	stop  chan struct{} // closed before the Listener is
}

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (*Engine, error) {
	opt, err := core.WithDefaults(opt, 1)
	if err != nil {
		return nil, err
	}
	e := &Engine{opt: opt, epoch: time.Now(), failures: core.NewReports(), drained: make(chan struct{})}
	e.gate = core.Gate{Report: e.failures.Report, Active: e.sessions.Load}
	if opt.Recorder != nil {
		e.gate.Log = opt.Recorder.Attach(1, e.epoch.Add(-1))[0]
	}
	if opt.MaxSessions > 0 {
		e.room = make(chan struct{}, opt.MaxSessions)
	}
	e.serving.Store(&core.Serving[*listener]{})
	return e, nil
}

// clock returns nanoseconds since the engine was made, from 1 on.
func (e *Engine) clock() int64 { return int64(time.Since(e.epoch)) + 1 }

// rest pauses accepting until a time.
func (e *Engine) rest(until int64) {
	for was := e.restTill.Load(); was < until && !e.restTill.CompareAndSwap(was, until); {
		was = e.restTill.Load()
	}
}

// Failures implements [engine.Engine].
func (e *Engine) Failures() <-chan engine.Failure { return e.failures }

// Apply implements [engine.Engine].
func (e *Engine) Apply(p engine.Plan) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.isDrained() {
		return engine.ErrClosed
	}
	was := e.serving.Load()
	if was.OnlyRoutes(p) {
		e.recount(was, p)
		e.reroute(was, p)
		return nil
	}
	owner, err := core.OwnersOf(p)
	if err != nil {
		return err
	}
	next := was.Next(p, 1)
	var fresh []*listener
	var problems []error
	for key, s := range owner {
		if ln := was.Listeners[key]; ln != nil {
			next.Listeners[key] = ln
			if core.NewSockets(ln.opt, s.ListenOptions[key.Listen]) {
				problems = append(problems, fmt.Errorf("service %q: listen on %s: interface and mptcp of an open listener cannot change on this system; delete the listener and add it again", s.Name, key.Listen))
			}
			continue
		}
		ln, err := openListener(key.Listen, s.ListenOptions[key.Listen], e.opt.Backlog)
		if err != nil {
			problems = append(problems, fmt.Errorf("service %q: %w", s.Name, err))
			continue
		}
		fresh = append(fresh, ln)
		next.Listeners[key] = ln
	}
	if len(problems) > 0 {
		for _, ln := range fresh {
			ln.shut()
		}
		return errors.Join(problems...)
	}
	if err := e.retune(owner, was, next); err != nil {
		for _, ln := range fresh {
			ln.shut()
		}
		return err
	}
	e.recount(next, p)
	e.reroute(next, p)
	for key, ln := range next.Listeners {
		ln.entry.Store(next.Entry(ln.entry.Load(), owner[key], key))
	}
	e.serving.Store(next)
	for _, ln := range fresh {
		e.accepting.Add(1)
		go e.acceptFrom(ln)
	}
	e.zones.Follow(fresh, &e.mu, &e.serving, e.reopen)
	for key, ln := range was.Listeners {
		if next.Listeners[key] == nil {
			ln.shut()
		}
	}
	return nil
}

// recount counts the sessions of services for which a plan has limits that began without.
func (e *Engine) recount(serving *core.Serving[*listener], p engine.Plan) {
	if uncounted := serving.Expect(p); uncounted != nil {
		e.live.Range(func(_, s any) bool {
			if one := s.(*session); uncounted[one.svc] {
				one.with(func(a *core.Admission, _ int64) core.Step {
					a.Recount(one.client)
					return core.Step{}
				})
			}
			return true
		})
	}
}

// reroute publishes the routes of a plan.
func (e *Engine) reroute(serving *core.Serving[*listener], p engine.Plan) {
	retimed := serving.Reroute(p)
	if len(retimed) == 0 {
		return
	}
	e.live.Range(func(_, s any) bool {
		one := s.(*session)
		if _, concerned := retimed[one.svc]; concerned {
			one.hearing.wake()
			one.retime()
		}
		if keep, concerned := retimed[one.svc]; concerned && one.watch.retime(one) && keep {
			for _, c := range one.ends {
				k := core.KeptBy(one.svc.Route.Load())
				if tcp, ok := c.(*net.TCPConn); ok {
					setUnacked(tcp, k.Unacked)
				}
				tune(c, k)
			}
		}
		return true
	})
}

// reopen replaces a listener whose interface has another index. mu is held.
func (e *Engine) reopen(key core.ListenKey, old *listener) {
	if e.closed || e.isDrained() {
		return
	}
	ln, err := openListener(core.SamePort(key, old.Addr().String()), old.opt, e.opt.Backlog)
	if err != nil {
		return
	}
	ln.entry.Store(old.entry.Load())
	e.serving.Store(e.serving.Load().With(key, ln))
	e.accepting.Add(1)
	go e.acceptFrom(ln)
	old.shut()
}

// retune gives open listeners the options that may change. On error none has changed.
func (e *Engine) retune(owner map[core.ListenKey]*engine.Service, was, next *core.Serving[*listener]) error {
	undo := map[*listener]engine.ListenOptions{}
	for key, ln := range next.Listeners {
		if was.Listeners[key] == nil {
			continue
		}
		before := ln.opt
		if err := ln.retune(before, owner[key].ListenOptions[key.Listen], e.opt.Backlog); err != nil {
			for ln, before := range undo {
				_ = ln.retune(ln.opt, before, e.opt.Backlog)
			}
			return fmt.Errorf("service %q: %w", owner[key].Name, core.ListenError(key.Listen, err))
		}
		undo[ln] = before
	}
	return nil
}

// CheckListen is native.CheckListen.
func CheckListen(listen string, o engine.ListenOptions) error {
	at, err := core.FreePort(listen)
	if err != nil {
		return err
	}
	ln, err := openListener(at, o, 1)
	if err == nil {
		ln.shut()
	}
	return err
}

func openListener(listen string, opt engine.ListenOptions, backlog int) (*listener, error) {
	a, err := core.ParseListen(listen)
	if err != nil {
		return nil, err
	}
	bound, host, err := core.InZone(a.Host, opt.Interface)
	if err != nil {
		return nil, core.ListenError(listen, err)
	}
	network, address := "tcp", net.JoinHostPort(host, a.Port)
	switch {
	case a.Path != "":
		if err := core.ClearStale(a.Path); err != nil {
			return nil, err
		}
		network, address = "unix", a.Path
	case a.Host == "0.0.0.0": // net would take it for every address of both families
		network = "tcp4"
	}
	var how net.ListenConfig
	if opt.FreeBind || opt.Interface != "" {
		how.Control = func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return core.BindOptions(fd, opt) })
		}
	}
	how.SetMultipathTCP(opt.MPTCP) // the default is that of Go
	if opt.MPTCP {
		if err := core.CanMultipath(); err != nil {
			return nil, core.ListenError(listen, err)
		}
	}
	ln, err := how.Listen(context.Background(), network, address)
	if err != nil {
		return nil, core.ListenError(listen, err)
	}
	made := &listener{Listener: ln, opt: opt, mptcp: opt.MPTCP, BoundZone: bound, stop: make(chan struct{})}
	if err := made.retune(engine.ListenOptions{}, opt, backlog); err != nil {
		_ = ln.Close()
		return nil, core.ListenError(listen, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove whatever has the name
		if made.file, err = core.OurFile(a.Path); err != nil {
			_ = ln.Close()
			return nil, core.ListenError(listen, err)
		}
	}
	return made, nil
}

// retune gives an open socket the options that may change.
func (ln *listener) retune(was, opt engine.ListenOptions, backlog int) error {
	if tcp, ok := ln.Listener.(*net.TCPListener); ok && (was.DeferAccept != opt.DeferAccept || was.FastOpen != opt.FastOpen) {
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = control(raw, func(fd int) error { return core.QueueOptions(fd, was, opt, backlog) })
		}
		if err != nil {
			return err
		}
	}
	ln.opt = opt
	return nil
}

// control calls f with the descriptor of a socket.
func control(c syscall.RawConn, f func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (ln *listener) shut() {
	close(ln.stop)
	ln.file.Remove()
	_ = ln.Close()
}

// acceptFrom is a listener's goroutine. It ends when the listener is shut.
func (e *Engine) acceptFrom(ln *listener) {
	defer e.accepting.Done()
	for {
		if left := e.restTill.Load() - e.clock(); left > 0 {
			select {
			case <-ln.stop:
				return
			case <-time.After(time.Duration(left)):
				continue
			}
		}
		conn, err := ln.Accept()
		if err != nil {
			if errno, ok := errors.AsType[syscall.Errno](err); ok && connect.Shortage(errno) {
				e.rest(e.clock() + core.PauseFor) // they come back
				continue
			}
			select {
			case <-ln.stop:
				return
			case <-time.After(time.Duration(core.PauseFor)): // this listener has a fault
				continue
			}
		}
		waits := false
		if e.room != nil {
			select {
			case e.room <- struct{}{}:
			case <-ln.stop:
				waits = true // it is the last, and served when there is room
			}
		}
		s := newSession(e, ln.entry.Load(), conn)
		s.waits = waits
		e.sessions.Add(1)
		if tcp, ok := conn.(*net.TCPConn); ok && ln.mptcp {
			if on, _ := tcp.MultipathTCP(); on {
				s.svc.Counts[0].Multipath.Add(1)
			}
		}
		e.live.Store(s.id, s)
		e.running.Add(1)
		go s.run()
	}
}

func (e *Engine) isDrained() bool {
	select {
	case <-e.drained:
		return true
	default:
		return false
	}
}

// Drain implements [engine.Engine].
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	e.stopAccepting()
	done := make(chan struct{})
	go func() {
		e.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		e.killAll()
		<-done
		return ctx.Err()
	}
}

func (e *Engine) stopAccepting() {
	if e.isDrained() {
		return
	}
	close(e.drained)
	was := e.serving.Load()
	for _, ln := range was.Listeners {
		ln.shut()
	}
	e.accepting.Wait()
	e.serving.Store(&core.Serving[*listener]{Services: was.Services})
}

func (e *Engine) killAll() {
	e.live.Range(func(_, s any) bool {
		s.(*session).end(core.Killed)
		return true
	})
}

// Close implements [engine.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.zones.End()
	e.stopAccepting()
	e.killAll()
	e.running.Wait()
	e.serving.Store(&core.Serving[*listener]{})
	return nil
}

// Listeners implements [engine.Engine].
func (e *Engine) Listeners() []engine.Listener {
	var list []engine.Listener
	for key, ln := range e.serving.Load().Listeners {
		addr := ln.Addr().String()
		if ln.Addr().Network() == "unix" {
			addr = "unix:" + addr
		}
		list = append(list, engine.Listener{Service: ln.entry.Load().Svc.Name, Listen: key.Listen, Addr: addr, MPTCP: ln.mptcp})
	}
	return list
}

// Refused implements [engine.Engine].
func (e *Engine) Refused(yield func(service, reason string, clients uint64)) {
	e.serving.Load().EachRefusal(yield)
}

// Snapshot implements [engine.Engine].
func (e *Engine) Snapshot() engine.Snapshot {
	snap := engine.Snapshot{Services: e.serving.Load().Stats(), Facilities: core.NoFacilities()}
	return snap
}
