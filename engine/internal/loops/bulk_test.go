//go:build linux

package loops

import (
	"io"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// Many streams are held back beside small messages, and only there.
func TestStreamsArePacedBesideSmallMessages(t *testing.T) {
	zeros := make([]byte, 1<<20)
	rig, e := loopRig(t, engine.Options{Loops: 1}, Tuning{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		var kind [1]byte
		if _, err := io.ReadFull(p, kind[:]); err != nil {
			return
		}
		for kind[0] == 's' { // a stream without an end
			if _, err := p.Write(zeros); err != nil {
				return
			}
		}
		enginetest.Echo(p)
	}))
	for range 2 * fewStreams {
		c := rig.Dial()
		c.Send([]byte("s"))
		go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) }()
	}
	streams := func() (grown, held int) {
		e.onLoops(func(l *loop) {
			l.table.each(func(s *session) {
				if s.out > 1<<20 && l.now-s.Started > settleFor {
					grown++
				}
				if s.ends[client].is(paced) {
					held++
				}
			})
		})
		return grown, held
	}
	testkit.Eventually(t, "all streams flow", func() bool {
		grown, _ := streams()
		return grown == 2*fewStreams
	})
	if _, held := streams(); held > 0 {
		t.Errorf("%d streams are paced though there are no small messages", held)
	}
	small := rig.Dial()
	small.Send([]byte("e"))
	testkit.Eventually(t, "streams are paced beside small messages", func() bool {
		small.Send([]byte("x"))
		small.Expect([]byte("x"))
		_, held := streams()
		return held > 0
	})
}
