// Package page turns one reading of the running state into HTML. It does no HTTP
// and knows no passwords.
//
// The server makes one [Feed], and sends what [Feed.Next] returns once a second to
// every live page, as the event "figures" of /api/v1/events. All links are relative.
// The pages expect these paths, below whatever prefix a proxy removes:
//
//	GET  /           Pages.Running    parameters as ParseQuery reads them; refresh
//	GET  /manage     Pages.Manage     service, group, name: what can be done with one of them
//	GET  /ask        Pages.Ask        verb and its parameters: the question before it is done
//	GET  /configs    Pages.Configs
//	GET  /events     Pages.Events
//	GET  /sessions   Pages.Sessions
//	GET  /explain    Pages.Explain    id
//	GET  /fleet      Pages.Fleet
//	GET  /history    NewHistory       id, repeated: JSON
//	GET  /static/…   Pages.Static     names with hashes of the content: cacheable for ever
//	POST /VERB       Pages.Done       the answer to a verb, done or refused
//
// Requests of htmx have the header HX-Request: true. For them Source.Part must be
// set, and only the changing part is written. Forms post the parameters of verbs by
// their names, and generation.
//
// Everything works without JavaScript; with it, the page is live. The pages work
// under ContentSecurityPolicy.
package page

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
)

// ContentSecurityPolicy is the header of that name for the pages.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Pages writes pages. Its methods may be called from any goroutine. Each writes a
// whole page, or the changing part for Source.Part, or nothing and an error.
type Pages struct {
	templates *template.Template
	files     files
}

// New returns Pages.
func New() *Pages {
	p := &Pages{files: newFiles()}
	p.templates = template.Must(template.New("").Funcs(p.functions()).ParseFS(embedded, "templates/*.html"))
	return p
}

// page is what the templates see.
type page struct {
	View    *View
	Kind    string // which one
	Title   string
	Icon    string
	Root    string // where the pages are, seen from this one: "./"
	Refresh string // of <meta http-equiv="refresh">, "" for none
	Nav     []navigation
	Data    any
}

type navigation struct {
	Address, Text string
	Here          bool
}

// Running writes the page of all services. With Source.Message it is also the answer
// to a verb; see Done.
func (p *Pages) Running(w io.Writer, v *View) error {
	return p.write(w, v, "running", v.Refresh, "", nil)
}

// Done writes the answer to a posted verb: for htmx Source.Message alone, otherwise
// the running page with it, which then refreshes itself at /.
func (p *Pages) Done(w io.Writer, v *View) error {
	if v.Part {
		return p.write(w, v, "done", 0, "", nil)
	}
	return p.write(w, v, "running", v.Refresh, "; url=./", nil)
}

// Manage writes the page of one service, group or host with its verbs. If there is
// none with the name, it writes a page that says so and returns ErrNotFound.
func (p *Pages) Manage(w io.Writer, v *View, at Where) error {
	m, err := v.manage(at)
	if err != nil {
		return p.missing(w, v, err)
	}
	return p.write(w, v, "manage", 0, "", m)
}

// Ask writes the question before a verb, with the parameters of the question's
// address. The error is as for Manage.
func (p *Pages) Ask(w io.Writer, v *View, verb string, params map[string][]string) error {
	q, err := v.ask(verb, params)
	if err != nil {
		return p.missing(w, v, err)
	}
	if !v.CanChange {
		return p.missing(w, v, ErrReadonly)
	}
	return p.write(w, v, "ask", 0, "", q)
}

func (p *Pages) missing(w io.Writer, v *View, err error) error {
	text := err.Error()
	if werr := p.write(w, v, "missing", 0, "", strings.ToUpper(text[:1])+text[1:]+"."); werr != nil {
		return werr
	}
	return err
}

// Missing writes the page of a path that there is not.
func (p *Pages) Missing(w io.Writer, v *View, path string) error {
	return p.write(w, v, "missing", 0, "", "There is nothing at "+short(path)+".")
}

