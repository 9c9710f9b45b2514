package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/words"
)

const (
	prompt = "txlb> "
	// longestTyped is how many letters the line editor takes; it drops further
	// ones, so a line of that length may have lost its end.
	longestTyped = 4096
	// remembered is how many lines the history has.
	remembered = 200
)

// errHangup is the end of a terminal whose other side has gone.
var errHangup = errors.New("the terminal was closed")

// Shell greets, then reads and executes lines until quit, Ctrl-D, the end of the
// terminal or of ctx, or the error [ErrEnd]. It asks before destructive commands. It
// returns nil if the user has left, otherwise why it ended: [ErrEnd], the cause of
// ctx, or that the terminal was closed.
func (t *Terminal) Shell(ctx context.Context, x Executor) error {
	defer t.input.abandon()
	e := newEditor(ctx, t, x)
	e.term.SetBracketedPasteMode(true)
	defer e.term.SetBracketedPasteMode(false)
	if err := t.greet(ctx, x); err != nil {
		return err
	}
	for {
		line, err := e.read(promptOf(x), false)
		switch {
		case errors.Is(err, io.EOF):
			_, err := io.WriteString(t.rw, "\r\n")
			return err
		case errors.Is(err, errDropped):
			continue
		case err != nil:
			return err
		case utf8.RuneCountInString(line) >= longestTyped:
			writeError(newlines{t.rw}, fmt.Errorf("the line is too long: at most %d letters", longestTyped-1), t.style)
			continue
		}
		err = t.do(ctx, x, line, e)
		switch {
		case errors.Is(err, errQuit):
			return nil
		case errors.Is(err, ErrEnd), errors.Is(err, errGoneWriting):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !t.input.alive():
			return errHangup
		}
	}
}

// reminder is an Executor that knows what its user should not forget.
type reminder interface {
	// Reminder returns a few words, "" if there is nothing.
	Reminder() string
}

// promptOf is the prompt, with what its user should not forget.
func promptOf(x Executor) string {
	if r, ok := x.(reminder); ok {
		if text := r.Reminder(); text != "" {
			return strings.TrimSuffix(prompt, "> ") + " (" + clean(text) + ")> "
		}
	}
	return prompt
}

// alive tells whether the terminal is still there.
func (in *input) alive() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.gone()
}

// Line executes one line, which may be top, and returns the exit status. It does not
// ask.
func (t *Terminal) Line(ctx context.Context, x Executor, line string) int {
	defer t.input.abandon()
	return max(statusOf(t.do(ctx, x, line, nil)), StatusOK)
}

// errGoneWriting is an error of writing to the terminal.
var errGoneWriting = errors.New("cannot write to the terminal")

// do executes a line. With an editor it asks before destructive commands.
func (t *Terminal) do(ctx context.Context, x Executor, line string, e *editor) error {
	out := newlines{t.rw}
	commands, err := parse(line)
	if err != nil {
		writeError(out, err, t.style)
		return fmt.Errorf("%w: %w", errParse, err)
	}
	if doomed := destructive(commands); e != nil && len(doomed) > 0 {
		if q := questions(x, commands); q != "" {
			if _, err := io.WriteString(out, q); err != nil {
				return fmt.Errorf("%w: %w", errGoneWriting, err)
			}
		}
		switch answer, err := e.read(strings.Join(doomed, "; ")+": continue? (y/N) ", true); {
		case err != nil && !errors.Is(err, errDropped):
			return err
		case err != nil || !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))):
			_, err := io.WriteString(out, "nothing was done\n")
			return err
		}
	}
	if e != nil {
		switch ok, err := e.passwords(commands); {
		case err != nil:
			return err
		case !ok:
			return nil
		}
	}
	running, done := t.input.during(ctx)
	defer done()
	r := runner{
		x: x, out: stoppable{running, out}, errs: out, style: t.style,
		top: func(ctx context.Context) error {
			err := t.Top(ctx, Live(x))
			if err != nil && !errors.Is(err, errHangup) {
				writeError(out, err, t.style)
			}
			return err
		},
	}
	return r.commands(running, commands)
}

// greet writes one or two lines about the running txlb.
func (t *Terminal) greet(ctx context.Context, x Executor) error {
	result, err := x.Execute(ctx, words.Command{Verb: "status"})
	if err != nil {
		writeError(newlines{t.rw}, err, t.style)
		if errors.Is(err, ErrEnd) {
			return err
		}
		return nil
	}
	head, _, _ := strings.Cut(result.Text, "\n")
	text := clean(head) + "\n"
	if s, ok := result.Data.(admin.Status); ok && len(s.Problems) > 0 {
		text += t.style.paint(red, words.Count(len(s.Problems), "problem")+"; see status") + "\n"
	}
	text += "help lists the commands, Tab completes, Ctrl-D leaves\n"
	if _, err := io.WriteString(newlines{t.rw}, text); err != nil {
		return fmt.Errorf("%w: %w", errGoneWriting, err)
	}
	return nil
}

