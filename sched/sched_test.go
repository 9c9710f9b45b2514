package sched

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// members makes hosts named 0, 1, 2 … with the given weights.
func members(weights ...int) []Member {
	list := make([]Member, len(weights))
	for i, w := range weights {
		addr := TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80))
		list[i] = Member{Host: NewHost(fmt.Sprint(i), addr), Weight: w}
	}
	return list
}

func equal(n int) []Member { return members(slices.Repeat([]int{1}, n)...) }

func table(t testing.TB, p Policy, m []Member) *Table {
	t.Helper()
	tab, err := NewTable(p, m)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// pick makes one pick of a new session.
func pick(t testing.TB, tab *Table) *Host {
	t.Helper()
	var tried Tried
	h, v := tab.Pick(Addr{}, &tried)
	if h == nil || v != Picked || tried.Len() != 1 || !tried.Has(h) {
		t.Fatalf("picked %v, verdict %v, tried %d", h, v, tried.Len())
	}
	return h
}

// pickMany makes n picks, spread over goroutines, and returns them by host.
func pickMany(t testing.TB, tab *Table, n, goroutines int) map[string]int {
	t.Helper()
	var mu sync.Mutex
	sum := map[string]int{}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			mine := map[string]int{}
			for range n / goroutines {
				var tried Tried
				if h, _ := tab.Pick(Addr{}, &tried); h != nil {
					mine[h.Name()]++
					h.Release(0, 0)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for name, k := range mine {
				sum[name] += k
			}
		})
	}
	wg.Wait()
	return sum
}

func TestB36RoundRobinIsExact(t *testing.T) {
	for _, hosts := range []int{1, 2, 3, 7, 100} {
		got := pickMany(t, table(t, Policy{Scheduler: "roundr"}, equal(hosts)), 8*hosts*50, 8)
		for name, n := range got {
			if n != 400 {
				t.Errorf("%d hosts: host %s was picked %d times, want 400", hosts, name, n)
			}
		}
	}
}

func TestRebuiltTableGoesOn(t *testing.T) {
	m := equal(3)
	tab := table(t, Policy{Scheduler: "roundr"}, m)
	order := ""
	for range 9 {
		order += pick(t, tab).Name()
		tab = table(t, Policy{Scheduler: "roundr", Start: tab.Next()}, m)
	}
	if order != "012012012" {
		t.Errorf("order %s", order)
	}
}

func TestB37WeightsOfRoundRobinAreExact(t *testing.T) {
	for _, weights := range [][]int{{1}, {5, 1, 1}, {2, 2}, {10, 20, 30}, {65535, 1, 1}, {3, 0, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		sum, shared := 0, 0
		for _, w := range weights {
			sum += w
			shared = int(gcd(uint64(w), uint64(shared)))
		}
		round := sum / shared
		tab := table(t, Policy{Scheduler: "weightrr"}, members(weights...))
		got := map[string]int{}
		for range round {
			h := pick(t, tab)
			got[h.Name()]++
		}
		for i, w := range weights {
			if got[fmt.Sprint(i)] != w/shared {
				t.Errorf("weights %v: host %d was picked %d times of %d, want %d", weights, i, got[fmt.Sprint(i)], round, w/shared)
			}
		}
		// And from many goroutines, round after round.
		rounds := 8 * max(1, 20000/round)
		if round > 1000 {
			rounds = 8
		}
		for name, n := range pickMany(t, tab, rounds*round, 8) {
			var i int
			_, _ = fmt.Sscan(name, &i)
			if n != rounds*weights[i]/shared {
				t.Errorf("weights %v, 8 goroutines: host %s was picked %d times, want %d", weights, name, n, rounds*weights[i]/shared)
			}
		}
	}
}

// A host's turns are spread: no run of it is longer than twice what its
// weight against the others' makes necessary, plus two.
func TestWeightedRoundRobinIsSmooth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		greatest := rapid.SampledFrom([]int{5, 40, 9000}).Draw(rt, "greatest")
		weights := rapid.SliceOfN(rapid.IntRange(1, greatest), 2, 12).Draw(rt, "weights")
		sum := 0
		for _, w := range weights {
			sum += w
		}
		tab := table(t, Policy{Scheduler: "weightrr"}, members(weights...))
		run, last := 0, ""
		for range min(2*sum, 5000) {
			h := pick(t, tab)
			if h.Name() == last {
				run++
			} else {
				run, last = 1, h.Name()
			}
			var i int
			_, _ = fmt.Sscan(last, &i)
			w := weights[i]
			if longest := 2*((w+sum-w-1)/(sum-w)) + 2; run > longest {
				rt.Fatalf("weights %v: host %d came %d times in a row, want at most %d", weights, i, run, longest)
			}
		}
	})
}

