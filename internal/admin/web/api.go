package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/words"
)

const apiPath = "/api/v1/"

// apiRoutes are the verbs that are served, as JSON.
func (s *server) apiRoutes() []route {
	list := []route{
		{method: http.MethodGet, path: apiPath + "openapi.json", role: users.Readonly,
			about: "this description", serve: s.serveOpenAPI},
		{method: http.MethodGet, path: apiPath + "events", role: users.Readonly,
			about: "live events (server-sent): hello; figures once a second; change, health, order as they happen", stream: s.serveEvents},
	}
	verbs := admin.Verbs()
	for i := range verbs {
		v := &verbs[i]
		if !s.opt.Admin.Served(v) {
			continue
		}
		r := route{method: http.MethodGet, role: v.Role, verb: v, about: v.Help, serve: s.serveAPI, shape: shapes[v.Name]}
		if v.Changes {
			r.method = http.MethodPost
		}
		name := strings.ReplaceAll(v.Name, " ", "/")
		for _, path := range append([]string{name}, v.Aliases...) {
			r.path = apiPath + path
			list = append(list, r)
		}
		// show hosts is at hosts too; events are the live ones.
		if short, ok := strings.CutPrefix(name, "show/"); ok && short != "events" {
			r.path = apiPath + short
			list = append(list, r)
		}
	}
	return list
}

// shapes are examples of what the Data of verbs is made of.
var shapes = map[string]any{
	"status":        admin.Status{},
	"show services": []admin.ServiceInfo{}, "show routes": []admin.RouteInfo{}, "show mirrors": []admin.MirrorInfo{}, "show access": []admin.RuleInfo{},
	"show hosts":    []admin.HostInfo{},
	"show sessions": []admin.SessionInfo{},
	"explain":       explain.Session{},
	"show clients":  []admin.ClientInfo{},
	"show config":   admin.ConfigInfo{},
	"show events":   []admin.EventInfo{},
	"show diff":     admin.FileInfo{},
	"show stored":   admin.StoredInfo{},
	"show fleet":    fleet.Status{},
	"upgrade":       fleet.Order{},
	"shutdown":      fleet.Order{},
	"rollback":      admin.FileInfo{},
	"saveConfig":    admin.FileInfo{},
	"reload":        admin.FileInfo{},
	"help":          []admin.VerbInfo{},
}

// serveAPI does a verb and answers with JSON.
func (s *server) serveAPI(q *request) (answer, error) {
	c, err := s.command(q)
	if err != nil {
		return answer{}, err
	}
	result, err := s.execute(q, c)
	if err != nil {
		return answer{}, err
	}
	a, err := jsonAnswer(result)
	a.header = map[string]string{"ETag": etag(result.Generation)}
	return a, err
}

// execute does a command. An error knows its status.
func (s *server) execute(q *request, c words.Command) (admin.Result, error) {
	q.executed = true
	result, err := s.opt.Admin.Execute(q.Context(), q.caller, c)
	if err != nil {
		return result, s.explain(err, c)
	}
	return result, nil
}

// command returns the command of a request: the verb of its route with the
// parameters of query and body.
func (s *server) command(q *request) (words.Command, error) {
	v := q.route.verb
	first, second, _ := strings.Cut(v.Name, " ")
	c := words.Command{Verb: first}
	if second != "" {
		c.Words = append(c.Words, words.Word{Value: second})
	}
	given, err := parameters(q.Request)
	if err != nil {
		return c, err
	}
	given = slices.DeleteFunc(given, func(w words.Word) bool {
		// A form sends the fields that were left empty.
		return w.Value == "" && optional(v, w.Key)
	})
	if tag := q.Header.Get("If-Match"); tag != "" && v.Changes && tag != "*" {
		generation, err := strconv.Unquote(strings.TrimPrefix(tag, "W/"))
		if err != nil || generation == "" {
			return c, fail(http.StatusBadRequest, "bad_request", `If-Match: want the ETag of an answer, such as "12"`)
		}
		given = append(given, words.Word{Key: "generation", Value: generation})
	}
	c.Words = append(c.Words, given...)
	return c, nil
}

// optional tells whether a parameter of a verb may be left out.
func optional(v *admin.Verb, key string) bool {
	key = strings.ReplaceAll(key, "-", "")
	for i := range v.Params {
		for _, name := range append([]string{v.Params[i].Name}, v.Params[i].Aliases...) {
			if strings.EqualFold(strings.ReplaceAll(name, "-", ""), key) {
				return !v.Params[i].Required
			}
		}
	}
	return false
}

func etag(generation uint64) string { return strconv.Quote(strconv.FormatUint(generation, 10)) }

// parameters returns the parameters of query and body, sorted. All have a key.
func parameters(r *http.Request) ([]words.Word, error) {
	bad := func(text string) error { return fail(http.StatusBadRequest, "bad_request", "%s", text) }
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("the query cannot be read: want name=value, joined by & and URL-encoded")
	}
	given := wordsOf(query)
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(r.Body)
		switch tooLarge := (*http.MaxBytesError)(nil); {
		case errors.As(err, &tooLarge):
			return nil, fail(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than %d bytes", maxBody)
		case err != nil:
			return nil, bad("the body is incomplete")
		}
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		switch {
		case len(bytes.TrimSpace(body)) == 0:
		case kind == "application/json":
			more, err := wordsOfJSON(body)
			if err != nil {
				return nil, bad(err.Error())
			}
			given = append(given, more...)
		case kind == "application/x-www-form-urlencoded":
			form, err := url.ParseQuery(string(body))
			if err != nil {
				return nil, bad("the body cannot be read: want name=value, joined by & and URL-encoded")
			}
			given = append(given, wordsOf(form)...)
		default:
			return nil, fail(http.StatusUnsupportedMediaType, "media_type", "want a body of application/json or application/x-www-form-urlencoded")
		}
	}
	if slices.ContainsFunc(given, func(w words.Word) bool { return w.Key == "" }) {
		return nil, bad("a parameter has no name")
	}
	return given, nil
}

