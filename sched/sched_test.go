package sched

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// members makes hosts named 0, 1, 2 … with the given weights.
func members(weights ...int) []Member {
	list := make([]Member, len(weights))
	for i, w := range weights {
		addr := TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80))
		list[i] = Member{Host: NewHost(fmt.Sprint(i), addr), Weight: w}
	}
	return list
}

func equal(n int) []Member { return members(slices.Repeat([]int{1}, n)...) }

func table(t testing.TB, p Policy, m []Member) *Table {
	t.Helper()
	tab, err := NewTable(p, m)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// pick makes one pick of a new session.
func pick(t testing.TB, tab *Table) *Host {
	t.Helper()
	var tried Tried
	h, v := tab.Pick(Addr{}, &tried)
	if h == nil || v != Picked || tried.Len() != 1 || !tried.Has(h) {
		t.Fatalf("picked %v, verdict %v, tried %d", h, v, tried.Len())
	}
	return h
}

// pickMany makes n picks, spread over goroutines, and returns them by host.
func pickMany(t testing.TB, tab *Table, n, goroutines int) map[string]int {
	t.Helper()
	var mu sync.Mutex
	sum := map[string]int{}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			mine := map[string]int{}
			for range n / goroutines {
				var tried Tried
				if h, _ := tab.Pick(Addr{}, &tried); h != nil {
					mine[h.Name()]++
					h.Release(0, 0)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for name, k := range mine {
				sum[name] += k
			}
		})
	}
	wg.Wait()
	return sum
}
