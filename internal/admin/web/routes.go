package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/admin/web/page"
	"github.com/txlb/txlb/internal/guard"
)

// route is one line of the table of all that the server serves.
type route struct {
	method string     // GET, which stands for HEAD too, or POST
	path   string     // whole, or the beginning of one if it ends with /
	role   users.Role // required
	open   bool       // needs no login
	verb   *admin.Verb
	about  string // one line, for the description
	shape  any    // an example of the data of the answer, nil: not described

	serve  func(*request) (answer, error)
	stream func(http.ResponseWriter, *request) error // instead of serve: it writes until the client leaves
}

// request is one request that is allowed.
type request struct {
	*http.Request
	route  *route
	caller users.Caller
	// executed tells that the admin had the command, and has written down what
	// became of it.
	executed bool
	prefix   string // of the path, which a proxy has taken away: "/lb", or ""
}

// answer is what is sent back.
type answer struct {
	status int // 0: 200
	kind   string
	body   []byte
	header map[string]string // beside the usual ones
	cached bool              // may be kept by the browser for ever
	done   func()            // called when it was sent; nil: nothing is
}

func text(body string) answer {
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return answer{kind: "text/plain; charset=utf-8", body: []byte(body)}
}

// failure is an error that knows its status.
type failure struct {
	status int
	kind   string // one word for programs
	text   string
	header map[string]string
	data   map[string]any // more for programs
}

func (f *failure) Error() string { return f.text }

func fail(status int, kind, format string, args ...any) *failure {
	return &failure{status: status, kind: kind, text: fmt.Sprintf(format, args...)}
}

// ServeHTTP answers a request. A trusted proxy says whose it is. Then it checks, in
// this order: the host name, the site that the request comes from, the user, the
// path and method, and the role.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.secure(w.Header(), r)
	q := &request{Request: r.WithContext(users.WithVia(r.Context(), "web"))}
	q.prefix = s.forwarded(q.Request)
	a, err := s.answer(w, q)
	if err != nil {
		a = s.failed(q, err)
		s.refused(q, a.status, err)
	}
	if a.kind == "" && a.status == 0 {
		return // streamed
	}
	s.write(w, a)
	if a.done != nil {
		a.done()
	}
}

// refused writes down that a request was: one that would change something, or that
// no browser sends of itself.
func (s *server) refused(q *request, status int, why error) {
	reads := q.Method == http.MethodGet || q.Method == http.MethodHead
	if q.executed || status >= 500 || reads && status != http.StatusForbidden && status != http.StatusMisdirectedRequest {
		return
	}
	caller := q.caller
	if caller.Name == "" {
		caller = users.Caller{Name: "unknown", From: q.RemoteAddr}
	}
	what := []any{"method", q.Method, "path", q.URL.Path, "status", status, "reason", why.Error()}
	s.refusals.Warn("request refused", append(what, "by", caller.Name, "from", caller.From)...)
	s.opt.Admin.Audit(q.Context(), caller, "request refused", what...)
}

