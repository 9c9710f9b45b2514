package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/web"
	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/sched"
)

// webSurface is <web>: the admin page and the API. Certificate and key are
// followed without a new start, so that wrong ones leave the page with those that
// it has.
func (p parts) webSurface() surface {
	type words struct {
		listen string
		secure bool
	}
	type needs struct {
		words
		certificate, key string
	}
	loops := &pulse{ask: func() {
		// Every loop has to come by to say that it has a session, or none.
		p.engine.Sessions(1, func(string, *sched.Host) bool { return true })
	}}
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
				_, _, err := web.CheckCertificate(w.Certificate, w.Key)
				return err
			}
			return nil // one of txlb's own making may be kept or not
		},
		serve: func(ln net.Listener, current func() *config.Config) (func(context.Context) error, error) {
			is := current().Admin.Web
			if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !is.Secure && !tcp.IP.IsLoopback() {
				p.log.Warn("admin page served without TLS, passwords can be read on the network; set secure=\"yes\"", "listen", is.Listen)
			}
			page, err := web.Open(ln, web.Options{
				Admin: p.admin, Users: p.users, Director: p.director, Engine: p.engine, Status: p.status,
				Metrics: func(w io.Writer) { metrics.Write(w, p.status.Read()) },
				Healthy: loops.check, Ready: p.ready,
				Listen: is.Listen, Secure: is.Secure, StateDir: p.stateDir,
				Files: func() (certificate, key string) {
					w := current().Admin.Web
					return w.Certificate, w.Key
				},
				Names:    func() []string { return current().Admin.Web.Names },
				Proxies:  func() []netip.Prefix { return current().Admin.Web.Proxies() },
				MaxConns: pageFiles(p.status.FDLimit), Log: p.log,
			})
			if err != nil {
				return nil, err
			}
			return page.Serve, nil
		},
	}
}

// ready tells why no clients are served, as far as <web readyz> asks for it.
func (p parts) ready() error {
	if p.status.Draining() {
		return errors.New("draining")
	}
	state := p.director.State()
	without := 0
	for _, s := range state.Services {
		if !s.Usable() {
			without++
		}
	}
	when := ""
	if w := state.Config.Admin.Web; w != nil {
		when = w.Readyz
	}
	if when == "any" && without > 0 || when == "all" && without == len(state.Services) {
		return fmt.Errorf("%d of %d services have no usable host", without, len(state.Services))
	}
	return nil
}

// pageFiles is how many connections the admin page may have with so many open
// files; 0: not known.
func pageFiles(files uint64) int {
	if files == 0 {
		return 256
	}
	return int(max(min(files/16, 256), 8))
}

const (
	// aLoopTicks is how long ago the loops may have come by.
	aLoopTicks = 5 * time.Second
	// askAgain is for how long an answer is good, as everybody may ask.
	askAgain = 500 * time.Millisecond
)

// pulse tells whether the loops work, by asking them. However many want to know
// it, they are asked once at a time, and a loop that hangs holds one goroutine.
type pulse struct {
	ask func() // returns when all have answered

	mu       sync.Mutex
	asked    time.Time
	answered time.Time
	answer   chan struct{} // closed with the answer; nil: they are not being asked
}

// check waits for an answer that is no older than askAgain, and for no longer than
// the loops may take.
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

// run asks. It ends when the loops have answered: with the engine at the
// latest, as Close ends them.
func (p *pulse) run(answer chan struct{}) {
	p.ask()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered, p.answer = time.Now(), nil
	close(answer)
}
