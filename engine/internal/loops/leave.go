//go:build linux

package loops

import (
	"context"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// Pause implements [engine.Engine].
func (e *Engine) Pause() { e.onAcceptors((*acceptor).halt) }

// Resume implements [engine.Engine].
func (e *Engine) Resume() { e.onAcceptors((*acceptor).proceed) }

// onAcceptors calls f for the acceptor of each loop, unless the engine is closed.
func (e *Engine) onAcceptors(f func(*acceptor)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.onLoops(func(l *loop) { f(&l.acceptor) })
	}
}

// Leave implements [engine.Engine].
func (e *Engine) Leave(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.ErrClosed
	}
	was := e.beginDrain()
	e.onLoops(func(l *loop) {
		for _, ln := range was.Listeners {
			for i := l.index; i < len(ln.shards); i += len(e.loops) {
				l.acceptor.letGo(ln.shards[i])
			}
		}
	})
	e.serving.Store(&core.Serving[*listener]{Services: was.Services})
	return e.drain(ctx)
}
