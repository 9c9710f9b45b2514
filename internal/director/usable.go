package director

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
)

// Usable tells whether the service has a host for all its clients: one that is ready,
// has a weight and is up in each group that takes some. Without one clients are
// rejected, held, or tried on hosts that are down.
func (s *Service) Usable() bool {
	enabled := false
	for _, g := range s.Groups {
		if g.Takes && !g.Usable() {
			return false
		}
		enabled = enabled || g.Config.Enabled
	}
	return enabled
}

// UsableInPart tells whether the service has a host for some of its clients.
func (s *Service) UsableInPart() bool {
	return slices.ContainsFunc(s.Groups, func(g *Group) bool { return g.Takes && g.Usable() })
}

// Usable tells whether clients that come to the group find a host that is up.
func (g *Group) Usable() bool {
	for t := range g.serving() {
		if t.Host.Up() {
			return true
		}
	}
	return false
}

// Limited tells whether a host of the group has a limit of sessions, so that clients may
// have to wait.
func (g *Group) Limited() bool {
	return slices.ContainsFunc(g.Hosts, func(h *Host) bool { return h.Config.MaxSessions > 0 })
}

// Queues tells whether clients wait in the group's queue, may have to, or have done so.
func (g *Group) Queues() bool {
	return g.Limited() || g.Awaits() || g.Hold() != nil || g.Times.Queue.Longest() > 0
}

// Stranded is a service, or a part of its clients, that a change leaves without a
// usable host.
type Stranded struct {
	Service, Group string // Group is the one of these clients, "" without
	Routed         bool   // only those clients that routes lead there
	Down           int    // hosts that should take clients and are down
	AllDown        string // of the group
}

// String says what becomes of the clients.
func (s Stranded) String() string {
	whose := fmt.Sprintf("those of service %q", s.Service)
	if s.Routed {
		whose = fmt.Sprintf("those that routes of service %q lead there", s.Service)
	}
	switch {
	case s.Group == "":
		return fmt.Sprintf("service %q has no group for its clients: they will be rejected", s.Service)
	case s.AllDown == "hold":
		return fmt.Sprintf("no host of group %q takes clients: %s will wait, at most <timeouts queue>", s.Group, whose)
	case s.Down == 0:
		return fmt.Sprintf("no host of group %q takes clients: %s will be rejected", s.Group, whose)
	case s.AllDown == "refuse":
		return fmt.Sprintf("every host of group %q that takes clients is down: %s will be rejected", s.Group, whose)
	}
	return fmt.Sprintf("every host of group %q that takes clients is down: %s will be tried on hosts that are down", s.Group, whose)
}

// Strands returns the services that have a usable host and would have none with
// another configuration. A host of it that does not run yet counts as usable
// unless it has to pass a check first.
func (s *State) Strands(cfg *config.Config) []Stranded {
	running := formerServices(s.Services)
	var list []Stranded
	for i, c := range cfg.Services {
		was := running.named(i, c.Name)
		if was == nil || c == was.Config {
			continue
		}
		if c.Enabled() == nil && was.enabledUsable() {
			list = append(list, Stranded{Service: c.Name})
		}
		routed := c.Routed()
		for _, g := range c.Groups {
			if !g.Enabled && !routed[g.Name] || !was.loses(g) {
				continue
			}
			if down, usable := was.would(g); !usable {
				allDown := g.AllDown
				if len(g.Hosts) == 0 { // nobody waits for a host that there is not
					allDown = "refuse"
				}
				list = append(list, Stranded{c.Name, g.Name, !g.Enabled, down, allDown})
			}
		}
	}
	return list
}

// loses tells whether the clients of a group have a usable host now, where they are.
// Those of a new route may have had one.
func (s *Service) loses(g *config.Group) bool {
	for _, was := range s.Groups {
		if was.Config.Name == g.Name && was.Takes {
			return was.Usable()
		}
	}
	return !g.Enabled || s.enabledUsable()
}

// enabledUsable tells whether the enabled group has a usable host.
func (s *Service) enabledUsable() bool {
	return slices.ContainsFunc(s.Groups, func(g *Group) bool { return g.Config.Enabled && g.Usable() })
}

// would tells whether a group would have a usable host, and how many that should
// take clients are down.
func (s *Service) would(g *config.Group) (down int, usable bool) {
	var running []*Host
	for _, other := range s.Groups {
		if other.Config.Name == g.Name {
			running = other.Hosts
		}
	}
	is := func(i int, name string) *Host { // most have kept their place
		if i < len(running) && running[i].Config.Name == name {
			return running[i]
		}
		if i := slices.IndexFunc(running, func(h *Host) bool { return h.Config.Name == name }); i >= 0 {
			return running[i]
		}
		return nil
	}
	for i, h := range g.Hosts {
		if h.State != "ready" || h.Weight == 0 {
			continue
		}
		up := !g.StartDown
		if was := is(i, h.Name); was != nil && was.Config.Address == h.Address {
			up = was.Up()
		}
		if up {
			return 0, true
		}
		down++
	}
	return down, false
}

// usabilityKey is what the log tells of: a group that takes clients or a standby one.
// The enabled group has no name, so that a switch is not another group.
type usabilityKey struct {
	groupKey
	takes bool
}

// usability is what was last logged about a group.
type usability struct {
	usable bool      // they have a usable host
	since  time.Time // when that changed
	told   bool      // the log says that they have none
}

