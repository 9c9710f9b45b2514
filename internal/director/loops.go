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
	type place struct{ service, group, host string }
	named, names := map[*config.Host][]string{}, map[place]string{}
	for _, s := range state.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if h.name == "" || !g.Takes {
					continue
				}
				addresses := []string{}
				for _, t := range h.Targets {
					addresses = append(addresses, t.key.addr.String())
				}
				named[h.Config] = addresses
				names[place{s.Config.Name, g.Config.Name, h.Config.Name}] = h.name
			}
		}
	}
	var loops []config.Loop
	for _, l := range config.Loops(state.Config, func(h *config.Host) []string { return named[h] }) {
		name := names[place{l.Service, l.Group, l.Host}]
		if name == "" { // the check of the configuration says so
			continue
		}
		loops = append(loops, l)
		if !slices.ContainsFunc(d.looping, l.Same) {
			d.log.Warn("connection loop, a host name resolves to a listener of this txlb", "service", l.Service,
				"group", l.Group, "host", l.Host, "name", name, "addr", l.Address, "listener", l.Listener)
		}
	}
	d.looping = loops
}
