// Package words is the language of commands: it splits lines into words, and quotes
// words so that they are read back as they were.
//
// Words are separated by blanks; "…" holds blanks together, with \" and \\ inside;
// key=value and --key name a parameter, unless they are quoted; ; and the end of a
// line end a command; # begins a comment. [Parse] reads whole lines, [Typed] a line
// that somebody is typing. Both use one lexer.
package words

import (
	"fmt"
	"strings"
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

// MaxLine bounds a line, in bytes.
const MaxLine = 64 << 10

// Parse reads the commands of a line. An error tells the column, and shows
// nothing of the line: there may be a secret in it.
func Parse(line string) ([]Command, error) {
	if err := check(line); err != nil {
		return nil, err
	}
	var list commands
	for l := newLexer(line); ; {
		t, err := l.next()
		if err == nil {
			err = list.take(t)
		}
		switch {
		case err != nil:
			return nil, err
		case t.kind == endOfLine:
			return list.done, nil
		}
	}
}

// commands are what tokens make.
type commands struct {
	done    []Command
	current Command
	begun   bool // current has its verb
}

func (c *commands) take(t token) error {
	switch {
	case t.kind != aWord:
		if c.begun {
			c.done = append(c.done, c.current)
		}
		c.current, c.begun = Command{}, false
	case c.begun:
		c.current.Words = append(c.current.Words, t.word())
	case t.word().Key != "" || t.text == "":
		return fmt.Errorf("column %d: a command begins with a verb; try help", t.column)
	default:
		c.current.Verb, c.begun = t.text, true
	}
	return nil
}

// Typing is what stands at the end of a line that somebody is typing.
type Typing struct {
	Command Command // the last command, without the word that is being typed
	Start   int     // of that word in the line, in bytes; the length of the line before its first letter

	Key    string // of a word such as key=value, as it was typed: --key too
	Text   string // of the word behind the key, without quotes
	Quoted bool   // the word has quotes; the last may be open
}

// Typed reads a line up to the place where somebody is typing, which may be
// within quotes. It is false where no word can be: in a comment, or behind what
// Parse refuses.
func Typed(line string) (Typing, bool) {
	var list commands
	for l := newLexer(line); ; {
		before := list.current
		t, err := l.next()
		if t.end == len(line) && (err == nil || t.open) {
			switch {
			case t.kind == aWord:
				return Typing{Command: before, Start: t.start, Key: t.key, Text: t.text, Quoted: t.quoted}, true
			case t.kind == endOfLine:
				return Typing{Command: before, Start: t.end}, !t.comment
			}
		}
		if err == nil {
			err = list.take(t)
		}
		if err != nil {
			return Typing{}, false
		}
	}
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

// Texts are the words of a command, the verb first and all without quotes, for
// who knows no options: HAProxy's commands are such.
func (c Command) Texts() []string {
	texts := []string{c.Verb}
	for _, w := range c.Words {
		if w.Key != "" {
			w.Value = w.Key + "=" + w.Value
		}
		texts = append(texts, w.Value)
	}
	return texts
}

// Join makes a line of words as a shell has split them, where --key and
// key=value name parameters.
func Join(args []string) string {
	line := make([]string, len(args))
	for i, arg := range args {
		key, value, named := strings.Cut(arg, "=")
		switch {
		case named && IsKey(strings.TrimPrefix(key, "--")):
			line[i] = key + "=" + Quote(value)
		case strings.HasPrefix(arg, "--") && IsKey(arg[len("--"):]):
			line[i] = arg
		default:
			line[i] = Quote(arg)
		}
	}
	return strings.Join(line, " ")
}

// Quote returns a word as it has to be written in a command: as it is, or
// between double quotes, with a backslash before " and \. Control characters
// cannot be written at all.
func Quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n\";=#") && !strings.HasPrefix(s, "--") {
		return s
	}
	return quoted(s)
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// QuoteName is Quote for names: what is not Plain is always quoted.
func QuoteName(name string) string {
	if q := Quote(name); Plain(name) || q[0] == '"' {
		return q
	}
	return quoted(name)
}

// longestPlain is how many bytes a name may have and be Plain.
const longestPlain = 64

// Plain tells whether a name can be told from text without quotes: it has 1 to
// 64 letters of ASCII, digits and _ . : -
func Plain(name string) bool {
	if name == "" || len(name) > longestPlain {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

// Unquote is the inverse of Quote. A key before the word stays, and so does a
// text that is not one word.
func Unquote(word string) string {
	t, err := newLexer(word).next()
	if err != nil || t.kind != aWord || t.end < len(word) {
		return word
	}
	if t.key != "" {
		return t.key + "=" + t.text
	}
	return t.text
}
