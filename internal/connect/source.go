package connect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// NoSource stands for the errno of a bind(2) to a source address that this machine
// does not have. EADDRNOTAVAIL would say that the local ports have run out, which
// is no fault of the host: a wrong source is a fault of its configuration, and does
// not pass by itself.
const NoSource = syscall.ENODEV

// These stand for the errno of what keeps a client's address from being the source of a
// connection. They say nothing about the host.
const (
	NotTransparent = syscall.ERANGE // the process may not use addresses of others
	OtherFamily    = syscall.EDOM   // one is IPv4 and the other IPv6
)

// NoInterface stands for the errno of SO_BINDTODEVICE where there is no such interface.
const NoInterface = syscall.ENXIO

// Source is where a connection comes from. The zero value leaves it to the kernel.
type Source struct {
	Addr netip.Addr // not valid: the kernel chooses
	// Transparent says that Addr is not one of this machine (IP_TRANSPARENT, ip(7)).
	Transparent bool
	Interface   string // "": as the routes say
}

// Set tells whether the source says anything.
func (s Source) Set() bool { return s.Addr.IsValid() || s.Interface != "" }

// Reason is the error of a connect that failed, for an operator. source is where it
// was to come from.
func Reason(errno syscall.Errno, source Source) error {
	switch {
	case errno == NotTransparent && source.Transparent:
		return errNotTransparent
	case errno == OtherFamily && source.Transparent:
		return fmt.Errorf("the client's address %v and that of the host are not both IPv4 or both IPv6", source.Addr)
	case errno == NoInterface && source.Interface != "":
		return fmt.Errorf("there is no interface %q: %w", source.Interface, errno)
	case !source.Addr.IsValid():
	case errno == NoSource:
		return fmt.Errorf("source %v is not an address of this machine: %w", source.Addr, errno)
	default:
		return fmt.Errorf("from %v: %w", source.Addr, errno)
	}
	return errno
}

var errNotTransparent = errors.New(`source="client" needs CAP_NET_ADMIN, which this process does not have`)

// From makes a dialer connect from a source. to is where it connects to, whose zone
// counts for both.
func From(d *net.Dialer, source Source, to netip.Addr) {
	if source.Addr.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(sourceFor(source.Addr, to), 0))
	}
	if source.Transparent && source.Addr.Is4() != to.Is4() { // net would not ask the kernel
		d.Control = func(string, string, syscall.RawConn) error { return OtherFamily }
		d.LocalAddr = nil
	} else if source.Transparent || source.Interface != "" {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var errno syscall.Errno
			if err := c.Control(func(fd uintptr) { errno = source.prepare(int32(fd)) }); err != nil {
				return err
			}
			if errno != 0 {
				return errno
			}
			return nil
		}
	}
}

// sourceFor gives a link-local source the zone of the address to connect to.
func sourceFor(source, to netip.Addr) netip.Addr {
	if source.Is6() && source.IsLinkLocalUnicast() {
		return source.WithZone(to.Zone())
	}
	return source
}

// unbound turns the error of a dial that could not have its source into one with
// the errno [NoSource].
func unbound(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); !ok || call.Syscall != "bind" || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return err
	}
	return &net.OpError{Op: op.Op, Net: op.Net, Source: op.Source, Addr: op.Addr, Err: os.NewSyscallError("bind", NoSource)}
}
