package core

import (
	"time"

	"github.com/txlb/txlb/sched"
)

// judgeFull looks whether the host that a session has now is not above its limit, and no
// other session has waited for longer for a host that this one has got.
func (d *desk) judgeFull(g *guest) {
	h := g.Host
	if h == nil {
		return
	}
	if most := h.MaxSessions(); most > 0 && h.Sessions() > int64(most) {
		d.fail("session %d: %s has %d sessions of %d", g.id, h.Name(), h.Sessions(), most)
	}
	if d.svc.Route.Load().Choose != nil {
		return
	}
	for _, other := range d.guests {
		if other.waits() && d.home(other) == nil && other.Started < g.Started && other.attempt.tried.Len() == 0 && g.attempt.tried.Len() == 1 {
			d.fail("session %d got %s, and session %d has waited for longer", g.id, h.Name(), other.id)
		}
	}
}

// home returns the host that a session waits for alone, nil if any will do.
func (d *desk) home(g *guest) *sched.Host {
	t := d.svc.Route.Load().Table
	if t == nil {
		return nil
	}
	return t.Home(g.attempt.from)
}

// waits tells whether a session is in a queue and was not called.
func (g *guest) waits() bool {
	if g.gone || g.state != queued || g.attempt.wait.waiter == nil {
		return false
	}
	_, was := g.attempt.wait.waiter.Called()
	return !was
}

// callAll tells all sessions that were called. Then nobody waits who could have a host.
func (d *desk) callAll() {
	for len(d.woken) > 0 {
		g := d.woken[0]
		d.woken = d.woken[1:]
		d.say("session %d is called", g.id)
		d.follow(g, g.Called(d.now))
	}
	waiting := 0
	table := d.svc.Route.Load().Table
	for _, g := range d.guests {
		if !g.waits() {
			continue
		}
		waiting++
		if g.attempt.tried.Len() == 0 {
			d.forget(g)
		}
		if !leadsTo(d.svc.Route.Load(), g.attempt.wait.table.Queue()) {
			d.fail("session %d waits in a queue that no route leads to", g.id)
			continue
		}
		if table.Holds() {
			continue
		}
		if d.svc.Route.Load().Choose != nil {
			continue // the desk's groups share their hosts and so one queue, which no real ones do
		}
		anyUp := false
		for _, h := range d.membersOf(table) {
			anyUp = anyUp || h.Up()
		}
		for i, h := range d.membersOf(table) {
			room := h.MaxSessions() == 0 || h.Sessions() < int64(h.MaxSessions())
			backup := i == len(d.membersOf(table))-1 && h == d.hosts[5]
			if own := d.home(g); own != nil && own != h && !g.asked[own] {
				continue
			}
			if room && !backup && !g.asked[h] && (h.Up() || !anyUp) {
				d.fail("session %d waits, though %s has room", g.id, h.Name())
				for _, o := range d.hosts {
					d.say("%s up %v: %d of %d, asked %v; own %v", o.Name(), o.Up(), o.Sessions(), o.MaxSessions(), g.asked[o], d.home(g))
				}
			}
		}
	}
	if n := d.hosts[0].Times().Queue.Len(); n != waiting {
		d.fail("the queue counts %d sessions, %d wait", n, waiting)
	}
}

// membersOf returns the hosts of one of the desk's tables.
func (d *desk) membersOf(t *sched.Table) []*sched.Host {
	switch t {
	case d.tables[0], d.held, d.awaits:
		return d.hosts
	case d.tables[1]:
		return d.hosts[:2]
	}
	return d.hosts[3:]
}

// forget notes that a session may ask hosts again: its group holds its clients, or has.
func (d *desk) forget(g *guest) {
	clear(g.asked)
	g.tries = 0
}

// judgeHold looks whether a session is rejected that its group holds, or before its time is
// over, which begins when the gate opens; and whether there is a reason for one that may not
// wait.
func (d *desk) judgeHold(g *guest, why Refusal) {
	r := d.svc.Route.Load()
	late := why == allFull || why == allDown
	switch {
	case late && r.Table.Held() && r.Choose == nil:
		d.fail("session %d: %v, and its group is held", g.id, why)
	case late && (r.Timeouts.Queue == 0 || d.now-g.opened < int64(r.Timeouts.Queue)):
		d.fail("session %d: %v after %v, of %v", g.id, why, time.Duration(d.now-g.opened), r.Timeouts.Queue)
	case why == allDown && !r.Table.Holds():
		d.fail("session %d: %v, and a host is up", g.id, why)
	case why == holdFull && (!r.Table.Holds() || d.hosts[0].Times().Queue.Len() < r.Table.MostHeld()):
		d.fail("session %d: %v, and %d wait", g.id, why, d.hosts[0].Times().Queue.Len())
	}
}
