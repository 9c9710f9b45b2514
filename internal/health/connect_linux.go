package health

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// Connect makes many TCP probes together and calls report with the index and
// the result of each as it ends, from the calling goroutine. It returns when
// all have ended; when ctx ends first, the others are reported as given up.
// Only the address, the PROXY header and the timeouts of a probe count.
//
// It does not use the runtime's dialer, which registers every socket, allocates for
// it and wakes a goroutine for it. Instead, the sockets of a batch have their own
// epoll, and only that is registered with the runtime's poller.
func Connect(ctx context.Context, probes []Probe, report func(i int, r Result)) {
	b := batch{ctx: ctx, probes: probes, report: report, epoll: -1, open: make([]attempt, 0, len(probes))}
	b.start()
	b.wait()
}

// batch is the probes of one Connect.
type batch struct {
	ctx    context.Context
	probes []Probe
	report func(int, Result)
	epoll  int
	open   []attempt // those that wait for an answer; closed ones have fd -1
	left   int       // how many wait
	full   int       // how many of these wait for room in the queue of a UNIX socket
}

// attempt is a connect that is under way.
type attempt struct {
	fd       int
	probe    int // index
	begun    time.Time
	deadline time.Time
	full     bool // the queue of the UNIX socket has no room: ask again
}

// fullWait is the pause before a probe tries a full queue again. No event tells
// when there is room.
const fullWait = 10 * time.Millisecond

// start makes the connects. None of its calls can block, so they may be raw calls,
// which saves telling the scheduler of each.
func (b *batch) start() {
	epoll, _, errno := syscall.RawSyscall(unix.SYS_EPOLL_CREATE1, unix.EPOLL_CLOEXEC, 0, 0)
	if errno != 0 {
		for i := range b.probes {
			b.report(i, b.probes[i].connectFailed(errno))
		}
		return
	}
	b.epoll = int(epoll)
	for i := range b.probes {
		b.connect(i)
	}
}

// connect begins one probe.
func (b *batch) connect(i int) {
	p := &b.probes[i]
	begun := time.Now()
	failed := func(errno syscall.Errno) {
		r := p.connectFailed(errno)
		r.Took = time.Since(begun)
		b.report(i, r)
	}
	fd, errno := openSocket(p.Addr)
	if errno != 0 {
		failed(errno)
		return
	}
	switch errno := callConnect(fd, p.Addr, p.from()); {
	case errno == 0: // a UNIX socket, or the loopback of some systems
		r := connected(fd, p)
		r.Took = time.Since(begun)
		closeReset(fd)
		b.report(i, r)
		return
	case errno == syscall.EAGAIN && p.Addr.Path() != "":
		b.open = append(b.open, attempt{fd, i, begun, begun.Add(p.connectWithin()), true})
		b.left++
		b.full++
		return
	case errno == syscall.EINPROGRESS, errno == syscall.EINTR:
	default:
		closeFD(fd)
		failed(errno)
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(len(b.open))}
	_, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(b.epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		closeFD(fd)
		failed(errno)
		return
	}
	b.open = append(b.open, attempt{fd, i, begun, begun.Add(p.connectWithin()), false})
	b.left++
}

// connected is the result of a connect that has succeeded. It asks whether the
// connection was made to itself, which is one system call in twenty.
func connected(fd int, p *Probe) Result {
	if p.Addr.Path() != "" {
		p.preface(fd)
	} else if connect.Self(localAddr(fd), p.Addr.IP()) {
		return p.connectFailed(syscall.ECONNREFUSED)
	}
	return Result{Code: L4OK}
}

// preface sends what a host on a UNIX socket expects first. One of TCP gets nothing:
// it never has the connection, see openSocket.
func (p *Probe) preface(fd int) {
	if p.Proxy != 0 {
		_ = unix.Sendto(fd, p.header(nil, netip.AddrPort{}), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}

// localAddr returns the local address of a TCP socket.
func localAddr(fd int) netip.AddrPort {
	var raw unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	switch raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:]))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&raw))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:]))
	}
	return netip.AddrPort{}
}

// openSocket makes the socket of a probe. For TCP it holds back the last ACK of the
// handshake: the reset goes out instead, so that the host never has a connection to
// accept and throw away (HAProxy does the same).
func openSocket(to sched.Addr) (fd int, errno syscall.Errno) {
	family := uintptr(unix.AF_INET)
	switch {
	case to.Path() != "":
		family = unix.AF_UNIX
	case to.IP().Addr().Is6():
		family = unix.AF_INET6
	}
	s, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	if family != unix.AF_UNIX {
		off := int32(0) // a kernel that refuses sends the ACK, which does no harm
		_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, s, unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&off)), 4, 0)
	}
	return int(s), 0
}

// callConnect calls connect(2), once.
func callConnect(fd int, to sched.Addr, source connect.Source) syscall.Errno {
	var raw unix.RawSockaddrAny
	size := encode(&raw, to)
	scope := uint32(0)
	if name := to.IP().Addr().Zone(); name != "" {
		var errno syscall.Errno
		if scope, errno = zone.IndexBy(fd, name); errno != 0 {
			return errno
		}
		(*unix.RawSockaddrInet6)(unsafe.Pointer(&raw)).Scope_id = scope
	}
	if source.Set() && to.Path() == "" {
		if errno := connect.Bind(int32(fd), source, to.IP().Addr(), scope); errno != 0 {
			return errno
		}
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&raw)), size)
	return errno
}

