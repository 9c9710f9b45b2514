package conns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Dial returns a connection to a host of a service, which has room for one more session. If
// it returns an error, the room is given back.
func (c *Sessions) Dial(ctx context.Context, svc *core.Service, who netip.Addr) (net.Conn, error) {
	var from sched.Addr
	if who.IsValid() {
		from = sched.TCPAddr(netip.AddrPortFrom(who, 0))
	}
	s := c.begin(Client{From: from, Entry: core.Dialed(svc)}, true)
	if s == nil {
		c.home.Left()
		return nil, engine.ErrClosed
	}
	s.roomy = true
	stop := context.AfterFunc(ctx, func() {
		s.with(func(a *core.Admission, _ int64) core.Step {
			s.end(a.Left())
			return core.Step{}
		})
	})
	did := s.admit()
	inTime := stop()
	switch {
	case s.ctx.Err() == nil && inTime && did == core.Relay:
		s.touch()
		s.grownUp() // it has no watch
		return s.dialed(), nil
	case s.ctx.Err() == nil && did != core.Relay:
		why := s.admission.Why
		s.end(why.Termination())
		s.finish()
		return nil, &engine.NoHostError{Service: svc.Name, Why: why.String(), Err: s.lost}
	}
	s.end(core.ClientGone)
	s.finish()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, engine.ErrClosed
	}
	return nil, fmt.Errorf("service %q: %w", svc.Name, errEnded)
}

// errEnded is the error of a dial whose session was ended while it looked for a host.
var errEnded = errors.New("the session was ended by an operator")

// dialed hands the session to the program.
func (s *session) dialed() net.Conn {
	d := &dialed{whole: s.whole(backend), s: s}
	d.keep = context.AfterFunc(s.ctx, d.ended)
	if tcp, ok := d.stream.(*net.TCPConn); ok {
		return &dialedTCP{d, tcp}
	}
	return d
}

// dialed is a connection to a host in the hands of the program.
type dialed struct {
	whole
	s     *session
	keep  func() bool // keeps ended from being called; false: it was called, or kept before
	reset atomic.Bool // the host has reset it
}

// ended gives back what the session holds, once something has ended it. What the program
// does then with the connection fails.
func (d *dialed) ended() {
	if d.s.how != core.Normal && !d.reset.Load() {
		resetOnClose(d.socket) // a clean end could be taken for that of the stream
	}
	d.s.finish()
}

// Close ends the session.
func (d *dialed) Close() error {
	if !d.keep() {
		d.s.finish() // or waits for it
		return net.ErrClosed
	}
	how := core.Normal
	if d.reset.Load() {
		how = core.ServerAborted
	}
	d.s.with(func(a *core.Admission, _ int64) core.Step {
		switch {
		case how == core.Normal:
			a.Host.Answered() // it may not have said a byte
		case d.s.out.Load() == 0:
			a.ResetEarly(d.s.from)
		}
		return core.Step{}
	})
	d.s.sideEnded(engine.OfClient, false)
	if !d.s.end(how) { // something else has, just now
		resetOnClose(d.socket)
	}
	d.s.askTCP()
	err := d.whole.Close()
	d.s.finish()
	return err
}

func (d *dialed) Read(b []byte) (int, error) {
	n, err := d.stream.Read(b)
	if n > 0 {
		now := d.s.of.home.Clock()
		d.s.coming(backend, now)
		d.s.sent(backend, now)
	}
	return n, d.moved(backend, n, err)
}

func (d *dialed) Write(b []byte) (int, error) {
	began := d.s.of.home.Clock()
	if len(b) > 0 {
		d.s.coming(client, began)
	}
	n, err := d.s.sink(backend).Write(b)
	if n > 0 {
		d.s.sent(client, began)
	}
	return n, d.moved(client, n, err)
}

// moved counts n bytes that come from a side, and returns err.
func (d *dialed) moved(side, n int, err error) error {
	if n > 0 {
		d.s.moved(side, n)
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNRESET):
		d.reset.Store(true)
		d.s.sideEnded(engine.OfHost, true)
	case side == backend && err == io.EOF:
		d.s.sideEnded(engine.OfHost, false)
	}
	return err
}

// dialedTCP is one that TCP carries: the system can move its bytes by itself, and its socket
// can be asked.
type dialedTCP struct {
	*dialed
	tcp *net.TCPConn
}

// What the system moves by itself nobody sees coming, so most of it is in no turnaround: see
// docs/design/turnaround.md.

// countAt is how many bytes move before they are counted: 1 MiB.
const countAt = 1 << 20

// firstRead is how many bytes of an answer are read before the system moves the rest.
const firstRead = 16 << 10

// ReadFrom moves what comes from r to the host.
func (d *dialedTCP) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		n, err := d.tcp.ReadFrom(&io.LimitedReader{R: r, N: countAt})
		if n > 0 {
			now := d.s.of.home.Clock()
			d.s.turning.passed(now)
			d.s.sent(client, now)
		}
		total += n
		if err = d.moved(client, int(n), err); err != nil || n < countAt {
			return total, err
		}
	}
}

// WriteTo moves what comes from the host to w.
func (d *dialedTCP) WriteTo(w io.Writer) (total int64, err error) {
	if d.s.turning.waits() { // for the moment at which the answer comes
		b := make([]byte, firstRead)
		n, err := d.Read(b)
		if n > 0 {
			wrote, err := w.Write(b[:n])
			if total = int64(wrote); err != nil {
				return total, err
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
	for {
		n, err := io.Copy(w, &io.LimitedReader{R: d.tcp, N: countAt})
		if n > 0 {
			d.s.turning.forget()
			d.s.sent(backend, d.s.of.home.Clock())
		}
		total += n
		if err = d.moved(backend, int(n), err); err != nil || n < countAt {
			return total, err
		}
	}
}

// SyscallConn returns the socket.
func (d *dialedTCP) SyscallConn() (syscall.RawConn, error) { return d.tcp.SyscallConn() }
