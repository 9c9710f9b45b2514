//go:build linux

package loops

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// copyBytes gives the mirrors of a session what was read from the client. p has to stay as it
// is until the batch is sent.
func (l *loop) copyBytes(s *session, p []byte) {
	for c := s.copies; c != nil; {
		next := c.next
		switch {
		case c.rest != more:
		case c.writable && len(c.pieces) == 0 && !c.sending:
			c.sending = true
			l.copies.ops = append(l.copies.ops, sendOp{p: p, fd: c.fd})
			l.copies.of = append(l.copies.of, c)
		case !l.hold(c, p):
			l.lose(c, sched.CopyBehind)
		}
		c = next
	}
}

// flushCopies makes the sends of the batch to mirrors.
func (l *loop) flushCopies() {
	ops := l.copies.ops
	l.sys.send(ops)
	for i := range ops {
		op, c := &ops[i], l.copies.of[i]
		if c.sending = false; c.fd >= 0 {
			l.copied(c, op)
		}
		op.p, l.copies.of[i] = nil, nil
	}
	l.copies.ops, l.copies.of = ops[:0], l.copies.of[:0]
}

// copied takes in the answer of a send of the batch.
func (l *loop) copied(c *replica, op *sendOp) {
	if !l.answer(c, op) {
		return
	}
	if left := op.p[op.n:]; len(left) > 0 && !l.hold(c, left) {
		l.lose(c, sched.CopyBehind)
		return
	}
	l.finish(c)
}

// answer takes in the answer of any send to a mirror. It returns false if the copy is lost.
func (l *loop) answer(c *replica, op *sendOp) bool {
	if op.errno != 0 && op.errno != unix.EAGAIN {
		l.lose(c, sched.CopyReset)
		return false
	}
	c.writable = op.errno == 0 && op.n == len(op.p)
	l.copyMoved(c, op.n)
	return true
}

// copyMoved counts bytes that the mirror has taken.
func (l *loop) copyMoved(c *replica, n int) {
	c.mirror.Copied(n)
	if n > 0 {
		c.stood = 0
	}
}

// addPiece has one more piece wait.
func (l *loop) addPiece(c *replica, p piece) {
	if len(c.pieces) == 0 {
		c.stood = 0
		l.timers.beatBy(l.now + copyBeat)
	}
	c.pieces = append(c.pieces, p)
}

// hold keeps bytes that the mirror has not taken. It returns false if there are too many.
func (l *loop) hold(c *replica, p []byte) bool {
	for len(p) > 0 {
		if n := len(c.pieces); n > 0 && c.pieces[n-1].buf != nil {
			last := &c.pieces[n-1]
			took := copy(last.buf[len(last.buf):cap(last.buf)], p)
			last.buf, p = last.buf[:len(last.buf)+took], p[took:]
			if len(p) == 0 {
				break
			}
		}
		if c.held >= core.CopyHeld || l.copies.held >= core.CopiesHeld {
			return false
		}
		buf := l.spares.hold(p[:min(len(p), readSize)])
		p = p[len(buf):]
		c.held += cap(buf)
		l.copies.held += cap(buf)
		l.addPiece(c, piece{buf: buf})
	}
	return true
}

// copyPipe gives the mirrors of a session what was filled into a pipe.
func (l *loop) copyPipe(s *session, from pipe) {
	for c := s.copies; c != nil; {
		next := c.next
		if c.rest == more {
			if why, ok := l.tee(c, from); !ok {
				l.lose(c, why)
			}
		}
		c = next
	}
}

// tee duplicates what a pipe holds for one mirror.
func (l *loop) tee(c *replica, from pipe) (why sched.LostCopy, ok bool) {
	all, had := from.Held(), 0
	if n := len(c.pieces); n > 0 && c.pieces[n-1].pipe != nil {
		// Behind what it holds already, as far as there is room.
		var errno syscall.Errno
		if had, errno = l.sys.tee(from, c.pieces[n-1].pipe); errno != 0 {
			return sched.CopyNoResource, false
		}
	}
	if had == all {
		return 0, true
	}
	pipes := 0
	for i := range c.pieces {
		if c.pieces[i].pipe != nil {
			pipes++
		}
	}
	if pipes >= core.CopyPieces {
		return sched.CopyBehind, false
	}
	to, err := l.sys.lend()
	if err != nil {
		return sched.CopyNoResource, false
	}
	l.count.pipes.Store(int64(l.sys.pipes()))
	// tee(2) always begins at the first byte, so what the pipe before has got comes again.
	l.addPiece(c, piece{pipe: to, skip: had})
	n, errno := l.sys.tee(from, to)
	switch {
	case errno != 0:
		l.copies.noTee = true
		return sched.CopyNoResource, false
	case n < all: // this pipe is smaller than that one
		return sched.CopyBehind, false
	}
	return 0, true
}

// push sends a mirror what waits for it, as far as it takes it.
func (l *loop) push(c *replica) {
	for c.writable && len(c.pieces) > 0 {
		p := &c.pieces[0]
		switch {
		case p.buf != nil:
			op := &l.copies.one[0]
			*op = sendOp{p: p.buf[p.taken:], fd: c.fd}
			l.sys.send(l.copies.one[:])
			if !l.answer(c, op) {
				return
			}
			if p.taken += op.n; p.taken == len(p.buf) {
				l.letGoPiece(c)
			}
		case p.skip > 0:
			n, err := p.pipe.Read(l.waste[:min(len(l.waste), p.skip)])
			if err != nil || n == 0 {
				l.lose(c, sched.CopyNoResource)
				return
			}
			p.skip -= n
		default:
			n, st, err := p.pipe.Drain(int(c.fd))
			l.copyMoved(c, n)
			if err != nil {
				l.lose(c, sched.CopyReset)
				return
			}
			if c.writable = st != splice.Again; p.pipe.Held() == 0 {
				l.letGoPiece(c)
			}
		}
	}
	l.finish(c)
}

// pushAll sends the mirrors of a session what waits for them.
func (l *loop) pushAll(s *session) {
	for c := s.copies; c != nil; {
		next := c.next
		l.push(c)
		c = next
	}
}

// letGoPiece gives back what the first piece is held in.
func (l *loop) letGoPiece(c *replica) {
	p := &c.pieces[0]
	if p.buf != nil {
		c.held -= cap(p.buf)
		l.copies.held -= cap(p.buf)
		l.spares.put(p.buf)
	} else {
		l.sys.takeBack(p.pipe)
		l.count.pipes.Store(int64(l.sys.pipes()))
	}
	c.pieces = slices.Delete(c.pieces, 0, 1)
}
