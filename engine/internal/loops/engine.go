//go:build linux

package loops

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/conns"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/splice"
)

// Engine implements [engine.Engine].
type Engine struct {
	opt       engine.Options
	tuning    Tuning
	epoch     time.Time
	sustained int // a read of this many bytes makes a flow splice
	ring      engine.Facility
	failures  core.Reports
	loops     []*loop

	conns    *conns.Sessions // that no loop can carry
	adopting sync.WaitGroup  // goroutines that begin them
	taken    atomic.Uint32   // connections of the program given to loops
	over     chan struct{}   // closed by Close

	localPorts atomic.Uint32 // that connections get from the kernel: the lowest, and in the low half the highest

	census *census

	keeping *keeping // nil: there is no keeper
	keeps   bool     // its goroutine runs; of mu

	zones core.ZoneFollower[*listener]
	heirs *core.Heirs // of mu

	mu      sync.Mutex   // held by Apply, Drain and Close
	asking  sync.RWMutex // held for reading by who asks the loops for sessions: they live until it has its answer
	closed  bool         // written under both
	going   []*listener  // stopped, but not closed yet
	serving atomic.Pointer[core.Serving[*listener]]
	before  atomic.Pointer[[]engine.LoopStats] // that loops of an earlier process have counted; nil: there was none
}

// New starts the loops of an engine that serves nothing yet.
func New(opt engine.Options) (*Engine, error) { return NewTuned(opt, Tuning{}) }

// Tuning is what tests set otherwise. The zero value is what pays.
type Tuning struct {
	RingFrom int  // sends from which on a batch goes through the ring
	OldRing  bool // the ring is that of a kernel older than Linux 6.6
	Pace     int  // bytes after which the pace of a stream is judged
}

// NewTuned is New for tests.
func NewTuned(opt engine.Options, tune Tuning) (*Engine, error) {
	heirs, err := core.NewHeirs(opt.Inherited)
	if err != nil {
		return nil, err
	}
	opt, err = core.WithDefaults(opt, runtime.NumCPU())
	if err != nil {
		heirs.Close()
		return nil, err
	}
	e := &Engine{
		opt:      opt,
		heirs:    heirs,
		tuning:   tune,
		epoch:    time.Now(),
		failures: core.NewReports(),
		census:   newCensus(opt.MaxSessions),
		over:     make(chan struct{}),
	}
	if opt.Keeper != nil {
		e.keeping = newKeeping(e)
	}
	if e.tuning.RingFrom == 0 {
		e.tuning.RingFrom = worthARing
	}
	if e.tuning.Pace == 0 {
		e.tuning.Pace = paceBytes
	}
	e.serving.Store(&core.Serving[*listener]{})
	e.learnLocalPorts()
	switch opt.Splice {
	case engine.SpliceAuto:
		e.sustained = readSize
	case engine.SpliceAlways:
		e.sustained = 1
	case engine.SpliceNever:
		e.sustained = math.MaxInt
	}
	e.ring = engine.Facility{Name: engine.IOUring, On: opt.Ring == engine.RingAuto}
	if !e.ring.On {
		e.ring.Why = `ring="off"`
	}
	pipes := splice.NewBudget(opt.PipeMemory)
	for i := range opt.Loops {
		l, err := newLoop(e, i, pipes)
		if err != nil {
			for _, l := range e.loops {
				l.sys.shut()
			}
			heirs.Close()
			return nil, fmt.Errorf("start loop %d: %w", i, err)
		}
		e.loops = append(e.loops, l)
	}
	gate := core.Gate{Index: len(e.loops), Report: e.failures.Report, Active: e.census.active}
	if opt.Recorder != nil {
		lanes := opt.Recorder.Attach(e.gates(), e.epoch.Add(-1))
		for i, l := range e.loops {
			l.gate.Log = lanes[i]
		}
		gate.Log = lanes[len(e.loops)]
	}
	e.conns = conns.New(conns.Home{Gate: gate, Clock: e.clock, Rest: e.rest, Left: e.left, OnPanic: opt.OnPanic, Copy: e.census.admitCopy, Copied: e.census.leaveCopy})
	for _, l := range e.loops {
		go l.run()
	}
	return e, nil
}

// gates returns how many admit sessions: the loops, and goroutines.
func (e *Engine) gates() int { return len(e.loops) + 1 }

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

