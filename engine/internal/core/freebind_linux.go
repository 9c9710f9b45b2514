package core

import "golang.org/x/sys/unix"

// SetFreeBind lets a socket be bound to an address that no interface has
// (IP_FREEBIND, ip(7)). It holds for IPv6 sockets too.
func SetFreeBind(fd, on int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, on)
}
