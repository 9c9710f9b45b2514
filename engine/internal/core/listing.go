package core

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/txlb/txlb/engine"
)

// The ID of a session holds the generation of its slot in its upper half, below it the
// loop, counted from 1, and the slot. Sessions that goroutines carry have no loop, and are
// numbered from 1 through the other two fields. So no ID is 0.
const (
	IDSlotBits       = 22
	IDGenerationBits = 32
)

// GoroutineID returns the ID of the session with a number that a goroutine carries.
func GoroutineID(number uint64) uint64 {
	const slots = 1<<IDSlotBits - 1
	return number>>IDSlotBits<<IDGenerationBits | number&slots
}

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
