//go:build linux && !portable

package engine

import (
	"github.com/txlb/txlb/sched"
)

// session is one client with its backend. It lives in a slot of its loop and
// is touched by that loop alone.
type session struct {
	ends  [2]end  // client, backend
	flows [2]flow // client to backend, backend to client

	svc     *service
	count   *counters   // this loop's counters of svc
	host    *sched.Host // counted on it from the pick until release
	attempt *attempt    // until the first byte has moved

	timer   timer
	active  int64 // ns on the loop's clock: the last byte, end or change of phase
	started int64 // ns: accepted

	in, out         uint64 // bytes from and to the client
	inTold, outTold uint64 // of these, published

	slot, generation int32
	era              uint32 // of the host, when the connect began
	phase            phase
	why              refusal // while refusing
	ready, dirty     bool    // on the loop's list of that name
}

const (
	client  = 0
	backend = 1
)

// phase is where a session is in its life.
type phase uint8

const (
	vacant      phase = iota // the slot is free, or will be at the end of the batch
	connecting               // a backend is being connected
	established              // both flows move
	refusing                 // there is no host for the client, and it has been told
	lingering                // all is done but for the reset that has to follow the last bytes
)

// attempt is what a session knows while it can still go to another host.
type attempt struct {
	from  sched.Addr
	tried sched.Tried
	heard bool     // a host has failed that was asked: not all faults are our own
	next  *attempt // free list

	queueFull bool // the host is a UNIX socket whose queue is full
}

// noHost tells why there is no host left: if each connect failed on our side,
// that says nothing about the hosts.
func (a *attempt) noHost() refusal {
	if a.tried.Len() > 0 && !a.heard {
		return outOfResource
	}
	return noHost
}

// slotsPerSlab sessions are allocated together.
const slotsPerSlab = 128

// sessionTable gives out sessions by slot number; events carry the number.
type sessionTable struct {
	slabs []*[slotsPerSlab]session
	free  []int32
	tries *attempt // free list
}

// at returns the session of a slot if it is still the one of that generation.
func (t *sessionTable) at(slot, generation int32) *session {
	s := &t.slabs[slot/slotsPerSlab][slot%slotsPerSlab]
	if s.generation != generation || s.phase == vacant {
		return nil
	}
	return s
}

// get returns a blank session.
func (t *sessionTable) get() *session {
	if len(t.free) == 0 {
		base := int32(len(t.slabs) * slotsPerSlab)
		slab := new([slotsPerSlab]session)
		t.slabs = append(t.slabs, slab)
		for i := int32(slotsPerSlab - 1); i >= 0; i-- {
			slab[i].slot = base + i
			slab[i].timer.owner = &slab[i]
			t.free = append(t.free, base+i)
		}
	}
	n := len(t.free) - 1
	slot := t.free[n]
	t.free = t.free[:n]
	s := &t.slabs[slot/slotsPerSlab][slot%slotsPerSlab]
	s.ends[client], s.ends[backend] = end{fd: -1}, end{fd: -1}
	s.attempt = t.tries
	if s.attempt == nil {
		s.attempt = new(attempt)
	} else {
		t.tries = s.attempt.next
		s.attempt.next = nil
	}
	return s
}

// settled gives the attempt back: the session stays with its host.
func (t *sessionTable) settled(s *session) {
	a := s.attempt
	if a == nil {
		return
	}
	s.attempt = nil
	a.from = sched.Addr{}
	a.tried.Reset()
	a.heard, a.queueFull = false, false
	a.next = t.tries
	t.tries = a
}

// put frees the slot. Events that still name the session find a newer
// generation and are dropped.
func (t *sessionTable) put(s *session) {
	t.settled(s)
	s.generation++
	s.flows = [2]flow{}
	s.svc, s.count, s.host = nil, nil, nil
	s.in, s.out, s.inTold, s.outTold = 0, 0, 0, 0
	t.free = append(t.free, s.slot)
}

// each calls f for every session that is alive.
func (t *sessionTable) each(f func(*session)) {
	for _, slab := range t.slabs {
		for i := range slab {
			if slab[i].phase != vacant {
				f(&slab[i])
			}
		}
	}
}
