package core

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// chosen is the group of a session.
type chosen struct {
	id   engine.GroupID
	made bool // the choice has been made
}

// table returns the table of the session's group. The group is chosen once a session,
// so a client that goes on to another host stays in its group.
func (a *Admission) table(r *engine.Route) *sched.Table {
	if r.Choose == nil {
		return r.Table
	}
	g := &a.attempt.group
	if !g.made {
		g.id, g.made = r.Choose(a.asking()), true
	}
	if g.id == engine.Default {
		return r.Table
	}
	if t := r.Groups[g.id]; t != nil {
		return t
	}
	return r.Table // the group has gone since
}

// asking is what is known of the client.
func (a *Admission) asking() engine.Asking {
	asking := engine.Asking{Client: a.attempt.from.IP().Addr().Unmap().WithZone("")}
	if t := a.attempt.tls; t != nil {
		asking.Name, asking.ALPN = t.name, t.alpn
	}
	return asking
}
