package sched

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// Each time counts in the bucket whose bounds it lies between, whatever it is.
func TestTurnBuckets(t *testing.T) {
	check := func(d time.Duration) {
		t.Helper()
		b := TurnBucket(d)
		if d > TurnBound(b) || b > 0 && d <= TurnBound(b-1) {
			t.Errorf("%v counts in bucket %d, up to %v", d, b, TurnBound(b))
		}
	}
	for b := range uint(TurnBuckets) {
		for _, d := range []time.Duration{-1, 0, 1} {
			if bound := TurnBound(b); bound < math.MaxInt64-1 {
				check(bound + d)
			}
		}
	}
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, 3, 4, 7, 8, math.MaxInt64} {
		check(d)
	}
	for range 100_000 {
		check(time.Duration(rand.Uint64() >> (1 + rand.Uint64N(63))))
	}
	for b := uint(1); b < TurnBuckets-1; b++ {
		if ratio := float64(TurnBound(b)) / float64(TurnBound(b-1)); ratio > 1.281 || ratio < 1.249 {
			t.Errorf("bucket %d ends at %v, the one before at %v", b, TurnBound(b), TurnBound(b-1))
		}
	}
	for _, bound := range turnaroundBounds {
		if !slices.Contains(turnBounds[:], bound) {
			t.Errorf("%v divides a bucket of hosts", bound)
		}
	}
}

// A median is within 15 %, and differences of two moments have medians of their own.
func TestMedianOfTurns(t *testing.T) {
	for name, next := range map[string]func(r *rand.Rand) time.Duration{
		"even":   func(r *rand.Rand) time.Duration { return time.Duration(20_000 + r.IntN(1e9)) },
		"log":    func(r *rand.Rand) time.Duration { return time.Duration(20_000 * math.Exp(r.Float64()*14)) },
		"two":    func(r *rand.Rand) time.Duration { return []time.Duration{time.Millisecond, time.Second}[r.IntN(2)] },
		"always": func(*rand.Rand) time.Duration { return 123456 },
	} {
		r := rand.New(rand.NewPCG(1, 2))
		h := NewHost("a", Addr{})
		for n := 1; n <= 300; n += 1 + n/3 {
			h.Turned(1, time.Hour) // which the difference leaves out
			before := h.Turns()
			var all []time.Duration
			var sum time.Duration
			for range n {
				d := next(r)
				all, sum = append(all, d), sum+d
				h.Turned(n, d)
			}
			slices.Sort(all)
			turns := h.Turns().Sub(before)
			want := all[(n-1)/2]
			if got := turns.Median(); turns.Count != uint64(n) || turns.Sum != sum || math.Abs(float64(got-want)) > 0.15*float64(want) {
				t.Errorf("%s: %d in %v with a median of %v, want %d, %v, %v", name, turns.Count, turns.Sum, got, n, sum, want)
			}
			if both := before.Add(turns); both != h.Turns() {
				t.Errorf("%s: what was taken off and added again is %+v", name, both)
			}
		}
	}
	if m := (Turns{}).Median(); m != 0 {
		t.Errorf("a median of nothing: %v", m)
	}
	h := NewHost("a", Addr{})
	h.Turned(0, 0)
	h.Turned(0, time.Hour)
	h.Turned(0, time.Hour)
	if m := h.Turns().Median(); m != 25*time.Second {
		t.Errorf("beyond the bounds: %v", m)
	}
}