func wordsOf(values url.Values) []words.Word {
	var list []words.Word
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, v := range values[key] {
			list = append(list, words.Word{Key: key, Value: v})
		}
	}
	return list
}

// wordsOfJSON reads one object of strings, numbers, true and false. A null is
// ignored.
func wordsOfJSON(body []byte) ([]words.Word, error) {
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&object); err != nil || object == nil {
		return nil, errors.New(`the body is not a JSON object: want one such as {"service": "web"}`)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("unexpected data after the JSON object")
	}
	var list []words.Word
	for _, key := range slices.Sorted(maps.Keys(object)) {
		w := words.Word{Key: key}
		switch v := object[key].(type) {
		case nil:
			continue
		case string:
			w.Value = v
		case json.Number:
			w.Value = v.String()
		case bool:
			w.Value = map[bool]string{true: "yes", false: "no"}[v]
		default:
			return nil, errors.New("a parameter is a string, a number, true or false, and no list or object")
		}
		list = append(list, w)
	}
	return list, nil
}

// explain gives the error of a command its status. If the generation is too old,
// it adds what has changed since.
func (s *server) explain(err error, c words.Command) error {
	f := &failure{text: err.Error()}
	switch {
	case errors.Is(err, admin.ErrUnknownVerb):
		f.status, f.kind = http.StatusNotFound, "unknown_verb"
	case errors.Is(err, admin.ErrNotServed):
		f.status, f.kind = http.StatusNotImplemented, "not_served"
	case errors.Is(err, admin.ErrNotAllowed):
		f.status, f.kind = http.StatusForbidden, "not_allowed"
	case errors.Is(err, admin.ErrUnknownName):
		f.status, f.kind = http.StatusNotFound, "unknown_name"
	case errors.Is(err, admin.ErrUsage):
		f.status, f.kind = http.StatusBadRequest, "bad_request"
	case errors.Is(err, admin.ErrMovedOn):
		f.status, f.kind = http.StatusConflict, "moved_on"
		s.meanwhile(f, c)
	case errors.Is(err, director.ErrStopped), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		f.status, f.kind = http.StatusServiceUnavailable, "stopping"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.As(err, new(*fs.PathError)):
		f.status, f.kind = http.StatusInternalServerError, "failed"
	default:
		f.status, f.kind = http.StatusUnprocessableEntity, "refused"
	}
	return f
}

// meanwhile adds to an error about an old generation what has changed since.
func (s *server) meanwhile(f *failure, c words.Command) {
	i := slices.IndexFunc(c.Words, func(w words.Word) bool { return strings.EqualFold(w.Key, "generation") })
	if i < 0 {
		return
	}
	want, err := strconv.ParseUint(c.Words[i].Value, 10, 64)
	if err != nil {
		return
	}
	changes := []admin.EventInfo{}
	for _, e := range s.opt.Director.Events() {
		if e.Kind == director.ConfigEvent && e.Generation > want {
			changes = append(changes, admin.NewEventInfo(e))
		}
	}
	now := s.opt.Director.State().Generation
	f.data = map[string]any{"generation": now, "changes": changes}
	f.header = map[string]string{"ETag": etag(now)}
}

// Problem is the API's answer to an error. Of kind moved_on, it has the current
// generation and the changes that led to it.
type Problem struct {
	Error      string            `json:"error"` // what is wrong, in one line
	Kind       string            `json:"kind"`  // the same for programs
	Generation uint64            `json:"generation,omitempty"`
	Changes    []admin.EventInfo `json:"changes,omitempty"`
}

// failed makes the answer to an error: JSON for the API, one line of text
// otherwise.
func (s *server) failed(q *request, err error) answer {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = s.explain(err, words.Command{}).(*failure)
	}
	a := text(f.text)
	browser := strings.Contains(q.Header.Get("Accept"), "text/html")
	if f.kind == "unknown_path" && browser && q.caller.Role != users.NoRole && !strings.HasPrefix(q.URL.Path, apiPath) {
		v := s.view(q)
		v.Root = "./" + strings.Repeat("../", strings.Count(q.URL.EscapedPath(), "/")-1)
		if page, err := write(func(b *bytes.Buffer) error { return s.pages.Missing(b, v, q.URL.Path) }); err == nil {
			a = page
		}
	}
	if strings.HasPrefix(q.URL.Path, apiPath) {
		body := map[string]any{"error": f.text, "kind": f.kind}
		maps.Copy(body, f.data)
		var err error
		if a, err = jsonAnswer(body); err != nil {
			a = text(err.Error())
		}
	}
	a.status, a.header = f.status, f.header
	return a
}

func jsonAnswer(v any) (answer, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(true)
	if err := e.Encode(v); err != nil {
		return answer{}, err
	}
	return answer{kind: "application/json", body: b.Bytes()}, nil
}
