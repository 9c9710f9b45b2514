package txlb

import (
	"net"
	"sync"
)

// FallbackListener hands the clients of [Service].Fallback to a server of the program, such as
// an http.Server:
//
//	ln := txlb.NewFallbackListener()
//	go server.Serve(ln)
//	… Service{…, Fallback: ln.Handle}
type FallbackListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// NewFallbackListener returns a listener that is open.
func NewFallbackListener() *FallbackListener {
	closed := make(chan struct{})
	return &FallbackListener{make(chan net.Conn), closed, sync.OnceFunc(func() { close(closed) })}
}

// Handle gives conn to the next Accept, and waits for that. After Close it closes conn.
func (l *FallbackListener) Handle(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// Accept waits for a client. After Close it returns [net.ErrClosed].
func (l *FallbackListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. It closes no connection that Accept has returned, and always returns nil.
func (l *FallbackListener) Close() error {
	l.close()
	return nil
}

// Addr returns an address that stands for the listener.
func (l *FallbackListener) Addr() net.Addr { return fallbackAddr{} }

type fallbackAddr struct{}

func (fallbackAddr) Network() string { return "txlb" }
func (fallbackAddr) String() string  { return "fallback" }
