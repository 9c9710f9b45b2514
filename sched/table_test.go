package sched

import (
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/txlb/txlb/internal/testkit"
)

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
	// Whichever tier made the picks.
	m[0].Backup, m[1].Backup = true, true
	m[2].Host.MarkDown()
	tab = table(t, Policy{Scheduler: "roundr", Start: 100}, m)
	for range 7 {
		pick(t, tab)
	}
	if got := tab.Next(); got != 107 {
		t.Errorf("after 7 picks from 100 on the next is %d", got)
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

// anyState puts members into any mix of tiers, weights and health. It returns what it
// decides by: true once in three.
func anyState(rt *rapid.T, m []Member) (flip func(label string) bool) {
	flip = func(label string) bool { return rapid.IntRange(0, 2).Draw(rt, label) == 0 }
	for i := range m {
		m[i].Backup, m[i].Far = flip("backup"), flip("far")
		if flip("weight 0") {
			m[i].Weight = 0
		}
		if flip("down") {
			m[i].Host.MarkDown()
		}
	}
	return flip
}

// The tiers against a model: which hosts a session may get, in which order of
// preference, for every scheduler and any mix of health, weight and backups.
func TestTiersFollowTheRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 70).Draw(rt, "hosts")
		m := equal(n)
		flip := anyState(rt, m)
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
				class := 4 // a last resort
				if m.Host.Up() {
					class = 0
					if m.Backup {
						class = 2
					}
					if m.Far {
						class++
					}
				}
				classes[class] = append(classes[class], m.Host)
			}
			var allowed []*Host
			want := None
			for class := range 4 {
				if len(classes[class]) > 0 {
					allowed, want = classes[class], Picked
					break
				}
			}
			if want == None && !anyUp && !p.Refuse && len(classes[4]) > 0 {
				allowed, want = classes[4], LastResort
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

// Clients go to the hosts of their own zone while one of them is up, then to those of
// others, then to backups of the own zone and last to other backups; and they go back
// with the next table.
func TestB90OwnZoneFirst(t *testing.T) {
	for _, scheduler := range Names() {
		m := equal(8)
		for i := range m {
			m[i].Far, m[i].Backup = i%2 == 1, i >= 4
		}
		p := Policy{Scheduler: scheduler, Seed: 7}
		order := [][]int{{0, 2}, {1, 3}, {4, 6}, {5, 7}}
		expect := func(tab *Table, tier []int, when string) {
			t.Helper()
			for range 100 {
				var tried Tried
				h, v := tab.Pick(Addr{}, &tried)
				if v != Picked || h != m[tier[0]].Host && h != m[tier[1]].Host {
					t.Fatalf("%s, %s: picked %v with verdict %v, want one of %v", scheduler, when, h, v, tier)
				}
				h.Release(0, 0)
			}
		}
		whole := table(t, p, m)
		for i, tier := range order {
			expect(whole, tier, "table from when all were up")
			expect(table(t, p, m), tier, "table of now")
			if i < len(order)-1 {
				for _, at := range tier {
					m[at].Host.MarkDown()
				}
			}
		}
		down := table(t, p, m)
		m[order[0][0]].Host.MarkUp()
		for range 100 { // it has come back since the table was built
			var tried Tried
			h, _ := down.Pick(Addr{}, &tried)
			if h != m[order[0][0]].Host {
				t.Fatalf("%s: picked %v, while a host of the own zone is up", scheduler, h)
			}
			h.Release(0, 0)
		}
	}
}

// Tables are swapped and health moves while sessions pick: none gets a host
// that its table lacks, and every pick is released.
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
		"too many":          {Policy{}, make([]Member, maxMembers+1)},
	} {
		if _, err := NewTable(test.p, test.m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for alias, want := range map[string]string{"random": "rand", "roundrobin": "roundr", "leastconns": "leastc", "leastconnsrr": "leastc", "lweighted": "weightr", "": "leastc", "p2c": "p2c"} {
		if got, ok := Canonical(alias); !ok || got != want {
			t.Errorf("%s is %q, want %s", alias, got, want)
		}
	}
	if got, ok := Canonical("LeastC"); ok {
		t.Errorf("LeastC is %s: names are matched exactly", got)
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
			for _, down := range []bool{false, true} { // and what a session may do when its hosts fail
				if a := testing.AllocsPerRun(50, func() {
					for range 3 {
						h, _ := tab.Pick(Addr{}, &tried)
						h.Release(0, 0)
						if down {
							h.MarkDown()
						}
					}
					tried.Reset()
				}); a != 0 {
					t.Errorf("%s with %d hosts, down %v: %v allocations for three picks", scheduler, n, down, a)
				}
			}
		}
	}
}

