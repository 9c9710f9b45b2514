//go:build unix

package conns

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// peek waits until c has bytes, an end or an error to read. It consumes nothing and
// returns the error. A read deadline ends the wait.
func peek(c net.Conn) error {
	raw := rawOf(c)
	if raw == nil {
		return errors.ErrUnsupported
	}
	var perr error
	err := raw.Read(func(fd uintptr) bool {
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
	raw := rawOf(c)
	if raw == nil {
		return false
	}
	n := 0
	err := raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, _ = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// hasFailed tells whether c has an error pending, such as a reset, behind what waits to
// be read. It consumes nothing.
func hasFailed(c net.Conn) bool {
	raw := rawOf(c)
	if raw == nil {
		return false
	}
	failed := false
	err := raw.Control(func(fd uintptr) {
		list := [1]unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(list[:], 0)
		failed = err == nil && n > 0 && list[0].Revents&unix.POLLERR != 0
	})
	return err == nil && failed
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
