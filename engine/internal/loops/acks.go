//go:build linux

package loops

import "golang.org/x/sys/unix"

// acks are the acknowledgements of handshakes that connectTo has put off, so that the
// first bytes carry them. Where none come in a turn, they are made up for: without them a
// server that speaks first would not see its client for 200 ms.
type acks struct {
	owing []turnRef // backends that connected in this turn
	owed  []turnRef // and in the turn before
}

// owe notes that the backend of a session waits for its acknowledgement.
func (a *acks) owe(s *session) {
	s.ends[backend].set(owesAck)
	a.owing = append(a.owing, turnRef{s, s.generation, backend})
}

// turn ends a turn: what is owed since the turn before is paid.
func (a *acks) turn(sys kernel) {
	a.owed = pay(sys, a.owed)
	a.owed, a.owing = a.owing, a.owed
}

// payAll pays before the loop sleeps.
func (a *acks) payAll(sys kernel) {
	a.owing, a.owed = pay(sys, a.owing), pay(sys, a.owed)
}

// pay acknowledges what no bytes have carried meanwhile, and returns the list empty.
func pay(sys kernel, list []turnRef) []turnRef {
	for _, ref := range list {
		if e := &ref.s.ends[ref.dir]; ref.alive() && e.is(owesAck) {
			e.clear(owesAck)
			_ = sys.setInt(e.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		}
	}
	clear(list)
	return list[:0]
}

// turnRef names a flow, or the end that it comes from; the session may have ended
// meanwhile.
type turnRef struct {
	s          *session
	generation int32
	dir        int8
}

// alive tells whether the session is still the same, and established.
func (r turnRef) alive() bool {
	return r.s.generation == r.generation && r.s.phase == established
}
