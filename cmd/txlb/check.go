package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/accesslog"
	"github.com/txlb/txlb/internal/admin/web"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

func checkCommand(flags *flag.FlagSet) action {
	file := configFlag(flags)
	return func(_ context.Context, c console, _ []string) int {
		doc, path := readConfig(*file, c.out)
		if doc == nil {
			return exitUsage
		}
		if found := surroundings(path, doc); len(found) > 0 {
			fmt.Fprintln(c.out, found)
			if found.Err() != nil {
				return exitUsage
			}
		}
		hosts := 0
		for _, s := range doc.Config.Services {
			for _, g := range s.Groups {
				hosts += len(g.Hosts)
			}
		}
		fmt.Fprintf(c.out, "%s is valid: %s, %s\n", path, words.Count(len(doc.Config.Services), "service"), words.Count(hosts, "host"))
		return exitOK
	}
}

// surroundings checks what a valid configuration needs on this machine: files,
// permissions, names, addresses and certificates. It changes nothing. An error is
// what would keep an interface, a health check or the log from working; the rest
// are warnings.
func surroundings(path string, doc *document.File) config.Problems {
	l := lookout{file: path}
	cfg := doc.Config
	l.readable(path, config.Pos{}, "passwords can be guessed from their hashes", len(cfg.Admin.Users) > 0)
	l.interfaces(cfg, stateDir(doc))
	l.listeners(cfg)
	l.sources(cfg)
	l.checks(cfg)
	l.lists(cfg)
	l.encryption(cfg)
	l.names(cfg)
	written := map[string]string{"<logging file>": cfg.Logging.File, "<logging audit>": cfg.Logging.Audit}
	if to := cfg.Logging.Access; accesslog.IsFile(to) {
		written["<logging access>"] = to
	}
	for who, file := range written {
		if file != "" {
			l.canCreate(who, file, config.Pos{})
		}
	}
	slices.SortStableFunc(l.found, func(a, b config.Problem) int { return cmp.Compare(a.Line, b.Line) })
	return l.found
}

// lookout gathers what surroundings finds.
type lookout struct {
	file  string
	found config.Problems
}

func (l *lookout) fail(at config.Pos, format string, args ...any) { l.add(at, false, format, args...) }
func (l *lookout) warn(at config.Pos, format string, args ...any) { l.add(at, true, format, args...) }

func (l *lookout) add(at config.Pos, warning bool, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	l.found = append(l.found, config.Problem{File: l.file, Line: at.Line, Text: text, Warning: warning})
}

// readable warns of a file with secrets that everybody can read.
func (l *lookout) readable(file string, at config.Pos, why string, secret bool) {
	info, err := os.Stat(file)
	if err == nil && secret && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		l.warn(at, "everybody can read %s (mode %04o): %s; chmod o-r %[1]s", file, info.Mode().Perm(), why)
	}
}

// interfaces checks the admin interfaces.
func (l *lookout) interfaces(cfg *config.Config, state string) {
	for _, s := range (parts{stateDir: state, status: &status.Source{}}).surfaces() {
		if s.words(cfg) == nil {
			continue
		}
		at := s.pos(cfg)
		if s.files != nil {
			if err := s.files(cfg, false); err != nil {
				l.fail(at, "%v", err)
			}
		}
		if path, ok := strings.CutPrefix(s.address(cfg), "unix:"); ok {
			l.socketPath(s.name, path, at)
		} else {
			l.address("<"+s.name+">", s.address(cfg), at)
		}
	}
	if w := cfg.Admin.Web; w != nil && w.Enable && w.Certificate != "" {
		l.certificate(w)
	}
}

func (l *lookout) certificate(w *config.AdminListen) {
	l.readable(w.Key, w.Pos, "the page could be impersonated", true)
	if spoilt, err := web.CheckCertificate(w.Certificate, w.Key); err == nil && spoilt != "" {
		l.warn(w.Pos, "<web certificate=%q> %s", w.Certificate, spoilt)
	}
}

// socketPath checks the path of a UNIX socket.
func (l *lookout) socketPath(name, path string, at config.Pos) {
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		l.fail(at, "<%s>: %s exists and is not a socket: move it away, or choose another path", name, path)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			dir = filepath.Dir(dir) // only the last folder is created
		}
		l.folder("<"+name+">", dir, at)
	default:
		l.fail(at, "<%s>: %v", name, err)
	}
}

