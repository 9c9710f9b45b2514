package connect

import (
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bind gives a TCP socket that will connect to an address its source. The port is
// chosen by the connect: then it has to be free toward that address alone, and one
// source address has room for as many connections to each host as there are ports
// (IP_BIND_ADDRESS_NO_PORT, ip(7)). scope is the interface of a link-local address.
// The call does not block, allocates nothing and answers with an errno, which is
// [NoSource] where this machine does not have the address, or [NoInterface],
// [NotTransparent] or [OtherFamily].
func Bind(fd int32, from Source, to netip.Addr, scope uint32) syscall.Errno {
	source := from.Addr
	switch {
	case !source.IsValid() || source.Is4() == to.Is4():
	case from.Transparent:
		return OtherFamily
	default:
		return unix.EAFNOSUPPORT
	}
	if errno := from.prepare(fd); errno != 0 || !source.IsValid() {
		return errno
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

// prepare sets what a socket needs before bind(2).
func (s Source) prepare(fd int32) syscall.Errno {
	if s.Interface != "" {
		_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE,
			uintptr(unsafe.Pointer(unsafe.StringData(s.Interface))), uintptr(len(s.Interface)), 0)
		if errno == unix.ENODEV {
			return NoInterface
		}
		if errno != 0 {
			return errno
		}
	}
	if s.Transparent {
		return transparent(fd, s.Addr.Is4())
	}
	return 0
}

// transparent lets a socket be bound to an address that this machine does not have.
func transparent(fd int32, is4 bool) syscall.Errno {
	level, name := uintptr(unix.IPPROTO_IPV6), uintptr(unix.IPV6_TRANSPARENT)
	if is4 {
		level, name = unix.IPPROTO_IP, unix.IP_TRANSPARENT
	}
	on := int32(1)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), level, name, uintptr(unsafe.Pointer(&on)), unsafe.Sizeof(on), 0)
	if errno == unix.EPERM {
		return NotTransparent
	}
	return errno
}

// CanUseClients tells whether this process may use the addresses of clients as sources.
func CanUseClients() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if errno := transparent(int32(fd), true); errno != 0 {
		return Reason(errno, Source{Transparent: true})
	}
	return nil
}

// CanUseInterfaces tells whether connections can go out by an interface.
func CanUseInterfaces() error { return nil }

// noPort makes the connect of a socket choose its port. Where the kernel refuses,
// bind does, and there is room for fewer connections.
func noPort(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}