// Configs writes the page that compares the running configuration with the
// stored one.
func (p *Pages) Configs(w io.Writer, v *View, c Configs) error {
	return p.write(w, v, "configs", 0, "", comparison{c, sideBySide(c.Running, c.Stored)})
}

// Events writes the page of all of Source.Events.
func (p *Pages) Events(w io.Writer, v *View) error {
	list := slices.Clone(v.Events)
	slices.Reverse(list)
	return p.write(w, v, "events", v.Refresh, "", list)
}

// Sessions writes the page of open sessions.
func (p *Pages) Sessions(w io.Writer, v *View, list SessionList) error {
	return p.write(w, v, "sessions", v.Refresh, "", list)
}

// Explain writes the page of one session. If it is not known, it writes a page that says so and
// returns ErrNotFound.
func (p *Pages) Explain(w io.Writer, v *View, e Explained) error {
	if err := p.write(w, v, "explain", v.Refresh, "", e); err != nil || e.Session != nil {
		return err
	}
	return ErrNotFound
}

// Clients writes the page of clients.
func (p *Pages) Clients(w io.Writer, v *View, list []admin.ClientInfo) error {
	return p.write(w, v, "clients", v.Refresh, "", list)
}

// Fleet writes the page of the fleet. If the process is in none, it writes a page that says so and
// returns ErrNotFound.
func (p *Pages) Fleet(w io.Writer, v *View) error {
	f := v.Fleet()
	if f == nil {
		return p.missing(w, v, ErrNotFound)
	}
	return p.write(w, v, "fleet", v.Refresh, "", f)
}

