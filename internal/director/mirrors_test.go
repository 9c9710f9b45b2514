package director

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// mirrorsOf returns the mirrors of the only table.
func mirrorsOf(w *world) []sched.MirrorShare {
	return w.lastPlan().Services[0].Route.Table.Mirrors()
}

// Mirrors are in the tables of their group, their names are looked up as those of hosts, and
// they keep their counters as long as their address stays.
func TestMirrors(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.resolves("copy", "10.0.0.8", "10.0.0.9")
		d := start(t, w, group(`<host name="a" ip="10.0.0.1:80"/><mirror ip="copy:81" percent="5" proxyProtocol="v2"/><mirror ip="unix:/m"/><mirror ip="later:1"/><mirror ip="10.0.0.7:1" percent="0"/>`))
		is := mirrorsOf(w)
		if len(is) != 3 || is[0].Percent != 5 || is[0].ProxyProtocol != 2 || is[1].Percent != 100 || is[1].ProxyProtocol != 0 {
			t.Fatalf("the table has %+v", is)
		}
		at := func(i int, want string) {
			t.Helper()
			if got := mirrorsOf(w)[i].Mirror.Addr().String(); got != want {
				t.Errorf("mirror %d is at %q, want %q", i, got, want)
			}
		}
		at(0, "10.0.0.8:81")
		at(1, "unix:/m")
		at(2, "")
		if m := d.State().Services[0].Groups[0].Mirrors[2]; !strings.Contains(m.Problem, "no such host") || m.Addr() != "" {
			t.Errorf("a name that does not resolve: %q, %q", m.Problem, m.Addr())
		}
		w.resolves("copy", "10.0.0.10")
		w.resolves("later", "10.0.0.11")
		pass(30 * time.Second)
		at(0, "10.0.0.10:81")
		at(2, "10.0.0.11:1")
		if m := d.State().Services[0].Groups[0].Mirrors[2]; m.Problem != "" {
			t.Errorf("a name that resolves: %q", m.Problem)
		}
		if mirrorsOf(w)[0].Mirror != is[0].Mirror {
			t.Error("another address makes another mirror")
		}
		is[0].Mirror.Copied(7)
		change := func(what func(g *config.Group)) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				what(c.Services[0].Groups[0])
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		change(func(g *config.Group) {
			g.Mirrors = slices.Delete(g.Mirrors, 1, 3)
			g.Mirrors[0].Percent = 50
		})
		now := mirrorsOf(w)
		if len(now) != 1 || now[0].Percent != 50 || now[0].Mirror != is[0].Mirror || now[0].Mirror.Stats().Bytes != 7 {
			t.Errorf("after a change the table has %+v", now)
		}
		change(func(g *config.Group) { g.Mirrors = nil })
		if now := mirrorsOf(w); now != nil {
			t.Errorf("without mirrors the table has %+v", now)
		}
	})
}

// The log and the events tell of a mirror that is down, and of copies that are lost, and not
// more often than they should.
func TestMirrorsAreTold(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, group(`<host name="a" ip="10.0.0.1:80"/><mirror ip="10.0.0.9:81"/>`))
		m := mirrorsOf(w)[0].Mirror
		pass(time.Hour)
		told := func(line, verb string, want int) {
			t.Helper()
			events := 0
			for _, e := range d.Events() {
				if e.Verb == verb {
					events++
				}
			}
			if n := strings.Count(w.log.String(), line); n != want || events != want {
				t.Errorf("%q was said %d times, and %q is in %d events; want %d:\n%s", line, n, verb, events, want, w.log.String())
			}
		}
		flap := func() {
			m.Failed(1, m.Addr(), false, errors.New("connection refused"))
			pass(3 * time.Second)
			m.Reached()
			pass(3 * time.Second)
		}
		flap()
		told(`msg="mirror down"`, "mirror down", 1)
		told(`msg="mirror up"`, "mirror up", 0)
		pass(10 * time.Second)
		told(`msg="mirror up"`, "mirror up", 1)
		for range 10 {
			flap()
		}
		if n := strings.Count(w.log.String(), `msg="mirror down"`) + strings.Count(w.log.String(), `msg="mirror up"`); n > 9 {
			t.Errorf("a minute of ups and downs is told %d times:\n%s", n, w.log.String())
		}
		pass(time.Hour)
		for range 100 {
			m.Lose(sched.CopyBehind)
			m.Lose(sched.CopyReset)
			pass(time.Second)
		}
		told(`msg="copies for a mirror lost"`, "mirror lost copies", 2)
		if !strings.Contains(w.log.String(), `reasons="behind 60, reset 60"`) {
			t.Errorf("the reasons are missing:\n%s", w.log.String())
		}
	})
}

// What a mirror has counted goes on in the next process.
func TestMirrorsGoOn(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, group(`<host name="a" ip="10.0.0.1:80"/><mirror ip="10.0.0.9:81"/>`))
		m := mirrorsOf(w)[0].Mirror
		_, _, _ = m.Begin(1, time.Second)
		m.Copied(7)
		m.Lose(sched.CopyBehind)
		next := newWorld()
		h := heir(t, next, d)
		stats := func() sched.MirrorStats { return h.State().Services[0].Groups[0].Mirrors[0].Stats() }
		if s := stats(); s.Sessions != 1 || s.Bytes != 7 || s.Lost["behind"] != 1 || s.Active != 0 {
			t.Errorf("it begins with %+v", s)
		}
		m.Copied(3) // the old process goes on
		mirrorsOf(next)[0].Mirror.Copied(100)
		data, err := d.ExportChanges()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.TakeIn(data); err != nil {
			t.Fatal(err)
		}
		if s := stats(); s.Bytes != 110 {
			t.Errorf("both have copied 110 bytes, it says %d", s.Bytes)
		}
	})
}
