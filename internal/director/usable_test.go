package director

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// said compares how often the log says that no host is usable, and that one is
// again, with what is wanted.
func (w *world) said(t *testing.T, lost, found int) {
	t.Helper()
	synctest.Wait()
	if l, f := w.log.Lines(`level=ERROR msg="no usable host"`), w.log.Lines(`level=INFO msg="usable host again"`); len(l) != lost || len(f) != found {
		t.Errorf("lost %d times, want %d; found %d times, want %d:\n%s", len(l), lost, len(f), found, w.log.String())
	}
}

// However a service loses its last usable host, the log has one error, and one
// line when it has one again.
func TestNoUsableHost(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		for n := range 3 {
			w.dead[fmt.Sprintf("10.0.0.%d:80", n+1)] = true
		}
		d := start(t, w, with(""))
		set := func(n int, change func(*config.Host)) {
			t.Helper()
			edited(t, d, func(c *config.Config) { change(c.Services[0].Groups[0].Hosts[n]) })
		}
		w.said(t, 0, 0)
		w.fail(target(t, d, "g", "a", 0))
		set(1, func(h *config.Host) { h.State = "drain" })
		w.said(t, 0, 0)
		set(2, func(h *config.Host) { h.State = "maint" })
		w.said(t, 1, 0)
		if line := w.log.Lines("no usable host")[0]; !strings.Contains(line, "service=web group=g hosts=3 down=1 drain=1 maint=1 weight_0=0") {
			t.Error(line)
		}
		if d.State().Services[0].Usable() {
			t.Error("it is usable")
		}
		set(2, func(h *config.Host) { h.State = "drain" }) // no news
		time.Sleep(time.Minute)
		w.said(t, 1, 0)
		set(1, func(h *config.Host) { h.State = "ready" })
		w.said(t, 1, 1)
		if line := w.log.Lines("usable host again")[0]; !strings.Contains(line, "service=web group=g after=1m0s") {
			t.Error(line)
		}
		if !d.State().Services[0].Usable() {
			t.Error("it is not usable")
		}
		set(1, func(h *config.Host) { h.Weight = 0 })
		w.said(t, 2, 1)
		w.set(w.dead, "10.0.0.1:80", false) // a is found to be up again
		time.Sleep(2 * time.Second)
		w.said(t, 2, 2)
		// All fail at once, and come back at once.
		set(1, func(h *config.Host) { h.Weight = 1 })
		set(2, func(h *config.Host) { h.State = "ready" })
		for _, name := range []string{"a", "b", "c"} {
			target(t, d, "g", name, 0).Host.MarkDown()
			w.set(w.dead, fmt.Sprintf("10.0.0.%d:80", name[0]-'a'+1), true)
		}
		time.Sleep(2 * time.Second)
		w.said(t, 3, 2)
		for n := range 3 {
			w.set(w.dead, fmt.Sprintf("10.0.0.%d:80", n+1), false)
		}
		time.Sleep(2 * time.Second)
		w.said(t, 3, 3)
		edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts = nil })
		w.said(t, 4, 3)
	})
}

