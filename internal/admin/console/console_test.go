package console

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/admin"
)

func TestRunTellsTheStatus(t *testing.T) {
	for line, want := range map[string]struct {
		status    int
		out, errs string
	}{
		"":                      {0, "", ""},
		"# nothing":             {0, "", ""},
		"a; b":                  {0, "did a\ndid b\n", ""},
		"a; fail; b":            {1, "did a\n", "error: first; second ?[31m\n"},
		"a; bad":                {2, "did a\n", "error: unknown verb: there is no verb bad\n"},
		"a \"":                  {2, "", "error: column 3: the quote is not closed; end it with \"\n"},
		"top":                   {1, "", "error: top needs a terminal: ssh -t gives one\n"},
		"top --json":            {1, `{"error":"top needs a terminal: ssh -t gives one"}` + "\n", ""},
		"a --json x; b":         {0, `{"text":"did a x","generation":8}` + "\ndid b\n", ""},
		"a json=no":             {0, "did a json=no\n", ""},
		`a "--json"`:            {0, "did a \"--json\"\n", ""},
		"a --json=yes; quit; b": {0, `{"text":"did a","generation":8}` + "\n", ""},
	} {
		var out, errs bytes.Buffer
		if got := Run(t.Context(), &clerk{}, line, &out, &errs, Style{}); got != want.status || out.String() != want.out || errs.String() != want.errs {
			t.Errorf("%s: status %d\nout %q\nerr %q", line, got, out.String(), errs.String())
		}
	}
}

func TestScriptStopsAtTheFirstFailure(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		status int
		heard  []string
		errs   string
	}{
		"all":          {"a\r\n\n# x\nb; c\nd", 0, []string{"a", "b", "c", "d"}, ""},
		"failure":      {"a\nfail\nb\n", 1, []string{"a", "fail"}, "line 2: error: first; second ?[31m\n"},
		"unknown":      {"\n\nbad\nb", 2, []string{"bad"}, "line 3: error: unknown verb: there is no verb bad\n"},
		"quit":         {"a\nexit\nb", 0, []string{"a"}, ""},
		"a long line":  {"a\n" + strings.Repeat("x", longestLine+1) + "\nb", 1, []string{"a"}, "line 2: error: it has more than 131072 bytes\n"},
		"a long word":  {strings.Repeat("x", 100<<10) + "\nb", 2, nil, "line 1: error: the line has 102400 bytes; the maximum is 65536\n"},
		"no questions": {"delService web\ndelService mail\n", 0, []string{"delService web", "delService mail"}, ""},
	} {
		var out, errs bytes.Buffer
		k := &clerk{}
		status := Script(t.Context(), k, strings.NewReader(c.text), &out, &errs, Style{})
		if status != c.status || !slices.Equal(k.heard(), c.heard) || errs.String() != c.errs {
			t.Errorf("%s: status %d, heard %q\nerr %q", name, status, k.heard(), errs.String())
		}
	}
}

// TestOwnWordsAreNoVerbs fails when the table of verbs gets what the console
// takes for itself.
func TestOwnWordsAreNoVerbs(t *testing.T) {
	for _, v := range admin.Verbs() {
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			if slices.Contains([]string{wordTop, wordQuit, wordExit}, strings.ToLower(name)) {
				t.Errorf("the verb %s is also a word of the console", name)
			}
		}
		for _, p := range v.Params {
			if strings.EqualFold(p.Name, "json") {
				t.Errorf("%s has a parameter json", v.Name)
			}
		}
	}
}

func TestColourIsForWhatItSays(t *testing.T) {
	hosts := admin.Result{
		Text: "service  group  host  state  health\nweb      main   hé    ready  down: no  answer\nweb      main   b     drain  up\nweb      main   c     maint  up",
		Data: []admin.HostInfo{{State: "ready"}, {State: "drain", Up: true}, {State: "maint", Up: true}},
	}
	services := admin.Result{
		Text: "service    up  sessions\nweb       0/2         1\nmail      1/2         1\ndns     10/10         1",
		Data: []admin.ServiceInfo{{Hosts: 2}, {Hosts: 2, HostsUp: 1}, {Hosts: 10, HostsUp: 10}},
	}
	for name, c := range map[string]struct {
		result admin.Result
		want   string
	}{
		"hosts": {hosts, "\x1b[1mservice  group  host  state  health\x1b[0m\n" +
			"web      main   hé    ready  \x1b[31mdown: no\x1b[0m  answer\n" +
			"web      main   b     \x1b[33mdrain\x1b[0m  \x1b[32mup\x1b[0m\n" +
			"web      main   c     \x1b[33mmaint\x1b[0m  \x1b[33mup\x1b[0m\n"},
		"services": {services, "\x1b[1mservice    up  sessions\x1b[0m\n" +
			"web       \x1b[31m0/2\x1b[0m         1\nmail      \x1b[33m1/2\x1b[0m         1\ndns     \x1b[32m10/10\x1b[0m         1\n"},
		"status": {admin.Result{Text: "head\nbad", Data: admin.Status{Problems: []string{"bad"}}}, "head\n\x1b[31mbad\x1b[0m\n"},
		"other":  {admin.Result{Text: "a\x1b[2Jb\r\n\u202ec\u0085\xff"}, "a?[2Jb\n?c??\n"},
	} {
		var coloured, bare bytes.Buffer
		if err := errors.Join(Render(&coloured, c.result, Style{Color: true}), Render(&bare, c.result, Style{})); err != nil {
			t.Fatal(err)
		}
		if coloured.String() != c.want {
			t.Errorf("%s:\n%q, want\n%q", name, coloured.String(), c.want)
		}
		if bare.String() != sequence.ReplaceAllString(c.want, "") {
			t.Errorf("%s without colour: %q", name, bare.String())
		}
	}
}

// FuzzKeys feeds any bytes: the keys are the same however the bytes come cut,
// pasted text has no control characters, and the decoder always comes back.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"abc\r\n", "\x1b[A\x1bOB\x1b[1;5C", "\x1b[200~a\tb\x1b[Ac\r\n\x1b[201~d", "ä\xc3\x28€\xf0\x9f", "\x1b\x1b[\x1b[1", "\x1b[200~\x03x", "\x1b[[A"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var whole, cut decoder
		var a, b []key
		for _, c := range text {
			if k, ok := whole.feed(c); ok {
				a = append(a, k)
				if whole.paste && (k < ' ' && k != keyEnter || k == 0x7f || k > keyEscape) {
					t.Fatalf("%q: pasted %#x", text, k)
				}
			}
		}
		for _, c := range text {
			if k, ok := cut.feed(c); ok {
				b = append(b, k)
			}
			// A byte that comes alone may be an escape key; what follows it is
			// then no longer held by Alt.
			if k, ok := cut.rest(); ok && k != keyEscape {
				t.Fatalf("%q: rest gives %#x", text, k)
			}
		}
		if !strings.Contains(string(text), "\x1b") && !slices.Equal(a, b) {
			t.Fatalf("%q: %x whole, %x cut", text, a, b)
		}
		for _, d := range []*decoder{&whole, &cut} {
			d.feed('\x03')
			if k, ok := d.feed('x'); !ok || k != 'x' {
				t.Fatalf("%q: it does not come back: %#x %v", text, k, ok)
			}
			if len(d.seq) > longestSequence || len(d.letter) > 4 {
				t.Fatalf("%q: it keeps %d and %d bytes", text, len(d.seq), len(d.letter))
			}
		}
		for _, k := range a {
			if enc := appendKey(nil, k); len(enc) > 8 {
				t.Fatalf("%#x is %q", k, enc)
			}
		}
	})
}
