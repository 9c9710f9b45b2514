package director

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// counts are the counters of a host that may not fall.
type counts struct{ picks, failures, in, out, probes uint64 }

func countsOf(h *Host) counts {
	s := h.Stats()
	c := counts{s.Picks, s.Failures, s.In, s.Out, 0}
	for _, n := range h.Checks() {
		c.probes += n
	}
	return c
}

// watchCounts returns a function that lets time go by and fails when a counter of
// the first host falls.
func watchCounts(t *testing.T, d *Director) func(time.Duration) counts {
	was := countsOf(only(d, 0))
	return func(wait time.Duration) counts {
		t.Helper()
		for ; wait > 0; wait -= 500 * time.Millisecond {
			pass(min(wait, 500*time.Millisecond))
			is := countsOf(only(d, 0))
			if is.picks < was.picks || is.failures < was.failures || is.in < was.in || is.out < was.out || is.probes < was.probes {
				t.Fatalf("counters fell from %+v to %+v", was, is)
			}
			was = is
		}
		return was
	}
}

// pickOf takes a session from the table that runs, and gives it bytes.
func pickOf(w *world) *sched.Host {
	h, _ := w.lastPlan().Services[0].Route.Table.Pick(sched.Addr{}, new(sched.Tried))
	h.AddBytes(3, 5)
	return h
}

// B68: a name drops an address for a moment. When it comes back, its health is
// what it was: down, until checks have passed. Its counters never left.
func TestB68HealthSurvivesAnAddressThatComesBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.0.0.1", "10.0.0.2")
		d := start(t, w, group(`<check interval="2s" rise="2" fall="2"/><host name="a" ip="db:80" resolve="1s"/>`))
		wait := watchCounts(t, d)
		sick := target(t, d, "g", "a", 0)
		w.set(w.dead, "10.0.0.1:80", true)
		for range 10 {
			pickOf(w).Release(0, 0)
		}
		if wait(10 * time.Second); sick.Status().Up {
			t.Fatal("the sick address is up")
		}
		since := sick.Status().Since
		picked := sick.Host.Stats().Picks

		w.resolves("db", "10.0.0.2")
		wait(2500 * time.Millisecond)
		if h := only(d, 0); shown(h) != "10.0.0.2:80*1" || len(h.Leaving()) != 0 {
			t.Fatalf("targets %s, %d leave", shown(h), len(h.Leaving()))
		}
		w.resolves("db", "10.0.0.1", "10.0.0.2")
		for range 150 { // longer than the checks take that would find it sick
			wait(100 * time.Millisecond)
			pickOf(w).Release(0, 0)
		}
		h := only(d, 0)
		if len(h.Targets) != 2 || h.Targets[0] != sick || !sick.Status().Since.Equal(since) || sick.Host.Stats().Picks != picked {
			t.Errorf("targets %s; the one that came back: %+v, %+v", shown(h), sick.Status(), sick.Host.Stats())
		}
		// It passes its checks now, all of them.
		w.set(w.dead, "10.0.0.1:80", false)
		wait(1500 * time.Millisecond) // less than any interval: one check at most
		if sick.Status().Up {
			t.Error("one check that passed was enough")
		}
		wait(3 * time.Second)
		if !sick.Status().Up {
			t.Error("the address is not up again")
		}
	})
}

// Health is kept for a time that has an end, and counters without one.
func TestB68HealthIsForgottenAndCountersAreNot(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.0.0.1")
		d := start(t, w, group(`<check/><host name="a" ip="db:80" resolve="1s"/>`))
		wait := watchCounts(t, d)
		old := target(t, d, "g", "a", 0)
		session := pickOf(w)
		w.fail(old)
		w.set(w.dead, "10.0.0.1:80", true)
		w.resolves("db", "10.0.0.2")
		wait(2 * time.Second)
		wait(rememberFor + time.Minute)
		if h := only(d, 0); len(h.Leaving()) != 1 || len(h.departed) != 1 {
			t.Errorf("%d targets leave, of %d", len(h.Leaving()), len(h.departed))
		}
		session.Release(7, 11)
		before := wait(2 * time.Second)
		h := only(d, 0)
		if len(h.departed) != 0 || before.picks != 1 || before.failures != 1 || before.in != 10 || before.out != 16 {
			t.Errorf("%d targets are kept; counts %+v", len(h.departed), before)
		}
		w.resolves("db", "10.0.0.1")
		wait(1200 * time.Millisecond)
		if h := only(d, 0); shown(h) != "10.0.0.1:80*1" || h.Targets[0] == old {
			t.Errorf("targets %s; the old one: %v", shown(h), h.Targets[0] == old)
		}
		wait(time.Minute)
	})
}

