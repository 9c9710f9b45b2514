// Package rig runs one configuration for tests ([Start]) or only holds it ([Hold]).
// It is not part of the program.
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
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// Rig is a configuration that runs.
type Rig struct {
	Engine   *engine.Engine
	Director *director.Director
	Log      *testkit.Log
	Logger   *slog.Logger // writes to Log
	File     string       // of the configuration
	// Stop ends the director, then the engine. Only its first call counts. The end
	// of the test calls it.
	Stop func()
}

// Start writes a configuration to a file of its own and runs it from there until
// the end of the test, which fails if it does not end well. with may change the
// options of the director.
func Start(t testing.TB, xml string, with ...func(*director.Options)) *Rig {
	t.Helper()
	r := &Rig{Log: &testkit.Log{}, File: filepath.Join(t.TempDir(), "config.xml")}
	r.Logger = r.Log.Logger()
	if err := os.WriteFile(r.File, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, problems := config.ReadDocument(r.File)
	if doc == nil {
		t.Fatal(problems)
		return nil
	}
	var err error
	if r.Engine, err = engine.New(engine.Options{Loops: 2}); err != nil {
		t.Fatal(err)
	}
	opt := director.Options{Log: r.Logger, Document: doc}
	for _, f := range with {
		f(&opt)
	}
	if r.Director, err = director.New(doc.Config, r.Engine, opt); err != nil {
		t.Fatal(errors.Join(err, r.Engine.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Director.Run(ctx) }()
	r.Stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, r.Engine.Close()); err != nil {
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
func (Idle) Refused(func(service, reason string, clients uint64)) {}
