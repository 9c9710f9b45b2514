//go:build linux

package loops

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// The system calls of the loops, as raw calls: every socket is non-blocking,
// so none of them waits and the scheduler need not be told. Each answers with
// the errno itself, which costs no allocation.

func recv(fd int32, p []byte) (int, syscall.Errno) { return recvAs(fd, p, unix.MSG_DONTWAIT) }

// peek is recv, but takes nothing.
func peek(fd int32, p []byte) (int, syscall.Errno) {
	return recvAs(fd, p, unix.MSG_DONTWAIT|unix.MSG_PEEK)
}

// say is kernel.say.
func say(fd int32, p []byte) bool {
	n, err := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return err == nil && n == len(p)
}

func recvAs(fd int32, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// send sends. What is the last of its stream waits in the kernel for the end
// that follows, for at most 200 ms, so that one segment carries both.
func send(fd int32, p []byte, last bool) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(sendFlags(last)), 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func sendFlags(last bool) uint32 {
	if last {
		return unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_MORE
	}
	return unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
}

func accept(fd int32, from *unix.RawSockaddrAny) (int32, syscall.Errno) {
	for {
		size := uint32(unix.SizeofSockaddrAny)
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(from)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != unix.EINTR {
			return int32(n), errno
		}
	}
}

func schedYield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

func closeFD(fd int32) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func shutdownWrite(fd int32) {
	_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

func setInt(fd int32, level, name int, value int32) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value)), 4, 0)
	return errno
}

// shutdownBoth ends both directions. While another process has the socket, close does not.
func shutdownBoth(fd int32) {
	_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_RDWR, 0)
}

// disconnect sends an RST and drops what is unsent, as close does with SO_LINGER 0 where no
// other process has the socket: tcp_disconnect in the kernel.
func disconnect(fd int32) {
	raw := unix.RawSockaddrAny{Addr: unix.RawSockaddr{Family: unix.AF_UNSPEC}}
	_ = connectSocket(fd, &raw, unix.SizeofSockaddrInet4)
}

// resetOnClose makes close send an RST and drop what is unsent.
func resetOnClose(fd int32) { lingerOn(fd, true) }

func lingerOn(fd int32, on bool) {
	var linger unix.Linger
	if on {
		linger.Onoff = 1
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}

// socketError takes the pending error of a socket (SO_ERROR), which clears it.
func socketError(fd int32) syscall.Errno {
	var value int32
	size := uint32(4)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return syscall.Errno(value)
}

// unsent returns how many bytes the socket's peer has not acknowledged
// (SIOCOUTQ), 0 if that cannot be told.
func unsent(fd int32) int {
	var value int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&value)))
	if errno != 0 {
		return 0
	}
	return int(value)
}

// nameOf asks getsockname(2) or getpeername(2) for an address, see kernel.
func nameOf(call uintptr, fd int32) netip.AddrPort {
	var raw unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 || size < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	return decodeAddr(&raw).IP()
}

// socketOptions are what both sides of a TCP session get; a listener hands
// them down to the sockets it accepts.
var socketOptions = [...]socketOption{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	notSentOption,
}

// notSentOption bounds what waits in the kernel unsent.
var notSentOption = socketOption{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, core.NotSent}

type socketOption struct {
	level, name int
	value       int32
}

// keepAliveOptions are those of a socket whose peer is asked whether it is there.
func keepAliveOptions(k core.Kept) [4]socketOption {
	c := k.KeepAlive()
	on := int32(0)
	if c.Enable {
		on = 1
	}
	return [...]socketOption{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int32(c.Idle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int32(c.Interval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, int32(c.Count)},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, on},
	}
}

// unackedOption is the option of a socket whose peer has to acknowledge in time.
func unackedOption(k core.Kept) socketOption {
	return socketOption{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int32(k.Unacked.Milliseconds())}
}

func (o socketOption) set(fd int32) syscall.Errno { return setInt(fd, o.level, o.name, o.value) }

// connectTo opens a socket and starts to connect it. The errno is 0 when it is
// connected already, EINPROGRESS while it is on the way. If fd is not negative the
// caller owns it, whatever the errno.
func connectTo(to sched.Addr, source connect.Source) (fd int32, errno syscall.Errno) {
	var raw unix.RawSockaddrAny
	size := encodeAddr(&raw, to)
	n, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(raw.Addr.Family),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	fd = int32(n)
	scope := uint32(0)
	if name := to.IP().Addr().Zone(); name != "" {
		if scope, errno = zone.IndexBy(int(fd), name); errno != 0 {
			return fd, errno
		}
		(*unix.RawSockaddrInet6)(unsafe.Pointer(&raw)).Scope_id = scope
	}
	if raw.Addr.Family != unix.AF_UNIX {
		if source.Set() {
			if errno := connect.Bind(fd, source, to.IP().Addr(), scope); errno != 0 {
				return fd, errno
			}
		}
		// The acknowledgement of the handshake is put off: the first bytes,
		// which often are there already, carry it. If none come, the caller has to
		// set TCP_QUICKACK 1: see acks.
		_ = setInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	}
	return fd, connectSocket(fd, &raw, size)
}

func connectSocket(fd int32, to *unix.RawSockaddrAny, size uint32) syscall.Errno {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), uintptr(size))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// encodeAddr writes a as the kernel wants it, without its zone, and returns its
// size.
func encodeAddr(raw *unix.RawSockaddrAny, a sched.Addr) uint32 {
	if path := a.Path(); path != "" {
		sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(raw))
		sa.Family = unix.AF_UNIX
		n := min(len(path), len(sa.Path)-1)
		for i := range n {
			sa.Path[i] = int8(path[i])
		}
		return uint32(2 + n + 1)
	}
	ip := a.IP()
	if ip.Addr().Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		sa.Family = unix.AF_INET
		sa.Addr = ip.Addr().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], ip.Port())
		return unix.SizeofSockaddrInet4
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
	sa.Family = unix.AF_INET6
	sa.Addr = ip.Addr().As16()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], ip.Port())
	return unix.SizeofSockaddrInet6
}

// decodeAddr reads the address of a client; one of a UNIX socket is "unix:".
func decodeAddr(raw *unix.RawSockaddrAny) sched.Addr {
	switch raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
		return sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
		port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
		return sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port))
	}
	return sched.Addr{}
}