// verbOf finds the verb of a command in the table.
func verbOf(verbs []admin.Verb, c words.Command) *admin.Verb {
	for i := range verbs {
		for _, name := range append([]string{verbs[i].Name}, verbs[i].Aliases...) {
			first, second, two := strings.Cut(name, " ")
			if strings.EqualFold(first, c.Verb) && (!two || len(c.Words) > 0 && strings.EqualFold(second, c.Words[0].Value)) {
				return &verbs[i]
			}
		}
	}
	return nil
}

// hasher is an Executor that makes hashes of passwords.
type hasher interface {
	Hash(ctx context.Context, password string) (string, error)
}

// passwords asks for those that commands set and do not say, twice, without showing
// them, and puts their hashes in. It is false if there are none to go on with.
func (e *editor) passwords(commands []command) (ok bool, err error) {
	h, can := e.x.(hasher)
	out := newlines{e.t.rw}
	for i := range commands {
		with, needed := admin.NeedsPassword(commands[i].Command)
		if !needed || !can {
			continue
		}
		var typed [2]string
		for n, prompt := range []string{"Password: ", "Again: "} {
			typed[n], err = e.unseen(prompt)
			switch {
			case errors.Is(err, errDropped):
				_, err := io.WriteString(out, "nothing was done\n")
				return false, err
			case err != nil:
				return false, err
			}
		}
		hash := ""
		err := errors.New("the passwords do not match; nothing was done")
		if typed[0] == typed[1] {
			hash, err = h.Hash(e.ctx, typed[0])
		}
		if err != nil {
			writeError(out, err, e.t.style)
			return false, nil
		}
		commands[i].Command = with(hash)
	}
	return true, nil
}

// unseen reads a line that is not shown.
func (e *editor) unseen(prompt string) (string, error) {
	e.unshown, e.dropped = true, false
	defer func() { e.unshown = false }()
	line, err := e.term.ReadPassword(prompt)
	if e.dropped {
		return "", errDropped
	}
	return line, err
}

// destructive returns the commands that need confirmation, without their options.
func destructive(commands []command) []string {
	verbs := admin.Verbs()
	var list []string
	for _, c := range commands {
		v := verbOf(verbs, c.Command)
		if v == nil || !v.Destructive || slices.ContainsFunc(c.Words, dry) {
			continue
		}
		list = append(list, clean(c.String()))
	}
	return list
}

// asker is an Executor that knows the consequences of destructive commands.
type asker interface {
	Question(words.Command) string
}

// questions are lines about the consequences of commands.
func questions(x Executor, commands []command) (lines string) {
	a, ok := x.(asker)
	for _, c := range commands {
		if !ok {
			break
		}
		if q := a.Question(c.Command); q != "" {
			lines += clean(q) + "\n"
		}
	}
	return lines
}

func dry(w words.Word) bool {
	return strings.EqualFold(strings.ReplaceAll(w.Key, "-", ""), "dryrun") && !strings.EqualFold(w.Value, "no")
}

// editor is the line editor, between the keys and x/term. It hands over one line at a
// time, so that later keys stay where Ctrl-C and questions find them.
type editor struct {
	t       *Terminal
	ctx     context.Context
	x       Executor
	term    *term.Terminal
	history *history

	pending []byte // of keys that were taken
	asking  bool   // a question: the answer has to be typed
	unshown bool   // a password
	dropped bool   // the line ends with Ctrl-C
}

func newEditor(ctx context.Context, t *Terminal, x Executor) *editor {
	e := &editor{t: t, ctx: ctx, x: x}
	e.term = term.NewTerminal(e, prompt)
	e.history = &history{editor: e, secret: secretWords()}
	e.term.History = e.history
	e.term.AutoCompleteCallback = e.onKey
	e.resize()
	return e
}

// errDropped is a line that was ended with Ctrl-C.
var errDropped = errors.New("dropped")

// read shows a prompt and returns a line.
func (e *editor) read(prompt string, asking bool) (string, error) {
	e.term.SetPrompt(prompt)
	e.asking, e.dropped = asking, false
	line, err := e.term.ReadLine()
	if e.dropped {
		return "", errDropped
	}
	return line, err
}

// Write is the editor's echo.
func (e *editor) Write(p []byte) (int, error) { return e.t.rw.Write(p) }

// Read returns the bytes of keys, up to the end of a line. It also handles new sizes:
// x/term holds no lock here.
func (e *editor) Read(p []byte) (int, error) {
	for len(e.pending) == 0 {
		for len(e.pending) < len(p) {
			k, ok, err := e.t.input.take(e.asking)
			if err != nil && len(e.pending) == 0 {
				return 0, err
			}
			if !ok {
				break
			}
			e.dropped = e.dropped || k == keyCtrlC && e.unshown // onKey sees no keys of passwords
			e.pending = appendKey(e.pending, k)
			if k == keyEnter || k == keyCtrlC || k == keyTab {
				break
			}
		}
		if len(e.pending) > 0 {
			break
		}
		select {
		case <-e.ctx.Done():
			return 0, context.Cause(e.ctx)
		case <-e.t.input.resized:
			e.resize()
		case <-e.t.input.ready:
		}
	}
	n := copy(p, e.pending)
	e.pending = e.pending[n:]
	return n, nil
}