// Leaving returns how many shards of listeners still serve their queues before they
// close.
func (e *Engine) Leaving() int { return int(e.census.leavers.Load()) }

// Failures implements [engine.Engine].
func (e *Engine) Failures() <-chan engine.Failure { return e.failures }

// Apply implements [engine.Engine].
func (e *Engine) Apply(p engine.Plan) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.census.draining.Load() {
		return engine.ErrClosed
	}
	e.learnLocalPorts() // an operator may have changed them
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
	next := was.Next(p, e.gates())
	fresh, err := e.openListeners(owner, was, next)
	if err != nil {
		return err
	}
	e.recount(next, p)
	// What is new is complete before a client can reach it, and what is there
	// stays as it is until nothing can fail any more.
	for _, s := range p.Services {
		if was.Services[s.Name] == nil {
			next.Services[s.Name].Route.Store(s.Route)
		}
	}
	for _, ln := range fresh {
		ln.entry.Store(next.Entry(nil, owner[ln.key], ln.key))
	}
	if err := e.startListeners(fresh); err != nil {
		for _, ln := range fresh {
			e.stopListener(ln, false)
		}
		return err
	}
	if err := e.retuneListeners(owner, was, next); err != nil {
		for _, ln := range fresh {
			e.stopListener(ln, false)
		}
		return err
	}
	e.reroute(next, p)
	for key, ln := range next.Listeners {
		entry := next.Entry(ln.entry.Load(), owner[key], key)
		ln.entry.Store(entry)
		ln.keep(core.KeptBy(entry.Svc.Route.Load())) // it may have another service than before
	}
	e.serving.Store(next)
	was.Dismiss(next)
	e.zones.Follow(fresh, &e.mu, &e.serving, e.reopen)
	for key, ln := range was.Listeners {
		if next.Listeners[key] != ln {
			e.stopListener(ln, true)
		}
	}
	e.heirs.Settle()
	if e.keeping != nil && !e.keeps {
		e.keeps = true
		e.keeping.takeOn()
		go e.keeping.run()
	}
	return nil
}

// recount counts the sessions of services for which a plan has limits that began without.
func (e *Engine) recount(serving *core.Serving[*listener], p engine.Plan) {
	if uncounted := serving.Expect(p); uncounted != nil {
		e.walk(func(l *loop, s *session) bool {
			if uncounted[s.Svc] {
				s.Recount(func() netip.AddrPort { return l.clientAddr(s) })
			}
			return true
		})
		e.conns.Recount(uncounted)
	}
}

// reroute publishes the routes of a plan.
func (e *Engine) reroute(serving *core.Serving[*listener], p engine.Plan) {
	retimed := serving.Reroute(p)
	if len(retimed) == 0 {
		return
	}
	for _, l := range e.loops {
		l.retime(retimed)
	}
	e.conns.Retime(retimed)
	for _, ln := range serving.Listeners {
		if svc := ln.entry.Load().Svc; retimed[svc] {
			ln.keep(core.KeptBy(svc.Route.Load()))
		}
	}
}

// openListeners fills next.listeners with those that stay and those that are
// new, and returns the new ones. On error it has opened none.
func (e *Engine) openListeners(owner map[core.ListenKey]*engine.Service, was, next *core.Serving[*listener]) ([]*listener, error) {
	e.heirs.Reset()
	var fresh []*listener
	var problems []error
	goingPorts := map[string]bool{}
	e.going = slices.DeleteFunc(e.going, func(ln *listener) bool { return ln.open.Load() == 0 })
	for _, ln := range e.going {
		goingPorts[ln.port()] = true
	}
	for key, ln := range was.Listeners {
		if _, stays := owner[key]; !stays {
			goingPorts[ln.port()] = true
		}
	}
	for key, s := range owner {
		how := listening{s.ListenOptions[key.Listen], core.KeptBy(s.Route), e.opt.Steer}
		old := was.Listeners[key]
		if old != nil && !core.NewSockets(old.how.ListenOptions, how.ListenOptions) {
			next.Listeners[key] = old
			continue
		}
		// A listener of ours that is about to go must not make its successor
		// on the same port look taken.
		ln, err := e.openInPlace(key, old, how, s.Name, old == nil && !goingPorts[key.Port()])
		if err != nil {
			problems = append(problems, core.NotOpened(s.Name, key.Listen, old != nil, err))
			continue
		}
		fresh = append(fresh, ln)
		next.Listeners[key] = ln
	}
	if len(problems) > 0 {
		for _, ln := range fresh {
			ln.close()
		}
		return nil, errors.Join(problems...)
	}
	return fresh, nil
}

