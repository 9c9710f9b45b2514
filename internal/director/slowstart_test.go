package director

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// slow is two hosts with a slow start of 20 s.
func slow(scheduler string, weightA, weightB int) string {
	return fmt.Sprintf(`<config><service name="web"><listen ip=":1"/><group name="g" scheduler="%s"><check interval="1s" rise="1" fall="1"/>
		<host name="a" ip="10.0.0.1:80" weight="%d" slowStart="20s"/><host name="b" ip="10.0.0.2:80" weight="%d" slowStart="20s"/></group></service></config>`,
		scheduler, weightA, weightB)
}

// share returns how many of n picks go to host a; the sessions end at once, or
// stay.
func (w *world) share(n int, stay bool) int {
	table := w.lastPlan().Services[0].Route.Table
	got := 0
	var open []*sched.Host
	for range n {
		var tried sched.Tried
		h, _ := table.Pick(sched.Addr{}, &tried)
		if h.Name() == "a" {
			got++
		}
		if stay {
			open = append(open, h)
		} else {
			h.Release(0, 0)
		}
	}
	for _, h := range open {
		h.Release(0, 0)
	}
	return got
}

// B43: a host that has come back takes its share little by little, in a
// straight line, with every scheduler and every weight; one that is there from
// the start has its share at once.
func TestB43SlowStart(t *testing.T) {
	testkit.Long(t)
	for _, test := range []struct {
		scheduler        string
		weightA, weightB int
		exact, stay      bool
	}{
		{"weightrr", 1, 1, true, false}, {"weightrr", 3, 1, true, false}, {"roundr", 1, 1, true, false}, {"roundr", 7, 1, true, false},
		{"weightlc", 1, 1, false, true}, {"leastc", 1, 1, false, true}, {"leastc", 9, 1, false, true}, {"p2c", 1, 1, false, true},
		{"rand", 1, 1, false, false}, {"weightr", 60000, 30000, false, false},
		{"maglev", 3, 1, false, false}, {"roundr,sticky", 1, 1, true, false},
	} {
		t.Run(fmt.Sprintf("%s %d to %d", test.scheduler, test.weightA, test.weightB), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				d := start(t, w, slow(test.scheduler, test.weightA, test.weightB))
				a, b := float64(test.weightA), float64(test.weightB)
				if test.scheduler == "roundr" || test.scheduler == "leastc" {
					a, b = 1, 1
				}
				const n = 21_000 // whole rounds of all weights here
				want := func(when string, part float64) {
					t.Helper()
					synctest.Wait()
					got, want := float64(w.share(n, test.stay)), n*part*a/(part*a+b)
					slack := n / 40.0
					if test.exact {
						slack = n / 1000.0
					}
					if got < want-slack || got > want+slack {
						t.Errorf("%s: %v of %d picks, want %.0f", when, got, n, want)
					}
				}
				want("at the start", 1)
				time.Sleep(30 * time.Second)
				want("later", 1)
				w.set(w.dead, "10.0.0.1:80", true)
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
				if n := w.share(100, false); n != 0 {
					t.Errorf("%d picks of a host that is down", n)
				}
				w.set(w.dead, "10.0.0.1:80", false)
				for !target(t, d, "g", "a", 0).Status().Up {
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
				}
				back := time.Now()
				want("at once", 1/float64(rampSteps))
				for _, at := range []time.Duration{5, 10, 15} {
					time.Sleep(time.Until(back.Add(at*time.Second + 500*time.Millisecond)))
					want(fmt.Sprintf("after %d s", at), float64(at)/20)
				}
				time.Sleep(time.Until(back.Add(20*time.Second + 2*rampEvery)))
				want("at the end", 1)
				plans := w.planned()
				time.Sleep(time.Minute)
				synctest.Wait()
				if w.planned() != plans || len(d.ramping) != 0 {
					t.Error("it goes on after its end")
				}
			})
		})
	}
}

// A slow start costs at most so many tables, however many hosts have one.
func TestSlowStartsShareTables(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, slow("roundr", 1, 1))
		for _, h := range []string{"a", "b"} {
			w.fail(target(t, d, "g", h, 0))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		plans := w.planned()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := w.planned() - plans; n < rampSteps/2 || n > 2*rampSteps {
			t.Errorf("%d tables for two slow starts", n)
		}
	})
}

// It begins when a host has come back from maintenance too, begins again when
// the host goes down in between, and ends when the configuration says so.
func TestSlowStartBeginsAndEnds(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, slow("roundr", 1, 1))
		set := func(change func(*config.Host)) {
			t.Helper()
			_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				change(c.Services[0].Groups[0].Hosts[0])
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		share := func(when string, low, high int) {
			t.Helper()
			if n := w.share(420, false); n < low || n > high {
				t.Errorf("%s: %d of 420 picks, want %d to %d", when, n, low, high)
			}
		}
		set(func(h *config.Host) { h.State = "maint" })
		share("in maintenance", 0, 0)
		set(func(h *config.Host) { h.State = "ready" })
		share("back", 20, 20)
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		share("half-way", 140, 140)
		set(func(h *config.Host) { h.State = "drain" })
		set(func(h *config.Host) { h.State = "ready" })
		share("after a moment of drain", 140, 140)
		w.set(w.dead, "10.0.0.1:80", true)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if len(d.ramping) != 0 {
			t.Error("the slow start of a host that is down goes on")
		}
		w.set(w.dead, "10.0.0.1:80", false)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		share("back again", 20, 40)
		set(func(h *config.Host) { h.SlowStart = 0 })
		time.Sleep(2 * rampEvery)
		synctest.Wait()
		share("without a slow start", 210, 210)
	})
}

// Clients that wait when a host comes back do not get all its places at once: they belong to its
// slow start too.
func TestSlowStartIsForThoseWhoWait(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="roundr"><check interval="1s" rise="1" fall="1"/>
			<host name="a" ip="10.0.0.1:80" maxSessions="100" slowStart="20s"/><host name="b" ip="10.0.0.2:80" maxSessions="1"/></group></service></config>`)
		w.set(w.dead, "10.0.0.1:80", true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		table := w.lastPlan().Services[0].Route.Table
		if h, _ := table.Pick(sched.Addr{}, new(sched.Tried)); h == nil || h.Name() != "b" {
			t.Fatalf("picked %v, want b", h)
		}
		queue := table.Queue()
		for range 50 {
			queue.Join(table, sched.Addr{}, new(sched.Tried), 0, 0, func() {})
		}
		if n := queue.Len(); n != 50 {
			t.Fatalf("%d of 50 clients wait for a host", n)
		}
		a := target(t, d, "g", "a", 0)
		w.set(w.dead, "10.0.0.1:80", false)
		for !a.Status().Up {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if n := a.Host.Sessions(); n != 5 {
			t.Errorf("%d clients have got the host at once, want a twentieth of its 100 places", n)
		}
		time.Sleep(20*time.Second + 2*rampEvery)
		synctest.Wait()
		if n := a.Host.Sessions(); n != 50 {
			t.Errorf("%d clients have got the host at the end, want all 50", n)
		}
	})
}

// planned is how many plans the engine has been given.
func (w *world) planned() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.plans)
}
