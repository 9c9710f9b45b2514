package admin

import (
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// Counters are what a host counts, each under the key that it has in JSON. There
// is one for each row of status.HostCounters.
type Counters map[string]uint64

func counters(stats *sched.HostStats) Counters {
	c := make(Counters, len(status.HostCounters))
	for i := range status.HostCounters {
		c[status.HostCounters[i].Key] = status.HostCounters[i].Value(stats)
	}
	return c
}
