package sched

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A longer turnaround counts at once; then the average falls with time and with shorter ones.
func TestPeak(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		h := NewHost("a", Addr{})
		is := func(what string, want time.Duration) {
			t.Helper()
			if got := h.Peak(time.Now()); got < want-want/50 || got > want+want/50 {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		h.Turned(0, time.Second)
		is("nobody asks for it", 0)
		h.SetPeak(true)
		is("without a turnaround", 0)
		h.Turned(0, 10*time.Millisecond)
		is("the first", 10*time.Millisecond)
		h.Turned(0, 100*time.Millisecond)
		is("a longer one", 100*time.Millisecond)
		h.Turned(0, 10*time.Millisecond)
		is("a shorter one at the same moment", 100*time.Millisecond)
		time.Sleep(peakDecay)
		is("after 10 s", 36788*time.Microsecond)
		h.Turned(0, 10*time.Millisecond)
		is("and a shorter one, for all that time", 43109*time.Microsecond)
		h.SetPeak(true)
		is("on is on", 43109*time.Microsecond)
		time.Sleep(peakForgotten + 2*time.Millisecond)
		is("after 30 s", 0)
		h.Turned(0, time.Millisecond)
		is("again", time.Millisecond)
		h.MarkDown()
		h.MarkUp()
		is("when it comes back", 0)
		h.Turned(0, time.Millisecond)
		h.Refresh()
		is("when it may have changed", 0)
		h.Turned(0, time.Millisecond)
		h.SetPeak(false)
		is("off again", 0)
	})
}

// A peak does not come back after a long silence, when differences of times come round.
func TestPeakStaysForgotten(t *testing.T) {
	var p peak
	const at = 1000
	p.add(time.Second, at)
	for _, ago := range []time.Duration{31 * time.Second, time.Hour, 25 * 24 * time.Hour, 49 * 24 * time.Hour} {
		if v := p.at(at + uint32(ago/time.Millisecond)); v != 0 {
			t.Errorf("after %v: %v", ago, time.Duration(v))
		}
	}
	if v := p.at(at - 1); v != float32(time.Second) {
		t.Errorf("a millisecond before: %v", time.Duration(v))
	}
	p.add(time.Millisecond, at+uint32(25*24*time.Hour/time.Millisecond))
	if v := p.at(at + uint32(25*24*time.Hour/time.Millisecond)); v != float32(time.Millisecond) {
		t.Errorf("the first after a long silence: %v", time.Duration(v))
	}
}

// peaked gives hosts a turnaround.
func peaked(members []Member, d time.Duration) {
	for _, m := range members {
		m.Host.SetPeak(true)
		m.Host.Turned(0, d)
	}
}

// Loops that count at the same moment agree on the longest.
func TestPeakFromManyLoops(t *testing.T) {
	h := NewHost("a", Addr{})
	h.SetPeak(true)
	done := make(chan struct{})
	for loop := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 1000 {
				h.Turned(loop, time.Duration(i)*time.Microsecond)
			}
		}()
	}
	for range 8 {
		<-done
	}
	// The last ones of a loop may be overtaken a few times in a row.
	if p := h.Peak(time.Now()); p < 100*time.Microsecond || p > time.Millisecond {
		t.Errorf("the peak is %v", p)
	}
}

// While a host has not answered, a burst gives it about as many sessions as the square root
// of what the others have: it is new, or has come back.
func TestEWMADoesNotHerd(t *testing.T) {
	for name, prepare := range map[string]func(*Host){
		"new":  func(*Host) {},
		"back": func(h *Host) { peaked([]Member{{Host: h}}, time.Microsecond); h.MarkDown(); h.MarkUp() },
	} {
		testkit.Bubble(t, func(t *testing.T) {
			m := equal(10)
			peaked(m[1:], 2*time.Millisecond)
			tab := table(t, Policy{Scheduler: "ewma", Seed: 1}, m)
			prepare(m[0].Host)
			for range 900 { // 100 for each of the others
				pick(t, tab)
			}
			if n := m[0].Host.Sessions(); n < 1 || n > 12 {
				t.Errorf("%s: %d sessions of 900, want about 10", name, n)
			}
		})
	}
}

// A host that is ten times as slow gets a tenth of the sessions at once; weights count as
// for p2c.
func TestEWMASharesByPeakAndWeight(t *testing.T) {
	for _, test := range []struct {
		peaks   [2]time.Duration
		weights [2]int
		want    float64 // part of the second
	}{
		{[2]time.Duration{time.Millisecond, time.Millisecond}, [2]int{1, 1}, 1. / 2},
		{[2]time.Duration{time.Millisecond, 10 * time.Millisecond}, [2]int{1, 1}, 1. / 11},
		{[2]time.Duration{time.Millisecond, time.Millisecond}, [2]int{3, 1}, 1. / 4},
		{[2]time.Duration{time.Millisecond, 2 * time.Millisecond}, [2]int{1, 3}, 3. / 5},
		{[2]time.Duration{0, 0}, [2]int{1, 3}, 3. / 4},
	} {
		testkit.Bubble(t, func(t *testing.T) { // time stands still
			m := equal(2)
			for i := range m {
				m[i].Weight = test.weights[i]
				if test.peaks[i] > 0 {
					peaked(m[i:i+1], test.peaks[i])
				}
			}
			tab := table(t, Policy{Scheduler: "ewma", Seed: 1}, m)
			const sessions = 1000
			for range sessions {
				pick(t, tab)
			}
			if got := float64(m[1].Host.Sessions()) / sessions; got < test.want-0.02 || got > test.want+0.02 {
				t.Errorf("%v %v: %.3f of the sessions, want %.3f", test.peaks, test.weights, got, test.want)
			}
		})
	}
}

