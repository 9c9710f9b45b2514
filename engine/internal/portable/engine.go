// Package portable is the engine for systems without epoll and splice: a goroutine for
// each listener, and sessions by goroutines.
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
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/conns"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Engine implements [engine.Engine].
type Engine struct {
	opt      engine.Options
	epoch    time.Time
	failures core.Reports
	conns    *conns.Sessions
	room     chan struct{} // holds a token for each session; nil: no limit

	zones core.ZoneFollower[*listener]
	heirs *core.Heirs // of mu

	mu      sync.Mutex // held by Apply, Drain and Close
	closed  bool
	drained chan struct{} // closed when listeners have closed for good
	serving atomic.Pointer[core.Serving[*listener]]

	accepting sync.WaitGroup
	restTill  atomic.Int64                  // ns: accepting pauses until then, without descriptors
	held      atomic.Pointer[chan struct{}] // closed by Resume; nil: the engine is not paused
}

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (*Engine, error) {
	heirs, err := core.NewHeirs(opt.Inherited)
	if err != nil {
		return nil, err
	}
	opt, err = core.WithDefaults(opt, 1)
	if err != nil {
		heirs.Close()
		return nil, err
	}
	e := &Engine{opt: opt, heirs: heirs, epoch: time.Now(), failures: core.NewReports(), drained: make(chan struct{})}
	gate := core.Gate{Report: e.failures.Report, Active: func() int64 { return e.conns.Count() }}
	if opt.Recorder != nil {
		gate.Log = opt.Recorder.Attach(1, e.epoch.Add(-1))[0]
	}
	e.conns = conns.New(conns.Home{Gate: gate, Clock: e.clock, Rest: e.rest, Left: e.left, OnPanic: opt.OnPanic, Copy: e.admitCopy, Copied: e.left})
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
	e.heirs.Reset()
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
		o := s.ListenOptions[key.Listen]
		files, lent, misfit := e.heirs.For(s.Name, key, o)
		var ln *listener
		if len(files) > 0 {
			ln, err = inherit(key.Listen, files, lent, o, e.opt.Backlog)
		} else {
			ln, err = openListener(key.Listen, o, e.opt.Backlog)
			err = core.Misfit(err, misfit)
		}
		if err != nil {
			problems = append(problems, core.NotOpened(s.Name, key.Listen, false, err))
			continue
		}
		fresh = append(fresh, ln)
		next.Listeners[key] = ln
	}
	if len(problems) > 0 {
		for _, ln := range fresh {
			ln.giveUp()
		}
		return errors.Join(problems...)
	}
	if err := e.retune(owner, was, next); err != nil {
		for _, ln := range fresh {
			ln.giveUp()
		}
		return err
	}
	e.recount(next, p)
	e.reroute(next, p)
	for key, ln := range next.Listeners {
		ln.enter(next.Entry(ln.entry.Load(), owner[key], key))
	}
	e.serving.Store(next)
	was.Dismiss(next)
	for _, ln := range fresh {
		for _, one := range append(ln.more, ln) {
			e.accepting.Add(1)
			go e.acceptFrom(one)
		}
	}
	e.zones.Follow(fresh, &e.mu, &e.serving, e.reopen)
	for key, ln := range was.Listeners {
		if next.Listeners[key] == nil {
			ln.shut()
		}
	}
	e.heirs.Settle()
	return nil
}

// recount counts the sessions of services for which a plan has limits that began without.
func (e *Engine) recount(serving *core.Serving[*listener], p engine.Plan) {
	if uncounted := serving.Expect(p); uncounted != nil {
		e.conns.Recount(uncounted)
	}
}

// reroute publishes the routes of a plan.
func (e *Engine) reroute(serving *core.Serving[*listener], p engine.Plan) {
	if retimed := serving.Reroute(p); len(retimed) > 0 {
		e.conns.Retime(retimed)
	}
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
	return e.drain(ctx)
}

// drain closes the listeners and waits for the sessions. mu is held.
func (e *Engine) drain(ctx context.Context) error {
	e.stopAccepting()
	done := make(chan struct{})
	go func() {
		e.conns.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		e.conns.Kill()
		<-done
		return ctx.Err()
	}
}

func (e *Engine) stopAccepting() {
	if e.isDrained() {
		return
	}
	close(e.drained)
	e.conns.Shut()
	was := e.serving.Load()
	for _, ln := range was.Listeners {
		ln.shut()
	}
	e.accepting.Wait()
	e.serving.Store(&core.Serving[*listener]{Services: was.Services})
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
	e.conns.Close()
	e.serving.Store(&core.Serving[*listener]{})
	return nil
}

