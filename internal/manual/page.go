package manual

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// page is a manual page in mdoc(7).
type page struct{ strings.Builder }

// newPage begins a page with its NAME. Of it becomes the footer what.
func newPage(title, section, name, about, what string, date time.Time) *page {
	p := &page{}
	p.macro("Dd", date.UTC().Format("January 2, 2006"))
	p.macro("Dt", title, section)
	p.macro("Os", quoted(what))
	p.section("NAME")
	p.macro("Nm", name)
	p.macro("Nd", plain(about))
	return p
}

// macro writes a line of a macro with its arguments, which are already escaped.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + strings.Join(append([]string{name}, args...), " ") + "\n")
}

func (p *page) section(title string) { p.macro("Sh", title) }

// list writes a list of tags with their texts.
func (p *page) list(items func()) {
	p.macro("Bl", "-tag", "-width", "Ds")
	items()
	p.macro("El")
}

// item writes a tag of a list, a name and what stands behind it, and its text in
// sentences of Markdown.
func (p *page) item(name, rest string, sentences ...string) {
	args := []string{"Ic", quoted(name)}
	if rest != "" {
		args = append(args, "Ar", quoted(rest))
	}
	p.macro("It", args...)
	for _, s := range sentences {
		if s != "" {
			p.text(s)
		}
	}
}

// example writes lines as they are.
func (p *page) example(lines string) {
	p.macro("Bd", "-literal", "-offset", "indent")
	for line := range strings.Lines(lines) {
		p.WriteString(atLineStart(escape(strings.TrimSuffix(line, "\n"), true)) + "\n")
	}
	p.macro("Ed")
}

// paragraph separates what follows from what stands before.
func (p *page) paragraph() { p.macro("Pp") }

// sentence makes a sentence of a line of help, which has no full stop.
func sentence(help string) string {
	help = strings.TrimSuffix(help, ".")
	if r, n := utf8.DecodeRuneInString(help); r >= 'a' && r <= 'z' && !startsWithName(help) {
		help = strings.ToUpper(help[:n]) + help[n:]
	}
	return help + "."
}

// startsWithName tells whether the first word is a name whose case counts, such as
// txlb or http:.
func startsWithName(help string) bool {
	first, _, _ := strings.Cut(help, " ")
	return first == "txlb" || strings.HasSuffix(first, ":") || strings.ContainsAny(first, "./=")
}

// width is the longest line of text.
const width = 76

// text writes Markdown as lines of text: a new line for each sentence, as mdoc wants it.
func (p *page) text(markdown string) {
	line := ""
	flush := func() {
		if line != "" {
			p.WriteString(atLineStart(line) + "\n")
			line = ""
		}
	}
	for _, word := range strings.Fields(inline(markdown)) {
		if line != "" && len(line)+1+len(word) > width {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += strings.ReplaceAll(word, noBreak, `\ `)
		if end := strings.TrimRight(word, `)"`); strings.HasSuffix(end, ".") || strings.HasSuffix(end, "?") || strings.HasSuffix(end, "!") {
			flush()
		}
	}
	flush()
}

// noBreak holds words of code together while a text is broken into lines.
const noBreak = "\x00"

var (
	link = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	// see matches what sends the reader to another part of the documentation.
	see  = regexp.MustCompile(`[,.]? ?\(?[sS]ee \[[^\]]*\]\([^)]*\)\)?`)
	span = regexp.MustCompile("`([^`]*)`|" + `\*\*([^*]*)\*\*`)
)

// inline turns the marks of Markdown in a sentence into those of roff. What it says of
// other parts of the documentation is left out.
func inline(markdown string) string {
	markdown = link.ReplaceAllString(see.ReplaceAllString(markdown, ""), "$1")
	var b strings.Builder
	at := 0
	for _, m := range span.FindAllStringSubmatchIndex(markdown, -1) {
		b.WriteString(escape(markdown[at:m[0]], false))
		from, to, code := m[2], m[3], true
		if from < 0 {
			from, to, code = m[4], m[5], false
		}
		b.WriteString(`\fB` + strings.ReplaceAll(escape(markdown[from:to], code), " ", noBreak) + `\fP`)
		at = m[1]
	}
	b.WriteString(escape(markdown[at:], false))
	return b.String()
}

var (
	everywhere = strings.NewReplacer(`\`, `\e`)
	// In code, these stand for themselves, and not for what typesetters make of them.
	inCode = strings.NewReplacer("-", `\-`, "'", `\(aq`, "`", `\(ga`, "~", `\(ti`, "^", `\(ha`)
)

// escape writes text so that roff shows it as it is, also where it has only ASCII.
func escape(text string, code bool) string {
	text = everywhere.Replace(text)
	if code {
		text = inCode.Replace(text)
	}
	var b strings.Builder
	for _, r := range text {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// atLineStart keeps roff from taking the first letter of a line for a macro's.
func atLineStart(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// plain is a sentence without marks, as an argument of a macro that takes a line.
func plain(s string) string { return escape(s, false) }

// quoted is one argument of a macro.
func quoted(s string) string {
	return `"` + strings.ReplaceAll(escape(s, true), `"`, `""`) + `"`
}
