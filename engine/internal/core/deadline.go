package core

import (
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/clienthello"
)

// Deadline reports that the time of a step is up.
func (a *Admission) Deadline(now int64) Step {
	switch a.state {
	case unheard:
		if now < a.helloLimit() { // the route has changed
			return a.awaitHeader(1)
		}
		return a.refuse(proxyTimeout)
	case untold:
		if now < a.helloLimit() {
			return a.awaitHello(1)
		}
		if a.attempt.startTLS == smtp {
			return a.refuseSMTP(smtpLate)
		}
		if a.awaitsTLS() {
			return a.refuse(tlsLate)
		}
		return a.choose(now, clienthello.Hello{})
	case shaking:
		if now < a.helloLimit() {
			return a.awaitShake()
		}
		return a.refuse(tlsLate)
	case queued:
		if step := a.Called(now); step.Do != Nothing { // just in time
			return step
		}
		if now < a.queueLimit(now) { // the route has changed
			return a.awaitTurn(now)
		}
		why := allFull
		if a.table(a.Svc.Route.Load()).Holds() {
			why = allDown
		}
		a.unqueue(now)
		return a.refuse(why)
	case looking: // it has waited for a descriptor
		return Step{Do: Retry}
	case asked, queueFull, pledging, securing:
	default:
		return Step{}
	}
	route := a.Svc.Route.Load()
	switch {
	case now < a.connectLimit(route) && a.state == queueFull:
		return Step{Do: Again}
	case now < a.connectLimit(route): // the route has changed
		return a.awaited()
	case now < a.hostLimit(route):
		// The time for all connects is over, which says nothing about this host.
		a.noteTry(now, abandoned, nil)
		return a.refuse(outOfTime)
	}
	return a.fail(now, syscall.ETIMEDOUT)
}

// Retimed reports that the route has other timeouts, or that a gate has been closed or
// opened.
func (a *Admission) Retimed(now int64) Step {
	switch a.state {
	case unheard:
		return a.awaitHeader(1)
	case untold:
		return a.awaitHello(1)
	case shaking:
		return a.awaitShake()
	case queued:
		return a.awaitTurn(now)
	}
	if a.state != asked && a.state != pledging && a.state != securing { // a full queue is asked again soon, and the others wait for no host
		return Step{}
	}
	return a.awaited()
}

// totalLimit returns when the time for all connects of the session is over.
func (a *Admission) totalLimit(r *engine.Route) int64 {
	return after(a.attempt.since, r.Timeouts.Total)
}

// hostLimit returns when the host has had its full time to answer. Before that, a
// connect that takes too long is not the host's fault.
func (a *Admission) hostLimit(r *engine.Route) int64 {
	return after(a.attempt.began, r.Timeouts.Connect)
}

// connectLimit returns when the connect under way has taken too long.
func (a *Admission) connectLimit(r *engine.Route) int64 { return min(a.totalLimit(r), a.hostLimit(r)) }

// after returns when a timeout that began at from is over; 0 means no timeout.
func after(from int64, d time.Duration) int64 {
	if d == 0 {
		return Never
	}
	return from + int64(d)
}
