package sched

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ownTable is a table whose hosts a function chooses.
func ownTable(t testing.TB, pick SchedulerFunc, m []Member) (*Table, *Custom) {
	t.Helper()
	how := NewCustom(pick)
	return table(t, Policy{Scheduler: "custom:test", Custom: how}, m), how
}

// named picks the candidate of a name, -1 if there is none.
func named(name string) SchedulerFunc {
	return func(_ netip.Addr, hosts []Candidate) int {
		return slices.IndexFunc(hosts, func(c Candidate) bool { return c.Name() == name })
	}
}

func noFaults(t *testing.T, how *Custom) {
	t.Helper()
	if n, what := how.Faults(); n != 0 || what != "" {
		t.Errorf("%d faults: %s", n, what)
	}
}

// A program's scheduler learns who the client is and what there is to choose from, and the
// session goes where it says.
func TestCustomChooses(t *testing.T) {
	var client netip.Addr
	var seen []string
	m := members(3, 5, 7)
	m[1].Host.take(1)
	tab, how := ownTable(t, func(c netip.Addr, hosts []Candidate) int {
		client, seen = c, nil
		for _, h := range hosts {
			seen = append(seen, fmt.Sprintf("%s %v weight %d, %d sessions, %d picks", h.Name(), h.Addr(), h.Weight(), h.Sessions(), h.Stats().Picks))
		}
		return 2
	}, m)
	for from, want := range map[Addr]netip.Addr{
		TCPAddr(netip.MustParseAddrPort("192.0.2.7:99")):          netip.MustParseAddr("192.0.2.7"),
		TCPAddr(netip.MustParseAddrPort("[::ffff:192.0.2.7]:99")): netip.MustParseAddr("192.0.2.7"),
		TCPAddr(netip.MustParseAddrPort("[fe80::1%eth0]:99")):     netip.MustParseAddr("fe80::1%eth0"),
		UnixAddr("/run/client"):                                   {},
		{}:                                                        {},
	} {
		var tried Tried
		h, v := tab.Pick(from, &tried)
		if h != m[2].Host || v != Picked || h.Sessions() != 1 || !tried.Has(h) {
			t.Fatalf("picked %v, verdict %v", h, v)
		}
		h.Release(0, 0)
		if client != want {
			t.Errorf("of %v it has seen %v", from, client)
		}
		picks := h.Stats().Picks - 1
		if want := []string{
			"0 10.0.0.0:80 weight 3, 0 sessions, 0 picks",
			"1 10.0.0.1:80 weight 5, 1 sessions, 1 picks",
			fmt.Sprintf("2 10.0.0.2:80 weight 7, 0 sessions, %d picks", picks),
		}; !slices.Equal(seen, want) {
			t.Errorf("it has seen %q, not %q", seen, want)
		}
	}
	noFaults(t, how)
}

// It is asked about the hosts of one tier that the session may have, and about no other.
func TestCustomSeesWhatASessionMayHave(t *testing.T) {
	var asked []string
	last := func(_ netip.Addr, hosts []Candidate) int {
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name())
		}
		asked = append(asked, strings.Join(names, " "))
		return len(hosts) - 1
	}
	m := members(1, 1, 0, 1, 1, 1)
	m[3].Far = true
	m[4].Backup = true
	m[5].Backup, m[5].Far = true, true
	tab, how := ownTable(t, last, m)
	m[0].Host.SetMaxSessions(1)
	m[3].Host.SetMaxSessions(1)

	// One session whose hosts all fail: near, then far, then the backups in that order.
	var tried Tried
	for _, want := range []string{"1", "0", "3", "4"} {
		h, v := tab.Pick(Addr{}, &tried)
		if h == nil || h.Name() != want || v != Picked {
			t.Fatalf("picked %v, verdict %v, not %s", h, v, want)
		}
		h.Fail()
		h.Release(0, 0)
	}
	if want := []string{"0 1", "0", "3", "4"}; !slices.Equal(asked, want) {
		t.Errorf("it was asked about %q, not %q", asked, want)
	}
	for _, i := range []int{0, 1, 3, 4} {
		m[i].Host.MarkUp()
	}

	// A host that went down since the table was built, and one that is full.
	asked = nil
	m[1].Host.MarkDown()
	for _, want := range []string{"0", "3"} {
		if h := pick(t, tab); h.Name() != want {
			t.Fatalf("picked %s, not %s", h.Name(), want)
		}
	}
	if h, v := tab.Pick(Addr{}, new(Tried)); h != nil || v != Full {
		t.Errorf("with no room left: picked %v, verdict %v", h, v)
	}
	if want := []string{"0 1", "0", "0 1", "3", "0 1", "3"}; !slices.Equal(asked, want) {
		t.Errorf("it was asked about %q, not %q", asked, want)
	}
	noFaults(t, how)
}

