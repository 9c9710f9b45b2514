package routing

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func names(list ...string) (all []Name) {
	for _, s := range list {
		all = append(all, Parse(s))
	}
	return all
}

func nets(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func alpn(list ...string) (b []byte) {
	for _, s := range list {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

func TestFirstMatchDecides(t *testing.T) {
	table := New([]Rule{
		{Names: names("db.example"), ALPN: []string{"postgresql"}, Percent: 100},
		{Names: names("db.example", "*.db.example"), Percent: 100},
		{Nets: nets("10.0.0.0/8", "2001:db8::/32"), Percent: 100},
		{Names: names("*.example"), Nets: nets("192.0.2.0/24"), Percent: 100},
		{Nets: nets("10.1.0.0/16"), Percent: 100}, // behind the larger network: never
		{ALPN: []string{"h2", "h3"}, Percent: 100},
		{Names: names("*"), Percent: 100},
	}, nil, nil)
	for _, c := range []struct {
		addr, name string
		alpn       []byte
		want       int
	}{
		{"192.0.2.1", "db.example", alpn("x", "postgresql"), 0},
		{"192.0.2.1", "db.example", alpn("postgres"), 1},
		{"192.0.2.1", "a.db.example", nil, 1},
		{"10.1.2.3", "a.b.db.example", nil, 1},
		{"10.1.2.3", "", nil, 2},
		{"2001:db8::1", "other.example", nil, 2},
		{"192.0.2.1", "other.example", nil, 3},
		{"192.0.2.1", "example", nil, 6},
		{"192.0.3.1", "other.example", alpn("h2"), 5},
		{"192.0.3.1", "xdb.example", nil, 6},
		{"192.0.3.1", "", nil, None},
		{"192.0.3.1", "", alpn("h3"), 5},
		{"192.0.3.1", "", []byte{9, 'h', '2'}, None},
		{"", "", nil, None},
		{"", "other.example", nil, 6},
	} {
		client := Client{Name: []byte(c.name), ALPN: c.alpn}
		if c.addr != "" {
			client.Addr = netip.MustParseAddr(c.addr)
		}
		if got := table.Choose(client); got != c.want {
			t.Errorf("%s asks for %q with %q: rule %d, want %d", c.addr, c.name, c.alpn, got, c.want)
		}
	}
}

// Of each hundred clients that come to a rule exactly its percentage takes it, spread
// evenly, whoever counts.
func TestPercentIsExact(t *testing.T) {
	for percent := range 101 {
		table := New([]Rule{{Percent: percent}}, nil, nil)
		for round := range 3 {
			taken, longest, since := 0, 0, 0
			for range 100 {
				since++
				if table.Choose(Client{}) == 0 {
					taken++
					longest, since = max(longest, since), 0
				}
			}
			if taken != percent {
				t.Errorf("%d %%, round %d: %d of 100", percent, round, taken)
			}
			if percent > 0 && longest > 100/percent+1 {
				t.Errorf("%d %%: one in %d clients", percent, longest)
			}
		}
	}
	table := New([]Rule{{Percent: 37}}, nil, nil)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 1000 {
				table.Choose(Client{})
			}
		})
	}
	wg.Wait()
	if n := table.Taken(0); n != 3700 {
		t.Errorf("%d of 10,000 clients of ten loops, want 3700", n)
	}
	// Another table goes on where the one before was.
	for range 2 { // of 50 %, the second
		next := New([]Rule{{Percent: 100, Nets: nets("10.0.0.0/8")}, {Percent: 50}}, table, func(i int) int { return i - 1 })
		if next.Choose(Client{}); next.Taken(0) != 0 {
			t.Error("the new rule has counted")
		}
		table = New([]Rule{{Percent: 50}}, next, func(int) int { return 1 })
	}
	if n := table.Taken(0); n != 3701 {
		t.Errorf("%d clients after the change, want 3701", n)
	}
}

// The index finds what going through the rules finds.
func TestChooseIsFirstMatch(t *testing.T) { rapid.Check(t, chooseIsFirstMatch) }

func chooseIsFirstMatch(t *rapid.T) {
	nameTexts := []string{"a", "b.a", "c.b.a", "*.a", "*.b.a", "*", "d"}
	netTexts := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "10.1.2.3/32"}
	var rules []Rule
	for range rapid.IntRange(0, 12).Draw(t, "rules") {
		rules = append(rules, Rule{
			Names: names(rapid.SliceOfN(rapid.SampledFrom(nameTexts), 0, 2).Draw(t, "names")...),
			Nets:  nets(rapid.SliceOfN(rapid.SampledFrom(netTexts), 0, 2).Draw(t, "nets")...),
			ALPN:  rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 1).Draw(t, "alpn"), Percent: 100,
		})
	}
	table := New(rules, nil, nil)
	for range 5 {
		c := Client{
			Name: []byte(rapid.SampledFrom([]string{"", "a", "b.a", "c.b.a", "x.c.b.a", "d", "e"}).Draw(t, "name")),
			ALPN: alpn(rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 2).Draw(t, "offers")...),
		}
		if a := rapid.SampledFrom([]string{"", "10.1.2.3", "10.1.2.4", "10.2.0.1", "192.0.2.1", "2001:db8::1", "::1"}).Draw(t, "from"); a != "" {
			c.Addr = netip.MustParseAddr(a)
		}
		want := None
		for i := range rules {
			if plainMatch(&rules[i], &c) {
				want = i
				break
			}
		}
		if got := table.Choose(c); got != want {
			t.Fatalf("%v matches rule %d, want %d of %+v", c, got, want, rules)
		}
	}
}

func plainMatch(r *Rule, c *Client) bool {
	named, near, speaks := len(r.Names) == 0, len(r.Nets) == 0, len(r.ALPN) == 0
	for _, n := range r.Names {
		name := string(c.Name)
		named = named || !n.Below && name == n.Name || n.Below && name != "" && (n.Name == "" || strings.HasSuffix(name, "."+n.Name))
	}
	for _, p := range r.Nets {
		near = near || c.Addr.IsValid() && p.Contains(c.Addr)
	}
	for _, a := range r.ALPN {
		speaks = speaks || strings.Contains(string(c.ALPN), "\x01"+a)
	}
	return named && near && speaks
}

func TestChooseAllocatesNothing(t *testing.T) {
	table := many(1000)
	c := Client{Addr: netip.MustParseAddr("10.0.3.1"), Name: []byte("a.b.c.d.e.h999.example"), ALPN: alpn("h2")}
	if n := testing.AllocsPerRun(100, func() { table.Choose(c) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func many(n int) *Table {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = Rule{Names: names(fmt.Sprintf("h%d.example", i), fmt.Sprintf("*.h%d.example", i)), Percent: 100}
		if i%2 == 1 {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], 10<<24+uint32(i)<<8)
			rules[i] = Rule{Nets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(b), 24)}, Percent: 100}
		}
	}
	return New(rules, nil, nil)
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		table := many(n)
		for what, c := range map[string]Client{
			"name": {Name: fmt.Appendf(nil, "h%d.example", n-2)},
			"net":  {Addr: netip.AddrFrom4([4]byte{10, byte((n - 1) >> 8), byte(n - 1), 1})},
			"none": {Name: []byte("nobody.example"), Addr: netip.MustParseAddr("192.0.2.1")},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, what), func(b *testing.B) {
				for b.Loop() {
					table.Choose(c)
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		many(10_000)
	}
}
