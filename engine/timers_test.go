package engine_test

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// Sessions that are there learn of other time-outs, whether both sides are open
// or one has ended, and whether there was a time-out before.
func TestB76ShorterIdleTimeReachesSessions(t *testing.T) {
	const short = 300 * time.Millisecond
	for name, test := range map[string]struct {
		before, after engine.Timeouts
		half          bool
		ended         string
	}{
		"idle":                     {engine.Timeouts{Idle: time.Hour, HalfClosed: time.Hour}, engine.Timeouts{Idle: short, HalfClosed: time.Hour}, false, "cD"},
		"idle, none before":        {engine.Timeouts{}, engine.Timeouts{Idle: short}, false, "cD"},
		"half-closed":              {engine.Timeouts{Idle: time.Hour, HalfClosed: time.Hour}, engine.Timeouts{Idle: time.Hour, HalfClosed: short}, true, "sD"},
		"half-closed, none before": {engine.Timeouts{}, engine.Timeouts{HalfClosed: short}, true, "sD"},
	} {
		t.Run(name, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				var ends atomic.Int64 // that the backend has got
				over := make(chan struct{})
				times := test.before
				times.Connect = testkit.Patience
				r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					p.Expect([]byte("x"))
					p.Send([]byte("y"))
					_, _ = io.Copy(io.Discard, p)
					ends.Add(1)
					<-over
				}))
				t.Cleanup(func() { close(over) })
				const clients = 150 // of two slabs
				var all []*enginetest.Peer
				for range clients {
					c := r.Dial()
					c.Send([]byte("x"))
					c.Expect([]byte("y"))
					if test.half {
						c.Fin()
					}
					all = append(all, c)
				}
				testkit.Eventually(t, "the ends are passed on", func() bool { return !test.half || ends.Load() == clients })
				route := *r.Route
				route.Timeouts.Idle, route.Timeouts.HalfClosed = test.after.Idle, test.after.HalfClosed
				clock := testkit.NewClock(t)
				r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
				r.Quiet()
				if took := clock.Now(); took > short+5*time.Second { // far less than the time-outs before
					t.Errorf("the last session ended %v after the change", took)
				}
				if s := r.Stats(); s.Ended[test.ended] != clients {
					t.Errorf("endings %v, want %d of %s", s.Ended, clients, test.ended)
				}
				for _, c := range all {
					_ = c.Close()
				}
			})
		})
	}
}
