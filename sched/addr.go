package sched

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Addr is the address of a client or of a backend: IPv4, IPv6 or the path of
// a UNIX socket. It is comparable, and the zero Addr is no address.
// An IPv4-mapped IPv6 address is always held as IPv4.
type Addr struct {
	ip   netip.AddrPort
	path string
}

// TCPAddr returns the address of a TCP endpoint.
func TCPAddr(ap netip.AddrPort) Addr {
	return Addr{ip: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}
}

// UnixAddr returns the address of a UNIX stream socket.
func UnixAddr(path string) Addr { return Addr{path: path} }

// ParseAddr reads "1.2.3.4:80", "[::1]:80" or "unix:/path". Host names are not
// addresses: the caller resolves them first.
func ParseAddr(s string) (Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Addr{}, errors.New("unix: needs a path")
		}
		return UnixAddr(path), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Addr{}, fmt.Errorf("%q is not an address: want 1.2.3.4:80, [::1]:80 or unix:/path", s)
	}
	return TCPAddr(ap), nil
}

// IP returns the TCP endpoint; it is not valid for a UNIX address.
func (a Addr) IP() netip.AddrPort { return a.ip }

// Path returns the path of a UNIX address, "" for any other.
func (a Addr) Path() string { return a.path }

// IsValid tells an address from the zero Addr.
func (a Addr) IsValid() bool { return a.ip.IsValid() || a.path != "" }

// String gives the form that ParseAddr reads.
func (a Addr) String() string {
	switch {
	case a.path != "":
		return "unix:" + a.path
	case a.ip.IsValid():
		return a.ip.String()
	}
	return ""
}
