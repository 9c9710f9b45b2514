package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/internal/words"
)

func TestShellGreetsAndDoesLines(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		wants(t, plain(tt.raw()), "txlb 1.2, generation 7\n1 problem; see status\nhelp lists", "txlb> ")
		wants(t, tt.press("show hosts\r"), "did show hosts\ntxlb> ")
		wants(t, tt.press("a; b\r"), "did a\ndid b\n")
		wants(t, tt.press("fail; never\r"), "error: first; second ?[31m\n")
		wants(t, tt.press("\"\r"), "error: column 1: the quote is not closed")
		wants(t, tt.press("show hosts --json\r"), `{"text":"did show hosts","generation":8}`+"\n")
		wants(t, tt.press("fail --json\r"), `{"error":"first\nsecond \u001b[31m"}`+"\n")
		wants(t, tt.press("help\r"), "did help\ntop\n    a live view")
		if got := c.heard(); slices.Contains(got, "never") {
			t.Errorf("a command behind one that failed was done: %q", got)
		}
		tt.press("quit\r")
		if err := tt.left(); err != nil {
			t.Error(err)
		}
	})
}

func TestShellKeys(t *testing.T) {
	for name, keys := range map[string]string{
		"moved":             "ostatus\x01\x1b[3~\x05\r",
		"home, end, delete": "xstatus\x1bOH\x1b[3~\x1b[4~\r",
		"words":             "a status\x1bb\x1b[1;5D\x1b[3~\x1b[3~\r",
		"erased":            "statusxyz\x7f\x08\x7f\r",
		"end by Ctrl-J":     "status\n",
		"one end":           "status\r\n",
		"unknown sequences": "st\x1b[17~a\x1b[25;5~tu\x1bOPs\x07\x1b[200;300;400;500;600;700Z\r",
		"half a letter":     "stat\xc3us\xff\r",
		"an escape":         "sta\x1b[1;2\x05tus\r",
		"endless":           "status\x1b[" + strings.Repeat("1", 5000) + "~\r",
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				c := &clerk{}
				tt := openShell(t, c)
				tt.press(keys)
				if got := c.heard(); !slices.Equal(got, []string{"status"}) {
					t.Errorf("it heard %q", got)
				}
			})
		})
	}
}

func TestShellCtrlCDropsTheLine(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		wants(t, tt.press("delHost web\x02\x02\x03"), "delHost web^C\ntxlb> ")
		wants(t, tt.press("status\r"), "txlb 1.2")
		tt.press("\x1b[A\x1b[A\r") // the dropped line is not in the history
		tt.press("\x1b[200~pasted\x03typed\r")
		if got := c.heard(); !slices.Equal(got, []string{"status", "status", "typed"}) {
			t.Errorf("it heard %q", got)
		}
	})
}

func TestShellCtrlCStopsWhatRuns(t *testing.T) {
	for name, stop := range map[string]func(*tty) string{
		"key":    func(tt *tty) string { return tt.press("\x03") },
		"signal": func(tt *tty) string { tt.term.Interrupt(); synctest.Wait(); return plain(tt.raw()) },
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				c := &clerk{}
				tt := openShell(t, c)
				tt.press("hang\r")
				tt.press("typedAhead\r")
				if got := c.heard(); !slices.Equal(got, []string{"hang"}) {
					t.Fatalf("it heard %q", got)
				}
				wants(t, stop(tt), "error: stopped\n", "txlb> ")
				wants(t, tt.press("next\r"), "did next")
				if got := c.heard(); !slices.Equal(got, []string{"hang", "next"}) {
					t.Errorf("it heard %q", got)
				}
			})
		})
	}
}

