package config

import (
	"net"
	"strings"
)

// wellKnown are the password hashes that the ancestors' samples published.
var wellKnown = [...]string{"..xpoEyRReGzk", "iy9l0V1MkG1DE"}

// Check returns what is wrong with the model, however it was made: read from a
// file or changed at run time. name stands for the file.
func (c *Config) Check(name string) Problems {
	p := c.check(name)
	p.sort()
	return p
}

// checker gathers problems of a model.
type checker struct {
	reader
}

func (c *Config) check(name string) Problems {
	k := &checker{reader{file: name}}
	if len(c.Services) == 0 {
		k.fail(0, "there is no <service>; a configuration needs at least one")
	}
	k.services(c.Services)
	k.listeners(c)
	k.admin(&c.Admin)
	if c.Manager.ConfigCheck.Enable {
		k.warn(0, "<configCheck> is not done by this version yet: changes made at run time are not written back")
	}
	return k.problems
}

// name checks a name, which must be there, and unique if seen is given.
func (k *checker) name(line int, what, name string, seen map[string]bool) {
	switch {
	case name == "":
		k.fail(line, "<%s> needs a name", what)
	case seen[name]:
		k.fail(line, "a second %s %q; names are unique", what, name)
	case !plainName(name):
		k.warn(line, "%s name %q has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not", what, name)
	}
	seen[name] = true
}

func (k *checker) services(services []*Service) {
	names := map[string]bool{}
	for _, s := range services {
		k.name(s.Pos.Line, "service", s.Name, names)
		if len(s.Listen) == 0 {
			k.fail(s.Pos.Line, "service %q listens nowhere; it needs a <listen ip=\"host:port\"/>", s.Name)
		}
		if len(s.Groups) == 0 {
			k.warn(s.Pos.Line, "service %q has no group: its clients will be closed", s.Name)
		}
		groups := map[string]bool{}
		var enabled []*Group
		for _, g := range s.Groups {
			k.name(g.Pos.Line, "group", g.Name, groups)
			k.group(s, g)
			if g.Enabled {
				enabled = append(enabled, g)
			}
		}
		switch {
		case len(enabled) > 1:
			k.fail(enabled[1].Pos.Line, "service %q has two enabled groups, %q and %q; one takes the clients", s.Name, enabled[0].Name, enabled[1].Name)
		case len(enabled) == 0 && len(s.Groups) > 0:
			k.fail(s.Pos.Line, "service %q has no enabled group; add enable=\"true\" to the one that should take the clients", s.Name)
		}
	}
}

func (k *checker) group(s *Service, g *Group) {
	if len(g.Hosts) == 0 {
		k.warn(g.Pos.Line, "group %q of service %q is empty: its clients will be closed", g.Name, s.Name)
	}
	if canonical, err := canonicalScheduler(g.Scheduler); err != nil || canonical != g.Scheduler {
		k.fail(g.Pos.Line, "group %q: there is no scheduler %q", g.Name, g.Scheduler)
	}
	names := map[string]bool{}
	weights := 0
	for _, h := range g.Hosts {
		k.name(h.Pos.Line, "host", h.Name, names)
		if err := checkAddress(h.Address, false); err != nil {
			k.fail(h.Pos.Line, "host %q: %v", h.Name, err)
		}
		if h.Weight < 0 || h.Weight > MaxWeight {
			k.fail(h.Pos.Line, "host %q: weight %d is not between 0 and %d", h.Name, h.Weight, MaxWeight)
		}
		weights += h.Weight
	}
	if len(g.Hosts) > 0 && weights == 0 {
		k.warn(g.Pos.Line, "every host of group %q has weight 0: its clients will be closed", g.Name)
	}
}

// listeners checks the addresses that the program listens on, all of them
// together.
func (k *checker) listeners(c *Config) {
	type taken struct {
		who, address string
		line         int
	}
	byPort := map[string][]taken{}
	add := func(who, address string, line int) {
		if err := checkAddress(address, true); err != nil {
			k.fail(line, "%s: %v", who, err)
			return
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			port = address // a UNIX socket
		}
		if port == "0" {
			return
		}
		for _, other := range byPort[port] {
			if overlap(other.address, address) {
				k.fail(line, "%s listens on %s, which %s has taken in line %d (%s)", who, address, other.who, other.line, other.address)
				return
			}
		}
		byPort[port] = append(byPort[port], taken{who, address, line})
	}
	for _, s := range c.Services {
		for _, l := range s.Listen {
			add("service \""+s.Name+"\"", l.Address, l.Pos.Line)
		}
	}
	if c.Admin.Metrics != "" {
		add("<metrics>", c.Admin.Metrics, c.Admin.MetricsPos.Line)
	}
	for name, a := range map[string]*AdminListen{"<web>": c.Admin.Web, "<ssh>": c.Admin.SSH} {
		if a != nil && a.Listen != "" {
			add(name, a.Listen, a.Pos.Line)
		}
	}
}

// overlap tells whether two addresses with the same port cannot both be
// listened on.
func overlap(a, b string) bool {
	if strings.HasPrefix(a, "unix:") || strings.HasPrefix(b, "unix:") {
		return a == b
	}
	hostA, _, _ := net.SplitHostPort(a)
	hostB, _, _ := net.SplitHostPort(b)
	every := func(host string) bool { return host == "*" || host == "" || host == "::" }
	v4 := func(host string) bool { return !strings.Contains(host, ":") }
	switch {
	case hostA == hostB, every(hostA), every(hostB):
		return true
	case hostA == "0.0.0.0":
		return v4(hostB)
	case hostB == "0.0.0.0":
		return v4(hostA)
	}
	return false
}

func (k *checker) admin(a *Admin) {
	if a.Web != nil && a.Web.Enable {
		k.warn(a.Web.Pos.Line, "the admin page is not served by this version yet")
	}
	if a.SSH != nil && a.SSH.Enable {
		k.warn(a.SSH.Pos.Line, "the SSH admin is not served by this version yet")
	}
	exposed := ""
	for _, l := range []*AdminListen{a.Web, a.SSH} {
		if l != nil && l.Enable && !isLoopback(l.Listen) {
			exposed = l.Listen
		}
	}
	names := map[string]bool{}
	for _, u := range a.Users {
		k.name(u.Pos.Line, "user", u.Name, names)
		public := false
		for _, hash := range wellKnown {
			public = public || u.Password == hash
		}
		switch {
		case public && exposed != "":
			k.warn(u.Pos.Line, "the password of user %q is that of a published sample: the admin will refuse to serve %s with it", u.Name, exposed)
		case public:
			k.warn(u.Pos.Line, "the password of user %q is that of a published sample; choose another", u.Name)
		case len(u.Password) == 13 && !strings.HasPrefix(u.Password, "$"):
			k.warn(u.Pos.Line, "the password of user %q is a DES hash, which looks at eight letters and is quickly broken; choose another kind", u.Name)
		}
	}
}
