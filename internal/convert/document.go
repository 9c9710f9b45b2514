package convert

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/txlb/txlb/config"
)

// node is an element of the document.
type node struct {
	tag   string
	attrs []attr
	notes []note
	kids  []*node
	from  place // what it was made of
}

// attr is an attribute and where its value comes from.
type attr struct {
	name, value string
	at          place
}

// add appends an element.
func (n *node) add(tag string, from place) *node {
	k := &node{tag: tag, from: from}
	n.kids = append(n.kids, k)
	return k
}

// child returns the element of a tag that is there once, which it adds if need be.
func (n *node) child(tag string, from place) *node {
	if i := slices.IndexFunc(n.kids, func(k *node) bool { return k.tag == tag }); i >= 0 {
		return n.kids[i]
	}
	return n.add(tag, from)
}

// attr sets an attribute.
func (n *node) attr(name, value string, at place) {
	if i := slices.IndexFunc(n.attrs, func(a attr) bool { return a.name == name }); i >= 0 {
		n.attrs[i] = attr{name, value, at}
		return
	}
	n.attrs = append(n.attrs, attr{name, value, at})
}

// get returns the value of an attribute, "" without.
func (n *node) get(name string) string {
	for _, a := range n.attrs {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

// walk visits a node and all within.
func (n *node) walk(visit func(*node)) {
	visit(n)
	for _, k := range n.kids {
		k.walk(visit)
	}
}

// containers are the elements whose comments stand within them, the order of their
// elements, and which of these say nothing without attributes.
var containers = map[string][]string{
	"config":  {"engine", "service", "admin", "manager", "dns", "logging"},
	"service": {"listen", "timeouts", "limits", "access", "route", "group"},
	"group":   {"check", "host", "mirror"},
	"admin":   {"web", "ssh", "socket", "metrics"},
	"access":  nil, // the order decides
}

var idle = []string{"engine", "timeouts", "limits", "dns", "logging"}

// writer writes a document and remembers in which line each element begins.
type writer struct {
	out      bytes.Buffer
	line     int
	at       map[int]*node
	parents  map[*node]*node
	comments int
}

func newWriter(root *node) *writer {
	w := &writer{line: 1, at: map[int]*node{}, parents: map[*node]*node{}}
	w.element(root, 0)
	return w
}

func (w *writer) bytes() []byte { return w.out.Bytes() }

func (w *writer) print(depth int, text string) {
	w.out.WriteString(strings.Repeat("  ", depth))
	w.out.WriteString(text)
	w.out.WriteByte('\n')
	w.line++
}

func (w *writer) element(n *node, depth int) {
	order, container := containers[n.tag]
	if !container {
		w.notes(n, depth)
	}
	if len(n.attrs) == 0 && len(n.kids) == 0 && slices.Contains(idle, n.tag) {
		return
	}
	w.at[w.line] = n
	var b strings.Builder
	b.WriteString("<" + n.tag)
	rows := config.Attributes(n.tag)
	rank := func(a attr) int {
		if i := slices.IndexFunc(rows, func(r config.Attribute) bool { return r.Name == a.name }); i >= 0 {
			return i
		}
		return len(rows)
	}
	slices.SortStableFunc(n.attrs, func(a, b attr) int { return cmp.Compare(rank(a), rank(b)) })
	for _, a := range n.attrs {
		b.WriteString(" " + a.name + `="`)
		_ = xml.EscapeText(&b, []byte(a.value))
		b.WriteString(`"`)
	}
	if !container || len(n.kids) == 0 && len(n.notes) == 0 {
		w.print(depth, b.String()+"/>")
		return
	}
	w.print(depth, b.String()+">")
	w.notes(n, depth+1)
	if order != nil {
		slices.SortStableFunc(n.kids, func(a, b *node) int {
			return cmp.Compare(slices.Index(order, a.tag), slices.Index(order, b.tag))
		})
	}
	for _, k := range n.kids {
		w.parents[k] = n
		w.element(k, depth+1)
	}
	w.print(depth, "</"+n.tag+">")
}

// notes writes the comments of a node, by line.
func (w *writer) notes(n *node, depth int) {
	slices.SortStableFunc(n.notes, func(a, b note) int { return cmp.Compare(a.line, b.line) })
	for _, one := range n.notes {
		at := ""
		switch {
		case one.last > one.line:
			at = fmt.Sprintf("lines %d to %d: ", one.line, one.last)
		case one.line > 0:
			at = fmt.Sprintf("line %d: ", one.line)
		}
		w.comments++
		w.print(depth, "<!-- "+comment(at+one.text)+" -->")
	}
}

// comment makes a text that may stand in a comment of XML, which must not have two
// hyphens in a row, nor one at its end.
func comment(s string) string {
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "- -")
	}
	return strings.TrimSuffix(s, "-")
}

// legible makes a text fit for one line: without control characters, in UTF-8, and
// at most so many bytes.
func legible(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case unicode.IsControl(r) || r == 0xFFFE || r == 0xFFFF:
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.TrimSpace(s)
}
