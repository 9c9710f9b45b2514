package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/web"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// webSurface is <web>: the admin page and the API. A change of certificate or key
// does not restart it; if the new ones are wrong, it keeps the old ones.
func (p parts) webSurface() surface {
	type words struct {
		listen string
		secure bool
	}
	type needs struct {
		words
		certificate, key string
	}
	loops := &pulse{ask: func() { askLoops(p.engine) }}
	return surface{
		name: "web",
		words: func(c *config.Config) any {
			if w := c.Admin.Web; w != nil && w.Enable {
				return words{w.Listen, w.Secure}
			}
			return nil
		},
		pos:     func(c *config.Config) config.Pos { return c.Admin.Web.Pos },
		address: func(c *config.Config) string { return c.Admin.Web.Listen },
		listen: func(c *config.Config) (net.Listener, error) {
			if strings.HasPrefix(c.Admin.Web.Listen, "unix:") {
				return nil, fmt.Errorf("<web listen=%q>: the page is served over TCP; want host:port", c.Admin.Web.Listen)
			}
			return listenFor("web", c.Admin.Web.Listen)
		},
		needs: func(c *config.Config) any {
			w := c.Admin.Web
			return needs{words{w.Listen, w.Secure}, w.Certificate, w.Key}
		},
		files: func(c *config.Config, _ bool) error {
			if w := c.Admin.Web; w.Secure && w.Certificate != "" {
				_, err := web.CheckCertificate(w.Certificate, w.Key)
				return err
			}
			return nil // one of txlb's own making may be kept or not
		},
		serve: func(ln net.Listener, current func() *config.Config) (func(context.Context) error, error) {
			is := current().Admin.Web
			if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !is.Secure && !tcp.IP.IsLoopback() {
				p.log.Warn("admin page served without TLS, passwords can be read on the network; set secure=\"yes\"", "listen", is.Listen)
			}
			allow := func() []netip.Prefix { return current().Admin.Web.Allow.Prefixes() }
			page, err := web.Open(p.guard.Listen(guard.Page, ln, allow), web.Options{
				Admin: p.admin, Users: p.users, Director: p.director, Engine: p.engine, Status: p.status,
				Metrics: func(q *http.Request) ([]byte, map[string]string, func(), error) {
					body, header, done, err := p.text.Respond(q)
					if errors.Is(err, metrics.ErrUnknownService) {
						err = fmt.Errorf("%w: %w", admin.ErrUnknownName, err)
					}
					return body, header, done, err
				},
				Healthy: loops.check, Ready: func() error { return ready(p.status) },
				Listen: is.Listen, Secure: is.Secure, StateDir: p.stateDir,
				Files: func() (certificate, key string) {
					w := current().Admin.Web
					return w.Certificate, w.Key
				},
				Names:   func() []string { return current().Admin.Web.Names },
				Proxies: func() []netip.Prefix { return current().Admin.Web.Proxies() },
				Log:     p.log,
			})
			if err != nil {
				return nil, err
			}
			return page.Serve, nil
		},
	}
}

// ready is the error of /readyz, and what other nodes of a fleet see. <web readyz> decides
// whether services without a usable host count.
func ready(source *status.Source) error {
	if source.Draining() {
		return errors.New("draining")
	}
	state := source.Director.State()
	without, wholly := 0, 0 // services without a host for some of their clients, and for all
	for _, s := range state.Services {
		if !s.Usable() {
			without++
		}
		if !s.UsableInPart() {
			wholly++
		}
	}
	when := ""
	if w := state.Config.Admin.Web; w != nil {
		when = w.Readyz
	}
	if when == "any" && without > 0 || when == "all" && wholly == len(state.Services) {
		return fmt.Errorf("%d of %s without a usable host", without, words.Count(len(state.Services), "service"))
	}
	return nil
}

const (
	// aLoopTicks is how long loops may take to answer.
	aLoopTicks = 5 * time.Second
	// askAgain is how long an answer is reused, because anybody may ask.
	askAgain = 500 * time.Millisecond
)

// askLoops returns when every loop has answered.
func askLoops(e engine.Engine) {
	// It must, whether it has such a session or not.
	e.Sessions(1, func(string, *sched.Host) bool { return true })
}

// pulse tells whether the loops work, by asking them. It asks once at a time, however
// many requests there are, so that a loop that hangs holds one goroutine.
type pulse struct {
	ask func() // returns when all have answered

	mu       sync.Mutex
	asked    time.Time
	answered time.Time
	answer   chan struct{} // closed with the answer; nil: they are not being asked
}

// check returns an answer that is no older than askAgain. It waits at most
// aLoopTicks.
func (p *pulse) check(ctx context.Context) error {
	p.mu.Lock()
	if time.Since(p.answered) < askAgain {
		p.mu.Unlock()
		return nil
	}
	if p.answer == nil {
		p.asked, p.answer = time.Now(), make(chan struct{})
		go p.run(p.answer)
	}
	answer, late := p.answer, time.Until(p.asked.Add(aLoopTicks))
	p.mu.Unlock()
	timer := time.NewTimer(late)
	defer timer.Stop()
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("a loop has not answered for %v", aLoopTicks)
	}
}

// run asks the loops and waits for all of them. Closing the engine ends it too.
func (p *pulse) run(answer chan struct{}) {
	p.ask()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered, p.answer = time.Now(), nil
	close(answer)
}
