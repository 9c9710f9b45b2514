package engine_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// The engine tells the scheduler how long a host takes, so that with ewma an idle client goes to
// the host that has the lower peak. How much less clients wait for that is proven where time is
// simulated: see TestEWMAAvoidsASlowHost in package sched. Here a busy machine may make any answer
// slow, so each pick is compared with what was measured just before it.
func TestEWMAFollowsWhatTheEngineMeasures(t *testing.T) {
	const decided = 50
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		var slow atomic.Int64 // what host 0 takes
		server := func(name byte) sched.Addr {
			return enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Expect([]byte("x"))
				if name == 0 {
					time.Sleep(time.Duration(slow.Load()))
				}
				p.Send([]byte{name})
				p.ExpectEOF()
			})
		}
		r := newRig(t, opt, engine.Route{})
		table := r.Table(sched.Policy{Scheduler: "ewma", Seed: 1}, server(0), server(1))
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: table, Timeouts: enginetest.TestTimeouts}})
		picks := 0 // that went past the slow host
		testkit.Eventually(t, "enough picks had a slow host to avoid", func() bool {
			began := time.Now()
			before := [2]time.Duration{r.Hosts[0].Peak(began), r.Hosts[1].Peak(began)} // which fall alike from now on
			takes := max(10*time.Millisecond, 2*before[1])
			slow.Store(int64(takes))
			c := r.Dial()
			c.Send([]byte("x"))
			var name [1]byte
			if _, err := c.Read(name[:]); err != nil {
				t.Fatal(err)
			}
			c.Fin()
			c.ExpectEOF()
			_ = c.Close()
			testkit.Eventually(t, "the session is over", func() bool { return r.Hosts[0].Sessions()+r.Hosts[1].Sessions() == 0 })
			if p := r.Hosts[0].Peak(began); name[0] == 0 && p < takes-time.Millisecond {
				t.Errorf("the peak is %v, and the host took %v", p, takes)
			}
			higher, lower := byte(0), byte(1)
			if before[1] > before[0] {
				higher, lower = 1, 0
			}
			if before[lower] == 0 || before[higher] < before[lower]+before[lower]/8 { // not measured yet, or too close to tell
				return false
			}
			if name[0] != lower {
				t.Errorf("the peaks were %v, and the client went to host %d", before, name[0])
			}
			picks += int(lower)
			return picks >= decided
		})
	})
}
