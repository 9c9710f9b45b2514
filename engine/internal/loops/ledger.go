//go:build linux

package loops

// A ledger lists the sessions that have bytes to publish. To count every byte where all
// can see it would cost an atomic operation for each.
type ledger struct{ dirty []told }

// told is an entry: what of a session was published when it came on the list. Sessions that
// are silent need none.
type told struct {
	s       *session // nil: it has been settled
	in, out uint64
}

// note puts a session on the list, once, before it counts bytes. It returns whether it was
// not there.
func (g *ledger) note(s *session) bool {
	if s.entry != 0 {
		return false
	}
	g.dirty = append(g.dirty, told{s, s.in, s.out})
	s.entry = int32(len(g.dirty))
	return true
}

// publish makes the bytes of all sessions on the list visible.
func (g *ledger) publish() {
	for i := range g.dirty {
		if t := &g.dirty[i]; t.s != nil {
			t.publish()
		}
	}
	g.dirty = g.dirty[:0]
}

// settle makes the bytes of a session visible, and takes it off the list.
func (g *ledger) settle(s *session) {
	if s.entry != 0 {
		g.dirty[s.entry-1].publish()
	}
}

func (t *told) publish() {
	s := t.s
	in, out := s.in-t.in, s.out-t.out
	s.Host.AddBytes(in, out)
	s.Admission.Count().In.Add(in)
	s.Admission.Count().Out.Add(out)
	s.entry = 0
	*t = told{}
}
