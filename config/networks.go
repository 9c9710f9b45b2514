package config

import (
	"fmt"
	"net/netip"
)

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
