// Package web serves the admin over HTTP: the pages of package page, the paths of
// earlier versions, JSON under /api/v1 (described in /api/v1/openapi.json) and
// live events.
//
// [Open] makes a server for a listener; [Page.Serve] answers until its context ends.
// One table has all routes with the role that each needs; only /healthz and /readyz
// need no login. Verbs are executed by [admin.Admin.Execute]. GET and HEAD change
// nothing. Users are those of the running configuration, with HTTP basic
// authentication, over TLS 1.2 or newer if Secure. A request is refused if another
// site made the browser send it, or if its host name is not one of the server's
// (DNS rebinding). Trusted proxies say who the client of a request is.
//
// /api/v1: verbs that read are at GET /api/v1/NAME (show hosts at
// /api/v1/hosts and /api/v1/show/hosts), verbs that change at POST
// /api/v1/VERB with their parameters as a JSON object, a form or a query. An
// answer is {text, data, generation}, an error {error, kind}; the generation is
// the ETag too, and If-Match does what the parameter generation does.
// /api/v1/events is a stream of server-sent events: hello ([Hello]), figures
// ([page.Figures]) about once a second, and change, health and order
// ([admin.EventInfo]). The first figures have all hosts. Change, health and order
// have an ID. A client that reconnects with it as Last-Event-ID, or with its number
// as the parameter since, gets the events that it missed.
//
// No loop and no change waits for this package: pages are made from one immutable
// state, and figures once a second for all watchers.
//
// Connections are those of a [guard.Listener], which limits them. The page speaks
// HTTP/1.1 only; of the tabs of a browser, the visible one has an event stream.
//
// Limits: headers of 32 KiB, bodies of 64 KiB, 32 requests being answered, 64
// watchers, 16 of one user. A request must arrive within 20 s, its answer must be
// read within 60 s, an event within 10 s. Files with TLS keys must have no
// passphrase.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/admin/web/page"
	"github.com/txlb/txlb/internal/certs"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/status"
)

// Options of a server.
type Options struct {
	Admin    *admin.Admin       // required
	Users    *users.Users       // required
	Director *director.Director // required
	Engine   engine.Engine      // required
	// Metrics returns the text for Prometheus that a request asks for, the header of
	// the answer, and what to call when it was sent; nil: no /metrics.
	Metrics func(*http.Request) (body []byte, header map[string]string, done func(), err error)
	// Healthy tells what is wrong with the process, and Ready why it takes no
	// clients: /healthz and /readyz. nil: nothing ever is.
	Healthy func(context.Context) error
	Ready   func() error

	Listen string // the address as configured: its host is a name of the page
	Secure bool   // TLS
	// Files tells which files the certificate and its key are in, which may
	// change; "", "" or nil: a certificate is made and kept in StateDir.
	Files    func() (certificate, key string)
	StateDir string
	// Names tells what the page may be called by beside its own names, and Proxies
	// whose X-Forwarded headers count. Both may change; nil: nothing, nobody.
	Names   func() []string
	Proxies func() []netip.Prefix

	Status *status.Source // required; pages are live while its Run runs
	Log    *slog.Logger   // nil: slog.Default
}

const (
	headerTime = 10 * time.Second // for the header of a request
	readTime   = 20 * time.Second // for a whole request
	writeTime  = 60 * time.Second // from a request's header to the end of its answer
	idleTime   = 2 * time.Minute  // between two requests
	leaveTime  = 5 * time.Second  // for what is being answered when the end comes

	maxHeader   = 32 << 10
	maxBody     = 64 << 10
	maxAtWork   = 32 // requests that are being answered
	waitForWork = 10 * time.Second
)

// Page is a server that has all that it needs, and answers nobody yet.
type Page struct {
	s  *server
	ln net.Listener
}

// Open makes the server of a listener, which belongs to it from now on. The error
// tells of options that cannot be used, such as a wrong certificate; ln is closed
// then.
func Open(ln net.Listener, opt Options) (*Page, error) {
	s, err := newServer(opt, ln.Addr())
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &Page{s, ln}, nil
}

// Serve answers until ctx ends, and closes the listener. Then it gives what is
// being answered five seconds. It is called once; the error is that of a
// listener that has failed.
func (p *Page) Serve(ctx context.Context) error {
	s, ln := p.s, p.ln
	httpServer := s.http()
	s.live.start()
	ended := make(chan error, 1)
	go func() { ended <- httpServer.Serve(s.guarded(ln)) }()
	var err error
	select {
	case err = <-ended:
		err = fmt.Errorf("the page on %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.live.close()
	s.silent.close() // Shutdown would wait for them
	leave, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if httpServer.Shutdown(leave) != nil {
		_ = httpServer.Close() // requests that are left have had their time
	}
	if err == nil {
		<-ended
	}
	s.live.wait()
	return err
}

// guarded returns the connections of a listener that are let in, over TLS if
// the page is.
func (s *server) guarded(ln net.Listener) net.Listener {
	l := guard.On(guard.Page, ln, s.log)
	if s.certs == nil {
		return l
	}
	return l.TLS(&tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: certs.Suites(), GetCertificate: s.certs.get, NextProtos: []string{"http/1.1"}})
}

// server is one Page.
type server struct {
	opt Options
	log *slog.Logger
	// refusals is log for what anybody can cause.
	refusals *slog.Logger

	names   []string      // that the page is called by
	certs   *certificates // nil: plain HTTP
	table   map[string]map[string]*route
	list    []route
	cross   *http.CrossOriginProtection
	flashes *flashes
	live    *live
	atWork  chan struct{}
	silent  silent
	openapi object
	pages   *page.Pages
}

func newServer(opt Options, addr net.Addr) (*server, error) {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	listen := opt.Listen
	if listen == "" {
		listen = addr.String()
	}
	s := &server{
		opt: opt, log: opt.Log, refusals: logs.Strangers(opt.Log), names: names(listen), cross: http.NewCrossOriginProtection(),
		pages:  page.New(),
		atWork: make(chan struct{}, maxAtWork), flashes: newFlashes(),
	}
	if opt.Secure {
		var err error
		if s.certs, err = newCertificates(&opt, s.names, s.log); err != nil {
			return nil, err
		}
	}
	s.live = newLive(s)
	s.list = slices.Concat(s.ownRoutes(), s.pageRoutes(), s.rawRoutes(), s.verbRoutes(), s.apiRoutes())
	s.table = map[string]map[string]*route{}
	for i := range s.list {
		r := &s.list[i]
		if s.table[r.path] == nil {
			s.table[r.path] = map[string]*route{}
		}
		s.table[r.path][r.method] = r
	}
	s.openapi = describe(opt.Status.Version, s.list)
	return s, nil
}

// http returns the server with its limits.
func (s *server) http() *http.Server {
	h := &http.Server{
		Handler:           s,
		ConnState:         s.silent.note,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		// Clients that break off are no news, and must not fill the log.
		ErrorLog: log.New(debugLog{s.refusals}, "", 0),
	}
	guard.Harden(h)
	return h
}

// silent are the connections that have not sent a request yet.
type silent struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

func (s *silent) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.all, c)
		return
	}
	if s.all == nil {
		s.all = map[net.Conn]bool{}
	}
	s.all[c] = true
}

func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		_ = c.Close()
	}
}

// debugLog takes what net/http has to say.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug("admin page error", "err", strings.TrimSpace(string(p)))
	return len(p), nil
}
