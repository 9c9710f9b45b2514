package connect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Dial connects, within a time if that is not 0. While the queue of a UNIX socket
// is full it asks again: over TCP the kernel would. A connection to itself is
// refused. The error has the errno in it, or is a time-out. An answer that is there
// when the time is over counts, also where this process stood still meanwhile and
// has not seen it. See [From] for a source address.
func Dial(ctx context.Context, d net.Dialer, network, address string, within time.Duration) (net.Conn, error) {
	ctx, limit := newLimit(ctx, within)
	defer limit.stop()
	if network != "unix" {
		prepare := d.Control // of From
		d.Control = func(network, address string, c syscall.RawConn) error {
			if prepare != nil {
				if err := prepare(network, address, c); err != nil {
					return err
				}
			}
			limit.watch(c)
			if d.LocalAddr != nil {
				_ = c.Control(noPort)
			}
			return abort(network, address, c)
		}
	} else {
		limit.begin()
	}
	conn, err := dial(ctx, d, network, address)
	if _, told := errors.AsType[syscall.Errno](err); err != nil && !told && limit.over.Load() {
		err = timeout(network, err, context.DeadlineExceeded)
	}
	return conn, unbound(err)
}

func dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
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

// limit ends the context of a dial when its time is over, unless the answer is
// there. The time runs from when there is a socket: before that nobody is asked.
type limit struct {
	cancel context.CancelFunc
	within time.Duration
	timer  *time.Timer // nil: no limit, or not begun
	socket atomic.Pointer[syscall.RawConn]
	over   atomic.Bool
}

func newLimit(ctx context.Context, within time.Duration) (context.Context, *limit) {
	l := &limit{within: within}
	ctx, l.cancel = context.WithCancel(ctx)
	return ctx, l
}

// watch says which socket the answer comes to, and begins the time.
func (l *limit) watch(c syscall.RawConn) {
	l.socket.Store(&c)
	l.begin()
}

func (l *limit) begin() {
	if l.within > 0 && l.timer == nil { // Go dials again after a connection to itself
		l.timer = time.AfterFunc(l.within, l.end)
	}
}

func (l *limit) end() {
	if c := l.socket.Load(); c == nil || !answered(*c) {
		l.over.Store(true)
		l.cancel()
	}
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.cancel()
}

func endpoint(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
