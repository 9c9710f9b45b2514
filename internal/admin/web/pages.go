package web

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/admin/web/page"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

const html = "text/html; charset=utf-8"

// pageRoutes are the pages of package page with their static files, under their own
// paths and those of txLoadBalancer and PythonDirector.
func (s *server) pageRoutes() []route {
	get := func(path, about string, serve func(*request) (answer, error)) route {
		return route{method: http.MethodGet, path: path, role: users.Readonly, about: about, serve: serve}
	}
	list := []route{
		get("/manage", "one service, group or host (service, group, name) with all that can be done", s.serveManage),
		get("/ask", "the question before something is done", s.serveAsk),
		get("/events", "what has happened", s.serveEventPage),
		get("/sessions", "open sessions; q filters, sort sorts", s.serveSessions),
		get("/explain", "what happened to a session (id)", s.serveExplain),
		get("/clients", "sessions by client", s.serveClients),
		get("/fleet", "the nodes of the fleet, and what can be done with them", s.serveFleet),
		get("/history", "the last ten minutes of what has these IDs (id, repeated), as JSON", s.serveHistory),
		get("/static/", "what the pages are made of", s.serveStatic),
	}
	for _, path := range []string{"/", "/all", "/running", "/index.html"} {
		list = append(list, get(path, "the running page; refresh, in seconds", s.serveRunning))
	}
	for _, path := range []string{"/configs", "/config.xml", "/stored.xml", "/config.obj"} {
		list = append(list, get(path, "the running and the stored configuration", s.serveConfigs))
	}
	for _, path := range []string{"/txlb.css", "/pydirector.css"} {
		list = append(list, get(path, "the style sheet, under the names of earlier versions", s.serveStyle))
	}
	return list
}

// isPage tells whether a path is that of a page, which may have a form.
func isPage(path string) bool {
	return slices.Contains([]string{"/", "/all", "/running", "/index.html", "/configs", "/config.xml", "/stored.xml", "/config.obj",
		"/manage", "/events", "/sessions", "/explain", "/clients", "/fleet"}, path)
}

// source is what a page is made of, without the user.
func (s *server) source() page.Source {
	d := s.opt.Director
	last := d.LastEvent() // read first: an event that the rest does not show yet has a later number
	src := page.Source{Reading: s.opt.Status.Read(), Boot: s.live.boot(), LastEvent: last}
	if w := src.State.Config.Admin.Web; w != nil {
		src.Refresh = w.Refresh
	}
	return src
}

// view makes the View of a request.
func (s *server) view(q *request) *page.View {
	src := s.source()
	query := q.URL.Query()
	src.User, src.CanChange = q.caller.Name, q.caller.Role == users.Full
	src.Query = page.ParseQuery(query)
	src.Part = q.Header.Get("HX-Request") == "true"
	src.Message = s.flashes.take(q)
	for name := range query {
		if n, err := strconv.ParseFloat(query.Get(name), 64); err == nil && strings.EqualFold(name, "refresh") && n >= 0 && n <= 86400 {
			src.Refresh = time.Duration(n * float64(time.Second))
		}
	}
	for _, e := range s.opt.Director.Events() {
		src.Events = append(src.Events, pageEvent(e))
	}
	return page.NewView(src)
}

// pageEvent writes an event for a page.
func pageEvent(e director.Event) page.Event {
	info := admin.NewEventInfo(e)
	p := page.Event{Time: e.Time, Kind: info.Kind, Generation: e.Generation, By: e.By, From: e.From, What: e.Verb, Details: info.Edits}
	switch e.Kind {
	case director.ConfigEvent:
		if info.Text != "" { // until when it waits, or why it was undone
			p.Details = append([]string{info.Text}, info.Edits...)
		}
	case director.HealthEvent:
		p.Kind = strings.TrimPrefix(strings.TrimPrefix(e.Verb, "mirror "), "host ")
		p.What = e.Text
	case director.OrderEvent:
		p.Details = strings.Split(strings.TrimSpace(e.Text), "\n")
	}
	return p
}

// write returns what a function of package page writes as an answer.
func write(f func(*bytes.Buffer) error) (answer, error) {
	a := answer{kind: html}
	var b bytes.Buffer
	switch err := f(&b); {
	case err == nil:
	case b.Len() == 0:
		return answer{}, err
	case errors.Is(err, page.ErrReadonly):
		a.status = http.StatusForbidden
	default: // the page says what is not there
		a.status = http.StatusNotFound
	}
	a.body = b.Bytes()
	return a, nil
}

