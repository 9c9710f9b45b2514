package changes

import (
	"bytes"
	"slices"
	"unsafe"

	"github.com/txlb/txlb/config"
)

// Share replaces services, groups and hosts of now by those of was if they are the
// same in every respect, positions included. Neither may be changed afterwards.
// Later steps then find what is unchanged by comparing pointers: [Diff] takes
// microseconds instead of milliseconds. What is not the same becomes a copy of its own:
// Clone makes many at once, and one that stays would keep the memory of all.
func Share(now, was *config.Config) {
	shareAll(now.Services, was.Services, serviceName, func(s, was *config.Service) bool {
		shareAll(s.Groups, was.Groups, groupName, func(g, was *config.Group) bool {
			shareAll(g.Hosts, was.Hosts, hostName, func(h, was *config.Host) bool { return *h == *was }, func(*config.Host) {})
			return slices.Equal(g.Hosts, was.Hosts) && sameGroup(*g, *was)
		}, func(g *config.Group) { g.Hosts = slices.Clone(g.Hosts) })
		if slices.Equal(s.Routes, was.Routes) {
			s.Routes = was.Routes
		}
		return slices.Equal(s.Groups, was.Groups) && slices.Equal(s.Listen, was.Listen) && slices.Equal(s.Access, was.Access) &&
			slices.Equal(s.Routes, was.Routes) && sameService(*s, *was)
	}, func(s *config.Service) { s.Groups, s.Listen = slices.Clone(s.Groups), slices.Clone(s.Listen) })
}

// sameGroup tells whether two groups with the same hosts are the same.
func sameGroup(g, was config.Group) bool {
	if g.Check != nil && was.Check != nil && *g.Check == *was.Check {
		g.Check, was.Check = nil, nil
	}
	if slices.Equal(g.Mirrors, was.Mirrors) {
		g.Mirrors, was.Mirrors = nil, nil
	}
	g.Hosts, was.Hosts = nil, nil
	return sameBits(&g, &was) || g.Pos == was.Pos && equal(new(g), new(was)) // copies: reflection moves what it sees to the heap
}

// sameService tells whether two services with the same lists are the same.
func sameService(s, was config.Service) bool {
	s.Groups, s.Listen, s.Access, s.Routes = nil, nil, nil, nil
	was.Groups, was.Listen, was.Access, was.Routes = nil, nil, nil, nil
	return sameBits(&s, &was) || s.Pos == was.Pos && equal(new(s), new(was))
}

// sameBits tells whether two values have the same bytes in memory. Then they are the
// same; if not, they may still be. A clone that nobody has changed has them, so that
// equal, which is a hundred times slower, is asked about what has changed alone.
func sameBits[T any](a, b *T) bool {
	n := unsafe.Sizeof(*a)
	return bytes.Equal(unsafe.Slice((*byte)(unsafe.Pointer(a)), n), unsafe.Slice((*byte)(unsafe.Pointer(b)), n))
}

func serviceName(s *config.Service) string { return s.Name }
func groupName(g *config.Group) string     { return g.Name }
func hostName(h *config.Host) string       { return h.Name }

// shareAll replaces what is the same in two lists, and what is not by a copy, whose lists
// own copies.
func shareAll[T any](list, was []*T, key func(*T) string, same func(x, was *T) bool, own func(*T)) {
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
		switch {
		case old == x:
		case old != nil && same(x, old):
			list[i] = old
		default:
			fresh := *x
			own(&fresh)
			list[i] = &fresh
		}
	}
}
