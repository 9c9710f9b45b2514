package director

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

const leaving = `<config><service name="web"><listen ip="127.0.0.1:8080"/><listen ip="127.0.0.1:8081"/>
	<group name="g" scheduler="roundr" enable="yes"><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/></group>
	<group name="h"><host name="c" ip="10.0.0.3:80"/></group>
	</service></config>`

// holds gives a host a session that it counts, as a loop does.
func (w *world) holds(t *Target, id uint64) (release func()) {
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: t.Host, Weight: 1}})
	if err != nil {
		panic(err)
	}
	var tried sched.Tried
	table.Pick(sched.Addr{}, &tried)
	w.opens(t, id)
	return func() { t.Host.Release(0, 0) }
}

func drain(t *testing.T, d *Director, within time.Duration, hosts ...*Target) {
	t.Helper()
	req := Drain{Within: within}
	for _, h := range hosts {
		req.Hosts = append(req.Hosts, h.Host)
	}
	if err := d.Drain(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func delHosts(group int, names ...string) func(*config.Config) {
	return func(c *config.Config) {
		g := c.Services[0].Groups[group]
		var kept []*config.Host
		for _, h := range g.Hosts {
			for _, n := range names {
				if h.Name == n {
					h = nil
					break
				}
			}
			if h != nil {
				kept = append(kept, h)
			}
		}
		g.Hosts = kept
	}
}

// What was removed is shown for as long as it has sessions, and its deadline survives
// other changes.
func TestB52RemovedHostsAreShownUntilTheirSessionsEnd(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, leaving)
		a, b := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0)
		release := w.holds(a, 1)
		defer w.holds(b, 2)()
		change(t, d, delHosts(0, "a"))
		list := d.Leavers()
		if len(list) != 1 || list[0].Host != "a" || list[0].Group != "g" || !list[0].Removed || list[0].Sessions() != 1 || !list[0].Until.IsZero() {
			t.Fatalf("leaving: %+v", list)
		}
		begun := time.Now()
		drain(t, d, time.Minute, a)
		change(t, d, func(c *config.Config) { c.Services[0].Timeouts.Idle = time.Minute })
		change(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].Weight = 7 })
		time.Sleep(59 * time.Second)
		w.expectEnded(t, "before the deadline", engine.ByOperator)
		if list := d.Leavers(); len(list) != 1 || !list[0].Until.Equal(begun.Add(time.Minute)) {
			t.Errorf("leaving: %+v", list)
		}
		time.Sleep(2 * time.Second)
		w.expectEnded(t, "at the deadline", engine.ByOperator, 1)
		release()
		time.Sleep(2 * time.Second)
		if list := d.Leavers(); len(list) != 0 {
			t.Errorf("leaving after the end: %+v", list)
		}
		time.Sleep(time.Hour)
		w.expectEnded(t, "later", engine.ByOperator)
	})
}

