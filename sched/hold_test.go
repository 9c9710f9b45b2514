package sched

import (
	"fmt"
	"testing"
)

// heldTable makes a table of hosts that share a queue.
func heldTable(t testing.TB, p Policy, group *Times, hosts ...*Host) *Table {
	t.Helper()
	var members []Member
	for _, h := range hosts {
		members = append(members, Member{Host: h, Weight: 1})
	}
	p.Times, p.Seed = group, 1
	table, err := NewTable(p, members)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A gate gives no host to anybody, whatever the scheduler is, and lets sessions out in the
// order in which they came, as many as it says. New tables of the group change nothing.
func TestB79GateLetsOutInOrder(t *testing.T) {
	for _, scheduler := range Choices() {
		t.Run(scheduler, func(t *testing.T) {
			group, gate := new(Times), NewGate()
			hosts := []*Host{NewHostIn(group, "a", testAddr(1)), NewHostIn(group, "b", testAddr(2))}
			p := Policy{Scheduler: scheduler, Gate: gate}
			if IsSticky(scheduler) {
				p.Sticky = NewSticky(100, 1<<40)
			}
			table := heldTable(t, p, group, hosts...)
			q := table.Queue()
			q.Use(table)
			if !table.Held() || !table.Holds() {
				t.Error("the table does not hold")
			}
			const n = 100
			var order []int
			waiters, tried := make([]*Waiter, n), make([]Tried, n)
			for i := range n {
				if h, v := table.Pick(Addr{}, &tried[i]); h != nil || v != Held {
					t.Fatalf("a pick gives %v, %v", h, v)
				}
				waiters[i] = q.Join(table, Addr{}, &tried[i], int64(i), 0, func() { order = append(order, i) })
			}
			table = heldTable(t, p, group, hosts...)
			q.Use(table)
			if len(order) != 0 {
				t.Fatalf("%d are called, and all are held", len(order))
			}
			for left := n - 1; left >= n/2; left -= 2 {
				gate.Keep(int64(left))
				q.Look()
				if q.Len() != left || len(order) != n-left {
					t.Fatalf("%d wait and %d were called; %d are to wait", q.Len(), len(order), left)
				}
			}
			p.Gate = nil
			table = heldTable(t, p, group, hosts...)
			q.Use(table)
			if q.Len() != 0 || len(order) != n {
				t.Fatalf("the gate has gone: %d wait, %d were called", q.Len(), len(order))
			}
			for i, is := range order {
				if is != i {
					t.Fatalf("%d was called, and it was the turn of %d", is, i)
				}
				if h, ok := waiters[i].Called(); !ok || h == nil {
					t.Fatalf("%d was called without a host", i)
				}
			}
		})
	}
}

// With Await, sessions wait while no host is up, even if they have tried all, and each of
// these may then be tried again. While one is up, nothing is held. Beyond the fourth host of a
// session, too.
func TestB79AwaitHoldsWhileAllAreDown(t *testing.T) {
	for _, n := range []int{1, 3, 9} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			group := new(Times)
			var hosts []*Host
			for i := range n {
				hosts = append(hosts, NewHostIn(group, fmt.Sprint("h", i), testAddr(i)))
			}
			table := heldTable(t, Policy{Await: true}, group, hosts...)
			var tried Tried
			for range n {
				h, v := table.Pick(Addr{}, &tried)
				if h == nil || v != Picked {
					t.Fatalf("%v, %v", h, v)
				}
			}
			if h, v := table.Pick(Addr{}, &tried); v != None {
				t.Errorf("all are up and tried: %v, %v", h, v)
			}
			for i, h := range hosts {
				if table.Holds() {
					t.Errorf("it holds, and %d of %d are up", n-i, n)
				}
				h.MarkDown()
			}
			if h, v := table.Pick(Addr{}, &tried); v != Held || !table.Holds() || table.Held() {
				t.Errorf("all are down: %v, %v", h, v)
			}
			woken := false
			w := table.Queue().Join(table, Addr{}, &tried, 1, 0, func() { woken = true })
			table.Queue().Use(table)
			if woken {
				t.Fatal("it is called, and no host is up")
			}
			hosts[n-1].MarkUp()
			if h, ok := w.Called(); !ok || h != hosts[n-1] || !woken {
				t.Errorf("a host is up again: %v, %v", h, ok)
			}
		})
	}
}

