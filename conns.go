package txlb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/txlb/txlb/internal/edits"
)

// Serve balances the connections that ln accepts, as if a listener of the service had
// accepted them. ln may be of any kind: TLS, pipes, channels of SSH. Plain TCP and UNIX
// connections are moved to an event loop; others have goroutines. Serve blocks until ln fails,
// and returns that error; after Close or Shutdown it returns [ErrClosed], and after the service
// was removed [ErrUnknownService]. It owns ln, and closes it.
//
// While there are as many sessions as Engine.MaxSessions allows, it accepts nothing.
func (s *LiveService) Serve(ln net.Listener) error {
	if ln == nil {
		return errors.New("txlb: Serve with a nil listener")
	}
	b := s.balancer
	defer ln.Close()
	noted := &served{ln}
	if !b.track(noted) {
		return ErrClosed
	}
	defer b.untrack(noted)
	if _, err := edits.Service(b.director.State().Config, s.name); err != nil {
		return explain("Serve", err)
	}
	where := fmt.Sprintf("Serve: service %q", s.name)
	for delay := time.Duration(0); ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
		case b.ctx.Err() != nil:
			return ErrClosed
		case temporary(err): // no descriptors, mostly
			delay = min(max(5*time.Millisecond, 2*delay), time.Second)
			b.log.Warn("accept failed, retrying", "service", s.name, "err", err, "in", delay.String())
			if !b.sleep(delay) {
				return ErrClosed
			}
			continue
		default:
			return explain(where, err)
		}
		if conn == nil {
			return fmt.Errorf("txlb: %s: the listener has returned a nil connection", where)
		}
		if err := b.engine.Take(b.ctx, s.name, conn); err != nil {
			return explain(where, b.ended(err))
		}
	}
}

// temporary tells whether an accept may succeed if it is tried again.
func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// sleep waits, and returns false if the balancer ends meanwhile.
func (b *Balancer) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// served is a listener of Serve.
type served struct{ net.Listener }

// track notes a listener, to close it. It returns false when the balancer has ended.
func (b *Balancer) track(ln *served) bool {
	b.serving.Lock()
	defer b.serving.Unlock()
	if b.served == nil {
		return false
	}
	b.served[ln] = struct{}{}
	return true
}

func (b *Balancer) untrack(ln *served) {
	b.serving.Lock()
	defer b.serving.Unlock()
	delete(b.served, ln)
}

// ServeConn balances one connection, as Serve does. It returns when the balancer has taken it,
// not when it has ended; while there are as many sessions as Engine.MaxSessions allows, that
// waits until ctx ends. It owns conn, also if it returns an error: then conn is closed.
func (s *LiveService) ServeConn(ctx context.Context, conn net.Conn) error {
	switch {
	case conn == nil:
		return errors.New("txlb: ServeConn with a nil connection")
	case ctx == nil:
		_ = conn.Close()
		return errors.New("txlb: ServeConn with a nil context; use context.Background()")
	}
	return explain(fmt.Sprintf("ServeConn: service %q", s.name), s.balancer.engine.Take(ctx, s.name, conn))
}

// DialContext connects to a host of the service. It chooses one as for a client, with the
// same limits, tries and counters, and returns the connection itself: nothing stands in
// between. network and addr mean nothing. So it is for http.Transport.DialContext, and for the
// DialFunc of pgx.
//
// The connection has CloseWrite, but is not a *net.TCPConn. It is a session until it is closed,
// and counts as one. Idle, half-closed and age limits of the service do not hold for it. Close of
// the balancer and the end of a drain do. ctx bounds the connect only.
//
// An error that is [ErrNoHost] says why, and has the error of the last host that was tried.
//
// See [WithClient] to say for whom it is.
func (s *LiveService) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if ctx == nil {
		return nil, errors.New("txlb: DialContext with a nil context; use context.Background()")
	}
	client, _ := ctx.Value(clientKey{}).(netip.Addr)
	conn, err := s.balancer.engine.Dial(ctx, s.name, client)
	if err != nil {
		return nil, explain(fmt.Sprintf("dial service %q", s.name), err)
	}
	return conn, nil
}

// ContextDialer is DialContext for gRPC: grpc.WithContextDialer(web.ContextDialer).
func (s *LiveService) ContextDialer(ctx context.Context, addr string) (net.Conn, error) {
	return s.DialContext(ctx, "tcp", addr)
}

// clientKey is where a context holds the client of a connection.
type clientKey struct{}

// WithClient returns a context with which [LiveService.DialContext] connects for a client: a
// [Sticky] scheduler and [Maglev] give it its host, limits and access rules hold for it, and
// hosts with ProxyProtocol are told of it. Mind that an http.Transport uses a connection again
// for other requests.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	return context.WithValue(ctx, clientKey{}, client.Unmap())
}
