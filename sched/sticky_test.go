package sched

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// visit is a session of a client that goes on.
type visit struct {
	tried Tried
	kept  Hold
	host  *Host
}

// come begins a session of a client.
func come(tab *Table, client Addr) *visit {
	v := new(visit)
	v.host, _ = tab.Pick(client, &v.tried)
	return v
}

// settle moves the hold to the session, as happens when its first byte has moved.
func (v *visit) settle() {
	v.kept, _ = v.tried.Keep()
	v.tried.Reset()
}

func (v *visit) leave() {
	v.tried.Reset()
	v.kept.Leave()
	if v.host != nil {
		v.host.Release(0, 0)
	}
}

// whole is a second that is over: ticks are whole seconds.
func (s *Sticky) after(d time.Duration) { s.Tick(s.began.Add(d + tick)) }

// all sweeps the whole table.
func (s *Sticky) all(d time.Duration) {
	for range 61 {
		s.after(d)
	}
}

func TestB40StickyClientComesBack(t *testing.T) {
	for _, scheduler := range Names() {
		m := mixed(5)
		s := NewSticky(1000, time.Minute)
		p := Policy{Scheduler: scheduler + ",sticky", Sticky: s}
		tab := table(t, p, m)
		hosts, used := map[int]*Host{}, map[*Host]bool{}
		for range 3 {
			for n := range 100 {
				h := hostFor(tab, clientOf(n))
				if hosts[n] == nil {
					hosts[n] = h
				}
				if used[h] = true; h != hosts[n] {
					t.Fatalf("%s: client %d has host %s, and had %s", scheduler, n, h.Name(), hosts[n].Name())
				}
			}
			slices.Reverse(m)
			tab = table(t, p, m) // the table does not outlive a change, and the clients do
		}
		if len(used) != 5 || s.Len() != 100 {
			t.Errorf("%s: %d hosts for %d clients", scheduler, len(used), s.Len())
		}
	}
}

// What wins over a client's coming back, and what does not.
func TestB40StickyAndTheStatesOfHosts(t *testing.T) {
	m := equal(4)
	m[3].Backup = true
	p := Policy{Scheduler: "roundr,sticky", Sticky: NewSticky(10, time.Minute)}
	client := clientOf(1)
	first := hostFor(table(t, p, m), client)
	i := slices.IndexFunc(m, func(o Member) bool { return o.Host == first })

	m[i].Host.MarkDown()
	second := hostFor(table(t, p, m), client)
	m[i].Host.MarkUp()
	if again := hostFor(table(t, p, m), client); second == first || again != second {
		t.Errorf("after a failure of %s: %s, then %s", first.Name(), second.Name(), again.Name())
	}

	i = slices.IndexFunc(m, func(o Member) bool { return o.Host == second })
	without := slices.Delete(slices.Clone(m), i, i+1) // in drain or maint
	third := hostFor(table(t, p, without), client)
	if again := hostFor(table(t, p, m), client); third == second || again != third {
		t.Errorf("after a drain of %s: %s, then %s", second.Name(), third.Name(), again.Name())
	}

	i = slices.IndexFunc(m, func(o Member) bool { return o.Host == third })
	m[i].Weight = 0
	if h := hostFor(table(t, p, m), client); h == third {
		t.Error("a host of weight 0 has its clients back")
	}
	m[i].Weight = 1

	for _, one := range m[:3] {
		one.Host.MarkDown()
	}
	backup := hostFor(table(t, p, m), client)
	for _, one := range m[:3] {
		one.Host.MarkUp()
	}
	if again := hostFor(table(t, p, m), client); backup != m[3].Host || again != backup {
		t.Errorf("the backup is %s; with primaries up again, the client has %s", backup.Name(), again.Name())
	}
	if h := table(t, p, m).Home(client); h != backup {
		t.Errorf("the client's home is %v", h)
	}
	p.Sticky.Forget(m[0].Host)
	if h := hostFor(table(t, p, m), client); h != backup {
		t.Error("clients of another host were forgotten")
	}
	p.Sticky.Forget(nil)
	if h := hostFor(table(t, p, m), client); h == backup {
		t.Error("a client that was forgotten has the backup")
	}

	last := hostFor(table(t, p, m), client)
	for _, one := range m {
		one.Host.MarkDown()
	}
	tab := table(t, p, m)
	for range 10 {
		if h := hostFor(tab, client); h != last {
			t.Fatalf("the last resort is %s, want the client's host %s", h.Name(), last.Name())
		}
	}
	if tab.Home(client) != nil {
		t.Error("a host that is down is the client's home")
	}
}