// encode writes an address as the kernel wants it, without its zone, and returns
// its size.
func encode(raw *unix.RawSockaddrAny, a sched.Addr) uintptr {
	if path := a.Path(); path != "" {
		sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(raw))
		sa.Family = unix.AF_UNIX
		n := min(len(path), len(sa.Path)-1) // a path that is too long is refused by the configuration
		for i := range n {
			sa.Path[i] = int8(path[i])
		}
		return unsafe.Offsetof(sa.Path) + uintptr(n) + 1
	}
	ip := a.IP()
	if ip.Addr().Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		sa.Family, sa.Addr = unix.AF_INET, ip.Addr().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], ip.Port())
		return unix.SizeofSockaddrInet4
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
	sa.Family, sa.Addr = unix.AF_INET6, ip.Addr().As16()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], ip.Port())
	return unix.SizeofSockaddrInet6
}

// wait handles answers until all attempts have ended.
func (b *batch) wait() {
	if b.epoll < 0 {
		return
	}
	// Fast path: nearby hosts have answered while the other connects were started.
	for b.left > 0 && b.take() {
	}
	if b.left == 0 {
		closeFD(b.epoll)
		return
	}
	// Slow path: sleep until the epoll has something. An epoll is itself pollable, so
	// it goes into the runtime's poller like any file.
	_ = unix.SetNonblock(b.epoll, true)
	file := os.NewFile(uintptr(b.epoll), "epoll")
	defer func() { _ = file.Close() }()
	raw, err := file.SyscallConn()
	stop := context.AfterFunc(b.ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for b.left > 0 {
		if err == nil {
			err = file.SetReadDeadline(b.soonest())
		}
		if err != nil { // it cannot be waited for: ENOSPC, ENOMEM
			b.giveUp(Result{Code: SockErr, Text: err.Error()})
			return
		}
		if b.ctx.Err() != nil {
			b.giveUp(Result{Code: SockErr, Text: "the check was given up"})
			return
		}
		_ = raw.Read(func(uintptr) bool { return b.take() }) // its error is the deadline
		for b.take() {                                       // what has come counts, however late it is seen
		}
		b.expire()
		b.askAgain()
	}
}

// take handles the answers that have come, and tells whether there were any.
func (b *batch) take() bool {
	var events [64]unix.EpollEvent
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.epoll), uintptr(unsafe.Pointer(&events)), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return false
	}
	now := time.Now()
	for _, e := range events[:n] {
		a := &b.open[e.Fd]
		errno := syscall.Errno(0)
		if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			errno = socketError(a.fd)
		}
		var r Result
		if errno != 0 {
			r = b.probes[a.probe].connectFailed(errno)
		} else {
			r = connected(a.fd, &b.probes[a.probe])
		}
		r.Took = now.Sub(a.begun)
		b.end(a, r)
	}
	return n > 0
}

// askAgain makes the connects again that found a full queue.
func (b *batch) askAgain() {
	if b.full == 0 {
		return
	}
	for i := range b.open {
		a := &b.open[i]
		if a.fd < 0 || !a.full {
			continue
		}
		errno := callConnect(a.fd, b.probes[a.probe].Addr, connect.Source{}) // UNIX sockets alone are asked again
		if errno == syscall.EAGAIN {
			continue
		}
		var r Result
		if p := &b.probes[a.probe]; errno != 0 {
			r = p.connectFailed(errno)
		} else {
			r = connected(a.fd, p)
		}
		r.Took = time.Since(a.begun)
		b.end(a, r)
	}
}

// soonest returns the first deadline, or when to ask full queues again.
func (b *batch) soonest() time.Time {
	var first time.Time
	if b.full > 0 {
		first = time.Now().Add(fullWait)
	}
	for i := range b.open {
		if a := &b.open[i]; a.fd >= 0 && (first.IsZero() || a.deadline.Before(first)) {
			first = a.deadline
		}
	}
	return first
}

// expire ends the attempts whose time is over.
func (b *batch) expire() {
	now := time.Now()
	for i := range b.open {
		if a := &b.open[i]; a.fd >= 0 && !now.Before(a.deadline) {
			b.end(a, Result{Code: L4Tout, Text: silent(b.probes[a.probe].connectWithin()), Took: now.Sub(a.begun), Late: now.Sub(a.deadline)})
		}
	}
}

// giveUp ends all attempts.
func (b *batch) giveUp(r Result) {
	for i := range b.open {
		if a := &b.open[i]; a.fd >= 0 {
			b.end(a, r)
		}
	}
}

// end closes an attempt, which takes it out of the epoll, and reports it.
func (b *batch) end(a *attempt, r Result) {
	closeReset(a.fd)
	a.fd = -1
	b.left--
	if a.full {
		b.full--
	}
	b.report(a.probe, r)
}

// closeReset closes a socket, with a reset if it is connected.
func closeReset(fd int) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	closeFD(fd)
}

func closeFD(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// socketError takes the error of a connect that has failed, 0 if it has not.
func socketError(fd int) syscall.Errno {
	var errno, size = int32(0), uint32(4)
	_, _, failed := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&errno)), uintptr(unsafe.Pointer(&size)), 0)
	if failed != 0 {
		return failed
	}
	return syscall.Errno(errno)
}
