package conns

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tcpOf returns the TCP connection that carries c, nil if none is known to.
func tcpOf(c net.Conn) *net.TCPConn {
	switch c := c.(type) {
	case *net.TCPConn:
		return c
	case *tls.Conn:
		return tcpOf(c.NetConn())
	case *foreign:
		return c.tcp
	}
	return nil
}

// rawOf returns the socket that carries c, nil if none is known to.
func rawOf(c net.Conn) syscall.RawConn {
	var socket syscall.Conn
	if tcp := tcpOf(c); tcp != nil {
		socket = tcp
	} else if unix, ok := c.(*net.UnixConn); ok {
		socket = unix
	} else {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// resetOnClose makes the close of a connection reset it, if it is carried by TCP.
func resetOnClose(c net.Conn) {
	if tcp := tcpOf(c); tcp != nil {
		_ = tcp.SetLinger(0)
	}
}

// cut wakes who reads from a connection or writes to it, because its session ends. One of
// the program may not know deadlines, or not obey them: it is closed.
func cut(c net.Conn) {
	if f, ok := c.(*foreign); ok && f.tcp == nil {
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Unix(1, 0))
}

// closeWriter is a connection that can end its own direction alone.
type closeWriter interface{ CloseWrite() error }

// endsAlone tells whether c can end one direction alone.
func endsAlone(c net.Conn) bool {
	if f, ok := c.(*foreign); ok {
		c = f.conn
	}
	_, ok := c.(closeWriter)
	return ok
}

// closeWrite tells the peer of c that no more comes, if c can say so.
func closeWrite(c net.Conn) {
	if w, ok := c.(closeWriter); ok {
		_ = w.CloseWrite()
	}
}

// foreign is a connection of the program: whatever it does, it looks like one of package
// net. A panic becomes an error, and is reported once. A connection without read deadlines
// gets them.
type foreign struct {
	conn          net.Conn
	local, remote net.Addr
	tcp           *net.TCPConn // that carries it; nil: not known
	late          *late        // nil: it has deadlines of its own
	panicked      func(value any)
	told, closed  sync.Once
	ended         atomic.Bool // the session has ended what goes to it, and with that all of it
}

// fault is the error of a connection that does what none may do. It is closed.
type fault string

func (f fault) Error() string { return string(f) }

const errPanicked = fault("the connection has panicked")

// errNil is the error for a connection that is none.
var errNil = errors.New("the connection is nil")

// adopt returns a connection of the program as a session needs it: as it is, if it is
// one of TCP or of a UNIX stream socket, and else as a foreign one.
func adopt(c net.Conn, panicked func(value any)) (_ net.Conn, err error) {
	switch c := c.(type) {
	case nil:
		return nil, errNil
	case *net.TCPConn:
		if c == nil {
			return nil, errNil
		}
		return c, c.SetDeadline(time.Time{})
	case *net.UnixConn:
		if c == nil {
			return nil, errNil
		}
		if a := c.LocalAddr(); a == nil || a.Network() != "unix" {
			return nil, errors.New("the connection is not a stream")
		}
		return c, c.SetDeadline(time.Time{})
	}
	f := &foreign{conn: c, panicked: panicked}
	if t, ok := c.(*tls.Conn); ok && t != nil {
		f.tcp = tcpOf(t)
	}
	defer f.contain(&err)
	f.local, f.remote = c.LocalAddr(), c.RemoteAddr()
	switch err := c.SetReadDeadline(time.Time{}); {
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return nil, fmt.Errorf("the connection is closed: %w", err)
	case err != nil:
		f.late = &late{of: f, ready: make(chan struct{}, 1)}
	default:
		_ = c.SetWriteDeadline(time.Time{})
	}
	return f, nil
}

// contain makes an error of a panic. It is for a defer.
func (f *foreign) contain(err *error) {
	if v := recover(); v != nil {
		*err = errPanicked
		f.told.Do(func() { f.panicked(v) })
	}
}

// emptyReads is how often a connection may read nothing without an error in a row: as
// package bufio has it.
const emptyReads = 100

func (f *foreign) Read(b []byte) (int, error) {
	if f.late != nil {
		return f.late.read(b)
	}
	return f.read(b)
}

// read reads at least a byte, or returns an error.
func (f *foreign) read(b []byte) (n int, err error) {
	if n, err = f.readOnce(b); n < 0 || n > len(b) {
		n, err = 0, fault(fmt.Sprintf("the connection has read %d bytes into room for %d", n, len(b)))
	}
	if err != nil && f.ended.Load() {
		err = io.EOF
	}
	f.closeAfter(err)
	return n, err
}

func (f *foreign) readOnce(b []byte) (n int, err error) {
	defer f.contain(&err)
	for range emptyReads {
		if n, err := f.conn.Read(b); n != 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func (f *foreign) Write(b []byte) (n int, err error) {
	if n, err = f.writeOnce(b); n < 0 || n > len(b) || n < len(b) && err == nil {
		n, err = max(0, min(n, len(b))), fault(fmt.Sprintf("the connection has written %d bytes of %d without an error", n, len(b)))
	}
	f.closeAfter(err)
	return n, err
}

func (f *foreign) writeOnce(b []byte) (n int, err error) {
	defer f.contain(&err)
	return f.conn.Write(b)
}

// closeAfter closes the connection after a fault: so both directions end.
func (f *foreign) closeAfter(err error) {
	if _, ok := errors.AsType[fault](err); ok {
		_ = f.Close()
	}
}

// Close closes the connection, once.
func (f *foreign) Close() (err error) {
	f.closed.Do(func() {
		defer f.contain(&err)
		err = f.conn.Close()
	})
	return err
}

// CloseWrite closes a connection that cannot end one direction alone: its peer would wait
// for an end that cannot come. What the peer sends is over with that.
func (f *foreign) CloseWrite() (err error) {
	if !endsAlone(f) {
		f.ended.Store(true)
		return f.Close()
	}
	defer f.contain(&err)
	return f.conn.(closeWriter).CloseWrite()
}

func (f *foreign) LocalAddr() net.Addr  { return f.local }
func (f *foreign) RemoteAddr() net.Addr { return f.remote }

func (f *foreign) SetDeadline(t time.Time) (err error) {
	if f.late != nil {
		f.late.setRead(t)
		return nil
	}
	defer f.contain(&err)
	return f.conn.SetDeadline(t)
}

func (f *foreign) SetReadDeadline(t time.Time) (err error) {
	if f.late != nil {
		f.late.setRead(t)
		return nil
	}
	defer f.contain(&err)
	return f.conn.SetReadDeadline(t)
}

func (f *foreign) SetWriteDeadline(t time.Time) (err error) {
	if f.late != nil {
		return nil // a write is woken by cut
	}
	defer f.contain(&err)
	return f.conn.SetWriteDeadline(t)
}

// late gives a connection read deadlines that it does not have itself. A goroutine reads for
// who reads, and goes on when the deadline has passed: what it has read is for the next.
type late struct {
	of *foreign

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed with a new deadline; nil: nobody waits
	reading  bool          // the goroutine reads
	buf      []byte        // what it reads into
	got      []byte        // of buf, not taken yet
	err      error         // behind got

	ready chan struct{} // has a token when the goroutine has read
}

// lateBuffer is how many bytes are read ahead at most.
const lateBuffer = 16 << 10

func (l *late) read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err, more := l.take(b)
		if !more {
			return n, err
		}
		if err := l.await(); err != nil {
			return 0, err
		}
	}
}

// take takes what was read. more says that there is nothing yet; then the goroutine reads.
func (l *late) take(b []byte) (n int, err error, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.deadline.IsZero() && !time.Now().Before(l.deadline) {
		return 0, os.ErrDeadlineExceeded, false
	}
	if len(l.got) > 0 {
		n = copy(b, l.got)
		l.got = l.got[n:]
		return n, nil, false
	}
	if l.err != nil {
		return 0, l.err, false
	}
	if !l.reading {
		l.reading = true
		if l.buf == nil {
			l.buf = make([]byte, lateBuffer)
		}
		go l.pull()
	}
	return 0, nil, true
}

// pull reads once. It ends when the connection is closed.
func (l *late) pull() {
	n, err := l.of.read(l.buf)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading, l.got, l.err = false, l.buf[:n], err
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// await waits until the goroutine has read, or the deadline is another; past it, it returns
// an error.
func (l *late) await() error {
	l.mu.Lock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	changed, deadline := l.changed, l.deadline
	l.mu.Unlock()
	var passed <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		passed = timer.C
	}
	select {
	case <-l.ready:
	case <-changed:
	case <-passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (l *late) setRead(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}
