package director

import (
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// A group whose clients come back keeps one sched.Sticky for as long as it is in the
// configuration, so that it outlives tables and reloads. It is keyed by the hosts of
// package sched, which are those of the targets: a host that is removed, renamed or given
// another address loses its clients, as it loses its health.

// stickyOf returns what a group remembers of its clients: what it remembered before. If
// it has been given another size or time, its clients move into another Sticky. was is
// the group before, nil without.
func stickyOf(g *config.Group, was *Group) *sched.Sticky {
	switch {
	case !sched.IsSticky(g.Scheduler):
		return nil
	case was == nil || was.Sticky == nil:
		return sched.NewSticky(g.StickySize, g.StickyFor)
	case was.Config.StickySize == g.StickySize && was.Config.StickyFor == g.StickyFor:
		return was.Sticky
	}
	return was.Sticky.Resized(g.StickySize, g.StickyFor)
}

// adoptClients gives groups whose Sticky has been replaced the clients that came while
// it was made.
func (r *running) adoptClients(state *State) {
	for i, s := range state.Services {
		if s.mark == r.mark { // it was kept
			continue
		}
		before := r.before.named(i, s.Config.Name)
		for _, g := range s.Groups {
			if g.Sticky == nil {
				continue
			}
			if was := before.group(g.Config.Name); was != nil && was.Sticky != nil && was.Sticky != g.Sticky {
				g.Sticky.Adopt(was.Sticky)
			}
		}
	}
}

// tickSticky lets clients be forgotten that have been away for too long.
func (d *Director) tickSticky(now time.Time) {
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			if g.Sticky != nil {
				g.Sticky.Tick(now)
			}
		}
	}
}
