package connect

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bind gives a TCP socket that will connect to an address its source. The port is
// chosen by the connect: then it has to be free toward that address alone, and one
// source address has room for as many connections to each host as there are ports
// (IP_BIND_ADDRESS_NO_PORT, ip(7)). scope is the interface of a link-local address.
// The call does not block, allocates nothing and answers with an errno, which is
// [NoSource] where this machine does not have the address.
func Bind(fd int32, source, to netip.Addr, scope uint32) syscall.Errno {
	if source.Is4() != to.Is4() {
		return unix.EAFNOSUPPORT
	}
	noPort(uintptr(fd))
	var raw unix.RawSockaddrInet6 // the larger of both
	size := unsafe.Sizeof(raw)
	if source.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&raw))
		sa.Family, sa.Addr = unix.AF_INET, source.As4()
		size = unsafe.Sizeof(*sa)
	} else {
		raw.Family, raw.Addr = unix.AF_INET6, source.As16()
		if source.IsLinkLocalUnicast() {
			raw.Scope_id = scope
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&raw)), size)
	if errno == unix.EADDRNOTAVAIL {
		return NoSource
	}
	return errno
}

// noPort makes the connect of a socket choose its port. Where the kernel refuses,
// bind does, and there is room for fewer connections.
func noPort(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}
