// Package routing tells which of a list of rules a client matches first: by what its
// TLS asks for, its network, and a share of the clients.
//
// A [Table] is immutable but for the counters of its rules, and safe for concurrent
// use. A choice does not wait, lock or allocate. It does not go through the rules:
// rules with names are found by the name, rules with networks by the network. It looks
// one by one only at those that share a name, or say neither.
package routing

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// Name is a server name in lower case, or with Below all names below it, at any depth.
// Below no name is every name.
type Name struct {
	Name  string
	Below bool
}

// Rule is what a client must have; what is empty does not matter.
type Rule struct {
	Names   []Name         // one of which it asks for
	ALPN    []string       // one of which it offers
	Nets    []netip.Prefix // one of which it is in; IPv4 as such
	Percent int            // of those who have all that; 100: all
}

// Client is what a rule is about.
type Client struct {
	Addr netip.Addr // IPv4 as such, without a zone; not valid: that of a UNIX socket
	Name []byte     // server name in lower case, empty without one
	ALPN []byte     // protocols as a ClientHello lists them, each behind a byte with its length
}

// Table is a list of rules, ready for clients.
type Table struct {
	rules []compiled
	exact map[string][]int32 // rules by their names, in order
	below map[string][]int32
	any   []int32                // that have neither names nor networks
	nets  *bart.Table[*networks] // rules without names; nil: none
}

type compiled struct {
	nets    []netip.Prefix // of a rule that has names
	alpn    []string
	percent uint64
	seen    *atomic.Uint64 // clients that have come to it; nil: all take it
	taken   *taken
}

// taken counts the clients that a rule has had.
type taken struct{ here, before atomic.Uint64 }

// networks are the rules of one network, and those of the networks around it.
type networks struct {
	rules  []int32
	around *networks
}

// None is what Choose returns for clients that match no rule.
const None = -1

// New makes a table of rules. The counters of a rule go on in each rule of another
// table that keep says is the same; keep returns its place, None without one. It may be
// nil.
func New(rules []Rule, was *Table, keep func(i int) int) *Table {
	t := &Table{exact: map[string][]int32{}, below: map[string][]int32{}, rules: make([]compiled, len(rules))}
	for i := range rules {
		r := &rules[i]
		c := compiled{alpn: r.ALPN, percent: uint64(r.Percent)}
		before := None
		if was != nil && keep != nil {
			before = keep(i)
		}
		if before != None {
			c.taken, c.seen = was.rules[before].taken, was.rules[before].seen
		} else {
			c.taken = new(taken)
		}
		switch {
		case r.Percent >= 100:
			c.seen = nil
		case c.seen == nil:
			c.seen = new(atomic.Uint64)
		}
		n := int32(i)
		switch {
		case len(r.Names) > 0:
			c.nets = r.Nets
			for _, name := range r.Names {
				m := t.exact
				if name.Below {
					m = t.below
				}
				if list := m[name.Name]; len(list) == 0 || list[len(list)-1] != n {
					m[name.Name] = append(list, n)
				}
			}
		case len(r.Nets) > 0:
			t.addNets(r.Nets, n)
		default:
			t.any = append(t.any, n)
		}
		t.rules[i] = c
	}
	if t.nets != nil {
		t.nest()
	}
	return t
}

func (t *Table) addNets(nets []netip.Prefix, rule int32) {
	if t.nets == nil {
		t.nets = new(bart.Table[*networks])
	}
	for _, p := range nets {
		n, ok := t.nets.Get(p)
		if !ok {
			n = new(networks)
			t.nets.Insert(p, n)
		}
		if len(n.rules) == 0 || n.rules[len(n.rules)-1] != rule {
			n.rules = append(n.rules, rule)
		}
	}
}

// nest links each network with the next larger one.
func (t *Table) nest() {
	for p, n := range t.nets.All() {
		for q, around := range t.nets.Supernets(p) { // the longest first
			if q != p {
				n.around = around
				break
			}
		}
	}
}

// Choose returns the place of the first rule that the client matches, and counts it
// there.
func (t *Table) Choose(c Client) int {
	s := search{client: c}
	if len(c.Name) > 0 {
		s.add(t.exact[string(c.Name)])
		for i, b := range c.Name {
			if b == '.' {
				s.add(t.below[string(c.Name[i+1:])])
			}
		}
		s.add(t.below[""])
	}
	s.add(t.any)
	if t.nets != nil && c.Addr.IsValid() {
		n, _ := t.nets.Lookup(c.Addr)
		for ; n != nil; n = n.around {
			s.add(n.rules)
		}
	}
	for {
		i, ok := s.next()
		if !ok {
			return None
		}
		if t.rules[i].matches(&c) && t.rules[i].takes() {
			t.rules[i].taken.here.Add(1)
			return int(i)
		}
	}
}

// Taken returns how many clients a rule has had.
func (t *Table) Taken(rule int) uint64 {
	n := t.rules[rule].taken
	return n.here.Load() + n.before.Load()
}

// Inherit adds the clients that a rule has had in an earlier process. A second call
// replaces the first.
func (t *Table) Inherit(rule int, clients uint64) { t.rules[rule].taken.before.Store(clients) }

// maxLists is how many lists of rules one client may find without an allocation.
const maxLists = 24

// search goes through the rules of several lists in their order.
type search struct {
	client Client
	room   [maxLists][]int32
	n      int
	more   [][]int32
}

func (s *search) add(list []int32) {
	switch {
	case len(list) == 0:
	case s.n < maxLists:
		s.room[s.n] = list
		s.n++
	default:
		s.more = append(s.more, list)
	}
}

// next takes the first rule of all lists that is left.
func (s *search) next() (rule int32, ok bool) {
	rule = math.MaxInt32
	for _, lists := range [2][][]int32{s.room[:s.n], s.more} {
		for _, l := range lists {
			if len(l) > 0 && l[0] < rule {
				rule = l[0]
			}
		}
	}
	if rule == math.MaxInt32 {
		return 0, false
	}
	for _, lists := range [2][][]int32{s.room[:s.n], s.more} {
		for i, l := range lists {
			if len(l) > 0 && l[0] == rule {
				lists[i] = l[1:]
			}
		}
	}
	return rule, true
}

// matches tells whether the client has what the index of the table does not know.
func (r *compiled) matches(c *Client) bool {
	if len(r.nets) > 0 && (!c.Addr.IsValid() || !slices.ContainsFunc(r.nets, func(p netip.Prefix) bool { return p.Contains(c.Addr) })) {
		return false
	}
	return len(r.alpn) == 0 || offers(c.ALPN, r.alpn)
}

func offers(list []byte, want []string) bool {
	for len(list) > 0 {
		n := int(list[0])
		if n >= len(list) {
			return false
		}
		for _, w := range want {
			if string(list[1:1+n]) == w {
				return true
			}
		}
		list = list[1+n:]
	}
	return false
}

// takes decides by count: of each 100 clients exactly the percentage, spread evenly.
func (r *compiled) takes() bool {
	if r.seen == nil {
		return true
	}
	n := (r.seen.Add(1) - 1) % 100
	return (n+1)*r.percent/100 != n*r.percent/100
}

// Parse is a Name as a configuration writes it.
func Parse(s string) Name {
	if s == "*" {
		return Name{Below: true}
	}
	name, below := strings.CutPrefix(s, "*.")
	return Name{name, below}
}
