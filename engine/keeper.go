package engine

// Keeper keeps sessions beyond the death of the process: another process holds duplicates of
// their sockets, see package keeper. The engine calls the methods from one goroutine, on which no
// session waits. After an error, a call tries to reach the keeper again.
type Keeper interface {
	// Keep hands sessions over. kept says how many of the first the keeper has now: it may be
	// full. The descriptors stay the caller's. An empty list asks whether it is there.
	Keep(list []Kept) (kept int, err error)
	// Forget makes it close what it has of sessions, those that it does not know included.
	Forget(ids []uint64) error
	// Take calls f with what processes have left that have ended, in portions. f owns the
	// descriptors. The keeper has them too, until Done.
	Take(f func([]Kept)) error
	// Done makes the keeper close what processes have left.
	Done() error
}

// Kept is a session that a keeper has.
type Kept struct {
	ID              uint64 // for Forget
	Client, Backend int    // descriptors of TCP sockets
	State           []byte // all else that a process needs to go on with it
}
