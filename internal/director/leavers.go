package director

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// Leaver is something that takes no new sessions and may still have some: an address of a
// host that was removed, or a host or a listener whose sessions end at a deadline.
type Leaver struct {
	Service, Group, Host string
	Address              string    // of the host or, without a host, of the listener
	Removed              bool      // the configuration no longer has it
	Until                time.Time // when its sessions are closed; zero: they may finish

	target  *Target // nil: a listener
	since   time.Time
	closing bool // Until is over
	// awaited is until when sessions may come from another process; zero: none do.
	awaited time.Time
}

// Sessions returns how many sessions are left; -1: that is not counted, as for listeners.
func (l *Leaver) Sessions() int64 {
	if l.target == nil {
		return -1
	}
	return l.target.Host.Stats().Active
}

// Drain is what takes no new sessions any more and has time to finish those it has.
type Drain struct {
	Hosts     []*sched.Host
	Listeners []engine.Listener // as they were before they closed
	Within    time.Duration
}

// Leavers returns what is leaving and has sessions, in the order in which it began to.
func (d *Director) Leavers() []Leaver {
	if p := d.leaving.Load(); p != nil {
		return slices.DeleteFunc(slices.Clone(*p), func(l Leaver) bool { return l.Sessions() == 0 })
	}
	return nil
}

// Drain closes the sessions that what leaves still has after a time. What takes new
// sessions again before is spared, and so is what does so already.
func (d *Director) Drain(ctx context.Context, drain Drain) error {
	return d.order(ctx, func() { d.startDrain(drain) })
}

func (d *Director) startDrain(drain Drain) {
	now := time.Now()
	until := now.Add(drain.Within)
	wanted := map[*sched.Host]bool{}
	for _, h := range drain.Hosts {
		wanted[h] = true
	}
	taking := d.taking()
	for t, l := range d.leavers.hosts { // removed, or drained before
		if wanted[t.Host] && !taking[t.key] {
			l.Until, l.closing = until, false
		}
	}
	for _, s := range d.State().Services { // those that are still configured
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				for t := range h.All() {
					if wanted[t.Host] && !taking[t.key] {
						l := d.leaves(t, now)
						l.Until, l.closing = until, false
					}
				}
			}
		}
	}
	for _, ln := range drain.Listeners {
		l := &Leaver{Service: ln.Service, Address: ln.Addr, Removed: true, Until: until, since: now}
		if !d.listens(l) {
			d.leavers.listeners = append(d.leavers.listeners, l)
		}
	}
	d.showLeavers()
}

// leavers are what is leaving. They belong to the director's goroutine.
type leavers struct {
	hosts     map[*Target]*Leaver
	listeners []*Leaver
	back      map[targetKey]*Target // of hosts that were removed; only while a change is adopted
}

// leaves notes that a target is leaving.
func (d *Director) leaves(t *Target, now time.Time) *Leaver {
	l := d.leavers.hosts[t]
	if l == nil {
		l = &Leaver{
			Service: t.key.service, Group: t.key.group, Host: t.key.host, Address: t.key.addr.String(), target: t, since: now,
		}
		d.leavers.hosts[t] = l
	}
	return l
}

// taking are the targets that take new sessions.
func (d *Director) taking() map[targetKey]bool {
	all := map[targetKey]bool{}
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if g.Takes && h.Config.State == "ready" {
					for _, t := range h.Targets {
						all[t.key] = true
					}
				}
			}
		}
	}
	return all
}

// noteRemoved notes the targets of hosts that the configuration no longer has.
func (d *Director) noteRemoved(was *State, mark uint64) {
	if was == nil {
		return
	}
	now := time.Now()
	for _, s := range was.Services {
		if s.mark == mark {
			continue
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if h.mark == mark || h.heir == mark {
					continue
				}
				for t := range h.All() {
					l := d.leaves(t, now)
					l.Removed, l.since = true, now
				}
			}
		}
	}
}

// settleLeavers lets go of what takes sessions again after a change of the
// configuration. A host that is back under its name and address is the same one.
func (d *Director) settleLeavers() {
	if len(d.leavers.hosts)+len(d.leavers.listeners) == 0 {
		return
	}
	taking := d.taking()
	for t, l := range d.leavers.hosts {
		if d.targets[t.key] == t {
			l.Removed = false
		}
		if taking[t.key] {
			l.Until = time.Time{}
		}
	}
	d.leavers.listeners = slices.DeleteFunc(d.leavers.listeners, d.listens)
	d.showLeavers()
}