// A client whose session tries another host comes back to that one.
func TestB40StickyRemembersTheLastTried(t *testing.T) {
	m := equal(7)
	tab := table(t, Policy{Scheduler: "roundr,sticky", Sticky: NewSticky(10, time.Minute)}, m)
	client := clientOf(1)
	for tries := 1; tries <= len(m); tries++ {
		var v visit
		for range tries {
			if v.host != nil {
				v.host.Release(0, 0)
			}
			if v.host, _ = tab.Pick(client, &v.tried); v.host == nil {
				t.Fatalf("%d of %d tries", v.tried.Len(), tries)
			}
		}
		v.settle()
		last := v.host
		v.leave()
		if h := hostFor(tab, client); h != last {
			t.Errorf("after %d tries, the client has %s and had %s", tries, h.Name(), last.Name())
		}
	}
}

// Random clients, sessions, failures, times, tables and sizes against a plain model.
func TestB40StickyModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const keep = 10
		m := mixed(5)
		scheduler := rapid.SampledFrom(Names()).Draw(rt, "scheduler") + ",sticky"
		s := NewSticky(rapid.IntRange(1, 40).Draw(rt, "size"), keep*time.Second)
		now, tab := 0, table(t, Policy{Scheduler: scheduler, Sticky: s, Seed: 1}, m)
		listed := slices.Clone(m)
		wasFull := false
		type seen struct {
			host           *Host
			sessions, left int
		}
		model, open := map[int]*seen{}, []func(){}
		serves := func(h *Host) bool {
			return h.Up() && slices.ContainsFunc(listed, func(o Member) bool { return o.Host == h && o.Weight > 0 })
		}
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			default:
				n := rapid.IntRange(0, 30).Draw(rt, "client")
				known := s.host(clientOf(n))
				wasFull = wasFull || s.Len() >= s.Size()
				v := come(tab, clientOf(n))
				if v.host == nil {
					rt.Fatal("no host")
				}
				k := model[n]
				// A client with a session is never forgotten; one without is, to make room or in time.
				if k != nil && (k.sessions > 0 || now-k.left <= keep) {
					switch {
					case known == nil && (k.sessions > 0 || !wasFull):
						rt.Fatalf("client %d was forgotten", n)
					case known != nil && known != k.host:
						rt.Fatalf("client %d has host %s and had %s", n, known.Name(), k.host.Name())
					case known != nil && v.host != known && serves(known):
						rt.Fatalf("client %d came back to %s and not to %s", n, v.host.Name(), known.Name())
					}
				}
				if k == nil {
					k = new(seen)
					model[n] = k
				}
				remembered := v.tried.hold.visitor != nil
				if !remembered {
					if k.sessions > 0 {
						rt.Fatalf("client %d has %d sessions and is not remembered", n, k.sessions)
					}
					v.leave()
					delete(model, n)
					continue
				}
				k.host = v.host
				k.sessions++
				if rapid.Bool().Draw(rt, "settles") {
					v.settle()
				}
				open = append(open, func() {
					v.leave()
					k.sessions--
					k.left = now
				})
			case 4, 5, 6:
				if len(open) > 0 {
					i := rapid.IntRange(0, len(open)-1).Draw(rt, "which")
					open[i]()
					open = slices.Delete(open, i, i+1)
				}
			case 7:
				now += rapid.SampledFrom([]int{1, 3, keep, keep + 1, 3 * keep}).Draw(rt, "time")
				for range 61 {
					s.Tick(s.began.Add(time.Duration(now) * time.Second))
				}
				alive := 0
				for _, k := range model {
					if k.sessions > 0 {
						alive++
					}
				}
				if s.Len() < alive || s.Len() > s.Size() {
					rt.Fatalf("%d are remembered, %d have sessions, there is room for %d", s.Len(), alive, s.Size())
				}
			case 8:
				if h := m[rapid.IntRange(0, 4).Draw(rt, "host")].Host; h.Up() {
					h.MarkDown()
				} else {
					h.MarkUp()
				}
			case 9:
				listed = slices.Clone(rapid.Permutation(m).Draw(rt, "members")[:rapid.IntRange(1, 5).Draw(rt, "hosts")])
				if rapid.IntRange(0, 4).Draw(rt, "resize") == 0 {
					bigger := s.Resized(s.Size()+rapid.IntRange(0, 40).Draw(rt, "more"), keep*time.Second)
					if bigger.Len() != s.Len() {
						rt.Fatalf("%d are remembered of %d", bigger.Len(), s.Len())
					}
					s = bigger
				}
				tab = table(t, Policy{Scheduler: scheduler, Sticky: s, Seed: 1}, listed)
			}
		}
		for _, leave := range open {
			leave()
		}
		s.all(time.Duration(now+keep+1) * time.Second)
		if s.Len() != 0 {
			rt.Fatalf("%d are remembered after all have been away", s.Len())
		}
		for _, one := range m {
			if n := one.Host.Stats().Active; n != 0 {
				rt.Fatalf("%d sessions are left on %s", n, one.Host.Name())
			}
		}
	})
}

