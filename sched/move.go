package sched

import "iter"

// Sessions move between processes: the host of the old process and its likeness in the new
// one count them so that the picks of both together stay what they were.

// Adopt counts a session that the host's likeness in another process has had: it is one of
// the sessions now, and no pick. Release ends it, as that of a pick.
func (h *Host) Adopt() { h.ended.Add(^uint64(0)) }

// Depart is Release for a session that goes on in another process. Its place is not free, so
// nobody who waits gets it.
func (h *Host) Depart() { h.ended.Add(1) }

// All yields the hosts of the table, those that are picked first before the others.
func (t *Table) All() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		if t == nil {
			return
		}
		for _, h := range t.hosts {
			if !yield(h) {
				return
			}
		}
	}
}

// Remembers tells whether clients come back to their hosts.
func (t *Table) Remembers() bool { return t != nil && t.sticky != nil }

// Hold keeps the client of a session that was adopted from being forgotten, with its host,
// as a pick does. ok is false if the table remembers no clients, or has no room for it.
func (t *Table) Hold(client Addr, h *Host) (hold Hold, ok bool) {
	if !t.Remembers() {
		return Hold{}, false
	}
	hold.hold = t.sticky.enter(client)
	if hold.visitor == nil {
		return Hold{}, false
	}
	hold.visitor.host.CompareAndSwap(nil, h)
	return hold, true
}

// Each yields the hosts of the set.
func (t *Tried) Each() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		for _, h := range t.few[:min(t.n, first)] {
			if !yield(h) {
				return
			}
		}
		for h := range t.more {
			if !yield(h) {
				return
			}
		}
	}
}

// Restore makes an empty set that of a session that was adopted: the hosts that it has
// tried, how many of these were down, and its hold on the client.
func (t *Tried) Restore(hosts []*Host, resorts int, h Hold) {
	for _, h := range hosts {
		if !t.Has(h) {
			t.add(h, Picked)
		}
	}
	t.resorts = int32(min(resorts, int(t.n)))
	t.hold = h.hold
}
