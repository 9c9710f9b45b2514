package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// rig is a txlb with a small server for its pages: what the real one does, but
// for users.
type rig struct {
	t       testing.TB
	eng     *engine.Engine
	dir     *director.Director
	admin   *admin.Admin
	pages   *Pages
	meter   *Meter
	version string
	addr    string // of service web

	readonly atomic.Bool
	started  time.Time

	mu      sync.Mutex
	watches map[chan []byte]bool
	server  *httptest.Server
	url     string
}

func newRig(t testing.TB, doc string) *rig {
	t.Helper()
	cfg, problems := config.Parse("c.xml", []byte(doc))
	if cfg == nil {
		t.Fatal(problems)
	}
	log := slog.New(slog.DiscardHandler)
	r := &rig{t: t, pages: New(), meter: NewMeter("one"), version: "1.2.3", started: time.Now(), watches: map[chan []byte]bool{}}
	var err error
	if r.eng, err = engine.New(engine.Options{Loops: 1}); err != nil {
		t.Fatal(err)
	}
	if r.dir, err = director.New(cfg, r.eng, director.Options{Log: log}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.dir.Run(ctx) })
	r.admin = admin.New(admin.Options{Director: r.dir, Engine: r.eng, Log: log, Operations: operations{r}})
	running.Go(func() { r.sample(ctx) })
	for _, l := range r.eng.Listeners() {
		if l.Service == "web" {
			r.addr = l.Addr
		}
	}
	r.listen("127.0.0.1:0")
	t.Cleanup(func() {
		r.stop()
		r.admin.Close()
		cancel()
		running.Wait()
		if err := r.eng.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// listen starts the server of the pages; stop ends it, with all its
// connections.
func (r *rig) listen(at string) {
	r.t.Helper()
	ln, err := net.Listen("tcp", at)
	if err != nil {
		r.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(r.routes())
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	r.server, r.url = s, s.URL
}

func (r *rig) stop() {
	r.mu.Lock()
	for w := range r.watches {
		close(w)
	}
	clear(r.watches)
	r.mu.Unlock()
	r.server.CloseClientConnections()
	r.server.Close()
}

// sample is the goroutine that feeds the live pages.
func (r *rig) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		f := r.meter.Sample(r.source())
		data, err := json.Marshal(f)
		if err != nil {
			r.t.Error(err)
		}
		r.mu.Lock()
		for w := range r.watches {
			select {
			case w <- data:
			default:
			}
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.dir.State().Replaced():
		}
	}
}

func (r *rig) source() Source {
	s := Source{
		State: r.dir.State(), Snapshot: r.eng.Snapshot(), Listeners: r.eng.Listeners(), Version: r.version, Boot: r.meter.Boot(),
		Started: r.started, User: "admin", CanChange: !r.readonly.Load(), Refresh: 10 * time.Second, Figures: r.meter.Figures(false),
		HasFile: true, Unsaved: r.dir.Unsaved(),
	}
	for _, e := range r.dir.Events() {
		one := Event{Time: e.Time, Kind: "change", Generation: e.Generation, By: e.By, From: e.From, What: e.Verb}
		for _, d := range e.Edits {
			one.Details = append(one.Details, d.String())
		}
		s.Events = append(s.Events, one)
	}
	s.Events = append(s.Events, r.meter.Transitions()...)
	return s
}

// operations are what the rig has of them: going back.
type operations struct{ r *rig }

func (operations) Reload(context.Context, bool, bool) (string, error) { return "", director.ErrNoFile }
func (operations) Save(context.Context) (string, error)               { return "saved", nil }
func (o operations) Rollback(ctx context.Context, n int) (string, error) {
	c, _ := admin.CallerOf(ctx)
	g, err := o.r.dir.Rollback(ctx, n, director.Change{By: c.Name, From: c.From})
	return fmt.Sprintf("generation %d: went back", g), err
}
func (operations) CloseLog() error { return nil }
func (operations) Shutdown()       {}

func (r *rig) routes() http.Handler {
	mux := http.NewServeMux()
	page := func(path string, write func(w io.Writer, v *View, q url.Values) error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, req *http.Request) {
			src := r.source()
			src.Query, src.Part = ParseQuery(req.URL.Query()), req.Header.Get("HX-Request") == "true"
			var b strings.Builder
			err := write(&b, NewView(src), req.URL.Query())
			answer(w, err, b.String())
		})
	}
	page("/{$}", func(w io.Writer, v *View, _ url.Values) error { return r.pages.Running(w, v) })
	page("/manage", func(w io.Writer, v *View, q url.Values) error {
		return r.pages.Manage(w, v, Where{q.Get("service"), q.Get("group"), q.Get("name")})
	})
	page("/ask", func(w io.Writer, v *View, q url.Values) error { return r.pages.Ask(w, v, q.Get("verb"), q) })
	page("/events", func(w io.Writer, v *View, _ url.Values) error { return r.pages.Events(w, v) })
	page("/configs", func(w io.Writer, v *View, _ url.Values) error {
		xml, err := v.State.Config.Marshal()
		if err != nil {
			return err
		}
		return r.pages.Configs(w, v, Configs{Running: string(xml), Stored: strings.ReplaceAll(string(xml), "10", "11"), Path: "c.xml"})
	})
	mux.HandleFunc("GET /static/{name}", func(w http.ResponseWriter, req *http.Request) {
		data, mediaType, ok := r.pages.Static(req.PathValue("name"))
		if !ok {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(data)
	})
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.meter.History(req.URL.Query()["id"]...))
	})
	mux.HandleFunc("GET /api/v1/events", r.events)
	mux.HandleFunc("POST /{verb}", r.do)
	return mux
}

