//go:build linux

package loops

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/splice"
)

// end is one socket of a session as the loop knows it. What an event says is
// only a hint that sets readable or writable; the answer of a system call
// decides. An end belongs to its loop.
type end struct {
	fd    int32 // -1: none
	flags flags
}

type flags uint32

const (
	readable   flags = 1 << iota // bytes, or the end of the stream, may wait to be read
	writable                     // takes bytes, as far as is known
	hungUp                       // the peer's FIN has arrived (EPOLLRDHUP): the next short read is the last
	urgent                       // an urgent byte was announced: a short read does not mean drained
	inline                       // urgent bytes stay in their place in the stream (SO_OOBINLINE)
	ended                        // nothing more will be read: the end was read, or an error
	reset                        // the connection failed: an end read after this is not a clean one
	broken                       // nothing more can be sent
	sentOnce                     // bytes were sent to it
	owesAck                      // the acknowledgement of its handshake waits for the first bytes
	nodelay                      // TCP_NODELAY is set
	tuned                        // keep-alive and the send queue's limit are set
	unixSocket                   // not TCP: a short read does not mean drained
	answered                     // a backend whose first bytes after ours were read
	headed                       // a PROXY header was sent to it
	shared                       // another process has its socket, or has had it: close sends nothing
	lingers                      // SO_LINGER 0 is set: its close resets the connection
	cutShort                     // it gets a reset, now or with its drop
)

// unixEnd is set on a UNIX socket from the start: it has none of TCP's options.
const unixEnd = unixSocket | nodelay | tuned | answered

func (e *end) is(f flags) bool { return e.flags&f != 0 }
func (e *end) set(f flags)     { e.flags |= f }
func (e *end) clear(f flags)   { e.flags &^= f }

// fail takes in the error of a send. If the peer is gone, what it had sent is
// still to be read; if the fault is on our side, the peer would wait for bytes
// that never come, so nothing is read from it either.
func (e *end) fail(err error) {
	e.set(broken | reset | readable)
	switch err {
	case unix.ECONNRESET, unix.EPIPE, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH:
	default:
		e.set(ended)
	}
}

// hint takes in what epoll reported.
func (e *end) hint(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.set(readable)
	}
	if events&unix.EPOLLOUT != 0 {
		e.set(writable)
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		e.set(hungUp)
	}
	if events&unix.EPOLLPRI != 0 {
		e.set(urgent | readable)
	}
	if events&unix.EPOLLERR != 0 {
		// A reset is reported once. It has to be remembered, because after that recv
		// gives the rest and then a plain 0.
		e.set(reset | broken)
	}
}

// flow is one direction of a session: a small state machine that says which
// system call comes next and takes in its answer. It makes no call itself.
//
// Invariants: bytes leave in the order in which they came; nothing is read
// while bytes are pending, so at most one buffer or one pipe is held; the
// flow finishes only when nothing is pending or nothing more can be sent.
type flow struct {
	held     []byte // a buffer of bytes read and not yet taken by the destination
	taken    int32  // how many of held the destination has taken
	drained  int32  // bytes spliced to the destination since, see pace
	pipe     pipe   // lent while splicing and bytes move
	window   int32  // what the next fill may move
	burst    int32  // bytes that fills have moved since the source was last empty
	since    uint32 // on the loop's clock, in paceTick
	mode     mode
	streamed uint8 // reads to be copied in a row before these are small messages and no gap in a stream
	sending  bool  // the loop has bytes of this flow in its batch
	queued   bool  // waits for its turn to splice
	corked   bool  // the last bytes wait in the kernel for an end that is to follow
	done     bool  // nothing will move any more
	header   bool  // a PROXY header goes ahead of the first byte
	ahead    uint8 // bytes of it that stand before those held, or in the batch
	wide     bool  // a fast stream: much of it may wait in the kernel unsent, see kernel.widen
}

// mode is how a flow moves bytes.
type mode uint8

const (
	copying mode = iota
	splicing
)

