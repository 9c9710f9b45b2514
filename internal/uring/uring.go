//go:build linux

package uring

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Ring makes a batch of operations in one system call. Its user sees to it that each
// of them completes at once: sockets are non-blocking, a send says MSG_DONTWAIT, a socket
// has nothing to flush when it is closed, and no other thread uses the epoll instance. So
// nothing is ever in flight, and a buffer may be used again when [Ring.Submit] returns.
type Ring struct {
	fd       int
	queues   []byte // mapped: both queues
	sqes     []byte // mapped: what entries lies in
	entries  []Op
	sqTail   *uint32
	sqMask   uint32
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	answers  []cqe
	results  [Size]int32 // of the operations of the last submit
	mustWait bool        // an operation did not complete at once: never again
}

// ringLines is a ring that fills its cache lines: rings of different goroutines share none.
type ringLines struct {
	Ring
	_ [cacheLine - unsafe.Sizeof(Ring{})%cacheLine]byte
}

// cacheLine is the size of a cache line in bytes, or a multiple of it.
const cacheLine = 64

// Size is how many operations one [Ring.Submit] makes at most.
const Size = 256

// Op is one operation: struct io_uring_sqe. [Send], [Add] and [CloseFD] make them.
type Op struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, msgFlags uint32
	userData      uint64
	_             [24]byte
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sqOff                                                                  struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cqOff struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

const (
	opClose        = 19         // IORING_OP_CLOSE
	opSend         = 26         // IORING_OP_SEND
	opEpollCtl     = 29         // IORING_OP_EPOLL_CTL
	setupSubmitAll = 1 << 7     // IORING_SETUP_SUBMIT_ALL, Linux 5.18
	setupNoSQArray = 1 << 16    // IORING_SETUP_NO_SQARRAY, Linux 6.6
	featSingleMmap = 1 << 0     // IORING_FEAT_SINGLE_MMAP
	offsetSQEs     = 0x10000000 // IORING_OFF_SQES
	enterGetEvents = 1 << 0     // IORING_ENTER_GETEVENTS
	sizeofSQE      = int(unsafe.Sizeof(Op{}))
	sizeofCQE      = int(unsafe.Sizeof(cqe{}))
)

// ringFlags are the ways to set a ring up, the best first. A kernel answers EINVAL to a
// flag that it does not know.
var ringFlags = [...]uint32{setupSubmitAll | setupNoSQArray, setupSubmitAll}

// New sets a ring up; an old one is that of a kernel before Linux 6.6, for tests. The
// error says why the system has none to give: it is older than Linux 5.18, or io_uring is
// forbidden (sysctl kernel.io_uring_disabled, seccomp).
func New(old bool) (*Ring, error) {
	var p ringParams
	var fd uintptr
	errno := unix.EINVAL
	for _, flags := range ringFlags {
		if old && flags&setupNoSQArray != 0 {
			continue
		}
		p = ringParams{flags: flags}
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, Size, uintptr(unsafe.Pointer(&p)), 0)
		if errno != unix.EINVAL {
			break
		}
	}
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &new(ringLines).Ring
	r.fd = int(fd)
	unix.CloseOnExec(r.fd)
	if _, errno := r.enter(0, 0, 0); errno != 0 { // a filter of system calls may forbid only this
		r.Close()
		return nil, fmt.Errorf("io_uring_enter: %w", errno)
	}
	if p.features&featSingleMmap == 0 {
		r.Close()
		return nil, fmt.Errorf("io_uring_setup: one mapping for both rings: %w", unix.ENOSYS)
	}
	size := max(int(p.sqOff.entries)+4, int(p.cqOff.cqes)+int(p.cqEntries)*sizeofCQE)
	array := p.flags&setupNoSQArray == 0
	if array {
		size = max(size, int(p.sqOff.array)+int(p.sqEntries)*4)
	}
	var err error
	if r.queues, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.Close()
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*sizeofSQE, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.Close()
		return nil, fmt.Errorf("map the ring's entries: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }
	r.entries = unsafe.Slice((*Op)(unsafe.Pointer(&r.sqes[0])), p.sqEntries)
	r.answers = unsafe.Slice((*cqe)(unsafe.Pointer(&r.queues[p.cqOff.cqes])), p.cqEntries)
	r.sqTail, r.sqMask = at(p.sqOff.tail), *at(p.sqOff.mask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cqOff.head), at(p.cqOff.tail), *at(p.cqOff.mask)
	if array { // it says in which order the kernel takes the entries: always as they lie
		for i := range p.sqEntries {
			*at(p.sqOff.array + 4*i) = i
		}
	}
	return r, nil
}

