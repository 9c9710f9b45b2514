package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	balancer "github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = testkit.Patience

var eventually = testkit.Eventually

// The hashes of the passwords wonder and look.
const (
	bossHash  = "$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1"
	guestHash = "$1$hgfedcba$FBJBJnT84vt/FejE1dkpK0"
)

// twoHosts has a service with two groups, and two users.
const twoHosts = `<config>
  <service name="web"><listen ip="127.0.0.1:0"/>
    <group name="main" scheduler="roundr" enable="true"><host name="a" ip="127.0.0.1:1"/><host name="b" ip="127.0.0.1:2"/></group>
    <group name="spare"><host name="s" ip="127.0.0.1:3"/></group>
  </service>
  <admin><web listen="localhost:7000" refresh="10"/>
    <user name="boss" password="` + bossHash + `" access="full"/>
    <user name="guest" password="` + guestHash + `" access="readonly"/>
  </admin>
  <manager><hostCheck enable="false"/></manager>
</config>`

// rig is a server of the admin over a real engine and director.
type rig struct {
	page *Page
	t    testing.TB
	opt  Options
	eng  engine.Engine
	dir  *director.Director
	adm  *admin.Admin
	log  *testkit.Log
	file string // of the configuration
	addr string // of the server
	url  string
	http *http.Client
	stop func() error // ends the server, and returns what Serve did
}

// process is what verbs do to the process, in tests nothing.
type process struct{}

func (process) CloseLog() error { return nil }
func (process) Shutdown()       {}

func (process) Upgrade(context.Context, string, string) (string, error) { return "upgraded", nil }

// newRig serves a configuration from a file. change edits the options.
func newRig(t testing.TB, doc string, change ...func(*Options)) *rig {
	t.Helper()
	run := balancer.Start(t, doc)
	r := &rig{t: t, eng: run.Engine, dir: run.Director, log: run.Log, file: run.File}
	source := r.sample("test")
	r.adm = admin.New(admin.Options{
		Director: r.dir, Engine: r.eng, Status: source, Process: process{}, Log: run.Logger, Version: "test",
		Reports: map[string]admin.Report{"show metrics": func(context.Context) (string, any, error) { return "txlb_up 1", nil, nil }},
	})
	r.opt = Options{
		Admin: r.adm, Users: users.New(func() []*config.User { return r.dir.State().Config.Admin.Users }, nil, run.Logger, nil),
		Director: r.dir, Engine: r.eng, StateDir: t.TempDir(), Status: source, Log: run.Logger,
		Metrics: func(*http.Request) ([]byte, map[string]string, func(), error) {
			return []byte("txlb_up 1\n"), nil, func() {}, nil
		},
	}
	for _, c := range change {
		c(&r.opt)
	}
	ln, err := net.Listen("tcp4", testkit.Nobody(t)) // which stays free while the server is started again
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	r.url = "http://" + r.addr
	if r.opt.Secure {
		r.url = "https://" + r.addr
	}
	r.http = r.client()
	r.serve(ln)
	return r
}

// sample is a process of that version that takes samples until the test ends.
func (r *rig) sample(version string) *status.Source {
	source := &status.Source{Director: r.dir, Engine: r.eng, Version: version, Started: time.Now()}
	ctx, end := context.WithCancel(context.Background())
	var sampling sync.WaitGroup
	sampling.Go(func() { source.Run(ctx) })
	r.t.Cleanup(func() {
		end()
		sampling.Wait()
	})
	return source
}

// streams is how many watch.
func (r *rig) streams() int {
	l := r.page.s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers)
}

// serve answers on a listener until r.stop, or the test ends.
func (r *rig) serve(ln net.Listener) {
	r.t.Helper()
	limits := guard.LimitsFor(guard.Page, 0)
	limits.Rate, limits.SourceRate, limits.Requests, limits.SourceRequests = 0, 0, 0, 0 // tests are in a hurry
	g := guard.New(guard.Options{Log: r.opt.Log, Change: func(_ guard.Kind, l *guard.Limits) { *l = limits }})
	p, err := Open(g.Listen(guard.Page, ln, nil), r.opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.page = p
	served := make(chan error, 1)
	serving, end := context.WithCancel(context.Background())
	go func() { served <- p.Serve(serving) }()
	stop := sync.OnceValue(func() error {
		end()
		return <-served
	})
	r.stop = stop
	r.t.Cleanup(func() {
		if err := stop(); err != nil {
			r.t.Error(err)
		}
	})
}

// client returns a client of its own, whose connections end with the test. It
// follows no redirection.
func (r *rig) client() *http.Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// response is what came back, read whole.
type response struct {
	*http.Response
	body string
}

// request makes a request of a user, "" for nobody.
func (r *rig) request(user, method, path string, body io.Reader, header ...string) *http.Request {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if user != "" {
		q.SetBasicAuth(user, map[string]string{"boss": "wonder", "guest": "look"}[user])
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
		q.Header.Set(header[i], header[i+1])
	}
	return q
}

// do sends a request and reads the answer.
func (r *rig) do(user, method, path, body string, header ...string) response {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	return r.send(r.request(user, method, path, reader, header...))
}

func (r *rig) send(q *http.Request) response {
	r.t.Helper()
	answer, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{answer, string(text)}
}

// get reads a path as boss, and must be given it.
func (r *rig) get(path string) string {
	r.t.Helper()
	a := r.do("boss", "GET", path, "")
	if a.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %s: %s", path, a.Status, a.body)
	}
	return a.body
}

// post sends a form as boss.
func (r *rig) post(path string, params ...string) response {
	r.t.Helper()
	return r.do("boss", "POST", path, form(params...), "Content-Type", "application/x-www-form-urlencoded")
}

func form(params ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		v.Add(params[i], params[i+1])
	}
	return v.Encode()
}

// api sends JSON as boss and reads JSON.
func (r *rig) api(verb string, params map[string]any, header ...string) (status int, answer map[string]any) {
	r.t.Helper()
	body, err := json.Marshal(params)
	if err != nil {
		r.t.Fatal(err)
	}
	a := r.do("boss", "POST", "/api/v1/"+verb, string(body), append([]string{"Content-Type", "application/json"}, header...)...)
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil {
		r.t.Fatalf("%s: %v: %s", verb, err, a.body)
	}
	return a.StatusCode, answer
}

// walk returns the table of routes that the rig serves.
func (r *rig) walk() []route {
	r.t.Helper()
	s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
	if err != nil {
		r.t.Fatal(err)
	}
	return s.list
}