// A service that is new says nothing before its hosts are there and, where they
// wait for a check, before that has ended. A standby group is no error.
func TestNoUsableHostOfANewService(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dead["10.0.1.1:80"], w.dead["10.0.1.2:80"] = true, true
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g" start="down" enable="yes"><check/><host name="a" ip="10.0.0.1:80"/></group>
			<group name="spare"><check/><host name="b" ip="10.0.1.1:80"/></group></service></config>`)
		if d.State().Services[0].Usable() {
			t.Error("usable before a check")
		}
		time.Sleep(3 * time.Second)
		w.said(t, 0, 0)
		if !d.State().Services[0].Usable() || len(w.log.Lines("level=WARN msg=\"all hosts of a standby group are down\"")) != 1 {
			t.Errorf("the service, or its standby group, is not as it should be:\n%s", w.log.String())
		}
		edited(t, d, func(c *config.Config) {
			s := config.NewService("new")
			s.Listen = []config.Listen{{Address: ":2"}}
			c.Services = append(c.Services, s)
		})
		edited(t, d, func(c *config.Config) {
			g := config.NewGroup("g")
			g.Enabled, g.StartDown, g.Check = true, true, config.NewHealthCheck()
			c.Services[1].Groups = []*config.Group{g}
		})
		w.said(t, 0, 0)
		edited(t, d, func(c *config.Config) {
			c.Services[1].Groups[0].Hosts = []*config.Host{config.NewHost("x", "10.0.1.2:80")}
		})
		w.said(t, 0, 0)
		time.Sleep(time.Second)
		w.said(t, 1, 0) // the check has failed
		w.set(w.dead, "10.0.1.2:80", false)
		time.Sleep(5 * time.Second)
		w.said(t, 1, 1)
		edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true })
		w.said(t, 2, 1)
	})
}

// What a change would do to the clients is known before it is made.
func TestStrands(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dead["10.0.0.2:80"] = true
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g"><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/></group></service>
			<service name="other"><listen ip=":2"/><group name="g"><host name="a" ip="10.0.0.9:80"/></group></service></config>`)
		w.fail(target(t, d, "g", "b", 0))
		for want, change := range map[string]func(g *config.Group){
			"":                             func(g *config.Group) { g.Hosts[1].State = "maint" },
			" ":                            func(g *config.Group) { g.Hosts[0].Address = "10.0.0.3:80" },
			"  ":                           func(g *config.Group) { g.Hosts[1].Address = "10.0.0.3:80"; g.Hosts[0].Weight = 0 },
			"   ":                          func(g *config.Group) { g.Hosts[0], g.Hosts[1] = g.Hosts[1], g.Hosts[0] },
			"    ":                         func(g *config.Group) { g.Hosts = append(g.Hosts[1:], config.NewHost("c", "10.0.0.3:80")) },
			"tried":                        func(g *config.Group) { g.Hosts[0].State = "drain" },
			"tried ":                       func(g *config.Group) { g.Hosts = g.Hosts[1:] },
			"tried on hosts that are down": func(g *config.Group) { g.Hosts[0].Weight = 0 },
			"that takes clients is down: those of service \"web\" will be rejected": func(g *config.Group) { g.Hosts[0].State, g.AllDown = "drain", "refuse" },
			"is down": func(g *config.Group) { g.Hosts[0].Address, g.StartDown = "10.0.0.3:80", true },
			"no host of group \"g\" takes clients: those of service \"web\" will be rejected": func(g *config.Group) { g.Hosts[0].State, g.Hosts[1].Weight = "maint", 0 },
			"no host of group \"g\"": func(g *config.Group) { g.Hosts = nil },
			"has no group":           func(g *config.Group) { g.Enabled = false },
		} {
			c := d.State().Config.Clone()
			change(c.Services[0].Groups[0])
			list := d.State().Strands(c)
			got := fmt.Sprint(list)
			if want = strings.TrimSpace(want); (len(list) == 0) != (want == "") || !strings.Contains(got, want) {
				t.Errorf("got %s, want %q", got, want)
			}
		}
	})
}

// The log says why clients are rejected: at once, and then how many every ten
// seconds, by service and reason.
func TestRejectedClientsAreLogged(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		start(t, w, with(""))
		second := func(n int) {
			for range n {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		lines := func(want ...string) {
			t.Helper()
			got := w.log.Lines(`level=WARN msg="clients `)
			for i, line := range got {
				_, got[i], _ = strings.Cut(line, "msg=")
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		second(60)
		lines()
		w.rejects("web", "no_host", 7)
		second(1)
		one := `"clients rejected" service=web reason=no_host clients=7`
		lines(one)
		for range 9 {
			w.rejects("web", "no_host", 200)
			second(1)
		}
		lines(one)
		w.rejects("web", "resource", 1)
		second(1)
		two := `"clients rejected" service=web reason=no_host clients=1800`
		three := `"clients rejected" service=web reason=resource clients=1`
		got := w.log.Lines(`level=WARN msg="clients `)
		if len(got) != 3 || !strings.Contains(w.log.String(), two) || !strings.Contains(w.log.String(), three) {
			t.Errorf("log:\n%s", w.log.String())
		}
		second(600) // silence
		if n := len(w.log.Lines("clients rejected")); n != 3 {
			t.Errorf("%d lines", n)
		}
		// Very many services are summed up.
		for n := range 100 {
			w.rejects(fmt.Sprint("s", n), "no_host", 2)
		}
		second(1)
		if n := len(w.log.Lines(`"clients rejected"`)); n != 3+maxRejected || len(w.log.Lines(`"clients of other services rejected" services=90 clients=180`)) != 1 {
			t.Errorf("log:\n%s", w.log.String())
		}
	})
}
