package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/internal/status"
)

// parts are what admin interfaces are made of.
type parts struct {
	admin    *admin.Admin
	users    *users.Users
	director *director.Director
	engine   engine.Engine
	status   *status.Source
	log      *slog.Logger // bounded, for strangers cause what it says
	guard    *guard.Guard
	text     *metrics.Text // of the metrics
	pipes    int           // that may be open at once
	stateDir string        // where certificate and host key are kept
}

// surfaces lists the admin interfaces.
func (p parts) surfaces() []surface {
	return []surface{p.metricsSurface(), p.socketSurface(), p.controlSurface(), p.sshSurface(), p.webSurface()}
}

// newAdmin makes the admin of a process.
func newAdmin(dir *director.Director, eng engine.Engine, source *status.Source, text *metrics.Text, is self, in *node) *admin.Admin {
	book := is.book
	reports := map[string]admin.Report{
		"show metrics": func(ctx context.Context) (string, any, error) {
			all, done, err := text.Get(ctx)
			if err != nil {
				return "", nil, err
			}
			defer done()
			return string(all), nil, nil
		},
		"show log": func(context.Context) (string, any, error) {
			lines := book.tail.Lines(shownLines)
			return strings.Join(lines, "\n"), lines, nil
		},
	}
	if source.Fleet != nil {
		reports["show fleet"] = func(context.Context) (string, any, error) {
			s := source.Fleet()
			return s.String(), s, nil
		}
	}
	opt := admin.Options{
		Director: dir, Engine: eng, Status: source, Process: is, Version: version, Log: book.log, Audit: book.audit, Reports: reports,
	}
	if in != nil {
		opt.Fleet = orders{in.Node}
	}
	return admin.New(opt)
}

// shownLines is how many lines of the log are shown.
const shownLines = 200

// self is what verbs do to this process.
type self struct {
	book     *logbook
	upgrader *upgrader
	shutdown func()
}

func (p self) CloseLog() error { return p.book.reopen() }
func (p self) Shutdown()       { p.shutdown() }

func (p self) Upgrade(ctx context.Context, by, from string) (string, error) {
	to, err := p.upgrader.upgrade(ctx, by, from)
	if err != nil {
		return "", err
	}
	return to.String(), nil
}

// stateDir returns the folder for files that txlb makes, such as a host key:
// $STATE_DIRECTORY as systemd sets it, else that of the configuration, else the
// current one.
func stateDir(doc *document.File) string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.SplitList(dir)[0]
	}
	if doc == nil {
		return "."
	}
	return filepath.Dir(doc.Path)
}

func (p parts) metricsSurface() surface {
	return surface{
		name: "metrics",
		words: func(c *config.Config) any {
			if c.Admin.Metrics == "" {
				return nil
			}
			return c.Admin.Metrics
		},
		pos:     func(c *config.Config) config.Pos { return c.Admin.MetricsPos },
		address: func(c *config.Config) string { return c.Admin.Metrics },
		listen:  func(c *config.Config) (net.Listener, error) { return listenFor("metrics", c.Admin.Metrics) },
		serve: func(ln net.Listener, current func() *config.Config) (func(context.Context) error, error) {
			guarded := p.guard.Listen(guard.Metrics, ln, func() []netip.Prefix { return current().Admin.MetricsAllow.Prefixes() })
			return func(ctx context.Context) error { return metrics.Serve(ctx, guarded, p.text, p.log) }, nil
		},
	}
}

// ownerOnly is the mode of sockets that only the owner may use.
const ownerOnly = 0o600

// listenFor opens the listener of an element of <admin>. * means every address,
// 0.0.0.0 every IPv4 address.
func listenFor(element, listen string) (net.Listener, error) {
	network, address := "tcp", listen
	switch host, port, _ := net.SplitHostPort(listen); {
	case strings.HasPrefix(listen, "unix:"):
		ln, err := socket.Listen(strings.TrimPrefix(listen, "unix:"), ownerOnly, "")
		if err != nil {
			return nil, fmt.Errorf("<%s listen=%q>: %w", element, listen, err)
		}
		return ln, nil
	case host == "*":
		address = ":" + port
	case host == "0.0.0.0":
		network = "tcp4"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("<%s listen=%q>: %w", element, listen, err)
	}
	return ln, nil
}

// listenWith is the listener of a socket that is open already, at an address as the
// configuration says it. The file stays open.
func listenWith(address string, file *os.File) (net.Listener, error) {
	if path, is := strings.CutPrefix(address, "unix:"); is {
		return socket.Inherit(path, file)
	}
	return net.FileListener(file)
}
