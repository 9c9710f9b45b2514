package director

import (
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// The times of a group outlive its hosts, its neighbours and the rules of
// <manager>: a histogram never counts backwards while its group is there.
func TestTimesOutliveHosts(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, `<config><service name="web"><listen ip=":1"/>
			<group name="g" enable="yes"><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/></group>
			<group name="h"><host name="a" ip="10.0.0.1:80"/></group></service></config>`)
		group := func(i int) *Group { return d.State().Services[0].Groups[i] }
		times := group(0).Times
		if times == nil || times == group(1).Times {
			t.Fatal("two groups count together, or one not at all")
		}
		times.Connected(0, time.Second)
		for name, edit := range map[string]func(*config.Config){
			"another weight":   func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].Weight = 7 },
			"a host that went": func(c *config.Config) { c.Services[0].Groups[0].Hosts = c.Services[0].Groups[0].Hosts[1:] },
			"a host that came": func(c *config.Config) {
				c.Services[0].Groups[0].Hosts = append(c.Services[0].Groups[0].Hosts, config.NewHost("c", "10.0.0.3:80"))
			},
			"another <manager>": func(c *config.Config) { c.Manager.HostCheck.Interval += time.Second },
		} {
			if _, err := d.Do(t.Context(), Change{By: "test", Verb: name, Apply: func(c *config.Config) error { edit(c); return nil }}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			g := group(0)
			if g.Times != times {
				t.Errorf("after %s the group counts again", name)
			}
			for _, h := range g.Hosts {
				for _, target := range h.Targets {
					if target.Host.Times() != times {
						t.Errorf("after %s host %s counts elsewhere", name, h.Config.Name)
					}
				}
			}
		}
	})
}
