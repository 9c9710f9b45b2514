// Package console shows the runtime verbs at a terminal: a prompt
// ([Terminal.Shell]), a live view ([Terminal.Top]) and formatted results ([Render],
// [Run], [Script]). It reads and writes the bytes of a terminal, over any
// connection; commands go to an [Executor].
//
// It has a few commands of its own: top, quit and exit. With the flag --json, the
// answer of a command is one JSON object on one line: {"text", "data",
// "generation"} or {"error"}. An error is one line.
//
// Names and log lines are shown without control characters, so that they cannot
// control the terminal. Colours are off if the user has set NO_COLOR.
//
// Limits: a line at the prompt has at most 4095 letters. Every letter counts as one
// column. The terminal wraps tables that are wider.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/words"
)

// Executor is where commands go. All methods may be called while another one
// runs.
type Executor interface {
	// Execute does one command as [admin.Admin.Execute] does. An error that is
	// ErrEnd ends the session.
	Execute(ctx context.Context, c words.Command) (admin.Result, error)
	// Complete tells what the last word of a line may become.
	Complete(line string) []string
}

// ErrEnd is the error of an Executor that serves no further command.
var ErrEnd = errors.New("the session ends")

// Exit statuses of a command line.
const (
	StatusOK     = 0
	StatusFailed = 1
	StatusUsage  = 2 // no command was understood: there is nothing of that name, or a word is wrong
)

// Style says how results look.
type Style struct {
	Color bool
}

// Commands of this package itself.
const (
	wordTop  = "top"
	wordQuit = "quit"
	wordExit = "exit"
)

// ownWords lists them with their help.
func ownWords() [][2]string {
	return [][2]string{
		{wordTop, "a live view of services and hosts; q leaves it"},
		{wordQuit, "leave; also exit, Ctrl-D"},
		{"--json", "behind any command: the answer as one JSON object"},
	}
}

// command is one command of a line.
type command struct {
	words.Command
	json bool
}

// is tells whether the command is one of the console's own.
func (c command) is(words ...string) bool {
	for _, w := range words {
		if strings.EqualFold(c.Verb, w) && len(c.Words) == 0 {
			return true
		}
	}
	return false
}

// parse reads a line and removes the flag --json.
func parse(line string) ([]command, error) {
	parsed, err := words.Parse(line)
	if err != nil {
		return nil, err
	}
	commands := make([]command, len(parsed))
	for i, p := range parsed {
		c := command{Command: words.Command{Verb: p.Verb}}
		for _, w := range p.Words {
			if w == (words.Word{Key: "json", Value: "yes"}) {
				c.json = true
				continue
			}
			c.Words = append(c.Words, w)
		}
		commands[i] = c
	}
	return commands, nil
}

// errQuit ends a session after quit.
var errQuit = errors.New("quit")

// runner executes the commands of lines.
type runner struct {
	x         Executor
	out, errs io.Writer
	style     Style
	top       func(context.Context) error // nil without a terminal
}

// Run executes the commands of one line up to the first that fails, and returns the
// exit status. Answers go to out, errors to errs.
func Run(ctx context.Context, x Executor, line string, out, errs io.Writer, style Style) int {
	r := runner{x: x, out: out, errs: errs, style: style}
	return max(statusOf(r.line(ctx, line)), StatusOK)
}

// Script is Run for each line of in, up to the first that fails; the error has its
// line number. Empty lines and comments are skipped.
func Script(ctx context.Context, x Executor, in io.Reader, out, errs io.Writer, style Style) int {
	lines := newLines(in)
	for n := 1; ; n++ {
		line, err := lines.next()
		told := prefixed{errs, fmt.Sprintf("line %d: ", n)}
		switch {
		case errors.Is(err, io.EOF):
			return StatusOK
		case err != nil:
			writeError(told, err, style)
			return StatusFailed
		}
		r := runner{x: x, out: out, errs: told, style: style}
		if status := statusOf(r.line(ctx, line)); status != StatusOK {
			if status < 0 {
				return StatusOK
			}
			return status
		}
	}
}

// statusOf returns the exit status of a line, -1 for quit.
func statusOf(err error) int {
	switch {
	case err == nil:
		return StatusOK
	case errors.Is(err, errQuit):
		return -1
	case errors.Is(err, errParse) || errors.Is(err, admin.ErrUnknownVerb) || errors.Is(err, admin.ErrUsage):
		return StatusUsage
	}
	return StatusFailed
}

// errParse is a line that cannot be read.
var errParse = errors.New("no command")

// line executes a line. Every error is shown before it is returned.
func (r *runner) line(ctx context.Context, line string) error {
	commands, err := parse(line)
	if err != nil {
		writeError(r.errs, err, r.style)
		return fmt.Errorf("%w: %w", errParse, err)
	}
	return r.commands(ctx, commands)
}

func (r *runner) commands(ctx context.Context, commands []command) error {
	for _, c := range commands {
		if err := r.one(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// one executes one command.
func (r *runner) one(ctx context.Context, c command) error {
	switch {
	case c.is(wordQuit, wordExit):
		return errQuit
	case c.is(wordTop):
		if r.top == nil {
			err := errors.New("top needs a terminal: ssh -t gives one")
			r.fail(c, err)
			return err
		}
		return r.top(ctx)
	}
	result, err := r.x.Execute(ctx, c.Command)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = errStopped
		}
		r.fail(c, err)
		return err
	}
	if c.json {
		return writeJSON(r.out, result)
	}
	if c.is("help") {
		for _, w := range ownWords() {
			result.Text += "\n" + w[0] + "\n    " + w[1]
		}
	}
	return Render(r.out, result, r.style)
}

// errStopped is the error of a command that Ctrl-C has stopped.
var errStopped = errors.New("stopped")

func (r *runner) fail(c command, err error) {
	if c.json {
		_ = writeJSON(r.out, struct {
			Error string `json:"error"`
		}{err.Error()})
		return
	}
	writeError(r.errs, err, r.style)
}

func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("answer in JSON: %w", err)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeError(w io.Writer, err error, s Style) {
	text := strings.ReplaceAll(clean(err.Error()), "\n", "; ")
	_, _ = io.WriteString(w, s.paint(red, "error: "+text)+"\n")
}

// Render writes a result as text that ends with a newline.
func Render(w io.Writer, r admin.Result, s Style) error {
	text := strings.TrimRight(clean(r.Text), "\n")
	if text == "" {
		return nil
	}
	if s.Color {
		text = s.colour(text, r.Data)
	}
	_, err := io.WriteString(w, text+"\n")
	return err
}

// Clean replaces with ? what could control a terminal or show text in another order:
// control characters except newlines and tabs, those of bidirectional text, and bytes
// that are not UTF-8. Carriage returns are removed.
func Clean(s string) string { return clean(s) }

func clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\r':
			return -1
		case unprintable(c):
			return '?'
		}
		return c
	}, s)
}

func unprintable(c rune) bool {
	return unicode.IsControl(c) && c != '\n' && c != '\t' || c == utf8.RuneError || unicode.Is(unicode.Bidi_Control, c)
}

// prefixed writes a word before each write.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.w, p.prefix+string(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}
