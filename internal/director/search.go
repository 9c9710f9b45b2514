package director

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// resolvConf is what is used of /etc/resolv.conf, see resolv.conf(5). We go through
// its search list ourselves: package net continues with the next domain, to another
// host of the same name, after some failures and when only one address family is
// missing.
type resolvConf struct {
	servers []netip.AddrPort
	search  []string // domains, each with a dot at its end
	ndots   int
}

const (
	// maxNameservers is how many of the servers are asked (MAXNS of resolver(3)).
	maxNameservers = 3
	// maxName is the length of the longest name, with the dot at its end.
	maxName = 254
)

// readResolvConf reads the file, again for each look-up. Without a file, the server
// is this machine and the search list its own domain, as in the C library.
func readResolvConf() resolvConf {
	text, _ := os.ReadFile("/etc/resolv.conf")
	host, _ := os.Hostname()
	return parseResolvConf(string(text), host)
}

func parseResolvConf(text, hostname string) resolvConf {
	c := resolvConf{ndots: 1}
	if _, domain, ok := strings.Cut(hostname, "."); ok {
		c.search = domains(domain)
	}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, ";#"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if ip, err := netip.ParseAddr(words[1]); err == nil && len(c.servers) < maxNameservers {
				c.servers = append(c.servers, netip.AddrPortFrom(ip, 53))
			}
		case "domain":
			c.search = domains(words[1])
		case "search":
			c.search = domains(words[1:]...)
		case "options":
			for _, o := range words[1:] {
				if n, ok := strings.CutPrefix(o, "ndots:"); ok {
					if v, err := strconv.Atoi(n); err == nil {
						c.ndots = min(max(v, 0), 15)
					}
				}
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")}
	}
	return c
}

func domains(words ...string) (list []string) {
	for _, w := range words {
		if w = strings.TrimSuffix(w, "."); w != "" {
			list = append(list, w+".")
		}
	}
	return list
}

// names returns the names that one stands for, all complete, in the order in which
// they are to be looked up.
func (c resolvConf) names(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var list []string
	full := strings.Count(name, ".") >= c.ndots
	name += "."
	if full {
		list = append(list, name)
	}
	for _, domain := range c.search {
		if len(name)+len(domain) <= maxName {
			list = append(list, name+domain)
		}
	}
	if !full {
		list = append(list, name)
	}
	return list
}

// errOffline is the error of the resolver of inHosts for every server.
var errOffline = &net.OpError{Op: "dial", Net: "udp", Err: errors.New("no server is asked")}

// inHosts returns the addresses of one family that /etc/hosts has for a name, none
// if it has none.
func inHosts(ctx context.Context, name string) []netip.Addr {
	all, err := (&net.Resolver{
		PreferGo: true, StrictErrors: true,
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errOffline },
	}).LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	var four, six []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(four) > 0 {
		return four
	}
	return six
}
