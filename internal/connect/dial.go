package connect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Dial connects, within a time if that is not 0. While the queue of a UNIX socket
// is full it asks again: over TCP the kernel would. A connection to itself is
// refused. The error has the errno in it, or is a time-out.
func Dial(ctx context.Context, d net.Dialer, network, address string, within time.Duration) (net.Conn, error) {
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	if network != "unix" {
		d.Control = abort
	}
	for wait := time.Millisecond; ; wait = min(2*wait, maxWait) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil && network == "unix" && errors.Is(err, syscall.EAGAIN) {
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
				return nil, timeout(network, err, ctx.Err())
			}
		}
		tcp, ok := conn.(*net.TCPConn)
		if err != nil || !ok {
			return conn, err
		}
		if Self(endpoint(tcp.LocalAddr()), endpoint(tcp.RemoteAddr())) {
			_ = tcp.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: tcp.RemoteAddr(), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		_ = tcp.SetLinger(-1)
		return tcp, nil
	}
}

// maxWait is the longest pause before a full queue is asked again.
const maxWait = 50 * time.Millisecond

// timeout is the error of a dial whose context has ended over a full queue.
func timeout(network string, full, ended error) error {
	if errors.Is(ended, context.DeadlineExceeded) {
		ended = os.ErrDeadlineExceeded
	}
	if op, ok := errors.AsType[*net.OpError](full); ok {
		return &net.OpError{Op: op.Op, Net: network, Addr: op.Addr, Err: ended}
	}
	return ended
}

func endpoint(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
