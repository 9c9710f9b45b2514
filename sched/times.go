package sched

import (
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// Times counts how long connects, turnarounds and sessions of a group took, and has the group's queue.
// The hosts of the group share it, so that it outlives each of them. All methods may be
// called from any goroutine; the zero Times is ready.
type Times struct {
	Queue Queue // of sessions that wait for a host

	// Loops that write at the same time write to different cache lines. A shard is made when
	// somebody first writes to it: most machines have few loops, and there are many groups.
	shards [timesShards]atomic.Pointer[timesShard]

	before atomic.Pointer[Counted] // by an earlier process; nil: there was none
}

// Counted is all that a Times has counted.
type Counted struct{ Connects, Sessions, Waits, Turnarounds Histogram }

// Counted returns it.
func (t *Times) Counted() Counted {
	return Counted{t.Connects(), t.Sessions(), t.Waits(), t.Turnarounds()}
}

// Inherit adds what the Times of the same group has counted in an earlier process. A
// second call replaces the first. Where bounds differ, a count goes to the least bound that
// is not below its own.
func (t *Times) Inherit(c Counted) { t.before.Store(&c) }

const timesShards = 64

// timesShard fills whole lines, and is aligned to lines by the allocator.
type timesShard struct {
	connect histogram
	session histogram
	queue   histogram
	turn    histogram
	_       [(cacheLine - 4*unsafe.Sizeof(histogram{})%cacheLine) % cacheLine]byte
}

// shard returns the shard of that number.
func (t *Times) shard(n int) *timesShard {
	p := &t.shards[n%timesShards]
	if s := p.Load(); s != nil {
		return s
	}
	p.CompareAndSwap(nil, new(timesShard))
	return p.Load()
}

// histogram counts times by bucket: those up to the bound of the same number,
// and in the last bucket all that are longer.
type histogram struct {
	counts [len(connectBounds) + 1]atomic.Uint64
	sum    atomic.Int64 // ns
}

// All histograms have the same number of bounds, so that they share a type.
var (
	connectBounds = [...]time.Duration{
		50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
		2500 * time.Millisecond, 5 * time.Second,
	}
	sessionBounds = [len(connectBounds)]time.Duration{
		time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
		500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
		time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour,
	}
	queueBounds = [len(connectBounds)]time.Duration{
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
		2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
	}
	turnaroundBounds = [len(connectBounds)]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
		2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	}
)

// turnaroundOf has the bucket of a group's turnarounds for each of [Turns].
var turnaroundOf = func() (of [TurnBuckets]uint8) {
	for i, bound := range turnBounds {
		n, _ := slices.BinarySearch(turnaroundBounds[:], bound)
		of[i] = uint8(n)
	}
	return of
}()

func (h *histogram) add(d time.Duration, bounds *[len(connectBounds)]time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Connected counts a connect that succeeded after d. shard is any number that
// differs between those who write at the same time, such as that of a loop.
func (t *Times) Connected(shard int, d time.Duration) {
	t.shard(shard).connect.add(d, &connectBounds)
}

// Ended counts a session that had a backend and ended d after its client came.
func (t *Times) Ended(shard int, d time.Duration) {
	t.shard(shard).session.add(d, &sessionBounds)
}

// Queued counts a session that has waited in the queue, whether it got a host or not.
func (t *Times) Queued(shard int, d time.Duration) { t.shard(shard).queue.add(d, &queueBounds) }

// Histogram is what was counted of one kind of time.
type Histogram struct {
	Bounds []time.Duration // upper bounds, rising
	Counts []uint64        // one more than Bounds: the last is of all that is longer
	Sum    time.Duration
}

// Count returns how many times were counted.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Connects returns how long connects took.
func (t *Times) Connects() Histogram {
	return t.read(&connectBounds, func(s *timesShard) *histogram { return &s.connect }, func(c *Counted) *Histogram { return &c.Connects })
}

// Sessions returns how long sessions lasted that have ended.
func (t *Times) Sessions() Histogram {
	return t.read(&sessionBounds, func(s *timesShard) *histogram { return &s.session }, func(c *Counted) *Histogram { return &c.Sessions })
}

// Waits returns how long sessions waited in the queue.
func (t *Times) Waits() Histogram {
	return t.read(&queueBounds, func(s *timesShard) *histogram { return &s.queue }, func(c *Counted) *Histogram { return &c.Waits })
}

// Turnarounds returns the turnarounds of the group's hosts, see [Host.Turned].
func (t *Times) Turnarounds() Histogram {
	return t.read(&turnaroundBounds, func(s *timesShard) *histogram { return &s.turn }, func(c *Counted) *Histogram { return &c.Turnarounds })
}

func (t *Times) read(bounds *[len(connectBounds)]time.Duration, of func(*timesShard) *histogram, before func(*Counted) *Histogram) Histogram {
	h := Histogram{Bounds: append([]time.Duration(nil), bounds[:]...), Counts: make([]uint64, len(bounds)+1)}
	for i := range t.shards {
		s := t.shards[i].Load()
		if s == nil {
			continue
		}
		part := of(s)
		for b := range part.counts {
			h.Counts[b] += part.counts[b].Load()
		}
		h.Sum += time.Duration(part.sum.Load())
	}
	if c := t.before.Load(); c != nil {
		h.add(before(c))
	}
	return h
}

// add adds the counts of another histogram, whose bounds may be others.
func (h *Histogram) add(o *Histogram) {
	for b, n := range o.Counts {
		i := len(h.Bounds)
		if b < len(o.Bounds) {
			i, _ = slices.BinarySearch(h.Bounds, o.Bounds[b])
		}
		h.Counts[i] += n
	}
	h.Sum += o.Sum
}