// openInPlace opens a listener, on the port of the one whose place it takes, if there is
// one.
func (e *Engine) openInPlace(key core.ListenKey, old *listener, how listening, service string, alone bool) (*listener, error) {
	at, o := key, opening{loops: len(e.loops), backlog: e.opt.Backlog, alone: alone}
	if old != nil {
		at = core.ListenKey{Listen: core.SamePort(key, old.bound)}
	} else {
		o.heirs, o.service = e.heirs, service
	}
	ln, err := openListener(at, how, o)
	if err == nil {
		ln.key = key
	}
	return ln, err
}

// retuneListeners gives those that stay their options. On error none has changed.
func (e *Engine) retuneListeners(owner map[core.ListenKey]*engine.Service, was, next *core.Serving[*listener]) error {
	undo := map[*listener]engine.ListenOptions{}
	for key, ln := range next.Listeners {
		if was.Listeners[key] != ln {
			continue
		}
		before := ln.how.ListenOptions
		if err := ln.retune(owner[key].ListenOptions[key.Listen], e.opt.Backlog); err != nil {
			for ln, before := range undo {
				_ = ln.retune(before, e.opt.Backlog)
			}
			return fmt.Errorf("service %q: %w", owner[key].Name, err)
		}
		undo[ln] = before
	}
	return nil
}

// startListeners hands new listeners to the loops.
func (e *Engine) startListeners(fresh []*listener) error {
	problems := make([]error, len(e.loops))
	for _, ln := range fresh {
		ln.open.Store(int32(len(ln.fds)))
		for i, fd := range ln.fds {
			sh := &shard{listener: ln, fd: fd}
			if ln.uses != nil {
				sh.uses = ln.uses[i]
			}
			ln.shards = append(ln.shards, sh)
		}
	}
	e.onLoops(func(l *loop) {
		for _, ln := range fresh {
			for i := l.index; i < len(ln.shards); i += len(e.loops) {
				if err := l.acceptor.listen(ln.shards[i]); err != nil {
					problems[l.index] = err
				}
			}
		}
	})
	return errors.Join(problems...)
}

// stopListener serves what waits in the listener's queues and closes it. Where
// there is no room for more sessions it does not wait: the loops go on as room
// comes. If it is gone for good, its sockets end wherever else they are open, unless they
// were lent: clients would wait there for nobody.
func (e *Engine) stopListener(ln *listener, gone bool) {
	ln.file.Remove() // first, so that no more clients come
	var wg sync.WaitGroup
	for i, sh := range ln.shards {
		wg.Add(1)
		l := e.loops[i%len(e.loops)]
		l.inbox.submit(func() {
			sh.gone = gone && !ln.lent
			l.acceptor.unlisten(sh, wg.Done)
		})
	}
	wg.Wait()
	if ln.open.Load() > 0 {
		e.going = append(e.going, ln)
	}
}

// reopen puts a listener into the place of one whose interface has moved. mu is
// held.
func (e *Engine) reopen(key core.ListenKey, old *listener) {
	if e.closed || e.census.draining.Load() {
		return
	}
	ln, err := e.openInPlace(key, old, old.how, "", false)
	if err != nil {
		return
	}
	ln.entry.Store(old.entry.Load())
	if e.startListeners([]*listener{ln}) != nil {
		e.stopListener(ln, false)
		return
	}
	e.serving.Store(e.serving.Load().With(key, ln))
	e.stopListener(old, true)
}

// onLoops runs f on every loop and returns when all have.
func (e *Engine) onLoops(f func(*loop)) {
	var wg sync.WaitGroup
	for _, l := range e.loops {
		wg.Add(1)
		l.inbox.submit(func() {
			defer wg.Done()
			f(l)
		})
	}
	wg.Wait()
}

// Drain implements [engine.Engine].
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	was := e.beginDrain()
	for _, ln := range was.Listeners {
		e.stopListener(ln, false)
	}
	e.serving.Store(&core.Serving[*listener]{Services: was.Services})
	return e.drain(ctx)
}

// beginDrain makes the engine begin no session for the program any more. mu is held.
func (e *Engine) beginDrain() (was *core.Serving[*listener]) {
	e.census.draining.Store(true)
	e.census.shut()
	e.conns.Shut()
	return e.serving.Load()
}

