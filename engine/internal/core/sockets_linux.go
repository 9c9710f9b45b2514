package core

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
)

// deferFor is how many seconds a connection without a byte waits in the kernel before it
// is accepted all the same. It is HAProxy's value.
const deferFor = 60

// BindOptions sets what a listening socket has to have before bind(2).
func BindOptions(fd int, o engine.ListenOptions) error {
	if o.FreeBind { // holds for IPv6 too
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
			return fmt.Errorf("freeBind: %w", os.NewSyscallError("setsockopt IP_FREEBIND", err))
		}
	}
	if o.Interface != "" {
		if err := unix.BindToDevice(fd, o.Interface); err != nil {
			if errors.Is(err, syscall.EPERM) {
				return fmt.Errorf("interface %q: before Linux 5.7 it needs CAP_NET_RAW: %w", o.Interface, err)
			}
			return fmt.Errorf("interface %q: %w", o.Interface, os.NewSyscallError("setsockopt SO_BINDTODEVICE", err))
		}
	}
	return nil
}

// QueueOptions sets how a listening socket fills its queue, where that differs from
// before. It may listen already.
func QueueOptions(fd int, before, o engine.ListenOptions, backlog int) error {
	if o.DeferAccept != before.DeferAccept {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, deferFor*number(o.DeferAccept)); err != nil {
			return fmt.Errorf("deferAccept: %w", os.NewSyscallError("setsockopt TCP_DEFER_ACCEPT", err))
		}
	}
	if o.FastOpen != before.FastOpen {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, backlog*number(o.FastOpen)); err != nil {
			return fmt.Errorf("fastOpen: %w", os.NewSyscallError("setsockopt TCP_FASTOPEN", err))
		}
	}
	return nil
}

func number(on bool) int {
	if on {
		return 1
	}
	return 0
}

// NoMultipath is the error of a socket for MPTCP that the kernel refuses, for an
// operator.
func NoMultipath(err error) error {
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		return fmt.Errorf("mptcp: it is switched off; set net.mptcp.enabled=1: %w", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("mptcp: this kernel has no MPTCP, which is in Linux 5.6 and newer if built with it; leave mptcp out: %w", err)
	}
	return err
}

// CanMultipath tells whether the kernel opens sockets for MPTCP.
func CanMultipath() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		return NoMultipath(os.NewSyscallError("socket", err))
	}
	return unix.Close(fd)
}

// fits tells why an inherited socket cannot serve an address with these options; nil: it
// can.
func fits(f *os.File, a ListenAddr, o engine.ListenOptions) (err error) {
	if a.Path != "" {
		return nil
	}
	controlled := withFD(f, func(fd int) {
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		only6 := 0
		if domain == unix.AF_INET6 {
			only6, _ = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		}
		protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		device, _ := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		switch {
		case a.Host == "" && domain == unix.AF_INET6 && only6 != 0:
			err = errors.New("it takes IPv6 clients only (BindIPv6Only=)")
		case a.Host == "" && domain == unix.AF_INET && HasIPv6():
			err = errors.New("it takes IPv4 clients only")
		case a.Host != "" && any6(fd) && only6 == 0:
			err = errors.New("it takes IPv4 clients too (BindIPv6Only=)")
		case o.MPTCP != (protocol == unix.IPPROTO_MPTCP):
			err = fmt.Errorf("mptcp: it has the protocol %d (SocketProtocol=)", protocol)
		case o.Interface != device:
			err = fmt.Errorf("interface: it is bound to %q (BindToDevice=)", device)
		}
	})
	return errors.Join(controlled, err)
}

// any6 tells whether a socket is bound to every IPv6 address.
func any6(fd int) bool {
	sa, err := unix.Getsockname(fd)
	six, ok := sa.(*unix.SockaddrInet6)
	return err == nil && ok && six.Addr == [16]byte{}
}

// HasIPv6 tells whether the kernel opens IPv6 sockets at all.
func HasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// withFD calls f with the descriptor of a file, which keeps its mode: [os.File.Fd] would make
// it block.
func withFD(file *os.File, f func(fd int)) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// Duplicate returns a descriptor of the same socket that does not block.
func Duplicate(file *os.File) (fd int, err error) {
	controlled := withFD(file, func(from int) {
		if fd, err = unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			err = os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
			return
		}
		if err = unix.SetNonblock(fd, true); err != nil {
			_ = unix.Close(fd)
		}
	})
	return fd, errors.Join(controlled, err)
}

// EndListening makes a socket stop listening, wherever else it is open: the clients in its
// queue are reset, and further ones refused.
func EndListening(file *os.File) {
	_ = withFD(file, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
}

// QueueOptionsOf returns those options of a listening TCP socket that [QueueOptions] sets.
func QueueOptionsOf(file *os.File) (o engine.ListenOptions) {
	_ = withFD(file, func(fd int) {
		value, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		o.DeferAccept = err == nil && value > 0
		value, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN)
		o.FastOpen = err == nil && value > 0
	})
	return o
}

// TCPInfo asks the kernel what it knows of a TCP socket.
func TCPInfo(fd int) engine.TCPInfo {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return engine.TCPInfo{}
	}
	return engine.TCPInfo{
		Known: true, RTT: time.Duration(i.Rtt) * time.Microsecond, RTTVar: time.Duration(i.Rttvar) * time.Microsecond,
		Retransmits: i.Total_retrans, Unacked: i.Unacked, NotSent: i.Notsent_bytes, Window: i.Snd_wnd,
	}
}
