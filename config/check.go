package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// roots are the names of the root element.
var roots = []string{"config", "pdconfig"}

const noService = "there is no <service>; a configuration needs at least one"

// Check returns what is wrong with the model, however it was made: read from a
// file or changed at run time. name stands for the file. A model without errors
// survives Marshal and Parse as it is, unless a group has a scheduler that is a program's
// own ("custom:NAME"), which Parse refuses.
func (c *Config) Check(name string) Problems {
	k := &checker{report: report{file: name}}
	k.config(c)
	return k.told()
}

// CheckSince is Check for a model that shares its unchanged parts with another one
// that has no errors (changes.Share). Shared parts are only checked for conflicts
// with changed ones, and warnings about them are left out.
func (c *Config) CheckSince(was *Config, name string) Problems {
	k := &checker{report: report{file: name}, was: was}
	if !c.inPlace(was) {
		k.checked = make(map[*Service]bool, len(was.Services))
		for _, s := range was.Services {
			k.checked[s] = true
		}
	}
	k.config(c)
	return k.told()
}

// inPlace tells whether c has services of the same names as was, in the same order.
func (c *Config) inPlace(was *Config) bool {
	return slices.EqualFunc(c.Services, was.Services, func(s, before *Service) bool { return s == before || s.Name == before.Name })
}

func (k *checker) config(c *Config) {
	k.program = c.Program
	if len(c.Services) == 0 && !k.broken[c] && !k.program {
		k.fail(0, noService)
	}
	if !slices.Contains(roots, c.Root) {
		k.fail(0, "the root element is <%s>; it must be <config> or <pdconfig>", c.Root)
	}
	k.values(0, "engine", &c.Engine)
	if k.was != nil && k.checked == nil { // services of the same names in the same order
		listen := !slices.Equal(c.otherListeners(), k.was.otherListeners())
		for i, s := range c.Services {
			if before := k.was.Services[i]; s != before {
				k.service(s)
				listen = listen || !slices.Equal(s.Listen, before.Listen)
			}
		}
		if listen {
			k.listeners(c)
		}
	} else {
		names := make(map[string]bool, len(c.Services))
		for _, s := range c.Services {
			k.name(s.Pos.Line, "service", s.Name, names, k.broken[s])
			if !k.checked[s] {
				k.service(s)
			}
		}
		k.listeners(c)
	}
	k.starts(c)
	if k.was == nil { // warnings are only for a full check
		k.loops(c)
		k.zones(c)
	}
	k.admin(&c.Admin)
	for _, task := range []string{"hostCheck", "configCheck", "heartbeat"} {
		k.values(0, task, &c.Manager)
	}
	k.dns(&c.DNS)
	k.fleet(&c.Fleet)
	k.shares(c)
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
		if len(s.Listen) == 0 && !k.program {
			k.fail(line, "service %q listens nowhere; it needs a <listen ip=\"host:port\"/>", s.Name)
		}
		if len(s.Groups) == 0 && !k.program {
			k.warn(line, "service %q has no group: its clients will be rejected", s.Name)
		}
	}
	k.values(line, "timeouts", &s.Timeouts)
	k.values(line, "limits", &s.Limits)
	for _, l := range s.Listen {
		if ip, lacks := lacksZone(l.Address); lacks {
			k.warn(l.Pos.Line, "service %q listens on %s, a link-local address without its interface; want one such as [%s%%eth0]", s.Name, ip, ip)
		}
		k.values(l.Pos.Line, "listen", &l)
		if !k.broken[s] {
			k.proxies(&l)
			k.encryption(&l)
		}
	}
	k.access(s)
	groups := map[string]bool{}
	var enabled []*Group
	for _, g := range s.Groups {
		k.name(g.Pos.Line, "group", g.Name, groups, k.broken[g])
		k.group(s, g)
		if g.Enabled {
			enabled = append(enabled, g)
		}
	}
	k.routes(s, groups)
	switch {
	case len(enabled) > 1:
		k.fail(enabled[1].Pos.Line, "service %q has two enabled groups, %q and %q; one takes the clients", s.Name, enabled[0].Name, enabled[1].Name)
	case len(enabled) == 0 && len(s.Groups) > 0 && !k.broken[s]:
		k.fail(line, "service %q has no enabled group; the one that takes the clients needs <group enable=\"true\">", s.Name)
	}
}