// A client is forgotten stickyFor after its last session, not before, and never during
// one, however long.
func TestB40StickyForgetsInTime(t *testing.T) {
	s := NewSticky(100, time.Minute)
	tab := table(t, Policy{Scheduler: "roundr,sticky", Sticky: s}, equal(3))
	client := clientOf(1)
	v := come(tab, client)
	v.settle()
	s.all(24 * time.Hour)
	if h := hostFor(tab, client); h != v.host {
		t.Fatal("a client with a session was forgotten")
	}
	v.leave()
	s.all(24*time.Hour + time.Minute)
	if s.Len() != 1 || tab.Home(client) != v.host {
		t.Error("a client was forgotten after a minute; it has to be more")
	}
	s.all(24*time.Hour + time.Minute + time.Second)
	if s.Len() != 0 || tab.Home(client) != nil {
		t.Error("a client is still remembered after its time")
	}
	// Nobody has swept: it is forgotten all the same.
	first := hostFor(tab, client)
	s.now.Add(62)
	if h := hostFor(tab, client); h == first {
		t.Error("a client that was away for too long has its host back")
	}
}

// Of a full table, clients without a session that came long ago make room, and those with
// one never.
func TestB40StickyMakesRoom(t *testing.T) {
	const size = 1000
	s := NewSticky(size, time.Hour)
	tab := table(t, Policy{Scheduler: "rand,sticky", Sticky: s, Seed: 1}, equal(3))
	var open []*visit
	for n := range 100 {
		v := come(tab, clientOf(n))
		v.settle()
		open = append(open, v)
	}
	for n := 100; n < 20*size; n++ { // each third client comes again and again
		s.now.Store(uint32(n / 100))
		hostFor(tab, clientOf(n))
		hostFor(tab, clientOf(n/(size/3)*(size/3)))
		if s.Len() > size {
			t.Fatalf("%d clients in a table of %d", s.Len(), size)
		}
	}
	for n, v := range open {
		if h := s.host(clientOf(n)); h != v.host {
			t.Errorf("client %d has a session and was forgotten", n)
		}
	}
	recent := 0
	for n := 20*size - 300; n < 20*size; n++ {
		if s.host(clientOf(n)) != nil {
			recent++
		}
	}
	if recent < 270 {
		t.Errorf("of the last 300 clients %d are remembered: not the oldest made room", recent)
	}
	for n := range 2 * size { // all the room is taken by sessions
		v := come(tab, clientOf(1<<20+n))
		v.settle()
		open = append(open, v)
	}
	if s.Len() > size {
		t.Errorf("%d clients in a table of %d", s.Len(), size)
	}
	for _, v := range open {
		v.leave()
	}
	s.all(3 * time.Hour)
	if s.Len() != 0 {
		t.Errorf("%d clients are left", s.Len())
	}
}

