package acl

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// first is what a list means: the first network that has the address decides.
func first(rules []Rule, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, r := range rules {
		for _, n := range r.Nets {
			if n.Contains(a) {
				return r.Deny
			}
		}
	}
	return false
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func TestFirstMatchDecides(t *testing.T) {
	rules := []Rule{
		{false, prefix("10.1.2.3/32")}, {true, prefix("10.1.0.0/16")}, {false, prefix("10.0.0.0/8")},
		{true, prefix("10.2.0.0/16")}, // never reached
		{false, prefix("2001:db8:1::/48")}, {true, Every()},
	}
	l := New(rules)
	for _, test := range []struct {
		address string
		denied  bool
	}{
		{"10.1.2.3", false}, {"10.1.2.4", true}, {"10.2.0.1", false}, {"192.0.2.1", true},
		{"::ffff:10.1.2.3", false}, {"::ffff:10.1.2.4", true},
		{"2001:db8:1::7", false}, {"2001:db8:2::7", true}, {"fe80::1%eth0", true},
	} {
		if got := l.Denied(netip.MustParseAddr(test.address)); got != test.denied {
			t.Errorf("%s: denied is %v", test.address, got)
		}
	}
	if n := l.Size(); n != 6 {
		t.Errorf("%d networks can decide, want 6", n)
	}
	if l := New(nil); l.Denied(netip.MustParseAddr("192.0.2.1")) || l.Denied(netip.Addr{}) {
		t.Error("a list without rules denies")
	}
	if l := New([]Rule{{true, Every()}}); l.Denied(netip.Addr{}) {
		t.Error("a client without an address is denied")
	}
}

// Any rules and addresses get the answer of a list that is searched from its start.
func TestRandomRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		compare(t, r, 1+r.IntN(40), 100)
	}
}

func compare(t *testing.T, r *rand.Rand, rules, addresses int) {
	t.Helper()
	var list []Rule
	for range rules {
		list = append(list, Rule{r.IntN(2) == 0, []netip.Prefix{randomPrefix(r), randomPrefix(r)}})
	}
	l := New(list)
	for range addresses {
		a := randomAddr(r)
		if got, want := l.Denied(a), first(list, a); got != want {
			t.Fatalf("%v: denied is %v, want %v by %v", a, got, want, list)
		}
	}
}

// randomAddr returns an address of a small space, so that rules meet.
func randomAddr(r *rand.Rand) netip.Addr {
	var b [16]byte
	if r.IntN(2) == 0 {
		a4 := [4]byte{10, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(256))}
		a := netip.AddrFrom4(a4)
		if r.IntN(3) == 0 {
			return netip.AddrFrom16(a.As16())
		}
		return a
	}
	copy(b[:], []byte{0x20, 0x01, 0x0d, 0xb8, byte(r.IntN(2)), byte(r.IntN(4))})
	binary.BigEndian.PutUint32(b[12:], r.Uint32())
	return netip.AddrFrom16(b)
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	a := randomAddr(r).Unmap()
	return netip.PrefixFrom(a, r.IntN(a.BitLen()+1)).Masked()
}

func FuzzDenied(f *testing.F) {
	f.Add(uint64(1), uint8(4))
	f.Fuzz(func(t *testing.T, seed uint64, rules uint8) {
		compare(t, rand.New(rand.NewPCG(seed, 1)), int(rules), 50)
	})
}

func TestDeniedAllocatesNothing(t *testing.T) {
	l := thousands(10_000)
	a, zoned := netip.MustParseAddr("::ffff:10.1.2.3"), netip.MustParseAddr("fe80::1%eth0")
	if n := testing.AllocsPerRun(100, func() { l.Denied(a); l.Denied(zoned) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// thousands is a list of so many networks, as those of countries are.
func thousands(n int) *List {
	r := rand.New(rand.NewPCG(3, 4))
	var rules []Rule
	for range n {
		a := netip.AddrFrom4([4]byte{byte(1 + r.IntN(223)), byte(r.IntN(256)), byte(r.IntN(256)), 0})
		rules = append(rules, Rule{r.IntN(2) == 0, []netip.Prefix{netip.PrefixFrom(a, 16+r.IntN(9)).Masked()}})
	}
	return New(append(rules, Rule{true, Every()}))
}

func BenchmarkDenied(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"10", 10}, {"10000", 10_000}} {
		l := thousands(size.n)
		b.Run(size.name, func(b *testing.B) {
			b.ReportAllocs()
			a := [4]byte{10, 1, 2, 3}
			for i := 0; b.Loop(); i++ {
				binary.LittleEndian.PutUint32(a[:], uint32(i)*2654435761)
				l.Denied(netip.AddrFrom4(a))
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		thousands(10_000)
	}
}
