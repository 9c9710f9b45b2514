//go:build !linux || portable

package engine

import "github.com/txlb/txlb/sched"

// EndSessions ends the sessions that which picks out, as an operator's kill,
// and returns how many those were. host is nil for a client that has none.
// which must be quick and call nothing of the engine. Where bytes are on the
// way to a side, that side gets a reset. The sessions have been told to end
// when EndSessions returns, and end soon.
func (e *Engine) EndSessions(which func(service string, host *sched.Host) bool) int {
	ended := 0
	e.live.Range(func(key, _ any) bool {
		s := key.(*session)
		if which(s.svc.name, s.host.Load()) && s.end(killed) {
			ended++
		}
		return true
	})
	return ended
}
