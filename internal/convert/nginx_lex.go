package convert

import "strings"

// ngBlock is a block of nginx: its directives, in order.
type ngBlock []*ngLine

// ngLine is a directive, and its block if it has one.
type ngLine struct {
	place
	name  string
	args  []string
	block ngBlock
	open  bool // it has a block, which may be empty
}

// maxNesting bounds blocks in blocks.
const maxNesting = 32

// ngParser reads nginx's syntax: words that end with ; or have a { block }, quotes,
// \ before one letter, # up to the end of the line, and ${variables} in words.
type ngParser struct {
	c    *converter
	text string
	i    int
	line int
}

// ngToken is a word, or one of ; { } in mark. At the end both are empty.
type ngToken struct {
	word string
	mark byte
	at   int // where it begins
	line int
}

func (t ngToken) end() bool { return t.mark == 0 && t.at < 0 }

// block reads directives up to } or the end.
func (p *ngParser) block(depth int) ngBlock {
	var block ngBlock
	var words []ngToken
	unended := func() bool {
		if len(words) > 0 {
			p.c.fail(words[0].line, "%q has no ; at its end", words[0].word)
		}
		return len(words) > 0
	}
	for {
		t := p.token()
		switch {
		case t.end() || len(p.c.problems) >= maxProblems:
			if !unended() && depth > 0 {
				p.c.fail(p.line, "a block has no } at its end")
			}
			return block
		case t.mark == 0:
			words = append(words, t)
			continue
		case t.mark == '}':
			unended()
			words = nil
			if depth > 0 {
				return block
			}
			p.c.fail(t.line, "a } without its {")
			continue
		case len(words) == 0:
			p.c.fail(t.line, "a %c without a directive before it", t.mark)
			if t.mark == '{' && depth < maxNesting {
				p.block(depth + 1)
			}
			continue
		}
		d := &ngLine{name: words[0].word}
		d.line = words[0].line
		d.text = strings.Join(strings.Fields(p.text[words[0].at:t.at]), " ")
		for _, w := range words[1:] {
			d.args = append(d.args, w.word)
		}
		if t.mark == '{' {
			if depth == maxNesting {
				p.c.fail(t.line, "blocks are nested more than %d deep", maxNesting)
				p.i = len(p.text)
				return block
			}
			d.open = true
			d.block = p.block(depth + 1)
			d.last = p.line
		}
		block = append(block, d)
		words = nil
	}
}

// token reads the next one.
func (p *ngParser) token() ngToken {
	for p.i < len(p.text) {
		switch c := p.text[p.i]; c {
		case '\n':
			p.line++
			p.i++
		case ' ', '\t', '\r':
			p.i++
		case '#':
			n := strings.IndexByte(p.text[p.i:], '\n')
			if n < 0 {
				n = len(p.text) - p.i
			}
			p.i += n
		case ';', '{', '}':
			p.i++
			return ngToken{mark: c, at: p.i - 1, line: p.line}
		case '"', '\'':
			return p.quoted(c)
		default:
			return p.plain()
		}
	}
	return ngToken{at: -1, line: p.line}
}

// quoted reads a word in quotes.
func (p *ngParser) quoted(quote byte) ngToken {
	t := ngToken{at: p.i, line: p.line}
	var b strings.Builder
	for p.i++; p.i < len(p.text); p.i++ {
		switch c := p.text[p.i]; {
		case c == quote:
			p.i++
			t.word = b.String()
			return t
		case c == '\\' && p.i+1 < len(p.text):
			p.i++
			p.escape(&b)
		default:
			if c == '\n' {
				p.line++
			}
			b.WriteByte(c)
		}
	}
	p.c.fail(t.line, "the quote %c has no end", quote)
	t.word = b.String()
	return t
}

// plain reads a word without quotes.
func (p *ngParser) plain() ngToken {
	t := ngToken{at: p.i, line: p.line}
	var b strings.Builder
	open := 0 // braces of variables
	for ; p.i < len(p.text); p.i++ {
		c := p.text[p.i]
		switch {
		case c == '\\' && p.i+1 < len(p.text):
			p.i++
			p.escape(&b)
			continue
		case c == '$' && strings.HasPrefix(p.text[p.i:], "${"):
			b.WriteString("${")
			p.i++
			open++
			continue
		case strings.IndexByte(" \t\r\n;{", c) >= 0:
			t.word = b.String()
			return t
		case c == '}' && open == 0:
			t.word = b.String()
			return t
		case c == '}':
			open--
		}
		b.WriteByte(c)
	}
	t.word = b.String()
	return t
}

// escape takes the letter behind a backslash: those of quotes stand for themselves,
// all others keep the backslash, as regular expressions need it.
func (p *ngParser) escape(b *strings.Builder) {
	switch c := p.text[p.i]; c {
	case '"', '\'', '\\':
		b.WriteByte(c)
	case 'n':
		b.WriteByte('\n')
	case 'r':
		b.WriteByte('\r')
	case 't':
		b.WriteByte('\t')
	default:
		if c == '\n' {
			p.line++
		}
		b.WriteByte('\\')
		b.WriteByte(c)
	}
}
