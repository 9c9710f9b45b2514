package admin

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/txlb/txlb/config"
)

// Command is one command as it was written: a verb and its words.
type Command struct {
	Verb  string
	Words []Word
}

// Word is one word behind a verb. With a key it is an option or a parameter
// that is named; a flag such as --force is the key force with the value yes.
type Word struct {
	Key, Value string
}

// maxLine bounds a line, in bytes.
const maxLine = 64 << 10

// Parse reads commands. Words are separated by blanks; "…" holds
// blanks together, with \" and \\ inside; key=value and --key name a
// parameter, unless they are quoted; ; and the end of a line end a command, #
// begins a comment. An
// error tells the column, and shows nothing of the line: there may be a secret
// in it.
func Parse(line string) ([]Command, error) {
	switch {
	case len(line) > maxLine:
		return nil, fmt.Errorf("the line has %d bytes; the maximum is %d", len(line), maxLine)
	case !utf8.ValidString(line):
		return nil, fmt.Errorf("the line is not valid UTF-8")
	}
	p := parser{rest: line, column: 1}
	if err := p.line(); err != nil {
		return nil, err
	}
	return p.commands, nil
}

// parser reads one line.
type parser struct {
	rest     string
	column   int // of what comes next, counted in letters from 1
	commands []Command
	command  Command
	begun    bool // command has its verb
}

const end = rune(-1)

func (p *parser) peek() rune {
	if p.rest == "" {
		return end
	}
	c, _ := utf8.DecodeRuneInString(p.rest)
	return c
}

func (p *parser) take() rune {
	c, size := utf8.DecodeRuneInString(p.rest)
	p.rest = p.rest[size:]
	p.column++
	return c
}

func (p *parser) line() error {
	for {
		switch c := p.peek(); {
		case c == end:
			p.endCommand()
			return nil
		case c == '#':
			for c := p.peek(); c != end && c != '\n'; c = p.peek() {
				p.take()
			}
		case isBlank(c):
			p.take()
		case isEnd(c):
			p.take()
			p.endCommand()
		default:
			column := p.column
			w, err := p.word()
			switch {
			case err != nil:
				return err
			case p.begun:
				p.command.Words = append(p.command.Words, w)
			case w.Key != "" || w.Value == "":
				return fmt.Errorf("column %d: a command begins with a verb; try help", column)
			default:
				p.command.Verb, p.begun = w.Value, true
			}
		}
	}
}

func (p *parser) endCommand() {
	if p.begun {
		p.commands = append(p.commands, p.command)
	}
	p.command, p.begun = Command{}, false
}

// word reads up to a blank or the end of the command. A # within a word is a
// letter.
func (p *parser) word() (Word, error) {
	var w Word
	var text strings.Builder
	plain := true // no quotes so far, and no key
	flag := strings.HasPrefix(p.rest, "--")
	for {
		column := p.column
		c := p.peek()
		switch {
		case isBlank(c) || isEnd(c):
			w.Value = text.String()
			if key, ok := strings.CutPrefix(w.Value, "--"); flag && plain && ok && isKey(key) {
				w = Word{Key: key, Value: "yes"}
			}
			return w, nil
		case unicode.IsControl(c):
			return w, fmt.Errorf("column %d: the character %U cannot be used in commands", column, c)
		case c == '"':
			p.take()
			if err := p.quoted(&text, column); err != nil {
				return w, err
			}
			plain = false
		case c == '=' && plain:
			p.take()
			if key := strings.TrimPrefix(text.String(), "--"); isKey(key) {
				w.Key = key
				text.Reset()
			} else {
				text.WriteRune(c)
			}
			plain = false
		default:
			text.WriteRune(p.take())
		}
	}
}

// quoted reads what stands between quotes, the first of which is at column.
func (p *parser) quoted(text *strings.Builder, column int) error {
	for {
		at := p.column
		c := p.peek()
		if c == end {
			return fmt.Errorf("column %d: the quote is not closed; end it with \"", column)
		}
		p.take()
		switch {
		case c == '"':
			return nil
		case c == '\\':
			if c = p.peek(); c != '"' && c != '\\' {
				return fmt.Errorf(`column %d: in quotes, \ stands before " or \; write \\ for one`, at)
			}
			text.WriteRune(p.take())
		case unicode.IsControl(c):
			return fmt.Errorf("column %d: the character %U cannot be used in commands", at, c)
		default:
			text.WriteRune(c)
		}
	}
}

// isBlank takes the \r of a line that ends with \r\n for a blank.
func isBlank(c rune) bool { return c == ' ' || c == '\t' || c == '\r' }

// isEnd tells what ends a command.
func isEnd(c rune) bool { return c == end || c == ';' || c == '\n' }

// isKey tells whether a text can name a parameter.
func isKey(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") == "" && s[0] != '-'
}

// String gives a line that Parse reads as the command.
func (c Command) String() string {
	var b strings.Builder
	b.WriteString(Quote(c.Verb))
	for _, w := range c.Words {
		b.WriteByte(' ')
		if w.Key != "" {
			b.WriteString(w.Key)
			b.WriteByte('=')
		}
		b.WriteString(Quote(w.Value))
	}
	return b.String()
}

// Quote returns a word as it has to be written in a command.
func Quote(s string) string { return config.Quote(s) }

// WordStart returns where the last word of a line begins, which may be one that is
// being typed: its quote may be open.
func WordStart(line string) int {
	quoted := false
	start := 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (isBlank(rune(c)) || isEnd(rune(c))):
			start = i + 1
		}
	}
	return start
}
