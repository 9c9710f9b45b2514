package portable

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/txlb/txlb/engine"
)

// errNoMove is what Adopt answers.
var errNoMove = errors.New("engine: sessions cannot move on this system")

// MoveSessions implements [engine.Engine]: all sessions stay.
func (e *Engine) MoveSessions(ctx context.Context, _ func([]engine.Moved) error) (*engine.Move, error) {
	return engine.NewMove(0, int(e.conns.Count()), nil, nil), ctx.Err()
}

// Adopt implements [engine.Engine].
func (e *Engine) Adopt(batch []engine.Moved) []error {
	problems := make([]error, len(batch))
	for i, m := range batch {
		problems[i] = errNoMove
		for _, f := range m.Files {
			if f != nil {
				resetLater(f)
			}
		}
	}
	return problems
}

// resetLater closes a socket so that its peer gets a reset when the other process closes
// its duplicate.
func resetLater(f *os.File) {
	if conn, err := net.FileConn(f); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	_ = f.Close()
}

// Pause implements [engine.Engine].
func (e *Engine) Pause() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.isDrained() || e.held.Load() != nil {
		return
	}
	hold := make(chan struct{})
	e.held.Store(&hold)
	for _, ln := range e.serving.Load().Listeners {
		ln.interrupt()
	}
}

// Resume implements [engine.Engine].
func (e *Engine) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if hold := e.held.Load(); hold != nil {
		for _, ln := range e.serving.Load().Listeners {
			ln.goOn()
		}
		e.held.Store(nil)
		close(*hold)
	}
}

// Leave implements [engine.Engine].
func (e *Engine) Leave(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	for _, ln := range e.serving.Load().Listeners {
		ln.leave()
	}
	return e.drain(ctx)
}
