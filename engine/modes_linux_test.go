//go:build !portable

package engine

import (
	"math/rand/v2"
	"time"
)

// modes are all ways in which bytes can be moved. Where there is a ring, every
// send goes through it.
var modes = map[string]Options{
	"auto":   {Splice: SpliceAuto, ringFrom: 1},
	"always": {Splice: SpliceAlways, ringFrom: 1},
	"never":  {Splice: SpliceNever, ringFrom: 1},
	"plain":  {Splice: SpliceAuto, Ring: RingOff},
	"astray": {Splice: SpliceAuto, ringFrom: 1, governor: governor{time.Millisecond, wander}},
}

// longModes are left out by go test -short.
var longModes = []string{"always", "never", "astray"}

// wander decides by lot who runs which loop.
func wander(runner []int, _ []float64) []handover {
	loop := rand.IntN(len(runner))
	to := rand.IntN(len(runner))
	switch from := runner[loop]; {
	case from != loop && to != from && (to == loop || runner[to] == to):
		return []handover{{loop, from, to}}
	case from == loop && to != loop && runner[to] == to:
		for other, r := range runner {
			if r == loop && other != loop {
				return []handover{{other, loop, other}} // who carries cannot be carried
			}
		}
		return []handover{{loop, loop, to}}
	}
	return nil
}
