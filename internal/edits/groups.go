package edits

import (
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
)

// AddGroup adds a group. The first one of a service is enabled.
func (e *Edit) AddGroup(service string, g *config.Group) error {
	s, err := Service(e.Config, service)
	if err != nil {
		return err
	}
	if err := Fresh(s.Groups, groupName, g.Name, "group", " in service "+Show(s.Name)); err != nil {
		return err
	}
	g.Enabled = len(s.Groups) == 0
	s.Groups = append(s.Groups, g)
	e.Named(g.Name)
	if len(g.Hosts) == 0 {
		e.Warn("group %s is empty: it can take no clients until addHost", Show(g.Name))
	}
	if g.Enabled {
		return e.Do("add group %s (%s) to service %s and enable it", Show(g.Name), g.Scheduler, Show(s.Name))
	}
	return e.Do("add group %s (%s) to service %s", Show(g.Name), g.Scheduler, Show(s.Name))
}

// DeleteGroup takes a group with its hosts away. It must not be the enabled one, and no
// route may lead to it.
func (e *Edit) DeleteGroup(service, group string) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	if err := e.idle(s, g); err != nil {
		return err
	}
	s.Groups = slices.DeleteFunc(s.Groups, func(o *config.Group) bool { return o == g })
	e.leave(StateGroup(e.State, s.Name, g.Name).Hosts...)
	return e.Do("delete group %s of service %s with its %s; %s", Show(g.Name), Show(s.Name), count(len(g.Hosts), "host"), e.sessions("them"))
}

// idle refuses to take a group away that has clients.
func (e *Edit) idle(s *config.Service, g *config.Group) error {
	if g.Enabled {
		return Refuse(ErrInUse, "group %s is active in service %s; enable another group first", Show(g.Name), Show(s.Name))
	}
	n := s.RouteTo(g.Name)
	switch {
	case n == 0:
		return nil
	case e.Program:
		return Refuse(ErrInUse, "route %d of service %s leads to group %s; remove the route first", n, Show(s.Name), Show(g.Name))
	}
	return Refuse(ErrInUse, "route %d of service %s leads to group %s; delete the route first: delRoute %s %[1]d", n, Show(s.Name), Show(g.Name), words.QuoteName(s.Name))
}

// EnableGroup gives the clients of a service to another group.
func (e *Edit) EnableGroup(service, group string) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	if g.Enabled {
		return e.Nothing("group %s takes the clients of service %s", Show(g.Name), Show(s.Name))
	}
	running := StateGroup(e.State, s.Name, g.Name)
	ready := slices.ContainsFunc(running.Hosts, func(h *director.Host) bool {
		return h.Config.State == "ready" && h.Config.Weight > 0 && h.Up()
	})
	if !ready {
		if !e.Force {
			return Refuse(ErrNotReady, "group %s has no host that is up and ready; use %s to enable it anyway", Show(g.Name), e.anyway())
		}
		e.Warn("group %s has no host that is up and ready", Show(g.Name))
	}
	was := s.Enabled()
	was.Enabled, g.Enabled = false, true
	if s.RouteTo(was.Name) == 0 { // else it goes on taking clients
		e.leave(StateGroup(e.State, s.Name, was.Name).Hosts...)
	}
	return e.Do("make group %[2]s active in service %[1]s instead of %[3]s; %[4]s", Show(s.Name), Show(g.Name), Show(was.Name), e.sessions("it"))
}

// SetScheduler changes how a group chooses hosts.
func (e *Edit) SetScheduler(service, group, scheduler string) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	was := g.Scheduler
	if g.Scheduler = scheduler; scheduler == was {
		return e.Nothing("group %s of service %s is scheduled by %s", Show(g.Name), Show(s.Name), was)
	}
	return e.Do("schedule group %s of service %s by %s instead of %s", Show(g.Name), Show(s.Name), g.Scheduler, was)
}
