package core

import (
	"maps"
	"reflect"
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
	told    atomic.Pointer[told]
}

func newService(name string, gates int) *Service {
	return &Service{Name: name, Counts: make([]Counters, gates)}
}

// stats returns the sum of the counters, with every reason.
func (s *Service) stats() engine.ServiceStats {
	var sum engine.ServiceStats
	why := reasons{proxies: s.proxies.Load(), limits: s.limits.mode.Load() != 0}
	for i := range s.Counts {
		s.Counts[i].addTo(&sum, &why)
	}
	said := s.told.Load()
	if said == nil || said.reasons != why {
		said = why.tell()
		s.told.Store(said)
	}
	sum.Refused, sum.Ended, sum.ConnectFailures = said.refused, said.ended, said.failed
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

	planned []engine.Service // of the last plan, but for the routes, which may be newer
	order   []*Service       // of planned
}

// Next returns what is served with a plan, still without listeners and routes.
// Existing services are kept.
func (s *Serving[L]) Next(p engine.Plan, gates int) *Serving[L] {
	next := &Serving[L]{
		Services: make(map[string]*Service, len(p.Services)), Listeners: map[ListenKey]L{},
		planned: slices.Clone(p.Services), order: make([]*Service, 0, len(p.Services)),
	}
	for _, planned := range p.Services {
		svc := s.Services[planned.Name]
		if svc == nil {
			svc = newService(planned.Name, gates)
		}
		next.Services[planned.Name] = svc
		next.order = append(next.order, svc)
	}
	return next
}

// OnlyRoutes tells whether a plan is the last one with other routes, so that
// [Serving.Reroute] does all that it asks for. Most changes are of one host, and a plan
// may have very many services.
func (s *Serving[L]) OnlyRoutes(p engine.Plan) bool {
	return slices.EqualFunc(p.Services, s.planned, func(a, b engine.Service) bool {
		return a.Route != nil && a.Name == b.Name && a.ClientSource == b.ClientSource && a.HostInterface == b.HostInterface && slices.Equal(a.Listen, b.Listen) &&
			(len(a.ListenOptions)+len(b.ListenOptions) == 0 || reflect.DeepEqual(a.ListenOptions, b.ListenOptions))
	})
}

// Entry returns the entry of a listener: the one that it had, if that is right.
func (s *Serving[L]) Entry(had *Entry, of *engine.Service, key ListenKey) *Entry {
	svc, o := s.Services[of.Name], of.ListenOptions[key.Listen]
	is := newEntry(svc, o)
	if had != nil && had.Svc == svc && had.proxy == is.proxy && had.startTLS == is.startTLS && slices.Equal(had.from, is.from) {
		return had
	}
	return is
}

// Reroute publishes the routes of a plan. It returns the services whose timeouts
// have changed, with true if those that the kernel applies have changed too. The plan
// has the services of Next in their order.
func (s *Serving[L]) Reroute(p engine.Plan) (retimed map[*Service]bool) {
	retimed = map[*Service]bool{}
	for i, svc := range s.order {
		route := p.Services[i].Route
		svc.countNoMore(route.Limits)
		if svc.Route.Load() == route {
			continue
		}
		before := svc.Route.Swap(route)
		requeue(before, route)
		if before != nil && before.Timeouts != route.Timeouts {
			retimed[svc] = KeptBy(before) != KeptBy(route)
		}
	}
	return retimed
}

// With returns what is served with one listener in the place of another.
func (s *Serving[L]) With(key ListenKey, ln L) *Serving[L] {
	next := *s
	next.Listeners = maps.Clone(s.Listeners)
	next.Listeners[key] = ln
	return &next
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