// Whatever stands in for the hosts that are gone does so evenly: backups,
// hosts that came back since the table was built, and those of the last resort.
// The numbers of hosts are such as every second or third turn of a counter that
// others move on too would always meet the same one.
func TestEveryTierIsFair(t *testing.T) {
	const picks = 600
	for _, scheduler := range Names() {
		p := Policy{Scheduler: scheduler, Seed: 9}
		down := func(m []Member) {
			for i := range m {
				m[i].Host.MarkDown()
			}
		}
		backups := func(m []Member) {
			for i := range m {
				m[i].Backup = true
			}
		}
		far := func(m []Member) {
			for i := range m {
				m[i].Far = true
			}
		}
		for name, prepare := range map[string]func(m []Member) (*Table, Verdict){
			"backups": func(m []Member) (*Table, Verdict) {
				backups(m[1:])
				down(m[:1])
				return table(t, p, m), Picked
			},
			"backups, down after the build": func(m []Member) (*Table, Verdict) {
				backups(m[1:])
				tab := table(t, p, m)
				down(m[:1])
				return tab, Picked
			},
			"far": func(m []Member) (*Table, Verdict) {
				far(m[1:])
				down(m[:1])
				return table(t, p, m), Picked
			},
			"far, down after the build": func(m []Member) (*Table, Verdict) {
				far(m[1:])
				tab := table(t, p, m)
				down(m[:1])
				return tab, Picked
			},
			"last resort": func(m []Member) (*Table, Verdict) {
				down(m)
				return table(t, p, m[1:]), LastResort
			},
			"came back": func(m []Member) (*Table, Verdict) {
				down(m)
				tab := table(t, p, m)
				for _, m := range m[1:] {
					m.Host.MarkUp()
				}
				return tab, Picked
			},
		} {
			for _, k := range []int{2, 3, 4} {
				m := equal(k + 1)
				tab, want := prepare(m)
				for range picks {
					var tried Tried
					h, v := tab.Pick(Addr{}, &tried)
					if h == nil || v != want {
						t.Fatalf("%s, %s: picked %v, verdict %v", scheduler, name, h, v)
					}
					h.Release(0, 0)
				}
				for _, m := range m[1:] {
					if n := int(m.Host.Stats().Picks); n < picks/k*3/4 || n > picks/k*5/4 {
						t.Errorf("%s, %s: host %s of %d was picked %d times of %d", scheduler, name, m.Host.Name(), k, n, picks)
					}
				}
			}
		}
	}
}

// A session that sees every host fail has tried each once and goes on with
// none of them; a session after it has each once more, as the last resort.
func TestFailedHostsAreTheNextSessionsLastResort(t *testing.T) {
	for _, scheduler := range Names() {
		m := equal(4)
		m[3].Backup = true
		tab := table(t, Policy{Scheduler: scheduler, Seed: 1}, m)
		for session, want := range []Verdict{Picked, LastResort} {
			var tried Tried
			for i := range m {
				h, v := tab.Pick(Addr{}, &tried)
				if h == nil || v != want || tried.Len() != i+1 {
					t.Fatalf("%s: session %d, pick %d: %v, verdict %v, tried %d", scheduler, session, i, h, v, tried.Len())
				}
				h.Fail()
				h.Release(0, 0)
			}
			if h, v := tab.Pick(Addr{}, &tried); h != nil || v != None {
				t.Errorf("%s: session %d: then picked %v, verdict %v", scheduler, session, h, v)
			}
		}
	}
}