// An operator gives a host another address: its counters and sessions stay the
// host's, its health starts again, also if it is an address that it had before.
func TestB68AddressOfAnOperator(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.set(w.dead, "10.0.0.1:80", true)
		d := start(t, w, group(`<host name="a" ip="10.0.0.1:80" weight="3"/><host name="b" ip="10.0.0.9:80"/>`))
		wait := watchCounts(t, d)
		move := func(to string) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: address(0, to)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		first := target(t, d, "g", "a", 0)
		one, two := pickOf(w), pickOf(w)
		w.fail(first)
		move("10.0.0.2:80")
		h := only(d, 0)
		if s := h.Stats(); !h.Up() || s.Active != 2 || s.Picks != 2 || s.Failures != 1 || len(h.Leaving()) != 1 || h.Leaving()[0] != first {
			t.Errorf("up %v, counts %+v, %d leave", h.Up(), s, len(h.Leaving()))
		}
		// Back, while both sessions run: neither is the address down still, nor do
		// its earlier sessions and its new ones get mixed up.
		move("10.0.0.1:80")
		h = only(d, 0)
		if s := h.Stats(); h.Targets[0] == first || !h.Up() || s.Active != 2 || s.Picks != 2 {
			t.Errorf("the old target %v, up %v, counts %+v", h.Targets[0] == first, h.Up(), s)
		}
		three := pickOf(w)
		if s := h.Stats(); s.Active != 3 {
			t.Errorf("%d sessions", s.Active)
		}
		// A change that is refused changes none of this.
		w.refuse = fmt.Errorf("no")
		if _, err := d.Do(t.Context(), Change{Apply: address(0, "10.0.0.3:80")}); err == nil {
			t.Error("the change was made")
		}
		w.refuse = nil
		for _, s := range []*sched.Host{one, two, three} {
			s.Release(0, 0)
		}
		got := wait(5 * time.Second)
		h = only(d, 0)
		if len(h.departed) != 0 || got.picks != 3 || got.in != 9 || h.Stats().Active != 0 {
			t.Errorf("%d targets are kept; counts %+v", len(h.departed), got)
		}
		// A name is an address too, even where it stands for the same one.
		w.resolves("db", "10.0.0.1")
		now := h.Targets[0]
		w.fail(now)
		move("db:80")
		if h := only(d, 0); !h.Up() || h.Targets[0] == now || h.Stats().Failures != 2 {
			t.Errorf("up %v, the old target %v, %+v", h.Up(), h.Targets[0] == now, h.Stats())
		}
		wait(5 * time.Second)
	})
}

// A name may stand for another address each time. A host keeps the health of some
// of them, and the counters of all.
func TestB68ManyAddressesAreBounded(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.1.0.0")
		d := start(t, w, group(`<host name="a" ip="db:80" resolve="1s"/>`))
		wait := watchCounts(t, d)
		const many = maxDeparted + 60
		sessions := 0
		for i := range many {
			w.resolves("db", fmt.Sprintf("10.1.%d.%d", i>>8, i&255))
			wait(1100 * time.Millisecond)
			pickOf(w).Release(0, 0)
			sessions++
		}
		wait(3 * time.Second)
		h := only(d, 0)
		if n := len(h.departed); n != maxDeparted {
			t.Errorf("%d targets are kept", n)
		}
		if got := countsOf(h); got.picks != uint64(sessions) || got.in != 3*uint64(sessions) {
			t.Errorf("counts %+v of %d sessions", got, sessions)
		}
		w.resolves("db", "10.2.0.1")
		wait(rememberFor + 5*time.Second)
		if n := len(only(d, 0).departed); n != 0 {
			t.Errorf("%d targets are still kept", n)
		}
	})
}
