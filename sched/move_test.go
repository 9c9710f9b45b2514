package sched

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A session that moves is counted by the host that has it, and by no pick; its place is not
// given to who waits.
func TestHostAdoptsAndDeparts(t *testing.T) {
	group := new(Times)
	h := NewHostIn(group, "a", TCPAddr(netip.MustParseAddrPort("127.0.0.1:1")))
	h.SetMaxSessions(1)
	table, err := NewTable(Policy{}, []Member{{Host: h, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	h.Adopt()
	if s := h.Stats(); s.Active != 1 || s.Picks != 0 {
		t.Errorf("adopted: %+v", s)
	}
	var tried, waits Tried
	if _, v := table.Pick(Addr{}, &tried); v != Full {
		t.Errorf("a host that has adopted as many sessions as it may is picked: %v", v)
	}
	woken := 0
	w := group.Queue.Join(table, Addr{}, &waits, 1, 0, func() { woken++ })
	h.Depart()
	if s := h.Stats(); s.Active != 0 || s.Picks != 0 {
		t.Errorf("departed: %+v", s)
	}
	if woken != 0 {
		t.Error("the place of a session that departed was given away")
	}
	h.Adopt()
	h.Release(0, 0)
	if woken != 1 {
		t.Error("the place of a session that ended was not given away")
	}
	if got, ok := w.Called(); ok {
		got.Release(0, 0)
	}
}

// What a session knows of hosts is the same behind the move.
func TestTriedMoves(t *testing.T) {
	var hosts []*Host
	var members []Member
	for range 7 {
		h := NewHost("h", Addr{})
		hosts, members = append(hosts, h), append(members, Member{Host: h, Weight: 1})
	}
	sticky := NewSticky(10, time.Minute)
	table, err := NewTable(Policy{Scheduler: "roundr,sticky", Sticky: sticky}, members)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(table.All()); !slices.Equal(got, hosts) {
		t.Error("the table has other hosts")
	}
	client := TCPAddr(netip.MustParseAddrPort("192.0.2.1:1"))
	hold, ok := table.Hold(client, hosts[3])
	if !ok || table.Home(client) != hosts[3] {
		t.Error("the client is not remembered")
	}
	var a Tried
	a.Restore(hosts[:6], 2, hold)
	if a.Len() != 6 || a.LastResorts() != 2 {
		t.Errorf("%d tried, %d of them down", a.Len(), a.LastResorts())
	}
	seen := map[*Host]bool{}
	for h := range a.Each() {
		seen[h] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d hosts, want 6", len(seen))
	}
	h, _ := table.Pick(client, &a)
	if h != hosts[6] {
		t.Error("a host was picked that was tried before the move")
	}
	h.Release(0, 0)
	a.Reset()
	if sticky.Len() != 1 {
		t.Errorf("%d clients remembered", sticky.Len())
	}
}
