package txlb

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
)

// LiveService is a service of a [Balancer], by its name. It holds nothing: if the service is
// removed, its methods return [ErrUnknownService], and if one of that name is added, they are
// about that.
//
// The methods about hosts are about the enabled group. [LiveService.Group] has those of
// another.
type LiveService struct {
	balancer *Balancer
	name     string
}

// Name returns the name of the service.
func (s *LiveService) Name() string { return s.name }

// Config returns the service as it is configured now, its hosts in Groups. It has no
// functions.
func (s *LiveService) Config() (Service, error) {
	m, err := edits.Service(s.balancer.director.State().Config, s.name)
	if err != nil {
		return Service{}, explain("", err)
	}
	return serviceOf(m), nil
}

// Update changes anything of the service: change is given what Config returns, and may change
// all but Name. Hosts are in Groups. If it returns an error, nothing is changed. It must not
// wait for long: if others change something meanwhile, it is called again. Fallback is kept as
// it is if change leaves it nil.
func (s *LiveService) Update(change func(*Service) error) error {
	if change == nil {
		return errors.New("txlb: Update with a nil function")
	}
	return explain("Update", s.update(change))
}

func (s *LiveService) update(change func(*Service) error) error {
	b := s.balancer
	for {
		state := b.director.State()
		was, err := edits.Service(state.Config, s.name)
		if err != nil {
			return err
		}
		next := serviceOf(was)
		if err := change(&next); err != nil {
			return err
		}
		if next.Name != s.name {
			return fmt.Errorf("service %q cannot be renamed to %q; add another", s.name, next.Name)
		}
		build := new(builder)
		m := build.service("", &next)
		alone := config.New()
		alone.Program, alone.Services = true, []*config.Service{m}
		alone.Manager = state.Config.Manager
		if err := build.check(alone); err != nil {
			return err
		}
		err = b.rehooked(
			func(all map[string]director.Hooks) {
				if next.Fallback != nil {
					b.hook(all, &next)
				}
			},
			func() error {
				return b.changeAt(state.Generation, "Update "+s.name, nil, func(e *edits.Edit) error {
					i := slices.IndexFunc(e.Config.Services, func(o *config.Service) bool { return o.Name == s.name })
					e.Config.Services[i] = m
					return nil
				})
			})
		if _, moved := errors.AsType[*director.MovedError](err); !moved {
			return err
		}
	}
}

// Group returns a group of the service. It is never nil: if there is none of that name, its
// methods return [ErrUnknownGroup]. With "" it is the enabled one, whichever that is.
func (s *LiveService) Group(name string) *LiveGroup { return &LiveGroup{s, name} }

// AddGroup adds a group, which is not enabled.
func (s *LiveService) AddGroup(g Group) error {
	build := new(builder)
	if g.Name == "" {
		build.fail("", "Name is missing")
	}
	if g.Enabled {
		build.fail("", "Enabled: add the group first, and enable it with EnableGroup when its hosts are up")
	}
	m := build.group("", 0, &g, true)
	if err := errors.Join(build.wrong...); err != nil {
		return explain("AddGroup", err)
	}
	clearService(&config.Service{Groups: []*config.Group{m}})
	return explain("AddGroup", s.balancer.change(fmt.Sprintf("AddGroup %s %s", s.name, g.Name), nil, func(e *edits.Edit) error {
		return e.AddGroup(s.name, m)
	}))
}

// EnableGroup gives the clients of the service to another group, as for a new version of the
// servers. A group without a host that is up is refused with [ErrNotReady], but for [Force].
// Sessions of the group before may finish, or end with [EndAfter].
func (s *LiveService) EnableGroup(name string, options ...Option) error {
	return explain("EnableGroup", s.balancer.change(fmt.Sprintf("EnableGroup %s %s", s.name, name), options, func(e *edits.Edit) error {
		return e.EnableGroup(s.name, name)
	}))
}

// RemoveGroup removes a group with its hosts. The enabled one, and one to which a route leads,
// is refused with [ErrInUse]. Sessions may finish, or end with [EndAfter].
func (s *LiveService) RemoveGroup(name string, options ...Option) error {
	return explain("RemoveGroup", s.balancer.change(fmt.Sprintf("RemoveGroup %s %s", s.name, name), options, func(e *edits.Edit) error {
		return e.DeleteGroup(s.name, name)
	}))
}

// AddListener opens one more listener. One without options is Listener{Addr: ":8080"}.
func (s *LiveService) AddListener(l Listener) error {
	build := new(builder)
	m := build.listener("", &l)
	if err := errors.Join(build.wrong...); err != nil {
		return explain("AddListener", err)
	}
	m.Pos = config.Pos{}
	return explain("AddListener", s.balancer.change(fmt.Sprintf("AddListener %s %s", s.name, l.Addr), nil, func(e *edits.Edit) error {
		return e.AddListener(s.name, m)
	}))
}

