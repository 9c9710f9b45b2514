package engine_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
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

// Each listener that cannot be opened has an error of its own, and nothing else is changed.
func TestListenErrors(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		taken, path := enginetest.ListenOn(t, "tcp", "127.0.0.1:0"), t.TempDir()+"/s"
		defer func() { _ = taken.Close() }()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		addr := taken.Addr().String()
		before := r.E.Listeners()
		err := r.E.Apply(engine.Plan{Services: []engine.Service{
			{Name: "web", Listen: []string{"127.0.0.1:0", addr}, Route: r.Route},
			{Name: "mail", Listen: []string{"unix:" + path}, Route: r.Route},
		}})
		joined, is := err.(interface{ Unwrap() []error })
		if !is {
			t.Fatalf("%T %v", err, err)
		}
		got := map[string]string{}
		for _, err := range joined.Unwrap() {
			one := (*engine.ListenError)(nil)
			if !errors.As(err, &one) {
				t.Fatalf("%T %v", err, err)
			}
			got[one.Service+" "+one.Listen] = err.Error()
		}
		if len(got) != 2 || !strings.HasPrefix(got["web "+addr], `service "web": listen on `+addr) || !strings.HasPrefix(got["mail unix:"+path], `service "mail": listen on unix:`+path) {
			t.Errorf("errors %q", got)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("not about a port in use: %v", err)
		}
		if after := r.E.Listeners(); !slices.Equal(after, before) {
			t.Errorf("listeners %v, then %v", before, after)
		}
	})
}