// access checks the rules about who may connect.
func (k *checker) access(s *Service) {
	denies := len(s.Access) == 0
	for i := range s.Access {
		r := &s.Access[i]
		k.values(r.Pos.Line, r.tag(), r)
		if (r.Nets == "") == (r.File == "") {
			k.fail(r.Pos.Line, "<%s> needs net or file, and not both: <%[1]s net=\"10.0.0.0/8\"/>", r.tag())
		}
		denies = denies || r.Deny
		if r.Nets == "*" && i+1 < len(s.Access) {
			k.warn(s.Access[i+1].Pos.Line, "service %q: this rule and those after it are never reached: <%s net=\"*\"> matches every address", s.Name, r.tag())
			break
		}
	}
	if !denies {
		k.warn(s.Access[0].Pos.Line, "service %q: <access> only allows, and who matches no rule is allowed as well; end it with <deny net=\"*\"/>", s.Name)
	}
}

func (k *checker) group(s *Service, g *Group) {
	line := g.Pos.Line
	k.values(line, "group", g)
	if name, own := sched.CustomName(g.Scheduler); own && k.written {
		k.fail(line, "<group scheduler>: %q is a program's own, given by txlb.Config.Schedulers; a file can have %s", name, strings.Join(sched.Choices(), ", "))
	}
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
		if !k.broken[h] {
			k.hostEncryption(h)
		}
		weights = max(weights, h.Weight)
	}
	if g.Check != nil {
		k.healthCheck(g)
	}
	if len(g.Mirrors) > 0 {
		k.mirrors(s, g)
	}
	switch {
	case k.broken[g]:
	case len(g.Hosts) == 0 && k.program:
	case len(g.Hosts) == 0:
		k.warn(line, "group %q of service %q is empty: its clients will be rejected", g.Name, s.Name)
	case weights == 0:
		k.warn(line, "every host of group %q has weight 0: its clients will be rejected", g.Name)
	}
}

// proxies checks whose PROXY headers a listener takes.
func (k *checker) proxies(l *Listen) {
	line, unix := l.Pos.Line, strings.HasPrefix(l.Address, "unix:")
	switch {
	case l.ProxyProtocol == "" && l.ProxyFrom != "":
		k.warn(line, "<listen proxyFrom> means nothing without proxyProtocol=\"accept\" or \"require\"")
	case unix && l.ProxyFrom != "":
		k.fail(line, "<listen proxyFrom>: %s is a UNIX socket, whose clients have no address; leave it out, with proxyProtocol=\"require\"", l.Address)
	case unix && l.ProxyProtocol == "accept":
		k.fail(line, "<listen proxyProtocol>: %s is a UNIX socket, whose clients have no address to accept a header from; write \"require\"", l.Address)
	case l.ProxyProtocol == "accept" && l.ProxyFrom == "":
		k.fail(line, "<listen proxyProtocol=\"accept\"> needs proxyFrom: the addresses or networks of the proxies, such as 10.0.0.0/8")
	case l.ProxyProtocol == "require" && l.ProxyFrom == "" && !unix:
		k.warn(line, "<listen proxyProtocol=\"require\"> on %s without proxyFrom: anybody who can connect may claim any address; name the proxies", l.Address)
	}
}

// source checks the source of a host against its address, where that is no name.
func (k *checker) source(h *Host) {
	if strings.HasPrefix(h.Address, "unix:") && h.Interface != "" {
		k.fail(h.Pos.Line, "<host interface>: host %q is a UNIX socket, to which no interface leads; leave it out", h.Name)
	}
	if h.Source == "" || checkSource(h.Source) != nil {
		return
	}
	if strings.HasPrefix(h.Address, "unix:") {
		k.fail(h.Pos.Line, "<host source>: host %q is a UNIX socket, to which connections have no source; leave it out", h.Name)
		return
	}
	host, _, err := net.SplitHostPort(h.Address)
	if err != nil || h.Source == ClientSource {
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

// name checks that a name is present and unique. A missing name in a part with
// mistakes has already been reported.
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
	case !words.Plain(name) && !k.program:
		k.warn(line, "%s name %q has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not", what, name)
	}
	seen[name] = true
}

