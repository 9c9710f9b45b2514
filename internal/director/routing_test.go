package director

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

const routedDoc = `<config><service name="web"><listen ip=":80"/>%s
	<group name="main" enable="yes"><host name="a" ip="10.0.0.1:80"/></group>
	<group name="canary"><host name="b" ip="10.0.0.2:80"/></group>
	<group name="spare"><host name="c" ip="10.0.0.3:80"/></group>
</service><manager><hostCheck interval="1" enable="true"/></manager></config>`

// goes tells to which host a client goes.
func (w *world) goes(t *testing.T, from string) string {
	t.Helper()
	r := w.lastPlan().Services[0].Route
	table := r.Table
	if r.Choose != nil {
		if id := r.Choose(engine.Asking{Client: netip.MustParseAddr(from)}); id != engine.Default {
			table = r.Groups[id]
		}
	}
	h, _ := table.Pick(sched.TCPAddr(netip.AddrPortFrom(netip.MustParseAddr(from), 9)), new(sched.Tried))
	if h == nil {
		return ""
	}
	h.Release(0, 0)
	return h.Name()
}

// Routes reach the engine. A change of health or of other routes keeps their counters
// and groups.
func TestB85RoutesFollowTheConfiguration(t *testing.T) { testkit.Bubble(t, routesFollow) }

func routesFollow(t *testing.T) {
	w := newWorld()
	d, path := startFile(t, w, fmt.Sprintf(routedDoc, `<route net="192.0.2.0/24" group="spare"/><route percent="50" group="canary"/>`))
	share := func() (n int) {
		for range 100 {
			if w.goes(t, "10.1.1.1") == "b" {
				n++
			}
		}
		return n
	}
	if got := w.goes(t, "192.0.2.1"); got != "c" {
		t.Errorf("a client of the network goes to %q", got)
	}
	if n := share(); n != 50 {
		t.Errorf("%d of 100 clients go to the canary, want 50", n)
	}
	w.goes(t, "10.1.1.1") // the counter stands at an odd number
	index := d.State().Services[0].rules
	do(t, d, func(c *config.Config) error {
		c.Services[0].Groups[1].Hosts[0].Weight = 7
		return nil
	})
	if d.State().Services[0].rules != index {
		t.Error("a change of weight made a new index")
	}
	if got := d.State().Services[0].Routed(); !slices.Equal(got, []uint64{1, 50}) {
		t.Errorf("routed: %v", got)
	}
	do(t, d, func(c *config.Config) error {
		c.Services[0].Routes = slices.Insert(c.Services[0].Routes, 0, config.Route{Nets: "198.51.100.0/24", Percent: 100, Group: "canary"})
		return nil
	})
	if got := w.goes(t, "10.1.1.1"); got != "b" {
		t.Errorf("the second of two clients goes to %q: the counter has not gone on", got)
	}
	if got := d.State().Services[0].Routed(); !slices.Equal(got, []uint64{0, 1, 51}) {
		t.Errorf("routed: %v", got)
	}

	// The file and a command each add one: both stay, each behind the one that it followed.
	writeFile(t, path, fmt.Sprintf(routedDoc, `<route net="192.0.2.0/24" group="spare"/><route net="203.0.113.0/24" group="spare"/><route percent="50" group="canary"/>`))
	if _, err := d.Reload(t.Context(), ReloadRequest{By: "tester"}); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range d.State().Config.Services[0].Routes {
		order = append(order, string(r.Nets))
	}
	if got := strings.Join(order, ", "); got != "198.51.100.0/24, 192.0.2.0/24, 203.0.113.0/24, " {
		t.Errorf("merged: %s", got)
	}

	writeFile(t, path, fmt.Sprintf(routedDoc, ""))
	if _, err := d.Reload(t.Context(), ReloadRequest{By: "tester", Discard: true}); err != nil {
		t.Fatal(err)
	}
	if w.lastPlan().Services[0].Route.Choose != nil || w.goes(t, "192.0.2.1") != "a" {
		t.Error("without routes the engine still asks")
	}
}

// A group that a route leads to takes clients: losing its last host is told at once.
func TestRoutedGroupCountsAsInUse(t *testing.T) { testkit.Bubble(t, routedGroupInUse) }

func routedGroupInUse(t *testing.T) {
	w := newWorld()
	d := start(t, w, fmt.Sprintf(routedDoc, `<route percent="5" group="canary"/>`))
	s := d.State().Services[0]
	if !s.Usable() {
		t.Error("not usable at the start")
	}
	for group, want := range map[[2]string]string{{"spare", "c"}: "all hosts of a standby group are down", {"canary", "b"}: "no usable host"} {
		host := map[string]string{"spare": "10.0.0.3:80", "canary": "10.0.0.2:80"}[group[0]]
		w.set(w.dead, host, true)
		w.fail(target(t, d, group[0], group[1], 0))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(w.log.Lines(want)) == 0 {
			t.Errorf("%s is down, and the log has no %q:\n%s", host, want, w.log.String())
		}
	}
	if s.Usable() || !s.UsableInPart() {
		t.Errorf("usable %v, in part %v", s.Usable(), s.UsableInPart())
	}
	next := d.State().Config.Clone()
	next.Services[0].Routes = append(next.Services[0].Routes, config.Route{Nets: "10.0.0.0/8", Percent: 100, Group: "spare"})
	if got := d.State().Strands(next); len(got) != 1 || !strings.Contains(got[0].String(), `group "spare" that takes clients is down: those that routes of service "web" lead there`) {
		t.Errorf("a route to a group that is down: %v", got)
	}
}

// 10,000 routes are taken in, compared and changed in reasonable time.
func TestB85ManyRoutes(t *testing.T) { testkit.Bubble(t, manyRoutes) }

func manyRoutes(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "<route sni=\"h%d.example *.h%[1]d.example\" net=\"10.0.0.0/8\" group=\"canary\"/>\n", i)
	}
	w := newWorld()
	d, path := startFile(t, w, fmt.Sprintf(routedDoc, b.String()))
	do(t, d, func(c *config.Config) error {
		c.Services[0].Routes = slices.Delete(c.Services[0].Routes, 5000, 5001)
		return nil
	})
	if got := len(d.State().Services[0].Routed()); got != 9999 {
		t.Errorf("%d routes", got)
	}
	writeFile(t, path, fmt.Sprintf(routedDoc, strings.Replace(b.String(), "canary", "spare", 1)))
	if r, err := d.Reload(t.Context(), ReloadRequest{By: "tester"}); err != nil || len(r.Changed) != 1 || len(r.Kept) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := d.Reload(t.Context(), ReloadRequest{By: "tester", Discard: true}); err != nil || len(r.Changed) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
