//go:build linux

package loops

import (
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// loopRig starts an engine of loops and a service on it.
func loopRig(t *testing.T, opt engine.Options, tune Tuning, backends ...sched.Addr) (*enginetest.Rig, *Engine) {
	t.Helper()
	e, err := NewTuned(opt, tune)
	if err != nil {
		t.Fatal(err)
	}
	return enginetest.Start(t, e, engine.Route{}, backends...), e
}

// meanwhile lets something happen between the reads of a batch and its sends.
type meanwhile struct {
	kernel
	happens func(batch []sendOp)
}

func (m meanwhile) send(batch []sendOp) {
	m.happens(batch)
	m.kernel.send(batch)
}

// B17: a backend's last bytes are sent with word that an end follows at once. If
// the backend is reset in the same flush, no end follows: the bytes are not to
// wait for it, which would take 200 ms.
func TestB17ResetInTheFlushOfTheLastBytes(t *testing.T) {
	back, ready := make(chan *enginetest.Peer, 1), make(chan struct{})
	r, e := loopRig(t, engine.Options{Loops: 1, Ring: engine.RingOff}, Tuning{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		p.Expect([]byte("hello"))
		back <- p
		<-ready
	}))
	c := r.Dial()
	c.Send([]byte("hello"))
	b := <-back
	// Both sides send while the loop is held, so that one batch takes it all in.
	held, release := make(chan struct{}), make(chan struct{})
	l := e.loops[0]
	was := l.sys
	l.inbox.submit(func() {
		l.sys = meanwhile{was, func(batch []sendOp) {
			if len(batch) == 2 && batch[1].last {
				b.Rst()
			}
		}}
		close(held)
		<-release
	})
	<-held
	b.Send([]byte("last"))
	b.Fin()
	c.Send([]byte("more"))
	clock := testkit.NewClock(t)
	close(release)
	c.Expect([]byte("last"))
	if took := clock.Now(); took > 120*time.Millisecond {
		t.Errorf("the last bytes came after %v", took)
	}
	c.ExpectReset()
	close(ready)
	r.Quiet()
	e.onLoops(func(l *loop) { l.sys = was })
	if s := r.Stats(); s.Ended["SD"] != 1 {
		t.Errorf("endings %v", s.Ended)
	}
}
