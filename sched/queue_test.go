package sched

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// full makes a table of hosts that may have so many sessions, which share a queue.
func limitedTable(t testing.TB, scheduler string, most ...int) (*Table, []*Host) {
	t.Helper()
	group := new(Times)
	var hosts []*Host
	var members []Member
	for i, n := range most {
		h := NewHostIn(group, fmt.Sprint("h", i), testAddr(i))
		h.SetMaxSessions(n)
		hosts = append(hosts, h)
		members = append(members, Member{Host: h, Weight: 1 + i})
	}
	table, err := NewTable(Policy{Scheduler: scheduler, Seed: 1}, members)
	if err != nil {
		t.Fatal(err)
	}
	return table, hosts
}

func testAddr(i int) Addr { return UnixAddr(fmt.Sprint("/", i)) }

// Whatever picks at once, a host never has more sessions than it may, and every place is
// given before a pick says that all are full.
func TestB41HostsAreNeverOverfull(t *testing.T) {
	for _, scheduler := range Names() {
		t.Run(scheduler, func(t *testing.T) {
			table, hosts := limitedTable(t, scheduler, 3, 1, 7)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 3000 {
						var tried Tried
						h, v := table.Pick(Addr{}, &tried)
						if h == nil {
							if v != Full {
								t.Errorf("verdict %v", v)
							}
							continue
						}
						if n := h.Sessions(); n > int64(h.MaxSessions()) {
							t.Errorf("%s has %d sessions of %d", h.Name(), n, h.MaxSessions())
						}
						h.Release(0, 0)
					}
				})
			}
			wg.Wait()
			for n := range 11 {
				var tried Tried
				if h, v := table.Pick(Addr{}, &tried); h == nil {
					t.Errorf("after %d sessions of 11: %v", n, v)
				}
			}
			var tried Tried
			if h, v := table.Pick(Addr{}, &tried); h != nil || v != Full {
				t.Errorf("all are full: %v, %v", h, v)
			}
			hosts[1].Release(0, 0)
			if h, _ := table.Pick(Addr{}, &tried); h != hosts[1] {
				t.Errorf("the place of h1 is free: %v", h)
			}
		})
	}
}

// A host that is full is not down: neither backups nor the last resort take its clients.
// What is tried while all are down keeps the limit too, however many hosts a session tries.
func TestB41FullIsNotDown(t *testing.T) {
	group := new(Times)
	var members []Member
	for i := range 8 {
		h := NewHostIn(group, fmt.Sprint("h", i), testAddr(i))
		h.SetMaxSessions(1)
		members = append(members, Member{Host: h, Weight: 1, Backup: i >= 6})
	}
	table, err := NewTable(Policy{}, members)
	if err != nil {
		t.Fatal(err)
	}
	var all Tried // one session that goes through the hosts, more than a scheduler chooses
	for i := range 6 {
		if h, v := table.Pick(Addr{}, &all); v != Picked {
			t.Fatalf("pick %d: %v, %v", i, h, v)
		}
	}
	var other Tried
	if h, v := table.Pick(Addr{}, &other); v != Full {
		t.Errorf("all primaries are full: %v, %v", h, v)
	}
	for _, m := range members[:3] {
		m.Host.MarkDown()
	}
	if h, v := table.Pick(Addr{}, &other); v != Full {
		t.Errorf("three primaries are down and three are full: %v, %v", h, v)
	}
	for _, m := range members[3:6] {
		m.Host.MarkDown()
	}
	for i := range 2 {
		if h, v := table.Pick(Addr{}, &other); v != Picked || h == nil {
			t.Errorf("backup %d: %v, %v", i, h, v)
		}
	}
	var third Tried
	if h, v := table.Pick(Addr{}, &third); v != Full {
		t.Errorf("backups are full: %v, %v", h, v)
	}
	members[6].Host.MarkDown()
	members[7].Host.MarkDown()
	if h, v := table.Pick(Addr{}, &third); v != Full {
		t.Errorf("all are down, and full with sessions that still run: %v, %v", h, v)
	}
	members[2].Host.Release(0, 0)
	if h, v := table.Pick(Addr{}, &third); v != LastResort || h != members[2].Host {
		t.Errorf("a place of one that is down: %v, %v", h, v)
	}
	// Beyond the fourth host of a session, too.
	var many Tried
	for i := range 8 {
		members[i].Host.SetMaxSessions(2)
		members[i].Host.MarkUp()
	}
	for range 6 {
		table.Pick(Addr{}, &many)
	}
	if n := many.Len(); n != 6 {
		t.Fatalf("%d hosts tried", n)
	}
	for i := range 6 {
		members[i].Host.SetMaxSessions(1)
	}
	var fifth Tried
	for i := range 4 {
		fifth.add(members[i].Host, Picked)
	}
	if h, v := table.Pick(Addr{}, &fifth); v != Full {
		t.Errorf("the two that are left are full: %v, %v", h, v)
	}
	members[5].Host.SetMaxSessions(3)
	if h, v := table.Pick(Addr{}, &fifth); h != members[5].Host {
		t.Errorf("one of the two has room: %v, %v", h, v)
	}
}

