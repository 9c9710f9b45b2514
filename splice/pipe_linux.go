package splice

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Status says how a Fill or a Drain ended.
type Status uint8

const (
	// OK: bytes moved. There may be more to move.
	OK Status = iota
	// Again: the socket has nothing to give, or takes nothing now.
	Again
	// PipeFull: the pipe still holds bytes and took no more. The kernel does
	// not tell this from an empty socket (both are EAGAIN, and a pipe runs out
	// of slots before it runs out of bytes), so the socket may or may not have
	// more: drain the pipe, then fill again.
	PipeFull
	// EOF: the socket's peer has ended its stream.
	EOF
)

// String names the status in logs and tests.
func (s Status) String() string {
	return [...]string{"OK", "Again", "PipeFull", "EOF"}[s]
}

// Pipe is a kernel pipe between two sockets. It belongs to one goroutine.
type Pipe struct {
	r, w int // file descriptors: the end that drains, the end that fills
	size int // capacity in bytes, as the kernel granted it
	held int // bytes filled and not yet drained

	_ [32]byte // a cache line of its own: pipes of other loops lie beside it
}

// flags of every splice call. SPLICE_F_MORE is never among them: it corks the
// socket, and what waits behind it is sent after 200 ms (golang/go#10948).
const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// NewPipe opens a pipe that holds size bytes if the kernel allows that much
// (/proc/sys/fs/pipe-max-size, and for unprivileged users
// /proc/sys/fs/pipe-user-pages-soft), else as many as it grants.
func NewPipe(size int) (*Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("open a pipe: %w", err)
	}
	p := &Pipe{r: fds[0], w: fds[1]}
	granted, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, size)
	if err != nil { // EPERM past the quota or the limit: keep what it has
		granted, err = unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("size of a pipe: %w", err)
	}
	p.size = granted
	return p, nil
}

// Size returns how many bytes the pipe can hold.
func (p *Pipe) Size() int { return p.size }

// Held returns how many bytes the pipe holds now.
func (p *Pipe) Held() int { return p.held }

// Fill moves up to limit bytes from the socket fd into the pipe and returns how
// many it moved. The error is what splice(2) reported, as a syscall.Errno.
//
// After an urgent (out of band) byte splice can answer EOF with bytes unread
// and Again for ever; the caller confirms either by recv(2) on such a socket.
func (p *Pipe) Fill(fd, limit int) (int, Status, error) {
	n, errno := spliceOnce(fd, p.w, limit)
	switch {
	case errno == unix.EAGAIN && p.held > 0:
		return 0, PipeFull, nil
	case errno == unix.EAGAIN:
		return 0, Again, nil
	case errno != 0:
		return 0, OK, errno
	case n == 0:
		return 0, EOF, nil
	}
	p.held += n
	return n, OK, nil
}

// Drain moves bytes from the pipe into the socket fd until the pipe is empty
// (OK) or the socket takes no more (Again), and returns how many it moved.
// The error is what splice(2) reported, as a syscall.Errno; what had moved
// before it is counted.
func (p *Pipe) Drain(fd int) (int, Status, error) {
	moved := 0
	for p.held > 0 {
		n, errno := spliceOnce(p.r, fd, p.held)
		switch {
		case errno == unix.EAGAIN:
			return moved, Again, nil
		case errno != 0:
			return moved, OK, errno
		case n == 0:
			// The pipe holds bytes and has a writer, so this cannot be its end. A socket
			// that takes nothing without EAGAIN is tried again when it next reports room.
			return moved, Again, nil
		}
		p.held -= n
		moved += n
	}
	return moved, OK, nil
}

// Tee makes a copy of what the pipe holds, from its first byte on, behind what another one
// holds, by tee(2): the copy refers to the same pages. It returns how many bytes fitted, all
// that the pipe holds unless the other one is full. The error is what tee(2) reported, as a
// syscall.Errno.
func (p *Pipe) Tee(to *Pipe) (int, error) {
	for p.held > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_TEE, uintptr(p.r), uintptr(to.w), uintptr(p.held), unix.SPLICE_F_NONBLOCK, 0, 0)
		switch errno {
		case 0:
			to.held += int(n)
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
	return 0, nil
}

// Read takes bytes out of the pipe into memory, as many as b has room for and the pipe holds.
func (p *Pipe) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) && p.held > 0 {
		took, err := unix.Read(p.r, b[n:min(len(b), n+p.held)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, fmt.Errorf("read a pipe: %w", err)
		case took == 0:
			return n, nil
		}
		n += took
		p.held -= took
	}
	return n, nil
}

// Close closes both ends; what the pipe holds is lost.
func (p *Pipe) Close() error {
	err := unix.Close(p.r)
	if werr := unix.Close(p.w); err == nil {
		err = werr
	}
	return err
}

// spliceOnce is splice(2) as a raw call: with SPLICE_F_NONBLOCK on non-blocking
// sockets it cannot block, so Go's scheduler need not know.
func spliceOnce(from, to, limit int) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE,
			uintptr(from), 0, uintptr(to), 0, uintptr(limit), spliceFlags)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
