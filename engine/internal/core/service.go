package core

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/txlb/txlb/engine"
)

// Service is a service as its sessions see it. It lives until its last session has
// ended, even if the plan no longer has it.
type Service struct {
	Name   string
	Route  atomic.Pointer[engine.Route]
	Counts []Counters // one for each gate

	proxies atomic.Bool // a listener has asked for PROXY headers, now or before
	limits  limiter
}

func newService(name string, gates int) *Service {
	return &Service{Name: name, Counts: make([]Counters, gates)}
}

// stats returns the sum of the counters, with every reason.
func (s *Service) stats() engine.ServiceStats {
	sum := engine.ServiceStats{
		Refused:         map[string]uint64{},
		Ended:           map[string]uint64{},
		ConnectFailures: map[string]uint64{},
	}
	for i := range s.Counts {
		s.Counts[i].addTo(&sum, s.proxies.Load(), s.limits.mode.Load() != 0)
	}
	return sum
}

// Elsewhere implements [engine.Elsewhere].
func (s *Service) Elsewhere(gate int) (n int64) {
	for i := range s.Counts {
		if i != gate {
			n += s.Counts[i].active.Load()
		}
	}
	return n
}

// refused returns how many clients were refused for one reason.
func (s *Service) refused(why Refusal) (n uint64) {
	for i := range s.Counts {
		n += s.Counts[i].refused[why].Load()
	}
	return n
}

// Serving is what an engine serves after the last plan; its listeners are of type
// L. It is immutable once it is published.
type Serving[L any] struct {
	Services  map[string]*Service
	Listeners map[ListenKey]L
}

// Next returns what is served with a plan, still without listeners and routes.
// Existing services are kept.
func (s *Serving[L]) Next(p engine.Plan, gates int) *Serving[L] {
	next := &Serving[L]{Services: make(map[string]*Service, len(p.Services)), Listeners: map[ListenKey]L{}}
	for _, planned := range p.Services {
		svc := s.Services[planned.Name]
		if svc == nil {
			svc = newService(planned.Name, gates)
		}
		next.Services[planned.Name] = svc
	}
	return next
}

// Entry returns the entry of a listener: the one that it had, if that is right.
func (s *Serving[L]) Entry(had *Entry, of *engine.Service, key ListenKey) *Entry {
	svc, o := s.Services[of.Name], of.ListenOptions[key.Listen]
	if had != nil && had.Svc == svc && had.proxy == o.Proxy && slices.Equal(had.from, o.ProxyFrom) {
		return had
	}
	return newEntry(svc, o)
}

// Reroute publishes the routes of a plan. It returns the services whose timeouts
// have changed, with true if those that the kernel applies have changed too.
func (s *Serving[L]) Reroute(p engine.Plan) (retimed map[*Service]bool) {
	retimed = map[*Service]bool{}
	for i := range p.Services {
		svc, route := s.Services[p.Services[i].Name], p.Services[i].Route
		before := svc.Route.Swap(route)
		svc.countNoMore(route.Limits)
		if before != nil && before.Timeouts != route.Timeouts {
			retimed[svc] = KeptBy(before) != KeptBy(route)
		}
	}
	return retimed
}

// With returns what is served with one listener in the place of another.
func (s *Serving[L]) With(key ListenKey, ln L) *Serving[L] {
	next := &Serving[L]{Services: s.Services, Listeners: maps.Clone(s.Listeners)}
	next.Listeners[key] = ln
	return next
}

// EachRefusal calls yield with every service that has rejected clients, a reason and
// how many.
func (s *Serving[L]) EachRefusal(yield func(service, reason string, clients uint64)) {
	for name, svc := range s.Services {
		for why := range refusals {
			if n := svc.refused(why); n > 0 {
				yield(name, why.String(), n)
			}
		}
	}
}

// Stats returns the counters of all services.
func (s *Serving[L]) Stats() map[string]engine.ServiceStats {
	all := make(map[string]engine.ServiceStats, len(s.Services))
	for name, svc := range s.Services {
		all[name] = svc.stats()
	}
	return all
}
