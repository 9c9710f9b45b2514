package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
)

// edit changes what runs.
func edit(t *testing.T, dir *director.Director, change func(*config.Config)) {
	t.Helper()
	if _, err := dir.Do(t.Context(), director.Change{By: "test", Verb: "edit", Apply: func(c *config.Config) error {
		change(c)
		return nil
	}}); err != nil {
		t.Error(err)
	}
}

const adminDoc = `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="127.0.0.1:1"/></group></service>
<admin><web listen="127.0.0.1:0" certificate="one" key="one"/></admin></config>`

// fakeSurface is a surface that listens as <web> says, and follows its certificate.
type fakeSurface struct {
	opened chan func() *config.Config          // current, of each start
	fails  chan error                          // makes serve return
	broken atomic.Bool                         // open fails
	during func(current func() *config.Config) // goes on while it opens
}

func newFakeSurface() *fakeSurface {
	return &fakeSurface{opened: make(chan func() *config.Config, 16), fails: make(chan error)}
}

func (p *fakeSurface) surface() surface {
	return surface{
		name:  "page",
		words: func(c *config.Config) any { return c.Admin.Web.Listen },
		open: func(current func() *config.Config) (opened, error) {
			if p.broken.Load() {
				return opened{}, errors.New("broken")
			}
			if p.during != nil {
				p.during(current)
			}
			p.opened <- current
			return opened{&net.TCPAddr{}, func(ctx context.Context) error {
				select {
				case err := <-p.fails:
					return err
				case <-ctx.Done():
					return nil
				}
			}}, nil
		},
	}
}

// next returns current of the next start.
func (p *fakeSurface) next(t *testing.T) func() *config.Config {
	t.Helper()
	select {
	case current := <-p.opened:
		return current
	case <-time.After(patience):
		t.Fatal("the surface is not started")
		return nil
	}
}

func follow(t *testing.T, dir *director.Director, p *fakeSurface) {
	t.Helper()
	f, err := openFront(dir, slog.New(slog.DiscardHandler), []surface{p.surface()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
}

// A surface that starts sees one configuration, whatever runs meanwhile, and
// the newer one afterwards; one that it has to be started anew for is seen by
// the next start alone.
func TestSurfaceIsOfOneConfiguration(t *testing.T) {
	dir, p := rig.Start(t, adminDoc).Director, newFakeSurface()
	meanwhile := func(certificate string) {
		p.during = func(current func() *config.Config) {
			before := current()
			edit(t, dir, func(c *config.Config) { c.Admin.Web.Certificate, c.Admin.Web.Key = certificate, certificate })
			if current() != before {
				t.Error("the configuration changes under a surface that starts")
			}
		}
	}
	meanwhile("two")
	follow(t, dir, p)
	first := p.next(t)
	eventually(t, "what runs is followed", func() bool { return first().Admin.Web.Certificate == "two" })

	// While a change has it started anew, the next one comes.
	meanwhile("four")
	edit(t, dir, func(c *config.Config) {
		c.Admin.Web.Listen, c.Admin.Web.Certificate, c.Admin.Web.Key = "127.0.0.1:1", "three", "three"
	})
	second := p.next(t)
	if w := first().Admin.Web; w.Listen != "127.0.0.1:0" || w.Certificate != "two" {
		t.Errorf("the surface that was stopped sees %+v", w)
	}
	eventually(t, "the newest is followed", func() bool { return second().Admin.Web.Certificate == "four" })
}

// A surface that fails while it serves, or cannot start, is started again.
func TestSurfaceIsStartedAgain(t *testing.T) {
	dir, p := rig.Start(t, adminDoc).Director, newFakeSurface()
	follow(t, dir, p)
	p.next(t)
	for range 2 { // twice in a row
		p.fails <- errors.New("out of luck")
		p.next(t)
	}
	p.broken.Store(true)
	p.fails <- errors.New("once more")
	edit(t, dir, func(c *config.Config) { c.Admin.Web.Listen = "127.0.0.1:2" })
	p.broken.Store(false)
	current := p.next(t)
	eventually(t, "it is of what runs", func() bool { return current().Admin.Web.Listen == "127.0.0.1:2" })
}
