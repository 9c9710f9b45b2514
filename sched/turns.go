package sched

import (
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// A turnaround is the time from the last byte that was passed on from a client to the first
// byte back from its host. Hosts count theirs by bucket, so that a median can be told.

// TurnBuckets is how many buckets turnarounds are counted in.
const TurnBuckets = 64

// turnBounds are the upper bounds of the buckets: ten a decade from 16 µs to 25 s, each at
// most 28 % above the one before (the preferred numbers R'10). The last bucket has all that
// took longer. The bounds of turnaroundBounds are among them.
var turnBounds = func() (b [TurnBuckets]time.Duration) {
	steps := [...]time.Duration{160, 200, 250, 320, 400, 500, 630, 800, 1000, 1250}
	unit := 100 * time.Nanosecond
	for i := range TurnBuckets - 1 {
		b[i] = steps[i%len(steps)] * unit
		if i%len(steps) == len(steps)-1 {
			unit *= 10
		}
	}
	b[TurnBuckets-1] = math.MaxInt64
	return b
}()

// turnFirst has the first bucket that a time may be in, by its quarter of an octave, which no
// more than one bound divides.
var turnFirst = func() (first [256]uint8) {
	for i := range first {
		first[i] = TurnBuckets - 1
	}
	for octave := 3; octave < 64; octave++ {
		for quarter := range time.Duration(4) {
			least := (4 + quarter) << (octave - 3)
			i := 0
			for turnBounds[i] < least {
				i++
			}
			first[quarterOf(least)] = uint8(i)
		}
	}
	return first
}()

// quarterOf numbers quarters of octaves: by the exponent of the time as a float, and the first
// two bits behind the point. It takes no branch.
func quarterOf(d time.Duration) uint8 { return uint8(math.Float64bits(float64(d)) >> 50) }

// TurnBucket returns the number of the bucket that a turnaround counts in, 0 for a negative
// one.
func TurnBucket(d time.Duration) uint {
	if d <= leastTurn {
		return 0
	}
	i := uint(turnFirst[quarterOf(d)])
	// One more if d is beyond the bound, without a branch that nobody can predict.
	return i + uint(uint64(turnBounds[i%TurnBuckets]-d)>>63)
}

const leastTurn = 16 * time.Microsecond

// TurnBound returns the greatest turnaround of a bucket.
func TurnBound(bucket uint) time.Duration { return turnBounds[bucket] }

// Turns is what a host has counted of its turnarounds. A median of it is within 15 %.
type Turns struct {
	Count  uint64
	Sum    time.Duration
	Counts [TurnBuckets]uint64 // by bucket, see [TurnBucket]
}

// Sub returns what was counted since an earlier moment.
func (t Turns) Sub(earlier Turns) Turns {
	t.Count -= earlier.Count
	t.Sum -= earlier.Sum
	for i := range t.Counts {
		t.Counts[i] -= earlier.Counts[i]
	}
	return t
}

// Add returns both together, such as those of two addresses of a host.
func (t Turns) Add(o Turns) Turns {
	t.Count += o.Count
	t.Sum += o.Sum
	for i := range t.Counts {
		t.Counts[i] += o.Counts[i]
	}
	return t
}

// Median returns the turnaround that half of them do not exceed, 0 without one. It is within
// 15 % of the true one if that is between 16 µs and 25 s.
func (t Turns) Median() time.Duration {
	n := uint64(0)
	for _, c := range t.Counts {
		n += c
	}
	below := uint64(0)
	for i, c := range t.Counts {
		if below += c; below > 0 && 2*below >= n {
			return turnMiddle(uint(i))
		}
	}
	return 0
}

// turnMiddle returns the time from which the bounds of a bucket differ by the same factor.
func turnMiddle(bucket uint) time.Duration {
	switch bucket {
	case 0:
		return turnBounds[0] / 2
	case TurnBuckets - 1:
		return turnBounds[TurnBuckets-2]
	}
	return time.Duration(math.Sqrt(float64(turnBounds[bucket-1]) * float64(turnBounds[bucket])))
}

// hostTurns is what a host has counted. It is made with the first turnaround, so that hosts
// without sessions have none.
type hostTurns struct {
	count  atomic.Uint64
	sum    atomic.Int64 // ns
	worst  atomic.Int64 // ns, since WorstTurn was asked
	counts [TurnBuckets]atomic.Uint64
}

// turned returns what the host counts in.
func (h *Host) turned() *hostTurns {
	if t := h.turns.Load(); t != nil {
		return t
	}
	h.turns.CompareAndSwap(nil, new(hostTurns))
	return h.turns.Load()
}

// Turned counts a turnaround of the host; for shard see [Times.Connected]. An event loop
// counts with [TurnTally], which takes a fraction of the time.
func (h *Host) Turned(shard int, d time.Duration) {
	bucket := TurnBucket(d)
	t := h.turned()
	t.sum.Add(int64(d))
	t.longest(d)
	t.counts[bucket].Add(1)
	h.turnedPeak(d)
	group := &h.times.shard(shard).turn
	group.counts[turnaroundOf[bucket]].Add(1)
	group.sum.Add(int64(d))
	t.count.Add(1) // last: see Turns
}

// longest notes the longest turnaround of some.
func (t *hostTurns) longest(d time.Duration) {
	for {
		was := t.worst.Load()
		if int64(d) <= was || t.worst.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// Turns returns what the host has counted of its turnarounds. Those of sessions on event
// loops are at most a second old. The fields are read one after the other: Sum and Counts have
// all that Count has, and may have more.
func (h *Host) Turns() (t Turns) {
	own := h.turns.Load()
	if own == nil {
		return t
	}
	t.Count, t.Sum = own.count.Load(), time.Duration(own.sum.Load())
	for i := range own.counts {
		t.Counts[i] = own.counts[i].Load()
	}
	return t
}

// WorstTurn returns the longest turnaround since it was last called, 0 if there was none. It
// is for one caller, who keeps what it returns.
func (h *Host) WorstTurn() time.Duration {
	if t := h.turns.Load(); t != nil && t.worst.Load() != 0 {
		return time.Duration(t.worst.Swap(0))
	}
	return 0
}

// TurnTally gathers the turnarounds that one goroutine counts, of any hosts, and shows them
// together: to count each where all can see it would take several atomic operations for
// every request.
type TurnTally struct {
	shard   int
	pending bool // there is something to publish
	entries [tallyEntries]tallyEntry
}

// tallyEntries is how many hosts are gathered at once. Of two that share an entry, the one
// that comes publishes what the other has there.
const tallyEntries = 1 << tallyBits

const tallyBits = 6

type tallyEntry struct {
	tallied
	_ [(cacheLine - unsafe.Sizeof(tallied{})%cacheLine) % cacheLine]byte
}

type tallied struct {
	host   *Host // nil: the entry is free
	sum    time.Duration
	worst  time.Duration
	counts [TurnBuckets]uint8
}

// NewTurnTally returns a tally of a goroutine; for shard see [Times.Connected].
func NewTurnTally(shard int) *TurnTally { return &TurnTally{shard: shard} }

// Add counts a turnaround of a host in the bucket that [TurnBucket] says. It reports whether
// nothing was waiting to be published.
func (t *TurnTally) Add(h *Host, d time.Duration, bucket uint) (first bool) {
	e := &t.entries[entryOf(h)]
	if e.host != h || e.counts[bucket%TurnBuckets] == math.MaxUint8 {
		first = t.take(e, h)
	}
	e.sum += d
	e.worst = max(e.worst, d)
	e.counts[bucket%TurnBuckets]++
	h.turnedPeak(d)
	return first
}

// take makes an entry that of a host, and publishes what it has. Entries are free after a
// Publish, so this is where something begins to wait for the next one.
//
//go:noinline
func (t *TurnTally) take(e *tallyEntry, h *Host) (first bool) {
	t.publish(e)
	e.host = h
	first = !t.pending
	t.pending = true
	return first
}

// entryOf spreads hosts over the entries: it takes the highest bits of a product with 2^64
// over the golden ratio.
func entryOf(h *Host) uint64 {
	return uint64(uintptr(unsafe.Pointer(h))) * 0x9e3779b97f4a7c15 >> (64 - tallyBits)
}

// Publish shows what was gathered, in [Host.Turns] and [Times.Turnarounds].
func (t *TurnTally) Publish() {
	if !t.pending {
		return
	}
	t.pending = false
	for i := range t.entries {
		t.publish(&t.entries[i])
	}
}

// publish shows what an entry has gathered, and frees it.
func (t *TurnTally) publish(e *tallyEntry) {
	h := e.host
	if h == nil {
		return
	}
	own, group := h.turned(), &h.times.shard(t.shard).turn
	total := uint64(0)
	for i, n := range e.counts {
		if n > 0 {
			own.counts[i].Add(uint64(n))
			group.counts[turnaroundOf[i]].Add(uint64(n))
			total += uint64(n)
		}
	}
	own.sum.Add(int64(e.sum))
	group.sum.Add(int64(e.sum))
	own.longest(e.worst)
	own.count.Add(total) // last: see Turns
	e.tallied = tallied{}
}
