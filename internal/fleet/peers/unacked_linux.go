package peers

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnacked ends a connection whose peer acknowledges nothing for unackedFor (TCP_USER_TIMEOUT,
// tcp(7)). Without it, that takes a quarter of an hour. Connections need not inherit it from
// their listener.
func boundUnacked(c net.Conn) {
	s, is := c.(syscall.Conn)
	if !is {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedFor.Milliseconds()))
		})
	}
}
