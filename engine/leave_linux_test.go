package engine_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/engine/internal/loops"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// B75: clients of a UNIX listener that come one by one are spread over the loops,
// as those of TCP are.
func TestB75UnixListenersSpreadTheirSessions(t *testing.T) {
	const clients, loops = 200, 4
	eachLoopMode(t, func(t *testing.T, opt setup) {
		opt.Loops = loops
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		path := "unix:" + t.TempDir() + "/s"
		r.Apply(engine.Service{Name: "web", Listen: []string{path}, Route: r.Route})
		for range clients {
			c := enginetest.Dial(t, path)
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
		}
		var active []int64
		sum := int64(0)
		for _, l := range r.E.Snapshot().Loops {
			active = append(active, l.Active)
			sum += l.Active
		}
		if sum != clients || slices.Max(active) > clients/loops*3/2 {
			t.Errorf("sessions by loop: %v", active)
		}
	})
}

// full is a rig with as many sessions as there may be, and clients that wait in
// the queue of a listener.
func full(t *testing.T, opt setup, listen string, waiting int) (r *enginetest.Rig, held, queued []*enginetest.Peer) {
	t.Helper()
	opt.MaxSessions = 4
	r = newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	r.Apply(engine.Service{Name: "web", Listen: []string{listen}, Route: r.Route})
	addr := r.E.Listeners()[0].Addr
	for range opt.MaxSessions {
		c := enginetest.Dial(t, addr)
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		held = append(held, c)
	}
	for range waiting {
		c := enginetest.Dial(t, addr)
		c.Send([]byte("q"))
		queued = append(queued, c)
	}
	return r, held, queued
}

// leaving returns how many sockets of listeners still serve their queues.
func leaving(r *enginetest.Rig) int { return r.E.(*loops.Engine).Leaving() }

// makeRoom ends as many sessions as clients wait, and looks that these are served.
func makeRoom(held, queued []*enginetest.Peer) {
	for i := range queued {
		_ = held[i].Close()
	}
	for _, c := range queued {
		c.Expect([]byte("q"))
		_ = c.Close()
	}
}

// At the session limit, who waits in the queue of a listener that goes is served
// as sessions end. The change does not wait for that.
func TestListenerThatGoesServesItsQueueAtTheLimit(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "unix:"} {
		t.Run(listen, func(t *testing.T) {
			eachLoopMode(t, func(t *testing.T, opt setup) {
				if listen == "unix:" {
					listen = "unix:" + t.TempDir() + "/s"
					defer func() { listen = "unix:" }()
				}
				r, held, queued := full(t, opt, listen, 3)
				clock := testkit.NewClock(t)
				r.Apply()
				if took := clock.Now(); took > 2*time.Second {
					t.Errorf("the change took %v", took)
				}
				makeRoom(held, queued)
				testkit.Eventually(t, "the sockets are closed", func() bool { return leaving(r) == 0 })
			})
		})
	}
}

// So it is while the engine drains, which waits for them; at its deadline they are
// let go.
func TestDrainServesTheQueueAtTheLimit(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		r, held, queued := full(t, opt, "127.0.0.1:0", 3)
		drained := make(chan error, 1)
		go func() { drained <- r.E.Drain(enginetest.Within(t)) }()
		testkit.Eventually(t, "the listener leaves", func() bool { return leaving(r) > 0 })
		makeRoom(held, queued)
		_ = held[3].Close()
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}

		r, _, queued = full(t, opt, "127.0.0.1:0", 3)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.E.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
		for _, c := range queued {
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a client that waits got %d bytes, %v", n, err)
			}
		}
	})
}

// A listener that went can come back while its queue is still served.
func TestListenerComesBackWhileItLeaves(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		r, held, queued := full(t, opt, "127.0.0.1:0", 1)
		addr := r.E.Listeners()[0].Addr
		r.Apply()
		r.Apply(engine.Service{Name: "web", Listen: []string{addr}, Route: r.Route})
		makeRoom(held, queued)
		for _, c := range held {
			_ = c.Close()
		}
		testkit.Eventually(t, "the old sockets are closed", func() bool { return leaving(r) == 0 })
		c := enginetest.Dial(t, addr)
		c.Send([]byte("n"))
		c.Expect([]byte("n"))
	})
}

// A crowd that goes on coming cannot keep a listener from closing: it accepts as
// many as its queue can hold. Here each session brings the next client, because
// the host is the listener itself.
func TestCrowdKeepsNoListenerOpen(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		opt.Loops, opt.Backlog = 1, 16
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		path := t.TempDir() + "/s"
		route := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{Scheduler: "roundr"}, sched.UnixAddr(path+"2"))}
		r.Apply(engine.Service{Name: "web", Listen: []string{"unix:" + path}, Route: &route})
		if err := os.Link(path, path+"2"); err != nil { // a name that stays
			t.Fatal(err)
		}
		host := r.Hosts[len(r.Hosts)-1]
		sessions := func() uint64 { return host.Stats().Picks }
		c := enginetest.Dial(t, "unix:"+path)
		testkit.Eventually(t, "the crowd is there", func() bool { return sessions() > 10 })
		r.Apply()
		before := sessions() // not earlier: those that come while this test has to wait are many
		testkit.Eventually(t, "the listener is closed", func() bool { return leaving(r) == 0 })
		if n := sessions() - before; n > 1000 {
			t.Errorf("%d sessions were accepted by a listener that goes", n)
		}
		_ = c.Close()
		testkit.Eventually(t, "all end", func() bool { return host.Stats().Active == 0 })
	})
}
