package words

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	aWord kind = iota
	endOfCommand
	endOfLine
)

// token is a word, or the end of a command or of the line.
type token struct {
	kind       kind
	start, end int // in bytes; a comment belongs to the end behind it
	column     int // counted in letters, from 1
	comment    bool

	key    string // of a word such as key=value, with the -- that it may have
	text   string // of the word, without its key and quotes
	quoted bool
	open   bool // the line ends within the quotes
}

// word is the token as a word of a command.
func (t token) word() Word {
	key, dashed := strings.CutPrefix(t.text, "--")
	switch {
	case t.key != "":
		return Word{Key: strings.TrimPrefix(t.key, "--"), Value: t.text}
	case dashed && !t.quoted && IsKey(key):
		return Word{Key: key, Value: "yes"}
	}
	return Word{Value: t.text}
}

// lexer takes a line apart.
type lexer struct {
	line   string
	at     int // of what comes next, in bytes
	column int
}

func newLexer(line string) *lexer { return &lexer{line: line, column: 1} }

// check refuses lines as a whole.
func check(line string) error {
	switch {
	case len(line) > MaxLine:
		return fmt.Errorf("the line has %d bytes; the maximum is %d", len(line), MaxLine)
	case !utf8.ValidString(line):
		return fmt.Errorf("the line is not valid UTF-8")
	}
	return nil
}

const eof = rune(-1)

func (l *lexer) peek() rune {
	if l.at == len(l.line) {
		return eof
	}
	c, _ := utf8.DecodeRuneInString(l.line[l.at:])
	return c
}

// take returns the next character as it is in the line, so that one that is cut
// in its middle stays as it is.
func (l *lexer) take() string {
	from := l.at
	_, size := utf8.DecodeRuneInString(l.line[from:])
	l.at += size
	l.column++
	return l.line[from:l.at]
}

// next returns the next token. Behind an error there is none.
func (l *lexer) next() (t token, err error) {
	for {
		t.start, t.column = l.at, l.column
		switch c := l.peek(); {
		case c == eof:
			t.kind, t.end = endOfLine, l.at
			return t, nil
		case isEnd(c):
			l.take()
			t.kind, t.end = endOfCommand, l.at
			return t, nil
		case c == '#':
			t.comment = true
			for c := l.peek(); c != eof && c != '\n'; c = l.peek() {
				l.take()
			}
		case isBlank(c):
			l.take()
		default:
			err := l.word(&t)
			t.end = l.at
			return t, err
		}
	}
}

// word reads up to a blank or the end of the command. A # within a word is a
// letter.
func (l *lexer) word(t *token) error {
	var text strings.Builder
	defer func() { t.text = text.String() }()
	keyless := false // what has been read cannot be a key any more
	for {
		switch c := l.peek(); {
		case isBlank(c) || isEnd(c):
			return nil
		case unicode.IsControl(c):
			return fmt.Errorf("column %d: the character %U cannot be used in commands", l.column, c)
		case c == '"':
			t.quoted, keyless = true, true
			if err := l.quotes(t, &text); err != nil {
				return err
			}
		case c == '=' && !keyless && IsKey(strings.TrimPrefix(text.String(), "--")):
			t.key, keyless = text.String(), true
			text.Reset()
			l.take()
		default:
			keyless = keyless || c == '='
			text.WriteString(l.take())
		}
	}
}

// quotes reads from a quote to the one that closes it.
func (l *lexer) quotes(t *token, text *strings.Builder) error {
	column := l.column
	l.take()
	for {
		at := l.column
		switch c := l.peek(); {
		case c == eof:
			t.open = true
			return fmt.Errorf("column %d: the quote is not closed; end it with \"", column)
		case c == '"':
			l.take()
			return nil
		case c == '\\':
			l.take()
			if c = l.peek(); c != '"' && c != '\\' {
				t.open = c == eof
				return fmt.Errorf(`column %d: in quotes, \ stands before " or \; write \\ for one`, at)
			}
			text.WriteString(l.take())
		case unicode.IsControl(c):
			return fmt.Errorf("column %d: the character %U cannot be used in commands", at, c)
		default:
			text.WriteString(l.take())
		}
	}
}

// isBlank takes the \r of a line that ends with \r\n for a blank.
func isBlank(c rune) bool { return c == ' ' || c == '\t' || c == '\r' }

// isEnd tells what ends a command.
func isEnd(c rune) bool { return c == eof || c == ';' || c == '\n' }

// IsKey tells whether a text can name a parameter.
func IsKey(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") == "" && s[0] != '-'
}
