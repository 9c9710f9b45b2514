//go:build unix

package connect

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// answered tells whether a connect has come to an end, good or bad.
func answered(c syscall.RawConn) bool {
	n := 0
	err := c.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
	})
	return err == nil && n > 0
}
