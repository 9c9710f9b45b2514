package config

import (
	"slices"
	"strings"
	"time"
)

// Bounds of values, the same in a document and in a model changed at run time.
const (
	maxLoops       = 1024
	minPipeSize    = 64 << 10
	maxPipeSize    = 64 << 20
	maxMaxSessions = 10_000_000
	maxBacklog     = 65535
	maxTries       = 10_000
	maxBackups     = 10_000
)

// The words that attributes choose from, the default first.

func roots() []string       { return []string{"config", "pdconfig"} }
func spliceModes() []string { return []string{"auto", "always", "never"} }
func ringModes() []string   { return []string{"auto", "off"} }
func hostStates() []string  { return []string{"ready", "drain", "maint"} }
func accesses() []string    { return []string{"full", "readonly"} }
func logLevels() []string   { return []string{"debug", "info", "warn", "error"} }
func logFormats() []string  { return []string{"text", "json"} }

// wellKnown are the password hashes that the ancestors' samples published.
var wellKnown = [...]string{"..xpoEyRReGzk", "iy9l0V1MkG1DE"}

const noService = "there is no <service>; a configuration needs at least one"

// Check returns what is wrong with the model, however it was made: read from a
// file or changed at run time. name stands for the file. A model without errors
// survives Marshal and Parse as it is.
func (c *Config) Check(name string) Problems {
	k := &checker{report: report{file: name}}
	k.config(c)
	return k.told()
}

// CheckSince is Check for a model that shares with another one, which has no
// errors, what is as it was there (Share): that is not looked at again, but
// where it may be in the way of something else. Warnings about it are left out.
func (c *Config) CheckSince(was *Config, name string) Problems {
	k := &checker{report: report{file: name}, checked: make(map[*Service]bool, len(was.Services))}
	for _, s := range was.Services {
		k.checked[s] = true
	}
	k.config(c)
	return k.told()
}

// checker gathers problems of a model.
type checker struct {
	report
	checked map[*Service]bool // services that are known to be right within
	broken  map[any]bool      // parts that the reader has found mistakes in
}

func (k *checker) config(c *Config) {
	if len(c.Services) == 0 && !k.broken[c] {
		k.fail(0, noService)
	}
	k.word(0, "the root element", c.Root, roots())
	k.engine(&c.Engine)
	names := make(map[string]bool, len(c.Services))
	for _, s := range c.Services {
		k.name(s.Pos.Line, "service", s.Name, names, k.broken[s])
		if !k.checked[s] {
			k.service(s)
		}
	}
	k.listeners(c)
	k.starts(c)
	k.admin(&c.Admin)
	k.manager(&c.Manager)
	k.dns(&c.DNS)
	k.control(&c.Control)
	k.word(0, "<logging level>", c.Logging.Level, logLevels())
	k.word(0, "<logging format>", c.Logging.Format, logFormats())
	k.plain(0, "<logging file>", c.Logging.File)
}

func (k *checker) engine(e *Engine) {
	k.within("<engine loops>", int64(e.Loops), 0, maxLoops)
	k.word(0, "<engine splice>", e.Splice, spliceModes())
	k.word(0, "<engine ring>", e.Ring, ringModes())
	k.within("<engine pipeSize>", e.PipeSize, minPipeSize, maxPipeSize)
	k.within("<engine pipeMemory>", e.PipeMemory, 1, maxBytes)
	k.within("<engine maxSessions>", int64(e.MaxSessions), 0, maxMaxSessions)
	k.within("<engine backlog>", int64(e.Backlog), 1, maxBacklog)
	k.duration(0, "<engine drain>", e.Drain)
}