// secure sets the headers that every answer has.
func (s *server) secure(h http.Header, r *http.Request) {
	// A browser keeps to this for all ports of a name. So it is not said for names of
	// the loopback interface, where other things run without TLS.
	if r.TLS != nil && !loopback(r.Host) {
		h.Set("Strict-Transport-Security", "max-age=2592000")
	}
	h.Set("Content-Security-Policy", page.ContentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (s *server) write(w http.ResponseWriter, a answer) {
	h := w.Header()
	for k, v := range a.header {
		h.Set(k, v)
	}
	if a.kind != "" {
		h.Set("Content-Type", a.kind)
	}
	if a.cached {
		h.Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.status == 0 {
		a.status = http.StatusOK
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // that the client has gone is no error
}

// answer does the request.
func (s *server) answer(w http.ResponseWriter, q *request) (answer, error) {
	if err := s.called(q.Host); err != nil {
		return answer{}, err
	}
	methods := s.find(q.URL.Path)
	method := q.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	q.route = methods[method]
	if q.route == nil || !q.route.open {
		if err := s.sameSite(q); err != nil {
			return answer{}, err
		}
		if err := s.login(q); err != nil {
			return answer{}, err
		}
	}
	switch {
	case len(methods) == 0:
		return answer{}, fail(http.StatusNotFound, "unknown_path", "nothing at this path; the pages start at /, the API is described in /api/v1/openapi.json")
	case q.route == nil:
		return answer{}, wrongMethod(q.URL.Path, methods)
	case q.route.open:
	case q.caller.Role < q.route.role:
		return answer{}, fail(http.StatusForbidden, "not_allowed", "this needs the role %s; user %s has %s", q.route.role, strconv.Quote(q.caller.Name), q.caller.Role)
	}
	if q.route.stream != nil {
		return answer{}, q.route.stream(w, q)
	}
	q.Body = http.MaxBytesReader(w, q.Body, maxBody)
	if !q.route.open {
		done, err := s.work(q.Context())
		if err != nil {
			return answer{}, err
		}
		defer done()
	}
	return q.route.serve(q)
}

// work waits for a place among the requests being answered, and returns a function
// that frees it. It is freed before the answer is sent, so that slow readers keep
// no place.
func (s *server) work(ctx context.Context) (done func(), err error) {
	late := time.NewTimer(waitForWork)
	defer late.Stop()
	select {
	case s.atWork <- struct{}{}:
		return func() { <-s.atWork }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-late.C:
		return nil, busy("too many requests are being answered; try again")
	}
}

func busy(text string) *failure {
	f := fail(http.StatusServiceUnavailable, "busy", "%s", text)
	f.header = map[string]string{"Retry-After": "5"}
	return f
}

// find returns the routes of a path by method.
func (s *server) find(path string) map[string]*route {
	if methods := s.table[path]; methods != nil {
		return methods
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return s.table[path[:i+1]] // what a folder serves
	}
	return nil
}

// wrongMethod says which methods a path has.
func wrongMethod(path string, methods map[string]*route) error {
	allow := slices.Sorted(maps.Keys(methods))
	text := "this path takes " + strings.Join(allow, " and ") + " only"
	if slices.Equal(allow, []string{http.MethodPost}) {
		text = fmt.Sprintf("GET changes nothing: send a POST to %s, with the parameters in the query or the body, as in curl -X POST", path)
	}
	f := fail(http.StatusMethodNotAllowed, "method", "%s", text)
	if slices.Contains(allow, http.MethodGet) {
		allow = append(allow, http.MethodHead)
	}
	f.header = map[string]string{"Allow": strings.Join(allow, ", ")}
	return f
}

// loopback tells whether a request was sent to this machine by such a name.
func loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// called refuses host names that are not the server's. With DNS rebinding, a site
// whose name resolves to this address is the same site to a browser; but its name
// is not one of these, nor an IP address.
func (s *server) called(hostport string) error {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	switch {
	case net.ParseIP(strings.SplitN(host, "%", 2)[0]) != nil, slices.Contains(s.names, host):
		return nil
	case s.certs != nil && config.IsDNSName(host) && s.certs.good(host):
		return nil
	}
	var more []string
	if s.opt.Names != nil {
		more = s.opt.Names()
	}
	if slices.Contains(more, host) {
		return nil
	}
	known := slices.DeleteFunc(append(slices.Clone(s.names), more...), func(n string) bool { return net.ParseIP(n) != nil })
	if s.certs != nil {
		for _, n := range s.certs.dnsNames() {
			if !slices.Contains(known, n) {
				known = append(known, n)
			}
		}
	}
	return fail(http.StatusMisdirectedRequest, "host",
		"use an address or one of %s to reach the page; to allow another name, add it to <web names>",
		strings.Join(known, ", "))
}

// sameSite refuses requests that another site made a browser send. Following a link
// from there is allowed.
func (s *server) sameSite(q *request) error {
	err := s.cross.Check(q.Request)
	if err == nil && q.Header.Get("Sec-Fetch-Site") == "cross-site" && q.Header.Get("Sec-Fetch-Mode") != "navigate" {
		err = errors.New("cross-site request")
	}
	if err != nil {
		return fail(http.StatusForbidden, "cross_site", "the request was sent by a page of another site; it was rejected")
	}
	return nil
}

// login returns the user of a request.
func (s *server) login(q *request) error {
	name, password, ok := q.BasicAuth()
	if !ok {
		return s.noLogin("log in with the name and the password of a <user>")
	}
	c, err := s.opt.Users.Login(q.Context(), name, password, q.RemoteAddr)
	switch {
	case err == nil:
		q.caller = c
		// A reverse proxy's connection carries strangers too.
		if conn := guard.FromContext(q.Context()); conn != nil && q.RemoteAddr == conn.RemoteAddr().String() {
			conn.LoggedIn()
		}
		return nil
	case errors.Is(err, users.ErrThrottled):
		f := fail(http.StatusTooManyRequests, "throttled", "%s", err)
		f.header = map[string]string{"Retry-After": strconv.Itoa(retryAfter(err))}
		return f
	case errors.Is(err, users.ErrBadLogin):
		return s.noLogin(err.Error())
	}
	return err
}

// retryAfter is how many seconds a source must wait.
func retryAfter(err error) int {
	if t, ok := errors.AsType[users.Throttled](err); ok {
		return max(1, int(t.Wait.Seconds()))
	}
	return 1
}

func (s *server) noLogin(text string) error {
	f := fail(http.StatusUnauthorized, "login", "%s", text)
	f.header = map[string]string{"WWW-Authenticate": `Basic realm="txlb", charset="UTF-8"`}
	return f
}

// backTo returns the page that a form was on, or the running page if it is not one
// of ours: the last part of the path and the query of Referer, without the message
// that txLoadBalancer put into it. It is relative to the path of the verb, as all
// pages are in one folder.
func (s *server) backTo(q *request) string {
	u, err := url.Parse(q.Referer())
	if err != nil || u.Host != q.Host {
		return "./"
	}
	path := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	r := s.table["/"+path][http.MethodGet]
	if r == nil || !isPage(r.path) {
		return "./"
	}
	query := u.Query()
	for k := range query {
		if strings.EqualFold(k, "resultMessage") {
			query.Del(k)
		}
	}
	return (&url.URL{Path: "./" + path, RawQuery: query.Encode()}).String()
}
