package core

import (
	"sync/atomic"

	"github.com/txlb/txlb/engine"
)

// allotted is the part of shared limits that a service may use: of each limit the part and
// one, 0 if nobody has said. Who allots writes it, every loop reads it.
type allotted [sharedLimits]atomic.Int64

// The limits that may be shared.
const (
	sharedSessions = iota
	sharedRate
	sharedLimits
)

// limitOf returns one of them.
func limitOf(which int, l *engine.Limits) int {
	if which == sharedSessions {
		return l.Sessions
	}
	return l.Rate
}

// of returns how much of a limit may be used.
func (a *allotted) of(which int, l *engine.Limits) int {
	limit := limitOf(which, l)
	if l.Shared {
		if part := a[which].Load(); part > 0 {
			return min(limit, int(part-1))
		}
	}
	return limit
}

// maxPart is more than any limit.
const maxPart = 1 << 30

// allot says how much of its shared limits the service may use from now on. It is for one
// caller at a time.
func (s *Service) allot(part engine.Allotment, now int64) engine.Usage {
	l := &s.limits
	l.allotted[sharedSessions].Store(int64(min(max(part.Sessions, 0), maxPart)) + 1)
	rate := min(max(part.Rate, 0), maxPart)
	if r := s.Route.Load(); l.scale == 0 && r != nil && r.Limits != nil {
		l.scale = r.Limits.Rate
	}
	was := l.scale
	if rate > 0 {
		l.scale = rate
	}
	if 0 < rate && rate < was { // first, so that no token is there twice
		l.rate.rescale(was, rate, now)
	}
	l.allotted[sharedRate].Store(int64(rate) + 1)
	if 0 < was && was < rate {
		l.rate.rescale(was, rate, now)
	}
	u := engine.Usage{Sessions: l.held.Load(), OverSessions: s.refused(limitSessions), OverRate: s.refused(limitRate)}
	for i := range s.Counts {
		u.Begun += s.Counts[i].sessions.Load()
	}
	for _, why := range beforeRate {
		u.Begun -= min(u.Begun, s.refused(why))
	}
	return u
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
