package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/txlb/txlb/config/internal/address"
)

// listeners checks all listen addresses of the program together.
func (k *checker) listeners(c *Config) {
	t := listenTable{}
	add := func(who, address string, line int) {
		if err := checkAddress(address, true); err != nil {
			k.fail(line, "%s: %v", who, err)
			return
		}
		if other := t.add(taken{who, address, line}); other != nil {
			where := ""
			if other.line > 0 {
				where = fmt.Sprintf(" in line %d", other.line)
			}
			k.fail(line, "%s listens on %s, which %s has taken%s (%s)", who, address, other.who, where, other.address)
		}
	}
	for _, s := range c.Services {
		who := fmt.Sprintf("service %q", s.Name)
		for _, l := range s.Listen {
			if l.Address != "" || !k.broken[s] {
				add(who, l.Address, l.Pos.Line)
			}
			k.listenOptions(s, &l)
		}
	}
	for _, l := range c.otherListeners() {
		add(l.who, l.address, l.line)
	}
}

// otherListeners returns where what is no service listens.
func (c *Config) otherListeners() (list []taken) {
	if c.Admin.Metrics != "" {
		list = append(list, taken{"<metrics>", c.Admin.Metrics, c.Admin.MetricsPos.Line})
	}
	// What is off takes no port; files of earlier versions often have it.
	if a := c.Admin.Web; a != nil && a.Enable {
		list = append(list, taken{"<web>", a.Listen, a.Pos.Line})
	}
	if a := c.Admin.SSH; a != nil && a.Enable {
		list = append(list, taken{"<ssh>", a.Listen, a.Pos.Line})
	}
	// txLoadBalancer's <control> may be relative; to which folder is not known yet.
	if s := c.Admin.Socket; s != nil && checkSocketPath(s.Path) == nil {
		list = append(list, taken{"<socket path>", "unix:" + s.Path, s.Pos.Line})
	}
	if path := c.Control.Socket; checkSocketPath(path) == nil {
		list = append(list, taken{"<control socket>", "unix:" + path, c.Control.Pos.Line})
	}
	return list
}

// listenOptions checks what a listener asks of the kernel.
func (k *checker) listenOptions(s *Service, l *Listen) {
	line := l.Pos.Line
	if strings.HasPrefix(l.Address, "unix:") {
		for _, o := range []struct {
			name string
			on   bool
			what string
		}{
			{"freeBind", l.FreeBind, "needs no interface"},
			{"interface", l.Interface != "", "has no interface"},
			{"deferAccept", l.DeferAccept, "has no handshake"},
			{"fastOpen", l.FastOpen, "has no handshake"},
			{"mptcp", l.MPTCP, "has one path"},
		} {
			if o.on {
				k.fail(line, "<listen %s>: %s is a UNIX socket, which %s; leave it out", o.name, l.Address, o.what)
			}
		}
		return
	}
	host, _ := address.Split(l.Address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() != "" && l.Interface != "" && ip.Zone() != l.Interface {
		k.fail(line, "<listen interface>: %q is another interface than that of %s; leave it out", l.Interface, l.Address)
	}
	if l.MPTCP && s.Timeouts.Unacked > 0 {
		k.warn(line, "<timeouts unacked> does not hold for clients that use Multipath TCP, which %s allows", l.Address)
	}
}

// taken is an address in use.
type taken struct {
	who, address string
	line         int
}

// listenTable finds addresses that cannot both be listened on, in constant
// time each: a file may have very many on one port.
type listenTable map[string]*portUse

// portUse is who listens on one port. The first of each kind is enough: every
// further one would overlap with it too.
type portUse struct {
	first  *taken // of all
	every  *taken // on every address
	every4 *taken // on every IPv4 address
	first4 *taken // on IPv4, or on a name that may be one
	hosts  map[string]*taken
}

// add enters an address, unless it overlaps with one that is there, which it
// returns.
func (t listenTable) add(n taken) *taken {
	host, port := address.Split(n.address)
	if port == "0" { // each takes a free port of its own
		return nil
	}
	use := t[port]
	if use == nil {
		use = &portUse{hosts: map[string]*taken{}}
		t[port] = use
	}
	every, every4, is4 := host == "", host == "0.0.0.0", !strings.Contains(host, ":")
	var other *taken
	switch {
	case every:
		other = use.first
	case use.every != nil:
		other = use.every
	case every4:
		other = use.first4
	case is4 && use.every4 != nil:
		other = use.every4
	default:
		other = use.hosts[host]
	}
	if other != nil {
		return other
	}
	use.hosts[host] = &n
	if use.first == nil {
		use.first = &n
	}
	if every {
		use.every = &n
	}
	if every4 {
		use.every4 = &n
	}
	if is4 && use.first4 == nil {
		use.first4 = &n
	}
	return nil
}