// Many loops pick for the same clients at once, new ones among them, while tables, sizes,
// time and health change. Sessions of a client that begin at the same moment get the same
// host, and in the end nothing is left.
func TestB40StickyFromManyLoops(t *testing.T) {
	const loops, rounds, sessions = 4, 200, 3000
	m := equal(6)
	s := NewSticky(10_000, time.Minute)
	policy := func(s *Sticky) Policy { return Policy{Scheduler: "leastc,sticky", Sticky: s} }
	var tab atomic.Pointer[Table]
	tab.Store(table(t, policy(s), m))
	for round := range rounds {
		var ready, all sync.WaitGroup
		ready.Add(loops)
		var hosts [loops][4]*Host
		for loop := range loops {
			all.Go(func() {
				ready.Done()
				ready.Wait()
				for k := range 4 {
					v := come(tab.Load(), clientOf(1000*round+k))
					hosts[loop][k] = v.host
					if k%2 == 0 {
						v.settle()
					}
					v.leave()
				}
			})
		}
		all.Wait()
		for loop := range loops {
			if hosts[loop] != hosts[0] {
				t.Fatalf("round %d: loops 0 and %d disagree", round, loop)
			}
		}
	}

	var all sync.WaitGroup
	var working atomic.Int32
	working.Store(loops)
	for loop := range loops {
		all.Go(func() {
			defer working.Add(-1)
			var open []*visit
			for n := range sessions {
				v := come(tab.Load(), clientOf((loop+7*n)%500))
				v.settle()
				if open = append(open, v); len(open) > 20 {
					open[0].leave()
					open = open[1:]
				}
			}
			for _, v := range open {
				v.leave()
			}
		})
	}
	last := []*Sticky{s}
	end := time.Duration(0)
	for i := 0; working.Load() > 0; i++ {
		end = time.Duration(i) * 10 * time.Second
		s.after(end)
		h := m[i%6].Host
		h.MarkDown()
		m[(i+3)%6].Host.MarkUp()
		if i%10 == 0 && len(last) < 20 {
			next := s.Resized(50+(i*37)%300, time.Minute)
			tab.Store(table(t, policy(next), m))
			next.Adopt(s)
			s = next
			last = append(last, s)
		} else {
			tab.Store(table(t, policy(s), m[i%2:]))
		}
		if i%17 == 0 {
			s.Forget(h)
		}
		runtime.Gosched()
	}
	all.Wait()
	for i, s := range last {
		s.all(end + time.Hour)
		if s.Len() != 0 {
			t.Errorf("%d visitors are left in table %d", s.Len(), i)
		}
		for c := range s.chains {
			if s.chains[c].Load() != nil {
				t.Fatalf("table %d: a chain is not empty", i)
			}
		}
	}
	for _, one := range m {
		if n := one.Host.Stats().Active; n != 0 {
			t.Errorf("%d sessions are left on %s", n, one.Host.Name())
		}
	}
}

