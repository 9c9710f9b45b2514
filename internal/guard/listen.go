package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// paceRate is how many connections a second a listener takes from the kernel
	// at most, also of those that it resets. What is more waits there, or is
	// dropped: that costs this process nothing.
	paceRate = 1000
	// backlog is how many connections may wait in the kernel, so that a flood is
	// over when it ends.
	backlog = 128
)

// Listener is a listener whose connections are judged. Accept fails only when
// the listener is closed: what else goes wrong, such as a lack of descriptors,
// passes.
type Listener struct {
	net.Listener
	door  *door
	allow func() []netip.Prefix
	done  chan struct{}
	close func() error
	pace  bucket
	// Refuse tells a client that all places are taken by connections at work, and
	// closes it; nil: it is reset. It is set before the first Accept.
	Refuse func(net.Conn)
}

// Listen guards a listener of an interface, which belongs to the result. allow
// returns the networks that may connect, nil for all; it is asked for each
// connection. A nil function allows all.
func (g *Guard) Listen(k Kind, ln net.Listener, allow func() []netip.Prefix) *Listener {
	if allow == nil {
		allow = func() []netip.Prefix { return nil }
	}
	l := &Listener{Listener: ln, door: g.all[k], allow: allow, done: make(chan struct{})}
	l.close = sync.OnceValue(func() error {
		close(l.done)
		return l.Listener.Close()
	})
	if ln.Addr().Network() == "tcp" {
		shorten(ln, backlog)
	}
	return l
}

// On returns ln if it is guarded. Else it is guarded by a Guard of its own, with
// the usual limits.
func On(k Kind, ln net.Listener, log *slog.Logger) *Listener {
	if l, is := ln.(*Listener); is {
		return l
	}
	return New(Options{Log: log}).Listen(k, ln, nil)
}

// Gate is that of the listener's guard.
func (l *Listener) Gate() *Gate { return l.door.gate }

// Accept returns the next connection that is let in. It is a [Conn].
func (l *Listener) Accept() (net.Conn, error) { return errorless(l.next()) }

func errorless(c *Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *Listener) next() (*Conn, error) {
	wait := time.Duration(0)
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			if wait == time.Second {
				l.door.log.Warn("cannot accept admin connection", "part", l.door.kind.String(), "err", err)
			}
			if !l.rest(wait) {
				return nil, net.ErrClosed
			}
			continue
		}
		wait = 0
		if g := l.judge(c); g != nil {
			return g, nil
		}
		if !l.rest(l.pace.owe(paceRate, time.Now())) {
			return nil, net.ErrClosed
		}
	}
}

// rest waits. It is false if the listener is closed meanwhile.
func (l *Listener) rest(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// judge lets a connection in, or resets it and returns nil.
func (l *Listener) judge(c net.Conn) *Conn {
	var from netip.Addr
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		from = tcp.AddrPort().Addr().Unmap().WithZone("")
		if !Allowed(l.allow(), from) {
			l.door.rejects(NotAllowed, sourceOf(from))
			reset(c)
			return nil
		}
	}
	g := l.door.conn(c, from)
	if !from.IsValid() { // who may open a UNIX socket is no stranger
		g.LoggedIn()
	}
	victim, why := l.door.enter(g, time.Now())
	if victim != nil {
		victim.evict()
	}
	switch {
	case why == Full && l.Refuse != nil:
		l.Refuse(c)
		return nil
	case why != letIn:
		reset(c)
		return nil
	}
	g.begin()
	return g
}

// Allowed tells whether an address is in one of the networks; nil: all are.
func Allowed(in []netip.Prefix, from netip.Addr) bool {
	if in == nil {
		return true
	}
	from = from.Unmap().WithZone("")
	for _, p := range in {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// Close ends Accept.
func (l *Listener) Close() error { return l.close() }

// TLS returns a listener of the connections that have made their handshake. It
// ends, and with it the handshakes, when it is closed.
func (l *Listener) TLS(config *tls.Config) net.Listener {
	t := &secured{Listener: l, config: config, ready: make(chan net.Conn), failed: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.running.Go(t.accept)
	return t
}

// secured is a listener whose connections are TLS.
type secured struct {
	*Listener
	config  *tls.Config
	ctx     context.Context // of the handshakes
	cancel  context.CancelFunc
	ready   chan net.Conn
	failed  chan struct{} // closed when accept has ended
	err     error         // of it
	running sync.WaitGroup
}

// accept is the goroutine that begins handshakes.
func (t *secured) accept() {
	defer close(t.failed)
	for {
		c, err := t.next()
		if err != nil {
			t.err = err
			return
		}
		t.running.Go(func() { t.handshake(c) })
	}
}

func (t *secured) handshake(c *Conn) {
	c.Handshake()
	over := tls.Server(c, t.config)
	if err := over.HandshakeContext(t.ctx); err != nil {
		t.door.log.Debug("TLS handshake failed", "part", t.door.kind.String(), "from", c.RemoteAddr().String(), "err", err)
		c.Settled()
		if plain, is := errors.AsType[tls.RecordHeaderError](err); is && plain.Conn != nil && isHTTP(plain.RecordHeader) {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		}
		_ = c.Close()
		return
	}
	c.Settled()
	select {
	case t.ready <- over:
	case <-t.ctx.Done():
		_ = c.Close()
	}
}

// isHTTP tells whether a connection that should begin with TLS begins with a
// request.
func isHTTP(begins [5]byte) bool {
	switch string(begins[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

func (t *secured) Accept() (net.Conn, error) {
	select {
	case c := <-t.ready:
		return c, nil
	case <-t.failed:
		return nil, t.err
	}
}

func (t *secured) Close() error {
	err := t.Listener.Close()
	t.cancel()
	t.running.Wait()
	return err
}
