package sched

import (
	"net/netip"
	"testing"
	"unsafe"
)

func TestHealthAndCounters(t *testing.T) {
	h := NewHost("a", Addr{})
	if !h.Up() || !h.Fail() || h.Fail() || h.Up() {
		t.Error("only the first failure takes a host down")
	}
	if !h.MarkUp() || h.MarkUp() || !h.MarkDown() || h.MarkDown() {
		t.Error("a change is reported once")
	}
	if s := h.Stats(); s.Failures != 2 || s.Up {
		t.Errorf("stats %+v", s)
	}
}

// The counters begin a cache line and share it with nothing: not with the
// host's own name, not with another host.
func TestCountersHaveTheirLine(t *testing.T) {
	var h Host
	if at := unsafe.Offsetof(h.counters); at%cacheLine != 0 {
		t.Errorf("the counters begin at byte %d of a host", at)
	}
	if size := unsafe.Sizeof(h.counters); size > cacheLine {
		t.Errorf("the counters take %d bytes, more than a line", size)
	}
	if size := unsafe.Sizeof(h); size%cacheLine != 0 {
		t.Errorf("a host takes %d bytes, not whole lines", size)
	}
	for range 1000 {
		if h := NewHost("h", Addr{}); uintptr(unsafe.Pointer(h))%cacheLine != 0 {
			t.Fatalf("a host was allocated at %p, across lines", h)
		}
	}
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:8080", "unix:/run/a.sock"} {
		if a, err := ParseAddr(s); err != nil || a.String() != s || !a.IsValid() {
			t.Errorf("%s reads as %q: %v", s, a, err)
		}
	}
	for _, s := range []string{"", "10.0.0.1", "host:80", "unix:", "10.0.0.1:70000"} {
		if a, err := ParseAddr(s); err == nil {
			t.Errorf("%q was accepted as %v", s, a)
		}
	}
	if mapped, plain := TCPAddr(netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")), TCPAddr(netip.MustParseAddrPort("10.0.0.1:80")); mapped != plain {
		t.Errorf("%v and %v differ", mapped, plain)
	}
}