// folder tells whether files can be created in a folder.
func (l *lookout) folder(who, dir string, at config.Pos) {
	if info, err := os.Stat(dir); err != nil {
		l.fail(at, "%s: %v", who, err)
	} else if !info.IsDir() {
		l.fail(at, "%s: %s is not a folder", who, dir)
	} else if err := writable(dir); err != nil {
		l.fail(at, "%s: cannot create files in %s: %v", who, dir, err)
	}
}

// canCreate tells whether a file can be opened for writing, or created.
func (l *lookout) canCreate(who, file string, at config.Pos) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.folder(who, filepath.Dir(file), at)
	case err != nil:
		l.fail(at, "%s: %v", who, err)
	case info.IsDir():
		l.fail(at, "%s: %s is a folder", who, file)
	default:
		if err := writable(file); err != nil {
			l.fail(at, "%s: cannot write to %s: %v", who, file, err)
		}
	}
}

// listeners checks the addresses that services listen on.
func (l *lookout) listeners(cfg *config.Config) {
	for _, s := range cfg.Services {
		for i := range s.Listen {
			if listen := &s.Listen[i]; !strings.HasPrefix(listen.Address, "unix:") {
				l.listener(s.Name, listen)
			}
		}
	}
}

// listener warns of a listener that could not be opened now, and of options that have no
// effect.
func (l *lookout) listener(service string, c *config.Listen) {
	who := fmt.Sprintf("<listen> of service %q", service)
	host, _, err := net.SplitHostPort(c.Address)
	options, _ := director.ListenOptions(c)
	if err == nil {
		err = native.CheckListen(c.Address, options)
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		l.warn(c.Pos, "%s: no interface of this machine has the address %s", who, host)
	default:
		l.warn(c.Pos, "%s: cannot %v", who, err)
	}
	if !c.FastOpen {
		return
	}
	const setting, forListeners = "net.ipv4.tcp_fastopen", 2
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(setting, ".", "/"))
	if bits, wrong := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && wrong == nil && bits&forListeners == 0 {
		l.warn(c.Pos, "%s: fastOpen has no effect while %s is %d; set it to %d, bit 2 is for listeners", who, setting, bits, bits|forListeners)
	}
}

// sources warns of what keeps connections to hosts from coming from where they should.
func (l *lookout) sources(cfg *config.Config) {
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if err := native.CheckSource(h.Source, h.Source == config.ClientSource, h.Interface); err != nil {
					l.warn(h.Pos, "host %q: %v", h.Name, err)
				}
			}
		}
	}
}

// address warns of an address that this machine does not have. It does not check
// whether the port is free, because txlb may be running.
func (l *lookout) address(who, listen string, at config.Pos) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host == "*" {
		return
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	switch {
	case err == nil:
		_ = ln.Close()
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		l.warn(at, "%s: no interface of this machine has the address %s", who, host)
	default:
		l.warn(at, "%s: cannot listen on %s: %v", who, host, err)
	}
}

// checks checks the files that health checks need.
func (l *lookout) checks(cfg *config.Config) {
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			if g.Check == nil || g.Check.CA == "" {
				continue
			}
			if err := health.CheckCA(g.Check.CA); err != nil {
				l.fail(g.Pos, "service %q, group %q: %v", s.Name, g.Name, err)
			}
		}
	}
}

// encryption checks the files of certificates of listeners and hosts.
func (l *lookout) encryption(cfg *config.Config) {
	told := map[string]bool{}
	for _, s := range cfg.Services {
		for i := range s.Listen {
			listen := &s.Listen[i]
			for _, p := range listen.TLS.List() {
				if !told[p.Key] {
					told[p.Key] = true
					l.readable(p.Key, listen.Pos, fmt.Sprintf("service %q could be impersonated", s.Name), true)
				}
			}
		}
	}
	l.found = append(l.found, director.CheckTLS(cfg, l.file)...)
}

// lists checks the files of networks, whose problems name the files themselves.
func (l *lookout) lists(cfg *config.Config) {
	err := director.CheckLists(cfg)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		l.found = append(l.found, problems...)
	}
}

// names looks up the names of hosts.
func (l *lookout) names(cfg *config.Config) {
	for h, err := range director.Unresolved(cfg) {
		l.warn(h.Pos, "host %q: %v; it is not used until the name resolves", h.Name, err)
	}
}