// A pick allocates nothing.
func TestEWMAAllocatesNothing(t *testing.T) {
	m := equal(10)
	peaked(m, time.Millisecond)
	tab := table(t, Policy{Scheduler: "ewma", Seed: 1}, m)
	var tried Tried
	if n := testing.AllocsPerRun(1000, func() {
		session(tab, &tried)
		m[3].Host.Turned(0, time.Millisecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// One host of ten is ten times as slow: with ewma a client in a hundred waits at most half as
// long as with leastc, whatever the load. It is a simulation: time is that of the bubble.
func TestEWMAAvoidsASlowHost(t *testing.T) {
	for _, rate := range []int{50, 200, 400} { // a second; nine hosts can do 3,600
		worst := map[string]time.Duration{}
		for _, scheduler := range []string{"leastc", "p2c", "ewma"} {
			testkit.Bubble(t, func(t *testing.T) {
				all := simulate(t, scheduler, rate, 10_000)
				worst[scheduler] = all[len(all)*99/100]
				t.Logf("%d/s, %s: median %v, 99 %% %v, worst %v", rate, scheduler, all[len(all)/2], worst[scheduler], all[len(all)-1])
			})
		}
		if worst["ewma"] > worst["leastc"]/2 {
			t.Errorf("%d/s: with ewma a client in a hundred waits %v or longer, with leastc %v", rate, worst["ewma"], worst["leastc"])
		}
	}
}

// served is when a host has answered a request.
type served struct {
	at   time.Time
	host int
	took time.Duration
}

type agenda []served

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(served)) }
func (a *agenda) Pop() any          { last := (*a)[len(*a)-1]; *a = (*a)[:len(*a)-1]; return last }

// simulate returns how long the requests of clients took, sorted. Each is a session of its
// own; they come at random, so many a second. A host serves four at once, in 5 to 15 ms; the
// first host takes ten times as long.
func simulate(t *testing.T, scheduler string, rate, requests int) (all []time.Duration) {
	m := equal(10)
	tab := table(t, Policy{Scheduler: scheduler, Seed: 1}, m)
	random := rand.New(rand.NewPCG(1, 2))
	const workers = 4
	var free [10][workers]time.Time // when each worker is
	var under agenda
	answer := func(until time.Time) {
		for len(under) > 0 && !under[0].at.After(until) {
			s := heap.Pop(&under).(served)
			time.Sleep(time.Until(s.at))
			m[s.host].Host.Turned(0, s.took)
			m[s.host].Host.Release(0, 0)
			all = append(all, s.took)
		}
	}
	next := time.Now()
	for range requests {
		next = next.Add(time.Duration(random.ExpFloat64() * float64(time.Second) / float64(rate)))
		answer(next)
		time.Sleep(time.Until(next))
		h := pick(t, tab)
		i := slices.IndexFunc(m, func(m Member) bool { return m.Host == h })
		w := 0
		for n := range free[i] {
			if free[i][n].Before(free[i][w]) {
				w = n
			}
		}
		takes := 5*time.Millisecond + time.Duration(random.Int64N(int64(10*time.Millisecond)))
		if i == 0 {
			takes *= 10
		}
		begins := next
		if free[i][w].After(begins) {
			begins = free[i][w]
		}
		free[i][w] = begins.Add(takes)
		heap.Push(&under, served{free[i][w], i, free[i][w].Sub(next)})
	}
	answer(next.Add(time.Hour))
	slices.Sort(all)
	return all
}

// BenchmarkPeak is what a turnaround costs more where its scheduler is ewma, and what a pick
// reads of each host.
func BenchmarkPeak(b *testing.B) {
	var p peak
	for name, d := range map[string]time.Duration{"shorter": time.Millisecond, "longer": time.Minute} {
		b.Run("turnaround, "+name, func(b *testing.B) {
			p.add(time.Second, peakClock())
			for b.Loop() {
				p.add(d, peakClock())
			}
		})
	}
	b.Run("read", func(b *testing.B) {
		now := peakClock()
		for b.Loop() {
			p.at(now)
		}
	})
	for _, loops := range []int{1, 2} {
		b.Run(fmt.Sprintf("turnaround, from %d loops", loops), func(b *testing.B) {
			b.SetParallelism(loops)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p.add(time.Millisecond, peakClock())
				}
			})
		})
	}
}
