//go:build linux

package loops

import (
	"net/netip"

	"github.com/txlb/txlb/engine/internal/core"
)

// session is one client with its backend. It lives in a slot of its loop and
// is touched by that loop alone.
type session struct {
	ends  [2]end  // client, backend
	flows [2]flow // client to backend, backend to client

	core.Admission

	copies *replica // of what the client sends, for mirrors; nil: there are none

	timer  timer
	active int64 // ns on the loop's clock: the last byte, end or change of phase

	in, out uint64 // bytes from and to the client
	turning core.Turning

	slot, generation int32
	entry            int32  // in the loop's ledger, from 1 on; 0: there is none
	took             int32  // bytes of the client that are not its stream's
	localPort        uint16 // toward the backend, once it was needed; 0: not known
	phase            phase
	kept             keptAs
	ready            bool    // on the loop's list of that name
	apart            bool    // bytes of ours are in a stream, which no account tells of
	headerSent       uint8   // bytes of the PROXY header that the host gets
	port             uint16  // of the client, as it was accepted; 0: not known
	ipv4             [4]byte // likewise; 0.0.0.0: see sessionTable.ipv6
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

// slotsPerSlab sessions are allocated together.
const slotsPerSlab = 128

// sessionTable gives out sessions by slot number; events carry the number.
type sessionTable struct {
	slabs []*[slotsPerSlab]session
	// ipv6 has the IPv6 addresses of clients, of slabs where there has been one.
	ipv6  []*[slotsPerSlab][16]byte
	free  []int32
	tries core.Attempts
}

// at returns the session of a slot if it is still the one of that generation.
func (t *sessionTable) at(slot, generation int32) *session {
	s := &t.slabs[slot/slotsPerSlab][slot%slotsPerSlab]
	if s.generation != generation || s.phase == vacant {
		return nil
	}
	return s
}

// get returns a blank session, and an attempt for it.
func (t *sessionTable) get() (*session, *core.Attempt) {
	if len(t.free) == 0 {
		base := int32(len(t.slabs) * slotsPerSlab)
		slab := new([slotsPerSlab]session)
		t.slabs, t.ipv6 = append(t.slabs, slab), append(t.ipv6, nil)
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
	return s, t.tries.Get()
}

// settle gives the attempt back: the session stays with its host.
func (t *sessionTable) settle(s *session) {
	if !s.Settled() { // else this is for every message
		t.takeBack(s)
	}
}

func (t *sessionTable) takeBack(s *session) { s.Admission.Settle(&t.tries) }

// cameFrom notes the address of a session's client: the kernel forgets it with the connection.
func (t *sessionTable) cameFrom(s *session, client netip.AddrPort) {
	s.port, s.ipv4 = client.Port(), [4]byte{}
	switch ip := client.Addr().Unmap(); {
	case ip.Is4():
		s.ipv4 = ip.As4()
	case ip.Is6():
		slab := &t.ipv6[s.slot/slotsPerSlab]
		if *slab == nil {
			*slab = new([slotsPerSlab][16]byte)
		}
		(*slab)[s.slot%slotsPerSlab] = ip.As16()
	}
}

// client returns the address that a session's client has, without a zone; not valid if it has
// none.
func (t *sessionTable) client(s *session) netip.AddrPort {
	switch slab := t.ipv6[s.slot/slotsPerSlab]; {
	case s.port == 0:
		return netip.AddrPort{}
	case s.ipv4 == [4]byte{} && slab != nil:
		return netip.AddrPortFrom(netip.AddrFrom16((*slab)[s.slot%slotsPerSlab]), s.port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(s.ipv4), s.port)
}

// put frees the slot. Events that still name the session find a newer
// generation and are dropped.
func (t *sessionTable) put(s *session) {
	t.settle(s)
	t.tries.PutNotes(&s.Admission)
	s.generation++
	s.flows = [2]flow{}
	s.Admission = core.Admission{}
	s.in, s.out, s.turning, s.localPort = 0, 0, core.Turning{}, 0
	s.kept, s.apart, s.headerSent, s.took = unkept, false, 0, 0
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
