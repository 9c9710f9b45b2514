package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Networks are IP networks, as text with a space between two: "10.0.0.0/8
// 192.0.2.7/32". "" is every address, and is written as *. IPv4-mapped networks
// are written as those of IPv4.
type Networks string

// String is how the configuration has them.
func (n Networks) String() string {
	if n == "" {
		return "*"
	}
	return string(n)
}

// Prefixes returns the networks, nil for every address.
func (n Networks) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range strings.Fields(string(n)) {
		if p, err := parseNetwork(s); err == nil { // it was checked when it was read
			all = append(all, p)
		}
	}
	return all
}

// parseNetworks reads a list. An empty list is an error, because it would allow
// nobody.
func parseNetworks(s string) (Networks, error) {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == ',' })
	if len(words) == 0 {
		return "", fmt.Errorf("no network; want networks such as 10.0.0.0/8, or * for every address")
	}
	list := make([]string, len(words))
	for i, w := range words {
		if w == "*" && len(words) == 1 {
			return "", nil
		}
		p, err := parseNetwork(w)
		if err != nil {
			return "", err
		}
		list[i] = p.String()
	}
	return Networks(strings.Join(list, " ")), nil
}

// maxListFile bounds a file of networks, in bytes.
const maxListFile = 16 << 20

// ParseNetworkList reads the text of a file of networks: one a line, of CIDR or an
// address; blank lines and what follows a # are ignored. name stands for the file in
// the problems.
func ParseNetworkList(name string, text []byte) (list []netip.Prefix, problems Problems) {
	r := report{file: name}
	if len(text) > maxListFile {
		r.fail(0, "the file is larger than %d MiB", maxListFile>>20)
		return nil, r.told()
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, err := parseNetwork(line)
		if err != nil {
			r.fail(n, "%v", err)
			continue
		}
		list = append(list, p)
	}
	if len(r.problems) > 0 {
		return nil, r.told()
	}
	return list, nil
}

// parseNetwork reads a network or an address, which is a network of one.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, fmt.Errorf("%q is not a network; want one such as 10.0.0.0/8 or 2001:db8::/32, or an address", s)
	case p.Masked() != p:
		return p, fmt.Errorf("%s is an address within a network; want %s or %s", s, p.Masked(), p.Addr())
	}
	return p, nil
}
