package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

func runCommand(flags *flag.FlagSet) action {
	file := configFlag(flags)
	return func(ctx context.Context, c console, _ []string) int {
		upgrades := make(chan os.Signal, 1) // from the first moment: it would end the process
		if which := upgradeSignals(); len(which) > 0 {
			signal.Notify(upgrades, which...)
			defer signal.Stop(upgrades)
		}
		before, err := findPredecessor()
		if err != nil {
			return finish(c, err)
		}
		if before != nil {
			debug.SetTraceback("crash")
			return finish(c, serve(ctx, beginning{config: before.state.Config, doc: before.state.Document, before: before, upgrades: upgrades}))
		}
		doc, _ := readConfig(*file, c.err)
		if doc == nil {
			return exitUsage
		}
		// A crash of the Go runtime exits with status 2, which is ours for a wrong
		// configuration: a service manager would not start the program again. With this it
		// ends by SIGABRT.
		debug.SetTraceback("crash")
		return finish(c, serve(ctx, beginning{config: doc.Config, doc: doc, upgrades: upgrades}))
	}
}

// readConfig reads the configuration that -c asks for and writes what is wrong
// with it to problems. The document is nil if it is not usable.
func readConfig(asked string, problems io.Writer) (doc *document.File, path string) {
	path = configPath(asked)
	doc, found := document.Open(path)
	if doc != nil {
		found = append(found, badHashes(path, doc.Config)...)
	}
	if len(found) > 0 {
		fmt.Fprintln(problems, found)
	}
	return doc, path
}

// finish turns the end of a server into an exit status. Standard error may be a
// pipe that nobody reads any more, which must not keep the process.
func finish(c console, err error) int {
	if err == nil {
		return exitOK
	}
	told := make(chan struct{})
	go tell(c.err, err, told)
	select {
	case <-told:
	case <-time.After(time.Second):
	}
	return exitFailed
}

func tell(w io.Writer, err error, done chan<- struct{}) {
	defer close(done)
	fmt.Fprintln(w, "txlb:", err)
}

// beginning is what a process begins with.
type beginning struct {
	config   *config.Config
	doc      *document.File   // of the configuration; nil: it is of no file
	before   *predecessor     // whose place this process takes; nil: nobody's
	upgrades <-chan os.Signal // each asks for an upgrade
	node     *node            // of a fleet; nil: it is none
}

