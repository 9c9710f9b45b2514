package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Named returns an error if a verb made c name something that verbs may not name: a
// UNIX socket, a file, or a host that <admin targets> does not allow. running is
// the configuration before the verb. What running or the file names in the same
// place is allowed; file may be nil.
func (c *Config) Named(running, file *Config) error {
	rule := running.Admin.Targets
	if rule == targetsAny {
		return nil
	}
	nets, _ := networks(rule) // none: tcp
	var foreign []naming
	c.each(running, func(n naming) {
		if n.foreign(nets) {
			foreign = append(foreign, n)
		}
	})
	for _, before := range []*Config{running, file} {
		if len(foreign) == 0 {
			return nil
		}
		if before == nil {
			continue
		}
		known := map[naming]bool{}
		before.each(nil, func(n naming) {
			if n.foreign(nets) {
				known[n] = true
			}
		})
		foreign = slices.DeleteFunc(foreign, func(n naming) bool { return known[n] })
	}
	if len(foreign) == 0 {
		return nil
	}
	n := foreign[0]
	allowed := "TCP addresses"
	if n.kind == TypeTarget && len(nets) > 0 {
		allowed = "addresses in " + rule
	}
	return fmt.Errorf("%q: <admin targets=%q> lets commands name only %s; write it into the configuration file and reload, or change targets there", n.value, rule, allowed)
}

// naming is an address or a file that a configuration names, and where.
type naming struct {
	service, group, host string
	element, attribute   string
	kind                 Type
	value                string
}

// foreign tells whether verbs may not name it. nets are the networks in which hosts
// must be; none means everywhere.
func (n naming) foreign(nets []netip.Prefix) bool {
	switch {
	case n.value == "":
		return false
	case n.kind == TypeFile, strings.HasPrefix(n.value, "unix:"):
		return true
	case n.kind == TypeListen || len(nets) == 0:
		return false
	}
	a, err := netip.ParseAddrPort(n.value)
	if err != nil { // a name, whose addresses are somebody else's to choose
		return true
	}
	ip := a.Addr().Unmap().WithZone("")
	return !slices.ContainsFunc(nets, func(net netip.Prefix) bool { return net.Contains(ip) })
}

// namingRows are the attributes that name an address or a file, by their elements.
var namingRows = func() map[string][]*Attribute {
	m := map[string][]*Attribute{}
	for element, rows := range schema {
		for i := range rows {
			if a := &rows[i]; a.Type == TypeTarget || a.Type == TypeListen || a.Type == TypeFile {
				m[element] = append(m[element], a)
			}
		}
	}
	return m
}()

// each calls f for everything that c names, except hosts that another model has in
// the same place: there may be very many, and a verb changes one.
func (c *Config) each(but *Config, f func(naming)) {
	of := func(at naming, element string, p any) {
		for _, a := range namingRows[element] {
			at.element, at.attribute, at.kind, at.value = element, a.Name, a.Type, a.Get(p)
			f(at)
		}
	}
	for i, s := range c.Services {
		at := naming{service: s.Name}
		var known *Service
		if but != nil && i < len(but.Services) && but.Services[i].Name == s.Name {
			known = but.Services[i]
		}
		if known == s {
			continue
		}
		of(at, "service", s)
		of(at, "timeouts", &s.Timeouts)
		of(at, "limits", &s.Limits)
		for i := range s.Listen {
			of(at, "listen", &s.Listen[i])
		}
		for i := range s.Access {
			of(at, s.Access[i].tag(), &s.Access[i])
		}
		for i, g := range s.Groups {
			at := naming{service: s.Name, group: g.Name}
			var hosts []*Host
			if known != nil && i < len(known.Groups) && known.Groups[i].Name == g.Name {
				hosts = known.Groups[i].Hosts
			}
			of(at, "group", g)
			if g.Check != nil {
				of(at, "check", g.Check)
			}
			for i := range g.Mirrors { // the address is where it is, so that another one is another place
				of(naming{service: s.Name, group: g.Name, host: g.Mirrors[i].Address}, "mirror", &g.Mirrors[i])
			}
			for i, h := range g.Hosts {
				if i < len(hosts) && *hosts[i] == *h {
					continue
				}
				of(naming{service: s.Name, group: g.Name, host: h.Name}, "host", h)
			}
		}
	}
	var top naming
	if c.Admin.Web != nil {
		of(top, "web", c.Admin.Web)
	}
	if c.Admin.SSH != nil {
		of(top, "ssh", c.Admin.SSH)
	}
	if c.Admin.Socket != nil {
		of(top, "socket", c.Admin.Socket)
	}
	of(top, "admin", &c.Admin)
	of(top, "metrics", &c.Admin)
	for _, u := range c.Admin.Users {
		of(naming{host: u.Name}, "user", u)
	}
	of(top, "engine", &c.Engine)
	of(top, "fleet", &c.Fleet)
	of(top, "dns", &c.DNS)
	of(top, "control", &c.Control)
	of(top, "logging", &c.Logging)
}
