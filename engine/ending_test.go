package engine_test

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/sched"
)

// The mark of a host ends the sessions that it had, neither those that began after it
// has come back nor those that were sent to it as a last resort.
func TestEndSessionsOfAHostThatWasMarkedDown(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		host := r.Hosts[0]
		dial := func() *enginetest.Peer {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			return c
		}
		goesOn := func(c *enginetest.Peer) {
			t.Helper()
			c.Send([]byte("y"))
			c.Expect([]byte("y"))
		}
		markedDown := func() int {
			host.MarkDown()
			era := host.Era()
			return r.E.EndSessions(engine.HostDown, func(c engine.Candidate) bool {
				return c.Host == host && c.Connected && c.Before(era)
			})
		}
		first := dial()
		host.MarkDown()
		lastResort := dial()
		host.MarkUp()
		second := dial()
		stale := func(c engine.Candidate) bool { return c.Host == host && c.Before(host.Era()-1) }
		if n := r.E.EndSessions(engine.HostDown, stale); n != 1 {
			t.Errorf("%d sessions from before the mark, want 1", n)
		}
		first.ExpectGone()
		goesOn(lastResort)
		goesOn(second)
		if n := markedDown(); n != 2 { // of this era, and the last resort of the one before
			t.Errorf("%d sessions ended, want 2", n)
		}
		lastResort.ExpectGone()
		second.ExpectGone()
		third := dial()
		if n := markedDown(); n != 0 {
			t.Errorf("%d sessions ended that began when the host was down", n)
		}
		goesOn(third)
		if n := r.E.EndSessions(engine.BackupUnused, all); n != 1 {
			t.Errorf("%d sessions ended, want 1", n)
		}
		third.ExpectGone()
		r.Quiet()
		if s := r.Stats().Ended; s["DD"] != 3 || s["UD"] != 1 || s["KD"] != 0 {
			t.Errorf("endings %v", s)
		}
	})
}

// A session ends at its greatest age, at most a tenth before, whatever it is doing.
func TestMaxAge(t *testing.T) {
	const age = 500 * time.Millisecond
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.MaxAge = age
		r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			how := make([]byte, 1)
			if _, err := io.ReadFull(p, how); err != nil {
				return
			}
			if how[0] == 's' {
				for data := make([]byte, 1<<20); ; {
					if _, err := p.Write(data); err != nil {
						return
					}
				}
			}
			enginetest.Echo(p)
		}))
		var clients sync.WaitGroup
		for _, what := range []string{"silent", "talking", "stream", "half-closed"} {
			clients.Go(func() {
				began := time.Now()
				c := r.Dial()
				switch what {
				case "silent":
					c.ExpectGone()
				case "talking":
					c.Send([]byte("e"))
					for b := make([]byte, 1); ; {
						if _, err := c.Write([]byte("x")); err != nil {
							break
						}
						if _, err := io.ReadFull(c, b); err != nil {
							break
						}
					}
				case "stream":
					c.Send([]byte("s"))
					_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
				case "half-closed":
					c.Send([]byte("s"))
					c.Fin()
					_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
				}
				if took := time.Since(began); took < age*9/10 {
					t.Errorf("%s: ended after %v", what, took)
				}
			})
		}
		clients.Wait()
		r.Quiet()
		if s := r.Stats().Ended; s["PD"] != 4 {
			t.Errorf("endings %v, want 4 of PD", s)
		}
	})
}

// Sessions that are there learn of another greatest age.
func TestMaxAgeReachesSessions(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		const clients = 150 // of two slabs
		for range clients {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
		}
		apply := func(age time.Duration) {
			route := *r.Route
			route.Timeouts.MaxAge = age
			r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		}
		apply(time.Hour)
		if n := len(r.E.Sessions(0, func(string, *sched.Host) bool { return true })); n != clients {
			t.Errorf("%d sessions", n)
		}
		apply(time.Millisecond)
		r.Quiet()
		if s := r.Stats().Ended; s["PD"] != clients {
			t.Errorf("endings %v, want %d of PD", s, clients)
		}
		apply(0)
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
	})
}