// listens tells whether a listener is open.
func (d *Director) listens(l *Leaver) bool {
	return slices.ContainsFunc(d.eng.Listeners(), func(ln engine.Listener) bool { return ln.Service == l.Service && ln.Addr == l.Address })
}

// awaitReturns prepares returning for a change that is about to be adopted.
func (d *Director) awaitReturns() {
	d.leavers.back = nil
	for t, l := range d.leavers.hosts {
		if l.Removed && l.Sessions() > 0 {
			if d.leavers.back == nil {
				d.leavers.back = map[targetKey]*Target{}
			}
			d.leavers.back[t.key] = t
		}
	}
}

// returning returns the target of a host that was removed and is put back while it has
// sessions: it goes on with its health and its counters. Nil: there is none. The times of
// a group that was removed too are not those of the new one.
func (d *Director) returning(key targetKey, times *sched.Times) *Target {
	if t := d.leavers.back[key]; t != nil && t.Host.Times() == times {
		return t
	}
	return nil
}

// closeLeavers ends the sessions of what has had its time, and returns when to look again.
func (d *Director) closeLeavers(now time.Time) time.Duration {
	next, due := never, &d.endings.due
	over := func(l *Leaver) bool {
		if l.Until.IsZero() || l.closing {
			return false
		}
		left := l.Until.Sub(now)
		if left > 0 {
			next = min(next, left)
		}
		l.closing = left <= 0
		return l.closing
	}
	for t, l := range d.leavers.hosts {
		if over(l) {
			if due.drain == nil {
				due.drain = map[*sched.Host]bool{}
			}
			due.drain[t.Host] = true
		}
	}
	for _, l := range d.leavers.listeners {
		if over(l) {
			due.listeners = append(due.listeners, engine.Listener{Service: l.Service, Addr: l.Address})
		}
	}
	return next
}

// forgetLeavers drops what has no sessions any more, or is configured and has no deadline.
func (d *Director) forgetLeavers(now time.Time) {
	had := len(d.leavers.hosts) + len(d.leavers.listeners)
	again := func(l *Leaver) { // for sessions that have come after their end was due
		l.closing = l.closing && (!now.Before(l.awaited) || l.Sessions() == 0)
	}
	for _, l := range d.leavers.hosts {
		again(l)
	}
	for _, l := range d.leavers.listeners {
		again(l)
	}
	maps.DeleteFunc(d.leavers.hosts, func(t *Target, l *Leaver) (over bool) {
		defer func() {
			if over {
				d.strays.drop(t)
			}
		}()
		switch {
		case now.Before(l.awaited):
			return false
		case now.Sub(l.since) < departing: // a loop may be picking it still
			return false
		case !l.Removed && (l.Until.IsZero() || l.closing):
			return true
		}
		return t.Host.Stats().Active == 0
	})
	d.leavers.listeners = slices.DeleteFunc(d.leavers.listeners, func(l *Leaver) bool { return l.closing && !now.Before(l.awaited) })
	if len(d.leavers.hosts)+len(d.leavers.listeners) != had {
		d.showLeavers()
	}
}

// showLeavers publishes them.
func (d *Director) showLeavers() {
	var list []Leaver
	for _, l := range d.leavers.hosts {
		if l.Removed || !l.Until.IsZero() {
			list = append(list, *l)
		}
	}
	for _, l := range d.leavers.listeners {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b Leaver) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Group, b.Group),
			cmp.Compare(a.Host, b.Host), cmp.Compare(a.Address, b.Address))
	})
	d.leaving.Store(&list)
}

// never is longer than anything is waited for.
const never = time.Duration(1<<63 - 1)

// cameBy tells whether a client that has connected to an address has done so by a
// listener that is bound to another, or to all of a port.
func cameBy(to string, bound string) bool {
	if to == bound {
		return true
	}
	a, err := netip.ParseAddrPort(to)
	b, err2 := netip.ParseAddrPort(bound)
	if err != nil || err2 != nil || a.Port() != b.Port() {
		return false
	}
	return b.Addr().IsUnspecified() || a.Addr().Unmap().WithZone("") == b.Addr().Unmap().WithZone("")
}
