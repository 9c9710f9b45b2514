//go:build linux

package loops

// leftovers are what a batch has ended. They go at its end, so that no event of a batch
// is ever stale.
type leftovers struct {
	fds      []int32
	sessions []*session
}

func (o *leftovers) addFD(fd int32)        { o.fds = append(o.fds, fd) }
func (o *leftovers) addSession(s *session) { o.sessions = append(o.sessions, s) }

// sweep closes the descriptors, frees the slots of the sessions, and returns how many
// sessions these were.
func (o *leftovers) sweep(sys kernel, table *sessionTable) (sessions int) {
	for _, fd := range o.fds {
		sys.close(fd)
	}
	for _, s := range o.sessions {
		table.put(s)
	}
	sessions = len(o.sessions)
	o.fds, o.sessions = o.fds[:0], o.sessions[:0]
	return sessions
}
