package core

import (
	"net"
	"time"

	"github.com/txlb/txlb/engine"
)

// Kept are the time-outs that the kernel keeps for us.
type Kept struct{ Unacked, Alive time.Duration }

// KeptBy returns those of a route.
func KeptBy(r *engine.Route) Kept { return Kept{r.Timeouts.Unacked, r.Timeouts.KeepAlive} }

// KeepAlive is what the kernel is told: it counts seconds. The questions take as
// long together as the silence before them.
func (k Kept) KeepAlive() net.KeepAliveConfig {
	idle := max((k.Alive + time.Second - 1).Truncate(time.Second), time.Second)
	interval := max((idle / keepAliveProbes).Truncate(time.Second), time.Second)
	return net.KeepAliveConfig{Enable: k.Alive > 0, Idle: idle, Interval: interval, Count: keepAliveProbes}
}

// AgeLimit returns when the session has reached the greatest age of its service. Sessions
// that began together do not end together: it lies up to a tenth of the age before that.
// It is the same whenever it is asked for. salt tells sessions of one moment apart.
func (a *Admission) AgeLimit(salt int32) int64 {
	most := a.Svc.Route.Load().Timeouts.MaxAge
	if most == 0 {
		return Never
	}
	return a.Started + int64(most) - a.ageJitter(salt, most)
}

// LateAgeLimit is AgeLimit when the greatest age has just changed. Sessions that are
// older already end within a tenth of the new one.
func (a *Admission) LateAgeLimit(salt int32, now int64) int64 {
	limit := a.AgeLimit(salt)
	if limit > now {
		return limit
	}
	return now + a.ageJitter(salt, a.Svc.Route.Load().Timeouts.MaxAge)
}

// ageJitter returns a part of a tenth of the greatest age. The bits of what tells the
// session from others are mixed as by splitmix64.
func (a *Admission) ageJitter(salt int32, most time.Duration) int64 {
	x := uint64(a.Started) ^ uint64(uint32(salt))<<40
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int64((x ^ x>>31) % uint64(max(most/10, 1)))
}

// LingerFor returns how long a reset waits for the bytes before it.
func LingerFor(r *engine.Route) time.Duration {
	if r.Timeouts.HalfClosed > 0 {
		return min(r.Timeouts.HalfClosed, MaxLinger)
	}
	return MaxLinger
}
