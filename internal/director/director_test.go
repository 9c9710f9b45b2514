package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// The director gives the table the zones, also after a verb has changed one.
func TestB90ZonesReachTheTable(t *testing.T) {
	for node, want := range map[string][2]string{"": {"abc", "abc"}, "east": {"ac", "abc"}, "west": {"bc", "c"}, "north": {"c", "c"}} {
		testkit.Bubble(t, func(t *testing.T) {
			w := newWorld()
			d := start(t, w, `<config><engine zone="`+node+`"/><service name="s"><listen ip="*:80"/><group name="g" scheduler="roundr" enable="true">
				<host name="a" ip="10.0.0.1:80" zone="east"/><host name="b" ip="10.0.0.2:80" zone="west"/>
				<host name="c" ip="10.0.0.3:80"/></group></service></config>`)
			firsts := func() string {
				seen := map[string]bool{}
				for range 3 {
					var tried sched.Tried
					h, _ := w.lastPlan().Services[0].Route.Table.Pick(sched.Addr{}, &tried)
					h.Release(0, 0)
					seen[h.Name()] = true
				}
				return strings.Join(slices.Sorted(maps.Keys(seen)), "")
			}
			before := firsts()
			_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				c.Services[0].Groups[0].Hosts[1].Zone = "east"
				return nil
			}})
			if after := firsts(); err != nil || before != want[0] || after != want[1] {
				t.Errorf("node in %q: clients went to %s, and after the change to %s (%v); want %v", node, before, after, err, want)
			}
			if names, _ := w.picks(); names != "abc" {
				t.Errorf("node in %q: of all hosts, a session can reach %s", node, names)
			}
		})
	}
}

func TestFailedHostLeavesAndComesBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		a := target(t, d, "g", "a", 0)
		before := w.lastPlan().Services[0].Route.Table
		w.set(w.dead, "10.0.0.1:80", true)
		w.fail(a)
		if s := a.Status(); s.Up || !strings.Contains(s.Reason, "refused") || !s.Since.Equal(time.Now()) {
			t.Errorf("status %+v", s)
		}
		if w.lastPlan().Services[0].Route.Table == before {
			t.Error("the engine got no new table")
		}
		if names, _ := w.picks(); names != "bc" {
			t.Errorf("hosts %s", names)
		}
		// It is probed, every 10 s or sooner, and stays out while probes fail.
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if n := w.probed("10.0.0.1:80"); n < 3 || n > 5 {
			t.Errorf("%d probes in 35 s", n)
		}
		if n := w.probed("10.0.0.2:80"); n != 0 {
			t.Errorf("a host that is up was probed %d times without heartbeat", n)
		}
		if s := a.Status(); s.Up || s.Reason != "connection refused" || time.Since(s.Since) != 35*time.Second {
			t.Errorf("status %+v", s)
		}
		// The first success brings it back, within the interval.
		w.set(w.dead, "10.0.0.1:80", false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !a.Status().Up || !a.Host.Up() {
			t.Error("the host is not back")
		}
		if names, _ := w.picks(); names != "abc" {
			t.Errorf("hosts %s", names)
		}
		for _, want := range []string{"host down", "host up", "service=web group=g host=a addr=10.0.0.1:80"} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, w.log.String())
			}
		}
		if n := strings.Count(w.log.String(), "host down"); n != 1 {
			t.Errorf("host down is logged %d times", n)
		}
	})
}

// B48: with all hosts down they are probed at most 1 s apart, even without
// hostCheck, and are the last resort meanwhile.
func TestB48AllDown(t *testing.T) {
	for name, manager := range map[string]string{
		"hostCheck on":  "",
		"hostCheck off": `<manager><hostCheck enable="no"/></manager>`,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				d := start(t, w, with(manager))
				for _, h := range []string{"a", "b"} {
					w.set(w.dead, target(t, d, "g", h, 0).key.addr.String(), true)
					w.fail(target(t, d, "g", h, 0))
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if n := w.probed("10.0.0.1:80"); n > 1 {
					t.Errorf("%d probes in 3 s while a host is up", n)
				}
				w.set(w.dead, "10.0.0.3:80", true)
				w.fail(target(t, d, "g", "c", 0))
				down := time.Now()
				if names, v := w.picks(); names != "abc" || v != sched.LastResort {
					t.Errorf("hosts %s, verdict %v", names, v)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				for addr, times := range w.probes {
					last := down
					for _, at := range times {
						if at.Sub(last) > time.Second {
							t.Errorf("%s: %v between probes", addr, at.Sub(last))
						}
						last = at
					}
				}
				// The first success ends it.
				w.set(w.dead, "10.0.0.2:80", false)
				time.Sleep(time.Second)
				synctest.Wait()
				if names, v := w.picks(); names != "b" || v != sched.Picked {
					t.Errorf("hosts %s, verdict %v", names, v)
				}
				if strings.Count(w.log.String(), "msg=\"no usable host\"") != 1 {
					t.Errorf("log:\n%s", w.log.String())
				}
			})
		})
	}
}

