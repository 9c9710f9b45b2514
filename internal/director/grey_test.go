package director

import (
	"context"
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

// greyGroup is a group of hosts a, b and so on that ejects slow and silent ones.
func greyGroup(hosts int, attributes string) string {
	var b strings.Builder
	for i := range hosts {
		fmt.Fprintf(&b, `<host name="%c" ip="10.0.0.%d:80"/>`, 'a'+i, 1+i)
	}
	return `<config><service name="web"><listen ip="127.0.0.1:8080"/><group name="g" scheduler="roundr" ` + attributes + `>` + b.String() + `</group></service></config>`
}

// serve makes the hosts answer a request every 100 ms for a time, each after its own.
func (w *world) serve(d *Director, lasts time.Duration, after map[string]time.Duration) {
	for range lasts / (100 * time.Millisecond) {
		for _, h := range d.State().Services[0].Groups[0].Hosts {
			took, answers := after[h.Config.Name]
			if !answers {
				continue
			}
			for _, t := range h.Targets {
				t.Host.Turned(0, took)
				t.Host.AddBytes(10, 20)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	synctest.Wait()
}

// waits makes clients wait for the first answer of a host.
func (w *world) waits(t *Target, clients int, since time.Time) {
	for i := range clients {
		var tried sched.Tried
		table, _ := sched.NewTable(sched.Policy{}, []sched.Member{{Host: t.Host, Weight: 1}})
		_, _ = table.Pick(sched.Addr{}, &tried)
		t.Host.AddBytes(10, 0)
		w.mu.Lock()
		w.waiting = append(w.waiting, engine.SessionInfo{
			ID: uint64(1000 + len(w.waiting)), Service: "web", Host: t.Host, Started: since,
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1000),
		})
		w.mu.Unlock()
	}
}

// patience moves the time on; those who wait do so for longer.
func (w *world) patience(d time.Duration) {
	for range d / (100 * time.Millisecond) {
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		for i := range w.waiting {
			w.waiting[i].Waiting += 100 * time.Millisecond
		}
		w.mu.Unlock()
	}
	synctest.Wait()
}

func ejected(d *Director) string {
	var list []string
	for _, h := range d.State().Services[0].Groups[0].Hosts {
		for _, t := range h.Targets {
			if e := t.Status().Ejected; e != nil {
				list = append(list, h.Config.Name+" "+e.Kind)
			}
		}
	}
	return strings.Join(list, ", ")
}

func isEjected(t *testing.T, d *Director, when, want string) {
	t.Helper()
	if got := ejected(d); got != want {
		t.Errorf("%s, ejected is %q, want %q", when, got, want)
	}
}

// A host that answers ten times as late as the others gets no new clients, until its time is
// over; while it goes on, for twice as long. If all are as slow, none is ejected.
func TestB82SlowHostIsEjected(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		const ms = time.Millisecond
		w := newWorld()
		d := start(t, w, greyGroup(4, `slow="3" ejectFor="20s"`))
		well := map[string]time.Duration{"a": 20 * ms, "b": 25 * ms, "c": 15 * ms, "d": 20 * ms}
		w.serve(d, 20*time.Second, well)
		isEjected(t, d, "while all are well", "")
		ill := map[string]time.Duration{"a": 20 * ms, "b": 250 * ms, "c": 15 * ms, "d": 20 * ms}
		w.serve(d, 12*time.Second, ill)
		isEjected(t, d, "when one is slow", "b slow")
		w.takes(t, "acd", sched.Picked)
		first := target(t, d, "g", "b", 0).Status().Ejected
		if !strings.Contains(first.Why, "its median turnaround is 2") || !strings.Contains(first.Why, "the group's is ") {
			t.Errorf("it is ejected because %q", first.Why)
		}
		delete(ill, "b") // its last sessions end
		w.serve(d, time.Until(first.Until)-time.Second, ill)
		isEjected(t, d, "a second before its time is over", "b slow")
		w.serve(d, 2*time.Second, ill)
		isEjected(t, d, "when its time is over", "")
		w.takes(t, "abcd", sched.Picked)
		ill["b"] = 250 * ms
		w.serve(d, 12*time.Second, ill)
		isEjected(t, d, "when it goes on", "b slow")
		if e := target(t, d, "g", "b", 0).Status().Ejected; e.Until.Sub(e.Since) != 40*time.Second {
			t.Errorf("the second ejection is for %v", e.Until.Sub(e.Since))
		}
		slow := map[string]time.Duration{"a": 200 * ms, "b": 200 * ms, "c": 200 * ms, "d": 200 * ms}
		w.serve(d, time.Minute, slow)
		isEjected(t, d, "when all are slow", "")
		w.serve(d, time.Minute, well)
		isEjected(t, d, "when all are well again", "")
	})
}

// A host that leaves three clients without a first answer is ejected, unless the others do
// the same. Those who wait since before it came back do not count again.
func TestB82SilentHostIsEjected(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, greyGroup(3, `silent="2s" ejectFor="10s"`))
		b := target(t, d, "g", "b", 0)
		well := map[string]time.Duration{"a": 1, "b": 1, "c": 1}
		w.serve(d, 3*time.Second, well)
		others := map[string]time.Duration{"a": 1, "c": 1}
		w.waits(b, 2, time.Now())
		w.patience(1500 * time.Millisecond)
		w.serve(d, 3*time.Second, others)
		w.patience(time.Second)
		isEjected(t, d, "while two wait", "")
		if w.listens > 0 {
			t.Errorf("the engine was asked %d times although two clients have come", w.listens)
		}
		w.mu.Lock()
		w.waiting = nil
		w.mu.Unlock()
		w.serve(d, 3*time.Second, well)
		w.waits(b, 3, time.Now())
		w.serve(d, time.Second, others)
		w.patience(time.Second)
		w.serve(d, time.Second, others)
		isEjected(t, d, "while three have waited for a second", "")
		w.patience(2 * time.Second)
		w.serve(d, time.Second, others)
		isEjected(t, d, "when three have waited for long", "b silent")
		w.takes(t, "ac", sched.Picked)
		if e := b.Status().Ejected; !strings.Contains(e.Why, "three clients have had no first answer for ") {
			t.Errorf("it is ejected because %q", e.Why)
		}
		for range 15 {
			w.serve(d, 100*time.Millisecond, others)
			w.patience(900 * time.Millisecond)
		}
		isEjected(t, d, "when its time is over, and the same three wait", "")
		w.takes(t, "abc", sched.Picked)
	})
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, greyGroup(3, `silent="2s"`))
		w.serve(d, 3*time.Second, map[string]time.Duration{"a": 1, "b": 1, "c": 1})
		for _, name := range []string{"a", "b", "c"} {
			w.waits(target(t, d, "g", name, 0), 5, time.Now())
		}
		for range 20 {
			w.patience(time.Second)
			if e := ejected(d); strings.Count(e, ",") > 0 {
				t.Errorf("all are silent, ejected is %q", e)
			}
		}
		isEjected(t, d, "when all are silent", "")
	})
}