// A tally shows what was gathered, each turnaround once, to hosts and their groups, and more
// hosts than it has room for.
func TestTurnTally(t *testing.T) {
	group := new(Times)
	hosts := make([]*Host, 10*tallyEntries)
	for i := range hosts {
		hosts[i] = NewHostIn(group, "", Addr{})
	}
	want := make([]Turns, len(hosts))
	worst := make([]time.Duration, len(hosts))
	var all Turns
	tally := NewTurnTally(3)
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 3 {
		if tally.pending {
			t.Error("something is pending after it was published")
		}
		for n := range 20_000 {
			i := r.IntN(1 + r.IntN(len(hosts))) // some far more often than others
			d := time.Duration(r.Uint64N(1 << (10 + r.UintN(28))))
			b := TurnBucket(d)
			if first := tally.Add(hosts[i], d, b); first != (n == 0) {
				t.Fatalf("round %d, turnaround %d: first is %v", round, n, first)
			}
			for _, to := range []*Turns{&want[i], &all} {
				to.Count++
				to.Sum += d
				to.Counts[b]++
			}
			worst[i] = max(worst[i], d)
		}
		tally.Publish()
		tally.Publish() // which does nothing
		for i, h := range hosts {
			if got := h.Turns(); got != want[i] {
				t.Fatalf("host %d: %+v, want %+v", i, got, want[i])
			}
			if got := h.WorstTurn(); got != worst[i] {
				t.Fatalf("host %d: the worst is %v, want %v", i, got, worst[i])
			}
			worst[i] = 0
			if s := h.Stats(); s.Turns != want[i].Count || s.TurnTime != want[i].Sum {
				t.Fatalf("host %d: %+v", i, s)
			}
		}
	}
	got := group.Turnarounds()
	if got.Count() != all.Count || got.Sum != all.Sum {
		t.Errorf("the group has %d in %v, want %d in %v", got.Count(), got.Sum, all.Count, all.Sum)
	}
	for i, bound := range got.Bounds {
		var below, want uint64
		for _, n := range got.Counts[:i+1] {
			below += n
		}
		for b, n := range all.Counts {
			if TurnBound(uint(b)) <= bound {
				want += n
			}
		}
		if below != want {
			t.Errorf("up to %v the group has %d, its hosts %d", bound, below, want)
		}
	}
}

// Whoever counts at the same time loses nothing.
func TestTurnsFromManyLoops(t *testing.T) {
	const loops, each = 16, 2000
	h := NewHost("a", Addr{})
	var all sync.WaitGroup
	for loop := range loops {
		all.Go(func() {
			tally := NewTurnTally(loop)
			for n := range each {
				d := time.Duration(n) * time.Microsecond
				if loop%2 == 0 {
					h.Turned(loop, d)
				} else if tally.Add(h, d, TurnBucket(d)); n%100 == 0 {
					tally.Publish()
				}
				_ = h.WorstTurn()
			}
			tally.Publish()
		})
	}
	all.Wait()
	const sum = loops * each * (each - 1) / 2 * time.Microsecond
	if turns, group := h.Turns(), h.Times().Turnarounds(); turns.Count != loops*each || turns.Sum != sum || group.Count() != loops*each || group.Sum != sum {
		t.Errorf("%d in %v, of the group %d in %v, want %d in %v", turns.Count, turns.Sum, group.Count(), group.Sum, loops*each, sum)
	}
}

// Entries of a tally are whole lines, and a host keeps no entry after it was published.
func TestTurnTallyEntries(t *testing.T) {
	if size := unsafe.Sizeof(tallyEntry{}); size%cacheLine != 0 && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("an entry has %d bytes", size)
	}
	tally := NewTurnTally(0)
	tally.Add(NewHost("a", Addr{}), 1, 0)
	tally.Publish()
	for i := range tally.entries {
		if tally.entries[i].tallied != (tallied{}) {
			t.Error("an entry is not free")
		}
	}
	used := map[uint64]bool{}
	var hosts []*Host
	for i := range tallyEntries {
		hosts = append(hosts, NewHost("a", Addr{}))
		used[entryOf(hosts[i])] = true
	}
	if len(used) < tallyEntries/4 {
		t.Errorf("%d hosts have %d entries", tallyEntries, len(used))
	}
}

// BenchmarkTurned is what counts a turnaround on a loop, and what counts it for all to see.
func BenchmarkTurned(b *testing.B) {
	times := make([]time.Duration, 1024)
	for i := range times {
		times[i] = time.Duration(rand.Uint64N(1 << (12 + rand.UintN(14))))
	}
	for name, hosts := range map[string]int{"tally, a host": 1, "tally, 10 hosts": 10, "tally, 1000 hosts": 1000} {
		b.Run(name, func(b *testing.B) {
			list := make([]*Host, hosts)
			for i := range list {
				list[i] = NewHost("", Addr{})
			}
			tally := NewTurnTally(0)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				d := times[i%len(times)]
				tally.Add(list[i%hosts], d, TurnBucket(d))
				if i++; i%100_000 == 0 {
					tally.Publish()
				}
			}
		})
	}
	b.Run("at once", func(b *testing.B) {
		h := NewHost("", Addr{})
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			h.Turned(0, times[i%len(times)])
			i++
		}
	})
}
