package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/status"
)

// surface is one way into the process beside its services: a page, a shell, a
// socket. What the configuration says of it may change while it runs.
type surface struct {
	name string
	// words returns all that the surface has to be restarted for if the
	// configuration says it otherwise, comparable; nil: it is off.
	words func(*config.Config) any
	// pos is where the configuration says it.
	pos func(*config.Config) config.Pos
	// address returns where it listens: host:port or unix:PATH.
	address func(*config.Config) string
	listen  func(*config.Config) (net.Listener, error)
	// files tells what is wrong with the files that it needs. With create, those
	// that txlb makes itself are made if they are missing. nil: it needs none.
	files func(c *config.Config, create bool) error
	// needs returns all that files looks at, comparable. nil: words has it all.
	needs func(*config.Config) any
	// serve makes the surface of the configuration that current returns meanwhile,
	// and of no other. Later current returns the newest one that has the same words,
	// for what the surface follows while it runs; any goroutine may ask. What it
	// returns answers until ctx ends, and returns nil then. The listener belongs to
	// it, even if there is an error.
	serve func(ln net.Listener, current func() *config.Config) (func(ctx context.Context) error, error)
}

// front runs surfaces and follows what the configuration says of them. It has
// a say in each change: one that a surface could not follow is refused. A surface
// that fails is off, told of in the status, and started again.
type front struct {
	log  *slog.Logger
	tell func() // called when other surfaces are off than before

	run      []*running
	stop     context.CancelFunc
	follower sync.WaitGroup
	failed   chan struct{} // holds something if a surface has failed since follow looked
	accepted chan struct{} // the same for accepted changes

	mu      sync.Mutex
	changes []prepared // that were accepted, and not followed yet
	off     []status.Off

	given []entranceFile // by the process whose place this one takes; open uses them up
}

// entrance is where a surface listens.
type entrance struct {
	address string // as the configuration says it
	*held
}

// entranceFile is the socket of an entrance, for another process.
type entranceFile struct {
	surface, address string
	file             *os.File
}

// prepared is a change for which the surfaces are ready.
type prepared struct {
	config    *config.Config
	listeners []net.Listener // by index of the surface; nil: it stays where it is, or is off
}

