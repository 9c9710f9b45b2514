package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// Diff, Merge and Rewrite look at a model as a tree of elements with
// attributes, as Marshal writes it and the reader reads it. A new field of the
// model is part of all three as soon as those two know it.

// node is one element of a model's tree. Attributes that have their default
// are not there, as Marshal leaves them out.
//
// One thing is said in another place than in a document: a service has an
// attribute enable with the name of its enabled group, and groups have none,
// because it is one choice.
type node struct {
	tag   string
	key   string // tells apart children of one tag; "" for what is there once
	text  string
	attrs []attribute
	kids  []*node

	index map[step]*node // of kids, made when it pays
}

type attribute struct{ name, value string }

// step leads from a node to one of its kids.
type step struct{ tag, key string }

// keys says which attribute tells apart the children of one tag.
var keys = map[string]string{"service": "name", "listen": "ip", "group": "name", "host": "name", "user": "name"}

// everThere tells elements that mean the same without attributes as if they
// were missing. Others, such as <web>, mean something by being there.
var everThere = map[string]bool{
	"engine": true, "timeouts": true, "limits": true, "admin": true, "manager": true,
	"hostCheck": true, "configCheck": true, "heartbeat": true, "dns": true, "control": true, "logging": true,
}

// tree returns the model as a tree. enabled tells the enabled group of a
// service, which need not be among the groups that the model has.
func (c *Config) tree(enabled func(service string) string) *node {
	root := toNode(c.document().Root())
	for _, s := range root.kids {
		if s.tag != "service" {
			continue
		}
		for _, g := range s.kids {
			if g.tag == "group" {
				g.remove("enable")
			}
		}
		if name := enabled(s.key); name != "" {
			s.set("enable", name)
		}
	}
	return root
}

// fullTree is tree for a model that is whole.
func (c *Config) fullTree() *node { return c.tree(c.enabledGroups()) }

// enabledGroups returns what tells the enabled group of each service.
func (c *Config) enabledGroups() func(service string) string {
	names := make(map[string]string, len(c.Services))
	for _, s := range c.Services {
		if g := s.Enabled(); g != nil {
			names[s.Name] = g.Name
		}
	}
	return func(service string) string { return names[service] }
}

func toNode(e *etree.Element) *node {
	n := &node{tag: e.Tag, text: strings.TrimSpace(e.Text())}
	for _, a := range e.Attr {
		n.attrs = append(n.attrs, attribute{a.Key, a.Value})
	}
	var seen map[step]int
	for _, c := range e.ChildElements() {
		kid := toNode(c)
		if name := keys[kid.tag]; name != "" {
			kid.key = kid.get(name)
			// Two listeners may have one address, if its port is 0.
			if kid.tag == "listen" {
				if seen == nil {
					seen = map[step]int{}
				}
				s := kid.step()
				if seen[s]++; seen[s] > 1 {
					kid.key += "\x00" + strconv.Itoa(seen[s])
				}
			}
		}
		n.kids = append(n.kids, kid)
	}
	return n
}

// model reads a tree back. It fails as a document would.
func (n *node) model() (*Config, error) {
	r := &reader{report: report{file: "configuration"}, broken: map[any]bool{}}
	c := r.config(n.element())
	k := &checker{report: r.report, broken: r.broken}
	k.config(c)
	return c, k.told().Err()
}

func (n *node) element() *etree.Element {
	e := etree.NewElement(n.tag)
	for _, a := range n.attrs {
		if n.tag != "service" || a.name != "enable" {
			e.CreateAttr(a.name, a.value)
		}
	}
	if n.text != "" {
		e.SetText(n.text)
	}
	for _, kid := range n.kids {
		child := kid.element()
		if kid.tag == "group" {
			child.CreateAttr("enable", strconv.FormatBool(kid.key == n.get("enable")))
		}
		e.AddChild(child)
	}
	return e
}

func (n *node) step() step { return step{n.tag, n.key} }

// get returns an attribute, "" if it has its default.
func (n *node) get(name string) string {
	v, _ := n.lookup(name)
	return v
}

