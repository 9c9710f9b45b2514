package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/internal/words"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// clerk is an Executor that writes down what it is told. The verb hang waits
// for its context; what is not in the table of verbs fails.
type clerk struct {
	mu    sync.Mutex
	told  []string
	gone  bool
	reply func(words.Command) (admin.Result, error)
}

func (c *clerk) Execute(ctx context.Context, cmd words.Command) (admin.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, cmd.String())
	switch {
	case c.gone:
		return admin.Result{}, fmt.Errorf("user %q was deleted: %w", "boss", ErrEnd)
	case cmd.Verb == "hang":
		c.mu.Unlock()
		<-ctx.Done()
		c.mu.Lock()
		return admin.Result{}, ctx.Err()
	case cmd.Verb == "status":
		return admin.Result{Text: "txlb 1.2, generation 7\nhost a is down", Data: admin.Status{Generation: 7, Problems: []string{"host a is down"}}, Generation: 7}, nil
	case cmd.Verb == "bad":
		return admin.Result{}, fmt.Errorf("%w: there is no verb bad", admin.ErrUnknownVerb)
	case cmd.Verb == "fail":
		return admin.Result{}, errors.New("first\nsecond \x1b[31m")
	case c.reply != nil:
		return c.reply(cmd)
	}
	return admin.Result{Text: "did " + cmd.String(), Generation: 8}, nil
}

func (c *clerk) Complete(line string) []string {
	var list []string
	for _, w := range []string{"show", "status", "shutdown", "show hosts"} {
		if strings.HasPrefix(w, line) {
			list = append(list, w)
		}
	}
	if strings.HasPrefix(line, "many ") {
		for i := range 1000 {
			list = append(list, fmt.Sprintf("host%d", i))
		}
	}
	return list
}

// heard returns what was told, without the status of the greeting.
func (c *clerk) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.told) > 0 && c.told[0] == "status" {
		return c.told[1:]
	}
	return c.told
}

// tty is a terminal in memory with a shell on it, inside a synctest bubble.
type tty struct {
	t    *testing.T
	term *Terminal
	keys *io.PipeWriter
	end  context.CancelCauseFunc
	done chan error // of what runs on it

	mu  sync.Mutex
	out bytes.Buffer
	err error // of writing
}

func (tt *tty) Write(p []byte) (int, error) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	if tt.err != nil {
		return 0, tt.err
	}
	return tt.out.Write(p)
}

// open runs something on a new terminal.
func open(t *testing.T, opt Options, on func(context.Context, *Terminal) error) *tty {
	t.Helper()
	in, keys := io.Pipe()
	ctx, end := context.WithCancelCause(t.Context())
	tt := &tty{t: t, keys: keys, end: end, done: make(chan error, 1)}
	tt.term = New(struct {
		io.Reader
		io.Writer
	}{in, tt}, opt)
	go func() { tt.done <- on(ctx, tt.term) }()
	t.Cleanup(func() {
		end(errors.New("test over"))
		_ = keys.Close()
		tt.term.Wait()
	})
	synctest.Wait()
	return tt
}

func openShell(t *testing.T, x Executor) *tty {
	t.Helper()
	return open(t, Options{}, func(ctx context.Context, term *Terminal) error { return term.Shell(ctx, x) })
}

// press types, and returns what was written since, without escape sequences.
func (tt *tty) press(keys string) string {
	tt.t.Helper()
	tt.mu.Lock()
	tt.out.Reset()
	tt.mu.Unlock()
	if _, err := io.WriteString(tt.keys, keys); err != nil {
		tt.t.Fatal(err)
	}
	synctest.Wait()
	return plain(tt.raw())
}

func (tt *tty) raw() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.out.String()
}

var sequence = regexp.MustCompile("\x1b\\[[?0-9;]*[A-Za-z]")

func plain(s string) string {
	return strings.ReplaceAll(sequence.ReplaceAllString(s, ""), "\r\n", "\n")
}

// left waits for the end of what runs, and returns its error.
func (tt *tty) left() error {
	tt.t.Helper()
	synctest.Wait()
	select {
	case err := <-tt.done:
		return err
	default:
		tt.t.Fatalf("it goes on:\n%s", plain(tt.raw()))
		return nil
	}
}

func wants(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, w := range all {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}
