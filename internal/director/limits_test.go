package director

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A host that comes back may have a part of its maxSessions at first, and the whole of it
// at the end of its slow start.
func TestB43LimitGrowsInSlowStart(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, strings.Replace(slow("roundr", 1, 1), `weight="1" slowStart`, `weight="1" maxSessions="100" slowStart`, 1))
		a, b := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0)
		expect := func(when string, most int) {
			t.Helper()
			synctest.Wait()
			if n := a.Host.MaxSessions(); n != most {
				t.Errorf("%s: a may have %d sessions, want %d", when, n, most)
			}
			if n := b.Host.MaxSessions(); n != 0 {
				t.Errorf("%s: b may have %d sessions; it has no limit", when, n)
			}
		}
		expect("at the start", 100)
		w.set(w.dead, "10.0.0.1:80", true)
		time.Sleep(1100 * time.Millisecond)
		w.set(w.dead, "10.0.0.1:80", false)
		synctest.Wait()
		if a.Status().Up {
			t.Fatal("a is not down")
		}
		for !a.Status().Up {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		back := time.Now()
		expect("at once", 5)
		time.Sleep(time.Until(back.Add(10*time.Second + 500*time.Millisecond)))
		expect("after half of it", 50)
		if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
			c.Services[0].Groups[0].Hosts[0].MaxSessions = 40
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		expect("with another limit", 20)
		time.Sleep(time.Until(back.Add(20*time.Second + 2*rampEvery)))
		expect("at the end", 40)
	})
}

// A host at its limit counts as not left: clients go to the other zone when those of
// their own are full, but not to backups.
func TestB90FullZoneSpillsOver(t *testing.T) {
	for _, scheduler := range sched.Names() {
		t.Run(scheduler, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				start(t, w, `<config><engine zone="east"/><service name="s"><listen ip="*:80"/><group name="g" scheduler="`+scheduler+`" enable="true">
					<host name="near1" ip="10.0.0.1:80" zone="east" maxSessions="2"/><host name="near2" ip="10.0.0.2:80" zone="east" maxSessions="1"/>
					<host name="far" ip="10.0.0.3:80" zone="west" maxSessions="2"/><host name="spare" ip="10.0.0.4:80" zone="east" backup="yes"/></group></service></config>`)
				table := w.lastPlan().Services[0].Route.Table
				pick := func() *sched.Host {
					t.Helper()
					var tried sched.Tried
					h, verdict := table.Pick(sched.UnixAddr("/client"), &tried)
					if (h == nil) != (verdict == sched.Full) {
						t.Fatalf("%v: %v", h, verdict)
					}
					return h
				}
				near := map[string]int{}
				var one *sched.Host
				for range 3 {
					one = pick()
					near[one.Name()]++
				}
				if want := map[string]int{"near1": 2, "near2": 1}; !maps.Equal(near, want) {
					t.Errorf("the first went to %v, want %v", slices.Sorted(maps.Keys(near)), want)
				}
				if h := pick(); h == nil || h.Name() != "far" {
					t.Fatalf("the own zone is full: a client goes to %v", h)
				}
				one.Release(0, 0)
				if h := pick(); h != one {
					t.Errorf("the own zone has room: a client goes to %v", h)
				}
				if h := pick(); h == nil || h.Name() != "far" {
					t.Errorf("it is full again: a client goes to %v", h)
				}
				if h := pick(); h != nil {
					t.Errorf("all zones are full: a client goes to %v and does not wait", h)
				}
			})
		})
	}
}
