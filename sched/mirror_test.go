package sched

import (
	"errors"
	"testing"
	"time"
)

// A mirror that fails is left alone, longer each time, and one session at a time tries it.
func TestMirrorBacksOff(t *testing.T) {
	const within = time.Second
	refused := errors.New("connection refused")
	m := NewMirror("m:1")
	if _, _, ok := m.Begin(1, within); ok || m.Stats().Lost["connect"] != 1 {
		t.Errorf("without an address: %+v", m.Stats())
	}
	addr, _ := ParseAddr("127.0.0.1:1")
	m.SetAddr(addr)
	now := int64(time.Hour)
	for range 3 { // at once, before the first has an answer
		if to, try, ok := m.Begin(now, within); !ok || try || to != addr {
			t.Fatalf("a mirror that is new: %v, %v, %v", to, try, ok)
		}
	}
	m.Failed(now, addr, false, refused)
	m.Failed(now, addr, false, refused) // says nothing new
	if tr := m.Trouble(); tr == nil || tr.Reason != "connect to 127.0.0.1:1: connection refused" {
		t.Errorf("its trouble is %+v", tr)
	}
	for _, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		next := now + int64(wait*time.Second)
		if _, _, ok := m.Begin(next-1, within); ok {
			t.Fatalf("%d s: tried too early", wait)
		}
		_, try, ok := m.Begin(next, within)
		if !ok || !try {
			t.Fatalf("%d s: %v, %v, want a try", wait, try, ok)
		}
		if _, _, ok := m.Begin(next, within); ok {
			t.Errorf("%d s: a second one tries", wait)
		}
		now = next
		m.Failed(now, addr, true, refused)
		m.End()
	}
	// Who tries may never tell.
	now += int64(mostBackOff)
	if _, try, _ := m.Begin(now, within); !try {
		t.Error("nobody tries")
	}
	now += int64(within + leastBackOff)
	if _, try, _ := m.Begin(now, within); !try {
		t.Error("after one that never told nobody tries")
	}
	m.Reached()
	if _, try, ok := m.Begin(now, within); !ok || try || m.Trouble() != nil {
		t.Errorf("a mirror that is back: %v, %v, %+v", try, ok, m.Trouble())
	}
	m.Failed(now, addr, false, refused)
	if _, _, ok := m.Begin(now+int64(leastBackOff)-1, within); ok {
		t.Error("it is not left alone")
	}
	if _, try, _ := m.Begin(now+int64(leastBackOff), within); !try {
		t.Error("the wait does not begin with the shortest again")
	}
}

// What is known of an address says nothing about another one.
func TestMirrorWithANewAddress(t *testing.T) {
	m := NewMirror("m:1")
	was, _ := ParseAddr("127.0.0.1:1")
	is, _ := ParseAddr("127.0.0.1:2")
	m.SetAddr(was)
	why := errors.New("connection refused")
	m.Failed(1, was, false, why)
	m.SetAddr(was)
	if _, _, ok := m.Begin(2, time.Second); ok {
		t.Error("the same address is tried at once")
	}
	m.SetAddr(is)
	m.Failed(2, was, false, why) // of a connect that was under way
	if to, try, ok := m.Begin(2, time.Second); !ok || try || to != is || m.Trouble() != nil {
		t.Errorf("%v, %v, %v, trouble %+v", to, try, ok, m.Trouble())
	}
}

func TestMirrorCounts(t *testing.T) {
	m := NewMirror("m:1")
	m.SetAddr(UnixAddr("/m"))
	_, _, _ = m.Begin(1, 0)
	_, _, _ = m.Begin(1, 0)
	m.Copied(5)
	m.Copied(7)
	m.Lose(CopyBehind)
	m.End()
	s := m.Stats()
	if s.Sessions != 2 || s.Active != 1 || s.Bytes != 12 || s.Lost["behind"] != 1 || s.LostAll() != 1 || len(s.Lost) != int(lostCopies) {
		t.Errorf("counted %+v", s)
	}
	s.Add(m.Stats())
	if s.Sessions != 4 || s.Bytes != 24 || s.LostAll() != 2 {
		t.Errorf("twice that is %+v", s)
	}
}

func TestMirrorShare(t *testing.T) {
	drawn := func(percent int) (n int) {
		s := MirrorShare{Percent: percent}
		for range 10_000 {
			if s.Drawn() {
				n++
			}
		}
		return n
	}
	if n := drawn(0); n != 0 {
		t.Errorf("0 %% are %d of 10,000", n)
	}
	if n := drawn(100); n != 10_000 {
		t.Errorf("100 %% are %d of 10,000", n)
	}
	if n := drawn(5); n < 350 || n > 650 { // seven standard deviations
		t.Errorf("5 %% are %d of 10,000", n)
	}
}
