package engine_test

import (
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
)

// moved checks that a scene's stream went both ways that the test is about.
func moved(t *testing.T, r *enginetest.Rig, copied, spliced bool) {
	t.Helper()
	var sum engine.LoopStats
	for _, l := range r.E.Snapshot().Loops {
		sum.Copied += l.Copied
		sum.Spliced += l.Spliced
	}
	if copied && sum.Copied == 0 || spliced && sum.Spliced == 0 {
		t.Errorf("%d bytes were copied, %d spliced", sum.Copied, sum.Spliced)
	}
}

// B12: a stream that begins small, becomes bulk and trickles again goes through
// buffers and pipes in turn, and arrives in order.
func TestB12SwitchBetweenCopyAndSpliceKeepsOrder(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 1})
	for _, sc := range []scene{
		{
			name:    "up",
			client:  "send 100 | wait small | send 8M | wait bulk | send 10 | wait trickle | send 8M | fin | eof",
			backend: "expect 100 | tell small | expect 8M | tell bulk | expect 10 | tell trickle | expect 8M | eof",
		},
		{
			name:    "down, to a slow reader",
			backend: "send 1000 | wait small | send 20M | fin | eof",
			client:  "expect 1000 | tell small | stall | expect 20M | eof",
		},
	} {
		sc.check = func(t *testing.T, r *enginetest.Rig) { moved(t, r, true, true) }
		t.Run(sc.name, func(t *testing.T) { sc.play(t, opt) })
	}
}

// B20: an end that comes while a pipe holds bytes waits for them.
func TestB20EndWaitsForThePipe(t *testing.T) {
	for _, sc := range []scene{
		{name: "backend", backend: "send 4M | fin | eof", client: "stall | expect 4M | eof"},
		{name: "client", client: "send 4M | fin | eof", backend: "stall | expect 4M | eof"},
		{name: "small", client: "send 3 | fin | eof", backend: "expect 3 | eof"},
	} {
		sc.check = func(t *testing.T, r *enginetest.Rig) { moved(t, r, false, true) }
		t.Run(sc.name, func(t *testing.T) { sc.play(t, onLoops(engine.Options{Loops: 1, Splice: engine.SpliceAlways})) })
	}
}

// The loops share one budget of pipes: a part for each would be too small for
// any pipe where there are many.
func TestManyLoopsSplice(t *testing.T) {
	sc := scene{client: "send 8M | fin | expect 8M | eof", backend: "expect 8M | eof | send 8M"}
	sc.check = func(t *testing.T, r *enginetest.Rig) { moved(t, r, false, true) }
	sc.play(t, onLoops(engine.Options{Loops: 40, PipeSize: 1 << 20, PipeMemory: 8 << 20}))
}
