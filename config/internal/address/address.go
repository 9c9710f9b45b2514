// Package address tells when two listen addresses overlap, so that only one of them
// can be opened.
package address

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Split splits a valid listen address, so that equal addresses give equal parts.
// host is "" for every address, IPv6 and IPv4.
func Split(address string) (host, port string) {
	if file, ok := strings.CutPrefix(address, "unix:"); ok {
		return path.Clean(file), "unix"
	}
	host, port, _ = net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	switch host = strings.ToLower(strings.TrimSuffix(host, ".")); host {
	case "*", "::": // the kernel gives [::] both families as well
		host = ""
	case "localhost":
		host = "127.0.0.1"
	}
	return host, port
}

// Set is a set of listen addresses, by port.
type Set map[string][]string

// Add adds an address; equal ones are counted.
func (u Set) Add(address string) {
	host, port := Split(address)
	u[port] = append(u[port], host)
}

// Remove removes one address that is equal to this one.
func (u Set) Remove(address string) {
	host, port := Split(address)
	if i := slices.Index(u[port], host); i >= 0 {
		u[port] = slices.Delete(u[port], i, i+1)
	}
}

// Overlaps tells whether an address overlaps with one of the set. Port 0 overlaps
// with nothing: it gets a free port.
func (u Set) Overlaps(address string) bool {
	host, port := Split(address)
	if port == "0" {
		return false
	}
	is4 := func(h string) bool { return !strings.Contains(h, ":") }
	for _, other := range u[port] {
		switch {
		case other == host, other == "", host == "":
			return true
		case other == "0.0.0.0" && is4(host), host == "0.0.0.0" && is4(other):
			return true
		}
	}
	return false
}