// A client that is known costs no allocation, and neither does maglev.
func TestAffinityAllocatesNothing(t *testing.T) {
	for _, scheduler := range []string{"leastc,sticky", "maglev,sticky", "maglev"} {
		p := Policy{Scheduler: scheduler}
		if IsSticky(scheduler) {
			p.Sticky = NewSticky(1000, time.Minute)
		}
		m := mixed(10)
		for i := range m[:8] {
			m[i].Host.MarkDown()
		}
		tab := table(t, p, m)
		for n := range 100 {
			hostFor(tab, clientOf(n))
		}
		n, v := 0, new(visit)
		if got := testing.AllocsPerRun(1000, func() {
			v.host, _ = tab.Pick(clientOf(n%100), &v.tried)
			v.settle()
			v.leave()
			n++
		}); got != 0 {
			t.Errorf("%s: %v allocations for a pick", scheduler, got)
		}
	}
}

func BenchmarkStickyNew(b *testing.B) {
	for _, size := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tab := table(b, Policy{Scheduler: "leastc,sticky", Sticky: NewSticky(size, time.Minute)}, mixed(10))
			b.ReportAllocs()
			var tried Tried
			for n := 0; b.Loop(); n++ {
				h, _ := tab.Pick(clientOf(n), &tried)
				h.Release(0, 0)
				tried.Reset()
			}
		})
	}
}

// BenchmarkStickyBytes measures what a full table takes for each client.
func BenchmarkStickyBytes(b *testing.B) {
	const size = 100_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := NewSticky(size, time.Minute)
		for n := range size {
			h := s.enter(clientOf(n))
			h.Leave()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/size, "B/client")
		runtime.KeepAlive(s)
	}
}

func BenchmarkStickyTick(b *testing.B) {
	s := NewSticky(100_000, time.Minute)
	for n := range 100_000 {
		h := s.enter(clientOf(n))
		h.Leave()
	}
	for b.Loop() {
		s.Tick(s.began)
	}
}

// meanwhile is a chooser during whose first choice something else happens.
type meanwhile struct {
	chooser
	do func()
}

func (m *meanwhile) choose(tried *Tried) *Host {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.chooser.choose(tried)
}

// While the scheduler chooses for a session of a client, another session of it gets its
// host. The first one goes there too, unless it is down, and
// what it was given first counts nowhere.
func TestB40StickySessionsAgree(t *testing.T) {
	for name, c := range map[string]struct {
		other func(*Host) // what becomes of the other session's host
		agree bool
	}{
		"up":        {func(*Host) {}, true},
		"goes down": {func(h *Host) { h.MarkDown() }, false},
	} {
		for _, scheduler := range []string{"roundr,sticky", "weightrr,sticky"} {
			m := equal(3)
			s := NewSticky(10, time.Minute)
			tab := table(t, Policy{Scheduler: scheduler, Sticky: s}, m)
			var one, two visit
			tab.ranks[0].chooser = &meanwhile{tab.ranks[0].chooser, func() {
				two.host, _ = tab.Pick(clientOf(1), &two.tried)
				c.other(two.host)
			}}
			var v Verdict
			one.host, v = tab.Pick(clientOf(1), &one.tried)
			if agree := one.host == two.host; agree != c.agree || v != Picked || one.tried.Len() != 1 || !one.tried.Has(one.host) {
				t.Errorf("%s, %s: hosts %s and %s, verdict %v", scheduler, name, one.host.Name(), two.host.Name(), v)
			}
			if next := s.host(clientOf(1)); next != one.host {
				t.Errorf("%s, %s: the client's host is %s", scheduler, name, next.Name())
			}
			sum := HostStats{}
			for _, h := range m {
				sum.Add(h.Host.Stats())
			}
			if sum.Picks != 2 || sum.Active != 2 {
				t.Errorf("%s, %s: %d picks and %d sessions are counted", scheduler, name, sum.Picks, sum.Active)
			}
			one.leave()
			two.leave()
		}
	}
}