func (k *checker) service(s *Service) {
	line := s.Pos.Line
	if !k.broken[s] {
		if len(s.Listen) == 0 {
			k.fail(line, "service %q listens nowhere; it needs a <listen ip=\"host:port\"/>", s.Name)
		}
		if len(s.Groups) == 0 {
			k.warn(line, "service %q has no group: its clients will be closed", s.Name)
		}
	}
	k.duration(line, "<timeouts connect>", s.Timeouts.Connect)
	k.duration(line, "<timeouts total>", s.Timeouts.Total)
	k.duration(line, "<timeouts idle>", s.Timeouts.Idle)
	k.duration(line, "<timeouts halfClosed>", s.Timeouts.HalfClosed)
	if s.Limits.Tries < 0 || s.Limits.Tries > maxTries {
		k.fail(line, "service %q: <limits tries> is %d; want 0 to %d", s.Name, s.Limits.Tries, maxTries)
	}
	groups := map[string]bool{}
	var enabled []*Group
	for _, g := range s.Groups {
		k.name(g.Pos.Line, "group", g.Name, groups, k.broken[g])
		k.group(s, g)
		if g.Enabled {
			enabled = append(enabled, g)
		}
	}
	switch {
	case len(enabled) > 1:
		k.fail(enabled[1].Pos.Line, "service %q has two enabled groups, %q and %q; one takes the clients", s.Name, enabled[0].Name, enabled[1].Name)
	case len(enabled) == 0 && len(s.Groups) > 0 && !k.broken[s]:
		k.fail(line, "service %q has no enabled group; add enable=\"true\" to the one that should take the clients", s.Name)
	}
}

func (k *checker) group(s *Service, g *Group) {
	line := g.Pos.Line
	if !slices.Contains(SchedulerNames(), g.Scheduler) {
		k.fail(line, "group %q: there is no scheduler %q%s", g.Name, g.Scheduler, k.suggest(g.Scheduler, SchedulerNames()))
	}
	names := make(map[string]bool, len(g.Hosts))
	weights := 0
	for _, h := range g.Hosts {
		k.name(h.Pos.Line, "host", h.Name, names, k.broken[h])
		if h.Address != "" || !k.broken[h] {
			if err := checkHostAddress(h.Address); err != nil {
				k.fail(h.Pos.Line, "host %q: %v", h.Name, err)
			}
		}
		if h.Weight < 0 || h.Weight > MaxWeight {
			k.fail(h.Pos.Line, "host %q: weight %d is not between 0 and %d", h.Name, h.Weight, MaxWeight)
		}
		k.word(h.Pos.Line, "<host state>", h.State, hostStates())
		if err := checkResolve(h.Resolve); err != nil {
			k.fail(h.Pos.Line, "host %q: <host resolve>: %v", h.Name, err)
		}
		k.duration(h.Pos.Line, "<host slowStart>", h.SlowStart)
		weights = max(weights, h.Weight)
	}
	k.failures(g)
	if g.Check != nil {
		k.healthCheck(g)
	}
	switch {
	case k.broken[g]:
	case len(g.Hosts) == 0:
		k.warn(line, "group %q of service %q is empty: its clients will be closed", g.Name, s.Name)
	case weights == 0:
		k.warn(line, "every host of group %q has weight 0: its clients will be closed", g.Name)
	}
}

func (k *checker) manager(m *Manager) {
	for _, c := range []struct {
		what string
		Check
	}{{"<hostCheck interval>", m.HostCheck}, {"<configCheck interval>", m.ConfigCheck}, {"<heartbeat interval>", m.Heartbeat}} {
		k.seconds(0, c.what, c.Interval)
	}
	k.within("<configCheck backups>", int64(m.Backups), 0, maxBackups)
}

