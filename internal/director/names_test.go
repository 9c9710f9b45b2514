package director

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// group is a configuration of one service with one group of these hosts.
func group(hosts string) string {
	return `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g" scheduler="weightrr">` + hosts + `</group></service></config>`
}

// only returns the n-th host of the only group.
func only(d *Director, n int) *Host { return d.State().Services[0].Groups[0].Hosts[n] }

// shown returns the targets of a host, with what each gets of the sessions.
func shown(h *Host) string {
	var list []string
	for i, t := range h.Targets {
		s := fmt.Sprintf("%v*%d", t.key.addr, h.Shares[i].Weight)
		if h.Shares[i].Backup {
			s += " backup"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// B49: a name that stops resolving, be it for a fault of the servers or because
// it is gone, keeps its last addresses. That is told once, and once again when
// it is over.
func TestB49NameKeepsItsLastAddress(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.0.0.1", "10.0.0.2")
		d := start(t, w, group(`<host name="a" ip="db:80"/>`))
		before := slices.Clone(only(d, 0).Targets)
		told := func(what string, want int) {
			t.Helper()
			if n := strings.Count(w.log.String(), what); n != want {
				t.Errorf("%q was said %d times, want %d:\n%s", what, n, want, w.log.String())
			}
		}
		kept := func(reason string) {
			t.Helper()
			h := only(d, 0)
			if !slices.Equal(h.Targets, before) || !strings.Contains(h.Problem, reason) {
				t.Errorf("targets %s, problem %q", shown(h), h.Problem)
			}
			if names, _ := w.picks(); names != "aa" {
				t.Errorf("the table has %q", names)
			}
		}
		if h := only(d, 0); h.Problem != "" || !h.ProblemSince.IsZero() {
			t.Errorf("problem %q before there is any", h.Problem)
		}
		w.set(w.lame, "db", true)
		pass(30 * time.Second)
		kept("server misbehaving")
		since := only(d, 0).ProblemSince
		if ago := time.Since(since); ago > 6*time.Second || ago < 0 {
			t.Errorf("a problem for %v", ago)
		}
		// Now it is gone altogether.
		w.set(w.lame, "db", false)
		w.resolves("db")
		pass(10 * time.Minute)
		kept("no such host")
		if !only(d, 0).ProblemSince.Equal(since) {
			t.Errorf("a problem since %v, want %v", only(d, 0).ProblemSince, since)
		}
		told("name does not resolve, keeping its last addresses", 1)
		told("name resolves again", 0)
		// While it does not resolve it is looked up every five seconds.
		w.resolves("db", "10.0.0.2", "10.0.0.1")
		pass(lookupAgain)
		if h := only(d, 0); !slices.Equal(h.Targets, before) || h.Problem != "" || !h.ProblemSince.IsZero() {
			t.Errorf("targets %s, problem %q since %v", shown(h), h.Problem, h.ProblemSince)
		}
		told("name does not resolve, keeping its last addresses", 1)
		told("name resolves again", 1)
		told("name resolved", 0)
	})
}

// Names are looked up at the shortest interval of their hosts, a little sooner
// so that they spread, and never within a second.
func TestNamesAreLookedUpAgain(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		for _, name := range []string{"often", "shared", "once", "other", "mixed"} {
			w.resolves(name, "10.0.0.1")
		}
		d := start(t, w, group(`<host name="a" ip="often:80" resolve="1s"/>
			<host name="b" ip="shared:80"/><host name="c" ip="shared:81" resolve="10s"/><host name="d" ip="other:80"/>
			<host name="e" ip="once:80" resolve="0"/><host name="f" ip="mixed:1" resolve="0"/><host name="g" ip="mixed:2" resolve="1m"/>
			<host name="h" ip="none:80" resolve="0"/>`))
		look := func(during time.Duration, want map[string][2]int) {
			t.Helper()
			w.mu.Lock()
			clear(w.asked)
			w.mu.Unlock()
			pass(during)
			w.mu.Lock()
			defer w.mu.Unlock()
			for name, n := range want {
				if got := len(w.asked[name]); got < n[0] || got > n[1] {
					t.Errorf("%s was looked up %d times in %v, want %v", name, got, during, n)
				}
			}
			for i, at := range w.asked["often"] {
				if i > 0 && at.Sub(w.asked["often"][i-1]) < time.Second {
					t.Errorf("two look-ups within %v", at.Sub(w.asked["often"][i-1]))
				}
			}
		}
		look(10*time.Minute, map[string][2]int{
			"often": {590, 600}, "shared": {60, 76}, "other": {20, 26}, "once": {0, 0}, "mixed": {10, 13}, "none": {120, 151},
		})
		// The hosts of a name that are left have the say.
		if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
			g := c.Services[0].Groups[0]
			g.Hosts = slices.Delete(g.Hosts, 2, 3)
			g.Hosts[0].Resolve = time.Minute
			g.Hosts[3].Resolve = 2 * time.Second
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		look(10*time.Minute, map[string][2]int{"often": {10, 13}, "shared": {20, 26}, "once": {295, 400}})
		// A name that need be looked up once is so when it has resolved.
		w.resolves("none", "10.0.0.9")
		pass(lookupAgain)
		look(time.Hour, map[string][2]int{"none": {0, 0}})
	})
}