func (n *node) lookup(name string) (value string, there bool) {
	if n == nil {
		return "", false
	}
	for _, a := range n.attrs {
		if a.name == name {
			return a.value, true
		}
	}
	return "", false
}

func (n *node) set(name, value string) {
	for i := range n.attrs {
		if n.attrs[i].name == name {
			n.attrs[i].value = value
			return
		}
	}
	n.attrs = append(n.attrs, attribute{name, value})
}

func (n *node) remove(name string) {
	n.attrs = slices.DeleteFunc(n.attrs, func(a attribute) bool { return a.name == name })
}

// put sets an attribute or removes it.
func (n *node) put(name, value string, there bool) {
	if there {
		n.set(name, value)
	} else {
		n.remove(name)
	}
}

// manyKids is from how many on kids are looked up in an index.
const manyKids = 16

// kid returns a child, nil if there is none.
func (n *node) kid(s step) *node {
	if n == nil {
		return nil
	}
	if len(n.kids) < manyKids {
		for _, k := range n.kids {
			if k.tag == s.tag && k.key == s.key {
				return k
			}
		}
		return nil
	}
	if n.index == nil {
		n.index = make(map[step]*node, len(n.kids))
		for _, k := range n.kids {
			n.index[k.step()] = k
		}
	}
	return n.index[s]
}

func (n *node) add(k *node) {
	n.kids = append(n.kids, k)
	if n.index != nil {
		n.index[k.step()] = k
	}
}

func (n *node) drop(s step) {
	n.kids = slices.DeleteFunc(n.kids, func(k *node) bool { return k.step() == s })
	delete(n.index, s)
}

// of returns the kids of one tag.
func (n *node) of(tag string) []*node {
	if n == nil {
		return nil
	}
	var list []*node
	for _, k := range n.kids {
		if k.tag == tag {
			list = append(list, k)
		}
	}
	return list
}

// clone returns a copy that shares nothing with n.
func (n *node) clone() *node {
	if n == nil {
		return nil
	}
	m := &node{tag: n.tag, key: n.key, text: n.text, attrs: slices.Clone(n.attrs)}
	for _, k := range n.kids {
		m.kids = append(m.kids, k.clone())
	}
	return m
}

// bare is a clone without kids.
func (n *node) bare() *node {
	return &node{tag: n.tag, key: n.key, text: n.text, attrs: slices.Clone(n.attrs)}
}

// list returns the kids without a key if their order says something: if a tag
// is among them more than once, as in <access>.
func (n *node) list() (kids []*node, ordered bool) {
	if n == nil {
		return nil, false
	}
	seen := map[string]bool{}
	for _, k := range n.kids {
		if keys[k.tag] == "" {
			kids = append(kids, k)
			ordered = ordered || seen[k.tag]
			seen[k.tag] = true
		}
	}
	return kids, ordered
}

// same tells whether two nodes say the same. The order of attributes and of
// kids with keys says nothing.
func (n *node) same(m *node) bool {
	switch {
	case n == nil || m == nil:
		return n.silent() && m.silent()
	case n.tag != m.tag || n.text != m.text || len(n.attrs) != len(m.attrs):
		return false
	}
	for _, a := range n.attrs {
		if v, there := m.lookup(a.name); !there || v != a.value {
			return false
		}
	}
	mine, ordered := n.list()
	others, alsoOrdered := m.list()
	if ordered || alsoOrdered {
		if !slices.EqualFunc(mine, others, (*node).same) {
			return false
		}
		return n.sameKids(m, func(k *node) bool { return k.tag != "" && keys[k.tag] != "" })
	}
	return n.sameKids(m, func(*node) bool { return true })
}

func (n *node) sameKids(m *node, which func(*node) bool) bool {
	for _, k := range n.kids {
		if which(k) && !k.same(m.kid(k.step())) {
			return false
		}
	}
	for _, k := range m.kids {
		if which(k) && n.kid(k.step()) == nil && !k.silent() {
			return false
		}
	}
	return true
}