func (p *prepared) close() {
	for _, ln := range p.listeners {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

// running is a surface with what it was started with. One goroutine at a time
// deals with it: openFront's, then follow's, then Close's.
type running struct {
	surface
	index  int
	words  any
	looked any                            // what files has looked at
	config *atomic.Pointer[config.Config] // the newest with these words
	socket atomic.Pointer[entrance]       // of one that runs; nil: it is off
	stop   func()                         // ends it and waits for that; nil: it is off
	ended  chan error                     // of serve, if nothing has stopped it

	started  time.Time
	failures int       // in a row
	again    time.Time // when it is started after a failure
	err      error     // why it is off
}

const (
	// againFirst and againLast are how long a surface that has failed is off: the
	// time doubles with each failure in a row.
	againFirst, againLast = 250 * time.Millisecond, time.Minute
	// steady is how long a surface runs until a failure is none in a row.
	steady = time.Minute
)

// newFront returns a front that runs nothing yet.
func newFront(log *slog.Logger) *front {
	return &front{log: log, tell: func() {}, failed: make(chan struct{}, 1), accepted: make(chan struct{}, 1)}
}

// open starts the surfaces for the configuration that runs. One that cannot start
// is off, and tried again. Close ends them.
func (f *front) open(cfg *config.Config, surfaces []surface) {
	for i, s := range surfaces {
		f.run = append(f.run, &running{surface: s, index: i})
	}
	f.bring(f.received(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.follower.Go(func() { f.follow(ctx, cfg) })
}

// Close ends the surfaces and waits for that. They may have never been opened.
func (f *front) Close() {
	if f.stop == nil { // it was never opened
		for _, one := range f.given {
			_ = one.file.Close()
		}
		return
	}
	f.stop()
	f.follower.Wait()
	for _, change := range f.take() {
		change.close()
	}
	for _, r := range f.run {
		if r.stop != nil {
			r.stop()
			r.stop = nil
		}
	}
}

// received makes listeners of the sockets that were given. Those that no surface listens
// with any more are closed.
func (f *front) received(cfg *config.Config) prepared {
	p := prepared{cfg, make([]net.Listener, len(f.run))}
	for _, one := range f.given {
		for i, r := range f.run {
			if r.name != one.surface || p.listeners[i] != nil || r.surface.words(cfg) == nil || r.address(cfg) != one.address {
				continue
			}
			ln, err := listenWith(one.address, one.file)
			if err != nil { // it opens its own
				f.log.Warn("cannot use the listener of the former process", "part", r.name, "addr", one.address, "err", err)
				continue
			}
			p.listeners[i] = ln
		}
		_ = one.file.Close()
	}
	f.given = nil
	return p
}

// sockets returns duplicates of the sockets of all surfaces that run.
func (f *front) sockets() (list []entranceFile, err error) {
	for _, r := range f.run {
		at := r.socket.Load()
		if at == nil {
			continue
		}
		file, err := at.File()
		if err != nil {
			for _, one := range list {
				_ = one.file.Close()
			}
			return nil, fmt.Errorf("admin interface %s: %w", r.name, err)
		}
		list = append(list, entranceFile{r.name, at.address, file})
	}
	return list, nil
}

// each calls do with the entrances of all surfaces that run.
func (f *front) each(do func(*held)) {
	for _, r := range f.run {
		if at := r.socket.Load(); at != nil {
			do(at.held)
		}
	}
}

// pause makes the surfaces accept nothing until resume. Their connections stay.
func (f *front) pause() { f.each((*held).pause) }

func (f *front) resume() { f.each((*held).resume) }

// release makes them accept nothing any more: another process does.
func (f *front) release() { f.each((*held).release) }

// Off returns which surfaces should run and do not. Any goroutine may ask.
func (f *front) Off() []status.Off {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}

// prepare makes the surfaces ready for a change: it looks at the files that
// they would need, and opens listeners on other addresses than they have. See
// director.Options.
func (f *front) prepare(_ context.Context, was, next *config.Config) (settle func(accepted bool), err error) {
	change := prepared{next, make([]net.Listener, len(f.run))}
	var problems []error
	for i, r := range f.run {
		if r.surface.words(next) == nil {
			continue
		}
		err := r.prepareFiles(was, next)
		if err == nil && r.moves(was, next) {
			change.listeners[i], err = r.listen(next)
			if errors.Is(err, syscall.EADDRINUSE) && holdsPort(was, r.address(next)) {
				err = nil // it is this process that gives it up with the change
			}
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		change.close()
		return nil, errors.Join(problems...)
	}
	return func(accepted bool) {
		if !accepted {
			change.close()
			return
		}
		f.mu.Lock()
		f.changes = append(f.changes, change)
		f.mu.Unlock()
		nudge(f.accepted)
	}, nil
}

// prepareFiles looks at the files of a surface if a change says something else of
// them.
func (r *running) prepareFiles(was, next *config.Config) error {
	if r.files == nil || r.surface.words(was) != nil && r.looksAt(was) == r.looksAt(next) {
		return nil
	}
	return r.files(next, true)
}

// looksAt returns all that files looks at, comparable. The surface is not off.
func (r *running) looksAt(c *config.Config) any {
	if r.needs == nil {
		return r.surface.words(c)
	}
	return r.needs(c)
}

// moves tells whether the surface needs another listener.
func (r *running) moves(was, next *config.Config) bool {
	return r.surface.words(was) == nil || r.address(was) != r.address(next)
}

// holdsPort tells whether the process itself may be who listens on the port of
// an address, with a configuration.
func holdsPort(c *config.Config, address string) bool {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	same := func(other string) bool {
		_, p, err := net.SplitHostPort(other)
		return err == nil && p == port
	}
	if w := c.Admin.Web; w != nil && w.Enable && same(w.Listen) {
		return true
	}
	if s := c.Admin.SSH; s != nil && s.Enable && same(s.Listen) {
		return true
	}
	if same(c.Admin.Metrics) {
		return true
	}
	for _, s := range c.Services {
		for _, l := range s.Listen {
			if same(l.Address) {
				return true
			}
		}
	}
	return false
}

// take returns the accepted changes, the oldest first.
func (f *front) take() []prepared {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes := f.changes
	f.changes = nil
	return changes
}

// nudge puts something into a channel with room for one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follow goes on from cfg until ctx ends.
func (f *front) follow(ctx context.Context, cfg *config.Config) {
	retry := time.NewTimer(f.next())
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.accepted:
		case <-f.failed:
		case <-retry.C:
		}
		changes := f.take()
		for _, change := range changes {
			cfg = change.config
			f.bring(change)
		}
		if len(changes) == 0 {
			f.bring(prepared{config: cfg})
		}
		retry.Reset(f.next())
	}
}

// next returns when a surface is to be started again.
func (f *front) next() time.Duration {
	soonest := againLast
	for _, r := range f.run {
		if r.stop == nil && r.words != nil {
			soonest = min(soonest, time.Until(r.again))
		}
	}
	return max(soonest, 0)
}

// bring makes the surfaces what a configuration says of them, as far as they are
// not.
func (f *front) bring(change prepared) {
	var off []status.Off
	for _, r := range f.run {
		var ln net.Listener
		if change.listeners != nil {
			ln = change.listeners[r.index]
		}
		if err := f.bringOne(r, change.config, ln); err != nil {
			off = append(off, status.Off{Interface: r.name, Err: err.Error()})
		}
	}
	f.mu.Lock()
	same := slices.Equal(f.off, off)
	f.off = off
	f.mu.Unlock()
	if !same {
		f.tell()
	}
}

func (f *front) bringOne(r *running, cfg *config.Config, ln net.Listener) error {
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
	if words != nil {
		if looked := r.looksAt(cfg); looked != r.looked {
			r.looked, r.again = looked, time.Time{}
		}
	}
	switch {
	case words != r.words:
		r.words, r.failures, r.again, r.err = words, 0, time.Time{}, nil
		if r.stop != nil {
			r.stop()
			r.stop = nil
			f.log.Info("admin interface stopped", "part", r.name)
		}
	case r.stop != nil:
		r.config.Store(cfg)
		return nil
	case ln == nil && time.Now().Before(r.again):
		return r.err
	}
	if r.words == nil {
		return nil
	}
	if err := f.start(r, cfg, ln); err != nil {
		f.fail(r, "admin interface did not start", err)
	}
	return r.err
}

// start makes a surface what cfg says of it, which has its words. It is off, or
// ended, before. Without a listener, one is opened.
func (f *front) start(r *running, cfg *config.Config, ln net.Listener) (err error) {
	if ln == nil {
		if r.files != nil {
			err = r.files(cfg, true)
		}
		if err == nil {
			ln, err = r.listen(cfg)
		}
		if err != nil {
			return err
		}
	}
	current := new(atomic.Pointer[config.Config])
	current.Store(cfg)
	at := &entrance{r.address(cfg), newHeld(ln)}
	addr := ln.Addr()
	serve, err := r.serve(at.held, current.Load)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var done sync.WaitGroup
	done.Go(func() {
		err := serve(ctx)
		if ctx.Err() == nil {
			ended <- err
			nudge(f.failed)
		} else if err != nil {
			f.log.Error("admin interface failed while stopping", "part", r.name, "err", err)
		}
	})
	r.config, r.ended, r.started, r.err = current, ended, time.Now(), nil
	r.socket.Store(at)
	r.stop = func() {
		r.socket.Store(nil)
		cancel()
		done.Wait()
	}
	f.log.Info("admin listening", "part", r.name, "addr", addr.String())
	return nil
}

// fail notes that a surface is off, why, and when it is started again.
func (f *front) fail(r *running, what string, err error) {
	wait := min(againFirst<<min(r.failures, 10), againLast)
	r.failures++
	r.again = time.Now().Add(wait)
	if err == nil {
		err = errors.New("it ended by itself")
	}
	r.err = err
	f.log.Error(what, "part", r.name, "err", err, "again_in", wait.String())
}
