package core

import (
	"net/netip"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
)

// Copies of what clients send, for mirrors. An engine asks Mirrors when a session has its
// host, and then carries the copies in its own way; what both ways have in common is here.

const (
	// CopyPieces is how many pipes, and CopyHeld how many bytes of memory, a mirror may be
	// behind with the copy of one session. A pipe of 1 MiB is what a fast stream moves at
	// once; four bridge a mirror that stands still for some ms.
	CopyPieces = 4
	CopyHeld   = 256 << 10
	// CopiesHeld bounds the memory that the copies of one loop hold, or of all goroutines.
	CopiesHeld = 32 << 20
	// CopyFor is how long a mirror may take to accept the rest of a stream, and to end its own
	// side, once the session is over.
	CopyFor = 5 * time.Second
	// mirrorConnect is the limit of a connect to a mirror where the route has none.
	mirrorConnect = 5 * time.Second
)

// noteMirrors notes who may get a copy of what the client sends.
func (a *Admission) noteMirrors(table *sched.Table) {
	if t := a.attempt; !t.mirrored && !t.dialed {
		t.mirrors = table.Mirrors()
	}
}

// Mirrors returns who may get a copy of what the client sends, once for each session: one
// that goes on to another host keeps its copies. Where the engine speaks for the host ahead
// of the client's TLS there is none: the mirror would not understand the rest.
func (a *Admission) Mirrors() []sched.MirrorShare {
	t := a.attempt
	if t == nil || t.mirrors == nil {
		return nil
	}
	list := t.mirrors
	t.mirrors, t.mirrored = nil, true
	if a.Pledged() {
		return nil
	}
	return list
}

// MirrorHeader is [Admission.Header] for a mirror that gets one of a version; 0: none.
func (a *Admission) MirrorHeader(b []byte, version int, local func() netip.AddrPort) []byte {
	if version == 0 || a.attempt == nil {
		return b
	}
	return a.header(b, proxyproto.Version(version), a.attempt.from.IP(), local)
}

// MirrorConnect returns how long a connect to a mirror may take.
func MirrorConnect(r *engine.Route) time.Duration {
	if d := r.Timeouts.Connect; d > 0 {
		return d
	}
	return mirrorConnect
}

// MayCopy tells whether so many sessions and copies leave room for one more copy: a quarter
// of the limit is for sessions alone. limit 0: there is none.
func MayCopy(sessions, copies, limit int64) bool {
	return limit == 0 || sessions+copies < limit-limit/4
}