func TestB37WeightsOfRandomAreRight(t *testing.T) {
	const picks = 200_000
	for scheduler, weights := range map[string][]int{
		"weightr": {1, 2, 3, 10, 100, 1000, 0, 7},
		"rand":    {1, 1, 1, 1, 1, 1, 1, 1},
	} {
		sum := 0
		for _, w := range weights {
			sum += w
		}
		got := pickMany(t, table(t, Policy{Scheduler: scheduler, Seed: 42}, members(weights...)), picks, 1)
		chi := 0.0
		for i, w := range weights {
			n := got[fmt.Sprint(i)]
			if w == 0 {
				if n != 0 {
					t.Errorf("%s: host %d of weight 0 was picked", scheduler, i)
				}
				continue
			}
			want := float64(picks) * float64(w) / float64(sum)
			chi += math.Pow(float64(n)-want, 2) / want
		}
		// Seven degrees of freedom: 24.3 is passed once in a thousand seeds.
		if chi > 24.3 {
			t.Errorf("%s: chi-square is %.1f: %v", scheduler, chi, got)
		}
	}
}

func TestSeedFixesTheSequence(t *testing.T) {
	for _, scheduler := range []string{"rand", "weightr", "p2c"} {
		draw := func(seed uint64) (s string) {
			tab := table(t, Policy{Scheduler: scheduler, Seed: seed}, equal(9))
			for range 50 {
				s += pick(t, tab).Name()
			}
			return s
		}
		if first, again, other := draw(1), draw(1), draw(2); first != again || first == other {
			t.Errorf("%s: the seed does not fix the sequence", scheduler)
		}
	}
}

func TestB38WeightZero(t *testing.T) {
	for _, scheduler := range Names() {
		tab := table(t, Policy{Scheduler: scheduler}, members(0, 1, 0))
		for range 50 {
			if h := pick(t, tab); h.Name() != "1" {
				t.Fatalf("%s: picked host %s of weight 0", scheduler, h.Name())
			}
		}
		var tried Tried
		if h, v := table(t, Policy{Scheduler: scheduler}, members(0, 0)).Pick(Addr{}, &tried); h != nil || v != None {
			t.Errorf("%s: all weights 0: picked %v, verdict %v", scheduler, h, v)
		}
	}
}

func TestB39LeastConnections(t *testing.T) {
	for _, scheduler := range []string{"leastc", "weightlc"} {
		// Ties go to the longest unused: with none released, all in turn.
		m := equal(5)
		tab := table(t, Policy{Scheduler: scheduler}, m)
		order := ""
		for range 15 {
			order += pick(t, tab).Name()
		}
		if order != "012340123401234" {
			t.Errorf("%s: order %s", scheduler, order)
		}
		// 3 is released first, then 1: both have one less, 1 was picked longer ago.
		m[3].Host.Release(0, 0)
		m[1].Host.Release(0, 0)
		if got := pick(t, tab).Name() + pick(t, tab).Name(); got != "13" {
			t.Errorf("%s: then %s, want 13", scheduler, got)
		}
	}
}

// Many goroutines pick and nobody releases: at every moment the counts differ
// by one at most, so at the end they are equal.
func TestB39LeastConnectionsUnderConcurrency(t *testing.T) {
	for _, hosts := range []int{2, 10, 64} {
		m := equal(hosts)
		tab := table(t, Policy{Scheduler: "leastc"}, m)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range hosts * 25 {
					pick(t, tab)
				}
			})
		}
		wg.Wait()
		for _, m := range m {
			if n := m.Host.Stats().Active; n != 200 {
				t.Errorf("%d hosts: host %s has %d sessions, want 200", hosts, m.Host.Name(), n)
			}
		}
	}
}

func TestWeightedLeastFollowsTheWeights(t *testing.T) {
	m := members(1, 2, 5)
	tab := table(t, Policy{Scheduler: "weightlc"}, m)
	for range 80 {
		pick(t, tab)
	}
	for i, want := range []int64{10, 20, 50} {
		if got := m[i].Host.Stats().Active; got != want {
			t.Errorf("host %d has %d sessions, want %d", i, got, want)
		}
	}
}

// Beyond 64 hosts least connections samples: not exact, but never far off.
func TestLeastOfManyIsNear(t *testing.T) {
	m := equal(1000)
	tab := table(t, Policy{Scheduler: "leastc", Seed: 7}, m)
	for range 10_000 {
		pick(t, tab)
	}
	for _, m := range m {
		if n := m.Host.Stats().Active; n < 5 || n > 13 {
			t.Errorf("host %s has %d sessions, want about 10", m.Host.Name(), n)
		}
	}
}

