package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Rewrite returns the document changed so that it says what c does. What c has
// not changed stays as it was written: tags, comments, notes, order, encoding,
// line ends. Of a tag that changes, only the attributes that do. An element
// that goes takes its line along, one that comes follows those of its kind.
//
// The document must be one that Parse accepts, and c free of errors. The bytes
// that Rewrite returns give c when they are read, but for the order of what
// has a name; that is looked at before they are returned.
func Rewrite(document []byte, c *Config) ([]byte, error) {
	was, problems := Parse("document", document)
	if was == nil {
		return nil, problems
	}
	if len(Diff(was, c)) == 0 {
		return document, nil
	}
	s, err := readSource(document)
	if err != nil {
		return nil, err
	}
	w := &rewriter{source: s, indent: s.indent()}
	w.root(s.root(), was.fullTree(), c.fullTree())
	out := s.bytes()
	again, problems := Parse("the document to be written", out)
	if again == nil {
		return nil, problems
	}
	if wrong := Diff(again, c); len(wrong) > 0 {
		return nil, fmt.Errorf("the document to be written would not say what runs: %v", wrong)
	}
	return out, nil
}

// indent guesses what a level is set in by: as much as the first element is.
func (s *source) indent() string {
	root := s.root()
	for i := range root.items {
		if root.items[i].element != nil {
			if m := root.margin(i); m != "" {
				return m
			}
		}
	}
	return "  "
}

// rewriter brings changes of a model's tree into a document.
type rewriter struct {
	*source
	indent string
}

func (w *rewriter) root(p *part, a, b *node) {
	if a.tag != b.tag {
		p.open = "<" + b.tag + strings.TrimPrefix(p.open, "<"+p.tag)
		if p.close != "" {
			p.close = "</" + b.tag + ">"
		}
		p.tag = b.tag
	}
	w.oldForms(p, a, b)
	w.kids(p, a, b, "")
}

// oldForms replaces what the ancestors wrote where it stands in the way of a
// change, by what says the same.
func (w *rewriter) oldForms(root *part, a, b *node) {
	web := []step{{tag: "admin"}, {tag: "web"}}
	if admin := root.first("admin"); admin != nil && !a.at(web).same(b.at(web)) {
		if _, there := admin.get("listen"); there {
			for _, name := range []string{"listen", "secure", "refresh"} {
				admin.unset(name)
			}
			a.kid(web[0]).drop(web[1])
		}
	}
	check := []step{{tag: "manager"}, {tag: "hostCheck"}}
	if a.at(check).same(b.at(check)) {
		return
	}
	manager := root.first("manager")
	said := root.first("checktime") != nil
	if manager != nil {
		_, there := manager.get("hostCheckInterval")
		said = said || there
		manager.unset("hostCheckInterval")
	}
	if old := root.first("checktime"); old != nil {
		root.cut(old)
	}
	if said {
		// What is left in the document may say something else by now.
		a.at(check).remove("interval")
	}
}

// at returns a descendant, nil without one.
func (n *node) at(path []step) *node {
	for _, s := range path {
		n = n.kid(s)
	}
	return n
}

// element brings the change from a to b into the element that says a.
func (w *rewriter) element(p *part, a, b *node, margin string) {
	if a.same(b) {
		return
	}
	if everThere[b.tag] || keys[b.tag] != "" {
		for _, name := range attrChanges(a, b) {
			if b.tag == "service" && name == "enable" || name == keys[b.tag] {
				continue
			}
			if value, there := b.lookup(name); there {
				w.set(p, name, value)
			} else {
				p.unset(name)
			}
		}
	} else if len(attrChanges(a, b)) > 0 {
		// Its attributes may have defaults that depend on each other.
		for _, at := range a.attrs {
			if _, there := b.lookup(at.name); !there {
				p.unset(at.name)
			}
		}
		for _, at := range b.attrs {
			w.set(p, at.name, at.value)
		}
	}
	if a.text != b.text {
		p.items = []item{{text: w.escape(b.text)}}
	}
	w.kids(p, a, b, margin)
	if b.tag == "service" {
		w.enable(p, b)
	}
}

