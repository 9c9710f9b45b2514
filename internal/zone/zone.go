// Package zone finds the interfaces that the zones of IPv6 addresses name, such
// as eth0 in fe80::1%eth0. An interface that goes and comes back has another index,
// so nothing is remembered: every call asks the system.
package zone

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// Index returns the index of the interface that a zone names, or is the number of.
// The error wraps syscall.ENODEV if there is no such interface.
func Index(zone string) (int, error) {
	i, err := net.InterfaceByName(zone)
	if err == nil {
		return i.Index, nil
	}
	if n, ok := number(zone); ok {
		return n, nil
	}
	return 0, fmt.Errorf("interface %q: %w", zone, syscall.ENODEV)
}

// Numbered returns an address with the number of its zone, for package net, which
// goes on with the old number of an interface for up to a minute. An address
// without a zone is returned as it is.
func Numbered(a netip.AddrPort) (netip.AddrPort, error) {
	name := a.Addr().Zone()
	if name == "" {
		return a, nil
	}
	n, err := Index(name)
	if err != nil {
		return a, err
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(n)), a.Port()), nil
}

// Named returns the text of an address with the name of its zone where that is a
// number, and everything else as it is.
func Named(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if n, ok := number(ip.Zone()); ok {
		if i, err := net.InterfaceByIndex(n); err == nil {
			return ip.WithZone(i.Name).String()
		}
	}
	return host
}

// number reads a zone that is the number of an interface.
func number(zone string) (int, bool) {
	n, err := strconv.ParseUint(zone, 10, 31)
	return int(n), err == nil && n > 0
}
