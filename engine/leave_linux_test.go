//go:build !portable

package engine

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// B75: clients of a UNIX listener that come one by one are spread over the loops,
// as those of TCP are.
func TestB75UnixListenersSpreadTheirSessions(t *testing.T) {
	const clients, loops = 200, 4
	eachMode(t, func(t *testing.T, opt Options) {
		opt.Loops = loops
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		path := "unix:" + t.TempDir() + "/s"
		r.apply(Service{Name: "web", Listen: []string{path}, Route: r.route})
		for range clients {
			c := dial(t, path)
			c.send([]byte("x"))
			c.expect([]byte("x"))
		}
		var active []int64
		sum := int64(0)
		for _, l := range r.e.Snapshot().Loops {
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
func full(t *testing.T, opt Options, listen string, waiting int) (r *rig, held, queued []*peer) {
	t.Helper()
	opt.MaxSessions = 4
	r = newRig(t, opt, Route{}, backendServer(t, echo))
	r.apply(Service{Name: "web", Listen: []string{listen}, Route: r.route})
	addr := r.e.Listeners()[0].Addr
	for range opt.MaxSessions {
		c := dial(t, addr)
		c.send([]byte("x"))
		c.expect([]byte("x"))
		held = append(held, c)
	}
	for range waiting {
		c := dial(t, addr)
		c.send([]byte("q"))
		queued = append(queued, c)
	}
	return r, held, queued
}

// makeRoom ends as many sessions as clients wait, and looks that these are served.
func makeRoom(held, queued []*peer) {
	for i := range queued {
		_ = held[i].Close()
	}
	for _, c := range queued {
		c.expect([]byte("q"))
		_ = c.Close()
	}
}

// At the session limit, who waits in the queue of a listener that goes is served
// as sessions end. The change does not wait for that.
func TestListenerThatGoesServesItsQueueAtTheLimit(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "unix:"} {
		t.Run(listen, func(t *testing.T) {
			eachMode(t, func(t *testing.T, opt Options) {
				if listen == "unix:" {
					listen = "unix:" + t.TempDir() + "/s"
					defer func() { listen = "unix:" }()
				}
				r, held, queued := full(t, opt, listen, 3)
				start := time.Now()
				r.apply()
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("the change took %v", took)
				}
				makeRoom(held, queued)
				eventually(t, "the sockets are closed", func() bool { return r.e.leavers.Load() == 0 })
			})
		})
	}
}

// So it is while the engine drains, which waits for them; at its deadline they are
// let go.
func TestDrainServesTheQueueAtTheLimit(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r, held, queued := full(t, opt, "127.0.0.1:0", 3)
		drained := make(chan error, 1)
		go func() { drained <- r.e.Drain(within(t)) }()
		eventually(t, "the listener leaves", func() bool { return r.e.leavers.Load() > 0 })
		makeRoom(held, queued)
		_ = held[3].Close()
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}

		r, _, queued = full(t, opt, "127.0.0.1:0", 3)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.e.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
		for _, c := range queued {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a client that waits got %d bytes, %v", n, err)
			}
		}
	})
}

// A listener that went can come back while its queue is still served.
func TestListenerComesBackWhileItLeaves(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r, held, queued := full(t, opt, "127.0.0.1:0", 1)
		addr := r.e.Listeners()[0].Addr
		r.apply()
		r.apply(Service{Name: "web", Listen: []string{addr}, Route: r.route})
		makeRoom(held, queued)
		for _, c := range held {
			_ = c.Close()
		}
		eventually(t, "the old sockets are closed", func() bool { return r.e.leavers.Load() == 0 })
		c := dial(t, addr)
		c.send([]byte("n"))
		c.expect([]byte("n"))
	})
}

// A crowd that goes on coming cannot keep a listener from closing: it accepts as
// many as its queue can hold. Here each session brings the next client, because
// the host is the listener itself.
func TestCrowdKeepsNoListenerOpen(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		opt.Loops, opt.Backlog = 1, 16
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		path := t.TempDir() + "/s"
		route := Route{Timeouts: testTimeouts, Table: r.table(sched.Policy{Scheduler: "roundr"}, sched.UnixAddr(path+"2"))}
		r.apply(Service{Name: "web", Listen: []string{"unix:" + path}, Route: &route})
		if err := os.Link(path, path+"2"); err != nil { // a name that stays
			t.Fatal(err)
		}
		svc := r.e.serving.Load().services["web"]
		sessions := func() uint64 { return svc.counts[0].sessions.Load() }
		c := dial(t, "unix:"+path)
		eventually(t, "the crowd is there", func() bool { return sessions() > 10 })
		before := sessions()
		r.apply()
		// Some come before the loop is told.
		if n := sessions() - before; n > 1000 {
			t.Errorf("%d sessions were accepted by a listener that goes", n)
		}
		_ = c.Close()
		eventually(t, "all end", func() bool { return svc.counts[0].active.Load() == 0 })
	})
}
