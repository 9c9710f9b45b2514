package sched

import (
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/txlb/txlb/internal/testkit"
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

// Only so many failures within the window take a host down, however they are
// spread, and a host that has come back begins again.
func TestFailLimit(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		h := NewHost("a", Addr{})
		h.SetFailLimit(3, 10*time.Second)
		for range 5 { // two within any ten seconds
			if first, second := h.Fail(), h.Fail(); first || second {
				t.Fatal("down after two")
			}
			time.Sleep(11 * time.Second)
		}
		h.Fail()
		time.Sleep(5 * time.Second)
		h.Fail()
		time.Sleep(5 * time.Second)
		h.SetFailLimit(3, 10*time.Second) // no change: it forgets nothing
		if !h.Fail() || h.Up() || h.Fail() {
			t.Error("three within ten seconds do not take it down, once")
		}
		h.MarkUp()
		if first, second, third := h.Fail(), h.Fail(), h.Fail(); first || second || !third {
			t.Error("a host that has come back does not begin again")
		}
		h.MarkUp()
		h.SetFailLimit(0, time.Second)
		for range 100 {
			if h.Fail() || !h.Up() {
				t.Fatal("a failure counts where none should")
			}
		}
		h.SetFailLimit(1, time.Second)
		if !h.Fail() || h.Stats().Failures != 10+3+1+3+100+1 {
			t.Errorf("%+v", h.Stats())
		}
	})
}

// A connect that began before the host came back does not take it down again, and
// counts for no limit.
func TestFailureOfAnEarlierEra(t *testing.T) {
	for _, limit := range []int{1, 2} {
		h := NewHost("a", Addr{})
		h.SetFailLimit(limit, time.Hour)
		before := h.Era()
		h.MarkDown()
		down := h.Era()
		h.MarkUp()
		for range 3 {
			if h.FailIn(before) || h.FailIn(down) || !h.Up() {
				t.Fatal("a failure of an earlier era took the host down")
			}
		}
		for n := 1; n <= limit; n++ {
			if first := h.FailIn(h.Era()); first != (n == limit) {
				t.Errorf("limit %d: failure %d took it down: %v", limit, n, first)
			}
		}
		if n := h.Stats().Failures; n != uint64(6+limit) {
			t.Errorf("%d failures are counted", n)
		}
	}
}

// Of failures at once, one takes the host down, and as many as it takes.
func TestFailLimitAtOnce(t *testing.T) {
	for range 100 {
		h := NewHost("a", Addr{})
		h.SetFailLimit(8, time.Hour)
		var wg sync.WaitGroup
		var firsts atomic.Int32
		for range 7 {
			wg.Go(func() {
				if h.Fail() {
					firsts.Add(1)
				}
			})
		}
		wg.Wait()
		if !h.Up() {
			t.Fatal("down too early")
		}
		for range 4 {
			wg.Go(func() {
				if h.Fail() {
					firsts.Add(1)
				}
			})
		}
		wg.Wait()
		if h.Up() || firsts.Load() != 1 {
			t.Fatalf("up %v, %d calls took it down", h.Up(), firsts.Load())
		}
	}
}

// The counters begin a cache line and share it with nothing: not with the
// host's own name, not with another host.
func TestCountersHaveTheirLine(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("with pointers of 32 bits the allocator begins no object of this size with a line")
	}
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

// Add adds every counter.
func TestStatsAddEveryField(t *testing.T) {
	var one HostStats
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint64:
			f.SetUint(uint64(i + 1))
		case reflect.Bool:
		default:
			t.Fatalf("a field is a %v", f.Kind())
		}
	}
	sum := one
	sum.Add(one)
	w := reflect.ValueOf(sum)
	for i := range w.NumField() {
		name := w.Type().Field(i).Name
		switch f := w.Field(i); f.Kind() {
		case reflect.Int64:
			if f.Int() != int64(2*(i+1)) {
				t.Errorf("%s is %d", name, f.Int())
			}
		case reflect.Uint64:
			if f.Uint() != uint64(2*(i+1)) {
				t.Errorf("%s is %d", name, f.Uint())
			}
		}
	}
}
