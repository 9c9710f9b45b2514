//go:build linux

package loops

// An agenda lists the sessions that go on in a turn: what is established, or has to try
// another host. A session is on it once.
type agenda struct {
	ready []*session
	taken []*session // the list before, while it is worked through
}

// add puts a session on the list of the next turn, or of this one if its events are
// still taken in.
func (a *agenda) add(s *session) {
	if !s.ready {
		s.ready = true
		a.ready = append(a.ready, s)
	}
}

func (a *agenda) empty() bool { return len(a.ready) == 0 }

// take returns the list and begins the next. The caller calls begun for each session;
// from then on it may be added again.
func (a *agenda) take() []*session {
	a.taken, a.ready = a.ready, a.taken[:0]
	return a.taken
}

// begun takes a session off the list.
func (s *session) begun() { s.ready = false }
