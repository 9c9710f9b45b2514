package sched

import "testing"

// A host is suspect after three clients in a row from three addresses, and not
// before, whatever one client does and whoever has had an answer between.
func TestResetEarly(t *testing.T) {
	addr := func(s string) Addr {
		a, err := ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, again, b, c := addr("192.0.2.1:1"), addr("192.0.2.1:2"), addr("192.0.2.2:1"), addr("192.0.2.3:1")
	six, near, far, last := addr("[2001:db8::1]:1"), addr("[2001:db8::2]:1"), addr("[2001:db8:0:1::1]:1"), addr("[2001:db8:0:2::1]:1")
	local := UnixAddr("/a")
	answer := Addr{}
	for _, test := range []struct {
		name    string
		clients []Addr
		suspect int // at which of them, from 1; 0: never
	}{
		{"three addresses", []Addr{a, b, c}, 3},
		{"one client", []Addr{a, again, a, a, again}, 0},
		{"two clients", []Addr{a, b, again, b, a}, 0},
		{"one client among others", []Addr{a, again, b, a, c}, 5},
		{"an answer between", []Addr{a, b, answer, c, a}, 0},
		{"an answer before", []Addr{a, answer, b, c, a}, 5},
		{"one network", []Addr{six, near, near, far}, 0},
		{"three networks", []Addr{six, far, near, last}, 4},
		{"UNIX clients", []Addr{local, a, local, b, local}, 0},
		{"anew after a report", []Addr{a, b, c, a, b}, 3},
	} {
		h := NewHost("h", Addr{})
		resets := uint64(0)
		for i, client := range test.clients {
			if client == answer {
				h.Answered()
				continue
			}
			resets++
			if got := h.ResetEarly(h.Era(), client); got != (i+1 == test.suspect) {
				t.Errorf("%s: after client %d: suspect is %v", test.name, i+1, got)
			}
		}
		if got := h.Stats().EarlyResets; got != resets {
			t.Errorf("%s: %d are counted, want %d", test.name, got, resets)
		}
	}
	h := NewHost("h", Addr{})
	before := h.Era()
	h.ResetEarly(before, a)
	h.ResetEarly(before, b)
	h.MarkDown()
	h.MarkUp()
	for _, from := range []Addr{a, b, c} { // whatever the sessions took to end
		if h.ResetEarly(before, from) {
			t.Error("what was before the host came back counts")
		}
	}
	if h.ResetEarly(h.Era(), a) || h.ResetEarly(h.Era(), b) || !h.ResetEarly(h.Era(), c) {
		t.Error("a host that has come back does not begin again")
	}
}