func TestHostCheckOffLeavesHostsOut(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(`<manager><hostCheck enable="no"/></manager>`))
		w.fail(target(t, d, "g", "a", 0))
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.probed("10.0.0.1:80") != 0 || target(t, d, "g", "a", 0).Status().Up {
			t.Error("the host was probed or has come back")
		}
	})
}

func TestHeartbeatTakesOutAtTheThirdFailure(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(`<manager><heartbeat interval="20" enable="yes"/></manager>`))
		b := target(t, d, "g", "b", 0)
		w.set(w.slow, "10.0.0.2:80", true)
		for w.probed("10.0.0.2:80") < 2 {
			time.Sleep(time.Second)
		}
		time.Sleep(probeTimeout)
		synctest.Wait()
		if !b.Status().Up {
			t.Error("out after two failures")
		}
		for w.probed("10.0.0.2:80") < 3 {
			time.Sleep(time.Second)
		}
		time.Sleep(probeTimeout)
		synctest.Wait()
		if b.Status().Up || b.Host.Up() {
			t.Error("still in after three failures")
		}
		// A success in between starts the count again.
		a := target(t, d, "g", "a", 0)
		for range 6 {
			w.set(w.dead, "10.0.0.1:80", true)
			n := w.probed("10.0.0.1:80")
			for w.probed("10.0.0.1:80") < n+2 {
				time.Sleep(time.Second)
			}
			w.set(w.dead, "10.0.0.1:80", false)
			for w.probed("10.0.0.1:80") < n+3 {
				time.Sleep(time.Second)
			}
		}
		if !a.Status().Up {
			t.Error("two failures and a success took a host out")
		}
	})
}

// A report that was dropped is found by the scan.
func TestScanFindsDroppedReports(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		a := target(t, d, "g", "a", 0)
		a.Host.Fail() // and nobody says so
		time.Sleep(scanEvery)
		synctest.Wait()
		if a.Status().Up {
			t.Error("the director has not noticed")
		}
		if names, _ := w.picks(); names != "bc" {
			t.Errorf("hosts %s", names)
		}
	})
}

// Many hosts that fail at once cost few plans.
func TestManyFailuresAreOnePlan(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		var hosts strings.Builder
		for i := range 500 {
			fmt.Fprintf(&hosts, `<host name="h%d" ip="10.1.%d.%d:80"/>`, i, i/200, i%200)
		}
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g">`+hosts.String()+`</group></service></config>`)
		before := len(w.plans)
		for _, h := range d.State().Services[0].Groups[0].Hosts {
			h.Targets[0].Host.Fail()
			w.failures <- engine.Failure{Host: h.Targets[0].Host, Err: errors.New("refused")}
		}
		synctest.Wait()
		if n := len(w.plans) - before; n < 1 || n > 100 {
			t.Errorf("%d plans for 500 failures", n)
		}
		if n := strings.Count(w.log.String(), "msg=\"no usable host\""); n != 1 {
			t.Errorf("said %d times that all are down", n)
		}
	})
}

func TestStatesOfHosts(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g">
			<host name="a" ip="10.0.0.1:80" state="maint"/><host name="b" ip="10.0.0.2:80" state="drain"/><host name="c" ip="10.0.0.3:80"/>
			</group></service><manager><heartbeat interval="5" enable="yes"/></manager></config>`)
		if names, _ := w.picks(); names != "c" {
			t.Errorf("hosts %s", names)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.probed("10.0.0.1:80") != 0 || w.probed("10.0.0.2:80") == 0 {
			t.Errorf("probes: maint %d, drain %d", w.probed("10.0.0.1:80"), w.probed("10.0.0.2:80"))
		}
		// All that could serve is down: maint and drain are no last resort.
		w.fail(target(t, d, "g", "c", 0))
		if names, v := w.picks(); names != "c" || v != sched.LastResort {
			t.Errorf("hosts %s, verdict %v", names, v)
		}
	})
}

func TestNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		v4, v6 := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("2001:db8::7")
		w.dns["both"] = []netip.Addr{v6, v4, netip.MustParseAddr("::ffff:10.0.0.6")}
		w.dns["six"] = []netip.Addr{v6}
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="roundr">
			<host name="a" ip="both:80"/><host name="b" ip="six:80"/><host name="c" ip="nowhere:80"/></group></service></config>`)
		hosts := d.State().Services[0].Groups[0].Hosts
		var got []string
		for _, h := range hosts {
			for _, t := range h.Targets {
				got = append(got, t.key.addr.String())
			}
		}
		if want := []string{"10.0.0.6:80", "10.0.0.7:80", "[2001:db8::7]:80"}; !slices.Equal(got, want) {
			t.Errorf("targets %v, want %v", got, want)
		}
		if !strings.Contains(hosts[2].Problem, "no such host") || hosts[2].Up() {
			t.Errorf("the host that does not resolve: %+v", hosts[2])
		}
		if names, _ := w.picks(); names != "aab" {
			t.Errorf("hosts %s", names)
		}
		if !strings.Contains(w.log.String(), "host not used until its name resolves") {
			t.Errorf("log:\n%s", w.log.String())
		}
		// It is looked up again and joins; the others keep their counters.
		a := target(t, d, "g", "a", 0)
		w.mu.Lock()
		w.dns["nowhere"] = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		w.mu.Unlock()
		time.Sleep(lookupAgain)
		synctest.Wait()
		if names, _ := w.picks(); names != "aabc" {
			t.Errorf("hosts %s", names)
		}
		if target(t, d, "g", "a", 0) != a {
			t.Error("a target was made again")
		}
		if g := d.State().Generation; g != 1 {
			t.Errorf("generation %d: a name that resolves is no change of the configuration", g)
		}
	})
}