// While no host is up, the last resort is not the scheduler's to choose.
func TestCustomAndTheLastResort(t *testing.T) {
	m := equal(3)
	tab, how := ownTable(t, named("1"), m)
	for i := range m {
		m[i].Host.MarkDown()
	}
	seen := map[string]bool{}
	for range m {
		var tried Tried
		h, v := tab.Pick(Addr{}, &tried)
		if h == nil || v != LastResort {
			t.Fatalf("picked %v, verdict %v", h, v)
		}
		seen[h.Name()] = true
	}
	if len(seen) != len(m) {
		t.Errorf("it went to %v", seen)
	}
	noFaults(t, how)
}

// Whatever Pick does, the session gets a host, in turn, and the fault is counted and told
// once.
func TestCustomFaults(t *testing.T) {
	for name, c := range map[string]struct {
		pick SchedulerFunc
		want string
	}{
		"-1":           {func(netip.Addr, []Candidate) int { return -1 }, "Pick returned -1 for 3 hosts"},
		"beyond":       {func(_ netip.Addr, hosts []Candidate) int { return len(hosts) }, "Pick returned 3 for 3 hosts"},
		"panic":        {func(netip.Addr, []Candidate) int { panic("no idea") }, "(custom_test.go:"},
		"error":        {func(netip.Addr, []Candidate) int { panic(errors.New("no idea")) }, "no idea"},
		"nil":          {func(netip.Addr, []Candidate) int { panic(nil) }, "panic called with nil argument"},
		"index":        {func(_ netip.Addr, hosts []Candidate) int { return int(hosts[len(hosts)].Sessions()) }, "index out of range [3] with length 3"},
		"nil pointer":  {func(netip.Addr, []Candidate) int { var h *Host; return int(h.Sessions()) }, "nil pointer dereference"},
		"no function":  {nil, "nil pointer dereference"},
		"empty handed": {func(netip.Addr, []Candidate) int { return int(Candidate{}.Sessions()) }, "nil pointer dereference"},
	} {
		t.Run(name, func(t *testing.T) {
			m := equal(3)
			tab, how := ownTable(t, c.pick, m)
			for range 30 {
				pick(t, tab).Release(0, 0)
			}
			for _, h := range m {
				if n := h.Host.Stats().Picks; n != 10 {
					t.Errorf("host %s was picked %d times of 30", h.Host.Name(), n)
				}
			}
			n, what := how.Faults()
			if n != 30 || !strings.Contains(what, c.want) {
				t.Errorf("%d faults: %q, not %q", n, what, c.want)
			}
			if n, what := how.Faults(); n != 30 || what != "" {
				t.Errorf("again: %d faults, %q", n, what)
			}
			// The next one is told again, and a session that tries all hosts gets them all.
			var tried Tried
			for range m {
				h, v := tab.Pick(Addr{}, &tried)
				if h == nil || v != Picked {
					t.Fatalf("picked %v, verdict %v", h, v)
				}
			}
			if n, what := how.Faults(); n != 33 || what == "" {
				t.Errorf("then: %d faults, %q", n, what)
			}
		})
	}
}

// A scheduler that changes what it was given misleads itself, but not the table.
func TestCustomThatChangesItsHosts(t *testing.T) {
	m := equal(4)
	tab, _ := ownTable(t, func(_ netip.Addr, hosts []Candidate) int {
		slices.Reverse(hosts)
		hosts[0] = Candidate{}
		return 0
	}, m)
	var tried Tried
	seen := map[*Host]bool{}
	for range m {
		h, v := tab.Pick(Addr{}, &tried)
		if h == nil || v != Picked || seen[h] {
			t.Fatalf("picked %v, verdict %v", h, v)
		}
		seen[h] = true
	}
}

