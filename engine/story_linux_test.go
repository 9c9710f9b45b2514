package engine_test

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// until waits until the story of a session of r is as it should be, and returns it.
func until(r *enginetest.Rig, what string, is func(*engine.Story) bool) (s engine.Story) {
	r.T.Helper()
	testkit.Eventually(r.T, what, func() bool {
		list := r.E.Sessions(0, everything)
		for i := range list {
			var ok bool
			if s, ok = r.E.Explain(list[i].ID); ok && is(&s) {
				return true
			}
		}
		return false
	})
	return s
}

const aWhile = 20 * time.Millisecond

// A session that has moved before its first byte was asked for when it was asked for.
func TestStoryOfASilentSessionMoves(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := newRig(t, opt, engine.Route{}, stays(t))
			to := heir(t, opt, from, nil)
			from.Dial()
			before := until(from, "it is connected for a while", func(s *engine.Story) bool {
				return s.Stage == engine.StageConnected && s.Age > s.Connected+aWhile
			})
			movedAll(t, from, to, 1)
			s := until(to, "it is there", func(s *engine.Story) bool { return s.Stage == engine.StageConnected })
			if s.Asked != before.Asked || s.Connected != before.Connected || !s.Moved {
				t.Errorf("asked %v and connected %v, before %v and %v", s.Asked, s.Connected, before.Asked, before.Connected)
			}
		})
	}
}

// The time in a queue before a hand-over counts, and so does that in which a side took nothing.
func TestStoryOfWaitingMoves(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeouts := enginetest.TestTimeouts
			timeouts.Queue = time.Hour
			from := newRig(t, opt, engine.Route{Timeouts: timeouts}, greeter(t))
			to := heir(t, opt, from, nil)
			from.Hosts[0].SetMaxSessions(1)
			to.Hosts[0].SetMaxSessions(1)
			first := from.Dial()
			first.Expect([]byte("a"))
			second := dialQueued(t, from)
			queued := func(s *engine.Story) bool { return s.Stage == engine.StageQueued }
			before := until(from, "it waits for a while", func(s *engine.Story) bool { return queued(s) && s.Waited > aWhile })
			movedAll(t, from, to, 2)
			if s := until(to, "it waits", queued); s.Waited < before.Waited || s.Waited > s.Age {
				t.Errorf("it has waited for %v at an age of %v, and before for %v", s.Waited, s.Age, before.Waited)
			}
			_ = first.Close()
			second.Expect([]byte("a"))
			if s := until(to, "it has a host", func(s *engine.Story) bool { return s.Queued >= 0 && s.Stage == engine.StageConnected }); s.Waited < before.Waited {
				t.Errorf("it has waited for %v, and before for %v", s.Waited, before.Waited)
			}
		})
	}
}

func TestStoryOfAStallMoves(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) { _, _ = p.Write(make([]byte, 16<<20)) }))
			to := heir(t, opt, from, nil)
			c := from.Dial()
			before := until(from, "the client takes nothing", func(s *engine.Story) bool { return s.Stalled[0] > aWhile })
			movedAll(t, from, to, 1)
			if s := until(to, "it is there", func(*engine.Story) bool { return true }); s.Stalled[0] < before.Stalled[0] {
				t.Errorf("the client took nothing for %v, and before for %v", s.Stalled[0], before.Stalled[0])
			}
			c.Rst()
		})
	}
}

// Hosts that stories name are those of the new process.
func TestTriesMoveWithTheirHosts(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	from := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo))
	to := heir(t, opt, from, nil)
	for range 2 {
		echoed(from.Dial())
	}
	movedAll(t, from, to, 2)
	found := 0
	for _, i := range to.E.Sessions(0, everything) {
		s, _ := to.E.Explain(i.ID)
		for _, try := range s.Tries {
			if found++; try.Host != to.Hosts[0] {
				t.Errorf("%s was tried, which is another host", try.Host.Name())
			}
		}
	}
	if found == 0 {
		t.Error("no session tells of a try")
	}
}
