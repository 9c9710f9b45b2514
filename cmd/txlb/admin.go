package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/internal/status"
)

// parts are what the surfaces of the admin are made of.
type parts struct {
	admin    *admin.Admin
	director *director.Director
	engine   *engine.Engine
	status   *status.Source
	log      *slog.Logger
	pipes    int    // that may be open at once
	stateDir string // where certificate and host key are kept
}

// surfaces lists the ways into the admin.
func (p parts) surfaces() []surface {
	return []surface{p.metricsSurface(), p.socketSurface(), p.controlSurface(), p.sshSurface(), p.webSurface()}
}

// newAdmin makes the admin of a process, which shutdown ends.
func newAdmin(dir *director.Director, eng *engine.Engine, source *status.Source, log *slog.Logger, file *logs.File, tail *logs.Tail, shutdown func()) *admin.Admin {
	return admin.New(admin.Options{
		Director: dir, Engine: eng, Status: source, Process: self{file, shutdown}, Version: version, Log: log,
		Reports: map[string]admin.Report{
			"show metrics": func(context.Context) (string, any, error) {
				var b bytes.Buffer
				metrics.Write(&b, source.Read())
				return b.String(), nil, nil
			},
			"show log": func(context.Context) (string, any, error) {
				lines := tail.Lines(shownLines)
				return strings.Join(lines, "\n"), lines, nil
			},
		},
	})
}

// shownLines is how many lines of the log are shown.
const shownLines = 200

// self is what verbs do to this process.
type self struct {
	file     *logs.File
	shutdown func()
}

func (p self) CloseLog() error { return p.file.Reopen() }
func (p self) Shutdown()       { p.shutdown() }

// stateDir returns where what is made at run time is kept: $STATE_DIRECTORY as
// systemd sets it, else beside the configuration, else here.
func stateDir(doc *config.Document) string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.SplitList(dir)[0]
	}
	if doc == nil {
		return "."
	}
	return filepath.Dir(doc.Path)
}

// surface is one way into the process beside its services: a page, a shell, a
// socket. What the configuration says of it may change while it runs.
type surface struct {
	name string
	// words returns all that the surface has to be started anew for if the
	// configuration says it otherwise, comparable; nil: it is off.
	words func(*config.Config) any
	// open makes the surface of the configuration that current returns meanwhile,
	// and of no other. Later current returns the newest one that has the same
	// words, for what the surface follows while it runs; any goroutine may ask.
	open func(current func() *config.Config) (opened, error)
}

// opened is a surface that listens.
type opened struct {
	addr net.Addr
	// serve answers until ctx ends, and returns nil then. It closes the listener.
	serve func(ctx context.Context) error
}

func (p parts) metricsSurface() surface {
	return surface{
		name: "metrics",
		words: func(c *config.Config) any {
			if c.Admin.Metrics == "" {
				return nil
			}
			return c.Admin.Metrics
		},
		open: func(current func() *config.Config) (opened, error) {
			ln, err := listenFor("metrics", current().Admin.Metrics)
			if err != nil {
				return opened{}, err
			}
			return opened{ln.Addr(), func(ctx context.Context) error { return metrics.Serve(ctx, ln, p.status.Read) }}, nil
		},
	}
}

// listenFor opens the listener of an element of <admin>: * is every address,
// 0.0.0.0 every one of IPv4.
func listenFor(element, listen string) (net.Listener, error) {
	network, address := "tcp", listen
	switch host, port, _ := net.SplitHostPort(listen); {
	case strings.HasPrefix(listen, "unix:"):
		network, address = "unix", strings.TrimPrefix(listen, "unix:")
	case host == "*":
		address = ":" + port
	case host == "0.0.0.0":
		network = "tcp4"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("<%s listen=%q>: %w", element, listen, err)
	}
	return ln, nil
}

// front runs surfaces and follows what the configuration says of them. One that
// fails is started again.
type front struct {
	director *director.Director
	log      *slog.Logger
	run      []*running
	stop     context.CancelFunc
	follower sync.WaitGroup
	failed   chan struct{} // holds something if a surface has failed since follow looked
}

