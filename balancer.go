package txlb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
)

// Balancer is a load balancer that runs. All methods of it, and of what it returns, may be
// called from any goroutine, and after Close.
//
// Methods that change something return when the change is in force for new clients. They are
// whole or not at all: an error leaves everything as it was. Changes are made one after the
// other. One that brings new host names waits for their first look-up, six seconds at most.
type Balancer struct {
	log      *slog.Logger
	lines    queue[logLine]
	events   queue[Event]
	panics   panics
	engine   engine.Engine
	director *director.Director
	source   status.Source
	fixed    config.Engine // what <engine> says

	ctx      context.Context // ends when the balancer begins to end
	cancel   context.CancelFunc
	directed chan struct{}                             // closed when the director has ended
	hooks    atomic.Pointer[map[string]director.Hooks] // by service; the map is never changed
	editing  sync.Mutex                                // held while the program changes something

	drains    context.Context // ends when sessions are no longer waited for
	endDrains context.CancelFunc
	ending    chan struct{} // has room for the one who ends the engine
	closed    bool          // the engine is; of who has put something into ending

	serving sync.Mutex           // guards served
	served  map[*served]struct{} // listeners of Serve; nil: no more are taken
}

// Start starts a balancer. When it returns, the listeners are open and the names of hosts
// have been looked up, for five seconds at most; hosts whose names have not resolved by then
// are left out until they do. Start does not wait for checks, see Group.StartDown.
//
// ctx bounds Start only: once it has returned, ctx means nothing to the balancer. If ctx ends
// before, Start returns its error. An error leaves nothing behind. It names each service,
// host and field with something wrong, and what would be right.
func Start(ctx context.Context, cfg Config) (*Balancer, error) {
	if ctx == nil {
		return nil, errors.New("txlb: Start with a nil context; use context.Background()")
	}
	m, err := cfg.model()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, explain("Start", err)
	}
	b := newBalancer(&cfg, m)
	if err := b.start(ctx, &cfg, m); err != nil {
		b.cancel()
		b.endDrains()
		b.events.close()
		b.lines.flush(flushLog)
		b.lines.close()
		return nil, explain("Start", err)
	}
	return b, nil
}

func newBalancer(cfg *Config, m *config.Config) *Balancer {
	b := &Balancer{fixed: m.Engine, directed: make(chan struct{}), ending: make(chan struct{}, 1), served: map[*served]struct{}{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.drains, b.endDrains = context.WithCancel(context.Background())
	logger := cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	b.lines.call = b.write
	b.log = slog.New(&logHandler{logger.Handler(), &b.lines})
	if tell := cfg.OnEvent; tell != nil {
		b.events.call = func(e Event, missed int) {
			e.Missed = missed
			b.contain(onEvent, nil, func() { tell(e) })
		}
	}
	hooks := map[string]director.Hooks{}
	for i := range cfg.Services {
		b.hook(hooks, &cfg.Services[i])
	}
	b.hooks.Store(&hooks)
	return b
}

// start opens everything.
func (b *Balancer) start(ctx context.Context, cfg *Config, m *config.Config) error {
	opt := director.EngineOptions(&m.Engine)
	if opt.MaxSessions == 0 {
		opt.MaxSessions = sessionsFor(openFiles())
	}
	eng, err := native.New(opt)
	if err != nil {
		return err
	}
	with := director.Options{
		Log: b.log, Starting: ctx, Schedulers: cfg.Schedulers,
		Hooks: func(service string) director.Hooks { return (*b.hooks.Load())[service] },
	}
	if cfg.OnEvent != nil {
		with.Notify = func(n director.Notice) { b.events.put(eventOf(n)) }
	}
	dir, err := director.New(m, eng, with)
	if err == nil {
		err = ctx.Err() // it has ended while listeners were opened
	}
	if err != nil {
		return errors.Join(err, eng.Close())
	}
	b.engine, b.director = eng, dir
	b.source = status.Source{Director: dir, Engine: eng, Started: time.Now(), SessionsLimit: opt.MaxSessions, Draining: func() bool { return b.ctx.Err() != nil }}
	go b.direct()
	return nil
}

// direct is the director's goroutine.
func (b *Balancer) direct() {
	defer close(b.directed)
	_ = b.director.Run(b.ctx) // nil after ctx has ended
}

// flushLog is how long Close and Shutdown wait for the handler of the log.
const flushLog = time.Second

// begin begins the end: the director ends, and the listeners of the program close.
func (b *Balancer) begin() {
	b.cancel()
	b.serving.Lock()
	all := b.served
	b.served = nil
	b.serving.Unlock()
	for ln := range all {
		_ = ln.Close()
	}
	<-b.directed
	b.events.close()
}

// end closes the engine. Only its first call does. The caller has put something into ending.
func (b *Balancer) end() error {
	if b.closed {
		return nil
	}
	b.closed = true
	err := b.engine.Close()
	b.lines.flush(flushLog)
	b.lines.close()
	return err
}

// Close ends the balancer at once: it closes its listeners and those given to Serve, and
// every session and connection of DialContext is reset. Connections that Fallback has are
// the program's, and stay. Close does not wait for an OnEvent or Fallback that is under way; it
// gives the handler of the Logger a second for the last lines. After it no other event is told,
// and methods return [ErrClosed]. Further calls do nothing and return nil.
func (b *Balancer) Close() error {
	b.begin()
	b.endDrains()
	b.ending <- struct{}{}
	defer func() { <-b.ending }()
	return explain("Close", b.end())
}

// Shutdown closes the listeners, and those given to Serve, and waits until the sessions and
// the connections of DialContext have ended. If ctx ends first, it closes those that are left
// and returns the error of ctx; if Close is called, it returns [ErrClosed]. Nothing can be
// changed any more, and no other event is told. Further calls wait for the first one.
func (b *Balancer) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errors.New("txlb: Shutdown with a nil context; use context.Background()")
	}
	b.begin()
	select {
	case b.ending <- struct{}{}:
	default: // another call ends the balancer; if none does, it is ours to end, even after ctx
		select {
		case b.ending <- struct{}{}:
		case <-ctx.Done():
			return explain("Shutdown", ctx.Err())
		}
	}
	defer func() { <-b.ending }()
	if b.closed {
		return nil
	}
	leave, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.drains, cancel)()
	err := b.engine.Drain(leave)
	if err != nil && ctx.Err() == nil && b.drains.Err() != nil {
		err = ErrClosed
	}
	return explain("Shutdown", errors.Join(err, b.end()))
}

