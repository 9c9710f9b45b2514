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

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/metrics"
)

// parts are what the surfaces of the admin are made of.
type parts struct {
	admin    *admin.Admin
	director *director.Director
	engine   *engine.Engine
	metrics  metrics.Source
	log      *slog.Logger
	pipes    int         // that may be open at once
	stateDir string      // where certificate and host key are kept
	draining func() bool // the process takes leave of its clients
}

// surfaces lists the ways into the admin.
func (p parts) surfaces() []surface {
	return []surface{p.metricsSurface(), p.socketSurface(), p.controlSurface(), p.sshSurface(), p.webSurface()}
}

// newAdmin makes the admin of a process, which shutdown ends.
func newAdmin(dir *director.Director, eng *engine.Engine, m metrics.Source, log *slog.Logger, file *logs.File, tail *logs.Tail, shutdown func()) *admin.Admin {
	return admin.New(admin.Options{
		Director: dir, Engine: eng, Process: self{file, shutdown}, Version: version, Log: log,
		Reports: map[string]admin.Report{
			"show metrics": func(context.Context) (string, any, error) {
				var b bytes.Buffer
				m.Write(&b)
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
	// words returns all that the configuration says of the surface, comparable;
	// nil: it is off.
	words func(*config.Config) any
	// listen opens its listener.
	listen func(*config.Config) (net.Listener, error)
	// serve answers until ctx ends, closes ln, and returns nil then. It reads the
	// configuration that it was started with from cfg.
	serve func(ctx context.Context, ln net.Listener, cfg *config.Config) error
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
		listen: func(c *config.Config) (net.Listener, error) {
			return listenFor("metrics", c.Admin.Metrics)
		},
		serve: func(ctx context.Context, ln net.Listener, _ *config.Config) error {
			return metrics.Serve(ctx, ln, p.metrics)
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

// front runs surfaces and follows what the configuration says of them.
type front struct {
	director *director.Director
	log      *slog.Logger
	run      []*running
	stop     context.CancelFunc
	follower sync.WaitGroup
}

// running is a surface with what it was started with.
type running struct {
	surface
	words any
	stop  func() // ends it and waits for that; nil: it is off
}

// openFront starts the surfaces. The error tells which could not listen; none
// runs then. Close ends them.
func openFront(dir *director.Director, log *slog.Logger, surfaces []surface) (*front, error) {
	f := &front{director: dir, log: log}
	state := dir.State()
	for _, s := range surfaces {
		r := &running{surface: s}
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

// start makes a surface what cfg says of it. It is off, or ended, before.
func (f *front) start(r *running, cfg *config.Config) error {
	r.words = r.surface.words(cfg)
	if r.words == nil {
		return nil
	}
	ln, err := r.listen(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.serve(ctx, ln, cfg); err != nil {
			f.log.Error("a part of the admin is gone", "part", r.name, "err", err)
		}
	})
	r.stop = func() {
		cancel()
		done.Wait()
	}
	f.log.Info("admin listening", "part", r.name, "addr", ln.Addr().String())
	return nil
}

// follow goes on from state until ctx ends.
func (f *front) follow(ctx context.Context, state *director.State) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-state.Replaced():
		}
		state = f.director.State()
		for _, r := range f.run {
			if r.surface.words(state.Config) == r.words {
				continue
			}
			if r.stop != nil {
				r.stop()
				r.stop = nil
				f.log.Info("admin listening no more", "part", r.name)
			}
			if err := f.start(r, state.Config); err != nil {
				f.log.Error("a part of the admin is off until the configuration changes again", "part", r.name, "err", err)
			}
		}
	}
}
