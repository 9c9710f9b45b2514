package director

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// many writes n hosts of the addresses 10.1.x.y:80.
func many(n int) (hosts string, addrs []string) {
	var b strings.Builder
	for i := range n {
		addr := fmt.Sprintf("10.1.%d.%d:80", i/200, i%200)
		fmt.Fprintf(&b, `<host name="h%d" ip="%s"/>`, i, addr)
		addrs = append(addrs, addr)
	}
	return b.String(), addrs
}

// More silent hosts than there are probes at once, all of them urgent, keep no
// other host from being probed: not one of theirs, not that of another group.
func TestSilentHostsStarveNobody(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		hosts, addrs := many(5 * maxProbes)
		for _, addr := range addrs {
			w.slow[addr] = true
		}
		d := start(t, w, `<config><service name="silent"><listen ip=":1"/><group name="g">`+hosts+`</group></service>
			<service name="other"><listen ip=":2"/><group name="g">
			<host name="x" ip="10.0.0.1:80"/><host name="y" ip="10.0.0.2:80"/></group></service></config>`)
		for _, h := range d.State().Services[0].Groups[0].Hosts {
			h.Targets[0].Host.Fail()
		}
		x := d.State().Services[1].Groups[0].Hosts[0].Targets[0]
		x.Host.Fail()
		// Every host waits for five rounds of a second at most.
		time.Sleep(time.Minute)
		synctest.Wait()
		if !x.Status().Up {
			t.Error("a host that answers has not come back")
		}
		for _, addr := range addrs {
			if n := w.probed(addr); n < 60/5-2 {
				t.Fatalf("%s was probed %d times in a minute", addr, n)
			}
		}
	})
}

// B47: at most so many probes at once, and not all hosts at the same moment.
func TestB47ProbesDoNotStampede(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		hosts, addrs := many(1000)
		start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g">`+hosts+`</group></service>
			<manager><heartbeat interval="60" enable="yes"/></manager></config>`)
		time.Sleep(time.Minute)
		synctest.Wait()
		seconds := map[time.Time]int{}
		for _, addr := range addrs {
			if n := w.probed(addr); n != 1 {
				t.Fatalf("%s was probed %d times in the first minute", addr, n)
			}
			seconds[w.probes[addr][0].Truncate(time.Second)]++
		}
		// The twelve seconds that the jitter gives have 83 probes each, or so.
		for at, n := range seconds {
			if n > 250 {
				t.Errorf("%d probes in one second, %v", n, at)
			}
		}
	})
}

// B45 and B48: intervals go from start to start, so that probes that time out
// come no later than others.
func TestB45SilentHostsAreProbedInTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		a := target(t, d, "g", "a", 0)
		w.set(w.slow, "10.0.0.1:80", true)
		w.fail(a)
		last := time.Now()
		check := func(what string, during, every time.Duration) {
			t.Helper()
			time.Sleep(during)
			synctest.Wait()
			w.mu.Lock()
			times := slices.Clone(w.probes["10.0.0.1:80"])
			clear(w.probes)
			w.mu.Unlock()
			if len(times) < int(during/every) {
				t.Errorf("%s: %d probes in %v", what, len(times), during)
			}
			for _, at := range times {
				if at.Sub(last) > every {
					t.Errorf("%s: %v between probes", what, at.Sub(last))
				}
				last = at
			}
		}
		check("one host down", time.Minute, 10*time.Second)
		for i, h := range []string{"b", "c"} {
			w.set(w.slow, fmt.Sprintf("10.0.0.%d:80", i+2), true)
			w.fail(target(t, d, "g", h, 0))
		}
		time.Sleep(probeTimeout + time.Second) // a probe may have been under way
		synctest.Wait()
		last = time.Now()
		check("all down", time.Minute, time.Second)
	})
}

// B48 where a host of weight 0 is up: it serves nobody.
func TestB48WeightZeroServesNobody(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g">
			<host name="a" ip="10.0.0.1:80"/><host name="z" weight="0" ip="10.0.0.2:80"/></group></service>
			<manager><hostCheck enable="no"/></manager></config>`)
		w.fail(target(t, d, "g", "a", 0))
		if names, v := w.picks(); names != "a" || v != sched.LastResort {
			t.Errorf("hosts %s, verdict %v", names, v)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !target(t, d, "g", "a", 0).Status().Up {
			t.Error("the only host that serves has not come back")
		}
		// Nor does its end make a difference.
		w.set(w.dead, "10.0.0.1:80", true)
		w.fail(target(t, d, "g", "a", 0))
		w.fail(target(t, d, "g", "z", 0))
		if n := strings.Count(w.log.String(), "msg=\"no usable host\""); n != 2 {
			t.Errorf("said %d times that all are down:\n%s", n, w.log.String())
		}
	})
}

