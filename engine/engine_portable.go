//go:build !linux || portable

package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/connect"
)

// Engine serves plans. See the package comment. This one is for systems
// without epoll and splice: a goroutine for each listener, one for each
// session and one more for its second direction.
//
// Limits beside those of the package: what waits in the queue of a listener
// that goes is reset, a new listener cannot take the port of one that goes in
// the same plan, and a backend that resets a connection before its first byte
// is not replaced by another.
type Engine struct {
	opt      Options
	epoch    time.Time
	gate     gate
	failures chan Failure
	room     chan struct{} // holds a token for each session; nil: no limit

	unzoned   chan struct{}  // closed when followZones is to end; nil: it does not run
	following sync.WaitGroup // for it

	mu      sync.Mutex // held by Apply, Drain and Close
	closed  bool
	drained chan struct{} // closed when listeners have closed for good
	serving atomic.Pointer[serving]

	accepting sync.WaitGroup
	running   sync.WaitGroup // sessions
	live      sync.Map       // *session by its ID
	ids       atomic.Uint64  // given out
	restTill  atomic.Int64   // ns: until then nobody is accepted, for want of descriptors
}

// serving is what the last plan made of the engine. It is immutable.
type serving struct {
	services  map[string]*service
	listeners map[listenKey]*listener
}

// listener is one listening address.
type listener struct {
	net.Listener
	opt  ListenOptions
	zone boundZone
	file socketFile // of a UNIX socket
	svc  atomic.Pointer[service]
	stop chan struct{} // closed before the Listener is
}

// New returns an engine that serves nothing yet.
func New(opt Options) (*Engine, error) {
	opt, err := opt.withDefaults(1)
	if err != nil {
		return nil, err
	}
	e := &Engine{opt: opt, epoch: time.Now(), failures: make(chan Failure, failureQueue), drained: make(chan struct{})}
	e.gate = gate{report: e.report}
	if opt.MaxSessions > 0 {
		e.room = make(chan struct{}, opt.MaxSessions)
	}
	e.serving.Store(&serving{})
	return e, nil
}

// clock returns nanoseconds since the engine was made, from 1 on.
func (e *Engine) clock() int64 { return int64(time.Since(e.epoch)) + 1 }

// rest keeps the listeners from accepting until a time.
func (e *Engine) rest(until int64) {
	for was := e.restTill.Load(); was < until && !e.restTill.CompareAndSwap(was, until); {
		was = e.restTill.Load()
	}
}

// NoRing is nil: this engine does not look for one.
func (e *Engine) NoRing() error { return nil }

// Failures returns the channel on which a host's way from up to down is
// reported. Reports that nobody takes in time are dropped.
func (e *Engine) Failures() <-chan Failure { return e.failures }

func (e *Engine) report(f Failure) {
	select {
	case e.failures <- f:
	default: // the director's scan of the hosts finds it
	}
}

// Apply makes the engine serve p. New listeners are opened before anything
// else; if one of them cannot be, nothing changes and the error names each
// such address and its service.
func (e *Engine) Apply(p Plan) error {
	owner, err := p.listeners()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.isDrained() {
		return ErrClosed
	}
	was := e.serving.Load()
	next := &serving{services: map[string]*service{}, listeners: map[listenKey]*listener{}}
	for _, s := range p.Services {
		svc := was.services[s.Name]
		if svc == nil {
			svc = newService(s.Name, 1)
		}
		next.services[s.Name] = svc
	}
	services := p.byName()
	var fresh []*listener
	var problems []error
	for key, name := range owner {
		if ln := was.listeners[key]; ln != nil {
			next.listeners[key] = ln
			continue
		}
		ln, err := openListener(key.listen, services[name].ListenOptions[key.listen])
		if err != nil {
			problems = append(problems, fmt.Errorf("service %q: %w", name, err))
			continue
		}
		fresh = append(fresh, ln)
		next.listeners[key] = ln
	}
	if len(problems) > 0 {
		for _, ln := range fresh {
			ln.shut()
		}
		return errors.Join(problems...)
	}
	retimed := map[*service]bool{}
	for _, s := range p.Services {
		svc := next.services[s.Name]
		if before := svc.route.Swap(s.Route); before != nil && before.Timeouts != s.Route.Timeouts {
			retimed[svc] = before.Timeouts.kept() != s.Route.Timeouts.kept()
		}
	}
	if len(retimed) > 0 {
		e.live.Range(func(_, s any) bool {
			one := s.(*session)
			if keep, concerned := retimed[one.svc]; concerned && one.watch.reset(one) && keep {
				for _, c := range one.ends {
					k := one.svc.route.Load().Timeouts.kept()
					if tcp, ok := c.(*net.TCPConn); ok {
						setUnacked(tcp, k.unacked)
					}
					tune(c, k)
				}
			}
			return true
		})
	}
	for key, ln := range next.listeners {
		ln.svc.Store(next.services[owner[key]])
	}
	e.serving.Store(next)
	for _, ln := range fresh {
		e.accepting.Add(1)
		go e.acceptFrom(ln)
	}
	e.followIfZoned(fresh)
	for key, ln := range was.listeners {
		if next.listeners[key] == nil {
			ln.shut()
		}
	}
	return nil
}