// step is what a flow needs next.
type step uint8

const (
	wait   step = iota // nothing until an event comes
	greet              // send the PROXY header, with what can be read
	read               // recv from the source, then tell onRead
	write              // send what is held, then tell onWrite
	fill               // splice from the source into the pipe, then tell onFill
	drain              // splice from the pipe to the destination, then tell onDrain
	finish             // nothing will move any more: pass the end on
)

// pending tells whether bytes were read that the destination has not taken.
func (f *flow) pending() bool {
	return len(f.held) > 0 || f.pipe != nil && f.pipe.Held() > 0
}

// next says what the flow needs now.
func (f *flow) next(src, dst *end) step {
	switch {
	case f.done || f.sending:
		return wait
	case dst.is(broken):
		return finish
	case f.header:
		if dst.is(writable) {
			return greet
		}
		return wait
	case len(f.held) > 0:
		if dst.is(writable) {
			return write
		}
		return wait
	case f.pending():
		if dst.is(writable) {
			return drain
		}
		return wait
	case src.is(ended):
		return finish
	case !src.is(readable) || !dst.is(writable):
		// Back-pressure: what the destination does not take is not read.
		return wait
	case f.mode == splicing:
		return fill
	}
	return read
}

// onRead takes in the answer of a recv that had room for room bytes.
func (f *flow) onRead(src *end, n, room int, errno syscall.Errno) {
	switch {
	case errno == unix.EAGAIN:
		src.clear(readable | urgent)
	case errno != 0:
		src.set(ended | reset | broken)
	case n == 0:
		src.set(ended)
	case n == room || src.is(urgent|unixSocket):
		// There may be more: an urgent mark or a descriptor that was passed (unix(7))
		// ends a read early.
	case src.is(hungUp) && !src.is(reset):
		// The FIN had arrived before this read, so these are the last bytes. The kernel
		// sets the error of a reset before it shuts the socket down (tcp_reset), so an
		// event without EPOLLERR told of a FIN.
		src.set(ended)
	case !src.is(hungUp):
		// A short read has emptied the socket; what comes later brings an event.
		src.clear(readable)
	}
}

// splice makes the flow splice once what is pending is out.
func (f *flow) splice() {
	f.mode = splicing
	f.streamed = gap
	f.window = maxWindow
	f.burst = 0
}

// onWrite takes in the answer of a send of want bytes.
func (f *flow) onWrite(dst *end, n, want int, errno syscall.Errno) {
	switch {
	case errno == unix.EAGAIN:
		dst.clear(writable)
	case errno != 0:
		dst.fail(errno)
	case n < want:
		dst.clear(writable)
	}
}

// onFill takes in the answer of a Fill. With an urgent byte on the way an
// answer of EOF or Again cannot be believed: the flow goes back to recv.
func (f *flow) onFill(src *end, n int, st splice.Status, err error) {
	f.burst = min(f.burst+int32(n), maxWindow)
	switch {
	case err == unix.EINVAL || err == unix.ENOMEM:
		f.mode = copying // the fault is splice's, not the socket's
	case err != nil:
		// The error is taken off the socket with this; recv gives what came
		// before it, and then an end that must not be taken for a clean one.
		src.set(reset | broken)
		f.mode = copying
	case st == splice.EOF, st == splice.Again && src.is(urgent|reset):
		f.mode = copying
	case st == splice.Again:
		src.clear(readable)
		if f.burst < trickle {
			f.mode = copying
		}
		f.burst = 0
	}
}

// onDrain takes in the answer of a Drain.
func (f *flow) onDrain(dst *end, n int, st splice.Status, err error) {
	switch {
	case err != nil:
		dst.fail(err)
	case st == splice.Again:
		// The destination is the slower side: fill no more than it takes, so
		// that a stalled reader pins little.
		dst.clear(writable)
		f.window = max(int32(n), minWindow)
	default:
		f.window = min(f.window, maxWindow/2) * 2
	}
}