// Listeners implements [engine.Engine].
func (e *Engine) Listeners() []engine.Listener {
	var list []engine.Listener
	serving := e.serving.Load()
	for _, key := range serving.Sorted() {
		ln := serving.Listeners[key]
		addr := ln.Addr().String()
		if ln.Addr().Network() == "unix" {
			addr = "unix:" + addr
		}
		list = append(list, engine.Listener{Service: ln.entry.Load().Svc.Name, Listen: key.Listen, Addr: addr, MPTCP: ln.mptcp, Lent: ln.lent})
	}
	return list
}

// Sockets implements [engine.Engine].
func (e *Engine) Sockets() (list []engine.Inherited, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	serving := e.serving.Load()
	for _, key := range serving.Sorted() {
		ln := serving.Listeners[key]
		service, lent := ln.entry.Load().Svc.Name, ln.lent
		for _, one := range append([]*listener{ln}, ln.more...) {
			ln, ok := one.Listener.(interface{ File() (*os.File, error) })
			if !ok {
				continue
			}
			file, err := ln.File()
			if err != nil {
				for _, one := range list {
					_ = one.File.Close()
				}
				return nil, err
			}
			list = append(list, engine.Inherited{File: file, Service: service, Listen: key.Listen, Lent: lent})
		}
	}
	return list, nil
}

// Refused implements [engine.Engine].
func (e *Engine) Refused(yield func(service, reason string, clients uint64)) {
	e.serving.Load().EachRefusal(yield)
}

// Allot implements [engine.Engine].
func (e *Engine) Allot(service string, a engine.Allotment) (engine.Usage, bool) {
	return e.serving.Load().Allot(service, a, e.clock())
}

// Snapshot implements [engine.Engine].
func (e *Engine) Snapshot() engine.Snapshot {
	return engine.Snapshot{Services: e.serving.Load().Stats(), Facilities: core.NoFacilities(), Panics: e.conns.Panics()}
}

// Inherit implements [engine.Engine].
func (e *Engine) Inherit(before engine.Snapshot) { e.serving.Load().Inherit(before.Services) }

// Sessions implements [engine.Engine].
func (e *Engine) Sessions(most int, which func(service string, host *sched.Host) bool) []engine.SessionInfo {
	return core.Sorted(e.conns.List(most, which))
}

// FindByLocal implements [engine.Engine].
func (e *Engine) FindByLocal(local netip.AddrPort) []engine.SessionInfo {
	if local = core.Unmapped(local); !local.IsValid() {
		return nil
	}
	return core.Sorted(e.conns.FindByLocal(local))
}

// EndSessions implements [engine.Engine].
func (e *Engine) EndSessions(why engine.Ending, which func(engine.Candidate) bool) int {
	return e.conns.End(why, which)
}

// EndSession implements [engine.Engine].
func (e *Engine) EndSession(id uint64) (ended bool) { return e.conns.EndOne(id) }

// Explain implements [engine.Engine].
func (e *Engine) Explain(id uint64) (engine.Story, bool) { return e.conns.Explain(id) }

// Ended implements [engine.Engine].
func (e *Engine) Ended(most int) []engine.Story { return core.Latest(e.conns.Ended(most), most) }

// Take implements [engine.Engine].
func (e *Engine) Take(ctx context.Context, service string, conn net.Conn) error {
	svc, err := e.enter(ctx, service)
	if err != nil {
		e.conns.Discard(service, conn)
		return err
	}
	return e.conns.Take(svc, conn)
}

// Dial implements [engine.Engine].
func (e *Engine) Dial(ctx context.Context, service string, client netip.Addr) (net.Conn, error) {
	svc, err := e.enter(ctx, service)
	if err != nil {
		return nil, err
	}
	return e.conns.Dial(ctx, svc, client)
}

// enter takes room for a session that the program begins, as soon as there is some.
func (e *Engine) enter(ctx context.Context, service string) (*core.Service, error) {
	if e.isDrained() {
		return nil, engine.ErrClosed
	}
	svc := e.serving.Load().Services[service]
	if svc == nil {
		return nil, fmt.Errorf("%w: %q", engine.ErrNoService, service)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if e.room != nil {
		select {
		case e.room <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.drained:
			return nil, engine.ErrClosed
		}
	}
	return svc, nil
}
