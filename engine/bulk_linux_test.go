//go:build !portable

package engine

import (
	"io"
	"testing"
)

// Many streams are held back beside small messages, and only there.
func TestStreamsArePacedBesideSmallMessages(t *testing.T) {
	zeros := make([]byte, 1<<20)
	rig := newRig(t, Options{Loops: 1}, Route{}, backendServer(t, func(p *peer) {
		var kind [1]byte
		if _, err := io.ReadFull(p, kind[:]); err != nil {
			return
		}
		for kind[0] == 's' { // a stream without an end
			if _, err := p.Write(zeros); err != nil {
				return
			}
		}
		echo(p)
	}))
	for range 2 * fewStreams {
		c := rig.dial()
		c.send([]byte("s"))
		go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) }()
	}
	streams := func() (grown, held int) {
		rig.e.onLoops(func(l *loop) {
			l.table.each(func(s *session) {
				if s.out > 1<<20 && l.now-s.started > settleFor {
					grown++
				}
				if s.ends[client].is(paced) {
					held++
				}
			})
		})
		return grown, held
	}
	eventually(t, "all streams flow", func() bool {
		grown, _ := streams()
		return grown == 2*fewStreams
	})
	if _, held := streams(); held > 0 {
		t.Errorf("%d streams are paced though there are no small messages", held)
	}
	small := rig.dial()
	small.send([]byte("e"))
	eventually(t, "streams are paced beside small messages", func() bool {
		small.send([]byte("x"))
		small.expect([]byte("x"))
		_, held := streams()
		return held > 0
	})
}