// Close gives the ring back.
func (r *Ring) Close() {
	if r.sqes != nil {
		_ = unix.Munmap(r.sqes)
	}
	if r.queues != nil {
		_ = unix.Munmap(r.queues)
	}
	_ = unix.Close(r.fd)
}

// Send is send(2) of p with flags, of which MSG_DONTWAIT is one. p must not move and stay
// alive until Submit returns: it is part of what is on the heap.
func Send(fd int32, p []byte, flags uint32) Op {
	return Op{opcode: opSend, fd: fd, len: uint32(len(p)), msgFlags: flags, addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))}
}

// Add is epoll_ctl(2), which adds fd to the instance ep. The event has to live on the heap
// until Submit returns.
func Add(ep int, fd int32, event *unix.EpollEvent) Op {
	return Op{opcode: opEpollCtl, fd: int32(ep), off: uint64(fd), len: unix.EPOLL_CTL_ADD, addr: uint64(uintptr(unsafe.Pointer(event)))}
}

// CloseFD is close(2).
func CloseFD(fd int32) Op { return Op{opcode: opClose, fd: fd} }

// Put makes op the i-th operation of the next submit, i < [Size].
func (r *Ring) Put(i int, op Op) {
	op.userData = uint64(i)
	r.entries[(*r.sqTail+uint32(i))&r.sqMask] = op
}

// Result returns the answer to the i-th operation of the last submit.
func (r *Ring) Result(i int) (n int, errno syscall.Errno) {
	if res := r.results[i]; res < 0 {
		return 0, syscall.Errno(-res)
	}
	return int(r.results[i]), 0
}

// Late reports whether an operation has ever not completed at once. Such a kernel or
// such a use is not what this package is for: make plain calls from then on.
func (r *Ring) Late() bool { return r.mustWait }

// Submit makes the first most operations that were put, and returns how many of them were
// made. The kernel may refuse the call, for want of memory: 0.
func (r *Ring) Submit(most int) int {
	tail := *r.sqTail // nobody else writes it
	atomic.StoreUint32(r.sqTail, tail+uint32(most))
	n, _ := r.enter(most, 0, 0) // refused for want of memory: 0
	if n < most {
		// The kernel has looked at the first n alone: take the others back.
		atomic.StoreUint32(r.sqTail, tail+uint32(n))
	}
	for left := n; ; {
		left -= r.reap()
		if left == 0 {
			return n
		}
		// This cannot be: no operation waits, see ring. If it is all the same, the
		// buffers must not be touched before the kernel is through with them.
		r.mustWait = true
		if _, errno := r.enter(0, left, enterGetEvents); errno != 0 && errno != unix.EINTR {
			panic(fmt.Sprintf("uring: %d operations are lost in the ring: %v", left, errno))
		}
	}
}

// reap takes the answers that are there and returns how many.
func (r *Ring) reap() int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for at := head; at != tail; at++ {
		a := &r.answers[at&r.cqMask]
		r.results[a.userData] = a.res
	}
	atomic.StoreUint32(r.cqHead, tail)
	return int(tail - head)
}

// enter is io_uring_enter(2) as a raw call: it waits for nothing, but in the
// case that cannot be.
func (r *Ring) enter(submit, wait int, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), flags, 0, 0)
		if errno != unix.EINTR || submit == 0 {
			if errno != 0 {
				return 0, errno
			}
			return int(n), 0
		}
	}
}