// setHost eject=never keeps a host, and brings it back.
func TestB82PinnedHostStays(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, greyGroup(3, ""))
		b := target(t, d, "g", "b", 0)
		pin := func(never bool) {
			edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts[1].NeverEject = never })
			synctest.Wait()
		}
		w.doubt(b)
		isEjected(t, d, "at first", "b resets")
		pin(true)
		isEjected(t, d, "when it is pinned", "")
		w.takes(t, "abc", sched.Picked)
		time.Sleep(time.Second)
		w.doubt(b)
		isEjected(t, d, "while it is pinned", "")
		time.Sleep(time.Second)
		pin(false)
		w.doubt(b)
		isEjected(t, d, "when it is not any more", "b resets")
	})
}

// An ejection ends when its host goes down, and is over when it comes up; retryHost and a drain
// end it too.
func TestB82EjectionEnds(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, checked(`interval="1s" fall="1" rise="1"`, ""))
		b := target(t, d, "g", "b", 0)
		w.doubt(b)
		isEjected(t, d, "at first", "b resets")
		w.set(w.dead, b.key.addr.String(), true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		isEjected(t, d, "when it is down", "")
		if b.Status().Up {
			t.Error("it is not down")
		}
		w.set(w.dead, b.key.addr.String(), false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.takes(t, "abc", sched.Picked)
		w.doubt(b)
		isEjected(t, d, "again", "b resets")
		if n, err := d.Retry(context.Background(), "web", "g", "b"); n != 1 || err != nil {
			t.Errorf("retryHost: %d, %v", n, err)
		}
		synctest.Wait()
		isEjected(t, d, "after retryHost", "")
		w.takes(t, "abc", sched.Picked)
		time.Sleep(time.Second)
		w.doubt(b)
		isEjected(t, d, "again", "b resets")
		edited(t, d, func(c *config.Config) { c.Services[0].Groups[0].Hosts[1].State = "drain" })
		synctest.Wait()
		isEjected(t, d, "in drain", "")
	})
}

