package engine

import "os"

// Moved is a session on its way from one process to another.
type Moved struct {
	// Files are the sockets of client and backend. The second is nil for a client that has no
	// backend yet.
	Files [2]*os.File
	// State is all else, in bytes that the two engines agree on: they begin with the number
	// of the format. Bytes that were read and not yet sent on are in it.
	State []byte
}

// MoveFormat is the format of [Moved].State, and EarliestMoveFormat the earliest that an
// engine adopts. Since format 2 it ends with parts that have a number each, so that what is
// new needs no other format: parts that an engine does not know are left out.
const (
	MoveFormat         = 2
	EarliestMoveFormat = 1
)

// Move is what [Engine.MoveSessions] has moved. The engine still holds duplicates of the
// sockets, so that it can take the sessions back. One of Commit and TakeBack has to be
// called, once; any goroutine may do so.
type Move struct {
	Moved int // sessions that the other process has now
	Stay  int // sessions that this engine still has: they cannot move, or have not for an error

	commit   func()
	takeBack func() (back, lost int)
}

// NewMove returns a move. It is for engines.
func NewMove(moved, stay int, commit func(), takeBack func() (back, lost int)) *Move {
	return &Move{Moved: moved, Stay: stay, commit: commit, takeBack: takeBack}
}

// Commit gives the sessions away for good: it closes the duplicates.
func (m *Move) Commit() {
	if m.commit != nil {
		m.commit()
	}
}

// TakeBack makes the sessions go on in this engine. The other process must have ended, or
// it and the engine would read the same streams. For each session the kernel tells which
// bytes have been read and sent meanwhile. Where none were lost with the other process, the
// session goes on, which back counts; one that the other process has brought to its end is
// not counted. Where bytes were lost, both sides get a reset, which lost counts: a peer never
// takes a stream that was cut off for a whole one. Of a UNIX socket the kernel tells too
// little, so such a session is lost.
func (m *Move) TakeBack() (back, lost int) {
	if m.takeBack == nil {
		return 0, 0
	}
	return m.takeBack()
}
