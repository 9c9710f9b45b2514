package core

import (
	"math"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// Turning measures the turnarounds of one session: each is the time from the last byte that
// was passed on from the client to the first byte back from the host. It has no clock: times
// are nanoseconds on the engine's clock. An engine calls Passed when it has passed bytes on to
// the host, and Answered when bytes have come from it while the session Waits.
//
// What a host says while nothing of the client is unanswered is no turnaround, such as a
// greeting, or all that follows the first bytes of an answer. If the client goes on before
// the host has answered, the time begins again: so several requests at once are one
// turnaround.
//
// It takes 40 bytes of every session, so what it knows of a median is coarse.
type Turning struct {
	asked  int64     // when the client's last bytes were passed on; 0: they have an answer
	total  int64     // ns
	spread [2]uint64 // counters of 4 bits, of ranges of turnarounds
	number uint32
	worst  uint32 // in 1,024 ns, rounded up
}

// Passed takes in that bytes of the client have been passed on to the host. It is after the
// engine's start.
func (t *Turning) Passed(now int64) { t.asked = now }

// Waits tells whether the client's last bytes have no answer yet.
func (t *Turning) Waits() bool { return t.asked != 0 }

// Answered takes in that bytes of the host have come for which the session waits. It returns
// the turnaround, and its bucket (see [sched.TurnBucket]).
func (t *Turning) Answered(now int64) (d time.Duration, bucket uint) {
	d = time.Duration(max(now-t.asked, 0))
	t.asked = 0
	bucket = sched.TurnBucket(d)
	word, one := &t.spread[bucket>>5&1], uint64(1)<<(bucket>>1*4&63)
	if full := 15 * one; *word&full == full {
		t.halve()
	}
	*word += one
	t.total += int64(d)
	t.number++
	if uint64(d) > uint64(t.worst)<<worstShift || t.number == 0 {
		t.extreme(d)
	}
	return d, bucket
}

// extreme takes in a turnaround that is the longest, or one too many to be counted.
//
//go:noinline
func (t *Turning) extreme(d time.Duration) {
	if t.number == 0 {
		t.number = math.MaxUint32
	}
	t.worst = max(t.worst, uint32(min((uint64(d)+1<<worstShift-1)>>worstShift, math.MaxUint32)))
}

// Forget makes what the client has sent so far need no answer: nobody can tell whether there
// was one.
func (t *Turning) Forget() { t.asked = 0 }

const (
	worstShift = 10
	turnRanges = sched.TurnBuckets / 2 // a range is two buckets
)

// halve halves all counters, because one is full: so later turnarounds weigh more. What is left over of one is added to the next, so that the sum
// of any first ones is halved exactly: a median stays where it was.
//
//go:noinline
func (t *Turning) halve() {
	const ones = 0x1111111111111111
	carry := uint64(0) // ones: into every counter of the word, but for what the word itself carries
	for i, w := range t.spread {
		odd := w & ones
		left := odd // in each counter: whether the sum up to here is odd
		left ^= left << 4
		left ^= left << 8
		left ^= left << 16
		left ^= left << 32
		left ^= carry
		t.spread[i] = w>>1&(7*ones) + odd&(left<<4|carry&1)
		carry = left >> 60 * ones
	}
}

// Sum returns what was measured. The median is within 27 %, and mostly of the last few dozen.
func (t *Turning) Sum() engine.Turnarounds {
	s := engine.Turnarounds{Count: t.number, Total: time.Duration(t.total)}
	s.Worst = min(time.Duration(t.worst)<<worstShift, s.Total)
	s.Median = min(t.median(), s.Worst)
	if t.number == 1 {
		s.Median = s.Total
	}
	return s
}

func (t *Turning) median() time.Duration {
	counter := func(r uint) int { return int(t.spread[r>>4] >> (r & 15 * 4) & 15) }
	n := 0
	for r := range uint(turnRanges) {
		n += counter(r)
	}
	below := 0
	for r := range uint(turnRanges) {
		if below += counter(r); below == 0 || 2*below < n {
			continue
		}
		to := sched.TurnBound(2*r + 1)
		if r == 0 {
			return to / 2
		}
		from := sched.TurnBound(2*r - 1)
		if r == turnRanges-1 {
			to = max(from, time.Duration(t.worst)<<worstShift)
		}
		return time.Duration(math.Sqrt(float64(from) * float64(to)))
	}
	return 0
}

// Waiting returns how long the client's last bytes have had no answer, 0 if they have.
func (t *Turning) Waiting(now int64) time.Duration {
	if t.asked == 0 {
		return 0
	}
	return time.Duration(max(now-t.asked, 1))
}

// PassTurns is a [Turning] that moves to another process.
type PassTurns struct {
	Asked  int64 // ns, how long ago; -1: nothing is unanswered
	Total  int64 // ns
	Spread [2]uint64
	Count  uint32
	Worst  uint32 // in 1,024 ns
}

// Pass writes what was measured into a passport.
func (t *Turning) Pass(p *Passport, now int64) {
	if *t != (Turning{}) {
		p.Turns = &PassTurns{ageOf(now, t.asked), t.total, t.spread, t.number, t.worst}
	}
}

// Restore goes on where a passport says, whose ages hold at a time.
func (t *Turning) Restore(p *Passport, at int64) {
	if s := p.Turns; s != nil {
		*t = Turning{timeOf(at, s.Asked), s.Total, s.Spread, s.Count, s.Worst}
	}
}
