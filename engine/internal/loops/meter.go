//go:build linux

package loops

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
)

// meterOf reads what all processes together have read from a TCP socket and written to it.
//
// The kernel counts what has come (tcpi_bytes_received) and what waits (SIOCINQ), what the
// peer has acknowledged (tcpi_bytes_acked) and what it has not (SIOCOUTQ). An end counts as a
// byte in each but SIOCINQ. See tcp_get_info, tcp_inq and tcp_ioctl in the kernel.
func meterOf(fd int32) (m core.Meter) {
	if kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || kind != unix.IPPROTO_TCP {
		return core.Meter{} // the counts of Multipath TCP are those of one path
	}
	before, known := tcpInfo(fd)
	for range meterTries {
		if !known {
			return core.Meter{}
		}
		in, errno := queued(fd, unix.SIOCINQ)
		out, errno2 := queued(fd, unix.SIOCOUTQ)
		if errno != 0 || errno2 != 0 {
			return core.Meter{}
		}
		var after unix.TCPInfo
		if after, known = tcpInfo(fd); !known {
			return core.Meter{}
		}
		// Segments may come between the calls.
		if after.Bytes_received != before.Bytes_received || after.Bytes_acked != before.Bytes_acked || after.State != before.State {
			before = after
			continue
		}
		m = core.Meter{Known: true, Read: after.Bytes_received - uint64(in), Written: after.Bytes_acked + uint64(out)}
		switch after.State {
		case unix.BPF_TCP_CLOSE_WAIT:
			m.Read--
		case unix.BPF_TCP_CLOSING, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_TIME_WAIT:
			m.Read--
			m.Ended = true
		case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2:
			m.Ended = true
		case unix.BPF_TCP_CLOSE:
			m.Closed = true
		}
		return m
	}
	return core.Meter{}
}

// tcpInfo is TCP_INFO. known is false where the kernel lacks the counts.
func tcpInfo(fd int32) (info unix.TCPInfo, known bool) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno == 0 && uintptr(size) >= unsafe.Offsetof(info.Bytes_received)+8
}

// queued asks how many bytes wait in a queue of a socket.
func queued(fd int32, which uintptr) (int32, syscall.Errno) {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), which, uintptr(unsafe.Pointer(&n)))
	return n, errno
}

// localAddrOf returns a function that asks for the address of a socket.
func localAddrOf(fd int32) func() netip.AddrPort {
	return func() netip.AddrPort { return nameOf(unix.SYS_GETSOCKNAME, fd) }
}
