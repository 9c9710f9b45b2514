package fleet

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A node that has lost the store alone keeps its part when the node that proposes views starts
// again: that one does not find it in the store, but others hear it and say where it is.
func TestB107AStartBesideANodeThatHasLostTheStore(t *testing.T) {
	store, nodes := threeLimited(t, `sessions="90" scope="fleet"`)
	a, b, c := nodes[0], nodes[1], nodes[2]
	parts(t, "sessions", 90, a, b, c)
	c.link.set(func() { c.link.cut = errors.New("no store") })
	testkit.Eventually(t, "the store has forgotten c", func() bool { return len(a.Status().Nodes) == 2 && len(b.Status().Nodes) == 2 })
	a.stop()
	a = limitIn(t, store, "a", filepath.Dir(a.path), func(o *Options) { o.Config.Listen = a.opt.Config.Listen })
	a.AwaitLimits(t.Context())
	sessions, end := 0, time.Now().Add(2*time.Second)
	testkit.Eventually(t, "all places are taken", func() bool {
		for _, n := range []*limited{c, a, b} {
			for n.open() {
				sessions++
			}
		}
		time.Sleep(5 * time.Millisecond) // clients that come again
		return sessions >= 90 && time.Now().After(end)
	})
	if sessions != 90 {
		t.Errorf("three nodes let %d sessions in, of 90", sessions)
	}
	parts(t, "sessions", 90, a, b, c)
}
