package director

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
)

// A check that failed long after its time was over proves nothing: the process
// stood still. The next one comes at once. A second such failure in a row counts,
// for a process that is always late has to find its dead hosts too.
func TestB66LateCheckProvesNothing(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, problems := config.Parse("c.xml", []byte(checked(`interval="10s" fall="1" rise="1"`, "")))
		if c == nil {
			t.Fatal(problems)
		}
		const addr = "10.0.0.1:80"
		var late atomic.Int64 // of the failures of addr; 0: it passes
		d := startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
			r := w.probe(ctx, p)
			if l := late.Load(); l > 0 && p.Addr.String() == addr {
				r = health.Result{Code: health.L7Tout, Text: "no answer", Late: time.Duration(l)}
			}
			return r
		})
		a := target(t, d, "g", "a", 0)
		w.nextProbe(t, addr)
		if s := a.Status(); !s.Up || s.Progress() != "" {
			t.Fatalf("after the first check: %+v", s)
		}
		late.Store(int64(2 * tooLate))
		discarded := w.nextProbe(t, addr)
		if s := a.Status(); !s.Up || s.Check.Code != health.L4OK {
			t.Errorf("after a late check: %+v", s)
		}
		late.Store(0)
		if again := w.nextProbe(t, addr); again.Sub(discarded) > 2*coarse {
			t.Errorf("the check was repeated after %v", again.Sub(discarded))
		}
		late.Store(int64(2 * tooLate))
		w.nextProbe(t, addr)
		if !a.Status().Up {
			t.Error("a late check counts after one that was in time")
		}
		w.nextProbe(t, addr)
		if a.Status().Up {
			t.Error("the second late check in a row does not count")
		}
		if n := strings.Count(w.log.String(), "checks discarded"); n != 2 {
			t.Errorf("the log tells of discarded checks %d times", n)
		}
	})
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, _ := config.Parse("c.xml", []byte(checked(`interval="10s" fall="1" rise="1"`, "")))
		d := startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
			w.probe(ctx, p)
			return health.Result{Code: health.L7Tout, Late: tooLate / 2}
		})
		w.nextProbe(t, "10.0.0.1:80")
		if target(t, d, "g", "a", 0).Status().Up {
			t.Error("a check that was a moment late does not count")
		}
	})
}

// standing is a resolver in a process that stands still during its first look-up.
type standing struct {
	*world
	stood bool
}

func (r *standing) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if !r.stood {
		r.stood = true
		time.Sleep(lookupTimeout + time.Second)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return r.world.LookupNetIP(ctx, network, host)
}

// A look-up that failed long after its time was over is made once more.
func TestB66LateLookupIsRepeated(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db.example", "10.0.0.1")
		d := &Director{looked: make(chan lookup, 1)}
		d.lookUp(t.Context(), &source{resolver: &standing{world: w}}, "db.example", nil)
		if l := <-d.looked; l.err != nil || len(l.ends) != 1 {
			t.Errorf("the look-up ended with %v, %v", l.ends, l.err)
		}
	})
}