// A host that is put back under its name and address is the same one: it keeps its
// sessions, which have no deadline any more.
func TestB52AHostThatIsPutBackKeepsItsSessions(t *testing.T) {
	for name, back := range map[string]struct {
		away, back func(*config.Config)
		group      string
		same       bool // the target
	}{
		"a host": {delHosts(0, "a"), func(c *config.Config) {
			h := config.NewHost("a", "10.0.0.1:80")
			c.Services[0].Groups[0].Hosts = append(c.Services[0].Groups[0].Hosts, h)
		}, "g", true},
		"a drained host": {
			func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].State = "drain" },
			func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].State = "ready" }, "g", true,
		},
		"a group": {
			func(c *config.Config) {
				c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true
			},
			func(c *config.Config) {
				c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = true, false
			}, "g", true,
		},
		"a service": {
			func(c *config.Config) {
				s := config.NewService("other")
				s.Listen = []config.Listen{{Address: "127.0.0.1:9"}}
				c.Services = []*config.Service{s}
			},
			func(c *config.Config) {
				m, _ := config.Parse("c.xml", []byte(leaving))
				c.Services = m.Services
			}, "g", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				d := start(t, w, leaving)
				a := target(t, d, "g", "a", 0)
				defer w.holds(a, 1)()
				change(t, d, back.away)
				drain(t, d, time.Minute, a)
				if list := d.Leavers(); len(list) == 0 || list[0].Until.IsZero() {
					t.Fatalf("leaving: %+v", list)
				}
				time.Sleep(30 * time.Second)
				change(t, d, back.back)
				for _, l := range d.Leavers() {
					if back.same || !l.Until.IsZero() {
						t.Errorf("leaving: %+v", l)
					}
				}
				if again := target(t, d, "g", "a", 0); (again == a) != back.same {
					t.Errorf("the same target: %v", again == a)
				}
				time.Sleep(time.Hour)
				w.expectEnded(t, "after the deadline", engine.ByOperator)
				// What drains later has no deadline of before.
				change(t, d, back.away)
				time.Sleep(time.Hour)
				w.expectEnded(t, "without a deadline", engine.ByOperator)
			})
		})
	}
}

// What takes sessions when its deadline is set is spared.
func TestDrainSparesWhatTakesSessions(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, leaving)
		a, c := target(t, d, "g", "a", 0), target(t, d, "h", "c", 0)
		defer w.holds(a, 1)()
		defer w.holds(c, 2)()
		drain(t, d, 0, a, c)
		w.expectEnded(t, "of the standby group alone", engine.ByOperator, 2)
	})
}

// The sessions of a listener that has closed end by its deadline, and those of others go
// on; if it is opened again, all do.
func TestB52ClosedListenersHaveADeadline(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		testkit.Bubble(t, func(t *testing.T) {
			w := newWorld()
			d := start(t, w, leaving)
			a := target(t, d, "g", "a", 0)
			defer w.holds(a, 1)()
			w.listener = "127.0.0.1:8081"
			listeners := w.Listeners()[1:]
			change(t, d, func(c *config.Config) { c.Services[0].Listen = c.Services[0].Listen[:1] })
			if err := d.Drain(t.Context(), Drain{Listeners: listeners, Within: time.Minute}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
			if list := d.Leavers(); len(list) != 1 || list[0].Address != "127.0.0.1:8081" || list[0].Sessions() != -1 {
				t.Errorf("leaving: %+v", list)
			}
			if reopened {
				change(t, d, func(c *config.Config) {
					c.Services[0].Listen = append(c.Services[0].Listen, config.Listen{Address: "127.0.0.1:8081"})
				})
			}
			time.Sleep(time.Minute)
			if reopened {
				w.expectEnded(t, "opened again", engine.ByOperator)
			} else {
				w.expectEnded(t, "at the deadline", engine.ByOperator, 1)
			}
			if list := d.Leavers(); len(list) != 0 {
				t.Errorf("leaving: %+v", list)
			}
		})
	}
}

func TestCameBy(t *testing.T) {
	for _, test := range []struct {
		to, bound string
		want      bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "0.0.0.0:80", true}, {"127.0.0.1:80", "[::]:80", true},
		{"[fe80::1]:80", "[fe80::1%eth0]:80", true}, {"[fe80::1%eth0]:80", "[fe80::1%eth0]:80", true},
		{"unix:/run/a", "unix:/run/a", true}, {"unix:/run/a", "unix:/run/b", false}, {"unix:/run/a", "[::]:80", false},
		{"127.0.0.1:80", "127.0.0.2:80", false}, {"127.0.0.1:80", "127.0.0.1:81", false}, {"127.0.0.1:80", "[::]:81", false},
		{"", "127.0.0.1:80", false},
	} {
		if got := cameBy(test.to, test.bound); got != test.want {
			t.Errorf("%s by %s: %v", test.to, test.bound, got)
		}
	}
}