func (p *Pages) write(w io.Writer, v *View, kind string, refresh time.Duration, to string, data any) error {
	pg := page{View: v, Kind: kind, Data: data, Title: v.title(kind), Root: cmp.Or(v.Root, "./")}
	pg.Icon = map[Level]string{Warning: "warning.svg", Critical: "critical.svg"}[v.Overall]
	if pg.Icon == "" {
		pg.Icon = "fine.svg"
	}
	if refresh > 0 {
		pg.Refresh = strconv.Itoa(int(math.Ceil(refresh.Seconds()))) + to
	}
	for _, n := range []struct{ address, text, kind string }{
		{"", "Running", "running"}, {"sessions", "Sessions", "sessions"}, {"clients", "Clients", "clients"}, {"fleet", "Fleet", "fleet"}, {"events", "Events", "events"}, {"configs", "Configs", "configs"},
	} {
		if n.kind == "fleet" && v.Reading.Fleet == nil {
			continue
		}
		pg.Nav = append(pg.Nav, navigation{pg.Root + n.address, n.text, n.kind == kind || n.kind == "sessions" && kind == "explain"})
	}
	name := "shell"
	if v.Part {
		name = "part"
	}
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, pg); err != nil {
		return fmt.Errorf("write the page %s: %w", kind, err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// title is the page's name in a row of tabs: the state comes first.
func (v *View) title(kind string) string {
	sign := "✓ txlb"
	if n := v.Count(); n > 0 {
		sign = "▲ " + plural(n, "problem") + " · txlb"
		if v.Overall == Critical {
			sign = "✖ " + plural(n, "problem") + " · txlb"
		}
	}
	if kind != "running" && kind != "done" {
		sign += " · " + kind
	}
	return sign
}

// Static returns an embedded file by its name under /static/, with its media type.
// Names have a hash of the content, so answers may be cached for ever.
func (p *Pages) Static(name string) (data []byte, mediaType string, ok bool) {
	f, ok := p.files.byAddress[name]
	return f.data, f.mediaType, ok
}

// with gives a template a View and its own data.
type withRow struct {
	View *View
	Row  *HostRow
}
type withGroup struct {
	View  *View
	Group *GroupView
}
type withEvent struct {
	View  *View
	Event Event
}

// Address returns where a static file such as page.css is, from the folder of the
// pages.
func (p *Pages) Address(name string) (string, error) { return p.files.address(name) }

func (p *Pages) functions() template.FuncMap {
	return template.FuncMap{
		"static":  p.files.address,
		"count":   count[int64],
		"count64": count[int],
		"ucount":  count[uint64],
		"decimal": decimal,
		"bytes":   amount,
		"bytesOf": func(n uint64) string { return amount(float64(n)) },
		"took":    took,
		"millis":  func(d time.Duration) string { return took(milliseconds(d)) },
		"since":   since,
		"span":    span,
		"ago":     ago,
		"left":    left,
		"clock":   clock,
		"short":   short,
		"clip":    clip,
		"plural":  plural,
		"dash": func(s string) string {
			if s == "" {
				return "–"
			}
			return s
		},
		"sessionID":  admin.FormatSessionID,
		"sign":       func(l Level) string { return [...]string{"✓", "●", "▲", "✖"}[l] },
		"healthMark": func(h string) template.HTML { return healthMarks[h] },
		"kindSign": func(kind string) string {
			if s, ok := kindSigns[kind]; ok {
				return s
			}
			return "●"
		},
		"where":  func(service, group, name string) Where { return Where{service, group, name} },
		"row":    func(v *View, r HostRow) withRow { return withRow{v, &r} },
		"group":  func(v *View, g GroupView) withGroup { return withGroup{v, &g} },
		"event":  func(v *View, e Event) withEvent { return withEvent{v, e} },
		"from":   func(id string, n int) string { return id + " " + strconv.Itoa(n) },
		"sorts":  func() []Choice { return sortChoices },
		"recent": recent,
		"sortLink": func(v *View, by, text string) template.HTML {
			return p.sortLink(v, by, text)
		},
	}
}

// recentEvents is how many events the running page shows.
const recentEvents = 8

func recent(list []Event) []Event {
	list = slices.Clone(list[max(0, len(list)-recentEvents):])
	slices.Reverse(list)
	return list
}

// healthMarks are a sign and a word for each HostRow.Health.
var healthMarks = map[string]template.HTML{
	"up":    `<span class="health up"><span class="sign" aria-hidden="true">✓</span> up</span>`,
	"down":  `<span class="health down"><span class="sign" aria-hidden="true">✖</span> down</span>`,
	"part":  `<span class="health part"><span class="sign" aria-hidden="true">◐</span> partly up</span>`,
	"maint": `<span class="health maint"><span class="sign" aria-hidden="true">■</span> maintenance</span>`,
	"none":  `<span class="health none"><span class="sign" aria-hidden="true">✖</span> no address</span>`,
}

var kindSigns = map[string]string{"up": "✓", "down": "✖", "change": "✎"}

var sortChoices = []Choice{
	{"", "problems first"}, {"name", "by name"}, {"health", "by health"}, {"sessions", "most sessions"}, {"rate", "highest rate"},
	{"failures", "most failures"}, {"in", "most bytes in"}, {"out", "most bytes out"}, {"check", "slowest check"}, {"weight", "highest weight"},
	{"-sessions", "fewest sessions"}, {"-rate", "lowest rate"}, {"-name", "by name, descending"}, {"-weight", "lowest weight"},
}

// sortLink is the head of a column. A second click reverses the order.
func (p *Pages) sortLink(v *View, by, text string) template.HTML {
	to, mark := by, ""
	switch v.Query.Sort {
	case by:
		to, mark = "-"+by, ` <span class="order" aria-label="sorted">▾</span>`
	case "-" + by:
		to, mark = by, ` <span class="order" aria-label="sorted ascending">▴</span>`
	}
	return template.HTML(`<a href="` + template.HTMLEscapeString(v.Query.With("sort", to)) + `" data-live>` +
		template.HTMLEscapeString(text) + mark + `</a>`)
}
