package config

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"

	"github.com/beevik/etree"

	"github.com/txlb/txlb/config/internal/charset"
)

// Bounds of a document. A file that passes one is refused before it is read
// any further.
const (
	MaxSize       = 8 << 20 // of the document, in bytes
	maxDepth      = 16
	maxElements   = 100_000
	maxAttributes = 64       // of one element
	maxTag        = 64 << 10 // bytes between < and >
)

// Parse reads and checks a document; name stands for it in the problems. The
// model is nil if there are errors among them.
func Parse(name string, data []byte) (*Config, Problems) {
	return parseAs(name, data, false)
}

// ParseProgram is Parse for a configuration that a program runs, see Config.Program.
func ParseProgram(name string, data []byte) (*Config, Problems) {
	return parseAs(name, data, true)
}

func parseAs(name string, data []byte, program bool) (*Config, Problems) {
	r := &reader{report: report{file: name}, broken: map[any]bool{}, program: program}
	root := r.open(data)
	if root == nil {
		return nil, r.told()
	}
	c := r.config(root)
	k := &checker{report: r.report, broken: r.broken, written: !program}
	k.config(c)
	if k.errors > 0 {
		c = nil
	}
	return c, k.told()
}

// CheckForm tells what keeps Parse from reading a document at all: its size, the number of its
// elements, a tag that is too long. It is faster than Parse, and says nothing of the content.
func CheckForm(name string, data []byte) error {
	r := &reader{report: report{file: name}}
	r.form(data)
	return r.told().Err()
}

// open checks the form of the document and returns its root, nil if the form
// is wrong.
func (r *reader) open(data []byte) *etree.Element {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // editors' mark of UTF-8
	lines := r.form(data)
	if r.errors > 0 {
		return nil
	}
	doc := etree.NewDocument()
	doc.ReadSettings.CharsetReader = charset.Reader
	if err := doc.ReadFromBytes(data); err != nil {
		r.fail(0, "%v", err)
		return nil
	}
	// Both readers visit the elements in the same order.
	r.lines = make(map[*etree.Element]int, len(lines))
	next := 0
	number(doc.Root(), func(e *etree.Element) {
		if next < len(lines) {
			r.lines[e] = lines[next]
		}
		next++
	})
	return doc.Root()
}

// form checks the form of a document, and returns the lines of its elements.
func (r *reader) form(data []byte) (lines []int) {
	if len(data) > MaxSize {
		r.fail(0, "the file is larger than %d MiB, which no configuration needs", MaxSize>>20)
		return nil
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.fail(1, "the file is UTF-16; save it as UTF-8")
		return nil
	}
	if at := longTag(data); at >= 0 {
		r.fail(1+bytes.Count(data[:at], []byte("\n")), "a tag of more than %d KiB", maxTag>>10)
		return nil
	}
	return r.scan(data)
}

// longTag returns where a tag longer than maxTag begins, -1 if there is none.
// The decoders gather all attributes of a tag before they hand it out.
func longTag(data []byte) int {
	for i := 0; ; {
		next := bytes.IndexByte(data[i:], '<')
		if next < 0 {
			return -1
		}
		i += next
		end := skip(data[i:])
		if end < 0 { // the decoder says so
			return -1
		}
		if end == 0 {
			if end = tagLength(data[i:]); end > maxTag {
				return i
			}
		}
		i += end
	}
}

// skip returns the length of the comment, CDATA section or processing
// instruction at the start of data, 0 if it is a tag, -1 if it has no end.
func skip(data []byte) int {
	for _, form := range [...]struct{ open, close string }{{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}} {
		if rest, ok := bytes.CutPrefix(data, []byte(form.open)); ok {
			n := bytes.Index(rest, []byte(form.close))
			if n < 0 {
				return -1
			}
			return len(form.open) + n + len(form.close)
		}
	}
	return 0
}

// tagLength returns the length of the tag at the start of data, more than
// maxTag without measuring if it is that long.
func tagLength(data []byte) int {
	quote := byte(0)
	for i, c := range data[:min(len(data), maxTag+1)] {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	if len(data) > maxTag {
		return maxTag + 1
	}
	return len(data)
}

func number(e *etree.Element, visit func(*etree.Element)) {
	visit(e)
	for _, child := range e.ChildElements() {
		number(child, visit)
	}
}

// scan reads the document token by token, for two things that etree does not
// report: the line of each element, and whether the document is well-formed.
func (r *reader) scan(data []byte) (lines []int) {
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.CharsetReader = charset.Reader
	depth, roots := 0, 0
	for {
		line, _ := dec.InputPos()
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
				r.fail(syntax.Line, "not well-formed XML: %s", syntax.Msg)
			} else {
				r.fail(line, "not well-formed XML: %v", err)
			}
			return nil
		}
		switch t := token.(type) {
		case xml.StartElement:
			lines = append(lines, line)
			if depth == 0 {
				if roots++; roots == 2 {
					r.fail(line, "a second root element <%s>; a document has one", t.Name.Local)
					return nil
				}
			}
			if depth++; depth > maxDepth {
				r.fail(line, "elements are nested more than %d deep", maxDepth)
				return nil
			}
			if len(lines) > maxElements {
				r.fail(line, "more than %d elements", maxElements)
				return nil
			}
			if !r.scanAttributes(line, t) {
				return nil
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(t)) > 0 {
				r.fail(line, "text outside the root element: this is not a txlb configuration")
				return nil
			}
		case xml.Directive:
			if bytes.Contains(t, []byte("[")) || bytes.Contains(t, []byte("ENTITY")) {
				r.fail(line, "a document type with declarations of its own; leave out what stands between [ and ]")
				return nil
			}
		}
	}
	if roots == 0 {
		r.fail(1, "the document is empty; it needs a root element <config> with at least one <service>")
	}
	return lines
}

// scanAttributes checks what etree does not keep: how many attributes there
// are, and that none is there twice.
func (r *reader) scanAttributes(line int, t xml.StartElement) bool {
	if len(t.Attr) > maxAttributes {
		r.fail(line, "<%s> has more than %d attributes", t.Name.Local, maxAttributes)
		return false
	}
	for i, a := range t.Attr {
		for _, b := range t.Attr[:i] {
			if a.Name == b.Name {
				r.fail(line, "<%s> has the attribute %s twice", t.Name.Local, a.Name.Local)
			}
		}
	}
	return true
}
