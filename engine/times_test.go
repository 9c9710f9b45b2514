package engine_test

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
)

// Connects that succeed and sessions that had a host are counted with the time
// they took; a host that refuses counts for neither.
func TestTimesOfConnectsAndSessions(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo))
		const stay = 60 * time.Millisecond
		began := time.Now()
		var there time.Time // the first session
		for i := range 2 {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			if i == 0 {
				there = time.Now()
			}
			if n := r.Hosts[1].Times().Sessions().Count(); n != 0 && i == 0 {
				t.Errorf("%d sessions are counted before they ended", n)
			}
			for time.Since(there) < stay {
				c.Send([]byte("x"))
				c.Expect([]byte("x"))
			}
			_ = c.Close()
		}
		r.Quiet()
		answering := r.Hosts[1].Times() // those of its group: what refuses counts nothing there
		connects, sessions := answering.Connects(), answering.Sessions()
		if connects.Count() != 2 || connects.Sum < 0 || connects.Sum > time.Since(began) {
			t.Errorf("%d connects in %v, want 2", connects.Count(), connects.Sum)
		}
		if s := r.Hosts[1].Stats(); s.Connects != 2 || s.ConnectTime != connects.Sum {
			t.Errorf("the host has %d connects in %v, its group %v", s.Connects, s.ConnectTime, connects.Sum)
		}
		if sessions.Count() != 2 || sessions.Sum < stay-10*time.Millisecond || sessions.Sum > 2*time.Since(began) {
			t.Errorf("%d sessions in %v, want 2 in about %v", sessions.Count(), sessions.Sum, stay)
		}
	})
}