func TestTwoChoicesPrefersTheLessLoaded(t *testing.T) {
	m := equal(2)
	tab := table(t, Policy{Scheduler: "p2c", Seed: 1}, m)
	for range 1000 {
		pick(t, tab)
	}
	// With two hosts the two choices are both of them.
	if a, b := m[0].Host.Stats().Active, m[1].Host.Stats().Active; a != 500 || b != 500 {
		t.Errorf("%d and %d sessions, want 500 each", a, b)
	}
}

// The tiers against a model: which hosts a session may get, in which order of
// preference, for every scheduler and any mix of health, weight and backups.
func TestTiersFollowTheRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 70).Draw(rt, "hosts")
		m := equal(n)
		flip := func(label string) bool { return rapid.IntRange(0, 2).Draw(rt, label) == 0 }
		for i := range m {
			m[i].Backup = flip("backup")
			if flip("weight 0") {
				m[i].Weight = 0
			}
			if flip("down") {
				m[i].Host.MarkDown()
			}
		}
		p := Policy{Scheduler: rapid.SampledFrom(Names()).Draw(rt, "scheduler"), Refuse: flip("refuse"), Seed: 3}
		tab := table(t, p, m)
		for i := range m { // health moves on after the build
			if flip("changed") && !m[i].Host.MarkDown() {
				m[i].Host.MarkUp()
			}
		}
		var tried Tried
		for range n + 1 {
			// What the rules allow now: the best class that is not empty.
			classes := map[int][]*Host{}
			anyUp := false
			for _, m := range m {
				if m.Weight == 0 {
					continue
				}
				anyUp = anyUp || m.Host.Up()
				if tried.Has(m.Host) {
					continue
				}
				class := 2
				if m.Host.Up() {
					class = 0
					if m.Backup {
						class = 1
					}
				}
				classes[class] = append(classes[class], m.Host)
			}
			var allowed []*Host
			want := Picked
			switch {
			case len(classes[0]) > 0:
				allowed = classes[0]
			case len(classes[1]) > 0:
				allowed = classes[1]
			case anyUp || p.Refuse || len(classes[2]) == 0:
				want = None
			default:
				allowed, want = classes[2], LastResort
			}
			h, v := tab.Pick(Addr{}, &tried)
			if v != want || (h == nil) != (want == None) || h != nil && !slices.Contains(allowed, h) {
				rt.Fatalf("%s: picked %v with verdict %v, want verdict %v and one of %v", p.Scheduler, h, v, want, allowed)
			}
			if h == nil {
				break
			}
			if h.Stats().Active != 1 || !tried.Has(h) {
				rt.Fatalf("%s: host %s has %d sessions after one pick", p.Scheduler, h.Name(), h.Stats().Active)
			}
		}
	})
}

// B44: tables are swapped and health moves while sessions pick: none gets a
// host that its table lacks, and every pick is released.
func TestB44PickUnderTableSwap(t *testing.T) {
	for _, scheduler := range Names() {
		m := members(1, 2, 3, 4, 5, 6, 7, 8)
		var current atomic.Pointer[Table]
		lists := map[*Table]map[*Host]bool{}
		var tables []*Table
		for i := range 32 {
			part := []Member{}
			for j := range m {
				if i == 0 || (i>>(j%5))&1 == 1 {
					part = append(part, m[j])
				}
			}
			tab := table(t, Policy{Scheduler: scheduler, Seed: uint64(i)}, part)
			lists[tab] = map[*Host]bool{}
			for _, p := range part {
				lists[tab][p.Host] = true
			}
			tables = append(tables, tab)
		}
		current.Store(tables[0])
		var stop atomic.Bool
		var wg, swapper sync.WaitGroup
		swapper.Go(func() {
			for i := 0; !stop.Load(); i++ {
				current.Store(tables[i%len(tables)])
				if h := m[i%len(m)].Host; !h.MarkDown() {
					h.MarkUp()
				}
			}
		})
		for range 4 {
			wg.Go(func() {
				for range 5000 {
					tab := current.Load()
					var tried Tried
					for {
						h, _ := tab.Pick(Addr{}, &tried)
						if h == nil {
							break
						}
						if !lists[tab][h] {
							t.Errorf("%s: picked host %s, which the table lacks", scheduler, h.Name())
						}
						h.Release(1, 2)
					}
				}
			})
		}
		wg.Wait()
		stop.Store(true)
		swapper.Wait()
		for _, m := range m {
			if s := m.Host.Stats(); s.Active != 0 || s.In != s.Picks || s.Out != 2*s.Picks {
				t.Errorf("%s: host %s ends with %+v", scheduler, m.Host.Name(), s)
			}
		}
	}
}