// A host that goes down because a session has failed on it may be up again before the session looks
// on. The session then waits, and gets it, as it would if the host came back a moment later.
func TestB79HostsThatComeBackMeanwhile(t *testing.T) {
	for _, n := range []int{1, 3, 9} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			group := new(Times)
			var hosts []*Host
			for i := range n {
				hosts = append(hosts, NewHostIn(group, fmt.Sprint("h", i), testAddr(i)))
			}
			table := heldTable(t, Policy{Await: true}, group, hosts...)
			var tried Tried
			for range n {
				h, v := table.Pick(Addr{}, &tried)
				if h == nil || v != Picked {
					t.Fatalf("%v, %v", h, v)
				}
				h.MarkDown()
				tried.Fell()
				h.MarkUp()
			}
			if h, v := table.Pick(Addr{}, &tried); v != Held || !table.AwaitsFor(&tried) || table.Awaits() {
				t.Errorf("all have come back: %v, %v", h, v)
			}
			w := table.Queue().Join(table, Addr{}, new(Tried), 1, 0, func() {})
			if h, ok := w.Called(); !ok || h == nil {
				t.Errorf("it waits for one that is up: %v, %v", h, ok)
			}
			tried.Forget() // the last one was not asked
			if h, v := table.Pick(Addr{}, &tried); h == nil || v != Picked {
				t.Errorf("%v, %v", h, v)
			}
			if h, v := table.Pick(Addr{}, &tried); v != None || table.AwaitsFor(&tried) {
				t.Errorf("one is up and has failed: %v, %v", h, v)
			}
		})
	}
}

// A table without hosts has a queue if it holds clients. Limits of the queue are exact, and
// who is the first is told.
func TestHoldWithoutHosts(t *testing.T) {
	group := new(Times)
	if table := heldTable(t, Policy{}, group); table.Queue() != nil || table.Holds() || !table.Empty() {
		t.Error("a table without hosts holds")
	}
	for _, p := range []Policy{{Gate: NewGate()}, {Await: true}} {
		table := heldTable(t, p, group)
		var tried Tried
		if h, v := table.Pick(Addr{}, &tried); h != nil || v != Held || !table.Holds() || !table.Empty() {
			t.Errorf("%+v: %v, %v", p, h, v)
		}
		q, begun := table.Queue(), 0
		q.OnBegin(func() { begun++ })
		var all []*Waiter
		for range 3 {
			all = append(all, q.Join(table, Addr{}, new(Tried), 1, 3, func() {}))
		}
		if q.Join(table, Addr{}, new(Tried), 1, 3, func() {}) != nil || q.Len() != 3 || begun != 1 {
			t.Errorf("%d wait of 3, begun %d times", q.Len(), begun)
		}
		for _, w := range all {
			w.Leave()
		}
		q.OnBegin(nil)
		q.Join(table, Addr{}, new(Tried), 1, 3, func() {}).Leave()
		if q.Len() != 0 || begun != 1 {
			t.Errorf("%d wait, begun %d times", q.Len(), begun)
		}
	}
}

// What holds costs nothing where it is off: a pick does not ask for it.
func TestHoldCostsNothingOff(t *testing.T) {
	group := new(Times)
	h := NewHostIn(group, "a", testAddr(1))
	for _, p := range []Policy{{}, {Await: true}} {
		if table := heldTable(t, p, group, h); table.first == nil {
			t.Errorf("%+v: a pick does not take the fast path", p)
		}
	}
}

// A pick where nothing holds, where clients would wait for a host, and behind a gate.
func BenchmarkPickHeld(b *testing.B) {
	for name, p := range map[string]Policy{"off": {}, "await": {Await: true}, "held": {Gate: NewGate()}} {
		b.Run(name, func(b *testing.B) {
			group := new(Times)
			table := heldTable(b, p, group, NewHostIn(group, "a", testAddr(1)))
			for b.Loop() {
				var tried Tried
				if h, _ := table.Pick(Addr{}, &tried); h != nil {
					h.Release(0, 0)
				}
			}
		})
	}
}
