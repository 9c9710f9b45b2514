//go:build linux

package loops

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring makes many operations of a turn in one system call (io_uring(7)). It
// belongs to one loop. Each operation completes before the call returns: every
// socket is non-blocking, a send says MSG_DONTWAIT, a socket has nothing to flush
// when it is closed, and no other thread uses the loop's epoll instance. So nothing is
// ever in flight, and a buffer may be used again at once.
//
// For sends it saves less the calls than the switches between them: a send wakes
// its receiver, which takes the processor from the loop; in one call it does so
// once for the whole batch.
type ring struct {
	fd       int
	queues   []byte // mapped: both queues
	sqes     []byte // mapped: what entries lies in
	entries  []sqe
	sqTail   *uint32
	sqMask   uint32
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	answers  []cqe
	results  [ringSize]int32 // of the operations of the last submit
	mustWait bool            // an operation did not complete at once: never again
}

// ringLines is a ring that fills its cache lines.
type ringLines struct {
	ring
	_ [cacheLine - unsafe.Sizeof(ring{})%cacheLine]byte
}

// ringSize is how many operations one call makes at most.
const ringSize = 256

// sqe is struct io_uring_sqe of linux/io_uring.h.
type sqe struct {
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
	sizeofSQE      = int(unsafe.Sizeof(sqe{}))
	sizeofCQE      = int(unsafe.Sizeof(cqe{}))
)

// ringFlags are the ways to set a ring up, the best first. A kernel answers EINVAL to a
// flag that it does not know.
var ringFlags = [...]uint32{setupSubmitAll | setupNoSQArray, setupSubmitAll}

// newRing sets a ring up; an old one is that of a kernel before Linux 6.6, for tests. The
// error says why the system has none to give: it is older than Linux 5.18, or io_uring is
// forbidden (sysctl kernel.io_uring_disabled, seccomp).
func newRing(old bool) (*ring, error) {
	var p ringParams
	var fd uintptr
	errno := unix.EINVAL
	for _, flags := range ringFlags {
		if old && flags&setupNoSQArray != 0 {
			continue
		}
		p = ringParams{flags: flags}
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
		if errno != unix.EINVAL {
			break
		}
	}
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &new(ringLines).ring
	r.fd = int(fd)
	unix.CloseOnExec(r.fd)
	if _, errno := r.enter(0, 0, 0); errno != 0 { // a filter of system calls may forbid only this
		r.close()
		return nil, fmt.Errorf("io_uring_enter: %w", errno)
	}
	if p.features&featSingleMmap == 0 {
		r.close()
		return nil, fmt.Errorf("io_uring_setup: one mapping for both rings: %w", unix.ENOSYS)
	}
	size := max(int(p.sqOff.entries)+4, int(p.cqOff.cqes)+int(p.cqEntries)*sizeofCQE)
	array := p.flags&setupNoSQArray == 0
	if array {
		size = max(size, int(p.sqOff.array)+int(p.sqEntries)*4)
	}
	var err error
	if r.queues, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*sizeofSQE, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		r.close()
		return nil, fmt.Errorf("map the ring's entries: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }
	r.entries = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqes[0])), p.sqEntries)
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

func (r *ring) close() {
	if r.sqes != nil {
		_ = unix.Munmap(r.sqes)
	}
	if r.queues != nil {
		_ = unix.Munmap(r.queues)
	}
	_ = unix.Close(r.fd)
}

// send makes the sends of a batch and puts the answers into it. It returns how
// many were made, from the first on; the rest is for plain calls.
func (r *ring) send(batch []sendOp) (made int) {
	for made < len(batch) && !r.mustWait {
		part := batch[made:min(len(batch), made+ringSize)]
		for i := range part {
			op := &part[i]
			*r.entry(i) = sqe{
				opcode: opSend, fd: op.fd, len: uint32(len(op.p)), msgFlags: sendFlags(op.last),
				addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(op.p)))), userData: uint64(i),
			}
		}
		n := r.submit(len(part))
		for i := range part[:n] {
			part[i].n, part[i].errno = r.result(i)
		}
		made += n
		if n < len(part) {
			break
		}
	}
	return made
}

// tidy does what the end of a turn has to do, as linux.tidy. It returns how much of it
// was done, the watches first.
func (r *ring) tidy(ep int, watches []watchOp, fds []int32) (made int) {
	for all := len(watches) + len(fds); made < all && !r.mustWait; {
		part := min(all-made, ringSize)
		for i := range part {
			if at := made + i; at < len(watches) {
				w := &watches[at]
				*r.entry(i) = sqe{
					opcode: opEpollCtl, fd: int32(ep), off: uint64(w.fd), len: unix.EPOLL_CTL_ADD,
					addr: uint64(uintptr(unsafe.Pointer(&w.event))), userData: uint64(i),
				}
			} else {
				*r.entry(i) = sqe{opcode: opClose, fd: fds[at-len(watches)], userData: uint64(i)}
			}
		}
		n := r.submit(part)
		for i := range n {
			if at := made + i; at < len(watches) {
				_, watches[at].errno = r.result(i)
			}
		}
		made += n
		if n < part {
			break
		}
	}
	return made
}

// entry returns where the i-th operation of the next submit is put.
func (r *ring) entry(i int) *sqe { return &r.entries[(*r.sqTail+uint32(i))&r.sqMask] }

// result returns the answer to the i-th operation of the last submit.
func (r *ring) result(i int) (n int, errno syscall.Errno) {
	if res := r.results[i]; res < 0 {
		return 0, syscall.Errno(-res)
	}
	return int(r.results[i]), 0
}

// submit makes the operations in the first most entries and returns how many of them
// were made.
func (r *ring) submit(most int) int {
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
			panic(fmt.Sprintf("engine: %d operations are lost in the ring: %v", left, errno))
		}
	}
}

// reap takes the answers that are there and returns how many.
func (r *ring) reap() int {
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
func (r *ring) enter(submit, wait int, flags uintptr) (int, syscall.Errno) {
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
