package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	// DefaultResolve is how often the name of a host is looked up.
	DefaultResolve = 30 * time.Second
	// MinResolve bounds that from below.
	MinResolve = time.Second
	// maxDNSServers bounds the number of servers, so that each has enough time for its
	// answer.
	maxDNSServers = 8
	// dnsPort is where servers are that name no port.
	dnsPort = 53
)

// DNSServer reads the address of a DNS server: 10.0.0.1, 10.0.0.1:5353, ::1 or
// [::1]:5353, port 53 if none is said. Names are rejected: they would have to be
// looked up first.
func DNSServer(s string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(ip, dnsPort), nil
	}
	server, err := netip.ParseAddrPort(s)
	if err != nil {
		server, err = netip.ParseAddrPort(fmt.Sprintf("%s:%d", s, dnsPort)) // [::1]
	}
	if err != nil || server.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not a DNS server; write addresses such as 10.0.0.1 or [::1]:5353, with spaces between them", s)
	}
	return server, nil
}

// IsSRV tells whether a host's address is the name of SRV records, such as
// _pg._tcp.example., which say address and port. Everything else that Check
// accepts has a port or a path.
func IsSRV(address string) bool {
	return strings.HasPrefix(address, "_") && !strings.Contains(address, ":")
}

// checkHostAddress checks the address of a host: one to connect to, or the name
// of SRV records.
func checkHostAddress(s string) error {
	if !strings.HasPrefix(s, "_") {
		return checkAddress(s, false)
	}
	name, _, port := strings.Cut(s, ":")
	labels := strings.SplitN(strings.TrimSuffix(name, "."), ".", 3)
	srv := len(labels) == 3 && strings.HasPrefix(labels[0], "_") && strings.EqualFold(labels[1], "_tcp")
	switch {
	case srv && port:
		return fmt.Errorf("%q: SRV records say the port; leave it out", s)
	case !IsSRV(s):
		return checkAddress(s, false)
	case !srv:
		return fmt.Errorf("%q is not an address; write host:port, or _service._tcp.domain for SRV records", s)
	}
	return checkHostName(s, name)
}

// parseResolve reads how often a name is looked up.
func parseResolve(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil {
		err = checkResolve(d)
	}
	return d, err
}

func checkResolve(d time.Duration) error {
	if d != 0 && (d < MinResolve || d > longest) {
		return fmt.Errorf("%v is not between %v and %v, nor 0 for once", d, MinResolve, longest)
	}
	return nil
}
