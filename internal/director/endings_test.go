package director

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// opens makes connected sessions of a target, with these IDs.
func (w *world) opens(t *Target, ids ...uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	era, up := t.Host.Standing()
	for _, id := range ids {
		w.sessions = append(w.sessions, engine.Candidate{ID: id, Service: t.key.service, Host: t.Host, Connected: true, Era: era, WasDown: !up})
	}
}

// endings returns what was ended since the last call, as IDs by their reason.
func (w *world) endings() map[engine.Ending][]uint64 {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[engine.Ending][]uint64{}
	for _, e := range w.ended {
		all[e.why] = append(all[e.why], e.id)
	}
	w.ended = nil
	return all
}

// expectEnded compares what was ended since the last look.
func (w *world) expectEnded(t *testing.T, when string, why engine.Ending, ids ...uint64) {
	t.Helper()
	all := w.endings()
	got := all[why]
	slices.Sort(got)
	if !slices.Equal(got, ids) || len(all) > 1 || len(ids) == 0 && len(all) > 0 {
		t.Errorf("%s: ended %v, want %v for reason %d", when, all, ids, why)
	}
}

const ending = `<config><service name="web"><listen ip="127.0.0.1:8080"/>
	<group name="g" scheduler="roundr" onMarkedDown="%s" onMarkedUp="%s">%s
		<host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/><host name="s" ip="10.0.0.3:80" backup="yes"/></group>
	</service></config>`

// A host that is marked down loses its sessions, whatever marked it down, but only those
// from before, and only where the group says so.
func TestMarkedDownEndsSessions(t *testing.T) {
	const check = `<check interval="1s" rise="1" fall="1"/>`
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(ending, "shutdown", "keep", check))
		a, b := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0)
		w.opens(a, 1, 2)
		w.opens(b, 3)
		time.Sleep(5 * time.Second)
		w.expectEnded(t, "while all are up", engine.HostDown)
		w.set(w.dead, "10.0.0.1:80", true)
		time.Sleep(2 * time.Second)
		w.expectEnded(t, "by a check", engine.HostDown, 1, 2)
		w.opens(a, 4) // a last resort
		w.set(w.dead, "10.0.0.1:80", false)
		time.Sleep(2 * time.Second)
		w.opens(a, 5)
		w.expectEnded(t, "when it comes back", engine.HostDown)
		w.fail(a)
		w.expectEnded(t, "by a failed connect", engine.HostDown, 4, 5)
		w.fail(b)
		w.expectEnded(t, "of another host", engine.HostDown, 3)
		time.Sleep(2 * time.Second)
		// Maintenance and drain mark no host down.
		w.opens(a, 6)
		change(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].State = "maint" })
		w.expectEnded(t, "in maintenance", engine.HostDown)
		// At run time the group may say otherwise.
		change(t, d, func(c *config.Config) {
			c.Services[0].Groups[0].Hosts[0].State = "ready"
			c.Services[0].Groups[0].EndWhenDown = false
		})
		w.fail(a)
		w.expectEnded(t, "without onMarkedDown", engine.HostDown)
	})
}

// A report that comes when the host is back already ends nothing.
func TestStaleMarkEndsNothing(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(ending, "shutdown", "keep", ""))
		a := target(t, d, "g", "a", 0)
		w.opens(a, 1)
		w.failures <- engine.Failure{Host: a.Host}
		w.expectEnded(t, "a report of a host that is up", engine.HostDown)
	})
}

// Hosts that go down together cost two walks at most.
func TestManyMarksCostFewWalks(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		const hosts = 300
		list := ""
		for i := range hosts {
			list += fmt.Sprintf(`<host name="%d" ip="10.0.%d.%d:80"/>`, i, 1+i/200, i%200)
		}
		w := newWorld()
		d := start(t, w, fmt.Sprintf(ending, "shutdown", "keep", list))
		var ids []uint64
		busy := make(chan struct{})
		d.orders <- func() { <-busy } // so that they are all there when it looks
		for i := range hosts {
			h := target(t, d, "g", fmt.Sprint(i), 0)
			w.opens(h, uint64(1000+i))
			ids = append(ids, uint64(1000+i))
			h.Host.Fail()
			w.failures <- engine.Failure{Host: h.Host, Err: fmt.Errorf("refused")}
		}
		close(busy)
		w.expectEnded(t, "all", engine.HostDown, ids...)
		if w.walks > 2 {
			t.Errorf("%d walks for %d hosts", w.walks, hosts)
		}
	})
}

// A host that is up again takes its sessions back from the backups, if the group says so.
func TestMarkedUpEndsSessionsOfBackups(t *testing.T) {
	for _, says := range []string{"keep", "shutdown"} {
		testkit.Bubble(t, func(t *testing.T) {
			w := newWorld()
			d := start(t, w, fmt.Sprintf(ending, "keep", says, ""))
			a, b, s := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0), target(t, d, "g", "s", 0)
			for _, h := range []*Target{a, b, s} {
				w.fail(h)
			}
			if _, err := d.Retry(t.Context(), "web", "g", "s"); err != nil {
				t.Fatal(err)
			}
			w.opens(s, 1, 2)
			w.expectEnded(t, "a backup comes up", engine.BackupUnused)
			w.opens(b, 3)
			if _, err := d.Retry(t.Context(), "web", "g", "a"); err != nil {
				t.Fatal(err)
			}
			if says == "shutdown" {
				w.expectEnded(t, "a host comes up", engine.BackupUnused, 1, 2)
			} else {
				w.expectEnded(t, "a host comes up", engine.BackupUnused)
			}
		})
	}
}

// change makes a change that must succeed.
func change(t *testing.T, d *Director, apply func(*config.Config)) {
	t.Helper()
	if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error { apply(c); return nil }}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}
