//go:build !portable

package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/splice"
)

// Engine serves plans. See the package comment.
type Engine struct {
	opt       Options
	epoch     time.Time
	sustained int   // a read of this many bytes makes a flow splice
	noRing    error // why the loops have no ring; nil: they have one, or are not to
	failures  chan Failure
	loops     []*loop

	localPorts atomic.Uint32 // that connections get from the kernel: the lowest, and in the low half the highest

	sessions atomic.Int64  // sessions now, and accepts under way
	leavers  atomic.Int64  // shards that leave
	draining atomic.Bool   //
	empty    chan struct{} // has a token after the last session or leaver ended while draining
	closing  chan struct{} // closed when govern is to end
	governed chan struct{} // closed when it has

	unzoned   chan struct{}  // closed when followZones is to end; nil: it does not run
	following sync.WaitGroup // for it

	mu      sync.Mutex   // held by Apply, Drain and Close
	asking  sync.RWMutex // held for reading by who asks the loops for sessions: they live until it has its answer
	closed  bool         // written under both
	going   []*listener  // stopped, but not closed yet
	serving atomic.Pointer[serving]
}

// serving is what the last plan made of the engine. It is immutable.
type serving struct {
	services  map[string]*service
	listeners map[listenKey]*listener
}

// New starts the loops of an engine that serves nothing yet.
func New(opt Options) (*Engine, error) {
	opt, err := opt.withDefaults(runtime.NumCPU())
	if err != nil {
		return nil, err
	}
	e := &Engine{
		opt:      opt,
		epoch:    time.Now(),
		failures: make(chan Failure, failureQueue),
		empty:    make(chan struct{}, 1),
		closing:  make(chan struct{}),
		governed: make(chan struct{}),
	}
	if e.opt.ringFrom == 0 {
		e.opt.ringFrom = worthARing
	}
	if e.opt.governor.decide == nil {
		e.opt.governor = governor{governEvery, decide}
	}
	e.serving.Store(&serving{})
	e.learnLocalPorts()
	switch opt.Splice {
	case SpliceAuto:
		e.sustained = readSize
	case SpliceAlways:
		e.sustained = 1
	case SpliceNever:
		e.sustained = math.MaxInt
	}
	pipes := splice.NewBudget(opt.PipeMemory)
	for i := range opt.Loops {
		l, err := newLoop(e, i, pipes)
		if err != nil {
			for _, l := range e.loops {
				l.sys.(linux).shut()
			}
			return nil, fmt.Errorf("start loop %d: %w", i, err)
		}
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		go l.run()
	}
	go e.govern()
	return e, nil
}

// NoRing tells why the loops send by a system call each although they might
// have used a ring; nil if they have one, or were told not to.
func (e *Engine) NoRing() error { return e.noRing }

// clock returns nanoseconds since the engine was made, from 1 on.
func (e *Engine) clock() int64 { return int64(time.Since(e.epoch)) + 1 }

// learnLocalPorts reads which ports the kernel gives to connections.
func (e *Engine) learnLocalPorts() {
	p := connect.LocalPorts()
	e.localPorts.Store(uint32(p.Low)<<16 | uint32(p.High))
}

// isLocalPort tells whether a connection to a port may be one to itself.
func (e *Engine) isLocalPort(port uint16) bool {
	p := e.localPorts.Load()
	return connect.Ports{Low: uint16(p >> 16), High: uint16(p)}.Has(port)
}

// admit counts a session that is about to be accepted, if the limit allows it.
func (e *Engine) admit() bool {
	n := e.sessions.Add(1)
	if limit := int64(e.opt.MaxSessions); limit > 0 && n > limit {
		e.leave(1)
		return false
	}
	return true
}

// hasRoom tells whether another session would be admitted.
func (e *Engine) hasRoom() bool {
	return e.opt.MaxSessions == 0 || e.sessions.Load() < int64(e.opt.MaxSessions)
}

// leave takes n sessions off the count.
func (e *Engine) leave(n int) {
	if e.sessions.Add(-int64(n)) == 0 {
		e.tellDrain()
	}
}

// left takes a shard that has closed off those that leave.
func (e *Engine) left() {
	if e.leavers.Add(-1) == 0 {
		e.tellDrain()
	}
}