func TestShellCtrlCStopsLongOutput(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var tt *tty
		stopped := false
		c := &clerk{reply: func(words.Command) (admin.Result, error) {
			return admin.Result{Text: strings.Repeat("line\n", 1<<20)}, nil
		}}
		in, keys := io.Pipe()
		out := writer(func(p []byte) (int, error) {
			if !stopped && strings.Contains(string(p), "line") {
				stopped = true
				tt.term.Interrupt()
			}
			return tt.Write(p)
		})
		tt = &tty{t: t, keys: keys}
		tt.term = New(struct {
			io.Reader
			io.Writer
		}{in, out}, Options{})
		go func() { _ = tt.term.Shell(t.Context(), c) }()
		got := tt.press("x\r")
		if len(got) > 64<<10 || !strings.HasSuffix(got, "txlb> ") {
			t.Errorf("%d bytes came, the last of them %q", len(got), got[max(0, len(got)-50):])
		}
		_ = keys.Close()
		tt.term.Wait()
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestShellEnds(t *testing.T) {
	stopping := errors.New("stopping")
	for name, c := range map[string]struct {
		do   func(*tty, *clerk)
		want error
	}{
		"Ctrl-D": {func(tt *tty, _ *clerk) { tt.press("\x04") }, nil},
		"exit":   {func(tt *tty, _ *clerk) { tt.press("  EXIT \r") }, nil},
		"quit on a line": {func(tt *tty, c *clerk) {
			tt.press("a; quit; b\r")
			if got := c.heard(); !slices.Equal(got, []string{"a"}) {
				tt.t.Errorf("it heard %q", got)
			}
		}, nil},
		"nothing more is typed": {func(tt *tty, _ *clerk) { _ = tt.keys.Close() }, nil},
		"nothing more is typed behind lines": {func(tt *tty, c *clerk) {
			tt.press("a\rb\r")
			_ = tt.keys.Close()
			synctest.Wait()
			if got := c.heard(); !slices.Equal(got, []string{"a", "b"}) {
				tt.t.Errorf("it heard %q", got)
			}
		}, nil},
		"the terminal goes":              {func(tt *tty, _ *clerk) { _ = tt.keys.CloseWithError(io.ErrNoProgress) }, io.ErrNoProgress},
		"the terminal goes meanwhile":    {func(tt *tty, _ *clerk) { tt.press("hang\r"); _ = tt.keys.CloseWithError(io.ErrNoProgress) }, errHangup},
		"the context ends":               {func(tt *tty, _ *clerk) { tt.end(stopping) }, stopping},
		"the context ends meanwhile":     {func(tt *tty, _ *clerk) { tt.press("hang\r"); tt.end(stopping) }, stopping},
		"the context ends at a question": {func(tt *tty, _ *clerk) { tt.press("delService web\r"); tt.end(stopping) }, stopping},
		"the user is gone":               {func(tt *tty, c *clerk) { c.gone = true; wants(tt.t, tt.press("x\r"), `user "boss" was deleted`) }, ErrEnd},
		"no output is taken": {func(tt *tty, _ *clerk) {
			tt.mu.Lock()
			tt.err = io.ErrClosedPipe
			tt.mu.Unlock()
			tt.press("x\r")
		}, io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				k := &clerk{}
				tt := openShell(t, k)
				c.do(tt, k)
				if err := tt.left(); !errors.Is(err, c.want) {
					t.Errorf("it ends with %v, want %v", err, c.want)
				}
				if !strings.HasSuffix(tt.raw(), "\x1b[?2004l") && c.want != io.ErrClosedPipe {
					t.Errorf("the terminal still marks what is pasted: %q", tt.raw())
				}
			})
		})
	}
}

func TestShellPaste(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		var text strings.Builder
		var want []string
		for i := range 500 {
			fmt.Fprintf(&text, "line%d\twith\ta tab\x1b[A\r", i)
			want = append(want, fmt.Sprintf("line%d with a tab", i))
		}
		got := tt.press("\x1b[200~" + text.String() + "unfinished\x1b[201~")
		if heard := c.heard(); !slices.Equal(heard, want) {
			t.Errorf("it heard %d lines, %q…", len(heard), heard[:min(3, len(heard))])
		}
		at := 0
		for i := range 500 {
			next := strings.Index(got[at:], fmt.Sprintf("did line%d with", i))
			if next < 0 {
				t.Fatalf("answer %d is missing or out of order", i)
			}
			at += next
		}
		wants(t, tt.press(" line\r"), "did unfinished line")

		// The same without marks, as of a terminal that does not know them.
		c.told = nil
		tt.press(strings.ReplaceAll(strings.ReplaceAll(text.String(), "\t", " "), "\x1b[A", ""))
		if heard := c.heard(); !slices.Equal(heard, want) {
			t.Errorf("without marks it heard %d lines", len(heard))
		}
	})
}

func TestShellAsksBeforeWhatCannotBeTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		keys string
		want []string
	}{
		"yes":                    {"delHost web main a\ry\r", []string{"delHost web main a"}},
		"yes, in full":           {"delService web\rYES\r", []string{"delService web"}},
		"no":                     {"delHost web main a\rn\rstatus\r", []string{"status"}},
		"nothing":                {"delHost web main a\r\rstatus\r", []string{"status"}},
		"anything":               {"shutdown\rstatus\rstatus\r", []string{"status"}},
		"Ctrl-C":                 {"shutdown\ry\x03status\r", []string{"status"}},
		"harmless":               {"hostAdminDown web main a\r", []string{"hostAdminDown web main a"}},
		"dry":                    {"delHost web main a --dry-run\r", []string{"delHost web main a dry-run=yes"}},
		"dry in name only":       {"delHost web main a dryRun=no\rn\r", nil},
		"once for a line":        {"delHost web main a; status; delHost web main b\ry\r", []string{"delHost web main a", "status", "delHost web main b"}},
		"in any case":            {"DELHOST web main a\rn\r", nil},
		"a paste answers not":    {"\x1b[200~delHost web main a\ry\rnext\r\x1b[201~n\r", []string{"y", "next"}},
		"a paste waits for it":   {"\x1b[200~delHost web main a\rnext\r\x1b[201~y\r", []string{"delHost web main a", "next"}},
		"a paste without an end": {"\x1b[200~delHost web main a\rnext\r", nil},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				k := &clerk{}
				tt := openShell(t, k)
				tt.press(c.keys)
				if got := k.heard(); !slices.Equal(got, c.want) {
					t.Errorf("it heard %q, want %q\n%s", got, c.want, plain(tt.raw()))
				}
			})
		})
	}
}

