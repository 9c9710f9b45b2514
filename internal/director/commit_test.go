package director

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// court is an Options.Commit that a test answers.
type court struct {
	asked  chan Proposal
	answer chan verdict
}

func newCourt() *court { return &court{make(chan Proposal, 1), make(chan verdict)} }

func (c *court) commit(_ context.Context, p Proposal) (uint64, error) {
	c.asked <- p
	v := <-c.answer
	return v.generation, v.err
}

// governed starts a director that asks a court.
func governed(t *testing.T, w *world) (*Director, *court, func()) {
	t.Helper()
	cfg, problems := config.Parse("c.xml", []byte(with("")))
	if cfg == nil {
		t.Fatal(problems)
	}
	c := newCourt()
	d, err := New(cfg, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Commit: c.commit, Generation: 40})
	if err != nil {
		t.Fatal(err)
	}
	return d, c, runDirector(t, d)
}

// The court's word counts: its generation, or its error, and nothing is made before.
func TestCommitDecides(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, court, _ := governed(t, w)
		done := make(chan answer, 1)
		do := func(c Change) {
			g, err := d.Do(t.Context(), c)
			done <- answer{generation: g, err: err}
		}
		before := d.State()
		go do(Change{By: "me", Verb: "v", Apply: address(0, "10.0.0.7:80")})
		p := <-court.asked
		if p.Generation != 40 || p.By != "me" || p.Verb != "v" || p.Was != before.Config || p.Next.Services[0].Groups[0].Hosts[0].Address != "10.0.0.7:80" {
			t.Errorf("asked about %+v", p)
		}
		w.fail(target(t, d, "g", "c", 0)) // life goes on
		synctest.Wait()
		if d.State() != before {
			t.Error("made before it was accepted")
		}
		plans := len(w.plans)
		court.answer <- verdict{generation: 57}
		if a := <-done; a.err != nil || a.generation != 57 || d.State().Generation != 57 || len(w.plans) == plans {
			t.Errorf("%+v, generation %d", a, d.State().Generation)
		}

		before = d.State()
		no := errors.New("no")
		go do(Change{Apply: address(0, "10.0.0.8:80")})
		<-court.asked
		court.answer <- verdict{err: no}
		if a := <-done; !errors.Is(a.err, no) || d.State() != before {
			t.Errorf("%+v", a)
		}

		// A dry run asks nobody, and neither does what others have accepted.
		if _, err := d.Do(t.Context(), Change{DryRun: true, Apply: address(0, "10.0.0.8:80")}); err != nil {
			t.Error(err)
		}
		if g, err := d.Do(t.Context(), Change{Given: 99, Apply: address(0, "10.0.0.9:80")}); err != nil || g != 99 || d.State().Generation != 99 {
			t.Errorf("generation %d, %v", g, err)
		}
	})
}

// What has been sent to the court is not dropped by this process: not when the caller gives
// up, not when changes are refused, and not when Run ends.
func TestCommitIsAwaited(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, court, stop := governed(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan answer, 1)
		do := func(ctx context.Context) {
			g, err := d.Do(ctx, Change{Apply: address(0, "10.0.0.7:80")})
			done <- answer{generation: g, err: err}
		}
		go do(ctx)
		<-court.asked
		cancel()
		frozen := make(chan func())
		go func() { frozen <- d.Freeze(errors.New("cold")) }()
		time.Sleep(2 * longestWait)
		select {
		case <-frozen:
			t.Error("Freeze has not waited")
		default:
		}
		court.answer <- verdict{generation: 41}
		if a := <-done; a.err != nil || a.generation != 41 || d.State().Generation != 41 {
			t.Errorf("%+v", a)
		}
		(<-frozen)()

		go func() {
			g, err := d.Do(t.Context(), Change{Apply: address(1, "10.0.0.7:80")})
			done <- answer{generation: g, err: err}
		}()
		<-court.asked
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		synctest.Wait()
		court.answer <- verdict{generation: 42}
		<-stopped
		if a := <-done; !errors.Is(a.err, ErrStopped) || !strings.Contains(a.err.Error(), "accepted as generation 42") {
			t.Errorf("%+v", a)
		}
	})
}

// A port in use is found before other nodes are asked to open it.
func TestCommitNeedsThePort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	one := func(addresses ...string) *config.Config {
		c, s := config.New(), config.NewService("web")
		for _, a := range addresses {
			s.Listen = append(s.Listen, config.Listen{Address: a})
		}
		c.Services = append(c.Services, s)
		return c
	}
	taken := ln.Addr().String()
	if err := portsFree(one("unix:/x"), one("unix:/x", "unix:/y", taken)); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), `service "web": listen on `+taken) {
		t.Errorf("a port in use: %v", err)
	}
	// A listener that moves to another address of its port, and one that stays, are no matter.
	_, port, _ := net.SplitHostPort(taken)
	if err := portsFree(one(taken), one(taken, "127.0.0.2:"+port)); err != nil {
		t.Error(err)
	}
	if err := portsFree(one("unix:/x"), one("unix:/x", "127.0.0.1:0", "*:0")); err != nil {
		t.Error(err)
	}
}