// tellDrain makes a Drain that waits look again.
func (e *Engine) tellDrain() {
	if !e.draining.Load() {
		return
	}
	select {
	case e.empty <- struct{}{}:
	default:
	}
}

// report hands a failure to the director; it never waits.
func (e *Engine) report(f Failure) {
	select {
	case e.failures <- f:
	default: // the director's scan of the hosts finds it
	}
}

// Failures returns the channel on which a host's way from up to down is
// reported. Reports that nobody takes in time are dropped.
func (e *Engine) Failures() <-chan Failure { return e.failures }

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
	if e.closed || e.draining.Load() {
		return ErrClosed
	}
	e.learnLocalPorts() // an operator may have changed them
	was := e.serving.Load()
	next := &serving{services: map[string]*service{}, listeners: map[listenKey]*listener{}}
	for _, s := range p.Services {
		svc := was.services[s.Name]
		if svc == nil {
			svc = newService(s.Name, len(e.loops))
		}
		next.services[s.Name] = svc
	}
	fresh, err := e.openListeners(p, owner, was, next)
	if err != nil {
		return err
	}
	// What is new is complete before a client can reach it, and what is there
	// stays as it is until nothing can fail any more.
	for _, s := range p.Services {
		if was.services[s.Name] == nil {
			next.services[s.Name].route.Store(s.Route)
		}
	}
	for _, ln := range fresh {
		ln.svc.Store(next.services[owner[ln.key]])
	}
	if err := e.startListeners(fresh); err != nil {
		for _, ln := range fresh {
			e.stopListener(ln)
		}
		return err
	}
	retimed := map[*service]bool{}
	for _, s := range p.Services {
		svc := next.services[s.Name]
		if before := svc.route.Swap(s.Route); before.Timeouts != s.Route.Timeouts {
			retimed[svc] = before.Timeouts.kept() != s.Route.Timeouts.kept()
		}
	}
	if len(retimed) > 0 {
		for _, l := range e.loops {
			l.retime(retimed)
		}
	}
	for key, ln := range next.listeners {
		svc := next.services[owner[key]]
		ln.svc.Store(svc)
		ln.keep(svc.route.Load().Timeouts.kept())
	}
	e.serving.Store(next)
	e.followIfZoned(fresh)
	for key, ln := range was.listeners {
		if next.listeners[key] == nil {
			e.stopListener(ln)
		}
	}
	return nil
}

// openListeners fills next.listeners with those that stay and those that are
// new, and returns the new ones. On error it has opened none.
func (e *Engine) openListeners(p Plan, owner map[listenKey]string, was, next *serving) ([]*listener, error) {
	var fresh []*listener
	var problems []error
	var services map[string]*Service // made for the first listener that is new
	goingPorts := map[string]bool{}
	e.going = slices.DeleteFunc(e.going, func(ln *listener) bool { return ln.open.Load() == 0 })
	for _, ln := range e.going {
		goingPorts[ln.port()] = true
	}
	for key, ln := range was.listeners {
		if _, stays := owner[key]; !stays {
			goingPorts[ln.port()] = true
		}
	}
	for key, name := range owner {
		if ln := was.listeners[key]; ln != nil {
			next.listeners[key] = ln
			continue
		}
		// A listener of ours that is about to go must not make its successor
		// on the same port look taken.
		if services == nil {
			services = p.byName()
		}
		s := services[name]
		how := listening{s.ListenOptions[key.listen], s.Route.Timeouts.kept()}
		ln, err := openListener(key, how, len(e.loops), e.opt.Backlog, !goingPorts[key.port()])
		if err != nil {
			problems = append(problems, fmt.Errorf("service %q: %w", name, err))
			continue
		}
		fresh = append(fresh, ln)
		next.listeners[key] = ln
	}
	if len(problems) > 0 {
		for _, ln := range fresh {
			ln.close()
		}
		return nil, errors.Join(problems...)
	}
	return fresh, nil
}

// startListeners hands new listeners to the loops.
func (e *Engine) startListeners(fresh []*listener) error {
	problems := make([]error, len(e.loops))
	for _, ln := range fresh {
		ln.open.Store(int32(len(ln.fds)))
		for _, fd := range ln.fds {
			ln.shards = append(ln.shards, &shard{listener: ln, fd: fd})
		}
	}
	e.onLoops(func(l *loop) {
		for _, ln := range fresh {
			if err := l.listen(ln.shards[l.index]); err != nil {
				problems[l.index] = err
			}
		}
	})
	return errors.Join(problems...)
}

