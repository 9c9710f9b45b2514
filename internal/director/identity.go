package director

import (
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// A host of the configuration keeps its counters and its sessions for as long as it
// is configured. Its targets, one for each address, come and go below it: a name
// loses an address, or an operator gives the host another one. A target that goes
// becomes a departed one. Its sessions continue, its counters are still read, and
// its health is kept in case the address returns. When nothing needs it any more,
// its counters are final and are added to the host's past.

const (
	// rememberFor is how long the health of an address is kept after its name has lost
	// it. After that the address counts as new.
	rememberFor = 10 * time.Minute
	// maxDeparted bounds how many departed targets a host keeps only for their health.
	// The oldest are evicted first: a name may resolve to another address each time.
	maxDeparted = 256
	// departing is how long a departed target is kept at least: a loop may be picking
	// it from the route that has just been replaced.
	departing = scanEvery
)

// departed is a target whose address its host no longer has.
type departed struct {
	target *Target
	since  time.Time
	// returns says that the target serves again if the name gets the address back. It
	// is false if an operator has changed the host's address: then a new target with
	// fresh health is used.
	returns bool
	// awaited is until when sessions may come from another process; zero: none do.
	awaited time.Time
}

// over tells whether nothing needs the target any more, so that its counters are
// final. crowded says that the host keeps too many.
func (p departed) over(now time.Time, crowded bool) bool {
	keep := rememberFor
	if crowded || !p.returns {
		keep = departing
	}
	return !p.target.probing && !now.Before(p.awaited) && now.Sub(p.since) >= keep && p.target.Host.Stats().Active == 0
}

// past is the sum of the counters of the targets that a host no longer has.
type past struct {
	stats  sched.HostStats
	checks [health.Codes]uint64
}

// elder is the past of a host in an earlier process, which may go on there.
type elder = atomic.Pointer[past]

// add takes in a target whose counters no longer move.
func (p *past) add(t *Target) {
	p.stats.Add(t.Host.Stats())
	for code := range t.checks {
		p.checks[code] += t.checks[code].Load()
	}
}

// inherit copies the past and the departed targets of a host's previous version. h
// has its new targets already.
func (h *Host) inherit(before *Host, now time.Time) {
	if before == nil {
		return
	}
	h.past, h.elder = before.past, before.elder
	same := h.Config.Address == before.Config.Address
	left := slices.Clone(before.departed)
	for _, t := range before.Targets {
		left = append(left, departed{target: t, since: now, returns: true})
	}
	left = slices.DeleteFunc(left, func(p departed) bool { return slices.Contains(h.Targets, p.target) })
	crowd := len(left) - maxDeparted
	for _, p := range left { // the oldest first
		p.returns = p.returns && same
		if p.over(now, crowd > 0) {
			h.past.add(p.target)
			crowd--
			continue
		}
		h.departed = append(h.departed, p)
	}
}

// returning returns the target that served an address before its host's name
// lost it, nil if there is none to return.
func (h *Host) returning(addr sched.Addr) *Target {
	for _, p := range h.departed {
		if p.returns && p.target.key.addr == addr {
			return p.target
		}
	}
	return nil
}

// forgets tells whether a departed target has become part of the past.
func (h *Host) forgets(now time.Time) bool {
	crowded := len(h.departed) > maxDeparted
	return slices.ContainsFunc(h.departed, func(p departed) bool { return p.over(now, crowded) })
}

// All yields every target that may have sessions of the host: those of its
// addresses, and those of addresses that it no longer has. The latter get no new
// sessions and no probes.
func (h *Host) All() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		for _, t := range h.Targets {
			if !yield(t) {
				return
			}
		}
		for _, p := range h.departed {
			if !yield(p.target) {
				return
			}
		}
	}
}

// Leaving returns the targets of addresses that the host no longer has, and that
// have sessions now.
func (h *Host) Leaving() (list []*Target) {
	for _, p := range h.departed {
		if p.target.Host.Stats().Active > 0 {
			list = append(list, p.target)
		}
	}
	return list
}

// Stats returns the counters of the host: of all addresses that it has and has
// had. No counter falls while the host is configured. Up is Host.Up.
func (h *Host) Stats() sched.HostStats {
	sum := h.past.stats
	if h.elder != nil {
		sum.Add(h.elder.Load().stats)
	}
	for t := range h.All() {
		sum.Add(t.Host.Stats())
	}
	sum.Up = h.Up()
	return sum
}

// Checks yields how many probes of the host have ended with each code, in
// HAProxy's words, of those codes that there were. It counts what Stats counts.
func (h *Host) Checks() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		sum := h.past.checks
		if h.elder != nil {
			for code, n := range h.elder.Load().checks {
				sum[code] += n
			}
		}
		for t := range h.All() {
			for code := range t.checks {
				sum[code] += t.checks[code].Load()
			}
		}
		for code, n := range sum {
			if n > 0 && !yield(health.Code(code).String(), n) {
				return
			}
		}
	}
}
