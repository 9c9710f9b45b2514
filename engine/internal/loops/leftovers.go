//go:build linux

package loops

import (
	"slices"

	"golang.org/x/sys/unix"
)

// leftovers are what a turn leaves for its end: sockets to be watched, of sessions that
// wait for the first time, and what has ended. It goes last, so that no event of a batch
// is ever stale.
type leftovers struct {
	watches  []watchOp
	fds      []int32
	sessions []*session
}

func (o *leftovers) addFD(fd int32)        { o.fds = append(o.fds, fd) }
func (o *leftovers) addSession(s *session) { o.sessions = append(o.sessions, s) }

// watch has a session's socket registered, once and for good. What has come before is
// reported like what comes after.
func (o *leftovers) watch(s *session, side int8) {
	o.watches = append(o.watches, watchOp{
		s: s, fd: s.ends[side].fd,
		event: unix.EpollEvent{Events: sessionEvents, Fd: s.slot<<1 | int32(side), Pad: s.generation},
	})
}

// wanted tells whether the session still has the socket.
func (w *watchOp) wanted() bool {
	return w.s.generation == w.event.Pad && w.s.phase != vacant && w.s.ends[w.event.Fd&1].fd == w.fd
}

func (o *leftovers) empty() bool { return len(o.watches)+len(o.fds)+len(o.sessions) == 0 }

// sweep watches the sockets, closes the descriptors, frees the slots of the sessions, and
// returns how many sessions these were. A socket that cannot be watched is told to
// failed; what that leaves is for the next sweep.
func (o *leftovers) sweep(sys kernel, table *sessionTable, failed func(*session)) (sessions int) {
	o.watches = slices.DeleteFunc(o.watches, func(w watchOp) bool { return !w.wanted() })
	sys.tidy(o.watches, o.fds)
	for _, s := range o.sessions {
		table.put(s)
	}
	sessions = len(o.sessions)
	o.fds, o.sessions = o.fds[:0], o.sessions[:0]
	for i := range o.watches {
		if w := &o.watches[i]; w.errno != 0 && w.wanted() { // the other side may have failed
			failed(w.s)
		}
	}
	o.watches = o.watches[:0]
	return sessions
}
