package engine_test

import (
	"slices"

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

// goroutineModes are ways in which goroutines carry all sessions of an engine of loops,
// which accept the clients.
var goroutineModes = map[string]setup{"goroutines": {engine.Options{}, toGoroutines}}

// toGoroutines starts an engine of loops whose sessions goroutines carry.
func toGoroutines(opt engine.Options) (engine.Engine, error) {
	e, err := loops.New(opt)
	return &byGoroutines{Engine: e}, err
}

// byGoroutines is an engine whose every route says that goroutines carry its sessions.
type byGoroutines struct {
	*loops.Engine
	routes map[*engine.Route]*engine.Route // of the last plan as the engine has them, by those of the tests
}

func (e *byGoroutines) Apply(p engine.Plan) error {
	p.Services = slices.Clone(p.Services)
	routes := map[*engine.Route]*engine.Route{}
	for i := range p.Services {
		s := &p.Services[i]
		route := e.routes[s.Route]
		if route == nil {
			r := *s.Route
			r.Goroutines, route = true, &r
		}
		routes[s.Route], s.Route = route, route
	}
	e.routes = routes
	return e.Engine.Apply(p)
}

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
