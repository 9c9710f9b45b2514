package conns

import (
	"errors"
	"net"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
)

// giveAway gives the client to the program, which owns it from then on: the session is over.
func (s *session) giveAway() {
	var to func(net.Conn)
	s.with(func(a *core.Admission, _ int64) core.Step {
		to = a.Fallback()
		return core.Step{}
	})
	s.grownUp()             // there is no later for us
	if !s.end(core.Given) { // an operator was faster
		return
	}
	conn := s.ends[client]
	if f, ok := conn.(*foreign); ok && f.late == nil { // nothing was read ahead of what is in opening
		conn = f.conn
	}
	if o := s.origin.Load(); o != nil || len(s.opening) > 0 || s.tls[client] != nil {
		if t := s.tls[client]; t != nil { // what the program writes is not the session's
			t.wire.to = t.wire.Conn
		}
		g := &given{whole: s.whole(client), opening: s.opening}
		if o != nil {
			g.from = net.TCPAddrFromAddrPort(o.Client)
		}
		conn = g
	}
	s.given = true
	s.finish()
	go s.of.give(s.svc.Name, to, conn)
}

// give calls the fallback of a service.
func (c *Sessions) give(service string, to func(net.Conn), conn net.Conn) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(service, "fallback", v)
			_ = conn.Close()
		}
	}()
	to(conn)
}

// given is a client's connection of which the first bytes were read, whose TLS has ended, or
// whose PROXY header tells who the client is.
type given struct {
	whole
	from    net.Addr // nil: as the connection says
	opening []byte   // the beginning of the stream
}

func (g *given) Read(b []byte) (int, error) {
	if len(g.opening) > 0 {
		n := copy(b, g.opening)
		g.opening = g.opening[n:]
		return n, nil
	}
	return g.stream.Read(b)
}

// RemoteAddr returns who the client is.
func (g *given) RemoteAddr() net.Addr {
	if g.from != nil {
		return g.from
	}
	return g.socket.RemoteAddr()
}

// whole is an end of a session in the hands of the program: the stream, which TLS may carry,
// with the deadlines and the end of its socket.
type whole struct {
	stream, socket net.Conn
}

// whole returns an end of a session as a connection.
func (s *session) whole(i int) whole { return whole{s.stream(i), s.ends[i]} }

func (w whole) Read(b []byte) (int, error)         { return w.stream.Read(b) }
func (w whole) Write(b []byte) (int, error)        { return w.stream.Write(b) }
func (w whole) LocalAddr() net.Addr                { return w.socket.LocalAddr() }
func (w whole) RemoteAddr() net.Addr               { return w.socket.RemoteAddr() }
func (w whole) SetDeadline(t time.Time) error      { return w.socket.SetDeadline(t) }
func (w whole) SetReadDeadline(t time.Time) error  { return w.socket.SetReadDeadline(t) }
func (w whole) SetWriteDeadline(t time.Time) error { return w.socket.SetWriteDeadline(t) }

// CloseWrite ends the program's direction: TLS, and then the connection.
func (w whole) CloseWrite() error {
	if t, ok := w.stream.(*secured); ok {
		_ = t.CloseWrite()
	}
	if c, ok := w.socket.(closeWriter); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends the TLS, if that takes no long time, and closes the connection.
func (w whole) Close() error {
	if t, ok := w.stream.(*secured); ok {
		_ = w.socket.SetWriteDeadline(time.Now().Add(farewellFor))
		_ = t.CloseWrite()
	}
	return w.socket.Close()
}
