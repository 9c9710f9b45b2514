package conns

import (
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
)

// unsentBytes returns how many bytes c's peer has not acknowledged (SIOCOUTQ,
// tcp(7)), and whether that is known. It is 0 if the connection is gone: SIOCOUTQ goes on
// counting what can never be acknowledged.
func unsentBytes(c *net.TCPConn) (n int, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		var ierr error
		n, ierr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		known = ierr == nil
		if n > 0 && gone(int(fd)) {
			n = 0
		}
	})
	return n, known && err == nil
}

// gone tells whether a connection has ended in both directions, or was reset.
func gone(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}

// setUnacked bounds how long what was sent waits for the peer's acknowledgement
// (TCP_USER_TIMEOUT, tcp(7)). 0 is what every socket has.
func setUnacked(c *net.TCPConn, d time.Duration) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		})
	}
}

// boundQueue makes c take no more than notSent bytes that TCP has not sent yet,
// so that a peer that does not read pins little (TCP_NOTSENT_LOWAT, tcp(7)).
func boundQueue(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, core.NotSent)
		})
	}
}

// quickAck makes the kernel acknowledge at once what c has received and receives next
// (TCP_QUICKACK, tcp(7)).
func quickAck(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
}