// kids brings the changes within an element into it.
func (w *rewriter) kids(p *part, a, b *node, margin string) {
	named := p.named()
	aList, o1 := a.list()
	bList, o2 := b.list()
	ordered := o1 || o2
	if ordered && !slices.EqualFunc(aList, bList, (*node).same) {
		tags := map[string]bool{}
		for _, k := range append(aList, bList...) {
			tags[k.tag] = true
		}
		for _, e := range p.parts() {
			if tags[e.tag] && keys[e.tag] == "" {
				p.cut(e)
			}
		}
		for _, k := range bList {
			w.insert(p, k, margin, w.indent)
		}
	}
	for _, k := range a.kids {
		if ordered && keys[k.tag] == "" || b.kid(k.step()) != nil {
			continue
		}
		e := named[k.step()]
		switch {
		case e == nil:
		case everThere[k.tag]:
			w.element(e, k, &node{tag: k.tag}, p.marginOf(e))
		default:
			p.cut(e)
		}
	}
	for _, k := range b.kids {
		if ordered && keys[k.tag] == "" {
			continue
		}
		was := a.kid(k.step())
		if was.same(k) {
			continue
		}
		e := named[k.step()]
		if was == nil && everThere[k.tag] {
			was = &node{tag: k.tag}
		}
		if e == nil || was == nil {
			w.insert(p, w.written(k), margin, w.indent)
			continue
		}
		w.element(e, was, k, p.marginOf(e))
	}
	// The number in the name of a host without one is its place, and that may
	// be another now.
	n := 0
	for _, e := range p.parts() {
		if e.tag != "host" {
			continue
		}
		if name, _ := e.get("name"); name == "" && e.key != "host."+strconv.Itoa(n) {
			w.set(e, "name", e.key)
		}
		n++
	}
}

func (p *part) marginOf(e *part) string {
	return p.margin(slices.IndexFunc(p.items, func(i item) bool { return i.element == e }))
}

// named finds the elements within p by how a model's tree calls them.
func (p *part) named() map[step]*part {
	found := map[step]*part{}
	hosts, seen := 0, map[step]int{}
	for _, e := range p.parts() {
		attr := keys[e.tag]
		if attr == "" {
			if found[step{tag: e.tag}] == nil {
				found[step{tag: e.tag}] = e
			}
			continue
		}
		e.key, _ = e.get(attr)
		if e.tag == "host" {
			if e.key == "" {
				e.key = "host." + strconv.Itoa(hosts)
			}
			hosts++
		}
		s := step{e.tag, e.key}
		if seen[s]++; seen[s] > 1 && e.tag == "listen" {
			s.key += "\x00" + strconv.Itoa(seen[s])
		}
		found[s] = e
	}
	return found
}

// written is a node as a document says it: groups tell whether they are
// enabled.
func (w *rewriter) written(n *node) *node {
	if n.tag != "service" {
		return n
	}
	m := n.clone()
	for _, g := range m.of("group") {
		if g.key == m.get("enable") {
			g.set("enable", "true")
		}
	}
	return m
}

// enable makes a service say which group is enabled, in the way in which it
// says it already.
func (w *rewriter) enable(p *part, b *node) {
	want := b.get("enable")
	var said []*part // <enable>
	var groups []*part
	for _, e := range p.parts() {
		switch e.tag {
		case "enable":
			said = append(said, e)
		case "group":
			groups = append(groups, e)
		}
	}
	for i, e := range said {
		if i > 0 || want == "" {
			p.cut(e)
		} else {
			w.set(e, "group", want)
		}
	}
	for _, g := range groups {
		name, _ := g.get("name")
		value, there := g.get("enable")
		on, _ := parseBool(value)
		switch {
		case name == want && !on && (there || len(said) == 0 && len(groups) > 1):
			w.set(g, "enable", "true")
		case name != want && on:
			w.set(g, "enable", "false")
		}
	}
}
