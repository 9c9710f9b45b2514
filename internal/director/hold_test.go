package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// twoGroups is a service with an active and a standby group.
const twoGroups = `<config><service name="web"><listen ip=":1"/>
	<group name="g" enable="true" allDown="%s"><host name="a" ip="10.0.0.1:80"/></group>
	<group name="spare"><host name="b" ip="10.0.0.2:80"/></group></service></config>`

// held returns the table that new clients get, as the engine has it, and its queue.
func (w *world) held() (*sched.Table, *sched.Queue) {
	t := w.lastPlan().Services[0].Route.Table
	q := t.Queue()
	if q != nil {
		q.Use(t) // as the engine does
	}
	return t, q
}

// join puts a client into the queue, as the engine does; out gets the time when it is let
// out.
func (w *world) join(out func(time.Time)) {
	t, q := w.held()
	q.Join(t, sched.Addr{}, new(sched.Tried), time.Now().UnixNano(), 0, func() { out(time.Now()) })
}

// leavings notes when clients are let out. The director does that, and the test reads it.
type leavings struct {
	mu  sync.Mutex
	all []time.Duration // since began
}

func (o *leavings) after(began time.Time) func(time.Time) {
	return func(at time.Time) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all = append(o.all, at.Sub(began))
	}
}

func (o *leavings) list() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

func hold(t *testing.T, d *Director, group string, most time.Duration) *Hold {
	t.Helper()
	h, _, err := d.Hold(t.Context(), HoldOrder{By: "ops", From: "here", Service: "web", Group: group, For: most})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A group is held when the order is answered, until its time is over: then all go on.
func TestB79HoldEndsByItself(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		if table, _ := w.held(); table.Held() {
			t.Fatal("it is held from the start")
		}
		began := time.Now()
		h := hold(t, d, "g", 30*time.Second)
		if table, _ := w.held(); !table.Held() || !h.Until.Equal(began.Add(30*time.Second)) || h.Most != DefaultMostHeld {
			t.Fatalf("held: %+v", h)
		}
		var out leavings
		for range 3 {
			w.join(out.after(began))
		}
		if g, _ := d.groupFor("web", "g"); g.Held() != 3 || !g.Holds() || g.Hold().By != "ops" {
			t.Errorf("%d are held by %+v", g.Held(), g.Hold())
		}
		time.Sleep(29 * time.Second)
		w.fail(target(t, d, "g", "a", 0)) // another table
		if table, _ := w.held(); len(out.list()) != 0 || !table.Held() {
			t.Fatalf("out after %v", out.list())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		table, q := w.held()
		if table.Held() || q.Len() != 0 || len(out.list()) != 3 {
			t.Fatalf("%d wait, out after %v", q.Len(), out.list())
		}
		if g, _ := d.groupFor("web", "g"); g.Holds() || len(d.holds) != 0 {
			t.Error("it still holds")
		}
		said := false
		for _, e := range d.Events() {
			said = said || e.Verb == "hold ended" && strings.Contains(e.Text, "its time was over")
		}
		if !said {
			t.Errorf("no event: %+v", d.Events())
		}
	})
}

