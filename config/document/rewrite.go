package document

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/internal/tree"
)

// rewrite returns the document with the changes that c has. Everything else stays
// as it was written: tags, comments, notes, order, encoding, line ends. In a
// changed tag, only the changed attributes differ. A deleted element takes its line
// with it; a new one follows those of its kind.
//
// The document must be one that Parse accepts, and c free of errors. Reading the
// result gives c, except for the order of named elements. rewrite checks this
// before it returns.
func rewrite(document []byte, c *config.Config) ([]byte, error) {
	was, problems := config.Parse("document", document)
	if was == nil {
		return nil, problems
	}
	if len(changes.Diff(was, c)) == 0 {
		return document, nil
	}
	s, err := readSource(document)
	if err != nil {
		return nil, err
	}
	w := &rewriter{source: s, indent: s.indent()}
	w.root(s.root(), was.Tree(), c.Tree())
	out := s.bytes()
	again, problems := config.Parse("the document to be written", out)
	if again == nil {
		return nil, problems
	}
	if wrong := changes.Diff(again, c); len(wrong) > 0 {
		return nil, fmt.Errorf("the document to be written would not say what runs: %v", wrong)
	}
	return out, nil
}

// indent guesses the indentation of a level: that of the first element.
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

// rewriter applies the changes of a model's tree to a document.
type rewriter struct {
	*source
	indent string
}

func (w *rewriter) root(p *part, a, b *tree.Node) {
	if a.Tag != b.Tag {
		p.open = "<" + b.Tag + strings.TrimPrefix(p.open, "<"+p.tag)
		if p.close != "" {
			p.close = "</" + b.Tag + ">"
		}
		p.tag = b.Tag
	}
	w.oldForms(p, a, b)
	w.kids(p, a, b, "")
}

// oldForms replaces old spellings that are in the way of a change by the current
// ones with the same meaning.
func (w *rewriter) oldForms(root *part, a, b *tree.Node) {
	web := []tree.Step{{Tag: "admin"}, {Tag: "web"}}
	if admin := root.first("admin"); admin != nil && !a.At(web).Same(b.At(web)) {
		if _, there := admin.get("listen"); there {
			for _, name := range []string{"listen", "secure", "refresh"} {
				admin.unset(name)
			}
			a.Kid(web[0]).Drop(web[1])
		}
	}
	check := []tree.Step{{Tag: "manager"}, {Tag: "hostCheck"}}
	if a.At(check).Same(b.At(check)) {
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
		// The rest of the document may now have another meaning.
		a.At(check).Remove("interval")
	}
}

// element applies the change from a to b to the element that has a.
func (w *rewriter) element(p *part, a, b *tree.Node, margin string) {
	if a.Same(b) {
		return
	}
	if tree.EverThere(b.Tag) || tree.Keyed(b.Tag) {
		for _, name := range tree.Changed(a, b) {
			if b.Tag == "service" && name == "enable" || tree.IsKey(b.Tag, name) {
				continue
			}
			if value, there := b.Lookup(name); there {
				w.set(p, name, value)
			} else {
				p.unset(name)
			}
		}
	} else if len(tree.Changed(a, b)) > 0 {
		// Its attributes may have defaults that depend on each other.
		for _, at := range a.Attrs {
			if _, there := b.Lookup(at.Name); !there {
				p.unset(at.Name)
			}
		}
		for _, at := range b.Attrs {
			w.set(p, at.Name, at.Value)
		}
	}
	if a.Text != b.Text {
		p.items = []item{{text: w.escape(b.Text)}}
	}
	w.kids(p, a, b, margin)
	if b.Tag == "service" {
		w.enable(p, b)
	}
}

