package sched

import (
	"testing"
	"unsafe"
)

// What loops write for each session stands on lines of its own: no two hosts share a line,
// nor do the numbers of picks, nor the times that different loops count.
func TestLinesAreNotShared(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("sizes are those of 64 bits")
	}
	var h Host
	for name, at := range map[string]uintptr{
		"connects": unsafe.Offsetof(h.connects), "counters": unsafe.Offsetof(h.counters), "end": unsafe.Sizeof(h),
	} {
		if at%cacheLine != 0 {
			t.Errorf("%s of a host are at %d", name, at)
		}
	}
	var hosts [20]*Host
	for i := range hosts {
		hosts[i] = NewHost("", Addr{})
		if at := uintptr(unsafe.Pointer(hosts[i])); at%cacheLine != 0 {
			t.Errorf("a host is at %#x", at)
		}
	}
	var c [2]cursor
	if before, between := unsafe.Offsetof(c[0].n), unsafe.Sizeof(c[0]); before < cacheLine || between < 2*cacheLine {
		t.Errorf("a cursor's number is at %d of %d", before, between)
	}
	var times Times
	seen := map[uintptr]int{}
	for loop := range timesShards {
		s := times.shard(loop)
		if times.shard(loop) != s {
			t.Fatal("a shard has changed")
		}
		for at := range unsafe.Sizeof(*s) {
			line := (uintptr(unsafe.Pointer(s)) + at) / cacheLine
			if other, ok := seen[line]; ok && other != loop {
				t.Fatalf("the times of loops %d and %d share a line", loop, other)
			}
			seen[line] = loop
		}
	}
}

// Loops that count at the same moment make one shard each and lose nothing.
func TestTimesFromManyLoops(t *testing.T) {
	const loops, each = 100, 50
	var times Times
	done := make(chan struct{})
	for loop := range loops {
		go func() {
			defer func() { done <- struct{}{} }()
			for range each {
				times.Connected(loop, 1)
				times.Ended(loop, 2)
			}
		}()
	}
	for range loops {
		<-done
	}
	if c, s := times.Connects(), times.Sessions(); c.Count() != loops*each || s.Count() != loops*each || s.Sum != 2*loops*each {
		t.Errorf("%d connects, %d sessions, %v", c.Count(), s.Count(), s.Sum)
	}
}
