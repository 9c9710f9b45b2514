package sched

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// clientOf returns the address of client number n.
func clientOf(n int) Addr {
	return TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(1024+n%60_000)))
}

// hostFor makes one pick of a new session of a client.
func hostFor(tab *Table, client Addr) *Host {
	var tried Tried
	h, _ := tab.Pick(client, &tried)
	if h != nil {
		h.Release(0, 0)
	}
	tried.Reset()
	return h
}

// The host is that of the address: whatever the port, the order and the names of the
// hosts, on every node, and in every version, as nodes of two versions may serve at once.
func TestB40MaglevIsTheSameOnEveryNode(t *testing.T) {
	m := mixed(20)
	tab := table(t, Policy{Scheduler: "maglev"}, m)
	other := slices.Clone(m)
	for i := range other {
		other[i].Host = NewHost("other "+other[i].Host.Name(), other[i].Host.Addr())
	}
	slices.Reverse(other)
	node := table(t, Policy{Scheduler: "maglev"}, other)
	for n := range 10_000 {
		client := clientOf(n)
		h := hostFor(tab, client)
		port := TCPAddr(netip.AddrPortFrom(client.IP().Addr(), 1))
		mapped := TCPAddr(netip.AddrPortFrom(netip.AddrFrom16(client.IP().Addr().As16()), 2))
		if hostFor(tab, port) != h || hostFor(tab, mapped) != h || hostFor(node, client).Addr() != h.Addr() {
			t.Fatalf("client %v does not keep host %v", client, h.Addr())
		}
	}
	for client, want := range map[string]string{
		"192.0.2.1:1": "18", "192.0.2.2:1": "7", "[2001:db8::1]:1": "10", "[2001:db8::2]:1": "13",
	} {
		addr, err := ParseAddr(client)
		if h := hostFor(tab, addr); err != nil || h.Name() != want {
			t.Errorf("%s has host %s, want %s (%v)", client, h.Name(), want, err)
		}
	}
}

// moved counts the clients of other hosts than gone that have another host in table b
// than in table a.
func moved(a, b *Table, gone *Host, clients int) (moved, others int) {
	for n := range clients {
		was := hostFor(a, clientOf(n))
		if was == gone {
			continue
		}
		others++
		if hostFor(b, clientOf(n)) != was {
			moved++
		}
	}
	return moved, others
}

func TestB40MaglevMovesFewClients(t *testing.T) {
	const clients = 8000
	p := Policy{Scheduler: "maglev"}
	for name, m := range map[string][]Member{"equal weights": equal(100), "weights 1 to 7": mixed(100)} {
		whole := table(t, p, m)
		for i := 0; i < 100; i += 33 {
			gone := m[i].Host
			without := table(t, p, slices.Delete(slices.Clone(m), i, i+1))
			if n, others := moved(whole, without, gone, clients); n*50 > others {
				t.Errorf("%s: without host %d, %d of %d clients of others moved", name, i, n, others)
			}
			// A host that is down leaves the slots as they are.
			gone.MarkDown()
			if n, _ := moved(whole, table(t, p, m), gone, clients/10); n > 0 {
				t.Errorf("%s: host %d is down, and %d clients of others moved", name, i, n)
			}
			gone.MarkUp()
		}
	}
}

// Each host has its share of clients, also of those whose host is down.
func TestB40MaglevSharesByWeight(t *testing.T) {
	const clients = 20_000
	for name, weights := range map[string][]int{
		"equal": {1, 1, 1, 1, 1}, "mixed": {1, 2, 3, 4, 10}, "far apart": {1, 1, 1, 65535}, "one": {3}, "one and none": {0, 5},
	} {
		m := members(weights...)
		for down := range m {
			if down > 0 {
				m[down].Host.MarkDown()
			}
			tab := table(t, Policy{Scheduler: "maglev"}, m)
			counts, sum := map[*Host]int{}, 0
			for n := range clients {
				counts[hostFor(tab, clientOf(n))]++
			}
			for _, one := range m {
				if one.Host.Up() {
					sum += one.Weight
				}
			}
			for i, one := range m {
				want := 0.0
				if one.Host.Up() {
					want = float64(one.Weight) / float64(sum) * clients
				}
				if got := float64(counts[one.Host]); sum > 0 && (got < want*0.95-100 || got > want*1.05+100) {
					t.Errorf("%s, %d down: host %d has %v clients, want %v", name, down, i, got, want)
				}
			}
			m[down].Host.MarkUp()
		}
	}
}

