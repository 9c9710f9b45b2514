//go:build linux

package loops

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// Between the steps in which it looks through its sessions, a loop serves its
// clients.
func TestAskingHoldsUpNobody(t *testing.T) {
	heard := make(chan struct{}, 1)
	r, _ := loopRig(t, engine.Options{Loops: 1}, Tuning{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		if n, _ := p.Read(make([]byte, 1)); n == 1 {
			heard <- struct{}{}
		}
	}))
	const sessions = 3 * slotsPerSlab
	var last *enginetest.Peer
	for range sessions {
		last = r.Dial()
	}
	testkit.Eventually(t, "all are there", func() bool { return r.Stats().Active == sessions })
	looked, served := 0, 0
	n := r.E.EndSessions(engine.ByOperator, func(engine.Candidate) bool { // on the loop
		switch looked++; {
		case looked == 1:
			last.Send([]byte("x"))
		case looked == 2*slotsPerSlab+1:
			select {
			case <-heard:
				served = looked
			case <-time.After(testkit.Patience):
			}
		}
		return false
	})
	if n != 0 || looked != sessions {
		t.Errorf("%d of %d sessions were looked at, %d ended", looked, sessions, n)
	}
	if served == 0 {
		t.Error("the client had to wait until all sessions were looked at")
	}
}

// What an ID says is what it was made of.
func TestSessionIDs(t *testing.T) {
	for _, index := range []int{0, 1, 1022} {
		for _, slot := range []int32{0, 1, 1<<core.IDSlotBits - 1} {
			for _, generation := range []int32{0, 1, 1<<31 - 1, -1 << 31, -1} {
				l := &loop{index: index}
				id := l.idOf(&session{slot: slot, generation: generation})
				if i, s, g := splitID(id); id == 0 || i != index || s != slot || g != generation {
					t.Errorf("%d, %d, %d became %#x, and that %d, %d, %d", index, slot, generation, id, i, s, g)
				}
			}
		}
	}
	if index, _, _ := splitID(0); index != -1 {
		t.Errorf("ID 0 is of loop %d", index)
	}
}
