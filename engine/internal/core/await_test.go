package core

import (
	"syscall"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// A client whose connect has taken the only host down waits for it, also if the host is up again
// before the client has looked for another, and whatever the tries are.
func TestB79HostComesBackBeforeTheNextPick(t *testing.T) {
	for _, tries := range []int{0, 1} {
		h := sched.NewHostIn(new(sched.Times), "a", sched.Addr{})
		table, err := sched.NewTable(sched.Policy{Scheduler: "roundr", Await: true}, []sched.Member{{Host: h, Weight: 1}})
		if err != nil {
			t.Fatal(err)
		}
		svc := newService("web", 1)
		svc.Route.Store(&engine.Route{Table: table, Tries: tries})
		g := Gate{Report: func(engine.Failure) {}}
		var a Admission
		a.Begin(&g, newEntry(svc, engine.ListenOptions{}), new(Attempt), sched.Addr{}, 1)
		for try := range 3 {
			step := a.Next(1)
			if step.Do == Queue {
				a.Join(1, func() {})
				step = a.Called(1)
			}
			if step.Do != Connect {
				t.Fatalf("%d tries, try %d: %+v", tries, try, step)
			}
			if step = a.Answered(1, syscall.ECONNREFUSED); step.Do != Retry || h.Up() {
				t.Fatalf("%d tries, try %d: %+v", tries, try, step)
			}
			h.MarkUp()
		}
		a.End(1, Normal, Last{})
		if n := h.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	}
}
