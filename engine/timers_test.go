package engine

import (
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// Sessions that are there learn of other time-outs, whether both sides are open
// or one has ended, and whether there was a time-out before.
func TestB76ShorterIdleTimeReachesSessions(t *testing.T) {
	const short = 300 * time.Millisecond
	for name, test := range map[string]struct {
		before, after Timeouts
		half          bool
		ended         string
	}{
		"idle":                     {Timeouts{Idle: time.Hour, HalfClosed: time.Hour}, Timeouts{Idle: short, HalfClosed: time.Hour}, false, "cD"},
		"idle, none before":        {Timeouts{}, Timeouts{Idle: short}, false, "cD"},
		"half-closed":              {Timeouts{Idle: time.Hour, HalfClosed: time.Hour}, Timeouts{Idle: time.Hour, HalfClosed: short}, true, "sD"},
		"half-closed, none before": {Timeouts{}, Timeouts{HalfClosed: short}, true, "sD"},
	} {
		t.Run(name, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt Options) {
				var ends atomic.Int64 // that the backend has got
				over := make(chan struct{})
				times := test.before
				times.Connect = patience
				r := newRig(t, opt, Route{Timeouts: times}, backendServer(t, func(p *peer) {
					p.expect([]byte("x"))
					p.send([]byte("y"))
					_, _ = io.Copy(io.Discard, p)
					ends.Add(1)
					<-over
				}))
				t.Cleanup(func() { close(over) })
				const clients = 150 // of two slabs
				var all []*peer
				for range clients {
					c := r.dial()
					c.send([]byte("x"))
					c.expect([]byte("y"))
					if test.half {
						c.fin()
					}
					all = append(all, c)
				}
				eventually(t, "the ends are passed on", func() bool { return !test.half || ends.Load() == clients })
				route := *r.route
				route.Timeouts.Idle, route.Timeouts.HalfClosed = test.after.Idle, test.after.HalfClosed
				start := time.Now()
				r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
				r.quiet()
				if took := time.Since(start); took > short+time.Second {
					t.Errorf("the last session ended %v after the change", took)
				}
				if s := r.stats(); s.Ended[test.ended] != clients {
					t.Errorf("endings %v, want %d of %s", s.Ended, clients, test.ended)
				}
				for _, c := range all {
					_ = c.Close()
				}
			})
		})
	}
}