// Look-ups of many names are not made at the same moment.
func TestLookupsSpread(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		var hosts strings.Builder
		for i := range 100 {
			name := fmt.Sprintf("n%d", i)
			w.resolves(name, "10.0.0.1")
			fmt.Fprintf(&hosts, `<host name="%s" ip="%s:80"/>`, name, name)
		}
		start(t, w, group(hosts.String()))
		w.mu.Lock()
		clear(w.asked)
		w.mu.Unlock()
		pass(30 * time.Second)
		seconds := map[time.Time]int{}
		for name, at := range w.asked {
			if len(at) != 1 {
				t.Errorf("%s was looked up %d times in the first interval", name, len(at))
			}
			seconds[at[0].Truncate(time.Second)]++
		}
		if len(w.asked) != 100 || len(seconds) < 4 {
			t.Errorf("%d names were looked up within %d seconds", len(w.asked), len(seconds))
		}
	})
}

// Addresses that stay keep their target, with counters and health; those that
// go get no new session and are forgotten with their last one; those that come
// back meanwhile are what they were.
func TestChangedAddress(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("db", "10.0.0.1", "10.0.0.2")
		d := start(t, w, strings.Replace(group(`<host name="a" ip="db:80"/>`), "</config>",
			`<service name="other"><listen ip=":2"/><group name="g"><host name="b" ip="10.0.0.9:80"/></group></service></config>`, 1))
		first, second := target(t, d, "g", "a", 0), target(t, d, "g", "a", 1)
		w.set(w.dead, "10.0.0.2:80", true)
		w.fail(second)
		// The only session is on the first.
		if h, _ := w.lastPlan().Services[0].Route.Table.Pick(first.key.addr, new(sched.Tried)); h != first.Host {
			t.Fatal("the session is not on the first target")
		}
		untouched := w.lastPlan().Services[1].Route
		w.resolves("db", "10.0.0.2", "10.0.0.3")
		pass(30 * time.Second)
		h := only(d, 0)
		if shown(h) != "10.0.0.2:80*1, 10.0.0.3:80*1" || h.Targets[0] != second || second.Status().Up || second.Host.Stats().Failures != 1 {
			t.Errorf("targets %s; the one that stays: %+v", shown(h), second.Status())
		}
		if !slices.Equal(h.Leaving(), []*Target{first}) {
			t.Errorf("%d targets leave", len(h.Leaving()))
		}
		if w.lastPlan().Services[1].Route != untouched {
			t.Error("a service that the name is not of got a new route")
		}
		// A target that leaves is no target: nothing is probed or said of it.
		first.Host.Fail()
		pass(time.Minute)
		if n := w.probed("10.0.0.1:80"); n != 0 || strings.Contains(w.log.String(), "addr=10.0.0.1:80") {
			t.Errorf("%d probes, log:\n%s", n, w.log.String())
		}
		first.Host.MarkUp()
		// It comes back with its session, and goes again.
		w.resolves("db", "10.0.0.1")
		pass(30 * time.Second)
		if h := only(d, 0); len(h.Targets) != 1 || h.Targets[0] != first || len(h.Leaving()) != 0 {
			t.Errorf("targets %s, %d leave", shown(h), len(h.Leaving()))
		}
		w.resolves("db", "10.0.0.3")
		pass(30 * time.Second)
		if h := only(d, 0); shown(h) != "10.0.0.3:80*1" || !slices.Equal(h.Leaving(), []*Target{first}) {
			t.Errorf("targets %s, %d leave", shown(h), len(h.Leaving()))
		}
		plans := len(w.plans)
		first.Host.Release(0, 0)
		pass(scanEvery + time.Millisecond)
		if h := only(d, 0); len(h.Leaving()) != 0 || shown(h) != "10.0.0.3:80*1" {
			t.Errorf("targets %s, %d leave", shown(h), len(h.Leaving()))
		}
		if n := len(w.plans) - plans; n > 1 {
			t.Errorf("%d plans for a target that is forgotten", n)
		}
		if g := d.State().Generation; g != 1 {
			t.Errorf("generation %d: an address is no change of the configuration", g)
		}
	})
}