func answer(w http.ResponseWriter, err error, html string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", ContentSecurityPolicy)
	switch {
	case errors.Is(err, ErrNotFound):
		w.WriteHeader(http.StatusNotFound)
	case errors.Is(err, ErrReadonly):
		w.WriteHeader(http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, html)
}

// do executes a verb that a form has posted.
func (r *rig) do(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c := admin.Command{Verb: req.PathValue("verb")}
	for name, values := range req.Form {
		for _, v := range values {
			if v != "" {
				c.Words = append(c.Words, admin.Word{Key: name, Value: v})
			}
		}
	}
	caller := admin.Caller{Name: "admin", From: req.RemoteAddr, Role: admin.Full}
	if r.readonly.Load() {
		caller.Role = admin.Readonly
	}
	before := r.dir.State()
	result, err := r.admin.Execute(req.Context(), caller, c)
	src := r.source()
	src.Part = req.Header.Get("HX-Request") == "true"
	src.Message = Answer(before, c.Verb, req.Form, result, err)
	var b strings.Builder
	werr := r.pages.Done(&b, NewView(src))
	if err != nil && werr == nil {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", ContentSecurityPolicy)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, b.String())
		return
	}
	answer(w, werr, b.String())
}

func (r *rig) events(w http.ResponseWriter, req *http.Request) {
	ch := make(chan []byte, 4)
	r.mu.Lock()
	r.watches[ch] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watches, ch)
		r.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(data []byte) {
		_, _ = fmt.Fprintf(w, "event: figures\ndata: %s\n\n", data)
		_ = http.NewResponseController(w).Flush()
	}
	if f := r.meter.Figures(true); f != nil {
		data, _ := json.Marshal(f)
		send(data)
	}
	for {
		select {
		case data, ok := <-ch:
			if !ok {
				return
			}
			send(data)
		case <-req.Context().Done():
			return
		}
	}
}

// backend answers every line; it ends with the test or with close.
type backend struct {
	addr  string
	ln    net.Listener
	conns sync.WaitGroup
}

func serve(t testing.TB) *backend {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: ln.Addr().String(), ln: ln}
	b.conns.Go(b.accept)
	t.Cleanup(b.close)
	return b
}

func (b *backend) accept() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.conns.Go(func() {
			defer func() { _ = c.Close() }()
			for in := bufio.NewReader(c); ; {
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
				if _, err := io.WriteString(c, strings.Repeat("x", 4096)+"\n"); err != nil {
					return
				}
			}
		})
	}
}

func (b *backend) close() {
	_ = b.ln.Close()
	b.conns.Wait()
}

// load visits the service without pause, but for a little, until the test or
// stop ends it.
func (r *rig) load(pause time.Duration) (stop func()) {
	quit := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(pause):
			}
			visit(r.addr)
		}
	})
	once := sync.OnceFunc(func() { close(quit); running.Wait() })
	r.t.Cleanup(once)
	return once
}

// visit asks once. What it meets is for the page to show.
func visit(addr string) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "who\n"); err == nil {
		_, _ = bufio.NewReader(c).ReadString('\n')
	}
}
