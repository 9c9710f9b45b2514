package core

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/txlb/txlb/engine"
)

// Sorted puts the oldest session first.
func Sorted(list []engine.SessionInfo) []engine.SessionInfo {
	slices.SortFunc(list, func(a, b engine.SessionInfo) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Unmapped returns an address in the form in which addresses are compared: without
// a zone, and IPv4 as IPv4.
func Unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
