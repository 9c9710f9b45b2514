package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/words"
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

// roots are the names of the root element.
var roots = []string{"config", "pdconfig"}

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
// errors, what is as it was there (changes.Share): that is not looked at again, but
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
	if !slices.Contains(roots, c.Root) {
		k.fail(0, "the root element is <%s>; it must be <config> or <pdconfig>", c.Root)
	}
	k.values(0, "engine", &c.Engine)
	names := make(map[string]bool, len(c.Services))
	for _, s := range c.Services {
		k.name(s.Pos.Line, "service", s.Name, names, k.broken[s])
		if !k.checked[s] {
			k.service(s)
		}
	}
	k.listeners(c)
	k.starts(c)
	if k.checked == nil { // warnings are for whoever checks all
		k.loops(c)
	}
	k.admin(&c.Admin)
	for _, task := range []string{"hostCheck", "configCheck", "heartbeat"} {
		k.values(0, task, &c.Manager)
	}
	k.dns(&c.DNS)
	k.values(c.Control.Pos.Line, "control", &c.Control)
	k.values(0, "logging", &c.Logging)
}

// values checks the attributes that have a row in the schema.
func (k *checker) values(line int, element string, p any) {
	rows := schema[element]
	for i := range rows {
		if rows[i].check == nil {
			continue
		}
		if err := rows[i].check(p); err != nil && !k.broken[p] {
			k.fail(line, "<%s %s>: %v", element, rows[i].Name, err)
		}
	}
}

func (k *checker) service(s *Service) {
	line := s.Pos.Line
	if !k.broken[s] {
		if len(s.Listen) == 0 {
			k.fail(line, "service %q listens nowhere; it needs a <listen ip=\"host:port\"/>", s.Name)
		}
		if len(s.Groups) == 0 {
			k.warn(line, "service %q has no group: its clients will be rejected", s.Name)
		}
	}
	k.values(line, "timeouts", &s.Timeouts)
	k.values(line, "limits", &s.Limits)
	for _, l := range s.Listen {
		if ip, lacks := lacksZone(l.Address); lacks {
			k.warn(l.Pos.Line, "service %q listens on %s, a link-local address without its interface; want one such as [%s%%eth0]", s.Name, ip, ip)
		}
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
	k.values(line, "group", g)
	names := make(map[string]bool, len(g.Hosts))
	weights := 0
	for _, h := range g.Hosts {
		k.name(h.Pos.Line, "host", h.Name, names, k.broken[h])
		if h.Address != "" || !k.broken[h] {
			if err := checkHostAddress(h.Address); err != nil {
				k.fail(h.Pos.Line, "host %q: %v", h.Name, err)
			}
			if ip, lacks := lacksZone(h.Address); lacks {
				k.warn(h.Pos.Line, "host %q: %s is a link-local address without its interface; want one such as [%s%%eth0]", h.Name, ip, ip)
			}
		}
		k.values(h.Pos.Line, "host", h)
		k.source(h)
		weights = max(weights, h.Weight)
	}
	if g.Check != nil {
		k.healthCheck(g)
	}
	switch {
	case k.broken[g]:
	case len(g.Hosts) == 0:
		k.warn(line, "group %q of service %q is empty: its clients will be rejected", g.Name, s.Name)
	case weights == 0:
		k.warn(line, "every host of group %q has weight 0: its clients will be rejected", g.Name)
	}
}

// source checks the source of a host against its address, where that is no name.
func (k *checker) source(h *Host) {
	if h.Source == "" || checkSource(h.Source) != nil {
		return
	}
	if strings.HasPrefix(h.Address, "unix:") {
		k.fail(h.Pos.Line, "<host source>: host %q is a UNIX socket, to which connections have no source; leave it out", h.Name)
		return
	}
	host, _, err := net.SplitHostPort(h.Address)
	if err != nil {
		return
	}
	to, err := netip.ParseAddr(host)
	if from, _ := netip.ParseAddr(h.Source); err == nil && to.Unmap().Is4() != from.Unmap().Is4() {
		k.fail(h.Pos.Line, "<host source>: %s and the address of host %q, %s, are not both IPv4 or both IPv6", h.Source, h.Name, h.Address)
	}
}

func (k *checker) admin(a *Admin) {
	k.values(0, "admin", a)
	for _, l := range []struct {
		*AdminListen
		what string
	}{{a.Web, "the admin page"}, {a.SSH, "the SSH admin"}} {
		if l.AdminListen == nil {
			continue
		}
		if l.AdminListen == a.Web {
			k.values(l.Pos.Line, "web", l.AdminListen)
			if (l.Certificate == "") != (l.Key == "") {
				k.fail(l.Pos.Line, "<web> has one of certificate and key; give both, or none for a certificate that is made at the first start")
			}
		} else {
			k.values(l.Pos.Line, "ssh", l.AdminListen)
		}
		if !l.Enable {
			continue
		}
		if len(a.Users) == 0 {
			k.warn(l.Pos.Line, "%s is on, but no <user> can log in; create a password hash with txlb passwd", l.what)
		}
		if !isLoopback(l.Listen) {
			if l.AdminListen == a.Web && !l.Secure {
				k.warn(l.Pos.Line, "the admin page is served without TLS on %s: passwords can be read on the way; set secure=\"true\"", l.Listen)
			}
		}
	}
	if a.Socket != nil {
		k.socket(a.Socket)
	}
	names := map[string]bool{}
	for _, u := range a.Users {
		k.name(u.Pos.Line, "user", u.Name, names, k.broken[u])
		k.values(u.Pos.Line, "user", u)
		if !k.broken[u] {
			k.password(u)
		}
		for _, key := range u.Keys {
			if err := checkKey(key); err != nil {
				k.fail(u.Pos.Line, "<key> of user %q: %v", u.Name, err)
			}
		}
	}
}

// password warns of hashes that protect little. It never shows one.
func (k *checker) password(u *User) {
	switch {
	case IsPublished(u.Password):
		k.warn(u.Pos.Line, "the password of user %q is that of a published sample: nobody can log in with it; make another with txlb passwd", u.Name)
	case u.Password == "" && len(u.Keys) > 0: // he has SSH
	case u.Password == "":
		k.warn(u.Pos.Line, "user %q has no password and cannot log in; give a crypt(3) hash", u.Name)
	case isDES(u.Password):
		k.warn(u.Pos.Line, "the password of user %q is a DES hash, which looks at eight letters and is quickly broken; choose another kind", u.Name)
	case !strings.HasPrefix(u.Password, "$"):
		k.warn(u.Pos.Line, "the password of user %q is not a known crypt(3) hash, which begins with $", u.Name)
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
		k.fail(line, "%s name %q has a non-printable character; use letters, digits and _ . : -", what, name)
	case !words.Plain(name):
		k.warn(line, "%s name %q has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not", what, name)
	}
	seen[name] = true
}

// checkDuration checks one for which 0 means that there is no limit.
func checkDuration(d time.Duration) error {
	if d != 0 && (d < shortest || d > longest) {
		return fmt.Errorf("%v is neither 0 nor between %s and %s", d, duration(shortest), duration(longest))
	}
	return nil
}

// checkSeconds checks what is written in seconds and fractions of them.
func checkSeconds(d time.Duration) error {
	if d < shortest || d > longest || d%shortest != 0 {
		return fmt.Errorf("%v is not in whole milliseconds above 0", d)
	}
	return nil
}
