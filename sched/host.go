package sched

import (
	"sync/atomic"
)

// Host is one backend address with its counters and its health. It outlives
// the tables that list it, so that a change of weight or of neighbours loses
// no statistics and touches no running session. All methods may be called
// from any goroutine.
type Host struct {
	name string
	addr Addr

	// All that Pick and Release touch stands on one cache line, which belongs
	// to this host alone.
	_       [hostPad]byte
	active  atomic.Int64  // sessions that hold a Pick
	lastUse atomic.Uint64 // number of the last Pick, for ties
	picks   atomic.Uint64
	in, out atomic.Uint64
	down    atomic.Bool
	_       [hostPad - 48]byte

	failures atomic.Uint64
}

// hostPad is the size of a cache line.
const hostPad = 64

// NewHost returns a host that is up and has never been picked.
func NewHost(name string, addr Addr) *Host { return &Host{name: name, addr: addr} }

// Name returns the name that the configuration gives the host.
func (h *Host) Name() string { return h.name }

// Addr returns the address to connect to.
func (h *Host) Addr() Addr { return h.addr }

// Up tells whether the host takes new sessions as far as its health goes.
func (h *Host) Up() bool { return !h.down.Load() }

// take counts a session that is given to the host by pick number n.
func (h *Host) take(n uint64) {
	h.active.Add(1)
	h.lastUse.Store(n)
	h.picks.Add(1)
}

// takeIf is take, but only if the host has as many sessions as was seen.
func (h *Host) takeIf(seen int64, n uint64) bool {
	if !h.active.CompareAndSwap(seen, seen+1) {
		return false
	}
	h.lastUse.Store(n)
	h.picks.Add(1)
	return true
}

// Release gives a Pick back and adds the bytes that the session moved since
// they were last published: in from the client, out to it.
// It must be called exactly once per Pick.
func (h *Host) Release(in, out uint64) {
	h.AddBytes(in, out)
	h.active.Add(-1)
}

// AddBytes publishes bytes of a session that goes on.
func (h *Host) AddBytes(in, out uint64) {
	if in != 0 {
		h.in.Add(in)
	}
	if out != 0 {
		h.out.Add(out)
	}
}

// Fail counts a failed connect and marks the host down. It reports whether
// this call is the one that took it from up to down.
func (h *Host) Fail() (first bool) {
	h.failures.Add(1)
	return h.MarkDown()
}

// MarkDown marks the host down without counting a failed connect, as a failed
// probe does. It reports whether the host was up.
func (h *Host) MarkDown() (changed bool) { return h.down.CompareAndSwap(false, true) }

// MarkUp marks the host up. It reports whether the host was down.
func (h *Host) MarkUp() (changed bool) { return h.down.CompareAndSwap(true, false) }

// HostStats is a snapshot of a host's counters. Its fields are read one after
// the other, so they may differ by what happened in between.
type HostStats struct {
	Active   int64  // sessions now, connecting ones included
	Picks    uint64 // sessions ever given to the host, retries included
	Failures uint64 // failed connects
	In, Out  uint64 // bytes from and to clients
	Up       bool
}

// Stats returns the counters as they are now.
func (h *Host) Stats() HostStats {
	return HostStats{
		Active: h.active.Load(), Picks: h.picks.Load(), Failures: h.failures.Load(),
		In: h.in.Load(), Out: h.out.Load(), Up: h.Up(),
	}
}
