// Package health probes a host once and reports what it found. It decides
// nothing: how often to probe and what a result means is the director's.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/txlb/txlb/sched"
)

// ErrLocal is wrapped by the error of a probe that says nothing about the host:
// this machine could not send it.
var ErrLocal = errors.New("the probe could not be made")

// TCP connects to addr and resets the connection, so that a probe leaves no
// socket in TIME_WAIT on either side. It returns nil if the connect succeeded
// before ctx ended, else a reason that an operator can read; it wraps ErrLocal
// if the reason lies on our side. It may be called from any goroutine.
func TCP(ctx context.Context, addr sched.Addr) error {
	network, address := "tcp", addr.IP().String()
	if path := addr.Path(); path != "" {
		network, address = "unix", path
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("probe %v: %w", addr, reason(err))
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	return nil
}

// reason leaves out what the dialer repeats of the address.
func reason(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if local(errno) {
			return fmt.Errorf("%w: %w", ErrLocal, errno)
		}
		return errno
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// local tells whether connect(2) failed for want of something of our own: a
// descriptor, memory, a local port, a permission, or room in the poller that
// waits for the answer (ENOSPC, epoll_ctl(2)). A UNIX socket with a full
// queue (EAGAIN) is busy, which is not down.
func local(errno syscall.Errno) bool {
	switch errno {
	case syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS,
		syscall.ENOMEM, syscall.EAGAIN, syscall.EACCES, syscall.EPERM, syscall.ENOSPC:
		return true
	}
	return false
}
