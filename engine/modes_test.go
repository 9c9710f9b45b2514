package engine_test

import (
	"flag"
	"slices"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/engine/internal/portable"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Tests that run at once wait most of the time, so more of them than there are
// processors do.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8")
	testkit.Main(m)
}

// setup is an engine that a test is about to start.
type setup struct {
	engine.Options
	start func(engine.Options) (engine.Engine, error)
}

// newRig starts an engine and a service, see enginetest.Start.
func newRig(t *testing.T, opt setup, route engine.Route, backends ...sched.Addr) *enginetest.Rig {
	t.Helper()
	e, err := opt.start(opt.Options)
	if err != nil {
		t.Fatal(err)
	}
	return enginetest.Start(t, e, route, backends...)
}

// modesToTest yields every mode that the engines have, with two loops.
func modesToTest(yield func(name string, opt setup) bool) {
	for name, opt := range loopModesToTest {
		if !yield(name, opt) {
			return
		}
	}
	if !testing.Short() {
		for name, opt := range goroutineModes {
			opt.Loops = 2
			if !yield(name, opt) {
				return
			}
		}
	}
	if !testing.Short() || len(loopModes) == 0 {
		yield("portable", setup{start: func(opt engine.Options) (engine.Engine, error) { return portable.New(opt) }})
	}
}

// loopModesToTest yields those of the event loops.
func loopModesToTest(yield func(name string, opt setup) bool) {
	for name, opt := range loopModes {
		if testing.Short() && slices.Contains(longModes, name) {
			continue
		}
		opt.Loops = 2
		if !yield(name, opt) {
			return
		}
	}
}

// costly are tests that take long, and in which goroutines do on loops what they do on the
// portable engine.
var costly = []string{
	"TestFindByLocalKnowsWhoseConnectionItIs", "TestManyShortSessions", "TestB10StalledReadersCostBoundedMemory",
	"TestB64ThousandReloads", "TestB11LargePayloadsBothWaysAtOnce",
}

// eachMode runs a test in every mode.
func eachMode(t *testing.T, test func(t *testing.T, opt setup)) {
	for name, opt := range modesToTest {
		if _, other := goroutineModes[name]; other && slices.Contains(costly, t.Name()) {
			continue
		}
		t.Run(name, func(t *testing.T) { test(t, opt) })
	}
}

// eachLoopMode is eachMode for what the portable engine cannot do.
func eachLoopMode(t *testing.T, test func(t *testing.T, opt setup)) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) { test(t, opt) })
	}
}

// eachModeAtOnce is eachMode for a test that waits most of its time and does not
// measure what it costs.
func eachModeAtOnce(t *testing.T, test func(t *testing.T, opt setup)) {
	eachMode(t, func(t *testing.T, opt setup) {
		t.Parallel()
		test(t, opt)
	})
}
