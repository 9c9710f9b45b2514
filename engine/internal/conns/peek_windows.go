package conns

import (
	"errors"
	"net"
	"syscall"
)

// peek does nothing: on this system only a reader learns of a reset. So the connect
// continues, and the session ends after it.
func peek(net.Conn) error { return errors.ErrUnsupported }

// hasUnread cannot be known on this system.
func hasUnread(net.Conn) bool { return false }

// hasFailed cannot be known on this system.
func hasFailed(net.Conn) bool { return false }

// keepUrgent makes urgent bytes of c stay in their place in the stream
// (SO_OOBINLINE).
func keepUrgent(c *net.TCPConn) {
	const soOOBInline = 0x100
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, soOOBInline, 1)
		})
	}
}
