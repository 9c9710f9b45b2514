package engine_test

import (
	"net"
	"os"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// A UNIX listener that goes leaves a file that has taken the place of its own.
func TestListenerLeavesItsSuccessorsFile(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		for name, goes := range map[string]func(*enginetest.Rig){
			"by a change": func(r *enginetest.Rig) { r.Apply() },
			"by a drain": func(r *enginetest.Rig) {
				if err := r.E.Drain(enginetest.Within(r.T)); err != nil {
					r.T.Error(err)
				}
			},
			"at the end": func(r *enginetest.Rig) {
				if err := r.E.Close(); err != nil {
					r.T.Error(err)
				}
			},
		} {
			for _, replaced := range []bool{true, false} {
				path := t.TempDir() + "/s"
				r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
				r.Apply(engine.Service{Name: "web", Listen: []string{"unix:" + path}, Route: r.Route})
				if replaced {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
					enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", path), enginetest.Echo)
				}
				goes(r)
				c, err := net.Dial("unix", path)
				if err == nil {
					_ = c.Close()
				}
				if _, missing := os.Lstat(path); (err == nil) != replaced || (missing == nil) != replaced {
					t.Errorf("%s, replaced %v: %v, %v", name, replaced, err, missing)
				}
			}
		}
	})
}

// At the session limit, a client that was accepted already when its listener goes
// is served as soon as there is room.
func TestClientAtTheLimitOutlivesItsListener(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		opt.MaxSessions = 1
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		first := r.Dial()
		first.Send([]byte("x"))
		first.Expect([]byte("x"))
		before := testkit.OpenFDs()
		second := r.Dial()
		second.Send([]byte("y"))
		// The portable engine holds it in its hands, the loops leave it in the queue.
		if len(r.E.Snapshot().Loops) == 0 {
			testkit.Eventually(t, "it is accepted", func() bool { return testkit.OpenFDs() == before+2 })
		}
		r.Apply()
		_ = first.Close()
		second.Expect([]byte("y"))
	})
}
