package engine_test

import (
	"math/rand/v2"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/loops"
)

// loopModes are all ways in which event loops can move bytes. Where there is a ring, every
// send goes through it.
var loopModes = map[string]setup{
	"auto":   {engine.Options{Splice: engine.SpliceAuto}, toRing(loops.Governor{})},
	"always": {engine.Options{Splice: engine.SpliceAlways}, toRing(loops.Governor{})},
	"never":  {engine.Options{Splice: engine.SpliceNever}, toRing(loops.Governor{})},
	"plain":  {engine.Options{Splice: engine.SpliceAuto, Ring: engine.RingOff}, toRing(loops.Governor{})},
	"astray": {engine.Options{Splice: engine.SpliceAuto}, toRing(loops.Governor{Every: time.Millisecond, Decide: wander})},
}

// longModes are left out by go test -short.
var longModes = []string{"always", "never", "astray"}

// onLoops is an engine of loops.
func onLoops(opt engine.Options) setup {
	return setup{opt, func(opt engine.Options) (engine.Engine, error) { return loops.New(opt) }}
}

// toRing returns what starts an engine that makes every send through the ring.
func toRing(g loops.Governor) func(engine.Options) (engine.Engine, error) {
	return func(opt engine.Options) (engine.Engine, error) {
		return loops.NewTuned(opt, loops.Tuning{RingFrom: 1, Governor: g})
	}
}

// wander decides by lot who runs which loop.
func wander(runner []int, _ []float64) []loops.Handover {
	loop := rand.IntN(len(runner))
	to := rand.IntN(len(runner))
	switch from := runner[loop]; {
	case from != loop && to != from && (to == loop || runner[to] == to):
		return []loops.Handover{{Loop: loop, From: from, To: to}}
	case from == loop && to != loop && runner[to] == to:
		for other, r := range runner {
			if r == loop && other != loop {
				return []loops.Handover{{Loop: other, From: loop, To: other}} // who carries cannot be carried
			}
		}
		return []loops.Handover{{Loop: loop, From: loop, To: to}}
	}
	return nil
}
