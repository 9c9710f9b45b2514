package director

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// checked is three hosts in a group with a check and more in it.
func checked(check, group string) string {
	return fmt.Sprintf(`<config><service name="web"><listen ip=":1"/><group name="g" scheduler="roundr" %s><check %s/>
		<host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/><host name="c" ip="10.0.0.3:80"/></group></service></config>`, group, check)
}

// nextProbe waits until an address is probed once more and the result is in.
// It returns when the probe began.
func (w *world) nextProbe(t *testing.T, addr string) time.Time {
	t.Helper()
	n := w.probed(addr)
	for range 100_000 {
		if w.probed(addr) > n {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.probes[addr][n]
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	t.Fatalf("%s is not probed", addr)
	return time.Time{}
}

// B45: rise and fall are exact, and so are the intervals: the usual one, the
// fast one on the way up or down, and that of hosts that are down.
func TestB45RiseAndFallAreExact(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		const usual, fast, down = 2 * time.Second, 500 * time.Millisecond, 8 * time.Second
		const addr = "10.0.0.1:80"
		w := newWorld()
		d := start(t, w, checked(`interval="2s" fastInterval="500ms" downInterval="8s" rise="3" fall="4"`, ""))
		a := target(t, d, "g", "a", 0)
		if s := a.Status(); !s.Up || s.Check.Code != health.Unknown || s.Progress() != "1/4" {
			t.Errorf("at the start: %+v, %s", s, s.Progress())
		}
		last := w.nextProbe(t, addr)
		step := func(dead bool, every time.Duration, up bool, progress string) {
			t.Helper()
			w.set(w.dead, addr, dead)
			at := w.nextProbe(t, addr)
			if gap := at.Sub(last); gap > every || gap < every*7/10 {
				t.Errorf("%v between probes, want a little less than %v", gap, every)
			}
			last = at
			s := a.Status()
			if s.Up != up || a.Host.Up() != up || s.Progress() != progress {
				t.Errorf("up %v (%v), progress %q; want %v, %q", s.Up, a.Host.Up(), s.Progress(), up, progress)
			}
			if want := map[bool]health.Code{false: health.L4OK, true: health.L4Con}[dead]; s.Check.Code != want || s.Checked.Before(at) {
				t.Errorf("the last check is %v", s.Check)
			}
		}
		for range 2 {
			step(false, usual, true, "")
			step(true, usual, true, "3/4")
			step(true, fast, true, "2/4")
			step(true, fast, true, "1/4")
			step(false, fast, true, "") // one success in between begins again
			step(true, usual, true, "3/4")
			step(true, fast, true, "2/4")
			step(true, fast, true, "1/4")
			step(true, fast, false, "")
			if names, _ := w.picks(); names != "bc" {
				t.Errorf("hosts %s", names)
			}
			step(true, down, false, "")
			step(false, down, false, "1/3")
			step(false, fast, false, "2/3")
			step(true, fast, false, "")
			step(false, down, false, "1/3")
			step(false, fast, false, "2/3")
			step(false, fast, true, "")
			if names, _ := w.picks(); names != "abc" {
				t.Errorf("hosts %s", names)
			}
		}
		if n := strings.Count(w.log.String(), `msg="host down"`); n != 2 || !strings.Contains(w.log.String(), `reason="connection refused" check=L4CON`) {
			t.Errorf("log:\n%s", w.log.String())
		}
		counted := map[string]uint64{}
		for code, n := range only(d, 0).Checks() {
			counted[code] = n
		}
		if n := w.probed(addr); counted["L4OK"]+counted["L4CON"] != uint64(n) || counted["L4CON"] != 2*9 || len(counted) != 2 {
			t.Errorf("counted %v of %d", counted, n)
		}
	})
}