// A slow start moves the clients of its host to it, step by step, and no others; it
// needs no new slots, and neither does a change of health.
func TestB43MaglevSlowStart(t *testing.T) {
	const clients, steps = 5000, 20
	m := mixed(10)
	for i := range m {
		m[i].Weight *= steps
	}
	whole := table(t, Policy{Scheduler: "maglev"}, m)
	others := 0
	for i := range m {
		if i != 3 {
			others += m[i].Weight
		}
	}
	last, before := map[int]bool{}, whole
	m[3].Full = m[3].Weight
	for step := 1; step <= steps; step++ {
		m[3].Weight = m[3].Full / steps * step
		tab := table(t, Policy{Scheduler: "maglev", Before: before}, m)
		if tab.slots()[0] != whole.slots()[0] {
			t.Fatal("a slow start needs new slots")
		}
		before = tab
		there := map[int]bool{}
		for n := range clients {
			was, is := hostFor(whole, clientOf(n)), hostFor(tab, clientOf(n))
			if is == m[3].Host {
				there[n] = true
			} else if was != m[3].Host && is != was {
				t.Fatalf("step %d: client %d of another host has moved", step, n)
			}
			if last[n] && !there[n] {
				t.Fatalf("step %d: client %d has left again", step, n)
			}
		}
		last = there
		if want := clients * m[3].Weight / (others + m[3].Weight); len(there) < want*8/10-30 || len(there) > want*12/10+30 {
			t.Errorf("step %d: %d clients, want %d", step, len(there), want)
		}
	}
	m[5].Host.MarkDown()
	if tab := table(t, Policy{Scheduler: "maglev", Before: before}, m); tab.slots()[0] != whole.slots()[0] {
		t.Error("a host that is down needs new slots")
	}
	m[5].Weight++
	if tab := table(t, Policy{Scheduler: "maglev", Before: before}, m); tab.slots()[0] == whole.slots()[0] {
		t.Error("another weight has the same slots")
	}
}

// Two nodes that see the same health agree on each host that a session tries, to the
// last resort, however many fail; and a client without an address gets all of them too.
func TestB40MaglevNodesAgreeOnTheNext(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(rt, "hosts")
		m := mixed(n)
		flip := anyState(rt, m)
		p := Policy{Scheduler: "maglev", Refuse: flip("refuse")}
		a := table(t, p, m)
		p.Before = a // has the same slots, if the order is the same
		b := table(t, p, rapid.Permutation(m).Draw(rt, "order"))
		if flip("comes back") {
			m[rapid.IntRange(0, n-1).Draw(rt, "which")].Host.MarkUp()
		}
		client := clientOf(rapid.IntRange(0, 1000).Draw(rt, "client"))
		var one, two, unknown Tried
		for range n + 1 {
			h, v := a.Pick(client, &one)
			if other, w := b.Pick(client, &two); h != other || v != w {
				rt.Fatalf("pick %d: %v, %v on one node and %v, %v on the other", one.Len(), h, v, other, w)
			}
			if x, w := a.Pick(Addr{}, &unknown); w != v || (x == nil) != (h == nil) {
				rt.Fatalf("a client without an address: %v, %v instead of %v, %v", x, w, h, v)
			}
			if h == nil {
				break
			}
		}
	})
}

// Hosts of the same address are two hosts.
func TestMaglevHostsOfOneAddress(t *testing.T) {
	addr := members(1)[0].Host.Addr()
	m := []Member{{Host: NewHost("b", addr), Weight: 1}, {Host: NewHost("a", addr), Weight: 1}}
	tab := table(t, Policy{Scheduler: "maglev"}, m)
	counts := map[*Host]int{}
	for n := range 10_000 {
		counts[hostFor(tab, clientOf(n))]++
	}
	if counts[m[0].Host] < 4500 || counts[m[1].Host] < 4500 {
		t.Errorf("%d and %d clients", counts[m[0].Host], counts[m[1].Host])
	}
}