func (k *checker) admin(a *Admin) {
	exposed := ""
	for _, l := range []struct {
		*AdminListen
		what string
	}{{a.Web, "the admin page"}, {a.SSH, "the SSH admin"}} {
		if l.AdminListen == nil {
			continue
		}
		k.plain(l.Pos.Line, l.what, l.Listen)
		if l.AdminListen == a.Web {
			k.seconds(l.Pos.Line, "<web refresh>", l.Refresh)
			k.plain(l.Pos.Line, "<web certificate>", l.Certificate)
			k.plain(l.Pos.Line, "<web key>", l.Key)
			if (l.Certificate == "") != (l.Key == "") {
				k.fail(l.Pos.Line, "<web> has one of certificate and key; give both, or none for a certificate that is made at the first start")
			}
		} else {
			k.plain(l.Pos.Line, "<ssh hostKey>", l.HostKey)
		}
		if !l.Enable {
			continue
		}
		if len(a.Users) == 0 {
			k.warn(l.Pos.Line, "%s is on and there is no <user> who could log in; txlb passwd makes a password's hash", l.what)
		}
		if !isLoopback(l.Listen) {
			if l.AdminListen == a.Web && !l.Secure {
				k.warn(l.Pos.Line, "the admin page is served without TLS on %s: passwords can be read on their way; say secure=\"true\"", l.Listen)
			}
			exposed = l.Listen
		}
	}
	if a.Socket != nil {
		k.socket(a.Socket)
	}
	names := map[string]bool{}
	for _, u := range a.Users {
		k.name(u.Pos.Line, "user", u.Name, names, k.broken[u])
		k.word(u.Pos.Line, "<user access>", u.Access, accesses())
		k.plain(u.Pos.Line, "<user password>", u.Password)
		if !k.broken[u] {
			k.password(u, exposed)
		}
		for _, key := range u.Keys {
			if err := checkKey(key); err != nil {
				k.fail(u.Pos.Line, "<key> of user %q: %v", u.Name, err)
			}
		}
	}
}

// password warns of hashes that protect little. It never shows one.
func (k *checker) password(u *User, exposed string) {
	public := IsPublished(u.Password)
	switch {
	case public && exposed != "":
		k.warn(u.Pos.Line, "the password of user %q is that of a published sample: nobody can log in with it on %s, but from this machine", u.Name, exposed)
	case public:
		k.warn(u.Pos.Line, "the password of user %q is that of a published sample; choose another", u.Name)
	case u.Password == "" && len(u.Keys) > 0: // he has SSH
	case u.Password == "":
		k.warn(u.Pos.Line, "user %q has no password and cannot log in; give a crypt(3) hash", u.Name)
	case isDES(u.Password):
		k.warn(u.Pos.Line, "the password of user %q is a DES hash, which looks at eight letters and is quickly broken; choose another kind", u.Name)
	case !strings.HasPrefix(u.Password, "$"):
		k.warn(u.Pos.Line, "the password of user %q is no crypt(3) hash that is known; want one that begins with $", u.Name)
	}
}

// isDES tells the traditional crypt(3) hash: two letters of salt and eleven
// more.
func isDES(hash string) bool {
	return len(hash) == 13 &&
		strings.Trim(hash, "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// name checks a name, which must be there and unique. Where it is missing from
// a part with mistakes, that has been reported.
func (k *checker) name(line int, what, name string, seen map[string]bool, broken bool) {
	switch {
	case name == "":
		if !broken {
			k.fail(line, "<%s> needs a name", what)
		}
		return
	case seen[name]:
		k.fail(line, "a second %s %q; names are unique", what, name)
	case !printable(name):
		k.fail(line, "%s name %q has a character that cannot be shown; use letters, digits and _ . : -", what, name)
	case !plainName(name):
		k.warn(line, "%s name %q has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not", what, name)
	}
	seen[name] = true
}

func (k *checker) word(line int, what, word string, allowed []string) {
	if !slices.Contains(allowed, word) {
		k.fail(line, "%s: %q is none of %s", what, word, strings.Join(allowed, ", "))
	}
}

func (k *checker) within(what string, n, low, high int64) {
	if n < low || n > high {
		k.fail(0, "%s is %d; want %d to %d", what, n, low, high)
	}
}

func (k *checker) duration(line int, what string, d time.Duration) {
	if d != 0 && (d < shortest || d > longest) {
		k.fail(line, "%s is %v; want 0 or %v to %v", what, d, shortest, longest)
	}
}

// seconds checks what is written in seconds and fractions of them.
func (k *checker) seconds(line int, what string, d time.Duration) {
	if d < shortest || d > longest || d%shortest != 0 {
		k.fail(line, "%s is %v; want whole milliseconds above 0", what, d)
	}
}

func (k *checker) plain(line int, what, text string) {
	if !printable(text) {
		k.fail(line, "%s has a character that cannot be shown", what)
	}
}