// RemoveListener closes the listener that was opened with that address: as the configuration
// has it, so with port 0 if that was it. What waits in its queue is served, and sessions may
// finish, or end with [EndAfter].
func (s *LiveService) RemoveListener(addr string, options ...Option) error {
	return explain("RemoveListener", s.balancer.change(fmt.Sprintf("RemoveListener %s %s", s.name, addr), options, func(e *edits.Edit) error {
		return e.DeleteListener(s.name, addr)
	}))
}

// SwitchPort opens a listener and closes that at old, whose options it takes over. addr may be
// a port alone: then the rest is that of old. old may be "" if there is one listener. The new
// one is open before the old one closes, and no client is refused.
func (s *LiveService) SwitchPort(addr, old string, options ...Option) error {
	return explain("SwitchPort", s.balancer.change(fmt.Sprintf("SwitchPort %s %s", s.name, addr), options, func(e *edits.Edit) error {
		return e.SwitchPort(s.name, addr, old)
	}))
}

// Addrs returns where the service listens, with the port that 0 became: a *net.TCPAddr or a
// *net.UnixAddr each, in the order of Listen and then of Listeners. Listeners given to Serve are
// not among them.
func (s *LiveService) Addrs() []net.Addr {
	all := slices.DeleteFunc(s.balancer.engine.Listeners(), func(l engine.Listener) bool { return l.Service != s.name })
	if m, err := edits.Service(s.balancer.director.State().Config, s.name); err == nil {
		place := func(l engine.Listener) int {
			return slices.IndexFunc(m.Listen, func(o config.Listen) bool { return o.Address == l.Listen })
		}
		slices.SortStableFunc(all, func(a, b engine.Listener) int { return cmp.Compare(place(a), place(b)) })
	}
	var seen []string
	var addrs []net.Addr
	for _, l := range all {
		if slices.Contains(seen, l.Addr) {
			continue
		}
		seen = append(seen, l.Addr)
		if path, unix := strings.CutPrefix(l.Addr, "unix:"); unix {
			addrs = append(addrs, &net.UnixAddr{Net: "unix", Name: path})
		} else if ap, err := netip.ParseAddrPort(l.Addr); err == nil {
			addrs = append(addrs, net.TCPAddrFromAddrPort(ap))
		}
	}
	return addrs
}

// AddHost adds a host to the enabled group. It takes clients at once, or with
// Group.StartDown when a check has passed.
func (s *LiveService) AddHost(h Host) error { return s.Group("").AddHost(h) }

// RemoveHost removes a host of the enabled group, by its name or its address. See
// [LiveGroup.RemoveHost].
func (s *LiveService) RemoveHost(name string, options ...Option) error {
	return s.Group("").RemoveHost(name, options...)
}

// SetHost gives a host of the enabled group the values of h, zero fields their defaults. See
// [LiveGroup.SetHost].
func (s *LiveService) SetHost(h Host) error { return s.Group("").SetHost(h) }

// SetWeight gives a host of the enabled group another weight; 0 gives it no new clients.
func (s *LiveService) SetWeight(name string, weight int) error {
	return s.Group("").SetWeight(name, weight)
}

// Drain gives a host of the enabled group no new clients. See [LiveGroup.Drain].
func (s *LiveService) Drain(name string, options ...Option) error {
	return s.Group("").Drain(name, options...)
}

// Maintain gives a host of the enabled group no new clients and no checks.
func (s *LiveService) Maintain(name string, options ...Option) error {
	return s.Group("").Maintain(name, options...)
}

// Ready gives a host of the enabled group new clients again.
func (s *LiveService) Ready(name string) error { return s.Group("").Ready(name) }

// SetScheduler changes how the enabled group chooses hosts.
func (s *LiveService) SetScheduler(scheduler string) error {
	return s.Group("").SetScheduler(scheduler)
}

// LiveGroup is a group of a [LiveService], by its name. It holds nothing.
type LiveGroup struct {
	service *LiveService
	name    string // "": the enabled one
}

// change makes a change of the group, whose name is found when it is made.
func (g *LiveGroup) change(verb, host string, options []Option, edit func(e *edits.Edit, group string) error) error {
	s := g.service
	what := fmt.Sprintf("%s %s", verb, s.name)
	for _, name := range []string{g.name, host} {
		if name != "" {
			what += " " + name
		}
	}
	return explain(verb, s.balancer.change(what, options, func(e *edits.Edit) error {
		group := g.name
		if group == "" {
			m, err := edits.Service(e.Config, s.name)
			if err != nil {
				return err
			}
			if on := m.Enabled(); on != nil {
				group = on.Name
			}
		}
		return edit(e, group)
	}))
}

// AddHost adds a host. See [LiveService.AddHost].
func (g *LiveGroup) AddHost(h Host) error {
	build := new(builder)
	m := build.host("", 0, &h)
	if err := errors.Join(build.wrong...); err != nil {
		return explain("AddHost", err)
	}
	m.Pos = config.Pos{}
	return g.change("AddHost", m.Name, nil, func(e *edits.Edit, group string) error {
		return e.AddHost(g.service.name, group, m)
	})
}