// Reset lets go of every host, so that a pooled set keeps none alive.
func TestResetForgetsTheHosts(t *testing.T) {
	var tried Tried
	tab := table(t, Policy{}, equal(9))
	for range 9 {
		tab.Pick(Addr{}, &tried)
	}
	if len(tried.more) != 5 || tried.walk.table != tab {
		t.Fatalf("nine hosts are held as %+v", tried)
	}
	tried.Reset()
	if !reflect.ValueOf(tried).IsZero() {
		t.Errorf("after a reset: %+v", tried)
	}
}

// A host that was picked and then not asked may be picked again, in whichever
// way it was picked.
func TestForgottenHostIsUntried(t *testing.T) {
	for _, down := range []bool{false, true} {
		for _, n := range []int{1, 4, 5, 6, 9} {
			m := equal(9)
			for i := range m {
				if down {
					m[i].Host.MarkDown()
				}
			}
			tab := table(t, Policy{Scheduler: "roundr"}, m)
			var tried Tried
			var last *Host
			for range n {
				last, _ = tab.Pick(Addr{}, &tried)
			}
			resorts := tried.LastResorts()
			tried.Forget()
			if tried.Has(last) || tried.Len() != n-1 || down && tried.LastResorts() != resorts-1 {
				t.Errorf("%d hosts, down %v: host %s is still tried: %+v", n, down, last.Name(), tried)
			}
			seen := map[*Host]bool{}
			for range 9 - (n - 1) {
				h, _ := tab.Pick(Addr{}, &tried)
				if h == nil || seen[h] {
					t.Fatalf("%d hosts, down %v: then picked %v", n, down, h)
				}
				seen[h] = true
			}
			if !seen[last] {
				t.Errorf("%d hosts, down %v: the last cannot be tried again", n, down)
			}
			if h, _ := tab.Pick(Addr{}, &tried); h != nil {
				t.Errorf("%d hosts, down %v: host %s was picked twice", n, down, h.Name())
			}
		}
	}
}

// A session that meets one dead host after the other costs time in proportion
// to their number, whether they are still up while it fails or are down
// already. In proportion to their square, these take ten seconds and more.
func TestB71SessionCostsInProportionToItsHosts(t *testing.T) {
	m := equal(maxMembers)
	for _, down := range []bool{false, true} {
		for i := range m {
			m[i].Backup = i%4 == 0
			m[i].Host.MarkUp()
			if down {
				m[i].Host.MarkDown()
			}
		}
		tab := table(t, Policy{}, m)
		clock := testkit.NewClock(t)
		var tried Tried
		for {
			h, _ := tab.Pick(Addr{}, &tried)
			if h == nil {
				break
			}
			h.MarkDown()
			h.Release(0, 0)
		}
		if tried.Len() != len(m) {
			t.Fatalf("down %v: %d hosts were tried", down, tried.Len())
		}
		if took := clock.Now(); took > 5*time.Second {
			t.Errorf("down %v: took %v", down, took)
		} else {
			t.Logf("down %v: took %v", down, took)
		}
	}
}

// A walk begins again with a new table, and yet no host is tried twice.
func TestB23EachHostOnceOverTableSwaps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := equal(40)
		p := Policy{Scheduler: rapid.SampledFrom(Names()).Draw(rt, "scheduler"), Seed: 5}
		var tab *Table
		var tried Tried
		seen := map[*Host]bool{}
		for range 60 {
			if tab == nil || rapid.IntRange(0, 3).Draw(rt, "swap") == 0 {
				some := rapid.Permutation(m).Draw(rt, "members")[:rapid.IntRange(1, len(m)).Draw(rt, "size")]
				for i := range some {
					some[i].Backup, some[i].Far = rapid.Bool().Draw(rt, "backup"), rapid.Bool().Draw(rt, "far")
				}
				tab = table(t, p, some)
			}
			h, _ := tab.Pick(Addr{}, &tried)
			if h == nil {
				tab = nil
				continue
			}
			if seen[h] {
				rt.Fatalf("host %s was picked twice", h.Name())
			}
			if !slices.Contains(tab.hosts, h) {
				rt.Fatalf("host %s is not in the table", h.Name())
			}
			seen[h] = true
			if rapid.Bool().Draw(rt, "fails") {
				h.Fail()
			}
		}
	})
}
