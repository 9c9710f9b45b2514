package engine_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Many loops share services, hosts, limits and listeners. The race detector looks at them
// while plans change, listeners come and go, and sessions are listed and ended.
func TestManyLoops(t *testing.T) {
	const loops, clients = 64, 72
	for scheduler, opt := range map[string]engine.Options{
		"leastc": {Loops: loops},
		"roundr": {Loops: loops, Ring: engine.RingOff, Steer: true, MaxSessions: clients + 8},
	} {
		t.Run(scheduler, func(t *testing.T) { manyLoops(t, opt, scheduler, clients) })
	}
}

func manyLoops(t *testing.T, opt engine.Options, scheduler string, clients int) {
	r := newRig(t, setup{opt, toRing}, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	backends := []sched.Addr{enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo)}
	plan := func(more ...string) {
		route := *r.Route
		route.Table = r.Table(sched.Policy{Scheduler: scheduler}, backends...)
		r.Apply(engine.Service{Name: "web", Listen: append([]string{"127.0.0.1:0"}, more...), Route: &route})
	}
	plan()
	var running sync.WaitGroup
	begun := make(chan struct{}, clients)
	for i := range clients {
		running.Go(func() {
			defer func() { begun <- struct{}{} }() // also where the client fails
			c := r.Dial()
			data := enginetest.Payload(100+i*7, uint64(i))
			for range 3 {
				c.Send(data)
				c.Expect(data)
			}
			c.Fin()
			c.ExpectEOF()
		})
	}
	for n := 0; n < clients; n++ {
		<-begun
		switch n % 24 {
		case 0:
			plan("127.0.0.2:0")
		case 8:
			plan()
		case 16:
			_ = r.E.Sessions(10, func(string, *sched.Host) bool { return true })
		}
	}
	running.Wait()
	testkit.Eventually(t, "all sessions have ended", func() bool { return r.Stats().Active == 0 })
	picks := uint64(0)
	for _, h := range r.Hosts {
		picks += h.Stats().Picks
	}
	if n := r.Stats().Sessions; n != uint64(clients) || picks != n {
		t.Errorf("%d sessions, %d picks of %d clients", n, picks, clients)
	}
	held := r.Dial()
	held.Send([]byte("x"))
	held.Expect([]byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.E.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	held.ExpectGone()
}