func (e *editor) resize() {
	s := e.t.input.current()
	_ = e.term.SetSize(s.width, s.height) // an error of writing comes again with the next write
}

// onKey handles keys that the line editor does not know.
func (e *editor) onKey(line string, pos int, k rune) (string, int, bool) {
	switch {
	case key(k) == keyBell:
		e.dropped = true
		return line + "^C", len(line) + 2, true
	case key(k) == keyTab && !e.asking:
		return e.complete(line, pos)
	case key(k) == keyTab:
		return line, pos, true
	}
	return "", 0, false
}

// mostCandidates is how many candidates a Tab shows.
const mostCandidates = 100

// complete inserts what all candidates for the word at the cursor have in common. If
// that is nothing, it shows them.
func (e *editor) complete(line string, pos int) (string, int, bool) {
	before, after := line[:pos], line[pos:]
	typed, ok := words.Typed(before)
	if !ok {
		return line, pos, true
	}
	start := typed.Start
	word := before[start:]
	candidates := e.x.Complete(before)
	if strings.TrimSpace(before[:start]) == "" {
		for _, own := range []string{wordTop, wordQuit, wordExit} {
			if len(own) >= len(word) && strings.EqualFold(own[:len(word)], word) {
				candidates = append(candidates, own)
			}
		}
		slices.Sort(candidates)
	}
	switch len(candidates) {
	case 0:
		return line, pos, true
	case 1:
		whole := candidates[0]
		if !strings.HasSuffix(whole, "=") && !strings.HasPrefix(after, " ") {
			whole += " "
		}
		return before[:start] + whole + after, start + len(whole), true
	}
	if common := commonPrefix(candidates); len(common) > len(word) {
		return before[:start] + common + after, start + len(common), true
	}
	_, _ = io.WriteString(e.term, e.list(candidates))
	return line, pos, true
}

// list shows candidates in columns.
func (e *editor) list(candidates []string) string {
	more := len(candidates) - mostCandidates
	candidates = candidates[:min(len(candidates), mostCandidates)]
	widest := 0
	for _, c := range candidates {
		widest = max(widest, utf8.RuneCountInString(c))
	}
	columns := max(1, (e.t.input.current().width-1)/(widest+2))
	var b strings.Builder
	for i, c := range candidates {
		b.WriteString(clean(c))
		switch {
		case i == len(candidates)-1 || i%columns == columns-1:
			b.WriteByte('\n')
		default:
			b.WriteString(strings.Repeat(" ", widest+2-utf8.RuneCountInString(c)))
		}
	}
	if more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	return b.String()
}

func commonPrefix(words []string) string {
	common := words[0]
	for _, w := range words[1:] {
		n := 0
		for n < len(common) && n < len(w) && common[n] == w[n] {
			n++
		}
		common = common[:n]
	}
	return strings.ToValidUTF8(common, "")
}

// history remembers lines, except those that may have a secret, and answers to
// questions.
type history struct {
	editor *editor
	secret []string // names of the verbs that take one, in small letters
	lines  []string // the newest last
}

// secretWords returns the names of the verbs that take a secret.
func secretWords() []string {
	var names []string
	verbs := admin.Verbs()
	for i := range verbs {
		if slices.ContainsFunc(verbs[i].Params, func(p admin.Param) bool { return p.Kind == admin.Hash }) {
			for _, n := range append([]string{verbs[i].Name}, verbs[i].Aliases...) {
				names = append(names, strings.ToLower(n))
			}
		}
	}
	return names
}

// Add remembers a line. It skips any line with a $, with which hashes begin: the verb
// may be misspelt.
func (h *history) Add(line string) {
	small := strings.ToLower(line)
	for _, name := range h.secret {
		if strings.Contains(small, name) {
			return
		}
	}
	switch {
	case h.editor.asking, h.editor.dropped, strings.Contains(line, "$"), strings.TrimSpace(line) == "":
		return
	case len(h.lines) > 0 && h.lines[len(h.lines)-1] == line:
		return
	case len(h.lines) == remembered:
		h.lines = slices.Delete(h.lines, 0, 1)
	}
	h.lines = append(h.lines, line)
}

// Len is how many lines are remembered. A question has no history.
func (h *history) Len() int {
	if h.editor.asking {
		return 0
	}
	return len(h.lines)
}

// At returns a line, the newest at 0.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }

// newlines writes to a terminal in raw mode, where a newline needs a carriage
// return.
type newlines struct{ w io.Writer }

func (n newlines) Write(p []byte) (int, error) {
	if _, err := n.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, fmt.Errorf("%w: %w", errGoneWriting, err)
	}
	return len(p), nil
}

// stoppable writes piece by piece, until Ctrl-C.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s stoppable) Write(p []byte) (n int, err error) {
	const piece = 4 << 10
	for len(p) > 0 {
		if errors.Is(context.Cause(s.ctx), errStopped) {
			return n, errStopped
		}
		m, err := s.w.Write(p[:min(piece, len(p))])
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}
