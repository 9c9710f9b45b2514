//go:build unix

package connect

import "syscall"

// abort makes the close of a socket reset the connection. Go's dialer closes a
// connection to itself and dials again: the port of the host would stay taken by
// a TIME_WAIT for a minute.
func abort(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	})
}
