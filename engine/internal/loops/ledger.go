//go:build linux

package loops

// A ledger lists the sessions that have bytes to publish. To count every byte where all
// can see it would cost an atomic operation for each.
type ledger struct{ dirty []*session }

// note puts a session on the list, once. It returns whether it was not there.
func (g *ledger) note(s *session) bool {
	if s.dirty {
		return false
	}
	s.dirty = true
	g.dirty = append(g.dirty, s)
	return true
}

// publish makes the bytes of all sessions on the list visible.
func (g *ledger) publish() {
	for i, s := range g.dirty {
		s.dirty = false
		s.publish()
		g.dirty[i] = nil
	}
	g.dirty = g.dirty[:0]
}

// publish makes the session's bytes visible in the counters.
func (s *session) publish() {
	in, out := s.in-s.inTold, s.out-s.outTold
	if s.phase == vacant || in|out == 0 {
		return
	}
	s.Host.AddBytes(in, out)
	s.Admission.Count().In.Add(in)
	s.Admission.Count().Out.Add(out)
	s.inTold, s.outTold = s.in, s.out
}
