package director

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// takes compares the hosts that take clients, and how, with what is wanted.
func (w *world) takes(t *testing.T, names string, how sched.Verdict) {
	t.Helper()
	if got, v := w.picks(); got != names || v != how {
		t.Errorf("clients go to %q (%v), want %q (%v)", got, v, names, how)
	}
}

// edited makes a change that cannot be wrong, and waits for what comes of it.
func edited(t *testing.T, d *Director, change func(*config.Config)) {
	t.Helper()
	do(t, d, func(c *config.Config) error { change(c); return nil })
	synctest.Wait()
}

// With start="down" no host takes a client before it has passed a check: not at
// the start, not when it is new, not when it has another name, and not as a last
// resort.
func TestStartDown(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dead["10.0.0.2:80"], w.dead["10.0.0.3:80"], w.dead["10.0.0.4:80"] = true, true, true
		d := start(t, w, checked(`interval="2s" rise="2" fall="1"`, `start="down"`))
		w.takes(t, "", sched.Picked)
		a, b := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0)
		if s := a.Status(); s.Up || s.Reason != notChecked || s.Progress() != "1/2" {
			t.Errorf("at the start: %+v %s", s, s.Progress())
		}
		time.Sleep(time.Second) // the first checks come soon, and one is enough
		synctest.Wait()
		w.takes(t, "a", sched.Picked)
		if s := b.Status(); s.Up || s.Reason != "connection refused" || s.Progress() != "" {
			t.Errorf("a host that has failed: %+v", s)
		}
		w.fail(a)
		w.takes(t, "a", sched.LastResort) // it has passed once, the others have not
		w.set(w.dead, "10.0.0.2:80", false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.takes(t, "ab", sched.Picked)

		edited(t, d, func(c *config.Config) {
			g := c.Services[0].Groups[0]
			g.Hosts = append(g.Hosts, config.NewHost("new", "10.0.0.4:80"))
			g.Hosts[1].Name = "renamed"
		})
		w.takes(t, "a", sched.Picked)
		time.Sleep(time.Second)
		synctest.Wait()
		w.takes(t, "arenamed", sched.Picked)
		if n, err := d.Retry(context.Background(), "web", "g", "new"); n != 1 || err != nil {
			t.Error(n, err)
		}
		synctest.Wait()
		w.takes(t, "anewrenamed", sched.Picked) // an operator's word counts as a check
		// Whoever waits for nothing any more is a last resort like others.
		edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].StartDown = false })
		w.set(w.dead, "10.0.0.1:80", true)
		w.set(w.dead, "10.0.0.2:80", true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.takes(t, "acnewrenamed", sched.LastResort)
	})
}

// Without a <check>, hostCheck is what a host has to pass. The slow start of a
// host that is new does not run.
func TestStartDownWithoutCheck(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" start="down">
			<host name="a" ip="10.0.0.1:80" slowStart="1m"/><host name="b" ip="10.0.0.2:80" state="maint"/></group></service></config>`)
		w.takes(t, "", sched.Picked)
		time.Sleep(time.Second)
		synctest.Wait()
		w.takes(t, "a", sched.Picked)
		if a := target(t, d, "g", "a", 0); a.step != rampSteps {
			t.Errorf("a is in step %d of a slow start", a.step)
		}
		// Out of maintenance, a host that was never checked waits as well.
		edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts[1].State = "ready" })
		w.takes(t, "a", sched.Picked)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		w.takes(t, "ab", sched.Picked)
	})
}

// Health outlives every change that leaves the host as it is: of listeners, of
// the check, of its weight, of others.
func TestHealthOutlivesChanges(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"listener": func(c *config.Config) { c.Services[0].Listen[0].Address = ":2" },
		"listeners": func(c *config.Config) {
			c.Services[0].Listen = append(c.Services[0].Listen, config.Listen{Address: ":3"})
		},
		"time-outs":  func(c *config.Config) { c.Services[0].Timeouts.Idle = time.Minute },
		"interval":   func(c *config.Config) { c.Services[0].Groups[0].Check.Interval = time.Minute },
		"rise, fall": func(c *config.Config) { c.Services[0].Groups[0].Check.Rise, c.Services[0].Groups[0].Check.Fall = 7, 9 },
		"type":       func(c *config.Config) { c.Services[0].Groups[0].Check.Type = "http" },
		"no check":   func(c *config.Config) { c.Services[0].Groups[0].Check = nil },
		"scheduler":  func(c *config.Config) { c.Services[0].Groups[0].Scheduler = "leastc" },
		"maxFails":   func(c *config.Config) { c.Services[0].Groups[0].MaxFails = 5 },
		"start":      func(c *config.Config) { c.Services[0].Groups[0].StartDown = true },
		"weight":     func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].Weight = 5 },
		"order": func(c *config.Config) {
			h := c.Services[0].Groups[0].Hosts
			h[0], h[2] = h[2], h[0]
		},
		"another host": func(c *config.Config) { c.Services[0].Groups[0].Hosts[2].Name = "other" },
		"another service": func(c *config.Config) {
			s := config.NewService("other")
			s.Listen = []config.Listen{{Address: ":4"}}
			c.Services = append([]*config.Service{s}, c.Services...)
		},
		"manager": func(c *config.Config) { c.Manager.HostCheck.Interval = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				w.dead["10.0.0.1:80"] = true
				d := start(t, w, checked(`interval="2s" rise="2" fall="3"`, ""))
				time.Sleep(30 * time.Second)
				synctest.Wait()
				find := func(host string) *Target {
					for key, target := range d.targets {
						if key.service == "web" && key.host == host {
							return target
						}
					}
					t.Fatal("no host", host)
					return nil
				}
				a, b := find("a"), find("b")
				was, wasB := a.Status(), b.Status()
				if was.Up || !wasB.Up {
					t.Fatal("not what the test wants", was, wasB)
				}
				edited(t, d, change)
				if is := find("a").Status(); find("a") != a || is.Up || a.Host.Up() || is.Since != was.Since || is.Reason != was.Reason {
					t.Errorf("a was %+v and is %+v", was, is)
				}
				if is := find("b").Status(); find("b") != b || !is.Up || !b.Host.Up() || is.Since != wasB.Since {
					t.Errorf("b was %+v and is %+v", wasB, is)
				}
			})
		})
	}
}
