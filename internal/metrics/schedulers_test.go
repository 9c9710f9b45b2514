package metrics

import (
	"strings"
	"testing"
)

// The program txlb has no schedulers of its own, and says nothing of them.
func TestSchedulerFaults(t *testing.T) {
	for _, c := range []struct {
		faults map[string]uint64
		want   string
	}{
		{nil, ""},
		{map[string]uint64{"cheapest": 0, "b": 3}, `# HELP txlb_scheduler_faults_total Picks of a scheduler of the program that panicked, or returned no index of a host
# TYPE txlb_scheduler_faults_total counter
txlb_scheduler_faults_total{scheduler="custom:b"} 3
txlb_scheduler_faults_total{scheduler="custom:cheapest"} 0
`},
	} {
		var b strings.Builder
		schedulers(&text{w: &b}, c.faults)
		if b.String() != c.want {
			t.Errorf("%v is\n%s", c.faults, b.String())
		}
	}
}