// The log, the events and the program hear of it.
func TestB82EjectionIsTold(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, problems := config.Parse("c.xml", []byte(greyGroup(3, `ejectFor="10s"`)))
		if c == nil {
			t.Fatal(problems)
		}
		var notices []Notice
		d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Notify: func(n Notice) { notices = append(notices, n) }})
		if err != nil {
			t.Fatal(err)
		}
		stop := runDirector(t, d)
		w.doubt(target(t, d, "g", "b", 0))
		until := target(t, d, "g", "b", 0).Status().Ejected.Until.Format("15:04:05")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		var events []string
		for _, e := range d.Events() {
			events = append(events, e.Verb+": "+e.Text)
		}
		want := []string{
			"host ejected: web g b (10.0.0.2:80): it reset clients; until " + until,
			"host readmitted: web g b (10.0.0.2:80): after 1",
		}
		if len(events) != 2 || events[0] != want[0] || !strings.HasPrefix(events[1], want[1]) {
			t.Errorf("events are %q, want %q", events, want)
		}
		log := w.log.String()
		for _, line := range []string{`msg="host ejected" service=web group=g host=b addr=10.0.0.2:80 reason="it reset clients" for=10s in_a_row=1`, `msg="host readmitted" service=web group=g host=b`} {
			if !strings.Contains(log, line) {
				t.Errorf("the log lacks %s:\n%s", line, log)
			}
		}
		stop()
		var kinds []NoticeKind
		for _, n := range notices {
			kinds = append(kinds, n.Kind)
		}
		if !slices.Equal(kinds, []NoticeKind{HostEjected, HostReadmitted}) || notices[0].Reason != "it reset clients" || notices[0].Host != "b" {
			t.Errorf("notices are %+v", notices)
		}
	})
}

// Another process goes on with what is ejected, for as long as it would have been, and knows
// how often in a row it was.
func TestB82EjectionSurvivesAHandOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, greyGroup(3, ""))
		w.doubt(target(t, d, "g", "b", 0))
		was := target(t, d, "g", "b", 0).Status().Ejected
		time.Sleep(10 * time.Second)
		w2 := newWorld()
		next := heir(t, w2, d)
		isEjected(t, next, "in the new process", "b resets")
		if is := target(t, next, "g", "b", 0).Status().Ejected; is.Why != was.Why || !is.Until.Equal(was.Until) || !is.Since.Equal(was.Since) {
			t.Errorf("in the new process: %+v, want %+v", is, was)
		}
		w2.takes(t, "ac", sched.Picked)
		// What happens in the old one meanwhile is taken in.
		time.Sleep(time.Until(was.Until) + 1500*time.Millisecond)
		synctest.Wait()
		isEjected(t, next, "when its time is over", "")
		w2.takes(t, "abc", sched.Picked)
		w.doubt(target(t, d, "g", "b", 0))
		again := target(t, d, "g", "b", 0).Status().Ejected
		if again == nil || again.Until.Sub(again.Since) != time.Minute {
			t.Fatalf("the second in a row: %+v", again)
		}
		time.Sleep(100 * time.Millisecond)
		changes, err := d.ExportChanges()
		if err != nil {
			t.Fatal(err)
		}
		if err := next.TakeIn(changes); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		isEjected(t, next, "when the old one has ejected it", "b resets")
		w2.takes(t, "ac", sched.Picked)
	})
}

// Turnarounds are averaged only for a scheduler that looks at them.
func TestPeaksFollowTheScheduler(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		peaks := func() bool {
			h := target(t, d, "g", "a", 0).Host
			h.Turned(0, time.Second)
			return h.Peak(time.Now()) > 0
		}
		if peaks() {
			t.Error("it is averaged at the start")
		}
		for _, scheduler := range []string{"ewma", "leastc", "ewma,sticky", "roundr,sticky", "ewma"} {
			if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				c.Services[0].Groups[0].Scheduler = scheduler
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
			if want := sched.Peaks(scheduler); peaks() != want {
				t.Errorf("%s: averaged: %v", scheduler, !want)
			}
		}
	})
}
