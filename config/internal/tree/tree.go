// Package tree has a configuration as a tree of elements with attributes, as it
// is written and read. Packages changes and document compare and change trees, so
// that a new field of the model is part of both as soon as package config reads
// and writes it.
package tree

import (
	"slices"
	"strconv"
)

// Node is one element of a model's tree. Attributes that have their default
// are not there, as Marshal leaves them out.
//
// One thing differs from a document: a service has an attribute enable with the
// name of its enabled group, and groups have none, because it is one choice.
type Node struct {
	Tag   string
	Key   string // tells apart children of one tag; "" for what is there once
	Text  string
	Attrs []Attr
	Kids  []*Node

	index map[Step]*Node // of kids, made when it pays
}

// Attr is an attribute with its value.
type Attr struct{ Name, Value string }

// Step leads from a node to one of its kids.
type Step struct{ Tag, Key string }

// KeyOf returns the attribute that identifies the children of one tag, "" for
// elements that occur once or whose order matters, and for routes, see RouteKey.
func KeyOf(tag string) string {
	switch tag {
	case "service", "group", "host", "user":
		return "name"
	case "listen", "mirror":
		return "ip"
	}
	return ""
}

// Keyed tells whether the children of a tag are told apart by a key.
func Keyed(tag string) bool { return KeyOf(tag) != "" || tag == "route" }

// IsKey tells whether an attribute is part of an element's key.
func IsKey(tag, attr string) bool {
	return attr == KeyOf(tag) || tag == "route" && slices.Contains(routeKey[:], attr)
}

// routeKey are the attributes that make a route the same one across changes.
var routeKey = [...]string{"sni", "alpn", "net"}

// RouteKey is the key of a route with these attributes: what a client must have.
func RouteKey(get func(name string) string) string {
	key := ""
	for _, name := range routeKey {
		key += get(name) + "\x01"
	}
	return key
}

// EverThere tells whether an element without attributes means the same as no
// element. Others, such as <web>, have a meaning by being present.
func EverThere(tag string) bool {
	switch tag {
	case "engine", "timeouts", "limits", "access", "admin", "manager", "hostCheck", "configCheck", "heartbeat", "dns", "control", "logging":
		return true
	}
	return false
}

// SetKeys gives all descendants of n their keys, for a tree that was made without
// them.
func (n *Node) SetKeys() {
	var seen map[Step]int
	for _, kid := range n.Kids {
		kid.SetKeys()
		switch attr := KeyOf(kid.Tag); {
		case attr != "":
			kid.Key = kid.Get(attr)
		case kid.Tag == "route":
			kid.Key = RouteKey(kid.Get)
		default:
			continue
		}
		if MayRepeat(kid.Tag) {
			if seen == nil {
				seen = map[Step]int{}
			}
			s := kid.Step()
			if seen[s]++; seen[s] > 1 {
				kid.Key += "\x00" + strconv.Itoa(seen[s])
			}
		}
	}
}

// MayRepeat tells whether several children of a tag may have one key, and are counted:
// listeners with port 0, and routes of which each takes a part of the clients.
func MayRepeat(tag string) bool { return tag == "listen" || tag == "route" }

// Step leads to n from its parent.
func (n *Node) Step() Step { return Step{Tag: n.Tag, Key: n.Key} }

// Get returns an attribute, "" if it has its default.
func (n *Node) Get(name string) string {
	v, _ := n.Lookup(name)
	return v
}