// silent tells whether a node says no more than if it were missing.
func (n *node) silent() bool {
	if n == nil {
		return true
	}
	if !everThere[n.tag] || len(n.attrs) > 0 || n.text != "" {
		return false
	}
	return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.silent() })
}

// attrNames returns the names of the attributes that differ, in the order in
// which they are written.
func attrChanges(a, b *node) []string {
	var names []string
	if a != nil {
		for _, x := range a.attrs {
			if v, there := b.lookup(x.name); !there || v != x.value {
				names = append(names, x.name)
			}
		}
	}
	if b != nil {
		for _, x := range b.attrs {
			if _, there := a.lookup(x.name); !there {
				names = append(names, x.name)
			}
		}
	}
	return names
}

var posType = reflect.TypeFor[Pos]()

// equal tells whether two parts of a model are the same but for positions. It
// is quick, and too strict only about order.
func equal[T any](a, b T) bool { return equalValues(reflect.ValueOf(a), reflect.ValueOf(b)) }

func equalValues(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() || a.Pointer() == b.Pointer() {
			return a.IsNil() == b.IsNil()
		}
		return equalValues(a.Elem(), b.Elem())
	case reflect.Struct:
		if a.Type() == posType {
			return true
		}
		for i := range a.NumField() {
			if !equalValues(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		// The longest lists, of which most is shared (Share).
		if hosts, ok := longList(a); ok {
			others, _ := b.Interface().([]*Host)
			for i, h := range hosts {
				if h != others[i] && !equalValues(a.Index(i), b.Index(i)) {
					return false
				}
			}
			return true
		}
		for i := range a.Len() {
			if !equalValues(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.String:
		return a.String() == b.String()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	case reflect.Int, reflect.Int64:
		return a.Int() == b.Int()
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// longList returns a list of hosts that is worth being looked at without
// reflection.
func longList(v reflect.Value) ([]*Host, bool) {
	if v.Len() < 64 {
		return nil, false
	}
	hosts, ok := v.Interface().([]*Host)
	return hosts, ok
}

// differing returns two models without the services, groups and hosts that are
// the same in both, so that what is left is small where models are large.
func differing(a, b *Config) (*Config, *Config) {
	ca, cb := *a, *b
	name := func(s *Service) string { return s.Name }
	ca.Services, cb.Services = unequal(a.Services, b.Services, name, func(s, t *Service) (*Service, *Service) {
		cs, ct := *s, *t
		name := func(g *Group) string { return g.Name }
		cs.Groups, ct.Groups = unequal(s.Groups, t.Groups, name, func(g, h *Group) (*Group, *Group) {
			cg, ch := *g, *h
			name := func(h *Host) string { return h.Name }
			cg.Hosts, ch.Hosts = unequal(g.Hosts, h.Hosts, name, func(x, y *Host) (*Host, *Host) { return x, y })
			return &cg, &ch
		})
		return &cs, &ct
	})
	return &ca, &cb
}

// unequal returns what is in one list alone, and what is different in both,
// after less has taken away what is equal within.
func unequal[T any](a, b []*T, name func(*T) string, less func(x, y *T) (*T, *T)) (ua, ub []*T) {
	byName := map[string]*T{}
	aligned := len(a) == len(b)
	for i := 0; aligned && i < len(a); i++ {
		aligned = name(a[i]) == name(b[i])
	}
	if !aligned {
		for _, x := range a {
			byName[name(x)] = x
		}
	}
	common := map[string]bool{}
	for i, y := range b {
		var x *T
		if aligned {
			x = a[i]
		} else {
			x = byName[name(y)]
		}
		if x == nil {
			ub = append(ub, y)
			continue
		}
		if !aligned {
			common[name(y)] = true
		}
		if x != y && !equal(x, y) {
			x, y = less(x, y)
			ua, ub = append(ua, x), append(ub, y)
		}
	}
	if !aligned {
		for _, x := range a {
			if !common[name(x)] {
				ua = append(ua, x)
			}
		}
	}
	return ua, ub
}
