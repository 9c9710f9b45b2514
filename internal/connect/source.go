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

// Reason is the error of a connect that failed, for an operator. source is the
// address it was to come from, if one was asked for.
func Reason(errno syscall.Errno, source netip.Addr) error {
	switch {
	case !source.IsValid():
	case errno == NoSource:
		return fmt.Errorf("source %v is not an address of this machine: %w", source, errno)
	default:
		return fmt.Errorf("from %v: %w", source, errno)
	}
	return errno
}

// From makes a dialer connect from a source address. to is where it connects to,
// whose zone counts for both.
func From(d *net.Dialer, source, to netip.Addr) {
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(sourceFor(source, to), 0))
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
