package conns

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// replica is the copy of what the client of a session sends, on its way to one mirror. The
// session hands bytes over and never waits: what the mirror has not taken is held, and too
// much of that loses the copy. The goroutine run connects and writes, and drop throws away
// what the mirror answers.
type replica struct {
	of     *Sessions
	mirror *sched.Mirror
	to     sched.Addr
	try    bool // it finds out for all whether the mirror is back
	within time.Duration

	ctx    context.Context // ends when the copy is lost, or has had its time
	cancel context.CancelFunc
	more   chan struct{} // has a token when there is something to do

	mu      sync.Mutex
	conn    net.Conn // nil: not connected yet
	held    []byte   // not written yet
	writing int      // bytes that are being written
	rest    rest
	expires *time.Timer // once the session is over
	over    bool        // it is lost or through: nothing is counted any more
}

// rest is what the mirror still has to learn of the client's stream.
type rest uint8

const (
	more      rest = iota // the stream goes on
	cleanEnd              // its end, behind what is held
	cutOffEnd             // a reset, behind what is held
)

// mirrorTo begins the copies of a session that has its host.
func (s *session) mirrorTo() {
	var list []sched.MirrorShare
	s.with(func(a *core.Admission, _ int64) core.Step {
		list = a.Mirrors()
		return core.Step{}
	})
	for i := range list {
		if m := &list[i]; m.Drawn() {
			s.replicate(m)
		}
	}
}

// replicate begins the copy of a session for one mirror.
func (s *session) replicate(m *sched.MirrorShare) {
	c := &replica{of: s.of, mirror: m.Mirror, within: core.MirrorConnect(s.svc.Route.Load()), more: make(chan struct{}, 1)}
	ok := false
	if c.to, c.try, ok = m.Mirror.Begin(s.of.home.Clock(), c.within); !ok {
		return
	}
	if !s.of.home.Copy() {
		m.Mirror.Lose(sched.CopyNoResource)
		m.Mirror.End()
		return
	}
	c.ctx, c.cancel = context.WithCancel(s.of.copies)
	s.with(func(a *core.Admission, _ int64) core.Step {
		c.held = a.MirrorHeader(nil, m.ProxyProtocol, s.reached)
		return core.Step{}
	})
	s.of.copiesHeld.Add(int64(len(c.held)))
	s.copies = append(s.copies, c)
	s.of.copying.Go(c.run)
}

// copied is the host of a session whose client's bytes are copied.
type copied struct {
	net.Conn
	s *session
}

// Write gives the mirrors what the host gets. They have it first: the host may take long.
func (c copied) Write(b []byte) (int, error) {
	c.s.copyBytes(b)
	return c.Conn.Write(b)
}

// copyBytes gives the mirrors of a session what was read from the client.
func (s *session) copyBytes(b []byte) {
	for _, c := range s.copies {
		c.take(b)
	}
}

// endCopies tells the mirrors of a session that the client's stream has ended, or was cut off.
func (s *session) endCopies(how rest) {
	for _, c := range s.copies {
		c.mu.Lock()
		if c.rest == more {
			c.rest = how
		}
		c.mu.Unlock()
		c.wake()
	}
}

// leaveCopies lets the mirrors of a session that is over have the rest.
func (s *session) leaveCopies() {
	s.endCopies(cutOffEnd)
	for _, c := range s.copies {
		c.mu.Lock()
		if !c.over {
			c.expires = time.AfterFunc(core.CopyFor, c.late)
		}
		c.mu.Unlock()
	}
	s.copies = nil
}

// take holds bytes until they are written. It does not wait.
func (c *replica) take(b []byte) {
	c.mu.Lock()
	fits := len(c.held)+c.writing+len(b) <= core.CopyHeld && c.of.copiesHeld.Load() <= core.CopiesHeld
	if !c.over && fits {
		c.held = append(c.held, b...)
		c.of.copiesHeld.Add(int64(len(b)))
	}
	c.mu.Unlock()
	if !fits {
		c.lose(sched.CopyBehind)
	}
	c.wake()
}

func (c *replica) wake() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// lose gives the copy up, which is not whole.
func (c *replica) lose(why sched.LostCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		c.mirror.Lose(why)
		c.cancel()
	}
}

// late ends a copy whose session has been over for long enough.
func (c *replica) late() {
	c.mu.Lock()
	behind := len(c.held)+c.writing > 0
	if tcp, ok := c.conn.(*net.TCPConn); ok && !behind {
		n, known := unsentBytes(tcp)
		behind = known && n > 0
	}
	c.mu.Unlock()
	if behind {
		c.lose(sched.CopyBehind)
	}
	c.cancel()
}

