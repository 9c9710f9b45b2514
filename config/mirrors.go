package config

import (
	"strings"
	"time"
)

// Mirror is <mirror>: who gets a copy of what the clients of a group send. Its answers are
// dropped.
type Mirror struct {
	Address       string        // host:port, [v6]:port or unix:/path; host may be a DNS name. Unique in the group
	Percent       int           // of the sessions, drawn by lot
	Resolve       time.Duration // how often the DNS name in Address is looked up; 0: until it has resolved once
	ProxyProtocol string        // which PROXY header goes ahead of each copy: v1, v2; "": none
	Pos           Pos
}

// NewMirror returns a mirror with the defaults of a document.
func NewMirror(address string) *Mirror {
	m := reset("mirror", new(Mirror))
	m.Address = address
	return m
}

// mirrors checks the mirrors of a group.
func (k *checker) mirrors(s *Service, g *Group) {
	seen := map[string]bool{}
	encrypted := false
	for _, h := range g.Hosts {
		encrypted = encrypted || h.TLS != ""
	}
	for i := range g.Mirrors {
		m := &g.Mirrors[i]
		line := m.Pos.Line
		k.values(line, "mirror", m)
		if m.Address == "" {
			continue // it is missing, which has been told
		}
		switch err := checkHostAddress(m.Address); {
		case err != nil:
			k.fail(line, "<mirror ip>: %v", err)
		case IsSRV(m.Address):
			k.fail(line, "<mirror ip>: %q is the name of SRV records; a mirror has one address, as host:port", m.Address)
		case seen[m.Address]:
			k.fail(line, "a second <mirror ip=%q> in group %q; one is enough", m.Address, g.Name)
		}
		if ip, lacks := lacksZone(m.Address); lacks {
			k.warn(line, "<mirror ip>: %s is a link-local address without its interface; want one such as [%s%%eth0]", ip, ip)
		}
		if encrypted && !strings.HasPrefix(m.Address, "unix:") {
			k.warn(line, "<mirror ip=%q>: connections to hosts of group %q are encrypted, and what its clients send goes to the mirror unencrypted", m.Address, g.Name)
		}
		seen[m.Address] = true
	}
	if len(g.Mirrors) == 0 {
		return
	}
	for i := range s.Listen {
		if p := s.Listen[i].StartTLS; p != "" {
			k.warn(g.Mirrors[0].Pos.Line, "group %q has a mirror, and clients of %s may ask for TLS first (startTLS=%q): sessions that do are not copied, or cannot be read by the mirror", g.Name, s.Listen[i].Address, p)
			return
		}
	}
}