// Option changes how a change is made.
type Option func(*how)

type how struct {
	force   bool
	within  *time.Duration
	confirm time.Duration
}

// Force makes a change even if clients may find no host: EnableGroup of a group without a
// host that is up.
func Force(h *how) { h.force = true }

// EndAfter closes the sessions of what leaves that are still open after d; 0: at once.
// Without it they may finish.
func EndAfter(d time.Duration) Option {
	d = max(d, 0)
	return func(h *how) { h.within = &d }
}

// ConfirmWithin undoes a change when d is over, unless [Balancer.Confirm] comes before: that
// change alone, later ones stay. A group that it has enabled is given up at once when it loses
// its last host that is up. d is from a second to 24 hours. What was given with the change and
// is no configuration, such as Service.Fallback, is not undone; neither are sessions that were
// closed.
func ConfirmWithin(d time.Duration) Option {
	return func(h *how) { h.confirm = d }
}

// Pending is a change that is undone at its time, unless it is confirmed before.
type Pending struct {
	Generation uint64 // that the change has made
	Change     string // as in [Event]
	Made       time.Time
	Until      time.Time // when it is undone
	Trouble    string    // why its undo failed, "" if it has not; it is tried again
}

// Pending returns the changes that wait to be confirmed, the oldest first.
func (b *Balancer) Pending() (list []Pending) {
	for _, p := range b.director.State().Pending() {
		list = append(list, Pending{p.Generation, p.Verb, p.Made, p.Until, p.Trouble})
	}
	return list
}

// Confirm keeps a change that would be undone otherwise, see [ConfirmWithin], by the
// generation that it has made; 0 stands for the only one that waits.
func (b *Balancer) Confirm(generation uint64) error {
	_, err := b.director.Confirm(b.ctx, generation, "program", "")
	return explain("Confirm", b.ended(err))
}

// change makes one change. what says it for log and events.
func (b *Balancer) change(what string, options []Option, edit func(*edits.Edit) error) error {
	return b.changeAt(0, what, options, edit)
}

// changeAt is change for one generation of the configuration; 0: any.
func (b *Balancer) changeAt(generation uint64, what string, options []Option, edit func(*edits.Edit) error) error {
	var o how
	for _, option := range options {
		if option != nil {
			option(&o)
		}
	}
	var e *edits.Edit
	if o.confirm != 0 {
		if err := director.CheckConfirm(o.confirm); err != nil {
			return err
		}
	}
	_, err := b.director.Do(b.ctx, director.Change{By: "program", Verb: what, Generation: generation, Confirm: o.confirm, Apply: func(c *config.Config) error {
		e = &edits.Edit{Config: c, State: b.director.State(), Listeners: b.engine.Listeners, Program: true, Force: o.force, Within: o.within}
		if err := edit(e); err != nil {
			return err
		}
		changes.Share(c, e.State.Config) // what follows looks at what has changed
		return e.NoNewLoop()
	}})
	if err != nil && !errors.Is(err, edits.ErrSame) {
		return b.ended(err)
	}
	if o.within == nil {
		return nil
	}
	e.Drain.Within = *o.within
	return b.ended(b.director.Drain(b.ctx, e.Drain))
}

