//go:build linux

package loops

import (
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// place opens the session of a connection that was accepted: on this loop, on another
// that has fewer, or on goroutines. Where the loops share a queue, the kernel wakes the
// same one for it each time.
func (l *loop) place(fd int32, from sched.Addr, sh *shard) {
	entry := sh.entry.Load()
	if sh.multipath && completeClient(fd, entry) {
		entry.Svc.Counts[l.index].Multipath.Add(1)
	}
	if entry.Goroutines() {
		l.eng.handOver(fd, from, entry)
		return
	}
	if sh.oneQueue {
		if to := l.lighter(); to != nil {
			to.count.active.Add(1) // it counts from now on, so that a burst is spread
			to.take(arrival{fd, from, entry})
			return
		}
	}
	l.open(fd, from, entry)
}

// lighter returns another loop that has fewer sessions than this one, or nil. It
// looks at one other, each in turn: that evens the loops out, however many.
func (l *loop) lighter() *loop {
	loops := l.eng.loops
	if len(loops) == 1 {
		return nil
	}
	l.looked = (l.looked + 1) % (len(loops) - 1)
	other := loops[(l.index+1+l.looked)%len(loops)]
	if other.count.active.Load() < l.count.active.Load() {
		return other
	}
	return nil
}

// arrival is a connection that another loop has accepted, and counted.
type arrival struct {
	fd    int32
	from  sched.Addr
	entry *core.Entry
}

// take makes the loop open a session. Any loop may call it.
func (l *loop) take(a arrival) {
	l.inbox.submit(func() {
		l.count.active.Add(-1) // open counts it
		l.open(a.fd, a.from, a.entry)
	})
}
