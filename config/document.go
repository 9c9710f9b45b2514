package config

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/beevik/etree"
)

// Bounds of a document. A file that passes one is refused before it is read
// any further.
const (
	maxSize     = 16 << 20 // bytes
	maxDepth    = 16
	maxElements = 200_000
	maxTag      = 64 << 10 // bytes between < and >
	maxProblems = 100
)

// ReadFile reads and checks the document in a file. The model is nil if there
// are errors among the problems.
func ReadFile(path string) (*Config, Problems) {
	data, err := readBounded(path)
	if err != nil {
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	return Parse(path, data)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			return nil, fmt.Errorf("cannot be read: %w", pathErr.Err)
		}
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	return data, nil
}

// Parse reads and checks a document; name stands for it in the problems. The
// model is nil if there are errors among them.
func Parse(name string, data []byte) (*Config, Problems) {
	r := &reader{file: name}
	root := r.open(data)
	if root == nil {
		return nil, r.problems
	}
	c := r.config(root)
	if !r.failed {
		// What the reader could not make sense of would only be reported twice.
		r.problems = append(r.problems, c.check(name)...)
	}
	r.problems.sort()
	if r.problems.Err() != nil {
		return nil, r.problems
	}
	return c, r.problems
}

// reader turns a document into a model and gathers what is wrong with it.
type reader struct {
	file     string
	lines    map[*etree.Element]int
	problems Problems
	failed   bool           // there is an error among the problems
	misspelt *etree.Element // the last one with an unknown attribute
}

func (r *reader) fail(line int, format string, args ...any) {
	r.failed = true
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
	}
}

func (r *reader) warn(line int, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Line: line, Text: fmt.Sprintf(format, args...), Warning: true})
	}
}

// open checks the form of the document and returns its root, nil if the form
// is wrong.
func (r *reader) open(data []byte) *etree.Element {
	if len(data) > maxSize {
		r.fail(0, "the file is larger than %d MiB, which no configuration needs", maxSize>>20)
		return nil
	}
	if at := longTag(data); at >= 0 {
		r.fail(1+bytes.Count(data[:at], []byte("\n")), "a tag of more than %d KiB", maxTag>>10)
		return nil
	}
	lines := r.scan(data)
	if r.failed {
		return nil
	}
	doc := etree.NewDocument()
	doc.ReadSettings.CharsetReader = charsetReader
	if err := doc.ReadFromBytes(data); err != nil {
		r.fail(0, "%v", err)
		return nil
	}
	// Both readings meet the elements in the same order.
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

// longTag returns where a tag longer than maxTag begins, -1 if there is none.
// The decoders gather all attributes of a tag before they hand it out.
func longTag(data []byte) int {
	start, quote := -1, byte(0)
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case start < 0 && bytes.HasPrefix(data[i:], []byte("<!--")):
			end := bytes.Index(data[i:], []byte("-->"))
			if end < 0 {
				return -1 // the decoder says so
			}
			i += end
		case start < 0 && c == '<':
			start = i
		case start < 0:
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			start = -1
		}
		if start >= 0 && i-start > maxTag {
			return start
		}
	}
	return -1
}

func number(e *etree.Element, visit func(*etree.Element)) {
	visit(e)
	for _, child := range e.ChildElements() {
		number(child, visit)
	}
}

// scan reads the document token by token, for the two things that etree does
// not tell: the line of each element, and whether the form is right.
func (r *reader) scan(data []byte) (lines []int) {
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.CharsetReader = charsetReader
	depth, roots := 0, 0
	for {
		line, _ := dec.InputPos()
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
				r.fail(syntax.Line, "no well-formed XML: %s", syntax.Msg)
			} else {
				r.fail(line, "no well-formed XML: %v", err)
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
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 0 && len(bytes.TrimSpace(t)) > 0 {
				r.fail(line, "text outside the root element: this is no txlb configuration")
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
		r.fail(0, "the document is empty; it needs a root element <config> with at least one <service>")
	}
	return lines
}

// charsetReader decodes what the ancestors wrote beside UTF-8.
func charsetReader(charset string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "utf-8", "us-ascii", "ascii":
		return in, nil
	case "iso-8859-1", "latin-1", "latin1":
		return &latin1{in: in}, nil
	}
	return nil, fmt.Errorf("encoding %q is not known; use UTF-8", charset)
}

// latin1 turns ISO-8859-1 into UTF-8: every byte is the code point of its
// number.
type latin1 struct {
	in   io.Reader
	rest []byte
}

// Read implements io.Reader.
func (l *latin1) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		var raw [512]byte
		n, err := l.in.Read(raw[:])
		for _, b := range raw[:n] {
			l.rest = append(l.rest, string(rune(b))...)
		}
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