// With ",sticky" it chooses once for a client, and the table does the rest.
func TestCustomWithSticky(t *testing.T) {
	calls := 0
	how := NewCustom(SchedulerFunc(func(_ netip.Addr, hosts []Candidate) int {
		calls++
		return calls % len(hosts)
	}))
	m := equal(3)
	tab := table(t, Policy{Scheduler: "custom:test,sticky", Custom: how, Sticky: NewSticky(100, time.Hour)}, m)
	home := map[int]*Host{}
	for range 5 {
		for i := range 6 {
			h, v := tab.Pick(clientOf(i), new(Tried))
			if v != Picked || home[i] != nil && home[i] != h {
				t.Fatalf("client %d: picked %v, verdict %v; before, %v", i, h, v, home[i])
			}
			home[i] = h
		}
	}
	if calls != 6 {
		t.Errorf("it was asked %d times for 6 clients", calls)
	}
	noFaults(t, how)
}

// No host ever has more sessions than it may, although the scheduler and all loops want the
// same one.
func TestCustomKeepsToLimits(t *testing.T) {
	const hosts, room, loops = 4, 3, 8
	m := equal(hosts)
	for i := range m {
		m[i].Host.SetMaxSessions(room)
	}
	tab, how := ownTable(t, func(netip.Addr, []Candidate) int { return 0 }, m)
	var all sync.WaitGroup
	for range loops {
		all.Go(func() {
			for range 2000 {
				h, v := tab.Pick(Addr{}, new(Tried))
				if h == nil { // each host was full when it was looked at
					if v != Full {
						t.Errorf("no host, verdict %v", v)
					}
					continue
				}
				if n := h.Sessions(); n > room {
					t.Errorf("a host has %d sessions", n)
				}
				h.Release(0, 0)
			}
		})
	}
	all.Wait()
	noFaults(t, how)
}

// A pick allocates nothing, also where hosts are down, full or tried.
func TestCustomAllocatesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		picks  int // of a session
		change func(first *Host)
	}{
		"all up": {1, func(*Host) {}}, "another try": {2, func(*Host) {}}, "down": {1, func(h *Host) { h.MarkDown() }},
		"full": {1, func(h *Host) { h.SetMaxSessions(1); h.take(1) }},
	} {
		m := equal(10)
		tab, how := ownTable(t, firstOf, m)
		c.change(m[0].Host)
		var tried Tried
		// With the race detector, a sync.Pool drops a quarter of what it is given. That is less
		// than one allocation for each session, which is what this counts in.
		if n := testing.AllocsPerRun(2000, func() {
			for range c.picks {
				h, v := tab.Pick(clientOf(1), &tried)
				if h == nil || v != Picked {
					t.Fatalf("%s: picked %v, verdict %v", name, h, v)
				}
				h.Release(0, 0)
			}
			tried.Reset()
		}); n != 0 {
			t.Errorf("%s: %v allocations for a session", name, n)
		}
		noFaults(t, how)
	}
}

func TestCustomNames(t *testing.T) {
	for scheduler, want := range map[string]string{
		"custom:cheapest": "cheapest", "custom:cheapest,sticky": "cheapest", "custom:a-B_9.z": "a-B_9.z",
		"custom:" + strings.Repeat("n", 64): strings.Repeat("n", 64),
		"custom:":                           "", "custom:,sticky": "", "custom:a b": "", "custom:a,b": "", "custom:ä": "", "custom": "", "leastc": "", "": "",
		"custom:" + strings.Repeat("n", 65): "", "Custom:a": "", "custom:a,sticky,sticky": "",
	} {
		name, ok := CustomName(scheduler)
		if name != want || ok != (want != "") {
			t.Errorf("%q has the name %q, %v", scheduler, name, ok)
		}
		if canonical, known := Canonical(scheduler); ok && (canonical != scheduler || !known) {
			t.Errorf("%q is %q, %v", scheduler, canonical, known)
		}
		if _, same := Weighted(scheduler); ok && !same {
			t.Errorf("%q has another form for weights", scheduler)
		}
	}
	if !IsSticky("custom:a,sticky") || IsSticky("custom:a") {
		t.Error("which custom scheduler is sticky is mistaken")
	}
	for _, p := range []Policy{
		{Scheduler: "custom:a"}, {Scheduler: "leastc", Custom: NewCustom(named("0"))}, {Custom: NewCustom(named("0"))},
		{Scheduler: "custom:a,sticky", Custom: NewCustom(named("0"))},
	} {
		if _, err := NewTable(p, equal(1)); err == nil {
			t.Errorf("a table of %+v", p)
		}
	}
}
