// Package rig runs one configuration for tests ([Start]) and the soak ([Run]), or
// only holds it ([Hold]). It is not part of the program.
package rig

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Rig is a configuration that runs.
type Rig struct {
	Engine   engine.Engine
	Director *director.Director
	// StopDirector ends the director and waits for that. Close and Stop do it too.
	StopDirector func() error

	// What Start has beside that.
	Log    *testkit.Log
	Logger *slog.Logger // writes to Log
	File   string       // of the configuration
	// Stop ends the director, then the engine. Only its first call counts. The end
	// of the test calls it.
	Stop func()
}

// Run runs a configuration until Close.
func Run(cfg *config.Config, loops int, opt director.Options) (*Rig, error) {
	eng, err := native.New(engine.Options{Loops: loops})
	if err != nil {
		return nil, err
	}
	dir, err := director.New(cfg, eng, opt)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- dir.Run(ctx) }()
	return &Rig{Engine: eng, Director: dir, StopDirector: sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}, nil
}

// Close ends the director, then the engine.
func (r *Rig) Close() error { return errors.Join(r.StopDirector(), r.Engine.Close()) }

// Start writes a configuration to a file of its own and runs it from there until
// the end of the test, which fails if it does not end well. with may change the
// options of the director.
func Start(t testing.TB, xml string, with ...func(*director.Options)) *Rig {
	t.Helper()
	log, file := &testkit.Log{}, filepath.Join(t.TempDir(), "config.xml")
	if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, problems := document.Open(file)
	if doc == nil {
		t.Fatal(problems)
		return nil
	}
	opt := director.Options{Log: log.Logger(), Document: doc}
	for _, f := range with {
		f(&opt)
	}
	r, err := Run(doc.Config, 2, opt)
	if err != nil {
		t.Fatal(err)
	}
	r.Log, r.Logger, r.File = log, log.Logger(), file
	r.Stop = sync.OnceFunc(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.Stop)
	return r
}

// Addr returns where the first listener of a service is bound, "" without one.
func (r *Rig) Addr(service string) string {
	for _, l := range r.Engine.Listeners() {
		if l.Service == service {
			return l.Addr
		}
	}
	return ""
}

// Hold returns a director that holds a configuration without running it: it has no
// engine and no goroutine, and hosts are up or down as the test marks them.
func Hold(t testing.TB, xml string) *director.Director {
	t.Helper()
	cfg, problems := config.Parse("config.xml", []byte(xml))
	if cfg == nil {
		t.Fatal(problems)
	}
	d, err := director.New(cfg, Idle{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Idle is an engine that does nothing.
type Idle struct{}

func (Idle) Apply(engine.Plan) error                              { return nil }
func (Idle) Failures() <-chan engine.Failure                      { return nil }
func (Idle) Snapshot() engine.Snapshot                            { return engine.Snapshot{} }
func (Idle) Inherit(engine.Snapshot)                              {}
func (Idle) Refused(func(service, reason string, clients uint64)) {}

func (Idle) Sessions(int, func(string, *sched.Host) bool) []engine.SessionInfo { return nil }
func (Idle) Listeners() []engine.Listener                                      { return nil }
func (Idle) EndSessions(engine.Ending, func(engine.Candidate) bool) int        { return 0 }