// run is the copy's goroutine.
func (c *replica) run() {
	defer c.finish()
	conn, err := c.dial()
	if err != nil {
		return
	}
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	answered := make(chan struct{})
	go c.drop(conn, answered)
	stop := context.AfterFunc(c.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	whole := c.write(conn)
	if whole {
		closeWrite(conn)
		select {
		case <-answered:
		case <-c.ctx.Done(): // only its answer goes on
		}
	} else {
		resetOnClose(conn)
	}
	stop()
	_ = conn.Close()
	<-answered
}

// dial connects to the mirror, and tells all how that went.
func (c *replica) dial() (net.Conn, error) {
	network, address := "unix", c.to.Path()
	if address == "" {
		ip, err := zone.Numbered(c.to.IP())
		if err != nil {
			c.failed(err)
			return nil, err
		}
		network, address = "tcp", ip.String()
	}
	// How it ends counts for the mirror, whatever has become of the copy meanwhile.
	conn, err := connect.Dial(c.of.copies, net.Dialer{KeepAlive: -1}, network, address, c.within)
	switch errno, told := errors.AsType[syscall.Errno](err); {
	case err == nil:
		c.mirror.Reached()
		return conn, nil
	case told && connect.Ours(errno):
		c.lose(sched.CopyNoResource)
	case c.of.copies.Err() == nil:
		if told {
			err = errno
		}
		c.failed(err)
	}
	return nil, err
}

func (c *replica) failed(err error) {
	if isTimeout(err) {
		err = syscall.ETIMEDOUT
	}
	c.mirror.Failed(c.of.home.Clock(), c.to, c.try, err)
	c.lose(sched.CopyUnreached)
}

// write writes what the session hands over until its stream ends, and tells whether the
// mirror has all of it and a clean end.
func (c *replica) write(conn net.Conn) (whole bool) {
	var spare []byte
	for {
		c.mu.Lock()
		b, how := c.held, c.rest
		if len(b) > 0 { // what comes meanwhile goes into another buffer
			c.held, c.writing, spare = spare[:0], len(b), nil
		}
		c.mu.Unlock()
		switch {
		case c.ctx.Err() != nil:
			c.of.copiesHeld.Add(-int64(len(b)))
			return false
		case len(b) > 0:
			why, ok := c.send(conn, b)
			c.of.copiesHeld.Add(-int64(len(b)))
			if !ok {
				c.lose(why) // unless it is lost for another reason already
				return false
			}
			c.mu.Lock()
			c.writing = 0
			c.mu.Unlock()
			if spare = b; cap(b) > keepSpare {
				spare = nil
			}
		case how == cleanEnd:
			return true
		case how == cutOffEnd:
			c.settle(conn)
			return false
		default:
			select {
			case <-c.more:
			case <-c.ctx.Done():
			}
		}
	}
}

// send writes bytes. The mirror is behind if it takes none of them for CopyFor, which counts
// in steps: a process that was stopped has not given it this time.
func (c *replica) send(conn net.Conn, b []byte) (why sched.LostCopy, ok bool) {
	for stood := time.Duration(0); stood < core.CopyFor; stood += copyStep {
		_ = conn.SetWriteDeadline(time.Now().Add(copyStep))
		if c.ctx.Err() != nil { // run has set a deadline, maybe before this one
			return sched.CopyReset, false
		}
		n, err := conn.Write(b)
		c.mirror.Copied(n)
		switch b = b[n:]; {
		case err == nil:
			return 0, true
		case !isTimeout(err):
			return sched.CopyReset, false
		case n > 0:
			stood = 0
		}
	}
	return sched.CopyBehind, false
}

// copyStep is how long one write to a mirror may take.
const copyStep = core.CopyFor / 20

// keepSpare is the largest buffer that a copy keeps while nothing comes.
const keepSpare = 16 << 10

// settle waits until a mirror that is to get a reset has acknowledged what was sent before it.
func (c *replica) settle(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	for pause := time.Millisecond; ok; pause = min(2*pause, time.Second) {
		if n, known := unsentBytes(tcp); !known || n == 0 {
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// drop throws away what the mirror answers, until it ends.
func (c *replica) drop(conn net.Conn, answered chan<- struct{}) {
	defer close(answered)
	_, err := io.Copy(io.Discard, conn)
	c.mu.Lock()
	goesOn := c.rest == more || len(c.held)+c.writing > 0
	c.mu.Unlock()
	if err != nil && goesOn && c.ctx.Err() == nil {
		c.lose(sched.CopyReset)
	}
}

// finish gives back what the copy has.
func (c *replica) finish() {
	c.mu.Lock()
	c.over = true
	c.of.copiesHeld.Add(-int64(len(c.held)))
	c.held = nil
	if c.expires != nil {
		c.expires.Stop()
	}
	c.mu.Unlock()
	c.cancel()
	c.mirror.End()
	c.of.home.Copied()
}