// Lookup is Get that tells whether the attribute is there.
func (n *Node) Lookup(name string) (value string, there bool) {
	if n == nil {
		return "", false
	}
	for _, a := range n.Attrs {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// Set gives an attribute a value.
func (n *Node) Set(name, value string) {
	for i := range n.Attrs {
		if n.Attrs[i].Name == name {
			n.Attrs[i].Value = value
			return
		}
	}
	n.Attrs = append(n.Attrs, Attr{Name: name, Value: value})
}

// Remove gives an attribute its default.
func (n *Node) Remove(name string) {
	n.Attrs = slices.DeleteFunc(n.Attrs, func(a Attr) bool { return a.Name == name })
}

// Put sets an attribute or removes it.
func (n *Node) Put(name, value string, there bool) {
	if there {
		n.Set(name, value)
	} else {
		n.Remove(name)
	}
}

// manyKids is the number of kids from which on an index is used to look them up.
const manyKids = 16

// Kid returns a child, nil if there is none.
func (n *Node) Kid(s Step) *Node {
	if n == nil {
		return nil
	}
	if len(n.Kids) < manyKids {
		for _, k := range n.Kids {
			if k.Tag == s.Tag && k.Key == s.Key {
				return k
			}
		}
		return nil
	}
	if n.index == nil {
		n.index = make(map[Step]*Node, len(n.Kids))
		for _, k := range n.Kids {
			n.index[k.Step()] = k
		}
	}
	return n.index[s]
}

// Add adds a child.
func (n *Node) Add(k *Node) {
	n.Kids = append(n.Kids, k)
	if n.index != nil {
		n.index[k.Step()] = k
	}
}

// Insert adds a child before the n-th of its tag, behind the last if there are not so
// many.
func (n *Node) Insert(k *Node, at int) {
	n.index = nil
	last := -1
	for i, other := range n.Kids {
		if other.Tag != k.Tag {
			continue
		}
		if at == 0 {
			n.Kids = slices.Insert(n.Kids, i, k)
			return
		}
		at--
		last = i
	}
	if last < 0 {
		last = len(n.Kids) - 1
	}
	n.Kids = slices.Insert(n.Kids, last+1, k)
}

// Drop removes a child.
func (n *Node) Drop(s Step) {
	n.Kids = slices.DeleteFunc(n.Kids, func(k *Node) bool { return k.Step() == s })
	delete(n.index, s)
}

// ReplaceList makes copies of kids the children without a key.
func (n *Node) ReplaceList(kids []*Node) {
	n.Kids = slices.DeleteFunc(n.Kids, func(k *Node) bool { return !Keyed(k.Tag) })
	n.index = nil
	for _, k := range kids {
		n.Kids = append(n.Kids, k.Clone())
	}
}

// Of returns the kids of one tag.
func (n *Node) Of(tag string) []*Node {
	if n == nil {
		return nil
	}
	var list []*Node
	for _, k := range n.Kids {
		if k.Tag == tag {
			list = append(list, k)
		}
	}
	return list
}

// Clone returns a copy that shares nothing with n.
func (n *Node) Clone() *Node {
	if n == nil {
		return nil
	}
	m := &Node{Tag: n.Tag, Key: n.Key, Text: n.Text, Attrs: slices.Clone(n.Attrs)}
	for _, k := range n.Kids {
		m.Kids = append(m.Kids, k.Clone())
	}
	return m
}

// Bare is a clone without kids.
func (n *Node) Bare() *Node {
	return &Node{Tag: n.Tag, Key: n.Key, Text: n.Text, Attrs: slices.Clone(n.Attrs)}
}

// List returns the kids without a key, and whether their order says something: in
// <access>, and if a tag is among them more than once.
func (n *Node) List() (kids []*Node, ordered bool) {
	if n == nil {
		return nil, false
	}
	ordered = n.Tag == "access"
	seen := map[string]bool{}
	for _, k := range n.Kids {
		if !Keyed(k.Tag) {
			kids = append(kids, k)
			ordered = ordered || seen[k.Tag]
			seen[k.Tag] = true
		}
	}
	return kids, ordered
}

// Same tells whether two nodes have the same meaning. The order of attributes and
// of kids with keys does not matter.
func (n *Node) Same(m *Node) bool {
	switch {
	case n == nil || m == nil:
		return n.silent() && m.silent()
	case n.Tag != m.Tag || n.Text != m.Text || len(n.Attrs) != len(m.Attrs):
		return false
	}
	for _, a := range n.Attrs {
		if v, there := m.Lookup(a.Name); !there || v != a.Value {
			return false
		}
	}
	if !slices.EqualFunc(n.Of("route"), m.Of("route"), func(a, b *Node) bool { return a.Key == b.Key }) {
		return false
	}
	mine, ordered := n.List()
	others, alsoOrdered := m.List()
	if ordered || alsoOrdered {
		if !slices.EqualFunc(mine, others, (*Node).Same) {
			return false
		}
		return n.sameKids(m, func(k *Node) bool { return Keyed(k.Tag) })
	}
	return n.sameKids(m, func(*Node) bool { return true })
}

func (n *Node) sameKids(m *Node, which func(*Node) bool) bool {
	for _, k := range n.Kids {
		if which(k) && !k.Same(m.Kid(k.Step())) {
			return false
		}
	}
	for _, k := range m.Kids {
		if which(k) && n.Kid(k.Step()) == nil && !k.silent() {
			return false
		}
	}
	return true
}

// silent tells whether a node means the same as if it were missing.
func (n *Node) silent() bool {
	if n == nil {
		return true
	}
	if !EverThere(n.Tag) || len(n.Attrs) > 0 || n.Text != "" {
		return false
	}
	return !slices.ContainsFunc(n.Kids, func(k *Node) bool { return !k.silent() })
}

// Changed returns the names of the attributes that differ, in the order in
// which they are written.
func Changed(a, b *Node) []string {
	var names []string
	if a != nil {
		for _, x := range a.Attrs {
			if v, there := b.Lookup(x.Name); !there || v != x.Value {
				names = append(names, x.Name)
			}
		}
	}
	if b != nil {
		for _, x := range b.Attrs {
			if _, there := a.Lookup(x.Name); !there {
				names = append(names, x.Name)
			}
		}
	}
	return names
}

// At returns a descendant, nil without one.
func (n *Node) At(path []Step) *Node {
	for _, s := range path {
		n = n.Kid(s)
	}
	return n
}
