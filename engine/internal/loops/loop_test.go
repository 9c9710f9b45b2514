//go:build linux

package loops

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// A loop is awake while it works, and not while it waits. On a machine that stands still
// it can be awake for long, so it may try again.
func TestAwake(t *testing.T) {
	rig, _ := loopRig(t, engine.Options{Loops: 1}, Tuning{}, enginetest.BackendServer(t, enginetest.Echo))
	c := rig.Dial()
	awake := func() time.Duration { return rig.E.Snapshot().Loops[0].Awake }
	hello := func() {
		before := awake()
		c.Send([]byte("hello"))
		c.Expect([]byte("hello"))
		testkit.Eventually(t, "the loop has been awake", func() bool { return awake() > before })
	}
	testkit.Eventually(t, "the loop sleeps while there is nothing to do", func() bool {
		start, before := time.Now(), awake()
		hello()
		<-time.After(50 * time.Millisecond) // what is measured
		hello()
		return awake()-before < time.Since(start)/2
	})
}
