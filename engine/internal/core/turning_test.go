package core

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// model is a Turning that keeps all it has seen.
type model struct {
	asked int64
	waits bool
	all   []time.Duration
}

func (m *model) heard(now int64) (d time.Duration, ok bool) {
	if !m.waits {
		return 0, false
	}
	m.waits = false
	d = time.Duration(now - m.asked)
	m.all = append(m.all, d)
	return d, true
}

// check compares what is measured with all there was.
func (m *model) check(t *testing.T, got engine.Turnarounds) {
	t.Helper()
	want := engine.Turnarounds{Count: uint32(len(m.all))}
	for _, d := range m.all {
		want.Total += d
		want.Worst = max(want.Worst, d)
	}
	if got.Count != want.Count || got.Total != want.Total || got.Worst < want.Worst || got.Worst-want.Worst >= 1<<worstShift {
		t.Fatalf("%+v, want %+v", got, want)
	}
	sorted := slices.Sorted(slices.Values(m.all))
	if n := len(sorted); n == 0 && got.Median != 0 || n == 1 && got.Median != sorted[0] {
		t.Fatalf("a median of %v of %v", got.Median, sorted)
	} else if n > 0 && n < 15 { // no counter can have been full
		near(t, got.Median, sorted[(n-1)/2], sorted[n-1])
	}
}

// near checks a median.
func near(t *testing.T, got, want, worst time.Duration) {
	t.Helper()
	most := worst + 1<<worstShift // it is rounded up
	switch {
	case want <= sched.TurnBound(1):
		most = min(most, sched.TurnBound(1))
		if got > most || got < 0 {
			t.Fatalf("a median of %v, want one below %v", got, most)
		}
	case want > sched.TurnBound(2*turnRanges-3): // beyond the ranges
		if got > most || got < sched.TurnBound(2*turnRanges-3) {
			t.Fatalf("a median of %v, want %v", got, want)
		}
	case float64(got) < float64(want)/1.27 || float64(got) > 1.27*float64(want):
		t.Fatalf("a median of %v, want %v", got, want)
	}
}

// Whatever comes in whatever order, each answer counts once, from the last that was asked.
func FuzzTurning(f *testing.F) {
	f.Add([]byte{0, 10, 1, 20, 1, 5, 0, 3, 0, 200, 1, 2, 2, 0, 3, 1})
	f.Add([]byte{1, 1, 0, 255, 1, 255, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		var got Turning
		var want model
		now := int64(1)
		for ; len(script) >= 2; script = script[2:] {
			now += int64(1) << (script[1] % 40) // up to nine minutes
			switch script[0] % 5 {
			case 0, 1:
				got.Passed(now)
				want.asked, want.waits = now, true
			case 2, 3:
				var d time.Duration
				bucket, ok := uint(0), got.Waits()
				if ok {
					d, bucket = got.Answered(now)
				}
				if w, is := want.heard(now); d != w || ok != is || bucket != sched.TurnBucket(d) {
					t.Fatalf("%v %d %v, want %v %v", d, bucket, ok, w, is)
				}
			case 4: // it moves
				p := samplePassport()
				p.Turns = nil
				got.Pass(p, now)
				back, err := ParsePassport(p.Append(nil))
				if err != nil {
					t.Fatal(err)
				}
				const other = 1 << 50 // another clock
				was := got
				got = Turning{}
				if got.Restore(back, other+now); was.Waits() {
					got.asked -= other
				}
				if got != was {
					t.Fatalf("%+v is %+v after it has moved", was, got)
				}
			}
			if got.Waits() != want.waits {
				t.Fatalf("waits: %v", got.Waits())
			}
			if w := got.Waiting(now); want.waits != (w > 0) || want.waits && w != max(time.Duration(now-want.asked), 1) {
				t.Fatalf("it has waited for %v", w)
			}
			want.check(t, got.Sum())
		}
	})
}

// FuzzHalve checks that what is halved is halved exactly, up to any counter.
func FuzzHalve(f *testing.F) {
	f.Add(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), 0x123456789abcdef0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		was := Turning{spread: [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}}
		is := was
		is.halve()
		before, after := 0, 0
		for r := range turnRanges {
			before += int(was.spread[r>>4] >> (r & 15 * 4) & 15)
			after += int(is.spread[r>>4] >> (r & 15 * 4) & 15)
			if after != before/2 {
				t.Fatalf("%x is %x: up to counter %d there were %d, and are %d", was.spread, is.spread, r, before, after)
			}
		}
	})
}

// A median stays right however many turnarounds there are, and follows when they change.
func TestTurningMedian(t *testing.T) {
	for name, next := range map[string]func(n int) time.Duration{
		"all the same": func(int) time.Duration { return 3 * time.Millisecond },
		"one in three": func(n int) time.Duration {
			return []time.Duration{time.Millisecond, time.Millisecond, time.Second}[n%3]
		},
		"two in three": func(n int) time.Duration { return []time.Duration{time.Millisecond, time.Second, time.Second}[n%3] },
		"one of many":  func(n int) time.Duration { return time.Duration(1+n*7919%1000) * 100 * time.Microsecond },
		"a long tail":  func(n int) time.Duration { return time.Duration(math.Exp(float64(n*7919%1000)/100)) * time.Millisecond },
		"thin and wide": func(n int) time.Duration { // 45 in 100 alike, all others far apart
			if n = n * 7919 % 1000; n < 450 {
				return 20 * time.Microsecond
			}
			return time.Duration(40_000 * math.Exp(float64(n-450)/50))
		},
	} {
		var s Turning
		var all []time.Duration
		for n := range 1000 {
			d := next(n)
			all = append(all, d)
			s.Passed(1)
			s.Answered(1 + int64(d))
		}
		slices.Sort(all)
		// It is mostly of the last few dozen, so of a few ranks around the middle one.
		got := s.Sum().Median
		if least, most := all[350], all[650]; float64(got) < float64(least)/1.27 || float64(got) > 1.27*float64(most) {
			t.Errorf("%s: a median of %v, want one between %v and %v", name, got, least, most)
		}
	}
	var s Turning
	for n := range 1100 {
		d := time.Millisecond
		if n >= 1000 {
			d = time.Second
		}
		s.Passed(1)
		s.Answered(1 + int64(d))
	}
	near(t, s.Sum().Median, time.Second, time.Second)
}

// A counter that is full stays so.
func TestTurningCountsNoFurther(t *testing.T) {
	s := Turning{number: math.MaxUint32}
	s.Passed(1)
	if s.Answered(2); s.Sum().Count != math.MaxUint32 {
		t.Errorf("%+v", s.Sum())
	}
}

// BenchmarkTurning is what a turnaround costs a loop: both stamps, what the session notes, and
// what is counted for host and group.
func BenchmarkTurning(b *testing.B) {
	h := sched.NewHost("a", sched.Addr{})
	tally := sched.NewTurnTally(0)
	var s Turning
	now := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		s.Passed(now)
		now += 50_000 + now&0xfffff
		if s.Waits() {
			d, bucket := s.Answered(now)
			tally.Add(h, d, bucket)
		}
	}
}