func TestShellHistory(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		tt.press("one\rtwo\rtwo\raddUser joe $6$salt$hash full\rADDUSER\radUser joe $6$x$y full\r   \rdelHost a b c\rn\r")
		c.told = nil
		tt.press("\x1b[A\x1b[A\x1b[A\x10\x10\r") // up to the first, and no further
		tt.press("\x1b[A\x1b[A\x1b[A\x1b[A\x1b[B\r")
		if got := c.heard(); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("it heard %q", got)
		}
		for i := range 3 * remembered {
			tt.press(fmt.Sprintf("l%d\r", i))
		}
		c.told = nil
		tt.press(strings.Repeat("\x1b[A", 4*remembered) + "\r")
		if got, want := c.heard(), []string{fmt.Sprintf("l%d", 2*remembered)}; !slices.Equal(got, want) {
			t.Errorf("the oldest line is %q, want %q", got, want)
		}
	})
}

func TestShellCompletes(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		tt.press("sta\t\r")
		tt.press("to\t\r") // of the console itself
		tt.press("q")
		tt.press("xy\x01\x1b[C\x1b[C\t\x03") // none fits
		wants(t, tt.press("sh\t"), "show        show hosts  shutdown\ntxlb> sh")
		tt.press("u\t\x03")
		got := tt.press("many \t\t")
		wants(t, got, "host0 ", "and 900 more\n")
		tt.press("\x03")
		if got := c.heard(); !slices.Equal(got, []string{"status", "status", "show services", "show hosts"}) { // all but the first are of top
			t.Errorf("it heard %q", got)
		}
	})
}

// TestShellInAnySize has lines much longer than the terminal is wide, and
// changes the size all the time.
func TestShellInAnySize(t *testing.T) {
	for _, width := range []int{0, 1, 2, 7, 40, 5000} {
		testkit.Bubble(t, func(t *testing.T) {
			c := &clerk{}
			tt := open(t, Options{Width: width, Height: width}, func(ctx context.Context, term *Terminal) error { return term.Shell(ctx, c) })
			long := strings.Repeat("x", 200)
			for i := range 20 {
				tt.press(long[:100])
				tt.term.Resize(width+i, 3)
				synctest.Wait()
				tt.press(long[100:] + "\r")
				tt.press("many \t\x03")
			}
			if got := c.heard(); len(got) != 20 || got[19] != long {
				t.Errorf("width %d: it heard %d lines", width, len(got))
			}
		})
	}
}

func TestShellRefusesLinesThatLoseTheirEnd(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c := &clerk{}
		tt := openShell(t, c)
		wants(t, tt.press(strings.Repeat("x", 5000)+"\r"), "error: the line is too long: at most 4095 letters")
		wants(t, tt.press(strings.Repeat("ä", longestTyped-1)+"\r"), "did ää")
		if got := c.heard(); len(got) != 1 {
			t.Errorf("it heard %d lines", len(got))
		}
	})
}

// TestTypedAheadIsBounded types more than there is room for while a command
// runs: nothing is lost but by Ctrl-C, and reading goes on when there is room.
func TestTypedAheadIsBounded(t *testing.T) {
	testkit.Long(t)
	testkit.Bubble(t, func(t *testing.T) {
		hold := make(chan struct{})
		c := &clerk{reply: func(cmd words.Command) (admin.Result, error) {
			if cmd.Verb == "wait" {
				<-hold
			}
			return admin.Result{}, nil
		}}
		tt := openShell(t, c)
		tt.press("wait\r")
		const lines = 3 * typedAhead / 8
		go func() { _, _ = io.WriteString(tt.keys, strings.Repeat("7letter\r", lines)) }()
		synctest.Wait()
		tt.term.input.mu.Lock()
		if n := len(tt.term.input.queue); n != typedAhead {
			t.Errorf("%d keys wait", n)
		}
		tt.term.input.mu.Unlock()
		close(hold)
		synctest.Wait()
		if got := c.heard(); len(got) != lines+1 {
			t.Errorf("it heard %d lines of %d", len(got), lines+1)
		}
	})
}