func TestDo(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		a := target(t, d, "g", "a", 0)
		w.fail(a)
		weight := func(n int) func(*config.Config) error {
			return func(c *config.Config) error { c.Services[0].Groups[0].Hosts[1].Weight = n; return nil }
		}
		before := d.State()
		g, err := d.Do(t.Context(), Change{By: "admin", From: "test", Verb: "setHost", Apply: weight(7)})
		if err != nil || g != 2 || d.State().Generation != 2 || d.State().Config.Services[0].Groups[0].Hosts[1].Weight != 7 {
			t.Errorf("generation %d, %v", g, err)
		}
		if before.Config.Services[0].Groups[0].Hosts[1].Weight != 1 {
			t.Error("the state before has changed")
		}
		if target(t, d, "g", "a", 0) != a || a.Status().Up {
			t.Error("a host lost its health or its counters")
		}
		if !strings.Contains(w.log.String(), "configuration changed\" generation=2 verb=setHost by=admin from=test") {
			t.Errorf("log:\n%s", w.log.String())
		}
		// What is wrong changes nothing.
		state, plans := d.State(), len(w.plans)
		for what, c := range map[string]Change{
			"an error of the change": {Apply: func(c *config.Config) error { c.Services = nil; return errors.New("no") }},
			"a wrong model":          {Apply: weight(-1)},
			"no services":            {Apply: func(c *config.Config) error { c.Services = nil; return nil }},
		} {
			if _, err := d.Do(t.Context(), c); err == nil {
				t.Errorf("%s was taken", what)
			}
		}
		w.refuse = errors.New("the port is in use")
		if _, err := d.Do(t.Context(), Change{Apply: weight(9)}); !errors.Is(err, w.refuse) {
			t.Errorf("the engine's refusal: %v", err)
		}
		w.refuse = nil
		if d.State() != state || len(w.plans) != plans {
			t.Error("a change that failed left something")
		}
		// Changes at the same moment are both whole.
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
					c.Services[0].Groups[0].Hosts[2].Weight++
					return nil
				}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := d.State().Config.Services[0].Groups[0].Hosts[2].Weight; n != 21 || d.State().Generation != 22 {
			t.Errorf("weight %d, generation %d", n, d.State().Generation)
		}
	})
}

// What runs shares nothing with the model that New was given.
func TestNewKeepsACopy(t *testing.T) {
	w := newWorld()
	c, _ := config.Parse("", []byte(with("")))
	d, err := New(c, w, Options{Resolver: w, Probe: w.probe})
	if err != nil {
		t.Fatal(err)
	}
	c.Services[0].Groups[0].Hosts[0].Weight = 99
	if got := d.State().Config.Services[0].Groups[0].Hosts[0].Weight; got != 1 {
		t.Errorf("weight %d", got)
	}
}

func TestDoAfterTheEnd(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, _ := config.Parse("", []byte(with("")))
		d, err := New(c, w, Options{Log: slog.New(slog.DiscardHandler), Resolver: w, Probe: w.probe})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		if _, err := d.Do(t.Context(), Change{}); !errors.Is(err, ErrStopped) {
			t.Errorf("Do after the end: %v", err)
		}
	})
}

func TestNewReportsTheEnginesError(t *testing.T) {
	w := newWorld()
	w.refuse = errors.New("service \"web\": listen on :8080: in use")
	c, _ := config.Parse("", []byte(with("")))
	if _, err := New(c, w, Options{Resolver: w, Probe: w.probe}); !errors.Is(err, w.refuse) {
		t.Errorf("said %v", err)
	}
}