// A probe that began before a client's connect failed says nothing about the
// host after it.
func TestProbeOlderThanTheFailure(t *testing.T) {
	for name, report := range map[string]bool{"reported": true, "not reported": false} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				c, problems := config.Parse("c.xml", []byte(with(`<manager><hostCheck enable="no"/><heartbeat interval="20" enable="yes"/></manager>`)))
				if c == nil {
					t.Fatal(problems)
				}
				const takes = 500 * time.Millisecond
				d := startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
					_ = w.probe(ctx, p)
					time.Sleep(takes)
					return health.Result{Code: health.L4OK}
				})
				for w.probed("10.0.0.1:80") == 0 {
					time.Sleep(takes / 5)
				}
				a := target(t, d, "g", "a", 0)
				if report {
					w.fail(a)
				} else {
					a.Host.Fail()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if a.Status().Up || a.Host.Up() {
					t.Error("the host is back")
				}
				if n := strings.Count(w.log.String(), "host down"); n != 1 || strings.Contains(w.log.String(), "host up") {
					t.Errorf("log:\n%s", w.log.String())
				}
			})
		})
	}
}

// B30: probes that fail for want of a descriptor take no host out.
func TestB30OurOwnFaultsTakeNoHostOut(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, problems := config.Parse("c.xml", []byte(with(`<manager><heartbeat interval="1" enable="yes"/></manager>`)))
		if c == nil {
			t.Fatal(problems)
		}
		d := startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
			_ = w.probe(ctx, p)
			return health.Result{Code: health.SockErr, Text: "too many open files"}
		})
		b := target(t, d, "g", "b", 0)
		w.fail(b)
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.probed("10.0.0.1:80") < 60 || w.probed("10.0.0.2:80") < 6 {
			t.Error("too few probes")
		}
		if !target(t, d, "g", "a", 0).Status().Up || b.Status().Up {
			t.Error("a probe that could not be made has changed a host")
		}
	})
}

// BenchmarkStartProbes is one look at what is due, where nothing is: at all hosts, and without
// that.
func BenchmarkStartProbes(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hosts, _ := many(n)
			c, problems := config.Parse("", []byte(`<config><service name="web"><listen ip=":1"/><group name="g">`+hosts+`</group></service>
				<manager><heartbeat interval="3600" enable="yes"/></manager></config>`))
			if c == nil {
				b.Fatal(problems)
			}
			d, err := New(c, newWorld(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			for name, all := range map[string]bool{"all": true, "soon": false} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						if d.swept = (time.Time{}); all {
							d.soon.forget()
						}
						d.startProbes(b.Context(), now)
					}
				})
			}
		})
	}
}

// However many results come in, what is due is looked at a hundred times a
// second at most: ten thousand hosts that are all down would take a core.
func TestLooksAreFew(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(`<manager><hostCheck interval="0.001"/></manager>`))
		for i, h := range []string{"a", "b", "c"} {
			w.set(w.dead, fmt.Sprintf("10.0.0.%d:80", i+1), true)
			w.fail(target(t, d, "g", h, 0))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.probed("10.0.0.1:80"); n < 90 || n > 101 {
			t.Errorf("%d probes in a second", n)
		}
	})
}
