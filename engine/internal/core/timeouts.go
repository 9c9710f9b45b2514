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

// LingerFor returns how long a reset waits for the bytes before it.
func LingerFor(r *engine.Route) time.Duration {
	if r.Timeouts.HalfClosed > 0 {
		return min(r.Timeouts.HalfClosed, MaxLinger)
	}
	return MaxLinger
}
