//go:build linux

package loops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/conns"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// Sessions that no loop can carry. The loops accept their clients too, so that every
// option, limit and queue of a listener holds for them.

// handOver gives a connection that a loop has accepted, and counted, to a goroutine.
func (e *Engine) handOver(fd int32, from sched.Addr, entry *core.Entry) {
	e.adopting.Add(1)
	go e.adopt(fd, from, entry)
}

// adopt makes a net.Conn of a descriptor and begins its session. While there is no second
// descriptor, which that takes for a moment, the client waits.
func (e *Engine) adopt(fd int32, from sched.Addr, entry *core.Entry) {
	defer e.adopting.Done()
	file := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(file)
	for err != nil && e.awaitDescriptor(entry.Svc, err) {
		conn, err = net.FileConn(file)
	}
	_ = file.Close()
	switch {
	case err != nil:
		e.conns.TurnAway(conns.Client{From: from, Entry: entry})
		e.left()
	case !e.conns.Serve(conns.Client{Conn: conn, From: from, Entry: entry, Inherits: true}):
		_ = conn.Close()
		e.left()
	}
}

// awaitDescriptor waits until there may be a descriptor, if that is what err is about. It
// returns false once the engine closes.
func (e *Engine) awaitDescriptor(svc *core.Service, err error) bool {
	if errno, ok := errors.AsType[syscall.Errno](err); !ok || !connect.Shortage(errno) {
		return false
	}
	svc.Counts[len(e.loops)].Short()
	e.rest(e.clock() + core.PauseFor)
	select {
	case <-time.After(time.Duration(core.PauseFor)):
		return true
	case <-e.over:
		return false
	}
}

// left gives the room of a session back that a goroutine carried.
func (e *Engine) left() {
	e.census.leave(1)
	if e.census.rests.Swap(false) {
		e.tell(func(l *loop) { l.acceptor.roomAgain() })
	}
}

// rest makes no loop accept before a time: there is no descriptor.
func (e *Engine) rest(until int64) {
	e.tell(func(l *loop) { l.acceptor.pause(max(until-l.now, 0)) })
}

// tell makes each loop call f some time, unless the engine is closed.
func (e *Engine) tell(f func(*loop)) {
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed {
		return
	}
	for _, l := range e.loops {
		l.inbox.submit(func() { f(l) })
	}
}

// Take implements [engine.Engine]. A TCP connection or a stream of a UNIX socket moves onto
// a loop.
func (e *Engine) Take(ctx context.Context, service string, conn net.Conn) error {
	svc, err := e.enter(ctx, service)
	if err != nil {
		e.conns.Discard(service, conn)
		return err
	}
	entry := core.Bare(svc)
	switch own := conn.(type) {
	case *net.TCPConn:
		if own != nil && !entry.Goroutines() {
			if on, _ := own.MultipathTCP(); on {
				svc.Counts[len(e.loops)].Multipath.Add(1)
			}
			return e.takeSocket(own, own, conns.PeerOf(own), entry)
		}
	case *net.UnixConn:
		if own != nil && !entry.Goroutines() {
			return e.takeSocket(own, own, sched.Addr{}, entry)
		}
	}
	return e.conns.Take(svc, conn)
}

// Dial implements [engine.Engine].
func (e *Engine) Dial(ctx context.Context, service string, client netip.Addr) (net.Conn, error) {
	svc, err := e.enter(ctx, service)
	if err != nil {
		return nil, err
	}
	return e.conns.Dial(ctx, svc, client)
}

// enter counts a session that the program begins, as soon as there is room.
func (e *Engine) enter(ctx context.Context, service string) (*core.Service, error) {
	select {
	case <-e.census.closing:
		return nil, engine.ErrClosed
	default:
	}
	svc := e.serving.Load().Services[service]
	if svc == nil {
		return nil, fmt.Errorf("%w: %q", engine.ErrNoService, service)
	}
	return svc, e.census.await(ctx)
}

// takeSocket moves a connection of the program onto a loop, and closes it in any case.
func (e *Engine) takeSocket(conn net.Conn, socket syscall.Conn, from sched.Addr, entry *core.Entry) error {
	defer func() { _ = conn.Close() }()
	fd, err := duplicate(socket, from.IsValid(), core.KeptBy(entry.Svc.Route.Load()))
	if err == nil {
		if e.give(arrival{fd, from, entry}) {
			return nil
		}
		closeFD(fd)
		err = engine.ErrClosed
	} else {
		err = fmt.Errorf("service %q: %w", entry.Svc.Name, err)
	}
	e.left()
	return err
}

// duplicate returns another descriptor of a connection, as a loop needs it: its own one
// becomes free with its close, and is no blocking one afterwards, as File would make it.
func duplicate(socket syscall.Conn, tcp bool, k core.Kept) (fd int32, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	if broken := raw.Control(func(old uintptr) { fd, err = duplicateFD(int(old), tcp, k) }); broken != nil {
		return -1, broken
	}
	return fd, err
}

func duplicateFD(old int, tcp bool, k core.Kept) (int32, error) {
	if kind, err := unix.GetsockoptInt(old, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return -1, errors.Join(errors.New("the connection is not a stream"), err)
	}
	if domain, err := unix.GetsockoptInt(old, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || tcp == (domain == unix.AF_UNIX) {
		return -1, errors.Join(errors.New("the client has gone"), err) // it has no address any more
	}
	fd, err := unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	_ = unix.SetNonblock(fd, true) // the program may have had it otherwise
	if tcp {                       // as a listener hands it down
		for _, o := range append(socketOptions[:], inlineOption, unackedOption(k)) {
			_ = o.set(int32(fd))
		}
		for _, o := range keepAliveOptions(k) {
			_ = o.set(int32(fd))
		}
	}
	return int32(fd), nil
}

// give gives a connection to a loop that has few sessions. It returns false after Close.
func (e *Engine) give(a arrival) bool {
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed {
		return false
	}
	n := int(e.taken.Add(1))
	l, other := e.loops[n%len(e.loops)], e.loops[(n+1)%len(e.loops)]
	if other.count.active.Load() < l.count.active.Load() {
		l = other
	}
	l.count.active.Add(1) // it counts from now on, so that many at once are spread
	l.take(a)
	return true
}
