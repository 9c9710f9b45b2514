package core

// Meter is what the kernel tells of a TCP socket: it counts for all processes that have it.
type Meter struct {
	Known   bool   // the rest is; false for a UNIX socket
	Read    uint64 // bytes that were read, without an end
	Written uint64 // bytes that were written; an end counts as one
	Ended   bool   // an end was written: it is in Written
	Closed  bool   // the connection is over, by a reset or by both ends
}

// Fate is what becomes of a session that another process has had.
type Fate uint8

const (
	GoesOn Fate = iota // it can go on
	IsOver             // the other process has brought it to its end
	IsLost             // bytes were in the hands of the other process, or may have been
)

// Reclaim changes a passport by what another process has done with the sockets, of client
// and backend, since the meters were was; now they are now. header is how long the PROXY
// header is that the host of the session gets.
func (p *Passport) Reclaim(was, now [2]Meter, header int) Fate {
	if p.Stage != Connected {
		c := now[0]
		if !was[0].Known || !c.Known || c != was[0] {
			return IsLost
		}
		return GoesOn
	}
	for i := range now {
		if !was[i].Known || !now[i].Known {
			return IsLost
		}
	}
	gone := func(m Meter) bool { return m.Ended || m.Closed }
	switch {
	case gone(now[0]) && gone(now[1]):
		return IsOver
	case now[0].Closed || now[1].Closed, p.Ends[0].Flags&(PassReset|PassBroken) != 0, p.Ends[1].Flags&(PassReset|PassBroken) != 0:
		return IsLost
	}
	next := *p
	for i := range next.Flows {
		f, src, dst := &next.Flows[i], 0+i, 1-i
		read := now[src].Read - was[src].Read
		written := now[dst].Written - was[dst].Written
		ended := now[dst].Ended && !was[dst].Ended
		if ended {
			written--
		}
		if read > 1<<62 || written > 1<<62 { // fewer than before
			return IsLost
		}
		if f.Flags&PassHeader != 0 && read+written > 0 {
			if written < uint64(header) {
				return IsLost
			}
			written -= uint64(header)
			f.Flags &^= PassHeader
		}
		held := uint64(len(f.Held))
		stream := written - min(written, uint64(f.Ahead)) // without the rest of a header
		switch {
		case written == held+read:
			f.Held, f.Ahead = nil, 0
		case read == 0 && written < held && !ended:
			f.Held, f.Ahead = f.Held[written:], f.Ahead-uint8(min(written, uint64(f.Ahead)))
		default:
			return IsLost
		}
		if ended {
			f.Flags |= PassDone
			next.Ends[src].Flags |= PassEnded
		}
		if i == 0 {
			next.In += stream
		} else {
			next.Out += stream
		}
		if read+written > 0 && next.Turns != nil { // nobody knows when
			turns := *next.Turns
			turns.Asked = -1
			next.Turns = &turns
		}
		if written > 0 && next.Flows[0].Flags&PassHeader == 0 {
			next.Ends[dst].Flags |= PassSentOnce
			next.Try = nil // it stays with its host
		}
	}
	*p = next
	return GoesOn
}
