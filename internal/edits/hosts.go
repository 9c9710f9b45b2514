package edits

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/words"
)

// AddHost adds a host to a group.
func (e *Edit) AddHost(service, group string, h *config.Host) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	if err := Fresh(g.Hosts, hostName, h.Name, "host", " in group "+Show(g.Name)); err != nil {
		return err
	}
	g.Hosts = append(g.Hosts, h)
	e.Named(h.Name)
	return e.Do("add host %s (%s) to group %s of service %s", Show(h.Name), describeHost(h), Show(g.Name), Show(s.Name))
}

// describeHost tells what a host has that is not the default.
func describeHost(h *config.Host) string {
	text := h.Address
	rows := config.Attributes("host")
	for i := range rows {
		if a := &rows[i]; a.Runtime && a.Name != "ip" && a.Get(h) != a.Default {
			text += fmt.Sprintf(", %s %s", a.Name, words.Quote(a.Get(h)))
		}
	}
	return text
}

// HostOrAddress finds a host by its name, or by its address if only one has that.
func HostOrAddress(g *config.Group, want string) (*config.Host, error) {
	h, err := Host(g, want)
	if err == nil {
		return h, nil
	}
	var names []string
	for _, o := range g.Hosts {
		if SameAddress(o.Address, want) {
			h = o
			names = append(names, o.Name)
		}
	}
	switch {
	case len(names) == 0:
		return nil, err
	case len(names) > 1:
		return nil, fmt.Errorf("%d hosts of group %s have the address %s; give one by name: %s", len(names), Show(g.Name), want, strings.Join(names, ", "))
	}
	return h, nil
}

// DeleteHost takes a host away, which want names, or whose address it is.
func (e *Edit) DeleteHost(service, group, want string) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	h, err := HostOrAddress(g, want)
	if err != nil {
		return err
	}
	takes := g.Enabled || s.RouteTo(g.Name) > 0
	if takes && len(g.Hosts) == 1 {
		what := "the active group"
		if !g.Enabled {
			what = fmt.Sprintf("group %s, to which route %d leads", Show(g.Name), s.RouteTo(g.Name))
		} else {
			what += " " + Show(g.Name)
		}
		if !e.Force && !e.Program {
			return Refuse(ErrInUse, "host %s is the last host of %s; use %s to delete it anyway", Show(h.Name), what, e.anyway())
		}
		e.Warn("group %s is empty: the clients of service %s will be rejected", Show(g.Name), Show(s.Name))
	}
	e.leave(StateHost(e.State, s.Name, g.Name, h.Name))
	g.Hosts = slices.DeleteFunc(g.Hosts, func(o *config.Host) bool { return o == h })
	e.unserved(s, g)
	return e.Do("delete host %s (%s) of group %s of service %s; %s", Show(h.Name), h.Address, Show(g.Name), Show(s.Name), e.sessions("it"))
}

// DeleteHosts takes all hosts of a group away, which must have no clients.
func (e *Edit) DeleteHosts(service, group string) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	if err := e.idle(s, g); err != nil {
		return err
	}
	n := len(g.Hosts)
	if n == 0 {
		return e.Nothing("group %s of service %s is empty", Show(g.Name), Show(s.Name))
	}
	g.Hosts = nil
	e.leave(StateGroup(e.State, s.Name, g.Name).Hosts...)
	return e.Do("delete all %s of group %s of service %s; %s", count(n, "host"), Show(g.Name), Show(s.Name), e.sessions("them"))
}

// SetHost changes one host; change returns what it has changed.
func (e *Edit) SetHost(service, group, host string, change func(*config.Host) []string) error {
	s, g, h, err := e.Host(service, group, host)
	if err != nil {
		return err
	}
	changes := change(h)
	if len(changes) > 0 {
		e.unserved(s, g)
	}
	what := fmt.Sprintf("host %s of group %s of service %s", Show(h.Name), Show(g.Name), Show(s.Name))
	if e.Within == nil {
		return e.Told(what, changes)
	}
	if h.State == "ready" {
		return fmt.Errorf("drain=%s is for a host that takes no new sessions; add state=drain or state=maint", e.deadline())
	}
	e.leave(StateHost(e.State, s.Name, g.Name, h.Name))
	if len(changes) == 0 { // it drains already, and gets a deadline
		_ = e.Do("%s is in state %s; %s", what, h.State, e.sessions("it"))
		return ErrSame
	}
	return e.Do("set %s: %s; %s", what, strings.Join(changes, ", "), e.sessions("it"))
}
