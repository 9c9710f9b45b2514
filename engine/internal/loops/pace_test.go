//go:build linux

package loops

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// notSent returns the limit of unsent bytes of every client's socket.
func (e *Engine) notSent() (all []int) {
	e.walk(func(l *loop, s *session) bool {
		n, _ := unix.GetsockoptInt(int(s.ends[client].fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		all = append(all, n)
		return true
	})
	return all
}

// A client that takes a stream fast may have as much unsent as a pipe holds, until it becomes
// slow. One that does not read gets no more than any other. What is given is given back.
func TestFastStreamsGetALongerQueue(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	e, err := NewTuned(engine.Options{Loops: 1}, Tuning{Pace: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	r := enginetest.Start(t, e, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		block := make([]byte, 64<<10)
		for {
			if _, err := p.Write(block); err != nil {
				return
			}
		}
	}))
	is := func(want int) func() bool {
		return func() bool {
			all := e.notSent()
			return len(all) == 1 && all[0] == want
		}
	}
	stalled := r.Dial()
	r.Standstill()
	if got := e.notSent(); len(got) != 1 || got[0] != core.NotSent {
		t.Errorf("a client that does not read may have %v bytes unsent, want %d", got, core.NotSent)
	}
	stalled.Rst()
	testkit.Eventually(t, "the stalled session has ended", func() bool { return r.Stats().Active == 0 })

	c := r.Dial()
	var pause atomic.Int64 // between two reads of 64 KiB
	pause.Store(int64(time.Millisecond))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for block := make([]byte, 64<<10); ; time.Sleep(time.Duration(pause.Load())) {
			if _, err := io.ReadFull(c, block); err != nil {
				return
			}
		}
	}()
	testkit.Eventually(t, "a fast stream has a longer queue", is(core.DefaultPipeSize))
	pause.Store(int64(500 * time.Millisecond)) // 256 KiB in two seconds
	testkit.Eventually(t, "a slow one has none", is(core.NotSent))
	pause.Store(int64(time.Millisecond))
	testkit.Eventually(t, "a fast stream has a longer queue again", is(core.DefaultPipeSize))
	c.Rst()
	<-done
	testkit.Eventually(t, "the session has ended", func() bool { return r.Stats().Active == 0 })
}
