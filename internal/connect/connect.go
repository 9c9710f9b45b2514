// Package connect judges the result of a connect(2): whose fault an error is, and
// whether a socket was connected to itself.
package connect

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Shortage tells whether a call failed because there is no descriptor or memory. No
// other socket would work now, but any may later.
func Shortage(errno syscall.Errno) bool {
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return true
	}
	return false
}

// Ours tells whether socket(2) or connect(2) failed for a local shortage, which
// says nothing about the host: of descriptors, memory, local ports, or room in the
// queue of a UNIX socket (EAGAIN), or because the client's address cannot be the
// source. All other errors count as faults of the host: a
// missing permission or address family does not appear by itself.
func Ours(errno syscall.Errno) bool {
	return Shortage(errno) || errno == NotTransparent || errno == OtherFamily || errno == syscall.EADDRNOTAVAIL || errno == syscall.EADDRINUSE || errno == syscall.EAGAIN
}

// Self tells whether a connection to an address was made to itself. When nobody
// listens on a port of this machine, the kernel may choose that very port as the
// local one. The two ends then open the connection to each other, TCP's
// simultaneous open (RFC 9293, 3.5), and the socket reads what it writes.
func Self(local, to netip.AddrPort) bool {
	if local.Port() != to.Port() || !local.IsValid() {
		return false
	}
	ip := to.Addr()
	return local.Addr().WithZone("") == ip.WithZone("") || ip.IsUnspecified() && local.Addr().IsLoopback()
}

// Ports is a range of ports, both ends included.
type Ports struct{ Low, High uint16 }

// LocalPorts returns the ports that the kernel chooses from for connections. A
// connection to another port is never one to itself.
func LocalPorts() Ports {
	// Where the range is not known, each port may be in it.
	all := Ports{1, 65535}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return all
	}
	words := strings.Fields(string(text))
	if len(words) != 2 {
		return all
	}
	low, err1 := strconv.ParseUint(words[0], 10, 16)
	high, err2 := strconv.ParseUint(words[1], 10, 16)
	if err1 != nil || err2 != nil {
		return all
	}
	return Ports{uint16(low), uint16(high)}
}

// Has tells whether a port is in the range.
func (p Ports) Has(port uint16) bool { return p.Low <= port && port <= p.High }
