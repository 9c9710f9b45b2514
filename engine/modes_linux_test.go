package engine_test

import (
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/loops"
)

// loopModes are all ways in which event loops can move bytes. Where there is a ring, every
// send goes through it.
var loopModes = map[string]setup{
	"auto":   {engine.Options{Splice: engine.SpliceAuto}, toRing},
	"always": {engine.Options{Splice: engine.SpliceAlways}, toRing},
	"never":  {engine.Options{Splice: engine.SpliceNever}, toRing},
	"plain":  {engine.Options{Splice: engine.SpliceAuto, Ring: engine.RingOff, Steer: true}, toRing},
	"old":    {engine.Options{Splice: engine.SpliceAuto}, toOldRing},
}

// longModes are left out by go test -short.
var longModes = []string{"always", "never", "old"}

// onLoops is an engine of loops.
func onLoops(opt engine.Options) setup {
	return setup{opt, func(opt engine.Options) (engine.Engine, error) { return loops.New(opt) }}
}

// toRing starts an engine that makes every send through the ring.
func toRing(opt engine.Options) (engine.Engine, error) {
	return loops.NewTuned(opt, loops.Tuning{RingFrom: 1})
}

// toOldRing is toRing with the ring of a kernel older than Linux 6.6.
func toOldRing(opt engine.Options) (engine.Engine, error) {
	return loops.NewTuned(opt, loops.Tuning{RingFrom: 1, OldRing: true})
}