// stopListener serves what waits in the listener's queues and closes it. Where
// there is no room for more sessions it does not wait: the loops go on as room
// comes.
func (e *Engine) stopListener(ln *listener) {
	ln.file.remove() // first, so that nobody comes any more
	var wg sync.WaitGroup
	for i, l := range e.loops {
		wg.Add(1)
		l.submit(func() { l.unlisten(ln.shards[i], wg.Done) })
	}
	wg.Wait()
	if ln.open.Load() > 0 {
		e.going = append(e.going, ln)
	}
}

// reopen puts a listener into the place of one whose interface has moved. mu is
// held.
func (e *Engine) reopen(key listenKey, old *listener) {
	if e.closed || e.draining.Load() {
		return
	}
	ln, err := openListener(listenKey{listen: samePort(key, old.bound)}, old.how, len(e.loops), e.opt.Backlog, false)
	if err != nil {
		return
	}
	ln.key = key
	ln.svc.Store(old.svc.Load())
	if e.startListeners([]*listener{ln}) != nil {
		e.stopListener(ln)
		return
	}
	e.serving.Store(e.serving.Load().with(key, ln))
	e.stopListener(old)
}

// onLoops runs f on every loop and returns when all have.
func (e *Engine) onLoops(f func(*loop)) {
	var wg sync.WaitGroup
	for _, l := range e.loops {
		wg.Add(1)
		l.submit(func() {
			defer wg.Done()
			f(l)
		})
	}
	wg.Wait()
}

// Drain takes leave: the listeners close, after what waits in their queues is
// accepted, and the sessions go on; who has to wait for room in a queue is served
// as sessions end. It returns nil once the last has ended;
// when ctx ends before, it closes those that are left and returns ctx's error.
// The engine accepts nothing afterwards.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.draining.Store(true)
	was := e.serving.Load()
	for _, ln := range was.listeners {
		e.stopListener(ln)
	}
	e.serving.Store(&serving{services: was.services})
	for e.sessions.Load() > 0 || e.leavers.Load() > 0 {
		select {
		case <-e.empty:
		case <-ctx.Done():
			e.onLoops((*loop).closeShards) // before sessions end and make room
			e.onLoops(func(l *loop) {
				l.table.each(func(s *session) { l.end(s, killed) })
			})
			return ctx.Err()
		}
	}
	return nil
}

// Close ends every session and the loops. It is done when it returns.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.asking.Lock()
	e.closed = true
	e.asking.Unlock()
	close(e.closing)
	<-e.governed
	e.unfollow()
	for _, ln := range e.serving.Load().listeners {
		ln.file.remove()
	}
	e.onLoops((*loop).closeShards) // none hands a connection to one that has quit
	for _, l := range e.loops {
		l.submit(func() { l.quit = true })
	}
	for _, l := range e.loops {
		<-l.done
	}
	e.serving.Store(&serving{})
	return nil
}

// Listeners returns the addresses in use. It never waits for a change.
func (e *Engine) Listeners() []Listener {
	var list []Listener
	for key, ln := range e.serving.Load().listeners {
		list = append(list, Listener{Service: ln.svc.Load().name, Listen: key.listen, Addr: ln.bound})
	}
	return list
}

// Refused calls yield with every service that has rejected clients, a reason and
// how many it were for that, since the service was first there. It never waits
// for a loop or a change, and allocates nothing.
func (e *Engine) Refused(yield func(service, reason string, clients uint64)) {
	for name, svc := range e.serving.Load().services {
		for why := range refusals {
			if n := svc.refused(why); n > 0 {
				yield(name, why.String(), n)
			}
		}
	}
}

// Snapshot returns the counters. It never waits for a loop or a change.
func (e *Engine) Snapshot() Snapshot {
	snap := Snapshot{Services: map[string]ServiceStats{}}
	for name, svc := range e.serving.Load().services {
		snap.Services[name] = svc.stats()
	}
	for _, l := range e.loops {
		snap.Loops = append(snap.Loops, l.count.stats())
	}
	return snap
}
