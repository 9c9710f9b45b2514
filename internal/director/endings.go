package director

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// endings are hosts whose sessions have to end. A walk of the engine ends them, on a
// goroutine of its own, as it waits for the loops. One walk runs at a time and takes all
// that has come since the last one: thousands of hosts that go down together cost two
// walks. The fields belong to the director's goroutine.
type endings struct {
	due     walk
	walking bool
	walked  chan walk // has room for the one that runs
}

// walk is what one walk has to end, and how many it has ended.
type walk struct {
	down   map[*sched.Host]uint32 // sessions that began before their host was marked down, in which era
	backup map[*sched.Host]bool
	drain  map[*sched.Host]bool
	// listeners have closed; their addresses are those that were bound.
	listeners []engine.Listener

	ended [3]int // by engine.Ending
}

func (w *walk) empty() bool { return len(w.down)+len(w.backup)+len(w.drain)+len(w.listeners) == 0 }

// markedDown ends the sessions of a target that was marked down, if its group wants that.
func (d *Director) markedDown(t *Target) {
	if t.rule.endWhenDown {
		if d.endings.due.down == nil {
			d.endings.due.down = map[*sched.Host]uint32{}
		}
		d.endings.due.down[t.Host] = t.Host.Era()
	}
}

// markedUp ends the sessions of the group's backups if the group wants that, because a
// target is up again that takes sessions and is none of them.
func (d *Director) markedUp(t *Target) {
	if !t.rule.endBackups {
		return
	}
	_, g, own := d.placeOf(t)
	if g == nil || own.Config.State != "ready" || own.Config.Weight == 0 {
		return
	}
	backups := map[*sched.Host]bool{}
	for _, h := range g.Hosts {
		for i, o := range h.Targets {
			switch {
			case h.Shares[i].Backup && o == t:
				return
			case h.Shares[i].Backup:
				backups[o.Host] = true
			}
		}
		for _, o := range h.departed {
			if h.Config.Backup {
				backups[o.target.Host] = true
			}
		}
	}
	if d.endings.due.backup == nil {
		d.endings.due.backup = map[*sched.Host]bool{}
	}
	for h := range backups {
		d.endings.due.backup[h] = true
		if g.Sticky != nil { // else their clients would come back to them
			g.Sticky.Forget(h)
		}
	}
}

// placeOf returns where a target belongs, nil if it has gone.
func (d *Director) placeOf(t *Target) (*Service, *Group, *Host) {
	for _, s := range d.State().Services {
		if s.Config.Name != t.key.service {
			continue
		}
		for _, g := range s.Groups {
			if g.Config.Name != t.key.group {
				continue
			}
			for _, h := range g.Hosts {
				if h.Config.Name == t.key.host {
					return s, g, h
				}
			}
		}
	}
	return nil, nil, nil
}

// endDue starts a walk for what is due, if none is under way.
func (d *Director) endDue() {
	e := &d.endings
	if e.walking || e.due.empty() {
		return
	}
	w := e.due
	e.due, e.walking = walk{}, true
	go d.walk(w)
}

// walk is the goroutine of one walk.
func (d *Director) walk(w walk) {
	if len(w.down) > 0 {
		w.ended[engine.HostDown] = d.eng.EndSessions(engine.HostDown, func(c engine.Candidate) bool {
			era, marked := w.down[c.Host]
			return marked && c.Connected && c.Before(era)
		})
	}
	if len(w.backup) > 0 {
		w.ended[engine.BackupUnused] = d.eng.EndSessions(engine.BackupUnused, func(c engine.Candidate) bool {
			return c.Connected && w.backup[c.Host]
		})
	}
	if len(w.drain)+len(w.listeners) > 0 {
		ids := d.sessionsBy(w.listeners)
		w.ended[engine.ByOperator] = d.eng.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return w.drain[c.Host] || ids[c.ID] })
	}
	d.endings.walked <- w // has room
}

// wentThrough takes in what a walk has done.
func (d *Director) wentThrough(w walk) {
	d.endings.walking = false
	if n := w.ended[engine.HostDown]; n > 0 {
		d.log.Warn("sessions of hosts that are down closed", "closed", n, "hosts", len(w.down))
	}
	if n := w.ended[engine.BackupUnused]; n > 0 {
		d.log.Info("sessions of backup hosts closed", "closed", n, "hosts", len(w.backup))
	}
	if n := w.ended[engine.ByOperator]; n > 0 {
		d.log.Info("drain timeout reached", "closed", n)
	}
}

// awaitWalk waits for the walk that is under way.
func (d *Director) awaitWalk() {
	if d.endings.walking {
		d.wentThrough(<-d.endings.walked)
	}
}

// sessionsBy returns the IDs of the sessions whose clients have come by some listeners.
func (d *Director) sessionsBy(listeners []engine.Listener) map[uint64]bool {
	ids := map[uint64]bool{}
	for _, ln := range listeners {
		for _, s := range d.eng.Sessions(0, func(service string, _ *sched.Host) bool { return service == ln.Service }) {
			if cameBy(s.Listener, ln.Addr) {
				ids[s.ID] = true
			}
		}
	}
	return ids
}