// B45: a host that has passed no check yet goes down with the first failure;
// after the first success it takes as many as fall says.
func TestB45FirstFailureOfANewHost(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dead["10.0.0.1:80"] = true
		d := start(t, w, checked(`interval="10s"`, ""))
		if names, _ := w.picks(); names != "abc" {
			t.Errorf("hosts %s before any check", names)
		}
		w.nextProbe(t, "10.0.0.1:80")
		if a := target(t, d, "g", "a", 0); a.Status().Up || w.probed("10.0.0.1:80") != 1 {
			t.Errorf("%+v after %d probes", a.Status(), w.probed("10.0.0.1:80"))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.set(w.dead, "10.0.0.2:80", true)
		w.nextProbe(t, "10.0.0.2:80")
		if b := target(t, d, "g", "b", 0).Status(); !b.Up || b.Progress() != "2/3" {
			t.Errorf("%+v after a success and a failure", b)
		}
	})
}

// A failed connect of a client takes a host out at once, and then it takes as
// many successes as rise says to bring it back. A success that was under way
// counts for nothing.
func TestFailedConnectsInACheckedGroup(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, checked(`interval="2s" rise="2"`, ""))
		a := target(t, d, "g", "a", 0)
		w.nextProbe(t, "10.0.0.1:80")
		w.fail(a)
		if s := a.Status(); s.Up || s.Reason != "connect: connection refused" {
			t.Errorf("%+v", s)
		}
		w.nextProbe(t, "10.0.0.1:80")
		if s := a.Status(); s.Up || s.Progress() != "1/2" || s.Reason != "connect: connection refused" {
			t.Errorf("%+v after one success", s)
		}
		w.nextProbe(t, "10.0.0.1:80")
		if !a.Status().Up || !a.Host.Up() {
			t.Errorf("%+v after two", a.Status())
		}
	})
}

func TestMaxFails(t *testing.T) {
	for group, want := range map[string]int{
		`maxFails="3" failWindow="10s"`: 3,
		`maxFails="1"`:                  1,
		`maxFails="0"`:                  0,
	} {
		t.Run(group, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				d := start(t, w, checked("", group))
				a := target(t, d, "g", "a", 0)
				for n := 1; n <= 10; n++ {
					w.fail(a)
					if up := want == 0 || n < want; a.Status().Up != up || a.Host.Up() != up {
						t.Fatalf("after %d failures: %+v", n, a.Status())
					}
				}
				// It may be changed while it runs.
				_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
					c.Services[0].Groups[0].MaxFails = 2
					return nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				b := target(t, d, "g", "b", 0)
				w.fail(b)
				if !b.Status().Up {
					t.Error("down after one of two failures")
				}
				w.fail(b)
				if b.Status().Up {
					t.Error("up after two of two failures")
				}
			})
		})
	}
}

