//go:build portable

package engine

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes returns how many bytes c's peer has not acknowledged (SIOCOUTQ,
// tcp(7)), and whether that is known.
func unsentBytes(c *net.TCPConn) (n int, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		var ierr error
		n, ierr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		known = ierr == nil
	})
	return n, known && err == nil
}
