package convert

import (
	"strconv"
	"strings"
)

// haLine is a line of haproxy.cfg, with the lines that continue it.
type haLine struct {
	place
	words []string
	env   string // a variable of the environment that it names; "" without
}

// haLexer takes haproxy.cfg apart as HAProxy does (section 2.2 of its manual):
// blanks between words, \ before one letter, "…" with escapes and variables, '…'
// without, # up to the end of the line, and \ at the end of a line that goes on.
type haLexer struct {
	c    *converter
	text string
	i    int
	line int
}

func (l *haLexer) lines() []haLine {
	var all []haLine
	for l.line = 1; l.i < len(l.text); {
		if line, ok := l.next(); ok {
			all = append(all, line)
		}
	}
	return all
}

// next reads a line; ok is false for one without words.
func (l *haLexer) next() (line haLine, ok bool) {
	line.line = l.line
	start, end := l.i, -1
	var word strings.Builder
	var quote byte
	inWord := false
	flush := func() {
		if inWord {
			line.words = append(line.words, word.String())
		}
		word.Reset()
		inWord = false
	}
loop:
	for l.i < len(l.text) {
		c := l.text[l.i]
		l.i++
		switch {
		case c == '\n':
			end = l.i - 1
			l.line++
			break loop
		case c == '\r' && (l.i == len(l.text) || l.text[l.i] == '\n'):
		case c == '\\' && quote != '\'':
			inWord = l.escape(&word, quote) || inWord
		case quote != 0:
			if c == quote {
				quote = 0
				continue
			}
			if c == '$' && quote == '"' {
				line.env = l.variable(line.env)
			}
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == '#':
			end = l.i - 1
			if n := strings.IndexByte(l.text[l.i:], '\n'); n >= 0 {
				l.i += n + 1
			} else {
				l.i = len(l.text)
			}
			l.line++
			break loop
		case c == ' ' || c == '\t':
			flush()
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if end < 0 {
		end = l.i
	}
	flush()
	line.text = strings.Join(strings.Fields(strings.ReplaceAll(l.text[start:end], "\\\n", " ")), " ")
	if quote != 0 {
		l.c.fail(line.line, "the quote %c has no end in this line", quote)
	}
	return line, len(line.words) > 0
}

// escape reads what follows a backslash. It tells whether that is part of a word.
func (l *haLexer) escape(word *strings.Builder, quote byte) bool {
	if l.i == len(l.text) {
		return false
	}
	c := l.text[l.i]
	if c == '\r' && strings.HasPrefix(l.text[l.i:], "\r\n") {
		l.i++
		c = '\n'
	}
	switch {
	case c == '\n':
		l.i++
		l.line++
		return false
	case c == 'n':
		word.WriteByte('\n')
	case c == 'r':
		word.WriteByte('\r')
	case c == 't':
		word.WriteByte('\t')
	case c == 'x' && l.i+3 <= len(l.text):
		n, err := strconv.ParseUint(l.text[l.i+1:l.i+3], 16, 8)
		if err != nil {
			l.c.fail(l.line, "\\x needs two hexadecimal digits")
			return true
		}
		word.WriteByte(byte(n))
		l.i += 2
	case strings.IndexByte(` \#'"`, c) >= 0 || c == '$' && quote == '"':
		word.WriteByte(c)
	default: // no escape
		word.WriteByte('\\')
		return true
	}
	l.i++
	return true
}

// variable returns the name of the variable that begins here, else what was there.
func (l *haLexer) variable(was string) string {
	rest := strings.TrimPrefix(l.text[l.i:], "{")
	n := strings.IndexFunc(rest, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if n < 0 {
		n = len(rest)
	}
	if n == 0 || was != "" {
		return was
	}
	return rest[:min(n, 64)]
}