// A release lets clients out evenly: the n-th after n parts of the time, to a step of 10 ms,
// with those who come meanwhile behind them. Nobody is left at the end.
func TestB79ReleaseIsEven(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		hold(t, d, "g", time.Minute)
		const n, later, over = 200, 50, 10 * time.Second
		began := time.Now() // the clock of the test stands still until it sleeps
		var first, second leavings
		for range n {
			w.join(first.after(began))
		}
		r, err := d.Release(t.Context(), ReleaseOrder{By: "ops", From: "here", Service: "web", Group: "g", Over: over})
		if r.Waiting != n || !r.Held || err != nil {
			t.Fatalf("%+v, %v", r, err)
		}
		for i := range later { // five a second
			time.Sleep(over / later)
			synctest.Wait()
			if i < later-1 {
				w.join(second.after(began))
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		table, q := w.held() // the engine gives the queue the new table, which lets out the last
		out, outLater := first.list(), second.list()
		if q.Len() != 0 || table.Held() || len(out) != n || len(outLater) != later-1 {
			t.Fatalf("%d wait, %d and %d are out", q.Len(), len(out), len(outLater))
		}
		// Each second as many go as wait for it in the line, and as many more as come.
		var each [11]int
		for _, at := range slices.Concat(out, outLater) {
			each[min(at/time.Second, 10)]++
		}
		for s, got := range each[:10] {
			if want := n/10 + later/10; got < want-2 || got > want+2 {
				t.Errorf("second %d: %d go, want %d", s, got, want)
			}
		}
		for i := 1; i < n; i++ {
			if gap := out[i] - out[i-1]; gap > over/n+releaseEvery {
				t.Errorf("between %d and %d are %v", i-1, i, gap)
			}
		}
		if last := out[n-1]; outLater[0] < last-releaseEvery && outLater[0] < out[n-2] {
			t.Errorf("one that came later is out after %v, the last of the others after %v", outLater[0], last)
		}
	})
}

// A release without clients, and one at once, end the hold; a second hold goes on where
// the first was; orders for what is not there are refused.
func TestHoldOrders(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		release := func(over time.Duration) (int, bool) {
			t.Helper()
			r, err := d.Release(t.Context(), ReleaseOrder{By: "ops", From: "here", Service: "web", Group: "g", Over: over})
			if err != nil {
				t.Fatal(err)
			}
			return r.Waiting, r.Held
		}
		if n, was := release(0); n != 0 || was {
			t.Errorf("a group that is not held: %d, %v", n, was)
		}
		hold(t, d, "g", time.Minute)
		if n, was := release(time.Hour); n != 0 || !was {
			t.Errorf("without clients: %d, %v", n, was)
		}
		if table, _ := w.held(); table.Held() {
			t.Error("nobody waits, and it takes an hour")
		}
		first := hold(t, d, "g", time.Minute)
		w.join(func(time.Time) {})
		time.Sleep(50 * time.Second)
		release(time.Hour)
		time.Sleep(5 * time.Second)
		h, was, err := d.Hold(t.Context(), HoldOrder{Service: "web", Group: "g", For: time.Minute, Most: 7})
		if err != nil || !was || h.Most != 7 || !h.Since.Equal(first.Since) || h.Releasing() {
			t.Errorf("held again: %+v, %v, %v", h, was, err)
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if table, q := w.held(); !table.Held() || q.Len() != 1 || table.MostHeld() != 7 {
			t.Error("the second hold does not hold")
		}
		for _, o := range []HoldOrder{{Service: "no", Group: "g"}, {Service: "web", Group: "no"}} {
			if _, _, err := d.Hold(t.Context(), o); err == nil {
				t.Errorf("%+v is accepted", o)
			}
		}
		why := errors.New("frozen")
		thaw := d.Freeze(why)
		if _, _, err := d.Hold(t.Context(), HoldOrder{Service: "web", Group: "g", For: time.Second}); !errors.Is(err, why) {
			t.Errorf("while changes are refused: %v", err)
		}
		thaw()
		if n, was := release(0); n != 1 || !was {
			t.Errorf("released: %d, %v", n, was)
		}
	})
}