func (s *server) serveRunning(q *request) (answer, error) {
	return write(func(b *bytes.Buffer) error { return s.pages.Running(b, s.view(q)) })
}

func (s *server) serveEventPage(q *request) (answer, error) {
	return write(func(b *bytes.Buffer) error { return s.pages.Events(b, s.view(q)) })
}

func (s *server) serveManage(q *request) (answer, error) {
	v := q.URL.Query()
	at := page.Where{Service: v.Get("service"), Group: v.Get("group"), Name: v.Get("name")}
	return write(func(b *bytes.Buffer) error { return s.pages.Manage(b, s.view(q), at) })
}

func (s *server) serveAsk(q *request) (answer, error) {
	v := q.URL.Query()
	verb := v.Get("verb")
	delete(v, "verb")
	return write(func(b *bytes.Buffer) error { return s.pages.Ask(b, s.view(q), verb, v) })
}

// serveConfigs shows both configurations as a readonly user sees them: a page may be
// looked at by more than who opened it. The stored one is formatted like the running
// one, so that only the content is compared, not the layout of the file.
func (s *server) serveConfigs(q *request) (answer, error) {
	masked := *q
	masked.caller.Role = users.Readonly
	running, err := s.read(&masked, "show config")
	if err != nil {
		return answer{}, err
	}
	c := page.Configs{Running: running.Text}
	if doc := s.opt.Director.Stored(); doc != nil {
		stored, err := s.read(&masked, "show stored")
		if err != nil {
			return answer{}, err
		}
		diff, err := s.read(&masked, "show diff")
		if err != nil {
			return answer{}, err
		}
		c.Path, c.Stored = doc.Path, stored.Text
		if info, ok := diff.Data.(admin.FileInfo); ok {
			c.Verbs = info.Changed
			for i := range info.Pending {
				c.Pending = append(c.Pending, info.Pending[i].String())
			}
		}
	}
	return write(func(b *bytes.Buffer) error { return s.pages.Configs(b, s.view(q), c) })
}

// read executes a reading verb.
func (s *server) read(q *request, verb string) (admin.Result, error) {
	first, second, _ := strings.Cut(verb, " ")
	return s.execute(q, words.Command{Verb: first, Words: []words.Word{{Value: second}}})
}

const (
	maxSessionsShown = 500
	maxEndedShown    = 100
	// maxSessionsLooked bounds what is filtered and sorted: the address of each costs
	// a system call.
	maxSessionsLooked = 10_000
)

func (s *server) serveSessions(q *request) (answer, error) {
	list := s.opt.Engine.Sessions(maxSessionsLooked, func(string, *sched.Host) bool { return true })
	all := make([]page.Session, len(list))
	for i, one := range admin.SessionInfos(s.opt.Director.State(), list) {
		all[i] = page.Session{
			ID: list[i].ID, Service: one.Service, Group: one.Group, Host: one.Host, Client: one.Client,
			Started: one.Started, Idle: list[i].Idle, In: one.In, Out: one.Out,
		}
	}
	shown := page.ChooseSessions(all, q.URL.Query(), maxSessionsShown)
	shown.Looked = len(list) == maxSessionsLooked
	look := maxEndedShown
	if shown.Filter != "" {
		look = maxSessionsLooked
	}
	past := s.opt.Engine.Ended(look)
	ended := make([]page.EndedSession, len(past))
	for i, one := range admin.EndedInfos(s.opt.Director.State(), past) {
		ended[i] = page.EndedSession{
			Session:     page.Session{ID: past[i].ID, Service: one.Service, Group: one.Group, Host: one.Host, Client: one.Client, Started: one.Started, In: one.In, Out: one.Out},
			Ended:       *one.Ended,
			Lasted:      past[i].Age,
			Termination: one.Termination,
		}
	}
	shown.ChooseEnded(ended, maxEndedShown)
	return write(func(b *bytes.Buffer) error { return s.pages.Sessions(b, s.view(q), shown) })
}

func (s *server) serveExplain(q *request) (answer, error) {
	id, err := admin.ParseSessionID(q.URL.Query().Get("id"))
	if err != nil {
		return answer{}, fail(http.StatusBadRequest, "bad_request", "%v", err)
	}
	told := page.Explained{ID: id}
	if story, ok := s.opt.Engine.Explain(id); ok {
		told.Session = admin.Explain(s.opt.Director.State(), &story)
	}
	return write(func(b *bytes.Buffer) error { return s.pages.Explain(b, s.view(q), told) })
}

