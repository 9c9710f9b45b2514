package core

import (
	"errors"
	"fmt"
	"os"
	"syscall"

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