// A group with a check is probed by that alone; one without by the manager.
func TestCheckTakesTheManagersPlace(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/>
			<group name="g" enable="yes"><check interval="20s"/><host name="a" ip="10.0.0.1:80"/><host name="x" ip="10.0.0.9:80"/></group>
			<group name="idle"><check interval="20s"/><host name="a" ip="10.0.0.2:80"/></group>
			<group name="old"><host name="a" ip="10.0.0.3:80"/><host name="b" ip="10.0.0.4:80"/></group>
			</service><manager><hostCheck interval="1"/><heartbeat interval="1" enable="yes"/></manager></config>`)
		time.Sleep(200 * time.Second)
		synctest.Wait()
		for addr, want := range map[string][2]int{"10.0.0.1:80": {9, 13}, "10.0.0.2:80": {9, 13}, "10.0.0.3:80": {200, 260}} {
			if n := w.probed(addr); n < want[0] || n > want[1] {
				t.Errorf("%s was probed %d times, want %v", addr, n, want)
			}
		}
		// Nor does hostCheck bring back what is down, and none of it needs the
		// manager.
		w.set(w.dead, "10.0.0.1:80", true)
		w.fail(target(t, d, "g", "a", 0))
		n := w.probed("10.0.0.1:80")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if w.probed("10.0.0.1:80") > n+1 {
			t.Error("hostCheck probes a host of a group with a check")
		}
		_, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
			c.Services[0].Groups[0].Check.Interval = time.Second
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		n = w.probed("10.0.0.1:80")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.probed("10.0.0.1:80") - n; got < 10 {
			t.Errorf("%d probes in 10 s after the interval was changed to 1 s", got)
		}
	})
}

// What is asked is what the configuration says.
func TestCheckAsksWhatTheConfigurationSays(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		asked := make(chan health.Probe, 1000)
		ask := func(_ context.Context, p health.Probe) health.Result {
			asked <- p
			return health.Result{Code: health.L7OK}
		}
		w := newWorld()
		c, problems := config.Parse("", []byte(`<config><service name="web"><listen ip=":1"/><group name="g">
			<check type="http" interval="3s" timeout="5s" port="81" path="/s" host="h.example" status="200,300-302" send="a\n" expect="\x01"/>
			<host ip="[::1]:80"/></group></service></config>`))
		if c == nil {
			t.Fatal(problems)
		}
		startWith(t, w, c, ask)
		p := <-asked
		if got := p.Addr.String(); got != "[::1]:81" || p.Type != health.HTTP || p.Path != "/s" || p.Host != "h.example" ||
			!slices.Equal(p.Status, []health.Status{{Low: 200, High: 200}, {Low: 300, High: 302}}) || p.Send != "a\n" || p.Expect != "\x01" {
			t.Errorf("asked %+v", p)
		}
		// The interval bounds the connect, the time-out the whole.
		if p.Timeout != 5*time.Second || p.Connect >= 3*time.Second || p.Connect < 2900*time.Millisecond {
			t.Errorf("within %v, connected within %v", p.Timeout, p.Connect)
		}
	})
}

// B48 with checks: however rarely hosts are checked, while all are down it is
// at most a second apart, and rise is exact all the same.
func TestB48AllDownInACheckedGroup(t *testing.T) {
	for name, silent := range map[string]bool{"refusing": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				for n := range 3 {
					w.set(map[bool]map[string]bool{false: w.dead, true: w.slow}[silent], fmt.Sprintf("10.0.0.%d:80", n+1), true)
				}
				d := start(t, w, checked(`interval="20s" downInterval="60s" timeout="10s" rise="2"`, ""))
				for _, h := range []string{"a", "b", "c"} {
					w.fail(target(t, d, "g", h, 0))
				}
				if names, v := w.picks(); names != "abc" || v != sched.LastResort {
					t.Errorf("hosts %s, verdict %v", names, v)
				}
				time.Sleep(11 * time.Second) // a probe that began before may take its time
				synctest.Wait()
				w.mu.Lock()
				clear(w.probes)
				w.mu.Unlock()
				last := time.Now()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				for addr, times := range w.probes {
					for i, at := range times {
						if i > 0 && at.Sub(times[i-1]) > time.Second || i == 0 && at.Sub(last) > time.Second {
							t.Errorf("%s: probe %d too late", addr, i)
						}
					}
					if len(times) < 30 {
						t.Errorf("%s was probed %d times in 30 s", addr, len(times))
					}
				}
				w.set(w.dead, "10.0.0.2:80", false)
				w.set(w.slow, "10.0.0.2:80", false)
				b := target(t, d, "g", "b", 0)
				for b.Status().Check.Code != health.L4OK {
					w.nextProbe(t, "10.0.0.2:80")
				}
				if s := b.Status(); s.Up || s.Progress() != "1/2" {
					t.Errorf("after one success: %+v", s)
				}
				w.nextProbe(t, "10.0.0.2:80")
				if names, v := w.picks(); names != "b" || v != sched.Picked {
					t.Errorf("hosts %s, verdict %v", names, v)
				}
			})
		})
	}
}

// B26: backups take clients only while no other host is left, by checks too,
// and when they are down as well, all are the last resort.
func TestB26BackupsOnlyWhenNoOtherIsLeft(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="roundr"><check interval="1s" rise="1" fall="1"/>
			<host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/>
			<host name="y" ip="10.0.0.8:80" backup="yes"/><host name="z" ip="10.0.0.9:80" backup="yes"/></group></service></config>`)
		first := func() string {
			var names []string
			for range 8 {
				var tried sched.Tried
				h, _ := w.lastPlan().Services[0].Route.Table.Pick(sched.Addr{}, &tried)
				h.Release(0, 0)
				names = append(names, h.Name())
			}
			slices.Sort(names)
			return strings.Join(slices.Compact(names), "")
		}
		for _, step := range []struct{ dead, want string }{
			{"", "ab"}, {"1", "b"}, {"12", "yz"}, {"129", "y"}, {"1289", "abyz"}, {"128", "z"}, {"28", "a"}, {"8", "ab"}, {"12", "yz"}, {"", "ab"},
		} {
			for _, n := range "1289" {
				w.set(w.dead, fmt.Sprintf("10.0.0.%c:80", n), strings.ContainsRune(step.dead, n))
			}
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if got := first(); got != step.want {
				t.Errorf("with %s dead: hosts %s, want %s", step.dead, got, step.want)
			}
		}
		if n := strings.Count(w.log.String(), "msg=\"no usable host\""); n != 1 {
			t.Errorf("said %d times that all are down", n)
		}
		_ = d
	})
}

