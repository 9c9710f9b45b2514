package core

import (
	"sync/atomic"

	"github.com/txlb/txlb/engine"
)

// allotted is the part of shared limits that a service may use: of each limit the part and
// one, 0 if nobody has said. Who allots writes it, every loop reads it.
type allotted struct {
	parts [sharedLimits]atomic.Int64
	// toAdopt are sessions of another process that count here until they are adopted.
	toAdopt atomic.Int64
}

// The limits that may be shared.
const (
	sharedSessions = iota
	sharedRate
	sharedLimits
)

// limitOf returns one of them, and what may be used of it before anybody has said.
func limitOf(which int, l *engine.Limits) (limit, share int) {
	if which == sharedSessions {
		return l.Sessions, l.Share.Sessions
	}
	return l.Rate, l.Share.Rate
}

// of returns how much of a limit may be used.
func (a *allotted) of(which int, l *engine.Limits) int {
	limit, part := limitOf(which, l)
	if !l.Shared {
		return limit
	}
	if said := a.parts[which].Load(); said > 0 {
		part = int(said - 1)
	}
	part = min(limit, part)
	if which == sharedSessions {
		part -= int(a.toAdopt.Load())
	}
	return part
}

// reroute forgets what was said of limits that begin to be shared with a route. It is for the time
// before the route is published.
func (a *allotted) reroute(before, next *engine.Limits) {
	for which := range a.parts {
		if !shares(which, before) && shares(which, next) {
			a.parts[which].Store(0)
		}
	}
}

// shares tells whether there is a limit, and it is shared.
func shares(which int, l *engine.Limits) bool {
	if l == nil || !l.Shared {
		return false
	}
	limit, _ := limitOf(which, l)
	return limit > 0
}

// adopted is that a session has come from another process. It is counted already, so that no loop
// sees room for it twice.
func (a *allotted) adopted() {
	for {
		n := a.toAdopt.Load()
		if n <= 0 || a.toAdopt.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// maxPart is more than any limit.
const maxPart = 1 << 30

// allot says how much of its shared limits the service may use from now on. It is for one
// caller at a time.
func (s *Service) allot(part engine.Allotment, now int64) engine.Usage {
	l := &s.limits
	if r := s.Route.Load(); r != nil {
		if part.Sessions >= 0 && shares(sharedSessions, r.Limits) {
			l.allotted.toAdopt.Store(part.Held)
			l.allotted.parts[sharedSessions].Store(int64(min(part.Sessions, maxPart)) + 1)
		}
		if part.Rate >= 0 && shares(sharedRate, r.Limits) {
			l.allotRate(min(part.Rate, r.Limits.Rate), min(r.Limits.Share.Rate, r.Limits.Rate), now)
			if part.Rate > 0 && part.Taken > 0 {
				l.rate.spend(l.scale, part.Taken, now)
			}
		}
	}
	u := engine.Usage{Sessions: l.held.Load(), OverSessions: s.refused(limitSessions), OverRate: s.refused(limitRate)}
	if l.scale > 0 {
		u.Taken = int64(l.rate.used(l.scale, now))
	}
	for i := range s.Counts {
		u.Begun += s.Counts[i].sessions.Load()
	}
	for _, why := range beforeRate {
		u.Begun -= min(u.Begun, s.refused(why))
	}
	return u
}

// allotRate makes the loops go on with another rate. share is the one they use if nobody has said.
//
// While the bucket is made to fit, loops use the smaller of both rates: they would see more
// tokens than there are with the greater one, up to all of it.
func (l *limiter) allotRate(rate, share int, now int64) {
	part := &l.allotted.parts[sharedRate]
	was := int(part.Load() - 1)
	if was < 0 { // the bucket is of that rate
		was = share
		if share > 0 {
			l.scale = share
		}
	}
	from, is := l.scale, int64(rate)+1
	switch {
	case rate == 0: // the bucket stays as it is
		part.Store(is)
		return
	case from == rate || from == 0:
		part.Store(is)
	case rate < was:
		part.Store(is)
		l.rate.rescale(from, rate, now)
	default: // it grows, or nobody takes tokens
		l.rate.rescale(from, rate, now)
		part.Store(is)
	}
	l.scale = rate
}

// beforeRate are the reasons of clients that have taken no token of the rate of their service.
var beforeRate = [...]Refusal{limitSessions, limitRate, limitClient, limitClientRate, clientsFull, AccessDenied}

// Allot implements [engine.Engine].
func (s *Serving[L]) Allot(service string, part engine.Allotment, now int64) (u engine.Usage, ok bool) {
	svc := s.Services[service]
	if svc == nil {
		return u, false
	}
	return svc.allot(part, now), true
}
