// Package convert turns configurations of other load balancers into one of txlb:
// haproxy.cfg in TCP mode ([HAProxy]) and stream blocks of nginx ([Nginx]).
//
// It is pure: text in, document out. A directive becomes an attribute where the
// schema of package config has one; every line without an equivalent becomes a
// comment with its number and the reason. The document always passes
// [config.Parse]: what that would refuse becomes a comment too. What directives
// become is said by tables, of which docs/migrating.md is made.
package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
)

// Result is a configuration that was converted.
type Result struct {
	Document []byte // XML that config.Parse takes
	Services int
	Hosts    int
	Comments int // lines and sections of the source that became comments
}

// converter is what both dialects share: the document to be, and what is wrong with
// the source.
type converter struct {
	file     string
	root     *node
	problems config.Problems
	noted    map[note]bool
	// lacks tells that the schema has no such row, or that the row does not take a
	// value yet. Tests narrow it, so that their results do not change with every row
	// that joins.
	lacks func(element, attribute, value string) bool
}

func newConverter(file string) *converter {
	return &converter{file: file, root: &node{tag: "config"}, noted: map[note]bool{}, lacks: lacksRow}
}

// lacksRow asks the schema.
func lacksRow(element, attribute, value string) bool {
	a := config.Find(element, attribute)
	if a == nil {
		return true
	}
	_, err := a.Parse(value)
	return err != nil && strings.Contains(err.Error(), "not supported by this version yet")
}

// place is where something stands in the source.
type place struct {
	line int    // 1: the first
	last int    // of a section, its last line; 0: one line
	text string // as it stands there, to be quoted
}

// note is a comment of the document.
type note struct {
	line, last int
	text       string
}

// maxProblems bounds what is listed of a source with many mistakes.
const maxProblems = 100

// fail says what is wrong with the source itself.
func (c *converter) fail(line int, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, config.Problem{File: c.file, Line: line, Text: legible(fmt.Sprintf(format, args...), 400)})
	}
}

// maxQuote bounds what a comment quotes of a line, in bytes.
const maxQuote = 160

// note adds a comment to a node, once for each line and reason.
func (c *converter) note(n *node, at place, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if at.text != "" {
		text = legible(at.text, maxQuote) + ": " + text
	}
	one := note{at.line, at.last, legible(text, 1000)}
	if !c.noted[one] {
		c.noted[one] = true
		n.notes = append(n.notes, one)
	}
}

// set gives a node an attribute, as the schema reads it. Without a row, or with a
// value that the row does not take, the line becomes a comment.
func (c *converter) set(n *node, attribute, value string, at place) bool {
	if c.lacks(n.tag, attribute, value) {
		c.note(n, at, "no equivalent yet: <%s %s=%q>", n.tag, attribute, value)
		return false
	}
	canonical, err := config.Find(n.tag, attribute).Parse(value)
	if err != nil {
		c.note(n, at, "no equivalent: <%s %s>: %v", n.tag, attribute, err)
		return false
	}
	n.attr(attribute, canonical, at)
	return true
}

// has tells whether the schema takes a value.
func (c *converter) has(element, attribute, value string) bool {
	if c.lacks(element, attribute, value) {
		return false
	}
	_, err := config.Find(element, attribute).Parse(value)
	return err == nil
}

// element tells whether the schema has an element: one of its attributes.
func (c *converter) element(name string) bool {
	return slices.ContainsFunc(config.Attributes(name), func(a config.Attribute) bool { return !c.lacks(name, a.Name, "") })
}

// maxRounds bounds how often the document is read again after a refusal.
const maxRounds = 200

// finish makes the result. What config.Parse refuses becomes a comment, attribute by
// attribute where it names one, else with its element.
func (c *converter) finish(source string) (*Result, error) {
	if len(c.problems) > 0 {
		slices.SortStableFunc(c.problems, func(a, b config.Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, c.problems
	}
	c.root.notes = append([]note{{text: legible(fmt.Sprintf("Written by txlb convert %s from %s. A comment with a line number says what has no equivalent.", source, c.file), 1000)}}, c.root.notes...)
	for range maxRounds {
		if !slices.ContainsFunc(c.root.kids, func(n *node) bool { return n.tag == "service" }) {
			return nil, c.nothing()
		}
		w := newWriter(c.root)
		_, problems := config.Parse(c.file, w.bytes())
		refused := slices.DeleteFunc(problems, func(p config.Problem) bool { return p.Warning })
		if len(refused) == 0 {
			r := &Result{Document: w.bytes(), Comments: w.comments - 1}
			c.root.walk(func(n *node) {
				switch n.tag {
				case "service":
					r.Services++
				case "host":
					r.Hosts++
				}
			})
			return r, nil
		}
		if !c.drop(w, refused) {
			return nil, config.Problems{{File: c.file, Text: "the result would not be a valid configuration: " + refused[0].Text}}
		}
	}
	return nil, config.Problems{{File: c.file, Text: "the result would have too many mistakes"}}
}

// nothing is the error of a source of which nothing is left. It says why.
func (c *converter) nothing() error {
	problems := config.Problems{{File: c.file, Text: "nothing to convert: no proxy of TCP connections is left"}}
	for _, n := range c.root.notes {
		if n.line > 0 && len(problems) < maxProblems {
			problems = append(problems, config.Problem{File: c.file, Line: n.line, Text: n.text, Warning: true})
		}
	}
	return problems
}

// drop takes out what was refused. It returns false if that is not to be found.
func (c *converter) drop(w *writer, refused config.Problems) bool {
	done := false
	gone := map[*node]bool{}
	for _, p := range refused {
		n := w.at[p.Line]
		if n == nil || n == c.root {
			continue
		}
		if gone[n] {
			done = true
			continue
		}
		gone[n] = true
		parent := w.parents[n]
		if name := attributeOf(p.Text, n.tag); name != "" {
			if i := slices.IndexFunc(n.attrs, func(a attr) bool { return a.name == name }); i >= 0 && !essential(n.tag, name) {
				at := n.attrs[i].at
				n.attrs = slices.Delete(n.attrs, i, i+1)
				c.note(n, at, "no equivalent: %s", p.Text)
				done = true
				continue
			}
		}
		parent.kids = slices.DeleteFunc(parent.kids, func(k *node) bool { return k == n })
		n.walk(func(k *node) { parent.notes = append(parent.notes, k.notes...) })
		c.note(parent, n.from, "left out: %s", p.Text)
		done = true
	}
	return done
}

// attributeOf returns the attribute that a problem names, as in "<host source>: …".
func attributeOf(problem, tag string) string {
	rest, ok := strings.CutPrefix(problem, "<"+tag+" ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, ">")
	name, _, _ = strings.Cut(name, "=")
	return name
}

// essential tells an attribute without which its element says nothing.
func essential(tag, name string) bool {
	return name == "name" || name == "ip" || name == "group" && tag == "route" || name == "net"
}
