package director

import (
	"strings"

	"github.com/txlb/txlb/config"
)

// running finds the parts of the running state that a new state can share: those
// whose configuration is identical (changes.Share) and whose addresses are not
// names, which may resolve to something else by now.
type running struct {
	mark     uint64 // set on the hosts that are kept
	before   map[string]*Service
	services map[string]*Service // the same, or none if nothing can be kept
}

// running returns them; what is shared with a change that is then rejected stays
// valid.
func (d *Director) running(cfg *config.Config) *running {
	d.adopted++
	r := &running{mark: d.adopted}
	if was := d.State(); was != nil {
		r.before = make(map[string]*Service, len(was.Services))
		for _, s := range was.Services {
			r.before[s.Config.Name] = s
		}
		// Groups know the rules of <manager>.
		if cfg.Manager == was.Config.Manager {
			r.services = r.before
		}
	}
	return r
}

// same returns the group of that name before, nil if there was none.
func (r *running) same(service, group string) *Group {
	if was := r.before[service]; was != nil {
		for _, g := range was.Groups {
			if g.Config.Name == group {
				return g
			}
		}
	}
	return nil
}

// rules returns the route rules of a service before, nil without.
func (r *running) rules(service string) *rules {
	if was := r.before[service]; was != nil {
		return was.rules
	}
	return nil
}

// whole returns the service of a configuration if it can be kept as it is.
func (r *running) whole(s *config.Service) *Service {
	was := r.services[s.Name]
	if was == nil || was.Config != s {
		return nil
	}
	for _, g := range was.Groups {
		for _, h := range g.Hosts {
			if !h.settled() {
				return nil
			}
		}
	}
	for _, g := range was.Groups {
		for _, h := range g.Hosts {
			h.mark = r.mark
		}
	}
	return was
}

// former finds the hosts that a group had before.
type former struct {
	list   []*Host
	byName map[string]*Host // made when places have changed
	keeps  bool             // one that is the same may be kept
	mark   uint64
}

// group returns the former hosts of a group.
func (r *running) group(service, group string) *former {
	f := &former{mark: r.mark, keeps: r.services != nil}
	if g := r.same(service, group); g != nil {
		f.list = g.Hosts
	}
	return f
}

// host returns the previous host of that name, nil if there was none. i is its
// place now, which often is the same as before.
func (f *former) host(i int, name string) *Host {
	if i < len(f.list) && f.list[i].Config.Name == name {
		return f.list[i]
	}
	if len(f.list) > 0 && f.byName == nil {
		f.byName = make(map[string]*Host, len(f.list))
		for _, h := range f.list {
			f.byName[h.Config.Name] = h
		}
	}
	return f.byName[name]
}

// keep tells whether a previous host can be shared as it is, and if so marks it.
func (f *former) keep(was *Host, h *config.Host) bool {
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
