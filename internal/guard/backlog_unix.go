//go:build unix

package guard

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// shorten bounds how many connections wait in the kernel, as far as the listener
// lets us. listen(2) may be called again for that.
func shorten(ln net.Listener, to int) {
	s, ok := ln.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), to) }) // the usual length is fine too
}
