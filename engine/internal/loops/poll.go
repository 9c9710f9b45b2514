//go:build linux

package loops

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A poller is what one loop waits on: an epoll instance with an eventfd that
// other goroutines ring and a timerfd for the wheel. This file is the seam:
// nothing else knows how the loop waits.
type poller struct {
	ep, bell, clock int // epoll, eventfd, timerfd
	rung            atomic.Bool
	events          [batchSize]unix.EpollEvent
}

// Keys below zero are not sessions.
const (
	keyBell     = -1
	keyClock    = -2
	keyListener = -3 // listener i has the key keyListener-i
)

// sessionEvents is what both sockets of a session are registered for, once
// and for good.
const sessionEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

func newPoller() (*poller, error) {
	p := &poller{ep: -1, bell: -1, clock: -1}
	var err error
	if p.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if p.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	for fd, key := range map[int]int32{p.bell: keyBell, p.clock: keyClock} {
		if errno := p.add(int32(fd), key, 0, unix.EPOLLIN); errno != 0 {
			p.close()
			return nil, fmt.Errorf("epoll_ctl: %w", errno)
		}
	}
	return p, nil
}

// close gives the three descriptors back.
func (p *poller) close() {
	for _, fd := range []int{p.ep, p.bell, p.clock} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// add registers fd; its events carry key and generation.
func (p *poller) add(fd, key, generation int32, events uint32) syscall.Errno {
	return p.register(fd, &unix.EpollEvent{Events: events, Fd: key, Pad: generation})
}

// register registers fd for what ev says.
func (p *poller) register(fd int32, ev *unix.EpollEvent) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.ep), unix.EPOLL_CTL_ADD,
		uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return errno
}

// remove takes fd out. Closing it does the same.
func (p *poller) remove(fd int32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.ep), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

// ready returns the events that are there, without waiting. epoll_pwait is what
// every processor has; newer ones lack epoll_wait.
func (p *poller) ready() []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:n]
}

// wait returns the next events. It is a call that the scheduler knows of: a
// loop that blocked in a raw one would hang the process at a collection.
func (p *poller) wait() []unix.EpollEvent {
	const forever = ^uintptr(0)
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), forever, 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:n]
}

// ring wakes the loop. Any goroutine may call it.
func (p *poller) ring() {
	if p.rung.CompareAndSwap(false, true) {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(p.bell, one[:])
	}
}

// hush takes the ringing in; what was put down before it is seen after it.
func (p *poller) hush() {
	var count [8]byte
	_, _ = unix.Read(p.bell, count[:])
	p.rung.Store(false)
}

// alarm sets the clock to go off after d nanoseconds, d > 0.
func (p *poller) alarm(d int64) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(d, 1))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(p.clock), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

// ticked takes the clock's ringing in.
func (p *poller) ticked() {
	var count [8]byte
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(p.clock), uintptr(unsafe.Pointer(&count)), 8)
}
