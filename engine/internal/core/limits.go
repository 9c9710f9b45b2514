package core

import (
	"net/netip"
	"sync/atomic"

	"github.com/txlb/txlb/engine"
)

// limiter counts what the limits of one service are about, for all loops together. It
// outlives routes. Without limits nobody looks at more than its mode.
//
// Invariants: a session is counted once and taken off once; no session is let in above a
// limit, not for a moment; one that is rejected holds nothing and has used up no rate,
// neither its client's nor its service's.
type limiter struct {
	mode     atomic.Uint32           // what is counted, see below
	clients  atomic.Pointer[clients] // nil: none was ever counted
	allotted allotted
	scale    int // the rate that the times of the bucket are of, if it is shared; belongs to allot
	_        [64]byte
	held     atomic.Int64 // sessions; every loop writes it
	rate     bucket
	_        [64]byte
}

// What a limiter counts. A limit holds only if every session is counted, so counting
// begins before the route with the limit is published.
const (
	countSessions = 1 << iota
	countClients
)

// modeOf returns what has to be counted for limits.
func modeOf(l *engine.Limits) uint32 {
	switch {
	case l == nil:
		return 0
	case l.PerClient > 0 || l.PerClientRate > 0:
		return countSessions | countClients
	}
	return countSessions
}

// Expect begins to count what the limits of a plan are about. It returns the services
// whose sessions have to be counted with Recount before the plan's routes are
// published, because they began without these limits.
func (s *Serving[L]) Expect(p engine.Plan) (recount map[*Service]bool) {
	for i, svc := range s.order {
		if svc.count(modeOf(p.Services[i].Route.Limits)) && svc.Route.Load() != nil {
			if recount == nil {
				recount = map[*Service]bool{}
			}
			recount[svc] = true
		}
	}
	return recount
}

// count begins to count, and tells whether there is something that was not counted.
func (s *Service) count(mode uint32) (more bool) {
	if mode&countClients != 0 && s.limits.clients.Load() == nil {
		s.limits.clients.Store(newClients(maxClients))
	}
	was := s.limits.mode.Load()
	s.limits.mode.Store(was | mode)
	return mode&^was != 0
}

// countNoMore ends what is counted for no limit: it would cost every session. Sessions that
// are counted stay so, and the others are counted if there is a limit again.
func (s *Service) countNoMore(l *engine.Limits) { s.limits.mode.Store(modeOf(l)) }

// within tells whether the limits of the service and the client allow the session, and
// counts it if they do. One that has tried hosts already began without limits: it is
// counted, and stays.
func (a *Admission) within(now int64) (ok bool, why Refusal) {
	if a.counted {
		return true, 0
	}
	s, l, who := &a.Svc.limits, a.Svc.Route.Load().Limits, a.attempt.from.IP().Addr()
	if l == nil || a.attempt.tried.Len() > 0 {
		a.countIn(who)
		return true, 0
	}
	c, why, ok := s.client(who, l, now)
	switch {
	case !ok:
		return false, why
	case !s.takePlace(l):
		why = limitSessions
	case l.Rate > 0 && !s.takeToken(l, now):
		s.held.Add(-1)
		why = limitRate
	default:
		a.keep(c)
		return true, 0
	}
	if c != nil {
		if l.PerClientRate > 0 {
			c.rate.giveBack(l.PerClientRate)
		}
		s.clients.Load().leave(c, now)
	}
	return false, why
}

// client counts a session for its client, if the client's limits allow it. c is nil for
// a client that is not counted.
func (s *limiter) client(who netip.Addr, l *engine.Limits, now int64) (c *client, why Refusal, ok bool) {
	if s.mode.Load()&countClients == 0 || !who.IsValid() {
		return nil, 0, true
	}
	list := s.clients.Load()
	c, room := list.enter(keyOf(who), l.PerClient, now)
	switch {
	case !room:
		return nil, clientsFull, false
	case c == nil:
		return nil, limitClient, false
	case l.PerClientRate > 0 && !c.rate.take(l.PerClientRate, now):
		list.leave(c, now)
		return nil, limitClientRate, false
	}
	return c, 0, true
}

// takePlace counts a session if the limit of the service has a place for it.
func (s *limiter) takePlace(l *engine.Limits) bool {
	part := s.allotted.of(sharedSessions, l)
	if !takeUpTo(&s.held, l.Sessions > 0, part) {
		return false
	}
	// allot says the part and then reads held: it has seen this session, or this sees its part.
	if l.Shared && l.Sessions > 0 {
		if now := s.allotted.of(sharedSessions, l); now < part && s.held.Load() > int64(now) {
			s.held.Add(-1)
			return false
		}
	}
	return true
}

// takeToken takes a token of the service's rate, if there is one.
func (s *limiter) takeToken(l *engine.Limits, now int64) bool {
	rate := s.allotted.of(sharedRate, l)
	return rate > 0 && s.rate.take(rate, now)
}

// takeUpTo adds one to held unless it is limited and that would pass the limit. held is
// never above what is held, not for a moment: another loop would reject a client for it.
func takeUpTo(held *atomic.Int64, limited bool, limit int) bool {
	if !limited {
		held.Add(1)
		return true
	}
	for {
		n := held.Load()
		if n >= int64(limit) {
			return false
		}
		if held.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// keep notes that the session is counted, and for which client.
func (a *Admission) keep(c *client) {
	a.counted = true
	if c != nil {
		a.note(a.gate.free()).counted = c
	}
}

// Recount counts a session that began without the limits that its service is to have.
// who tells who the client is.
func (a *Admission) Recount(who func() netip.AddrPort) {
	switch a.state {
	case over, unheard, unwelcome, turnedAway: // not counted yet, or no more
		return
	}
	a.countIn(who().Addr().Unmap())
}

// countIn counts a session whatever the limits say.
func (a *Admission) countIn(who netip.Addr) {
	s := &a.Svc.limits
	if !a.counted {
		s.held.Add(1)
		a.counted = true
	}
	if s.mode.Load()&countClients != 0 && who.IsValid() && (a.notes == nil || a.notes.counted == nil) {
		c, _ := s.clients.Load().enter(keyOf(who), 0, 0)
		a.keep(c)
	}
}

// uncount takes the session off what it was counted for.
func (a *Admission) uncount(now int64) {
	a.counted = false
	s := &a.Svc.limits
	s.held.Add(-1)
	if a.notes != nil && a.notes.counted != nil {
		s.clients.Load().leave(a.notes.counted, now)
		a.notes.counted = nil
	}
}
