package sched

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func TestTimesCountByBucket(t *testing.T) {
	var times Times
	for _, d := range []time.Duration{0, 50 * time.Microsecond, 51 * time.Microsecond, time.Second, 5 * time.Second, 5*time.Second + 1, time.Hour} {
		times.Connected(0, d)
	}
	c := times.Connects()
	want := make([]uint64, len(c.Bounds)+1)
	want[0], want[1], want[13], want[15], want[16] = 2, 1, 1, 1, 2
	if !slices.Equal(c.Counts, want) || c.Count() != 7 {
		t.Errorf("buckets %v, want %v", c.Counts, want)
	}
	if want := time.Hour + 11*time.Second + 101*time.Microsecond + 1; c.Sum != want {
		t.Errorf("sum %v, want %v", c.Sum, want)
	}
	if n := times.Sessions().Count(); n != 0 {
		t.Errorf("%d sessions", n)
	}
	times.Ended(-0, 25*time.Hour)
	if s := times.Sessions(); s.Counts[len(s.Bounds)] != 1 {
		t.Errorf("a session of 25 hours is in none of the last bucket: %v", s.Counts)
	}
	for _, bounds := range [][]time.Duration{times.Connects().Bounds, times.Sessions().Bounds} {
		if !slices.IsSorted(bounds) || len(slices.Compact(slices.Clone(bounds))) != len(bounds) {
			t.Errorf("bounds %v do not rise", bounds)
		}
	}
}

// Whoever counts at the same time loses nothing, whatever the shard.
func TestTimesCountFromManyLoops(t *testing.T) {
	var times Times
	var wg sync.WaitGroup
	const loops, each = 3 * timesShards, 1000
	for i := range loops {
		wg.Go(func() {
			for range each {
				times.Connected(i, time.Millisecond)
				times.Ended(i, time.Second)
			}
		})
	}
	wg.Wait()
	if c, s := times.Connects(), times.Sessions(); c.Count() != loops*each || s.Count() != loops*each || s.Sum != loops*each*time.Second {
		t.Errorf("%d connects, %d sessions, %v", c.Count(), s.Count(), s.Sum)
	}
}

func BenchmarkTimes(b *testing.B) {
	var times Times
	for b.Loop() {
		times.Connected(1, 200*time.Microsecond)
		times.Ended(1, 2*time.Millisecond)
	}
}