func (s *server) serveClients(q *request) (answer, error) {
	result, err := s.read(q, "show clients")
	if err != nil {
		return answer{}, err
	}
	return write(func(b *bytes.Buffer) error { return s.pages.Clients(b, s.view(q), result.Data.([]admin.ClientInfo)) })
}

func (s *server) serveFleet(q *request) (answer, error) {
	return write(func(b *bytes.Buffer) error { return s.pages.Fleet(b, s.view(q)) })
}

func (s *server) serveHistory(q *request) (answer, error) {
	return jsonAnswer(page.NewHistory(s.opt.Status, s.opt.Director.State(), q.URL.Query()["id"]))
}

func (s *server) serveStatic(q *request) (answer, error) {
	data, kind, ok := s.pages.Static(strings.TrimPrefix(q.URL.Path, "/static/"))
	if !ok {
		return answer{}, fail(http.StatusNotFound, "unknown_path", "no such file; reload the page")
	}
	return answer{kind: kind, body: data, cached: true}, nil
}

func (s *server) serveStyle(*request) (answer, error) {
	address, err := s.pages.Address("page.css")
	if err != nil {
		return answer{}, err
	}
	data, kind, _ := s.pages.Static(path.Base(address))
	return answer{kind: kind, body: data}, nil
}

// verbRoutes are the changing verbs under their names, as in txLoadBalancer and
// PythonDirector.
func (s *server) verbRoutes() []route {
	var list []route
	verbs := admin.Verbs()
	for i := range verbs {
		v := &verbs[i]
		if !v.Changes || !s.opt.Admin.Served(v) {
			continue
		}
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			list = append(list, route{
				method: http.MethodPost, path: "/" + name, role: v.Role, verb: v, about: v.Help, serve: s.serveVerb,
			})
		}
	}
	return list
}

// hashed puts the hash of a password into a command that a form has typed the
// password of, twice. What is a hash already is left alone.
func (s *server) hashed(q *request, c words.Command) (words.Command, error) {
	const field = "password"
	var typed, others []words.Word
	for _, w := range c.Words {
		if w.Key == field && !config.IsHash(w.Value) {
			typed = append(typed, w)
		} else {
			others = append(others, w)
		}
	}
	takes := slices.ContainsFunc(q.route.verb.Params, func(p admin.Param) bool { return p.Kind == admin.Hash })
	if !takes || len(typed) == 0 {
		return c, nil
	}
	bad := func(text string) (words.Command, error) {
		c.Words = others // the answer is shown with what has been typed
		return c, fail(http.StatusBadRequest, "bad_request", "%s", text)
	}
	switch {
	case q.URL.Query().Has(field):
		return bad("a password does not belong into an address, which others may see; send it in the body")
	case len(typed) != 2 || typed[0] != typed[1]:
		return bad("the passwords do not match; nothing was done")
	}
	hash, err := s.opt.Users.Hash(q.Context(), typed[0].Value)
	if err != nil {
		return bad(err.Error())
	}
	c.Words = append(others, words.Word{Key: "hash", Value: hash})
	return c, nil
}

// serveVerb executes a verb. The script of the page gets the message to show. A
// browser is redirected to the page that it was on, which shows it. Others get it
// as text.
func (s *server) serveVerb(q *request) (answer, error) {
	before := s.opt.Director.State()
	c, err := s.command(q)
	if err == nil {
		c, err = s.hashed(q, c)
	}
	var result admin.Result
	if err == nil {
		result, err = s.execute(q, c)
	}
	live := q.Header.Get("HX-Request") == "true"
	if !live && !strings.Contains(q.Header.Get("Accept"), "text/html") {
		return text(result.Text), err
	}
	params := url.Values{}
	for _, w := range c.Words {
		params.Add(w.Key, w.Value)
	}
	message := page.Answer(before, q.route.verb, params, result, err)
	if live {
		return write(func(b *bytes.Buffer) error {
			v := s.view(q)
			v.Message = message
			return s.pages.Done(b, v)
		})
	}
	return answer{
		status: http.StatusSeeOther, kind: "text/plain; charset=utf-8", body: fmt.Appendln(nil, message.Text),
		header: map[string]string{
			"Location":   s.backTo(q),
			"Set-Cookie": s.flashes.put(q.caller.Name, message, s.opt.Secure),
		},
	}, nil
}