// RemoveHost removes a host, by its name, or by its address if one host has that. Its sessions
// may finish, or end with [EndAfter].
//
// The last host of a group can be removed as well, unlike with the commands of txlb: a program
// means what it says. The clients then go to the Fallback of the service, and are reset
// without one.
func (g *LiveGroup) RemoveHost(name string, options ...Option) error {
	return g.change("RemoveHost", name, options, func(e *edits.Edit, group string) error {
		return e.DeleteHost(g.service.name, group, name)
	})
}

// SetHost gives the host with the name of h, or its address without one, the values of h; zero
// fields get their defaults. With another address, its health starts fresh.
func (g *LiveGroup) SetHost(h Host) error {
	build := new(builder)
	m := build.host("", 0, &h)
	if err := errors.Join(build.wrong...); err != nil {
		return explain("SetHost", err)
	}
	return g.change("SetHost", m.Name, nil, func(e *edits.Edit, group string) error {
		return e.SetHost(g.service.name, group, m.Name, func(to *config.Host) (changes []string) {
			for _, f := range parts["host"].fields {
				changes = append(changes, edits.Assign(f.row, to, f.row.Get(m))...)
			}
			return changes
		})
	})
}

// set gives an attribute of a host a value.
func (g *LiveGroup) set(verb, host, attribute, value string, options []Option) error {
	row := config.Find("host", attribute)
	value, err := row.Parse(value)
	if err != nil {
		return explain(fmt.Sprintf("%s: host %q", verb, host), err)
	}
	return g.change(verb, host, options, func(e *edits.Edit, group string) error {
		_, in, err := e.Group(g.service.name, group)
		if err != nil {
			return err
		}
		h, err := edits.HostOrAddress(in, host)
		if err != nil {
			return err
		}
		return e.SetHost(g.service.name, group, h.Name, func(h *config.Host) []string { return edits.Assign(row, h, value) })
	})
}

// SetWeight gives a host another weight, 0 to 65535; 0 and [None] give it no new clients.
func (g *LiveGroup) SetWeight(name string, weight int) error {
	if weight == None {
		weight = 0
	}
	return g.set("SetWeight", name, "weight", fmt.Sprint(weight), nil)
}

// Drain gives a host no new clients. Its sessions go on, or end with [EndAfter]; checks go on.
func (g *LiveGroup) Drain(name string, options ...Option) error {
	return g.set("Drain", name, "state", Drain, options)
}

// Maintain gives a host no new clients and no checks. Its sessions go on, or end with
// [EndAfter].
func (g *LiveGroup) Maintain(name string, options ...Option) error {
	return g.set("Maintain", name, "state", Maintenance, options)
}

// Ready gives a host new clients again.
func (g *LiveGroup) Ready(name string) error { return g.set("Ready", name, "state", Ready, nil) }

// SetScheduler changes how hosts are chosen. See [Group].Scheduler.
func (g *LiveGroup) SetScheduler(scheduler string) error {
	name, err := config.ParseScheduler(scheduler)
	if scheduler == "" {
		name, err = LeastConns, nil
	}
	if err != nil {
		return explain("SetScheduler", err)
	}
	return g.change("SetScheduler", name, nil, func(e *edits.Edit, group string) error {
		return e.SetScheduler(g.service.name, group, name)
	})
}

// Hold makes new clients of the group wait, unread and in their order, until [LiveGroup.Release]
// or until d is over, 30 s if it is 0: while its hosts are restarted, for one. Then they go on
// to its hosts. Dials wait too. At most most clients wait at once, 10,000 if it is 0; further
// ones are rejected. Sessions go on. A group that is held already is held as said now.
func (g *LiveGroup) Hold(d time.Duration, most int) error {
	if d < 0 || most < 0 {
		return explain("Hold", fmt.Errorf("%v and %d: neither may be negative", d, most))
	}
	if d == 0 {
		d = 30 * time.Second
	}
	group, err := g.found()
	if err != nil {
		return explain("Hold", err)
	}
	b := g.service.balancer
	_, _, err = b.director.Hold(b.ctx, director.HoldOrder{Service: g.service.name, Group: group, For: d, Most: most})
	return explain("Hold", b.ended(err))
}

// Release lets the clients go on that [LiveGroup.Hold] holds, in their order: all at once, or
// evenly over a time, with those who come meanwhile behind them. It returns how many wait, and
// does nothing if the group is not held.
func (g *LiveGroup) Release(over time.Duration) (waiting int, err error) {
	group, err := g.found()
	if err != nil {
		return 0, explain("Release", err)
	}
	b := g.service.balancer
	r, err := b.director.Release(b.ctx, director.ReleaseOrder{Service: g.service.name, Group: group, Over: over})
	return r.Waiting, explain("Release", b.ended(err))
}

// found returns the name of the group, if there is one.
func (g *LiveGroup) found() (string, error) {
	m, err := edits.Service(g.service.balancer.director.State().Config, g.service.name)
	if err != nil {
		return "", err
	}
	if g.name == "" && m.Enabled() != nil {
		return m.Enabled().Name, nil
	}
	in, err := edits.Group(m, g.name)
	if err != nil {
		return "", err
	}
	return in.Name, nil
}
