//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
)

// edit changes what runs.
func edit(t *testing.T, dir *director.Director, change func(*config.Config)) {
	t.Helper()
	if err := try(t, dir, change); err != nil {
		t.Error(err)
	}
}

func try(t *testing.T, dir *director.Director, change func(*config.Config)) error {
	t.Helper()
	_, err := dir.Do(t.Context(), director.Change{By: "test", Verb: "edit", Apply: func(c *config.Config) error {
		change(c)
		return nil
	}})
	return err
}

const adminDoc = `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="127.0.0.1:1"/></group></service>
<admin><web listen="127.0.0.1:0" secure="no" certificate="one" key="one"/></admin></config>`

// fakeSurface is a surface that listens as <web> says, and follows its certificate.
type fakeSurface struct {
	started chan func() *config.Config          // current, of each start
	fails   chan error                          // makes what runs return
	broken  atomic.Bool                         // it cannot start
	bad     atomic.Pointer[string]              // a certificate that cannot be used
	during  func(current func() *config.Config) // goes on while it starts
	listens map[string]int                      // how often it listened where
}

func newFakeSurface() *fakeSurface {
	return &fakeSurface{started: make(chan func() *config.Config, 16), fails: make(chan error), listens: map[string]int{}}
}

func (p *fakeSurface) surface() surface {
	return surface{
		name: "page",
		words: func(c *config.Config) any {
			if !c.Admin.Web.Enable {
				return nil
			}
			return [2]any{c.Admin.Web.Listen, c.Admin.Web.Secure}
		},
		needs:   func(c *config.Config) any { return c.Admin.Web.Certificate },
		address: func(c *config.Config) string { return c.Admin.Web.Listen },
		files: func(c *config.Config, _ bool) error {
			if bad := p.bad.Load(); bad != nil && *bad == c.Admin.Web.Certificate {
				return errors.New("bad certificate " + *bad)
			}
			return nil
		},
		listen: func(c *config.Config) (net.Listener, error) {
			p.listens[c.Admin.Web.Listen]++
			return listenFor("web", c.Admin.Web.Listen)
		},
		serve: func(ln net.Listener, current func() *config.Config) (func(context.Context) error, error) {
			if p.broken.Load() {
				return nil, errors.Join(errors.New("broken"), ln.Close())
			}
			if p.during != nil {
				p.during(current)
			}
			p.started <- current
			return func(ctx context.Context) error {
				defer func() { _ = ln.Close() }()
				select {
				case err := <-p.fails:
					return err
				case <-ctx.Done():
					return nil
				}
			}, nil
		},
	}
}

// next returns current of the next start.
func (p *fakeSurface) next(t *testing.T) func() *config.Config {
	t.Helper()
	select {
	case current := <-p.started:
		return current
	case <-time.After(patience):
		t.Fatal("the surface is not started")
		return nil
	}
}

// follow runs a balancer whose front has the surface.
func follow(t *testing.T, p *fakeSurface) (*director.Director, *front) {
	t.Helper()
	f := newFront(slog.New(slog.DiscardHandler))
	dir := rig.Start(t, adminDoc, func(o *director.Options) { o.Prepare = f.prepare }).Director
	f.open(dir.State().Config, []surface{p.surface()})
	t.Cleanup(f.Close)
	return dir, f
}

// A surface that starts sees one configuration, whatever runs meanwhile, and
// the newer one afterwards; one that it has to be started again for is seen by
// the next start alone.
func TestSurfaceIsOfOneConfiguration(t *testing.T) {
	p := newFakeSurface()
	dir, _ := follow(t, p)
	first := p.next(t)
	edit(t, dir, func(c *config.Config) { c.Admin.Web.Certificate, c.Admin.Web.Key = "two", "two" })
	eventually(t, "what runs is followed", func() bool { return first().Admin.Web.Certificate == "two" })

	// While a change has it started again, the next one comes.
	p.during = func(current func() *config.Config) {
		before := current()
		edit(t, dir, func(c *config.Config) { c.Admin.Web.Certificate, c.Admin.Web.Key = "four", "four" })
		if current() != before {
			t.Error("the configuration changes under a surface that starts")
		}
	}
	edit(t, dir, func(c *config.Config) {
		c.Admin.Web.Secure, c.Admin.Web.Certificate, c.Admin.Web.Key = true, "three", "three"
	})
	second := p.next(t)
	if w := first().Admin.Web; w.Secure || w.Certificate != "two" {
		t.Errorf("the surface that was stopped sees %+v", w)
	}
	eventually(t, "the newest is followed", func() bool { return second().Admin.Web.Certificate == "four" })
}

