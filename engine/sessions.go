package engine

import (
	"cmp"
	"net/netip"
	"slices"
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
	Client  netip.AddrPort // not valid for a UNIX socket, or when the client has gone
	Local   netip.AddrPort // our own address toward the backend; not valid for a UNIX socket, or without a backend
	Started time.Time
	Idle    time.Duration // since the last byte, end or change of phase
	In, Out uint64        // bytes from and to the client
}

// sorted puts the oldest session first.
func sorted(list []SessionInfo) []SessionInfo {
	slices.SortFunc(list, func(a, b SessionInfo) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// unmapped writes an address in the way in which addresses are compared here:
// without a zone, and IPv4 as IPv4.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
