package config

import (
	"slices"

	"github.com/beevik/etree"
)

// reader turns a document into a model and gathers what is wrong with it.
type reader struct {
	report
	lines  map[*etree.Element]int
	broken map[any]bool // parts of the model within which something is wrong, and reported

	program bool // see Config.Program
}

// part reads one part of the model, which p points to. If something is missing in a
// part with mistakes, the mistakes may be the cause, so Parse does not report it.
func (r *reader) part(p any, read func()) {
	before := r.errors
	read()
	if r.errors > before {
		r.broken[p] = true
	}
}

// attr is an attribute that only earlier versions wrote, so that the schema does
// not have it.
type attr struct {
	name string
	set  func(value string) error
}

// attributes reads the attributes of e into p, the struct of the element, as
// the rows of the schema say, and those in old. Any other attribute is a
// mistake, and so is a required one that is missing.
func (r *reader) attributes(e *etree.Element, p any, old ...attr) {
	rows := schema[e.FullTag()]
	if p == nil {
		rows = nil
	}
	misspelt := false
	for _, a := range e.Attr {
		if a.Space == "xmlns" || a.Space == "xml" || a.FullKey() == "xmlns" {
			continue
		}
		name := a.FullKey()
		if row := find(rows, name); row != nil {
			if row.lenient && a.Value == "" {
				continue
			}
			if err := row.read(p, a.Value); err != nil {
				r.fail(r.lines[e], "<%s %s>: %v", e.Tag, name, err)
			}
			continue
		}
		if i := slices.IndexFunc(old, func(o attr) bool { return o.name == name }); i >= 0 {
			if err := old[i].set(a.Value); err != nil {
				r.fail(r.lines[e], "<%s %s>: %v", e.Tag, name, err)
			}
			continue
		}
		var names []string
		for i := range rows {
			names = append(names, rows[i].Name)
		}
		for _, o := range old {
			names = append(names, o.name)
		}
		r.fail(r.lines[e], "<%s> has no attribute %q%s", e.Tag, name, r.suggest(a.Key, names))
		misspelt = true
	}
	if misspelt { // the one that is missing, perhaps
		return
	}
	for i := range rows {
		if rows[i].required {
			r.need(e, rows[i].Name)
		}
	}
}

// need reports an attribute without which the element makes no sense.
func (r *reader) need(e *etree.Element, name string) {
	if e.SelectAttrValue(name, "") == "" {
		r.fail(r.lines[e], "<%s> needs the attribute %s", e.Tag, name)
	}
}

// child is one element that another may contain.
type child struct {
	name string
	read func(*etree.Element)
	once bool // more than one is a mistake
}

// children reads the elements within e. <note> is for people, anywhere.
func (r *reader) children(e *etree.Element, known ...child) {
	var seen map[string]bool
	for _, c := range e.ChildElements() {
		tag := c.FullTag()
		if tag == "note" {
			continue
		}
		i := slices.IndexFunc(known, func(k child) bool { return k.name == tag })
		switch {
		case i >= 0 && known[i].once && seen[tag]:
			r.fail(r.lines[c], "a second <%s> in <%s>; one is allowed", tag, e.Tag)
		case i >= 0:
			known[i].read(c)
		case len(known) == 0:
			r.fail(r.lines[c], "<%s> cannot contain elements; remove <%s>", e.Tag, tag)
		default:
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = k.name
			}
			r.fail(r.lines[c], "unknown element <%s> in <%s>%s", tag, e.Tag, r.suggest(c.Tag, names))
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[tag] = true
	}
}
