package config

import "slices"

// Share makes c use was's services, groups and hosts where its own are the same
// in every respect, positions included. Neither may be changed afterwards.
// What follows a change of a large model then finds what is as it was by
// looking at pointers: [Diff] does, and takes microseconds instead of
// milliseconds.
func (c *Config) Share(was *Config) {
	shareAll(c.Services, was.Services, (*Service).key, func(s, was *Service) bool {
		shareAll(s.Groups, was.Groups, (*Group).key, func(g, was *Group) bool {
			shareAll(g.Hosts, was.Hosts, (*Host).key, func(h, was *Host) bool { return *h == *was })
			return g.Pos == was.Pos && equal(g, was)
		})
		return s.Pos == was.Pos && slices.Equal(s.Listen, was.Listen) && equal(s, was)
	})
}

func (s *Service) key() string { return s.Name }
func (g *Group) key() string   { return g.Name }
func (h *Host) key() string    { return h.Name }

// shareAll replaces what is the same in two lists.
func shareAll[T any](list, was []*T, key func(*T) string, same func(x, was *T) bool) {
	var byKey map[string]*T // made when the lists do not run alongside
	for i, x := range list {
		var old *T
		if i < len(was) && key(was[i]) == key(x) {
			old = was[i]
		} else {
			if byKey == nil {
				byKey = make(map[string]*T, len(was))
				for _, w := range was {
					byKey[key(w)] = w
				}
			}
			old = byKey[key(x)]
		}
		if old != nil && same(x, old) {
			list[i] = old
		}
	}
}