// running is a surface with what it was started with. One goroutine at a time
// deals with it: openFront's, then follow's, then Close's.
type running struct {
	surface
	words  any
	config *atomic.Pointer[config.Config] // the newest with these words
	stop   func()                         // ends it and waits for that; nil: it is off
	ended  chan error                     // of serve, if nothing has stopped it

	started  time.Time
	failures int       // in a row
	again    time.Time // when it is started after a failure
}

const (
	// againFirst and againLast are how long a surface that has failed is off: the
	// time doubles with each failure in a row.
	againFirst, againLast = 250 * time.Millisecond, time.Minute
	// steady is how long a surface runs until a failure is none in a row.
	steady = time.Minute
)

// openFront starts the surfaces. The error tells which could not listen; none
// runs then. Close ends them.
func openFront(dir *director.Director, log *slog.Logger, surfaces []surface) (*front, error) {
	f := &front{director: dir, log: log, failed: make(chan struct{}, 1)}
	state := dir.State()
	for _, s := range surfaces {
		r := &running{surface: s, words: s.words(state.Config)}
		if err := f.start(r, state.Config); err != nil {
			f.stopAll()
			return nil, err
		}
		f.run = append(f.run, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.follower.Go(func() { f.follow(ctx, state) })
	return f, nil
}

// Close ends the surfaces and waits for that.
func (f *front) Close() {
	f.stop()
	f.follower.Wait()
	f.stopAll()
}

func (f *front) stopAll() {
	for _, r := range f.run {
		if r.stop != nil {
			r.stop()
			r.stop = nil
		}
	}
}

// start makes a surface what cfg says of it, which has its words. It is off, or
// ended, before.
func (f *front) start(r *running, cfg *config.Config) error {
	if r.words == nil {
		return nil
	}
	current := new(atomic.Pointer[config.Config])
	current.Store(cfg)
	o, err := r.open(current.Load)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var done sync.WaitGroup
	done.Go(func() {
		err := o.serve(ctx)
		if ctx.Err() == nil {
			ended <- err
			select {
			case f.failed <- struct{}{}:
			default:
			}
		} else if err != nil {
			f.log.Error("admin interface failed while stopping", "part", r.name, "err", err)
		}
	})
	r.config, r.ended, r.started = current, ended, time.Now()
	r.stop = func() {
		cancel()
		done.Wait()
	}
	f.log.Info("admin listening", "part", r.name, "addr", o.addr.String())
	return nil
}

// follow goes on from state until ctx ends.
func (f *front) follow(ctx context.Context, state *director.State) {
	retry := time.NewTimer(againLast)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-state.Replaced():
		case <-f.failed:
		case <-retry.C:
		}
		state = f.director.State()
		soonest := againLast
		for _, r := range f.run {
			f.bring(r, state.Config)
			if r.stop == nil && r.words != nil {
				soonest = min(soonest, time.Until(r.again))
			}
		}
		retry.Reset(max(soonest, 0))
	}
}

// bring makes a surface what cfg says of it, as far as it is not.
func (f *front) bring(r *running, cfg *config.Config) {
	if r.stop != nil {
		select {
		case err := <-r.ended:
			r.stop()
			r.stop = nil
			if time.Since(r.started) >= steady {
				r.failures = 0
			}
			f.fail(r, "admin interface failed", err)
		default:
		}
	}
	words := r.surface.words(cfg)
	switch {
	case words != r.words:
		r.words, r.failures, r.again = words, 0, time.Time{}
		if r.stop != nil {
			r.stop()
			r.stop = nil
			f.log.Info("admin interface stopped", "part", r.name)
		}
	case r.stop != nil:
		r.config.Store(cfg)
		return
	case time.Now().Before(r.again):
		return
	}
	if err := f.start(r, cfg); err != nil {
		f.fail(r, "admin interface did not start", err)
	}
}

// fail notes that a surface is off, and when it is started again.
func (f *front) fail(r *running, what string, err error) {
	wait := min(againFirst<<min(r.failures, 10), againLast)
	r.failures++
	r.again = time.Now().Add(wait)
	f.log.Error(what, "part", r.name, "err", err, "again_in", wait.String())
}