// SRV records give a host targets with ports, shares and backups.
func TestSRV(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		const name = "_pg._tcp.example."
		records := func(list ...*net.SRV) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.srv[name] = list
		}
		w.resolves("one.", "10.0.0.1")
		w.resolves("two.", "10.0.0.2", "10.0.0.3")
		w.resolves("six.", "2001:db8::6")
		records(
			&net.SRV{Target: "six.", Port: 5434, Priority: 20, Weight: 7},
			&net.SRV{Target: "two.", Port: 5433, Priority: 10, Weight: 0},
			&net.SRV{Target: "one.", Port: 5432, Priority: 10, Weight: 60},
			&net.SRV{Target: ".", Port: 1, Priority: 1, Weight: 60})
		d := start(t, w, group(`<host name="a" ip="_pg._tcp.example." weight="2"/>`))
		after := func(want string) {
			t.Helper()
			if got := shown(only(d, 0)); got != want {
				t.Errorf("targets %s\nwant    %s", got, want)
			}
			if n := len(only(d, 0).Shares); n != len(only(d, 0).Targets) {
				t.Errorf("%d shares", n)
			}
		}
		after("10.0.0.1:5432*120, 10.0.0.2:5433*2, 10.0.0.3:5433*2, [2001:db8::6]:5434*14 backup")
		if p := only(d, 0).Problem; p != "" {
			t.Errorf("problem %q of a record that says there is nothing", p)
		}
		one := target(t, d, "g", "a", 0)
		// The table has these weights: of 124 picks 120 are of the first.
		table, picked := w.lastPlan().Services[0].Route.Table, 0
		for range 124 {
			h, _ := table.Pick(one.key.addr, new(sched.Tried))
			if h == one.Host {
				picked++
			}
			h.Release(0, 0)
		}
		if picked != 120 {
			t.Errorf("%d of 124 sessions are on the first target", picked)
		}
		// One host fails to resolve, one has gone, one has moved to another port.
		w.set(w.lame, "six.", true)
		records(
			&net.SRV{Target: "six.", Port: 5434, Priority: 10, Weight: 1},
			&net.SRV{Target: "one.", Port: 5432, Priority: 10, Weight: 5},
			&net.SRV{Target: "one.", Port: 5499, Priority: 30, Weight: 5})
		pass(30 * time.Second)
		after("10.0.0.1:5432*10, [2001:db8::6]:5434*2, 10.0.0.1:5499*10 backup")
		if h := only(d, 0); h.Targets[0] != one || h.Problem != name+": lookup six.: server misbehaving" {
			t.Errorf("problem %q", h.Problem)
		}
		if s := "name does not resolve, keeping its last addresses"; strings.Count(w.log.String(), s) != 1 {
			t.Errorf("log:\n%s", w.log.String())
		}
		// Two records of one address: the first counts, and weights add up.
		w.set(w.lame, "six.", false)
		w.resolves("two.", "10.0.0.1")
		records(
			&net.SRV{Target: "one.", Port: 5432, Priority: 1, Weight: 3},
			&net.SRV{Target: "two.", Port: 5432, Priority: 1, Weight: 4},
			&net.SRV{Target: "one.", Port: 5432, Priority: 2, Weight: 9},
			&net.SRV{Target: "six.", Port: 1, Priority: 1, Weight: 65535})
		pass(30 * time.Second)
		after("10.0.0.1:5432*7, [2001:db8::6]:1*65535")
		if h := only(d, 0); h.Problem != "" {
			t.Errorf("problem %q", h.Problem)
		}
		// B49 for the records themselves.
		records()
		pass(time.Minute)
		after("10.0.0.1:5432*7, [2001:db8::6]:1*65535")
		if h := only(d, 0); !strings.Contains(h.Problem, "no such host") {
			t.Errorf("problem %q", h.Problem)
		}
		// The weight of the host still rules.
		if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
			c.Services[0].Groups[0].Hosts[0].Weight = 0
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		after("10.0.0.1:5432*0, [2001:db8::6]:1*0")
	})
}