// drain waits for the sessions, and for listeners that leave. mu is held.
func (e *Engine) drain(ctx context.Context) error {
	for e.census.occupied() {
		select {
		case <-e.census.empty:
		case <-ctx.Done():
			e.onLoops(func(l *loop) { l.acceptor.closeAll() }) // before sessions end and make room
			e.onLoops(func(l *loop) {
				l.table.each(func(s *session) { l.end(s, core.Killed) })
			})
			e.conns.Close()
			return ctx.Err()
		}
	}
	return nil
}

// Close implements [engine.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.asking.Lock()
	e.closed = true
	e.asking.Unlock()
	close(e.over)
	e.zones.End()
	e.heirs.Close()
	for _, ln := range e.serving.Load().Listeners {
		ln.file.Remove()
	}
	e.census.shut()
	e.onLoops(func(l *loop) { l.acceptor.closeAll() }) // none hands a connection to one that has quit
	e.adopting.Wait()
	e.conns.Close()
	for _, l := range e.loops {
		l.inbox.submit(func() { l.quit = true })
	}
	for _, l := range e.loops {
		<-l.done
	}
	if e.keeps {
		e.keeping.close()
	}
	e.serving.Store(&core.Serving[*listener]{})
	return nil
}

// Listeners implements [engine.Engine].
func (e *Engine) Listeners() []engine.Listener {
	var list []engine.Listener
	serving := e.serving.Load()
	for _, key := range serving.Sorted() {
		ln := serving.Listeners[key]
		list = append(list, engine.Listener{Service: ln.entry.Load().Svc.Name, Listen: key.Listen, Addr: ln.bound, MPTCP: ln.multipath, Lent: ln.lent})
	}
	return list
}

// Sockets implements [engine.Engine].
func (e *Engine) Sockets() (list []engine.Inherited, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer func() {
		if err != nil {
			for _, one := range list {
				_ = one.File.Close()
			}
			list = nil
		}
	}()
	serving := e.serving.Load()
	for _, key := range serving.Sorted() {
		ln := serving.Listeners[key]
		service := ln.entry.Load().Svc.Name
		for _, fd := range ln.distinct() {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return list, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
			}
			list = append(list, engine.Inherited{File: os.NewFile(uintptr(dup), ln.bound), Service: service, Listen: key.Listen, Lent: ln.lent})
		}
	}
	for _, one := range e.heirs.Spare(e.Listeners()) {
		dup, err := core.Duplicate(one.File)
		if err != nil {
			return list, err
		}
		list = append(list, engine.Inherited{File: os.NewFile(uintptr(dup), one.File.Name()), Lent: true})
	}
	return list, nil
}

// Refused implements [engine.Engine].
func (e *Engine) Refused(yield func(service, reason string, clients uint64)) {
	e.serving.Load().EachRefusal(yield)
}

// steering tells whether the clients of all TCP listeners are steered.
func (e *Engine) steering() engine.Facility {
	f := engine.Facility{Name: engine.CPUSteering, On: e.opt.Steer}
	if !f.On {
		f.Why = `steer="off"`
	}
	for _, ln := range e.serving.Load().Listeners {
		if ln.unsteered != nil {
			f.On, f.Refused, f.Why = false, true, ln.unsteered.Error()
		}
	}
	return f
}

// Allot implements [engine.Engine].
func (e *Engine) Allot(service string, a engine.Allotment) (engine.Usage, bool) {
	return e.serving.Load().Allot(service, a, e.clock())
}

// Snapshot implements [engine.Engine].
func (e *Engine) Snapshot() engine.Snapshot {
	snap := engine.Snapshot{Services: e.serving.Load().Stats(), Facilities: []engine.Facility{e.ring, e.steering()}, Panics: e.conns.Panics()}
	if e.keeping != nil {
		snap.Keeper = *e.keeping.stats.Load()
		snap.Facilities = append(snap.Facilities, e.keeping.facility())
	}
	for _, l := range e.loops {
		snap.Loops = append(snap.Loops, l.count.stats())
	}
	if before := e.before.Load(); before != nil {
		for i, l := range *before {
			snap.Loops[i%len(snap.Loops)].Count(l)
		}
	}
	return snap
}

// Inherit implements [engine.Engine].
func (e *Engine) Inherit(before engine.Snapshot) {
	e.serving.Load().Inherit(before.Services)
	e.before.Store(&before.Loops)
}