// serve runs a configuration until ctx ends, then drains. It also ends when another process
// has taken its place. The error is nil after an orderly end.
func serve(ctx context.Context, is beginning) (err error) {
	cfg := is.config
	defer func() { is.before.fail(err) }()
	// A reader of the log or of standard output that exits must not end the process.
	ignoreBrokenPipes()
	// Scripts that wait for "ready" may send a signal at once, and who has learned of an upgrade
	// sends it to a process that is not ready yet.
	reopen := make(chan os.Signal, 4)
	if which := reopenSignals(); len(which) > 0 { // none would mean all
		signal.Notify(reopen, which...)
	}
	defer signal.Stop(reopen)
	book, err := openLogbook(cfg.Logging)
	if err != nil {
		return err
	}
	defer book.close()
	log := book.log
	// Libraries log mostly what strangers cause. It must go through the ring, not
	// straight to standard error.
	slog.SetDefault(logs.Strangers(log))
	opt, limits := engineOptions(cfg, log)
	opt.Recorder = book.records
	if cfg.Engine.Keeper {
		opt.Keeper = keeperOf()
	}
	front := newFront(log)
	var stored map[string]string // in the descriptor store of systemd
	var state *director.Inherited
	if b := is.before; b != nil {
		opt.Inherited, stored, state, front.given = b.sockets, b.stored, b.state, b.surfaces
	} else {
		var passed []string
		opt.Inherited, passed = inheritSockets()
		stored = givenBack(passed)
	}
	var decides atomic.Pointer[director.Director]
	opt.FindHost = func(service, group, host string, addr sched.Addr) *sched.Host {
		if d := decides.Load(); d != nil {
			return d.HostFor(service, group, host, addr)
		}
		return nil
	}
	eng, err := native.New(opt)
	if err != nil {
		return err
	}
	defer func() { _ = eng.Close() }()
	defer func() { is.before.fail(err) }() // before what both have is closed
	if is.before != nil {
		eng.Pause() // until the predecessor says that this process serves
	}
	is.node, err = newNode(cfg, is.doc, eng, log)
	if err != nil {
		return err
	}
	waits := is.before == nil && is.node.waits(cfg)
	if waits {
		eng.Pause() // clients wait in the queues of their sockets
	}
	dir, err := director.New(cfg, eng, is.node.govern(director.Options{Log: log, MaxProbes: probesFor(limits.files), Document: is.doc, Inherited: state, Prepare: front.prepare}))
	if err != nil {
		return err
	}
	decides.Store(dir)
	if is.before != nil {
		is.node.takeParts(is.before.parts)
		is.node.succeed(is.before.lineage)
	}

	ctx, shutdown := context.WithCancel(ctx)
	defer shutdown()
	var accepting atomic.Pointer[time.Time] // until when, once the process is going to end
	source := &status.Source{
		Director: dir, Engine: eng, Version: version, Started: time.Now(),
		SessionsLimit: opt.MaxSessions, FDLimit: limits.files, PipeMemory: opt.PipeMemory, PipeQuota: limits.pipes, Draining: func() bool { return ctx.Err() != nil }, Accepting: accepting.Load, Off: front.Off,
		Logs: book.stats, Guard: guard.New(guard.Options{Files: limits.files, Log: logs.Strangers(log)}), Former: is.before.former,
	}
	is.node.watchedBy(source)
	text := metrics.NewText(source.Read, source.Guard.Gate())
	if b := is.before; b != nil {
		if err := source.Inherit(b.samples); err != nil {
			return err
		}
	}
	defer sample(source)()
	systemd := newSupervisor(log, source, responding(eng, dir))
	defer systemd.close()
	front.tell = systemd.nudge
	up := newUpgrader(log)
	up.demo = is.doc == nil
	up.engine, up.dir, up.front, up.systemd, up.status, up.node = eng, dir, front, systemd, source, is.node
	if up.program, err = installedPath(); err != nil {
		return err
	}
	process := self{book, up, shutdown}
	is.node.commands(process)
	adm := newAdmin(dir, eng, source, text, process, is.node)
	surfaces := parts{
		admin: adm, users: users.New(func() []*config.User { return dir.State().Config.Admin.Users }, source.Guard.Gate(), log, book.audit),
		director: dir, engine: eng, status: source, log: logs.Strangers(log), pipes: int(opt.PipeMemory / int64(opt.PipeSize)),
		guard: source.Guard, text: text, stateDir: stateDir(is.doc),
	}.surfaces()
	defer front.Close()                    // last, so that one can watch the sessions end
	defer func() { is.before.fail(err) }() // before what both have is closed

	// Everything that changes the configuration or the state ends with background.
	background, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop() // first
	// Changes come when all surfaces are open, or, while another process hands over, are refused.
	if is.before == nil {
		front.open(dir.State().Config, surfaces)
	}
	running.Go(func() { _ = dir.Run(background) })
	follow := &follower{book: book, log: log, logging: cfg.Logging, engine: eng}
	opened := false
	if is.before != nil {
		serve := sync.OnceFunc(eng.Resume)
		thaw := dir.Freeze(errUpgrading)
		err := is.before.takeOver(ctx, service{log: log, serve: func() {
			if !is.node.shares(cfg) { // else clients wait until this process knows what the other uses
				serve()
			}
		}, hear: func(n news) error {
			is.node.takeParts(n.Parts)
			serve()
			err := errors.Join(dir.TakeIn(n.Director), source.Inherit(n.Samples))
			if err == nil {
				front.open(dir.State().Config, surfaces)
				opened = true
			}
			return err
		}, adopt: eng.Adopt, count: dir.TakeIn, learn: func(s settlement) error {
			err := dir.TakeIn(s.Director)
			thaw()
			dir.Note(s.By, s.From, "upgrade", "version "+version+" has taken over")
			return err
		}})
		if err == nil && !opened { // it has died before the news
			serve()
			front.open(dir.State().Config, surfaces)
		}
		thaw()
		if err != nil {
			return err
		}
	}
	follow.store = newStore(log, eng, stored)
	up.store = follow.store
	follow.listeners()
	running.Go(func() { is.node.run(background, dir) })
	if waits {
		is.node.awaitParts(ctx)
		eng.Resume()
	}
	up.open()
	running.Go(func() { onSignals(background, reopen, is.upgrades, book, dir, systemd, up) })
	running.Go(func() { follow.run(background, dir) })
	log.Info("ready", "version", version, "services", len(cfg.Services), "loops", opt.Loops,
		"max_sessions", opt.MaxSessions, "files", limits.files)
	systemd.ready()

	select {
	case <-ctx.Done():
		is.node.announce()
		up.end("txlb is draining")
	case <-up.gone:
	}
	select {
	case <-up.gone:
		// Who sends SIGTERM now means the service, and may not know of the new process yet.
		unasked := context.AfterFunc(ctx, up.endSuccessor)
		time.Sleep(lastRequests) // changes are still refused with the reason
		unasked()
		stop()
		running.Wait()
		front.Close()
		return leave(eng, up, is.before, cfg.Engine.Drain, log)
	default:
	}
	if grace := cfg.Engine.Grace; grace > 0 {
		until := time.Now().Add(grace)
		accepting.Store(&until)
		log.Info("stopping, new clients are still accepted", "for", grace.String())
		systemd.stopping()
		time.Sleep(grace) // a second signal ends the process
		accepting.Store(nil)
		systemd.nudge()
	} else {
		systemd.stopping()
	}
	log.Info("draining", "at_most", cfg.Engine.Drain.String())
	stop()
	running.Wait()
	within, cancel := context.WithTimeout(context.Background(), max(cfg.Engine.Drain, time.Millisecond))
	defer cancel()
	lingering, gone := context.WithCancel(within)
	running.Go(func() { is.node.linger(lingering, dir) })
	err = drained(eng.Drain(within), cfg.Engine.Drain, log)
	gone()
	if err != nil {
		return err
	}
	is.before.await(within) // a service manager would end it with this process
	log.Info("stopped")
	return nil
}

