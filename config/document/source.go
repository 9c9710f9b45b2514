package document

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/txlb/txlb/config/internal/charset"
	"github.com/txlb/txlb/config/internal/tree"
)

// source is a document as it was written, in UTF-8: what is not edited stays
// as it is, byte for byte.
type source struct {
	mark    string // a byte order mark
	charset string // lower case, "" if it is not said
	newline string
	items   []item // the root among what stands around it
}

// item is an element, or else the text between two tags: with comments, CDATA
// and instructions.
type item struct {
	text    string
	element *part
}

// part is an element of a source.
type part struct {
	tag   string
	attrs []tree.Attr // decoded
	open  string      // the tag as written
	close string      // "" for one like <a/>
	items []item
	key   string // of what keys tells apart, "" for others
}

var encodingSaid = regexp.MustCompile(`^<\?xml[^>]*\sencoding\s*=\s*["']([^"']+)["']`)

const byteOrderMark = "\xef\xbb\xbf"

// readSource splits a document that Parse has accepted.
func readSource(data []byte) (*source, error) {
	s := &source{newline: "\n"}
	text, marked := strings.CutPrefix(string(data), byteOrderMark)
	if marked {
		s.mark = byteOrderMark
	}
	if m := encodingSaid.FindStringSubmatch(text); m != nil {
		s.charset = m[1]
	}
	in, err := charset.Reader(s.charsetOr("utf-8"), strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	decoded, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	text = string(decoded)
	if strings.Contains(text, "\r\n") {
		s.newline = "\r\n"
	}
	dec := xml.NewDecoder(strings.NewReader(text))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	top := &part{}
	stack := []*part{top}
	for {
		from := dec.InputOffset()
		token, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		raw := text[from:dec.InputOffset()]
		parent := stack[len(stack)-1]
		switch t := token.(type) {
		case xml.StartElement:
			p := &part{tag: fullName(t.Name), open: raw}
			for _, a := range t.Attr {
				p.attrs = append(p.attrs, tree.Attr{Name: fullName(a.Name), Value: a.Value})
			}
			parent.items = append(parent.items, item{element: p})
			stack = append(stack, p)
		case xml.EndElement:
			if len(stack) == 1 {
				return nil, errors.New("an end tag too many")
			}
			parent.close = raw
			stack = stack[:len(stack)-1]
		default:
			if n := len(parent.items); n > 0 && parent.items[n-1].element == nil {
				parent.items[n-1].text += raw
			} else {
				parent.items = append(parent.items, item{text: raw})
			}
		}
	}
	s.items = top.items
	return s, nil
}

func fullName(n xml.Name) string {
	if n.Space != "" {
		return n.Space + ":" + n.Local
	}
	return n.Local
}

func (s *source) charsetOr(other string) string {
	if s.charset == "" {
		return other
	}
	return s.charset
}

// root returns the root element.
func (s *source) root() *part {
	for _, i := range s.items {
		if i.element != nil {
			return i.element
		}
	}
	return nil
}

// bytes writes the document in its encoding.
func (s *source) bytes() []byte {
	var b strings.Builder
	b.WriteString(s.mark)
	for _, i := range s.items {
		i.write(&b)
	}
	return charset.Encode(s.charset, b.String())
}

func (i item) write(b *strings.Builder) {
	p := i.element
	if p == nil {
		b.WriteString(i.text)
		return
	}
	b.WriteString(p.open)
	for _, i := range p.items {
		i.write(b)
	}
	b.WriteString(p.close)
}

// escape writes a text so that it can stand in a tag or between two.
func (s *source) escape(text string) string {
	var b strings.Builder
	highest := charset.Highest(s.charset)
	for _, c := range text {
		switch {
		case c == '&':
			b.WriteString("&amp;")
		case c == '<':
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c == '"':
			b.WriteString("&quot;")
		case c == '\'':
			b.WriteString("&apos;")
		case c < ' ' || c > highest:
			fmt.Fprintf(&b, "&#x%X;", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func (p *part) get(name string) (value string, there bool) {
	for _, a := range p.attrs {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// span returns where an attribute stands in the tag: with the blanks before
// it, and its value without the quotes.
func (p *part) span(name string) (from, value, end int) {
	i := 1 + len(p.tag)
	for i < len(p.open) {
		from = i
		for i < len(p.open) && isSpace(p.open[i]) {
			i++
		}
		start := i
		for i < len(p.open) && !isSpace(p.open[i]) && p.open[i] != '=' {
			i++
		}
		key := p.open[start:i]
		for i < len(p.open) && p.open[i] != '"' && p.open[i] != '\'' {
			i++
		}
		if i == len(p.open) {
			break
		}
		quote := p.open[i]
		value = i + 1
		length := strings.IndexByte(p.open[value:], quote)
		if length < 0 {
			break
		}
		i = value + length + 1
		if key == name {
			return from, value, i
		}
	}
	return -1, -1, -1
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// set gives an attribute a value; if it has that value already, its text stays.
func (s *source) set(p *part, name, value string) {
	if was, there := p.get(name); there {
		if was == value {
			return
		}
		_, from, end := p.span(name)
		p.open = p.open[:from] + s.escape(value) + p.open[end-1:]
		for i := range p.attrs {
			if p.attrs[i].Name == name {
				p.attrs[i].Value = value
			}
		}
		return
	}
	end := strings.TrimRight(strings.TrimSuffix(strings.TrimSuffix(p.open, ">"), "/"), " \t\r\n")
	p.open = end + " " + name + `="` + s.escape(value) + `"` + p.open[len(end):]
	p.attrs = append(p.attrs, tree.Attr{Name: name, Value: value})
}

// unset removes an attribute.
func (p *part) unset(name string) {
	if from, _, end := p.span(name); from >= 0 {
		p.open = p.open[:from] + p.open[end:]
		p.attrs = slices.DeleteFunc(p.attrs, func(a tree.Attr) bool { return a.Name == name })
	}
}

// parts returns the elements within p.
func (p *part) parts() []*part {
	var list []*part
	for _, i := range p.items {
		if i.element != nil {
			list = append(list, i.element)
		}
	}
	return list
}

// first returns the first element of a tag, nil without one.
func (p *part) first(tag string) *part {
	for _, i := range p.items {
		if i.element != nil && i.element.tag == tag {
			return i.element
		}
	}
	return nil
}

// margin returns the line's beginning before the n-th item: a newline and
// blanks, "" if it does not begin a line.
func (p *part) margin(n int) string {
	if n == 0 || p.items[n-1].element != nil {
		return ""
	}
	text := p.items[n-1].text
	at := strings.LastIndexByte(text, '\n')
	if at < 0 || strings.Trim(text[at:], " \t\n") != "" {
		return ""
	}
	return text[at+1:]
}

// cut removes an element, with its line where it has one of its own.
func (p *part) cut(gone *part) {
	n := slices.IndexFunc(p.items, func(i item) bool { return i.element == gone })
	if n < 0 {
		return
	}
	if n > 0 && p.items[n-1].element == nil {
		before := p.items[n-1].text
		if at := strings.LastIndexByte(before, '\n'); at >= 0 && strings.Trim(before[at:], " \t\n") == "" {
			p.items[n-1].text = strings.TrimSuffix(before[:at], "\r")
		}
	}
	p.items = slices.Delete(p.items, n, n+1)
}

// insert writes an element into p: behind the last of its tag, or else behind the
// last element. indent is the indentation of one level.
func (s *source) insert(p *part, n *tree.Node, outer, indent string) *part {
	at, alike, last := -1, -1, -1
	for i := range p.items {
		if e := p.items[i].element; e != nil {
			last = i
			if e.tag == n.Tag {
				alike = i
			}
		}
	}
	at = max(alike, last)
	if alike >= 0 {
		at = alike
	}
	return s.insertAt(p, at, n, outer, indent)
}

// insertAfter is insert behind one element, or with nil before the first of its tag.
func (s *source) insertAfter(p, after *part, n *tree.Node, outer, indent string) *part {
	if after != nil {
		return s.insertAt(p, slices.IndexFunc(p.items, func(i item) bool { return i.element == after }), n, outer, indent)
	}
	first := slices.IndexFunc(p.items, func(i item) bool { return i.element != nil && i.element.tag == n.Tag })
	if first < 0 {
		return s.insert(p, n, outer, indent)
	}
	inner := p.margin(first)
	lines := inner != "" || first > 0 && strings.HasSuffix(p.items[first-1].text, "\n")
	fresh := s.part(n, inner, indent, lines)
	items := []item{{element: fresh}}
	if lines {
		items = append(items, item{text: s.newline + inner})
	}
	p.items = slices.Insert(p.items, first, items...)
	return fresh
}

// insertAt writes an element into p behind its at-th item, or with -1 as the first
// element.
func (s *source) insertAt(p *part, at int, n *tree.Node, outer, indent string) *part {
	lines := true
	inner := outer + indent
	if at >= 0 {
		inner = p.margin(at)
		lines = inner != "" || at > 0 && strings.HasSuffix(p.items[at-1].text, "\n")
	}
	fresh := s.part(n, inner, indent, lines)
	var before string
	if lines {
		before = s.newline + inner
	}
	items := []item{{text: before}, {element: fresh}}
	if p.close == "" { // <a/>
		head := strings.TrimRight(strings.TrimSuffix(p.open, "/>"), " \t\r\n")
		p.open, p.close = head+">", "</"+p.tag+">"
		p.items = nil
	}
	if at < 0 {
		// What is there is text; the end tag goes on its own line.
		n := len(p.items)
		if n > 0 {
			if text := p.items[n-1].text; strings.TrimSpace(text) == "" || strings.HasSuffix(strings.TrimRight(text, " \t"), "\n") {
				p.items[n-1].text = strings.TrimRight(text, " \t\r\n")
			}
		}
		p.items = append(p.items, items...)
		p.items = append(p.items, item{text: s.newline + outer})
		return fresh
	}
	p.items = slices.Insert(p.items, at+1, items...)
	return fresh
}

// part writes an element of a model's tree.
func (s *source) part(n *tree.Node, margin, indent string, lines bool) *part {
	p := &part{tag: n.Tag, key: n.Key, open: "<" + n.Tag + "/>"}
	for _, a := range n.Attrs {
		if n.Tag != "service" || a.Name != "enable" {
			s.set(p, a.Name, a.Value)
		}
	}
	if n.Text == "" && len(n.Kids) == 0 {
		return p
	}
	p.open = strings.TrimSuffix(p.open, "/>") + ">"
	p.close = "</" + n.Tag + ">"
	if n.Text != "" {
		p.items = append(p.items, item{text: s.escape(n.Text)})
	}
	for _, k := range n.Kids {
		if lines {
			p.items = append(p.items, item{text: s.newline + margin + indent})
		}
		p.items = append(p.items, item{element: s.part(k, margin+indent, indent, lines)})
	}
	if lines && len(n.Kids) > 0 {
		p.items = append(p.items, item{text: s.newline + margin})
	}
	return p
}
