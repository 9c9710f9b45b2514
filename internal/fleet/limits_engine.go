package fleet

import "github.com/txlb/txlb/engine"

// This is what the engine knows of shared limits beside the parts: an even share before this node
// has looked at a limit, and at a hand-over what the process before uses.

// Share returns an even share of a limit for [director.Fleet]: the engine may use no more until this
// node has looked at the limit.
func (n *Node) Share(limit int) int {
	if limit <= 0 {
		return 0
	}
	return int(even(limit, n.fleetNow().nodes))
}

// forEngine is what the engine may use of a limit. It is told nothing of one that this node does not
// know: it may have that already.
func (o *oneLimit) forEngine() int {
	if o.limit == 0 {
		return -1
	}
	return int(o.allowed)
}

// withUsage is what the engine may use of a service's limits, with what it uses, for the process that
// takes its place.
func (l *limits) withUsage(s *sharedLimits) engine.Allotment {
	a := s.last
	if !s.known {
		return a
	}
	if use, ok := l.allot(s.config.Name, a); ok {
		a.Held, a.Taken = use.Sessions, use.Taken
	}
	return a
}

// withoutUsage is what this process may use once the one before it counts no more.
func withoutUsage(of map[string]engine.Allotment) map[string]engine.Allotment {
	some := make(map[string]engine.Allotment, len(of))
	for service, a := range of {
		a.Held, a.Taken = 0, 0
		some[service] = a
	}
	return some
}