// A standby group is held as well: its clients wait once it is active. A change of the
// configuration leaves a hold alone, and the group takes it along when it goes.
func TestHoldOutlivesChanges(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		do := func(f func(s *config.Service)) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error { f(c.Services[0]); return nil }}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		hold(t, d, "spare", time.Hour)
		if table, _ := w.held(); table.Held() {
			t.Error("the active group is held")
		}
		do(func(s *config.Service) { s.Groups[0].Enabled, s.Groups[1].Enabled = false, true })
		table, _ := w.held()
		if !table.Held() || table.Group() != "spare" {
			t.Fatalf("group %s, held: %v", table.Group(), table.Held())
		}
		do(func(s *config.Service) { s.Groups[1].Scheduler, s.Groups[1].Hosts[0].Weight = "roundr", 7 })
		if table, _ := w.held(); !table.Held() {
			t.Error("a change of the group ends the hold")
		}
		do(func(s *config.Service) { s.Groups[1].Hosts = nil })
		if table, _ := w.held(); !table.Held() || table.Queue() == nil {
			t.Error("without hosts nobody is held")
		}
		do(func(s *config.Service) {
			s.Groups[0].Enabled = true
			s.Groups = s.Groups[:1]
		})
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if table, _ := w.held(); table.Held() || len(d.holds) != 0 {
			t.Error("the group has gone, and its hold has not")
		}
	})
}

// What is held, and what is being released, stays so in the next process, at the same pace.
func TestHoldIsInherited(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		hold(t, d, "spare", time.Minute)
		hold(t, d, "g", time.Minute)
		for range 100 {
			w.join(func(time.Time) {})
		}
		if _, err := d.Release(t.Context(), ReleaseOrder{By: "ops", From: "here", Service: "web", Group: "g", Over: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		data, err := d.Export()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		next := newWorld()
		state, err := ReadState(data)
		if err != nil {
			t.Fatal(err)
		}
		heir, err := New(state.Config, next, Options{Log: next.logger(), Resolver: next, Probe: next.probe, Inherited: state})
		if err != nil {
			t.Fatal(err)
		}
		if table, _ := next.held(); !table.Held() { // from its first plan on
			t.Fatal("it is not held")
		}
		var left atomic.Int32
		for range 50 { // those that have moved
			left.Add(1)
			next.join(func(time.Time) { left.Add(-1) })
		}
		runDirector(t, heir)
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if n := left.Load(); n < 24 || n > 26 {
			t.Errorf("%d of 100 wait after 7.5 s of 10", n)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if table, _ := next.held(); table.Held() || left.Load() != 0 {
			t.Errorf("%d wait at the end", left.Load())
		}
		g, _ := heir.groupFor("web", "spare")
		if h := g.Hold(); h == nil || h.By != "ops" || h.From != "here" || h.Releasing() {
			t.Errorf("the other group: %+v", h)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if g.Hold() != nil {
			t.Error("the other group is still held")
		}
	})
}

// With allDown="hold", clients wait while no host is up, for whatever reason.
func TestB79AllDownHolds(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "hold"))
		g := func() *Group { g, _ := d.groupFor("web", "g"); return g }
		if table, _ := w.held(); table.Holds() || g().Holds() {
			t.Error("a host is up")
		}
		w.set(w.dead, "10.0.0.1:80", true)
		w.fail(target(t, d, "g", "a", 0))
		var out atomic.Int32
		w.join(func(time.Time) { out.Add(1) })
		if table, _ := w.held(); !table.Holds() || !g().Holds() || g().Held() != 1 || out.Load() != 0 {
			t.Errorf("no host is up, %d are held", g().Held())
		}
		w.set(w.dead, "10.0.0.1:80", false)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if out.Load() != 1 || g().Holds() {
			t.Error("the host is up again")
		}
		for _, state := range []string{"maint", "drain", "ready"} {
			if _, err := d.Do(context.Background(), Change{Apply: func(c *config.Config) error { c.Services[0].Groups[0].Hosts[0].State = state; return nil }}); err != nil {
				t.Fatal(err)
			}
			if table, q := w.held(); table.Holds() != (state != "ready") || q == nil {
				t.Errorf("its host is %s: holds %v", state, table.Holds())
			}
		}
		if _, err := d.Do(context.Background(), Change{Apply: func(c *config.Config) error { c.Services[0].Groups[0].Hosts = nil; return nil }}); err != nil {
			t.Fatal(err)
		}
		if table, _ := w.held(); table.Holds() || g().Holds() {
			t.Error("there is no host to wait for")
		}
	})
}