// kids applies the changes of an element's kids.
func (w *rewriter) kids(p *part, a, b *tree.Node, margin string) {
	named := p.named()
	aList, o1 := a.List()
	bList, o2 := b.List()
	ordered := o1 || o2
	if ordered && !slices.EqualFunc(aList, bList, (*tree.Node).Same) {
		tags := map[string]bool{}
		for _, k := range append(aList, bList...) {
			tags[k.Tag] = true
		}
		for _, e := range p.parts() {
			if tags[e.tag] && !tree.Keyed(e.tag) {
				p.cut(e)
			}
		}
		for _, k := range bList {
			w.insert(p, k, margin, w.indent)
		}
	}
	w.routes(p, a, b, named, margin)
	for _, k := range a.Kids {
		if ordered && !tree.Keyed(k.Tag) || b.Kid(k.Step()) != nil || k.Tag == "route" {
			continue
		}
		e := named[k.Step()]
		switch {
		case e == nil:
		case tree.EverThere(k.Tag):
			w.element(e, k, &tree.Node{Tag: k.Tag}, p.marginOf(e))
		default:
			p.cut(e)
		}
	}
	for _, k := range b.Kids {
		if ordered && !tree.Keyed(k.Tag) || k.Tag == "route" {
			continue
		}
		was := a.Kid(k.Step())
		if was.Same(k) {
			continue
		}
		e := named[k.Step()]
		if was == nil && tree.EverThere(k.Tag) {
			was = &tree.Node{Tag: k.Tag}
		}
		if e == nil || was == nil {
			w.insert(p, w.written(k), margin, w.indent)
			continue
		}
		w.element(e, was, k, p.marginOf(e))
	}
	// The default name of a host contains its place, which may have changed.
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
func (p *part) named() map[tree.Step]*part {
	found := map[tree.Step]*part{}
	hosts, seen := 0, map[tree.Step]int{}
	for _, e := range p.parts() {
		if !tree.Keyed(e.tag) {
			if found[tree.Step{Tag: e.tag}] == nil {
				found[tree.Step{Tag: e.tag}] = e
			}
			continue
		}
		if e.key, _ = e.get(tree.KeyOf(e.tag)); e.tag == "route" {
			e.key = tree.RouteKey(e.canonical)
		}
		if e.tag == "host" {
			if e.key == "" {
				e.key = "host." + strconv.Itoa(hosts)
			}
			hosts++
		}
		s := tree.Step{Tag: e.tag, Key: e.key}
		if seen[s]++; seen[s] > 1 && tree.MayRepeat(e.tag) {
			s.Key += "\x00" + strconv.Itoa(seen[s])
		}
		found[s] = e
	}
	return found
}

// canonical returns an attribute as the model has it.
func (p *part) canonical(name string) string {
	value, there := p.get(name)
	if !there {
		return ""
	}
	value, _ = config.Find(p.tag, name).Parse(value) // it has been read before
	return value
}

// routes applies the changes of a service's routes, whose order matters. Those that
// need not be moved keep their text.
func (w *rewriter) routes(p *part, a, b *tree.Node, named map[tree.Step]*part, margin string) {
	was, is := a.Of("route"), b.Of("route")
	if len(was)+len(is) == 0 || slices.EqualFunc(was, is, (*tree.Node).Same) {
		return
	}
	stays := tree.Staying(was, is)
	for _, r := range was {
		if !stays[r.Step()] {
			p.cut(named[r.Step()])
		}
	}
	var last *part
	for _, r := range is {
		if stays[r.Step()] {
			last = named[r.Step()]
			w.element(last, a.Kid(r.Step()), r, p.marginOf(last))
			continue
		}
		last = w.insertAfter(p, last, r, margin, w.indent)
	}
}

// written is a node as a document says it: groups tell whether they are
// enabled.
func (w *rewriter) written(n *tree.Node) *tree.Node {
	if n.Tag != "service" {
		return n
	}
	m := n.Clone()
	for _, g := range m.Of("group") {
		if g.Key == m.Get("enable") {
			g.Set("enable", "true")
		}
	}
	return m
}

// enable writes which group of a service is enabled, in the form that the document
// uses already.
func (w *rewriter) enable(p *part, b *tree.Node) {
	want := b.Get("enable")
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
		on, _ := config.ParseBool(value)
		switch {
		case name == want && !on && (there || len(said) == 0 && len(groups) > 1):
			w.set(g, "enable", "true")
		case name != want && on:
			w.set(g, "enable", "false")
		}
	}
}
