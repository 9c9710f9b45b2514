package engine

import (
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// SessionInfo is one session as it was when its loop was asked.
type SessionInfo struct {
	// ID names the session to [Engine.EndSession]. No other session of this
	// engine has it, before or after: on Linux it is the place of the session
	// and how often that place has been used, which comes round after 2^32
	// sessions in the same place.
	ID      uint64
	Service string
	Host    *sched.Host    // nil while the client has none
	Client  netip.AddrPort // as a PROXY header says, if there was one; not valid for a UNIX socket, or when the client has gone
	Local   netip.AddrPort // our own address toward the backend; not valid for a UNIX socket, or without a backend
	Started time.Time
	Idle    time.Duration // since the last byte, end or change of phase
	In, Out uint64        // bytes from and to the client
}