// touchNew has tellUsable look at the services that adopt has not kept, and at all if a
// service or a group may have gone.
func (d *Director) touchNew(was, state *State, kept uint64) {
	if was == nil || len(was.Services) != len(state.Services) {
		d.touchedAll = true
		return
	}
	for i, s := range state.Services {
		if s.mark == kept {
			continue
		}
		d.touched[s.Config.Name] = true
		before := was.Services[i]
		if before.Config.Name != s.Config.Name || !slices.EqualFunc(before.Groups, s.Groups, func(g, h *Group) bool {
			return g.Config.Name == h.Config.Name && g.Config.Enabled == h.Config.Enabled && g.Takes == h.Takes
		}) {
			d.touchedAll = true
		}
	}
}

// tellUsable logs which services have lost their last usable host since it was
// called last, and which have one again: each once, however many hosts have
// failed or come back.
func (d *Director) tellUsable() {
	if len(d.touched) == 0 && !d.touchedAll {
		return
	}
	there := map[usabilityKey]bool{}
	for _, s := range d.State().Services {
		name := s.Config.Name
		if !d.touchedAll && !d.touched[name] {
			continue
		}
		var enabled *Group
		for _, g := range s.Groups {
			key := usabilityKey{groupKey{name, g.Config.Name}, g.Takes}
			switch {
			case g.Config.Enabled:
				enabled = g
				continue
			case g.Takes:
				d.tellTaking(key, g)
			default:
				d.tellStandby(key, g.count())
			}
			there[key] = true
		}
		key := usabilityKey{groupKey{name, ""}, true}
		there[key] = true
		d.tellTaking(key, enabled)
	}
	if d.touchedAll {
		maps.DeleteFunc(d.usability, func(key usabilityKey, _ *usability) bool { return !there[key] })
	}
	clear(d.touched)
	d.touchedAll = false
}

// tellTaking is tellUsable for a group that takes clients, nil where a service has no
// enabled group. A service that has just been added and has no hosts is about to get
// some.
func (d *Director) tellTaking(key usabilityKey, g *Group) {
	name, n := "", counted{}
	if g != nil {
		name, n = g.Config.Name, g.count()
	}
	switch lost, found, after := d.stand(key, n, n.up > 0, n.hosts > 0); {
	case lost:
		d.notify(Notice{Kind: NoHost, Service: key.service, Group: name})
		if n.hosts == 0 && d.hooks(key.service).Fallback != nil {
			d.log.Info("no host, the program takes the clients", "service", key.service, "group", name)
			return
		}
		d.log.Error("no usable host", "service", key.service, "group", name,
			"hosts", n.hosts, "down", n.down, "drain", n.drain, "maint", n.maint, "weight_0", n.weightless)
	case found:
		d.notify(Notice{Kind: HostAgain, Service: key.service, Group: name})
		d.log.Info("usable host again", "service", key.service, "group", name, "after", after)
	}
}

// tellStandby is tellUsable for a standby group. Hosts in drain there are not
// reported.
func (d *Director) tellStandby(key usabilityKey, n counted) {
	switch lost, found, after := d.stand(key, n, n.up > 0 || n.down == 0, n.down > 0); {
	case lost:
		d.log.Warn("all hosts of a standby group are down", "service", key.service, "group", key.group, "down", n.down)
	case found:
		d.log.Info("standby group has a usable host again", "service", key.service, "group", key.group, "after", after)
	}
}

// stand notes whether there is a usable host now. It tells whether the log should
// report that the last one was lost, or that there is one again, and after what
// time. The loss is not reported if there never was a usable host. While hosts wait
// for their first check, nothing is reported.
func (d *Director) stand(key usabilityKey, n counted, usable, tell bool) (lost, found bool, after string) {
	if n.unchecked && n.up == 0 {
		return false, false, ""
	}
	now := time.Now()
	s := d.usability[key]
	first := s == nil
	if first {
		s = &usability{usable: usable, since: now}
		d.usability[key] = s
	}
	if usable {
		if s.told {
			found, after = true, now.Sub(s.since).Round(time.Millisecond).String()
		}
		*s = usability{usable: true, since: now}
		return false, found, after
	}
	tell = tell || s.usable
	if s.usable && !first {
		s.since = now
	}
	lost = tell && !s.told
	s.usable, s.told = false, s.told || lost
	return lost, false, ""
}

// counted is how many hosts of a group are in which state.
type counted struct {
	hosts, up, down, drain, maint, weightless int
	unchecked                                 bool // a host that is down has had no check yet (start="down")
}

func (g *Group) count() (n counted) {
	n.hosts = len(g.Hosts)
	for _, h := range g.Hosts {
		switch {
		case h.Config.State == "drain":
			n.drain++
		case h.Config.State == "maint":
			n.maint++
		case h.Config.Weight == 0:
			n.weightless++
		case slices.ContainsFunc(h.Targets, func(t *Target) bool { return t.Status().Up }):
			n.up++
		default:
			n.down++
			n.unchecked = n.unchecked || slices.ContainsFunc(h.Targets, (*Target).unchecked)
		}
	}
	return n
}

// unchecked tells whether a target waits for its first check and none has ended.
func (t *Target) unchecked() bool { return t.waiting && t.Status().Check.Code == health.Unknown }
