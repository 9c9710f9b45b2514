package engine_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// While an engine is paused, its sessions go on and new clients wait. They are served when it
// is resumed, also by a listener that was added meanwhile.
func TestPause(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		old := r.Dial()
		echoed(old)
		r.E.Pause()
		r.E.Pause()
		echoed(old)
		r.Apply(
			engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route},
			engine.Service{Name: "more", Listen: []string{"127.0.0.1:0"}, Route: r.Route})
		var waiting []*enginetest.Peer
		for _, ln := range r.E.Listeners() {
			for range 4 {
				c := enginetest.Dial(t, ln.Addr)
				c.Send([]byte("x"))
				waiting = append(waiting, c)
			}
		}
		for _, c := range waiting[:1] { // nothing can tell that nobody will accept: a moment has to do
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			var timeout net.Error
			if n, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("while the engine is paused: %d bytes, %v", n, err)
			}
		}
		if n := r.Stats().Sessions; n != 1 {
			t.Errorf("%d sessions were accepted, want the one before the pause", n)
		}
		r.E.Resume()
		r.E.Resume()
		for _, c := range waiting {
			c.Expect([]byte("x"))
		}
		echoed(old)
	})
}

// An engine that is resumed at the limit of sessions accepts again when there is room, also if
// there was room in between.
func TestResumeAtTheLimit(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, moves := range []bool{false, true} {
			opt.MaxSessions = 1
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			c := r.Dial()
			echoed(c)
			r.E.Pause()
			if moves { // away, and back
				m, err := r.E.MoveSessions(t.Context(), func([]engine.Moved) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				m.TakeBack()
			}
			r.E.Resume()
			echoed(c)
			next := r.Dial()
			next.Send([]byte("x"))
			_ = c.Close()
			next.Expect([]byte("x"))
		}
	})
}

// What an engine inherits is another's as well, until that leaves: a plan that fails, or that
// does not use it, ends nothing there.
func TestInheritedSocketsAreNotEnded(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, enginetest.Echo)
		old := newRig(t, opt, engine.Route{}, backend)
		unix := "unix:" + t.TempDir() + "/front.sock"
		old.Apply(
			engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: old.Route},
			engine.Service{Name: "local", Listen: []string{unix}, Route: old.Route})
		taken := enginetest.ListenOn(t, "tcp4", "127.0.0.1:0")
		defer func() { _ = taken.Close() }() // else the collector does so before
		for _, plan := range []engine.Plan{
			{Services: []engine.Service{ // fails
				{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: old.Route},
				{Name: "local", Listen: []string{unix}, Route: old.Route},
				{Name: "other", Listen: []string{taken.Addr().String()}, Route: old.Route},
			}},
			{Services: []engine.Service{{Name: "other", Listen: []string{"127.0.0.1:0"}, Route: old.Route}}}, // uses none
		} {
			sockets, err := old.E.Sockets()
			if err != nil {
				t.Fatal(err)
			}
			opt.Inherited = sockets
			e, err := opt.start(opt.Options)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Apply(plan); (err == nil) != (len(plan.Services) == 1) {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			for _, ln := range old.E.Listeners() {
				echoed(enginetest.Dial(t, ln.Addr))
			}
		}
	})
}

func echoed(p *enginetest.Peer) {
	p.T.Helper()
	p.Send([]byte("hello"))
	p.Expect([]byte("hello"))
}

// An engine that leaves finishes its sessions. Its listeners belong to another engine, which
// serves who waits in their queues; no socket is ended, and no file removed.
func TestLeave(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, enginetest.Echo)
		old := newRig(t, opt, engine.Route{}, backend)
		taken, err := old.E.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		stays := old.Dial()
		echoed(stays)
		old.E.Pause()
		var waiting []*enginetest.Peer
		for range 8 {
			c := old.Dial()
			c.Send([]byte("x"))
			waiting = append(waiting, c)
		}
		left := make(chan error, 1)
		go func() { left <- old.E.Leave(enginetest.Within(t)) }()
		testkit.Eventually(t, "the listeners are closed", func() bool { return len(old.E.Listeners()) == 0 })

		opt.Inherited = taken
		e, err := opt.start(opt.Options)
		if err != nil {
			t.Fatal(err)
		}
		next := enginetest.Start(t, e, engine.Route{}, backend)
		if next.Addr != old.Addr {
			t.Fatalf("the next engine listens on %s, not on %s", next.Addr, old.Addr)
		}
		for _, c := range waiting {
			c.Expect([]byte("x"))
		}
		echoed(stays)
		// A goroutine of the portable engine may be in the middle of an accept at the pause.
		if n := old.Stats().Active; n != 1 && (n != 2 || !strings.HasSuffix(t.Name(), "/portable")) {
			t.Errorf("the engine that leaves has %d sessions, want 1", n)
		}
		for _, c := range append(waiting, stays) {
			_ = c.Close()
		}
		if err := <-left; err != nil {
			t.Error(err)
		}
		if err := old.E.Close(); err != nil {
			t.Error(err)
		}
		c := next.Dial()
		echoed(c)
	})
}

// The portable engine moves no session, and says so.
func TestPortableSessionsStay(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		if !strings.HasSuffix(t.Name(), "/portable") {
			return
		}
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		echoed(c)
		m, err := r.E.MoveSessions(t.Context(), func([]engine.Moved) error {
			t.Error("something is moved")
			return nil
		})
		if err != nil || m.Moved != 0 || m.Stay != 1 {
			t.Errorf("moved %d, stayed %d: %v", m.Moved, m.Stay, err)
		}
		echoed(c)
		if back, lost := m.TakeBack(); back != 0 || lost != 0 {
			t.Errorf("taken back %d, lost %d", back, lost)
		}
		m.Commit()
	})
}
