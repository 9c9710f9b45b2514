package director

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// sessionOf makes a session of client number n, and returns the name of its host.
func (w *world) sessionOf(n int) string {
	client := sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 1000))
	var tried sched.Tried
	defer tried.Reset()
	h, _ := w.lastPlan().Services[0].Route.Table.Pick(client, &tried)
	if h == nil {
		return ""
	}
	defer h.Release(0, 0)
	return h.Name()
}

// What a group remembers of its clients outlives health, reloads, other settings, other
// schedulers that are sticky, and a while as a standby group.
func TestB40StickyOutlivesChanges(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="roundr,sticky" stickyFor="1h" enable="yes">
			<host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/><host name="c" ip="10.0.0.3:80"/></group>
			<group name="other"><host name="x" ip="10.0.0.9:80"/></group></service></config>`)
		const clients = 30
		var hosts [clients]string
		for n := range clients {
			hosts[n] = w.sessionOf(n)
		}
		same := func(when string, but ...string) {
			t.Helper()
			for n := range clients {
				if h := w.sessionOf(n); h != hosts[n] && !slices.Contains(but, hosts[n]) {
					t.Errorf("%s: client %d has host %s and had %s", when, n, h, hosts[n])
				}
			}
		}
		change := func(what func(c *config.Config, g *config.Group)) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				what(c, c.Services[0].Groups[0])
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
		}
		remembered := func() int { return d.State().Services[0].Groups[0].Sticky.Len() }
		same("at first")
		change(func(_ *config.Config, g *config.Group) { g.MaxFails = 3 })
		same("another setting")
		change(func(_ *config.Config, g *config.Group) { g.Scheduler = "leastc,sticky" })
		same("another scheduler")
		change(func(_ *config.Config, g *config.Group) { g.StickySize, g.StickyFor = 50, 2*time.Hour })
		if s := d.State().Services[0].Groups[0].Sticky; s.Size() != 50 {
			t.Errorf("there is room for %d clients", s.Size())
		}
		same("another size")
		change(func(_ *config.Config, g *config.Group) { g.Hosts = append(g.Hosts, config.NewHost("d", "10.0.0.4:80")) })
		same("another host")
		change(func(c *config.Config, g *config.Group) { g.Enabled, c.Services[0].Groups[1].Enabled = false, true })
		if h := w.sessionOf(1); h != "x" {
			t.Errorf("the other group's host is %s", h)
		}
		change(func(c *config.Config, g *config.Group) { g.Enabled, c.Services[0].Groups[1].Enabled = true, false })
		same("back from standby")

		change(func(_ *config.Config, g *config.Group) { g.Hosts[0].State = "drain" })
		for n := range clients {
			if hosts[n] == "a" && n%2 == 0 && w.sessionOf(n) == "a" {
				t.Errorf("client %d has a host in drain", n)
			}
		}
		change(func(_ *config.Config, g *config.Group) { g.Hosts[0].State = "ready" })
		for n := range clients {
			if h := w.sessionOf(n); hosts[n] == "a" && (n%2 == 0) == (h == "a") {
				t.Errorf("client %d, which came during the drain or not, has host %s after it", n, h)
			}
		}

		// A host with another address is another host; so is one that has the name.
		change(func(_ *config.Config, g *config.Group) { g.Hosts[1].Address = "10.0.0.8:80" })
		moved := 0
		for n := range clients {
			if hosts[n] == "b" && w.sessionOf(n) != "b" {
				moved++
			}
		}
		if moved == 0 {
			t.Error("a host with another address has kept all its clients")
		}
		same("another address of b", "a", "b")

		time.Sleep(2*time.Hour - time.Minute)
		synctest.Wait()
		if n := remembered(); n != clients {
			t.Errorf("%d clients are remembered, want %d", n, clients)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if n := remembered(); n != 0 {
			t.Errorf("%d clients are remembered after their time", n)
		}
		change(func(_ *config.Config, g *config.Group) { g.Scheduler = "leastc" })
		if d.State().Services[0].Groups[0].Sticky != nil {
			t.Error("a scheduler that is not sticky remembers clients")
		}
	})
}

// Every node maps clients alike, also while hosts are down, and a change of health makes
// no new table of slots: it would take too long with many hosts.
func TestB40MaglevThroughTheDirector(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		doc := `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="maglev">`
		for i := range 100 {
			doc += fmt.Sprintf(`<host name="h%d" ip="10.0.0.%d:80"/>`, i, i+1)
		}
		doc += `</group></service></config>`
		one, two := newWorld(), newWorld()
		d := start(t, one, doc)
		start(t, two, doc)
		down := d.State().Services[0].Groups[0].Hosts[7]
		before := map[int]string{}
		for n := range 256 {
			before[n] = one.sessionOf(n)
			if other := two.sessionOf(n); other != before[n] {
				t.Fatalf("client %d has %s on one node and %s on the other", n, before[n], other)
			}
		}
		one.set(one.dead, "10.0.0.8:80", true)
		one.fail(down.Targets[0])
		synctest.Wait()
		for n := range 256 {
			if h := one.sessionOf(n); h == down.Config.Name || before[n] != down.Config.Name && h != before[n] {
				t.Errorf("client %d of %s has %s", n, before[n], h)
			}
		}
	})
}

// Clients of a backup come back to it, but not where it has to give them up.
func TestB40StickyAndBackups(t *testing.T) {
	for how, want := range map[string]string{"keep": "b", "shutdown": "a"} {
		testkit.Bubble(t, func(t *testing.T) {
			w := newWorld()
			d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" scheduler="leastc,sticky" onMarkedUp="`+how+`">
				<check interval="1s" rise="1"/><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80" backup="yes"/></group></service></config>`)
			w.set(w.dead, "10.0.0.1:80", true)
			w.fail(d.State().Services[0].Groups[0].Hosts[0].Targets[0])
			synctest.Wait()
			if h := w.sessionOf(1); h != "b" {
				t.Fatalf("the client has host %s", h)
			}
			w.set(w.dead, "10.0.0.1:80", false)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if h := w.sessionOf(1); h != want {
				t.Errorf("onMarkedUp=%q: the client has host %s, want %s", how, h, want)
			}
		})
	}
}
