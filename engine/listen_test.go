package engine

import (
	"net"
	"os"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// A UNIX listener that goes leaves a file that has taken the place of its own.
func TestListenerLeavesItsSuccessorsFile(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		for name, goes := range map[string]func(*rig){
			"by a change": func(r *rig) { r.apply() },
			"by a drain": func(r *rig) {
				if err := r.e.Drain(within(r.t)); err != nil {
					r.t.Error(err)
				}
			},
			"at the end": func(r *rig) {
				if err := r.e.Close(); err != nil {
					r.t.Error(err)
				}
			},
		} {
			for _, replaced := range []bool{true, false} {
				path := t.TempDir() + "/s"
				r := newRig(t, opt, Route{}, backendServer(t, echo))
				r.apply(Service{Name: "web", Listen: []string{"unix:" + path}, Route: r.route})
				if replaced {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
					serveOn(t, listenOn(t, "unix", path), echo)
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
	eachMode(t, func(t *testing.T, opt Options) {
		opt.MaxSessions = 1
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		first := r.dial()
		first.send([]byte("x"))
		first.expect([]byte("x"))
		before := testkit.OpenFDs()
		second := r.dial()
		second.send([]byte("y"))
		// The portable engine holds it in its hands, the loops leave it in the queue.
		if len(r.e.Snapshot().Loops) == 0 {
			eventually(t, "it is accepted", func() bool { return testkit.OpenFDs() == before+2 })
		}
		r.apply()
		_ = first.Close()
		second.expect([]byte("y"))
	})
}
