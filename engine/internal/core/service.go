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
	tls     atomic.Bool // the TLS of clients ends at a listener, likewise
	limits  limiter
	told    atomic.Pointer[told]
	before  atomic.Pointer[before] // nil: nothing was counted by an earlier process
}

// before is what an earlier process has counted of a service.
type before struct {
	stats engine.ServiceStats // but for sessions now and for the reasons
	why   reasons
}

func newService(name string, gates int) *Service {
	return &Service{Name: name, Counts: make([]Counters, gates)}
}

// stats returns the sum of the counters, with every reason.
func (s *Service) stats() engine.ServiceStats {
	var sum engine.ServiceStats
	var why reasons
	if b := s.before.Load(); b != nil {
		sum, why = b.stats, b.why
	}
	why.proxies, why.limits, why.tls = s.proxies.Load(), s.limits.mode.Load() != 0, s.tls.Load()
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

// inherit adds what an earlier process has counted. Reasons that it had and this one does
// not know are lost.
func (s *Service) inherit(stats engine.ServiceStats) {
	b := &before{stats: stats}
	for i := range b.why.refused {
		b.why.refused[i] = stats.Refused[Refusal(i).String()]
	}
	for i := range b.why.failed {
		b.why.failed[i] = stats.ConnectFailures[connectFailure(i).String()]
	}
	for i := range b.why.ended {
		b.why.ended[i] = stats.Ended[Termination(i).String()]
	}
	b.stats.Active, b.stats.Refused, b.stats.ConnectFailures, b.stats.Ended = 0, nil, nil, nil
	s.before.Store(b)
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
			maps.EqualFunc(a.ListenOptions, b.ListenOptions, sameOptions)
	})
}

// sameOptions tells whether two listeners listen in the same way. What TLS does is not
// compared: see [engine.ListenOptions].
func sameOptions(a, b engine.ListenOptions) bool {
	if a.TLS != b.TLS {
		return false
	}
	a.TLS, b.TLS = nil, nil
	return reflect.DeepEqual(a, b)
}

// Entry returns the entry of a listener: the one that it had, if that is right.
func (s *Serving[L]) Entry(had *Entry, of *engine.Service, key ListenKey) *Entry {
	svc, o := s.Services[of.Name], of.ListenOptions[key.Listen]
	is := newEntry(svc, o)
	if had != nil && had.Svc == svc && had.proxy == is.proxy && had.startTLS == is.startTLS && had.TLS == is.TLS && slices.Equal(had.from, is.from) {
		return had
	}
	return is
}

// Reroute publishes the routes of a plan. It returns the services whose timeouts
// have changed, or which a gate holds now or no longer, with true if those that the kernel applies have changed too. The plan
// has the services of Next in their order.
func (s *Serving[L]) Reroute(p engine.Plan) (retimed map[*Service]bool) {
	retimed = map[*Service]bool{}
	for i, svc := range s.order {
		route := p.Services[i].Route
		svc.countNoMore(route.Limits)
		if svc.Route.Load() == route {
			continue
		}
		if before := svc.Route.Load(); before != nil { // only this goroutine changes it
			svc.limits.allotted.reroute(before.Limits, route.Limits)
		}
		before := svc.Route.Swap(route)
		requeue(before, route)
		if before != nil && (before.Timeouts != route.Timeouts || holdsOtherwise(before, route)) {
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

// Sorted returns the keys of the listeners, those with equal addresses as the plan has them.
func (s *Serving[L]) Sorted() []ListenKey {
	return slices.SortedFunc(maps.Keys(s.Listeners), ListenKey.Compare)
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

// Inherit adds what an earlier process has counted of the services.
func (s *Serving[L]) Inherit(all map[string]engine.ServiceStats) {
	for name, svc := range s.Services {
		if stats, there := all[name]; there {
			svc.inherit(stats)
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