// A surface that fails while it serves, or cannot start, is off, which the status
// tells, and started again.
func TestSurfaceIsStartedAgain(t *testing.T) {
	p := newFakeSurface()
	p.broken.Store(true)
	dir, f := follow(t, p)
	if off := f.Off(); len(off) != 1 || off[0].Interface != "page" || off[0].Err != "broken" {
		t.Errorf("off: %+v", off)
	}
	p.broken.Store(false)
	p.next(t)
	eventually(t, "none is off", func() bool { return len(f.Off()) == 0 })
	for range 2 { // twice in a row
		p.fails <- errors.New("out of luck")
		p.next(t)
	}
	p.broken.Store(true)
	p.fails <- errors.New("once more")
	eventually(t, "it is off", func() bool { return len(f.Off()) == 1 })
	edit(t, dir, func(c *config.Config) { c.Admin.Web.Secure = true })
	p.broken.Store(false)
	current := p.next(t)
	eventually(t, "it is of what runs", func() bool { return current().Admin.Web.Secure })
}

// A change that a surface cannot follow is refused as a whole, and the surface
// stays as it is: same listener, same configuration.
func TestB78ChangeThatASurfaceCannotFollow(t *testing.T) {
	p := newFakeSurface()
	dir, _ := follow(t, p)
	current := p.next(t)
	was := dir.State()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	bad := "bad"
	p.bad.Store(&bad)
	for want, change := range map[string]func(*config.Config){
		"address already in use": func(c *config.Config) { c.Admin.Web.Listen = taken.Addr().String() },
		"bad certificate":        func(c *config.Config) { c.Admin.Web.Certificate, c.Admin.Web.Key = bad, bad },
	} {
		err := try(t, dir, func(c *config.Config) {
			c.Services[0].Groups[0].Hosts[0].Weight = 7
			change(c)
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %v, want %s", err, want)
		}
	}
	if dir.State() != was || current().Admin.Web.Certificate != "one" || len(p.started) != 0 {
		t.Error("something has changed")
	}
	// A file that has become bad by itself does not keep other changes away.
	one := "one"
	p.bad.Store(&one)
	edit(t, dir, func(c *config.Config) { c.Services[0].Groups[0].Hosts[0].Weight = 7 })
	// To another address the listener is there before the change is accepted.
	free := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.bad.Store(nil)
	edit(t, dir, func(c *config.Config) { c.Admin.Web.Listen = free })
	c, err := net.Dial("tcp", free)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	p.next(t)
	if p.listens[free] != 1 {
		t.Errorf("it listened %d times", p.listens[free])
	}
	// One that the surface has already, in other words, is no conflict.
	_, port, _ := net.SplitHostPort(free)
	edit(t, dir, func(c *config.Config) { c.Admin.Web.Listen = "*:" + port })
	p.next(t)
}

// At start, interfaces that cannot come up are off: the log, `status` and systemd
// tell which and why, clients are served, and they come up once they can.
func TestB78InterfacesThatCannotStart(t *testing.T) {
	dir := socketFolder(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().String()
	cert, socket := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "a.sock")
	notify := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = systemd.Close() }()
	t.Setenv("NOTIFY_SOCKET", notify)
	p, _ := txlbFile(t, `<config>`+group("", backend(t, echo))+`<admin><socket path="`+socket+`"/>
		<web listen="127.0.0.1:0" certificate="`+cert+`" key="`+cert+`"/><metrics listen="`+port+`"/>
		<ssh listen="127.0.0.1:0" hostKey="`+filepath.Join(dir, "no", "folder", "key")+`"/>`+operator+`</admin></config>`)
	c, err := net.Dial("tcp", p.addr("web", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := ask(c, "hello"); err != nil {
		t.Errorf("a client: %v", err)
	}
	said := make([]byte, 4096)
	_ = systemd.SetReadDeadline(time.Now().Add(patience))
	n, err := systemd.Read(said)
	if err != nil {
		t.Fatal(err)
	}
	answer := ctlOf(t, "", "-s", socket, "status")
	for _, want := range []string{"<metrics> is off: ", "<web> is off: ", "<ssh> is off: "} {
		if !strings.Contains(answer.out, want) {
			t.Errorf("status does not say %q: %+v", want, answer)
		}
		if !strings.Contains(string(said[:n]), want) {
			t.Errorf("systemd is not told %q: %s", want, said[:n])
		}
	}
	_ = taken.Close()
	eventually(t, "the metrics are there", func() bool {
		_, err := get("http://" + port + "/metrics")
		return err == nil
	})
}