// Sessions get hosts in the order in which they have come, and one that leaves is out at
// once.
func TestB86QueueIsInOrder(t *testing.T) {
	table, hosts := limitedTable(t, "", 1)
	var first Tried
	table.Pick(Addr{}, &first)
	const n = 10_000
	var order []int
	waiters := make([]*Waiter, n)
	tried := make([]Tried, n)
	q := table.Queue()
	for i := range n {
		waiters[i] = q.Join(table, Addr{}, &tried[i], int64(i/3), 0, func() { order = append(order, i) })
	}
	if q.Len() != n || q.Longest() != n {
		t.Fatalf("%d wait, at most %d", q.Len(), q.Longest())
	}
	r := rand.New(rand.NewPCG(86, 1))
	gone := map[int]bool{}
	for len(gone) < n/10 {
		i := r.IntN(n)
		if gone[i] {
			continue
		}
		gone[i] = true
		if h, abandon := waiters[i].Leave(); h != nil || abandon {
			t.Fatalf("waiter %d leaves with %v, %v", i, h, abandon)
		}
		if q.Len() != n-len(gone) {
			t.Fatalf("%d have left and %d wait", len(gone), q.Len())
		}
	}
	early := q.Join(table, Addr{}, new(Tried), -1, 0, func() { order = append(order, -1) }) // it came before, and tries again
	for range n - len(gone) + 1 {
		hosts[0].Release(0, 0)
	}
	want := -1
	for _, i := range order {
		for gone[want] {
			want++
		}
		if i != want {
			t.Fatalf("waiter %d is called, and it is the turn of %d", i, want)
		}
		want++
	}
	if len(order) != n-len(gone)+1 || q.Len() != 0 {
		t.Errorf("%d called, %d wait", len(order), q.Len())
	}
	if h, ok := early.Called(); h != hosts[0] || !ok {
		t.Errorf("called: %v, %v", h, ok)
	}
}

// A session that has tried a host waits for another; those behind it do not wait for it.
func TestB86QueuePassesWhoWaitsForOneHost(t *testing.T) {
	table, hosts := limitedTable(t, "", 1, 1)
	var a, b Tried
	table.Pick(Addr{}, &a)
	table.Pick(Addr{}, &b)
	var retry, plain Tried
	retry.add(hosts[0], Picked)
	var order []string
	table.Queue().Join(table, Addr{}, &retry, 1, 0, func() { order = append(order, "retry") })
	table.Queue().Join(table, Addr{}, &plain, 2, 0, func() { order = append(order, "plain") })
	hosts[0].Release(0, 0)
	if len(order) != 1 || order[0] != "plain" {
		t.Fatalf("called: %v", order)
	}
	hosts[1].Release(0, 0)
	if len(order) != 2 {
		t.Fatalf("called: %v", order)
	}
}

// Loops that join, leave, release and change limits, health and tables at once: no host is
// ever overfull, nobody who waits is forgotten, and the books balance.
func TestB41AndB86QueueOfManyLoops(t *testing.T) {
	table, hosts := limitedTable(t, "roundr", 2, 3, 1)
	q := table.Queue()
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { // the director
		r := rand.New(rand.NewPCG(86, 2))
		for {
			select {
			case <-stop:
				return
			default:
			}
			switch h := hosts[r.IntN(len(hosts))]; r.IntN(5) {
			case 0:
				h.MarkDown()
			case 1:
				h.MarkUp()
			case 2:
				h.SetMaxSessions(1 + r.IntN(4))
			case 3:
				q.Recall()
			default:
				q.Use(table)
			}
			runtime.Gosched()
		}
	})
	var served, gaveUp, again atomic.Int64
	var loops sync.WaitGroup
	for loop := range uint64(8) {
		loops.Go(func() {
			r := rand.New(rand.NewPCG(86, 10+loop))
			for i := range 1500 {
				tried := new(Tried)
				var h *Host
				for h == nil {
					tried.Reset()
					woken := make(chan struct{}, 1)
					w := q.Join(table, Addr{}, tried, int64(i), 0, func() { woken <- struct{}{} })
					if r.IntN(4) == 0 {
						host, abandon := w.Leave()
						if abandon {
							tried = new(Tried)
						}
						if host == nil {
							gaveUp.Add(1)
							break
						}
						h = host
						continue
					}
					select {
					case <-woken:
					case <-time.After(30 * time.Second):
						t.Error("a session is forgotten")
						return
					}
					if h, _ = w.Called(); h == nil {
						again.Add(1)
					}
				}
				if h != nil {
					served.Add(1)
					if n := h.Sessions(); n > 4 {
						t.Errorf("%s has %d sessions", h.Name(), n)
					}
					if r.IntN(3) == 0 {
						runtime.Gosched()
					}
					h.Release(0, 0)
				}
			}
		})
	}
	loops.Wait()
	close(stop)
	others.Wait()
	if q.Len() != 0 || q.first != nil || q.last != nil {
		t.Errorf("%d wait after the end, first %v", q.Len(), q.first)
	}
	for _, h := range hosts {
		if n := h.Sessions(); n != 0 {
			t.Errorf("%s has %d sessions after the end", h.Name(), n)
		}
	}
	if served.Load() == 0 || gaveUp.Load() == 0 {
		t.Errorf("%d served, %d gave up, %d asked again", served.Load(), gaveUp.Load(), again.Load())
	}
}

// What a pick costs that finds hosts with limits, and a place that goes to one who waits.
func BenchmarkLimits(b *testing.B) {
	for _, c := range []struct {
		name string
		most int
	}{{"off", 0}, {"on", 1000}} {
		b.Run("pick/"+c.name, func(b *testing.B) {
			table, _ := limitedTable(b, "", c.most, c.most, c.most)
			var tried Tried
			b.ReportAllocs()
			for b.Loop() {
				h, _ := table.Pick(Addr{}, &tried)
				h.Release(0, 0)
				tried.Reset()
			}
		})
	}
	b.Run("queue", func(b *testing.B) {
		table, hosts := limitedTable(b, "", 1)
		var first Tried
		table.Pick(Addr{}, &first)
		b.ReportAllocs()
		for b.Loop() {
			var tried Tried
			table.Queue().Join(table, Addr{}, &tried, 1, 0, func() {})
			hosts[0].Release(0, 0)
		}
	})
}
