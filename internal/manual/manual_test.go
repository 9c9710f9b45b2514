package manual

import (
	"flag"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

var update = flag.Bool("update", false, "write the table of signals in docs/commands.md")

var someCommands = []Command{
	{"run", "", "run in the foreground", "0 after SIGTERM, 1 failed", []Flag{{"-c", "FILE", "configuration FILE"}}},
	{"convert", "haproxy|nginx FILE", "convert a file", "0", nil},
	{"ctl", "WORDS…", "send commands", "0 done, 1 rejected", []Flag{{"-s", "SOCKET", "where to"}, {"--json", "", "as JSON"}}},
}

// pages are both pages.
func pages() map[string]string {
	date := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	return map[string]string{"txlb.1": Program("0.5.0", date, someCommands), "txlb.xml.5": Configuration("0.5.0", date)}
}

// The pages have a tag for all that the tables have.
func TestPagesHaveTheTables(t *testing.T) {
	p := pages()
	has := func(page, line string) {
		t.Helper()
		if !strings.Contains(p[page], "\n"+line) {
			t.Errorf("%s has no line %s", page, line)
		}
	}
	for _, c := range someCommands {
		has("txlb.1", `.It Ic "`+c.Name+`"`)
	}
	for _, v := range admin.Verbs() {
		has("txlb.1", `.It Ic "`+v.Name+`"`)
	}
	for _, s := range Signals() {
		has("txlb.1", `.It Dv "`+strings.Split(s.Name, ", ")[0]+`"`)
	}
	for _, e := range config.Elements() {
		has("txlb.xml.5", `.Ss "<`+e.Name+`>"`)
		_, section, _ := strings.Cut(p["txlb.xml.5"], `.Ss "<`+e.Name+`>"`)
		section, _, _ = strings.Cut(section, "\n.S")
		rows := config.Attributes(e.Name)
		if got := strings.Count(section, "\n.It Ic"); got != len(rows) {
			t.Errorf("txlb.xml.5 has %d attributes of <%s>, want %d", got, e.Name, len(rows))
		}
		for i := range rows {
			if !strings.Contains(section, "\n.It Ic \""+rows[i].Name+"\"\n") {
				t.Errorf("txlb.xml.5 has no <%s %s>", e.Name, rows[i].Name)
			}
		}
	}
	for _, name := range sched.Names() {
		has("txlb.xml.5", `.It Ic "`+name+`"`)
	}
}

// No mark of Markdown, no line that roff would misread and no letter beyond ASCII is left.
func TestPagesHaveNoMarkdown(t *testing.T) {
	macro := regexp.MustCompile(`^\.[A-Z][a-z]( |$)`)
	for name, text := range pages() {
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			said := strings.ReplaceAll(line, "***", "") // what is shown instead of secrets
			if strings.HasPrefix(line, ".") && !macro.MatchString(line) || strings.HasPrefix(line, "'") || strings.TrimSpace(line) != line && !strings.HasPrefix(line, " ") {
				t.Errorf("%s: %q", name, line)
			}
			if strings.ContainsAny(said, "`\x00") || strings.Contains(said, "**") || strings.Contains(said, "](") || strings.ContainsFunc(said, func(r rune) bool { return r > 126 }) {
				t.Errorf("%s: %q has marks of Markdown, or other letters than ASCII", name, line)
			}
		}
	}
}

func TestInline(t *testing.T) {
	for _, test := range []struct{ markdown, want string }{
		{"plain words", "plain words"},
		{"`auto`: one for each CPU", `\fBauto\fP: one for each CPU`},
		{"**everyone who can** may", `\fBeveryone` + noBreak + `who` + noBreak + `can\fP may`},
		{"of a [route](#route), see [Names](#names); none", "of a route; none"},
		{"as it tries. See [Peers](#peers)", "as it tries"},
		{"ejected (see [Health](health.md)) now", "ejected now"},
		{"`a-b` and a-b, `it's`", `\fBa\-b\fP and a-b, \fBit\(aqs\fP`},
		{`a \ b …`, `a \e b \[u2026]`},
	} {
		if got := inline(test.markdown); got != test.want {
			t.Errorf("%q: %q, want %q", test.markdown, got, test.want)
		}
	}
}

// docs/commands.md has the same signals.
func TestDocumentationHasTheSignals(t *testing.T) {
	var b strings.Builder
	b.WriteString("| signal | does |\n|---|---|\n")
	for _, s := range Signals() {
		b.WriteString("| " + s.Name + " | " + s.Does + " |\n")
	}
	testkit.Tables(t, "../../docs/commands.md", *update, "go test ./internal/manual -run TestDocumentation -update", map[string]string{"signals": b.String()})
}