// rehooked makes a change that comes with other hooks. set changes a copy of them.
func (b *Balancer) rehooked(set func(map[string]director.Hooks), change func() error) error {
	b.editing.Lock()
	defer b.editing.Unlock()
	was := b.hooks.Load()
	now := maps.Clone(*was)
	set(now)
	b.hooks.Store(&now)
	err := change()
	if err != nil {
		b.hooks.Store(was)
	}
	var changed []string
	for _, all := range []map[string]director.Hooks{*was, now} {
		for name, h := range all {
			if h.Fallback != nil { // whether it is the same one cannot be told
				changed = append(changed, name)
			}
		}
	}
	if len(changed) > 0 {
		_ = b.director.Rehook(b.ctx, changed...)
	}
	return err
}

// hook notes the hooks of a service.
func (b *Balancer) hook(all map[string]director.Hooks, s *Service) {
	delete(all, s.Name)
	if take := s.Fallback; take != nil {
		name := s.Name
		all[name] = director.Hooks{Fallback: func(conn net.Conn) {
			if b.contain(onFallback, []any{"service", name}, func() { take(conn) }) {
				_ = conn.Close()
			}
		}}
	}
}

// AddService adds a service, which opens its listeners.
func (b *Balancer) AddService(s Service) error {
	where := "AddService"
	build := new(builder)
	m := build.service("the service", &s)
	alone := config.New()
	alone.Program, alone.Services = true, []*config.Service{m}
	if err := build.check(alone); err != nil {
		return explain(where, err)
	}
	return explain(where, b.rehooked(
		func(all map[string]director.Hooks) {
			if _, there := all[s.Name]; !there {
				b.hook(all, &s)
			}
		},
		func() error {
			return b.change(fmt.Sprintf("AddService %s", s.Name), nil, func(e *edits.Edit) error { return e.AddService(m) })
		}))
}

// RemoveService removes a service: its listeners close, and its sessions may finish, or end
// with [EndAfter]. What is given to it by Serve, ServeConn and DialContext later is refused
// with [ErrUnknownService].
func (b *Balancer) RemoveService(name string, options ...Option) error {
	return explain("RemoveService", b.rehooked(
		func(all map[string]director.Hooks) { delete(all, name) },
		func() error {
			return b.change(fmt.Sprintf("RemoveService %s", name), options, func(e *edits.Edit) error { return e.DeleteService(name) })
		}))
}

// Apply makes the balancer do what cfg says, as a reload does: only the difference is changed,
// and sessions of what stays are not touched. Hosts are the same ones if service, group,
// name and address are. Sessions of what goes may finish. Engine must be as it was;
// Logger and OnEvent are not looked at.
func (b *Balancer) Apply(cfg Config) error {
	m, err := cfg.model()
	if err != nil {
		return explain("Apply", err)
	}
	if differ := sameEngine(&b.fixed, &m.Engine); len(differ) > 0 {
		return fmt.Errorf("txlb: Apply: Engine.%s is fixed from Start on; leave it as it was", differ[0])
	}
	return explain("Apply", b.rehooked(
		func(all map[string]director.Hooks) {
			clear(all)
			for i := range cfg.Services {
				b.hook(all, &cfg.Services[i])
			}
		},
		func() error {
			return b.change("Apply", nil, func(e *edits.Edit) error {
				next := *e.Config
				next.Services, next.Manager, next.DNS = m.Services, m.Manager, m.DNS
				if changes.Same(e.State.Config, &next) {
					return edits.ErrSame
				}
				*e.Config = *next.Clone()
				return nil
			})
		}))
}

// Config returns what the balancer does now: the services with all changes since Start,
// their hosts in Groups. It has no functions and no Logger.
func (b *Balancer) Config() Config { return configOf(b.director.State().Config) }

// Services returns the names of the services, in the order of the configuration.
func (b *Balancer) Services() []string {
	var names []string
	for _, s := range b.director.State().Config.Services {
		names = append(names, s.Name)
	}
	return slices.Clip(names)
}

// Service returns the service of that name. It is never nil: if there is none, its methods
// return [ErrUnknownService].
func (b *Balancer) Service(name string) *LiveService { return &LiveService{b, name} }

// sessionsFor returns how many sessions a limit of open files allows: two descriptors each, of
// three quarters of the limit. The rest is for listeners, pipes, checks and the program.
func sessionsFor(files uint64) int {
	if files == 0 {
		return 0 // no limit
	}
	return int(max(min(files, 1<<32)*3/8, 1))
}
