package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// reader turns a document into a model and gathers what is wrong with it.
type reader struct {
	report
	lines    map[*etree.Element]int
	broken   map[any]bool   // parts of the model within which something is wrong, and reported
	misspelt *etree.Element // the last one with an unknown attribute
}

// part reads one part of the model, which p points to. What is missing in a
// part with mistakes may be missing because of them, so Parse does not report
// it.
func (r *reader) part(p any, read func()) {
	before := r.errors
	read()
	if r.errors > before {
		r.broken[p] = true
	}
}

// attr is one attribute that an element may have.
type attr struct {
	name string
	set  func(value string) error
}

// attributes reads the attributes of e: each that is there goes to its set,
// and one that is not in the list is a mistake.
func (r *reader) attributes(e *etree.Element, known ...attr) {
	for _, a := range e.Attr {
		if a.Space == "xmlns" || a.Space == "xml" || a.FullKey() == "xmlns" {
			continue
		}
		i := slices.IndexFunc(known, func(k attr) bool { return k.name == a.FullKey() })
		if i >= 0 {
			if err := known[i].set(a.Value); err != nil {
				r.fail(r.lines[e], "<%s %s>: %v", e.Tag, a.Key, err)
			}
			continue
		}
		harmless, later := laterAttribute(e.Tag, a.FullKey())
		switch {
		case slices.Contains(harmless, a.Value):
		case later && harmless == nil:
			r.fail(r.lines[e], "<%s %s> is not supported by this version yet; leave it out", e.Tag, a.Key)
		case later:
			r.fail(r.lines[e], "<%s %s=%q> is not supported by this version yet; leave it out or say %q", e.Tag, a.Key, a.Value, harmless[0])
		default:
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = k.name
			}
			r.fail(r.lines[e], "<%s> has no attribute %q%s", e.Tag, a.FullKey(), r.suggest(a.Key, names))
			r.misspelt = e
		}
	}
}

// need reports attributes without which the element makes no sense. One that is
// misspelt has been reported already.
func (r *reader) need(e *etree.Element, names ...string) {
	if r.misspelt == e {
		return
	}
	for _, name := range names {
		if e.SelectAttrValue(name, "") == "" {
			r.fail(r.lines[e], "<%s> needs the attribute %s", e.Tag, name)
		}
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
		case laterElement(e.Tag, tag):
			r.fail(r.lines[c], "<%s> is not supported by this version yet; leave it out", tag)
		case len(known) == 0:
			r.fail(r.lines[c], "<%s> contains nothing, and no <%s>", e.Tag, tag)
		default:
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = k.name
			}
			r.fail(r.lines[c], "there is no <%s> in <%s>%s", tag, e.Tag, r.suggest(c.Tag, names))
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[tag] = true
	}
}

// What follows makes attrs of a name and the place for the value.

func text(name string, to *string) attr {
	return attr{name, func(s string) error { *to = s; return nil }}
}

func oneOf(name string, to *string, allowed []string) attr {
	return attr{name, func(s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(allowed, ", "))
		}
		*to = s
		return nil
	}}
}

func parsed[T any](name string, to *T, parse func(string) (T, error)) attr {
	return attr{name, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}}
}

func integer(name string, to *int, low, high int) attr {
	return parsed(name, to, func(s string) (int, error) { return parseInt(s, low, high) })
}

// auto is an attribute whose default may be said as auto.
func auto(a attr) attr {
	return attr{a.name, func(s string) error {
		if s == "auto" {
			return nil
		}
		if err := a.set(s); err != nil {
			return fmt.Errorf("%w, nor auto", err)
		}
		return nil
	}}
}
