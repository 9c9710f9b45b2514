//go:build linux

package loops

import "sync/atomic"

// A census counts the sessions of all loops, and the sockets of listeners that leave. It
// keeps the limit of sessions and tells a drain when none is left. Any goroutine may
// call its methods.
type census struct {
	limit    int64         // of sessions; 0: none
	sessions atomic.Int64  // sessions now, and accepts under way
	leavers  atomic.Int64  // shards that leave
	draining atomic.Bool   //
	empty    chan struct{} // has a token after the last session or leaver ended while draining
}

func newCensus(limit int) *census {
	return &census{limit: int64(limit), empty: make(chan struct{}, 1)}
}

// admit counts a session that is about to be accepted, if the limit allows it.
func (c *census) admit() bool {
	n := c.sessions.Add(1)
	if c.limit > 0 && n > c.limit {
		c.leave(1)
		return false
	}
	return true
}

// active returns how many sessions there are.
func (c *census) active() int64 { return c.sessions.Load() }

// hasRoom tells whether another session would be admitted.
func (c *census) hasRoom() bool { return c.limit == 0 || c.sessions.Load() < c.limit }

// leave takes n sessions off the count.
func (c *census) leave(n int) {
	if c.sessions.Add(-int64(n)) == 0 {
		c.tellDrain()
	}
}

// leaving counts a shard that begins to leave, left one that has closed.
func (c *census) leaving() { c.leavers.Add(1) }

func (c *census) left() {
	if c.leavers.Add(-1) == 0 {
		c.tellDrain()
	}
}

// occupied tells whether there are sessions, or shards that leave.
func (c *census) occupied() bool { return c.sessions.Load() > 0 || c.leavers.Load() > 0 }

// tellDrain makes a Drain that waits look again.
func (c *census) tellDrain() {
	if !c.draining.Load() {
		return
	}
	select {
	case c.empty <- struct{}{}:
	default:
	}
}
