package director

import (
	"slices"

	"github.com/txlb/txlb/config"
)

// tellLoops warns of names that stand for one of this process's own listeners, so
// that connections come back: what a name stands for is known only here. It is
// said once for as long as it is so.
func (d *Director) tellLoops(state *State) {
	if len(d.used) == 0 {
		d.looping = nil
		return
	}
	named := map[*config.Host][]string{}
	for _, s := range state.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if h.name == "" || !g.Config.Enabled {
					continue
				}
				addresses := []string{}
				for _, t := range h.Targets {
					addresses = append(addresses, t.key.addr.String())
				}
				named[h.Config] = addresses
			}
		}
	}
	var loops []config.Loop
	for _, l := range config.Loops(state.Config, func(h *config.Host) []string { return named[h] }) {
		h := state.host(l.Service, l.Group, l.Host)
		if h == nil || h.name == "" { // the configuration said so
			continue
		}
		loops = append(loops, l)
		if !slices.ContainsFunc(d.looping, l.Same) {
			d.log.Warn("connections go round: a name stands for a listener of this txlb", "service", l.Service,
				"group", l.Group, "host", l.Host, "name", h.name, "addr", l.Address, "listener", l.Listener)
		}
	}
	d.looping = loops
}

// host returns a host by its names, nil if it is not there.
func (s *State) host(service, group, name string) *Host {
	for _, svc := range s.Services {
		if svc.Config.Name != service {
			continue
		}
		for _, g := range svc.Groups {
			if g.Config.Name != group {
				continue
			}
			for _, h := range g.Hosts {
				if h.Config.Name == name {
					return h
				}
			}
		}
	}
	return nil
}
