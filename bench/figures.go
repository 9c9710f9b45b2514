//go:build linux

package main

import (
	"math"
	"time"
)

// figure is one quantity that is reported of a workload.
type figure struct {
	name     string
	title    string // column, for the unit of work
	more     bool   // more is better
	compared bool   // shown as a ratio too
	proxy    bool   // of the proxy alone: direct has none
	above    bool   // what it is more than with no proxy in the same round
	exact    bool   // counted, not timed: it repeats
	of       func(sample) float64
}

// The names of figures that goals speak of.
const (
	cpu     = "cpu"
	rate    = "rate"
	segs    = "segments"
	grown   = "memory"
	p99     = "p99"
	added99 = "added-p99"
	beside  = "beside" // throughput of the streams beside small requests
)

// figures returns those of work that flows, counted in a unit with this plural.
func figures(unit, units string) []figure {
	return []figure{
		{
			name: cpu, title: "proxy CPU, µs per " + unit, compared: true, proxy: true,
			of: func(s sample) float64 { return micros(s.cpu) / s.units },
		},
		{
			name: rate, title: units + " per second", more: true, compared: true,
			of: func(s sample) float64 { return s.units / s.time.Seconds() },
		},
		{
			name: "machine", title: "whole machine, µs per " + unit, compared: true,
			of: func(s sample) float64 { return micros(s.busy) / s.units },
		},
		{
			name: segs, title: "TCP segments per " + unit, compared: true,
			of: func(s sample) float64 { return float64(s.segments) / s.units },
		},
		{
			name: "switches", title: "context switches per " + unit, proxy: true,
			of: func(s sample) float64 { return float64(s.switches) / s.units },
		},
		{name: "wait", title: "waiting for a core, µs per " + unit, proxy: true, of: waited},
	}
}

// waited returns how long the threads of a proxy could run and did not, for a unit.
func waited(s sample) float64 { return micros(s.wait) / s.units }

// latencyFigures returns those of requests at a fixed rate. What a program adds to
// the mean is the wait for a core, of which the program can do little, and the rest.
func latencyFigures() []figure {
	flow := figures("request", "requests")
	for i := range flow {
		if flow[i].name == rate {
			flow[i].compared = false // it is given
		}
	}
	mean := noted("mean")
	return append(flow,
		figure{name: "p50", title: "p50, µs", of: noted("p50")},
		figure{name: p99, title: "p99, µs", of: noted(p99)},
		figure{name: "added-p50", title: "added to the p50, µs", compared: true, proxy: true, above: true, of: noted("p50")},
		figure{name: added99, title: "added to the p99, µs", compared: true, proxy: true, above: true, of: noted(p99)},
		figure{name: "added-mean", title: "added to the mean, µs", proxy: true, above: true, of: mean},
		figure{name: "inside", title: "added in the program, µs", proxy: true, above: true, of: func(s sample) float64 { return mean(s) - waited(s) }},
	)
}

// besideFigures returns those of small requests beside streams: a peer may
// not win by starving them.
func besideFigures() []figure {
	return []figure{
		{name: "p50", title: "p50, µs", compared: true, of: noted("p50")},
		{name: p99, title: "p99, µs", compared: true, of: noted(p99)},
		{name: beside, title: "MiB per second beside", more: true, compared: true, of: noted(beside)},
	}
}

// stalledFigures returns those of small requests beside stalled readers.
func stalledFigures() []figure {
	return append(latencyFigures(),
		figure{name: grown, title: "resident KiB per reader", proxy: true, of: noted(grown)},
		figure{name: "held", title: "machine, KiB per reader", proxy: true, of: noted("held")},
		figure{name: "readers", title: "readers", more: true, proxy: true, of: noted("readers")},
	)
}

// memory returns the figures of idle sessions.
func memory() []figure {
	return []figure{
		{name: grown, title: "resident KiB per session", compared: true, proxy: true, exact: true, of: noted(grown)},
		{name: "sessions", title: "sessions", more: true, of: noted("sessions")},
	}
}

// noted takes a figure from the notes of a sample: no number if there is none.
func noted(name string) func(sample) float64 {
	return func(s sample) float64 {
		if v, ok := s.noted[name]; ok {
			return v
		}
		return math.NaN()
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