// lastRequests is how long a process answers on its admin connections after another has
// taken over: they may have been accepted a moment before.
const lastRequests = time.Second

// leave lets the sessions finish that another process could not take over.
func leave(eng engine.Engine, up *upgrader, before *predecessor, drain time.Duration, log *slog.Logger) error {
	within, cancel := context.WithTimeout(context.Background(), max(drain, time.Millisecond))
	telling, told := context.WithCancel(within)
	var running sync.WaitGroup
	running.Go(func() { up.tellLeft(telling, before) })
	defer running.Wait()
	defer cancel()
	defer told()
	if err := drained(eng.Leave(within), drain, log); err != nil {
		return err
	}
	before.await(within) // whose sessions are told of through this process
	if !up.succeeded() {
		return fmt.Errorf("process %d, which has taken over, has ended", up.result.pid)
	}
	log.Info("stopped", "successor", up.result.pid)
	return nil
}

// drained logs how a drain has ended.
func drained(err error, timeout time.Duration, log *slog.Logger) error {
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("drain timeout reached", "timeout", timeout.String())
		return nil
	}
	return err
}

// sample takes samples until end is called. It goes on while the process drains, so
// that users see how many sessions are left.
func sample(source *status.Source) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { source.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// limits are what the system allows the process.
type limits struct {
	files uint64 // open files; 0: not known
	pipes int64  // bytes that pipes may hold together, pipeMemory at most
}

// engineOptions translates <engine> and fits it to what the system allows.
func engineOptions(cfg *config.Config, log *slog.Logger) (engine.Options, limits) {
	e := cfg.Engine
	opt := director.EngineOptions(&e)
	if opt.Loops == 0 {
		opt.Loops = runtime.GOMAXPROCS(0)
	}
	// A loop in a system call keeps its P until the runtime's monitor takes it. With
	// one P to spare, the monitor does not (docs/design/go-scheduler.md).
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(opt.Loops + spareProcs)
	}
	files, err := raiseFiles()
	if err != nil {
		log.Warn("cannot read the limit of open files, sessions are not limited by it", "err", err)
		return opt, limits{pipes: opt.PipeMemory}
	}
	pipes := opt.PipeMemory
	if opt.Splice != engine.SpliceNever {
		pipes = splice.Quota(opt.PipeSize, opt.PipeMemory)
	}
	if pipes < opt.PipeMemory {
		log.Info("the kernel's quota of pipes is less than pipeMemory, beyond it streams are copied", "quota_mib", pipes>>20, "pipe_memory_mib", opt.PipeMemory>>20)
	}
	listeners := 0
	for _, s := range cfg.Services {
		listeners += len(s.Listen)
	}
	allowed := sessionsFor(files, listeners*opt.Loops, int(e.PipeMemory/e.PipeSize))
	switch {
	case opt.MaxSessions == 0:
		opt.MaxSessions = allowed
	case opt.MaxSessions > allowed:
		log.Warn("maxSessions is more than the limit of open files allows; raise LimitNOFILE",
			"asked", opt.MaxSessions, "allowed", allowed, "files", files)
		opt.MaxSessions = allowed
	}
	return opt, limits{files, pipes}
}

// spareProcs is how many more threads may run Go code than there are loops.
const spareProcs = 1

// ownFiles is how many descriptors the process needs for other things than sessions,
// listeners, pipes, checks and connections to the admin: logs, epoll.
const ownFiles = 64

// probesFor returns how many health checks may run at once with that limit of open
// files.
func probesFor(files uint64) int { return int(min(max(files/1024, 64), 1024)) }

