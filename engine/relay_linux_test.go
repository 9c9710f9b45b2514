//go:build !portable

package engine

import (
	"testing"
	"time"
)

// moved checks that a scene's stream went both ways that the test is about.
func moved(t *testing.T, r *rig, copied, spliced bool) {
	t.Helper()
	var sum LoopStats
	for _, l := range r.e.Snapshot().Loops {
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
	opt := Options{Loops: 1}
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
		sc.check = func(t *testing.T, r *rig) { moved(t, r, true, true) }
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
		sc.check = func(t *testing.T, r *rig) { moved(t, r, false, true) }
		t.Run(sc.name, func(t *testing.T) { sc.play(t, Options{Loops: 1, Splice: SpliceAlways}) })
	}
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
	back, ready := make(chan *peer, 1), make(chan struct{})
	r := newRig(t, Options{Loops: 1, Ring: RingOff}, Route{}, backendServer(t, func(p *peer) {
		p.expect([]byte("hello"))
		back <- p
		<-ready
	}))
	c := r.dial()
	c.send([]byte("hello"))
	b := <-back
	// Both sides send while the loop is held, so that one batch takes it all in.
	held, release := make(chan struct{}), make(chan struct{})
	l := r.e.loops[0]
	was := l.sys
	l.submit(func() {
		l.sys = meanwhile{was, func(batch []sendOp) {
			if len(batch) == 2 && batch[1].last {
				b.rst()
			}
		}}
		close(held)
		<-release
	})
	<-held
	b.send([]byte("last"))
	b.fin()
	c.send([]byte("more"))
	start := time.Now()
	close(release)
	c.expect([]byte("last"))
	if took := time.Since(start); took > 120*time.Millisecond {
		t.Errorf("the last bytes came after %v", took)
	}
	c.expectReset()
	close(ready)
	r.quiet()
	r.e.onLoops(func(l *loop) { l.sys = was })
	if s := r.stats(); s.Ended["SD"] != 1 {
		t.Errorf("endings %v", s.Ended)
	}
}

// The loops share one budget of pipes: a part for each would be too small for
// any pipe where there are many.
func TestManyLoopsSplice(t *testing.T) {
	sc := scene{client: "send 8M | fin | expect 8M | eof", backend: "expect 8M | eof | send 8M"}
	sc.check = func(t *testing.T, r *rig) { moved(t, r, false, true) }
	sc.play(t, Options{Loops: 40, PipeSize: 1 << 20, PipeMemory: 8 << 20})
}