// B47: a thousand hosts are not checked at the same moment, from the start on,
// and silent ones not more than so many at once.
func TestB47ChecksDoNotStampede(t *testing.T) {
	for name, silent := range map[string]bool{"answering": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				hosts, addrs := many(1000)
				var now, most atomic.Int64
				c, problems := config.Parse("", []byte(`<config><service name="web"><listen ip=":1"/><group name="g"><check interval="2s"/>`+hosts+`</group></service></config>`))
				if c == nil {
					t.Fatal(problems)
				}
				for _, addr := range addrs {
					w.slow[addr] = silent
				}
				startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
					if n := now.Add(1); n > most.Load() {
						most.Store(n) // one too few now and then does no harm
					}
					defer now.Add(-1)
					return w.probe(ctx, p)
				})
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if most.Load() > maxProbes {
					t.Errorf("%d probes at once", most.Load())
				}
				if silent {
					return
				}
				moments := map[time.Time]int{}
				for _, addr := range addrs {
					if n := w.probed(addr); n < 10 || n > 14 {
						t.Fatalf("%s was probed %d times in 20 s", addr, n)
					}
					for _, at := range w.probes[addr] {
						moments[at.Truncate(100*time.Millisecond)]++
					}
				}
				// 56 probes each 100 ms, or so.
				for at, n := range moments {
					if n > 150 {
						t.Errorf("%d probes in 100 ms, %v", n, at)
					}
				}
			})
		})
	}
}

// The whole way on real sockets: a host that closes goes down, one that opens
// comes back, and nothing is left of the probes. Who hears of it finds at once that a probe has
// found it, as the nodes of a fleet do, see Finding.
func TestChecksOnRealSockets(t *testing.T) {
	hold := func(addr string) *net.TCPListener {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return ln.(*net.TCPListener)
	}
	one, two := hold("127.0.0.1:0"), hold(testkit.Nobody(t)) // which stays free while nobody listens
	defer func() { _ = one.Close() }()
	w := newWorld()
	c, problems := config.Parse("", fmt.Appendf(nil, `<config><service name="web"><listen ip=":1"/><group name="g"><check interval="10ms" fall="2"/>
		<host name="a" ip="%s"/><host name="b" ip="%s"/></group></service></config>`, one.Addr(), two.Addr()))
	if c == nil {
		t.Fatal(problems)
	}
	var d *Director
	heard := 0
	d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Notify: func(n Notice) {
		heard++
		if s, fresh := d.State().Services[0].Groups[0].Finding(target(t, d, "g", n.Host, 0), time.Now()); !fresh || s.Up != (n.Kind == HostUp) {
			t.Errorf("%s %s: up %v, found by a probe: %v", n.Host, n.Reason, s.Up, fresh)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	until := func(what string, is func(a, b Status) bool) {
		t.Helper()
		testkit.Eventually(t, what, func() bool {
			return is(target(t, d, "g", "a", 0).Status(), target(t, d, "g", "b", 0).Status())
		})
	}
	until("both pass", func(a, b Status) bool {
		return a.Up && b.Up && a.Check.Code == health.L4OK && b.Check.Code == health.L4OK
	})
	addr := two.Addr().String()
	_ = two.Close()
	until("b goes", func(a, b Status) bool { return a.Up && !b.Up && b.Check.Code == health.L4Con })
	two = hold(addr)
	defer func() { _ = two.Close() }()
	until("b comes back", func(a, b Status) bool { return a.Up && b.Up })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if heard < 2 {
		t.Errorf("%d changes were heard of", heard)
	}
}