// sessionsFor returns how many sessions are possible with that limit of open files.
// A session takes two, beside listeners and pipes. Pipes get at most a quarter;
// without a pipe, a stream is copied.
func sessionsFor(files uint64, listeners, pipes int) int {
	// A check takes two, because one that runs alone has its own epoll.
	left := int64(min(files, 1<<40)) - ownFiles - int64(guard.Files(files)) - 2*int64(probesFor(files)) - int64(listeners)
	left -= min(2*int64(pipes), left/4)
	return int(min(max(left/2, 1), math.MaxInt32)) // an int may have 32 bits
}

// onSignals handles SIGHUP, SIGUSR1 and SIGUSR2 until ctx ends.
func onSignals(ctx context.Context, signals, upgrades <-chan os.Signal, book *logbook, dir *director.Director, systemd *supervisor, up *upgrader) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-upgrades:
			go func() {
				if _, err := up.upgrade(ctx, "SIGUSR2", ""); err != nil {
					book.log.Warn("no upgrade", "err", err)
				}
			}()
		case s := <-signals:
			// Wait for the new file, so that it has the messages of the reload.
			reopened := make(chan struct{})
			go book.reopenFor(s, reopened)
			select {
			case <-reopened:
			case <-time.After(reopenFirst):
			}
			if isReload(s) {
				var err error
				systemd.reload(func() {
					// The director logs the result.
					var r director.Reloaded
					r, err = dir.Reload(ctx, director.ReloadRequest{By: "SIGHUP"})
					book.auditReload(r.Generation, err)
				})
				if errors.Is(err, director.ErrNoFile) {
					book.log.Warn("reload ignored", "err", err)
				}
				answerReload(err)
			}
		}
	}
}

// reopenFirst is how long a reload waits for the log to be reopened.
const reopenFirst = 100 * time.Millisecond

// follower applies changes of the configuration that are not the director's job: it
// changes the log, and logs listeners.
type follower struct {
	book    *logbook
	log     *slog.Logger
	logging config.Logging // as it is
	engine  engine.Engine
	store   *store                   // nil: there is none
	told    map[engine.Listener]bool // listeners that the log has told of
	refused map[string]bool          // facilities that the log has told of
	seen    *config.Config           // the one that was followed last
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context, dir *director.Director) {
	for {
		state := dir.State()
		f.follow(state.Config)
		select {
		case <-ctx.Done():
			return
		case <-state.Replaced():
		}
	}
}

// follow applies one configuration. Most states differ in a host's health or weight:
// with thousands of services, listing what the engine has costs more than such a
// change does.
func (f *follower) follow(c *config.Config) {
	if f.seen == nil || !sameListeners(f.seen, c) {
		f.listeners()
	}
	f.seen = c
	f.logs(c.Logging) // may wait for a file, which delays nothing else
}

// sameListeners tells whether the same services listen on the same addresses. A
// service that a change leaves alone is shared.
func sameListeners(a, b *config.Config) bool {
	return a == b || slices.EqualFunc(a.Services, b.Services, func(s, t *config.Service) bool {
		return s == t || s.Name == t.Name && slices.Equal(s.Listen, t.Listen)
	})
}

// listeners logs those that have come or gone.
func (f *follower) listeners() {
	now := map[engine.Listener]bool{}
	for _, l := range f.engine.Listeners() {
		now[l] = true
		if !f.told[l] {
			f.log.Info("listening", append([]any{"service", l.Service, "addr", l.Addr}, ofMPTCP(l)...)...)
		}
	}
	for l := range f.told {
		if !now[l] {
			f.log.Info("stopped listening", append([]any{"service", l.Service, "addr", l.Addr}, ofMPTCP(l)...)...)
		}
	}
	f.told = now
	f.store.follow()
	f.facilities()
}

// ofMPTCP is what the log says of a listener that is for MPTCP too.
func ofMPTCP(l engine.Listener) []any {
	if l.MPTCP {
		return []any{"mptcp", true}
	}
	return nil
}

// facilities logs those that the kernel refuses, each once.
func (f *follower) facilities() {
	for _, one := range f.engine.Snapshot().Facilities {
		if !one.Refused || f.refused[one.Name] {
			continue
		}
		level := slog.LevelWarn
		if one.Name == engine.IOUring { // which is asked for only where there is one
			level = slog.LevelInfo
		}
		f.log.Log(context.Background(), level, "facility not in use", "name", one.Name, "reason", one.Why)
		if f.refused == nil {
			f.refused = map[string]bool{}
		}
		f.refused[one.Name] = true
	}
}

// logs applies <logging> to log and audit file. If a file cannot be opened, that is
// logged and the old one stays in use.
func (f *follower) logs(to config.Logging) {
	if to != f.logging {
		f.book.follow(f.logging, to)
	}
	f.logging = to
}