func TestTriedBeyondItsInlineRoom(t *testing.T) {
	var tried Tried
	tab := table(t, Policy{Scheduler: "roundr"}, equal(20))
	for i := range 20 {
		if h, _ := tab.Pick(Addr{}, &tried); h == nil || tried.Len() != i+1 {
			t.Fatalf("pick %d: %v, tried %d", i, h, tried.Len())
		}
	}
	if h, v := tab.Pick(Addr{}, &tried); h != nil || v != None {
		t.Errorf("picked %v after all were tried", h)
	}
	tried.Reset()
	if h, _ := tab.Pick(Addr{}, &tried); h == nil || tried.Len() != 1 {
		t.Errorf("after a reset: %v, tried %d", h, tried.Len())
	}
}

func TestNewTableRefuses(t *testing.T) {
	m := equal(2)
	for name, test := range map[string]struct {
		p Policy
		m []Member
	}{
		"unknown scheduler": {Policy{Scheduler: "fastest"}, m},
		"negative weight":   {Policy{}, []Member{{Host: m[0].Host, Weight: -1}}},
		"weight too great":  {Policy{}, []Member{{Host: m[0].Host, Weight: MaxWeight + 1}}},
		"host twice":        {Policy{}, []Member{m[0], m[0]}},
	} {
		if _, err := NewTable(test.p, test.m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for alias, want := range map[string]string{"random": "rand", "roundrobin": "roundr", "leastconns": "leastc", "leastconnsrr": "leastc", "lweighted": "weightr"} {
		if got, ok := Canonical(alias); !ok || got != want {
			t.Errorf("%s is %q, want %s", alias, got, want)
		}
	}
}

func TestHealthAndCounters(t *testing.T) {
	h := NewHost("a", Addr{})
	if !h.Up() || !h.Fail() || h.Fail() || h.Up() {
		t.Error("only the first failure takes a host down")
	}
	if !h.MarkUp() || h.MarkUp() || !h.MarkDown() || h.MarkDown() {
		t.Error("a change is reported once")
	}
	if s := h.Stats(); s.Failures != 2 || s.Up {
		t.Errorf("stats %+v", s)
	}
}

func TestHotLineIsAlone(t *testing.T) {
	var h Host
	first, last := unsafe.Offsetof(h.active), unsafe.Offsetof(h.down)
	if last-first >= hostPad {
		t.Errorf("what a pick touches is spread over %d bytes", last-first)
	}
	if first < hostPad || unsafe.Offsetof(h.failures)-first < hostPad {
		t.Error("the hot line is shared with something else")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, scheduler := range Names() {
		for _, n := range []int{3, 100, 1000} {
			tab := table(t, Policy{Scheduler: scheduler}, equal(n))
			var tried Tried
			if a := testing.AllocsPerRun(200, func() {
				h, _ := tab.Pick(Addr{}, &tried)
				h.Release(0, 0)
				tried.Reset()
			}); a != 0 {
				t.Errorf("%s with %d hosts: %v allocations a pick", scheduler, n, a)
			}
		}
	}
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:8080", "unix:/run/a.sock"} {
		if a, err := ParseAddr(s); err != nil || a.String() != s || !a.IsValid() {
			t.Errorf("%s reads as %q: %v", s, a, err)
		}
	}
	for _, s := range []string{"", "10.0.0.1", "host:80", "unix:", "10.0.0.1:70000"} {
		if a, err := ParseAddr(s); err == nil {
			t.Errorf("%q was accepted as %v", s, a)
		}
	}
	if mapped, plain := TCPAddr(netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")), TCPAddr(netip.MustParseAddrPort("10.0.0.1:80")); mapped != plain {
		t.Errorf("%v and %v differ", mapped, plain)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, scheduler := range Names() {
		for _, n := range []int{3, 10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", scheduler, n), func(b *testing.B) {
				m := equal(n)
				for i := range m {
					m[i].Weight = 1 + i%7
				}
				tab := table(b, Policy{Scheduler: scheduler}, m)
				b.ReportAllocs()
				var tried Tried
				for b.Loop() {
					h, _ := tab.Pick(Addr{}, &tried)
					h.Release(0, 0)
					tried.Reset()
				}
			})
		}
	}
}

func BenchmarkPickParallel(b *testing.B) {
	for _, scheduler := range Names() {
		b.Run(scheduler, func(b *testing.B) {
			tab := table(b, Policy{Scheduler: scheduler}, equal(10))
			b.RunParallel(func(pb *testing.PB) {
				var tried Tried
				for pb.Next() {
					h, _ := tab.Pick(Addr{}, &tried)
					h.Release(0, 0)
					tried.Reset()
				}
			})
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, scheduler := range Names() {
		b.Run(scheduler+"/10000", func(b *testing.B) {
			m := equal(10_000)
			for b.Loop() {
				table(b, Policy{Scheduler: scheduler}, m)
			}
		})
	}
}
