package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

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
)

func runCommand(flags *flag.FlagSet) action {
	file := configFlag(flags)
	return func(ctx context.Context, c console, _ []string) int {
		doc, _ := readConfig(*file, c.err)
		if doc == nil {
			return exitUsage
		}
		return finish(c, serve(ctx, doc.Config, doc))
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

// serve runs a configuration until ctx ends, then drains. doc is the file of the
// configuration, or nil. The error is nil after an orderly end.
func serve(ctx context.Context, cfg *config.Config, doc *document.File) error {
	// A reader of the log or of standard output that exits must not end the process.
	ignoreBrokenPipes()
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
	eng, err := native.New(opt)
	if err != nil {
		return err
	}
	defer func() { _ = eng.Close() }()
	front := newFront(log)
	dir, err := director.New(cfg, eng, director.Options{Log: log, MaxProbes: probesFor(limits.files), Document: doc, Prepare: front.prepare})
	if err != nil {
		return err
	}
	follow := &follower{book: book, log: log, logging: cfg.Logging, engine: eng}
	follow.listeners()

	ctx, shutdown := context.WithCancel(ctx)
	defer shutdown()
	source := &status.Source{
		Director: dir, Engine: eng, Version: version, Started: time.Now(),
		SessionsLimit: opt.MaxSessions, FDLimit: limits.files, Draining: func() bool { return ctx.Err() != nil }, Off: front.Off,
		Logs: book.stats, Guard: guard.New(guard.Options{Files: limits.files, Log: logs.Strangers(log)}),
	}
	text := metrics.NewText(source.Read, source.Guard.Gate())
	defer sample(source)()
	adm := newAdmin(dir, eng, source, text, book, shutdown)
	front.tell = func(off []status.Off) { tellSystemd(log, off) }
	front.open(dir.State().Config, parts{
		admin: adm, users: users.New(func() []*config.User { return dir.State().Config.Admin.Users }, source.Guard.Gate(), log, book.audit),
		director: dir, engine: eng, status: source, log: logs.Strangers(log), pipes: int(opt.PipeMemory / int64(opt.PipeSize)),
		guard: source.Guard, text: text, stateDir: stateDir(doc),
	}.surfaces())
	defer front.Close() // last, so that one can watch the sessions end

	// Everything that changes the configuration or the state ends with background.
	background, stop := context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = dir.Run(background) })
	// Scripts that wait for "ready" may send a signal at once: be prepared before.
	reopen := make(chan os.Signal, 4)
	if which := reopenSignals(); len(which) > 0 { // none would mean all
		signal.Notify(reopen, which...)
	}
	defer signal.Stop(reopen)
	running.Go(func() { onSignals(background, reopen, book, dir) })
	running.Go(func() { follow.run(background, dir) })
	log.Info("ready", "version", version, "services", len(cfg.Services), "loops", opt.Loops,
		"max_sessions", opt.MaxSessions, "files", limits.files)
	notify(log, daemon.SdNotifyReady)

	<-ctx.Done()
	notify(log, daemon.SdNotifyStopping)
	log.Info("draining", "at_most", cfg.Engine.Drain.String())
	stop()
	running.Wait()
	leave, cancel := context.WithTimeout(context.Background(), max(cfg.Engine.Drain, time.Millisecond))
	defer cancel()
	switch err := eng.Drain(leave); {
	case errors.Is(err, context.DeadlineExceeded):
		log.Warn("drain timeout reached", "timeout", cfg.Engine.Drain.String())
	case err != nil:
		return err
	}
	log.Info("stopped")
	return nil
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
}

// engineOptions translates <engine> and fits it to what the system allows.
func engineOptions(cfg *config.Config, log *slog.Logger) (engine.Options, limits) {
	e := cfg.Engine
	modes := map[string]engine.SpliceMode{
		"auto": engine.SpliceAuto, "always": engine.SpliceAlways, "never": engine.SpliceNever,
	}
	rings := map[string]engine.RingMode{"auto": engine.RingAuto, "off": engine.RingOff}
	opt := engine.Options{
		Ring: rings[e.Ring], Steer: e.Steer == "cpu",
		Loops: e.Loops, Splice: modes[e.Splice], PipeSize: int(e.PipeSize), PipeMemory: e.PipeMemory,
		MaxSessions: e.MaxSessions, Backlog: e.Backlog,
	}
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
		return opt, limits{}
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
	return opt, limits{files: files}
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
	return int(max(left/2, 1))
}

// onSignals handles SIGHUP and SIGUSR1 until ctx ends.
func onSignals(ctx context.Context, signals <-chan os.Signal, book *logbook, dir *director.Director) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			// Wait for the new file, so that it has the messages of the reload.
			reopened := make(chan struct{})
			go book.reopenFor(s, reopened)
			select {
			case <-reopened:
			case <-time.After(reopenFirst):
			}
			if isReload(s) {
				// The director logs the result.
				r, err := dir.Reload(ctx, director.ReloadRequest{By: "SIGHUP"})
				book.auditReload(r.Generation, err)
				if errors.Is(err, director.ErrNoFile) {
					book.log.Warn("reload ignored", "err", err)
				}
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

// tellSystemd says in `systemctl status` which admin interfaces are off.
func tellSystemd(log *slog.Logger, off []status.Off) {
	text := "serving"
	for _, o := range off {
		text += fmt.Sprintf("; <%s> is off: %s", o.Interface, strings.ReplaceAll(o.Err, "\n", " "))
	}
	notify(log, "STATUS="+text)
}

// notify tells systemd, if it started the program (sd_notify(3)).
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "state", state, "err", err)
	}
}