func (k *checker) socket(s *Socket) {
	line := s.Pos.Line
	k.values(line, "socket", s)
	if s.Mode&0o006 != 0 {
		k.warn(line, "<socket mode> is %s: everybody on this machine has full access; use 0660 and a group", formatMode(s.Mode))
	}
}

func (k *checker) dns(c *DNS) {
	if len(c.Servers) > maxDNSServers {
		k.fail(c.Pos.Line, "<dns servers> names %d servers; at most %d are asked", len(c.Servers), maxDNSServers)
	}
	seen := map[netip.AddrPort]bool{}
	for _, s := range c.Servers {
		server, err := DNSServer(s)
		switch {
		case err == nil && (!printable(s) || len(strings.Fields(s)) != 1): // zones may be anything
			err = fmt.Errorf("%q has a character that no address has", s)
		case err == nil && seen[server]:
			err = fmt.Errorf("%q is there twice", s)
		}
		if err != nil {
			k.fail(c.Pos.Line, "<dns servers>: %v", err)
		}
		seen[server] = true
	}
}

// zones warns of zones that have no effect.
func (k *checker) zones(c *Config) {
	var first *Host // that has one
	var names []string
	for _, s := range c.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				switch {
				case h.Zone == "":
					continue
				case h.Zone == c.Engine.Zone:
					return
				case first == nil:
					first = h
				}
				if !slices.Contains(names, h.Zone) && len(names) < maxNamed {
					names = append(names, h.Zone)
				}
			}
		}
	}
	switch {
	case first == nil && c.Engine.Zone != "":
		k.warn(0, "<engine zone=%q> means nothing: no host has a zone", c.Engine.Zone)
	case first == nil:
	case c.Engine.Zone == "":
		k.warn(first.Pos.Line, "<host zone> means nothing without <engine zone>, which says where this node is")
	default:
		k.warn(0, "no host is in <engine zone=%q>; hosts are in %s", c.Engine.Zone, strings.Join(names, ", "))
	}
}

// maxNamed is how many names a warning lists.
const maxNamed = 8

// starts checks that hosts which wait for a check get one.
func (k *checker) starts(c *Config) {
	for _, s := range c.Services {
		for _, g := range s.Groups {
			if g.StartDown && g.Check == nil && !c.Manager.HostCheck.Enable {
				k.fail(g.Pos.Line, "group %q of service %q: start=\"down\" waits for a check, and there is none; add a <check/> to the group or enable <hostCheck>", g.Name, s.Name)
			}
		}
	}
}

// healthCheck checks <check> and what it needs of the hosts.
func (k *checker) healthCheck(g *Group) {
	c := g.Check
	line := c.Pos.Line
	k.values(line, "check", c)
	if c.Type == "expect" && c.Expect == "" && !k.broken[c] {
		k.fail(line, "<check type=\"expect\"> needs the attribute expect: what a host that is up says")
	}
	if c.CA != "" && !c.Verify {
		k.warn(line, "<check ca> means nothing without verify=\"yes\"")
	}
	for _, h := range g.Hosts {
		if c.Type == "tls" && c.Verify && c.Host == "" && strings.HasPrefix(h.Address, "unix:") {
			k.fail(h.Pos.Line, "host %q is a UNIX socket, which has no name to verify; give <check host=\"NAME\">", h.Name)
		}
		if c.Port != 0 && strings.HasPrefix(h.Address, "unix:") {
			k.fail(h.Pos.Line, "host %q is a UNIX socket, which has no port that <check port=\"%d\"> could mean; leave port out", h.Name, c.Port)
		}
	}
	k.idle(c)
}

// idle warns of attributes that have no effect with a type of check.
func (k *checker) idle(c *HealthCheck) {
	for _, a := range []struct {
		name  string
		types []string
	}{
		{"path", []string{"http"}},
		{"status", []string{"http"}},
		{"host", []string{"http", "tls"}},
		{"verify", []string{"tls"}},
		{"ca", []string{"tls"}},
		{"send", []string{"expect"}},
		{"expect", []string{"expect"}},
	} {
		if !Find("check", a.name).isDefault(c) && !slices.Contains(a.types, c.Type) {
			k.warn(c.Pos.Line, "<check %s> means nothing to type %q; it is for %s", a.name, c.Type, strings.Join(a.types, " and "))
		}
	}
}