// A change waits for its names, but not for ever: with so many that their
// look-ups take longer, what is late joins later. No more than maxLookups are
// under way at once.
func TestDoWaitsForManyNamesWithABound(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dnsTakes = 2500 * time.Millisecond
		d := start(t, w, with(""))
		const many = 200
		begun := time.Now()
		_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
			g := c.Services[0].Groups[0]
			for i := range many {
				name := fmt.Sprintf("n%d", i)
				w.resolves(name, "10.0.1.1")
				g.Hosts = append(g.Hosts, config.NewHost(name, name+":80"))
			}
			return nil
		}})
		if took := time.Since(begun); err != nil || took != longestWait {
			t.Errorf("took %v: %v", took, err)
		}
		count := func() (n int, problem string) {
			for _, h := range d.State().Services[0].Groups[0].Hosts[3:] {
				if len(h.Targets) > 0 {
					n++
				} else {
					problem = h.Problem
				}
			}
			return n, problem
		}
		if n, problem := count(); n != 2*maxLookups || !strings.Contains(problem, "its first look-up is not finished") {
			t.Errorf("%d hosts have joined, problem of the others: %q", n, problem)
		}
		pass(5 * time.Second)
		if n, _ := count(); n != many {
			t.Errorf("%d hosts have joined", n)
		}
		at := map[time.Duration]int{}
		for i := range many {
			at[w.asked[fmt.Sprintf("n%d", i)][0].Sub(begun).Truncate(time.Second)]++
		}
		if at[0] != maxLookups {
			t.Errorf("look-ups began at %v", at)
		}
	})
}

// Silent servers hold up neither the start nor the end beyond their bounds, and
// a name that stays silent does not keep others from being looked up.
func TestSilentNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dnsTakes = time.Hour
		begun := time.Now()
		d := start(t, w, group(`<host name="a" ip="silent:80"/>`))
		if took := time.Since(begun); took != startLookup {
			t.Errorf("the start took %v", took)
		}
		if h := only(d, 0); h.Problem != "lookup silent: no answer in time" || len(h.Targets) != 0 {
			t.Errorf("problem %q", h.Problem)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun = time.Now()
		if _, err := d.Do(ctx, Change{Apply: address(0, "mute:80")}); err != nil || time.Since(begun) != lookupTimeout {
			t.Errorf("the change took %v: %v", time.Since(begun), err)
		}
		if n := strings.Count(w.log.String(), saysLeftOut); n != 2 {
			t.Errorf("left out %d times:\n%s", n, w.log.String())
		}
	})
}

// A slow start grows to the share that the SRV record gives, and leaves backups
// what they are.
func TestSRVWithSlowStart(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		for i, name := range []string{"one.", "two.", "three."} {
			w.resolves(name, fmt.Sprintf("10.0.0.%d", i+1))
		}
		w.srv["_pg._tcp.example."] = []*net.SRV{
			{Target: "one.", Port: 1, Priority: 1, Weight: 3}, {Target: "two.", Port: 1, Priority: 1, Weight: 1}, {Target: "three.", Port: 1, Priority: 2, Weight: 9},
		}
		d := start(t, w, group(`<host name="a" ip="_pg._tcp.example." slowStart="20s"/>`))
		one := target(t, d, "g", "a", 0)
		w.fail(one)
		for !one.Status().Up {
			pass(10 * time.Millisecond)
		}
		pass(10*time.Second + 2*rampEvery)
		picked := map[string]int{}
		for range 50 {
			h, _ := w.lastPlan().Services[0].Route.Table.Pick(one.key.addr, new(sched.Tried))
			picked[h.Addr().String()]++
			h.Release(0, 0)
		}
		if picked["10.0.0.1:1"] != 30 || picked["10.0.0.2:1"] != 20 {
			t.Errorf("half-way: %v", picked)
		}
	})
}
