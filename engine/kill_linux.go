//go:build !portable

package engine

import (
	"sync/atomic"

	"github.com/txlb/txlb/sched"
)

// EndSessions ends the sessions that which picks out, as an operator's kill,
// and returns how many those were. host is nil for a client that has none. The
// loops call which at the same moment, and wait for it: it must be quick and
// call nothing of the engine. Where bytes are on the way to a side, that side
// gets a reset. EndSessions waits for Apply, Drain and Close; a closed engine
// has no sessions.
func (e *Engine) EndSessions(which func(service string, host *sched.Host) bool) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0
	}
	var ended atomic.Int64
	e.onLoops(func(l *loop) {
		l.table.each(func(s *session) {
			if which(s.svc.name, s.host) {
				l.end(s, killed)
				ended.Add(1)
			}
		})
	})
	return int(ended.Load())
}