// reopen puts a listener into the place of one whose interface has moved. mu is
// held.
func (e *Engine) reopen(key listenKey, old *listener) {
	if e.closed || e.isDrained() {
		return
	}
	ln, err := openListener(samePort(key, old.Addr().String()), old.opt)
	if err != nil {
		return
	}
	ln.svc.Store(old.svc.Load())
	e.serving.Store(e.serving.Load().with(key, ln))
	e.accepting.Add(1)
	go e.acceptFrom(ln)
	old.shut()
}

func openListener(listen string, opt ListenOptions) (*listener, error) {
	a, err := parseListen(listen)
	if err != nil {
		return nil, err
	}
	bound, host, err := inZone(a.host)
	if err != nil {
		return nil, listenError(listen, err)
	}
	network, address := "tcp", net.JoinHostPort(host, a.port)
	switch {
	case a.path != "":
		if err := clearStale(a.path); err != nil {
			return nil, err
		}
		network, address = "unix", a.path
	case a.host == "0.0.0.0": // net would take it for every address of both families
		network = "tcp4"
	}
	var how net.ListenConfig
	if opt.FreeBind {
		how.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = setFreeBind(int(fd), 1) }), err)
		}
	}
	ln, err := how.Listen(context.Background(), network, address)
	if err != nil {
		return nil, listenError(listen, err)
	}
	made := &listener{Listener: ln, opt: opt, zone: bound, stop: make(chan struct{})}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove whatever has the name
		if made.file, err = ourFile(a.path); err != nil {
			_ = ln.Close()
			return nil, listenError(listen, err)
		}
	}
	return made, nil
}

func (ln *listener) shut() {
	close(ln.stop)
	ln.file.remove()
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
				e.rest(e.clock() + pauseFor) // they come back
				continue
			}
			select {
			case <-ln.stop:
				return
			case <-time.After(time.Duration(pauseFor)): // this listener has a fault
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
		s := newSession(e, ln.svc.Load(), conn)
		s.waits = waits
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

// Drain takes leave: the listeners close and the sessions go on. It returns
// nil once the last has ended; when ctx ends before, it closes those that are
// left and returns ctx's error. The engine accepts nothing afterwards.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
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
	for _, ln := range was.listeners {
		ln.shut()
	}
	e.accepting.Wait()
	e.serving.Store(&serving{services: was.services})
}

func (e *Engine) killAll() {
	e.live.Range(func(_, s any) bool {
		s.(*session).end(killed)
		return true
	})
}

// Close ends every session. It is done when it returns.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.unfollow()
	e.stopAccepting()
	e.killAll()
	e.running.Wait()
	e.serving.Store(&serving{})
	return nil
}

// Listeners returns the addresses in use. It never waits for a change.
func (e *Engine) Listeners() []Listener {
	var list []Listener
	for key, ln := range e.serving.Load().listeners {
		addr := ln.Addr().String()
		if ln.Addr().Network() == "unix" {
			addr = "unix:" + addr
		}
		list = append(list, Listener{Service: ln.svc.Load().name, Listen: key.listen, Addr: addr})
	}
	return list
}

// Refused calls yield with every service that has rejected clients, a reason and
// how many it were for that, since the service was first there. It never waits
// for a session or a change, and allocates nothing.
func (e *Engine) Refused(yield func(service, reason string, clients uint64)) {
	for name, svc := range e.serving.Load().services {
		for why := range refusals {
			if n := svc.refused(why); n > 0 {
				yield(name, why.String(), n)
			}
		}
	}
}

// Snapshot returns the counters. It never waits for a session or a change.
func (e *Engine) Snapshot() Snapshot {
	snap := Snapshot{Services: map[string]ServiceStats{}}
	for name, svc := range e.serving.Load().services {
		snap.Services[name] = svc.stats()
	}
	return snap
}
