package director

import (
	"strings"

	"github.com/txlb/txlb/config"
)

// running finds the parts of the running state that a new state can share: those
// whose configuration is identical (changes.Share) and whose addresses are not
// names, which may resolve to something else by now.
type running struct {
	mark   uint64 // set on the services and hosts that are kept
	before former[Service]
	keeps  bool // services may be kept
}

// former finds what there was before by its name: services, or hosts of a group.
type former[T any] struct {
	list   []*T
	nameOf func(*T) string
	byName map[string]*T // made when places have changed
}

// named returns the one of that name, nil if there was none. i is its place now, which
// mostly is the same as before.
func (f *former[T]) named(i int, name string) *T {
	if i < len(f.list) && f.nameOf(f.list[i]) == name {
		return f.list[i]
	}
	if len(f.list) > 0 && f.byName == nil {
		f.byName = make(map[string]*T, len(f.list))
		for _, one := range f.list {
			f.byName[f.nameOf(one)] = one
		}
	}
	return f.byName[name]
}

func formerServices(list []*Service) former[Service] {
	return former[Service]{list: list, nameOf: func(s *Service) string { return s.Config.Name }}
}

// running returns them; what is shared with a change that is then rejected stays
// valid.
func (d *Director) running(cfg *config.Config) *running {
	d.adopted++
	r := &running{mark: d.adopted}
	if was := d.State(); was != nil {
		r.before = formerServices(was.Services)
		r.keeps = cfg.Manager == was.Config.Manager // groups know its rules
	}
	return r
}

// group returns the group of that name, nil if there is none.
func (was *Service) group(name string) *Group {
	if was != nil {
		for _, g := range was.Groups {
			if g.Config.Name == name {
				return g
			}
		}
	}
	return nil
}

// keep tells whether a previous service can be shared as it is, and if so marks it.
func (r *running) keep(was *Service, s *config.Service) bool {
	if !r.keeps || was == nil || was.Config != s || was.unsettled {
		return false
	}
	was.mark = r.mark
	return true
}

// sum notes what is known of the hosts of a new service.
func (s *Service) sum() {
	for _, g := range s.Groups {
		for _, h := range g.Hosts {
			s.unsettled = s.unsettled || !h.settled()
			s.lacking = s.lacking || len(h.Targets) == 0
		}
		for _, m := range g.Mirrors {
			s.unsettled = s.unsettled || m.name != ""
		}
	}
}

// formerHosts finds the hosts that a group had before.
type formerHosts struct {
	former[Host]
	keeps bool // one that is the same may be kept
	mark  uint64
}

// group returns the former hosts of a group of a service, nil for a new one.
func (r *running) group(was *Service, group string) *formerHosts {
	f := &formerHosts{mark: r.mark, keeps: r.keeps}
	f.nameOf = func(h *Host) string { return h.Config.Name }
	if g := was.group(group); g != nil {
		f.list = g.Hosts
	}
	return f
}

// keep tells whether a previous host can be shared as it is, and if so marks it.
func (f *formerHosts) keep(was *Host, h *config.Host) bool {
	if !f.keeps || was == nil || was.Config != h || !was.settled() {
		return false
	}
	was.mark = f.mark
	return true
}

// settled tells whether only a change of its configuration can change the host.
func (h *Host) settled() bool { return h.name == "" && len(h.departed) == 0 }

// replaceTargets brings the director's targets up to date: fresh are those of
// hosts that were not kept of the state before.
func (d *Director) replaceTargets(was *State, mark uint64, fresh map[targetKey]*Target) {
	if was != nil {
		for _, s := range was.Services {
			if s.mark == mark {
				continue
			}
			for _, g := range s.Groups {
				for _, h := range g.Hosts {
					if h.mark == mark {
						continue
					}
					for _, t := range h.Targets {
						if fresh[t.key] != t {
							delete(d.targets, t.key)
							delete(d.byHost, t.Host)
						}
					}
				}
			}
		}
	}
	for key, t := range fresh {
		d.targets[key] = t
		d.byHost[t.Host] = t
	}
}

// isLiteral tells whether a valid address is an IPv4 address and not a name:
// whether the part before the port has only digits and dots.
func isLiteral(address string) bool {
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "[") {
		return true
	}
	for _, c := range []byte(address) {
		switch {
		case c == ':':
			return true
		case (c < '0' || c > '9') && c != '.':
			return false
		}
	}
	return false
}
