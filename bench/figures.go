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
	of       func(sample) float64
}

// The names of figures that goals speak of.
const (
	cpu   = "cpu"
	rate  = "rate"
	busy  = "busy"
	segs  = "segments"
	grown = "memory"
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
			name: busy, title: "whole machine, µs per " + unit, compared: true,
			of: func(s sample) float64 { return micros(s.busy) / s.units },
		},
		{
			name: segs, title: "TCP segments per " + unit,
			of: func(s sample) float64 { return float64(s.segments) / s.units },
		},
		{name: "calls", title: "system calls per " + unit, proxy: true, of: noted("calls")},
		{
			name: "switches", title: "context switches per " + unit, proxy: true,
			of: func(s sample) float64 { return float64(s.switches) / s.units },
		},
	}
}

// latencyFigures returns those of requests at a fixed rate.
func latencyFigures() []figure {
	flow := figures("request", "requests")
	for i := range flow {
		if flow[i].name == rate {
			flow[i].compared = false // it is given
		}
	}
	return append(percentiles(), flow...)
}

func percentiles() []figure {
	return []figure{
		{name: p50, title: "p50, µs", compared: true, of: noted(p50)},
		{name: p99, title: "p99, µs", compared: true, of: noted(p99)},
		{name: p999, title: "p99.9, µs", compared: true, of: noted(p999)},
		{name: "late", title: "no reply 5 s after the end", of: noted("late")},
	}
}

// besideFigures returns those of small requests beside streams: a peer may
// not win by starving them.
func besideFigures() []figure {
	return append(percentiles(), figure{name: "stream", title: "MiB per second beside", more: true, compared: true, of: noted("stream")})
}

// stalledFigures returns those of small requests beside stalled readers.
func stalledFigures() []figure {
	return append(latencyFigures(),
		figure{name: grown, title: "resident KiB per reader", proxy: true, of: noted(grown)},
		figure{name: "held", title: "MiB less available on the machine", of: noted("held")},
		figure{name: "sessions", title: "readers", more: true, of: noted("sessions")},
	)
}

// memory returns the figures of idle sessions.
func memory() []figure {
	return []figure{
		{name: grown, title: "resident KiB per session", compared: true, proxy: true, of: noted(grown)},
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
