//go:build unix

package portable

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peek waits until c has bytes, an end or an error to read. It consumes nothing and
// returns the error. A read deadline ends the wait.
func peek(c net.Conn) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, perr = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
		return perr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return perr
}

// hasUnread tells whether bytes that c has received wait to be read. A deadline
// of c does not matter.
func hasUnread(c net.Conn) bool {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, _ = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// keepUrgent makes urgent bytes of c stay in their place in the stream
// (SO_OOBINLINE).
func keepUrgent(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		})
	}
}
