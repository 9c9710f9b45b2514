//go:build linux

package loops

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// A census counts the sessions of all loops and goroutines, and the sockets of listeners
// that leave. It keeps the limit of sessions and tells a drain when none is left. Any
// goroutine may call its methods.
type census struct {
	limit    int64         // of sessions; 0: none
	sessions atomic.Int64  // sessions now, and accepts under way
	copies   atomic.Int64  // connections to mirrors, which take room of sessions
	leavers  atomic.Int64  // shards that leave
	draining atomic.Bool   //
	empty    chan struct{} // has a token after the last session or leaver ended while draining
	rests    atomic.Bool   // listeners may rest because the limit is reached
	waiters  atomic.Int64  // of await
	room     chan struct{} // has a token when there may be room and somebody waits for it
	closing  chan struct{} // closed when await may admit no more
	close    sync.Once     // of closing
}

func newCensus(limit int) *census {
	return &census{
		limit: int64(limit), empty: make(chan struct{}, 1), room: make(chan struct{}, 1), closing: make(chan struct{}),
	}
}

// admit counts a session that is about to begin, if the limit allows it.
func (c *census) admit() bool {
	if c.limit == 0 {
		c.sessions.Add(1)
		return true
	}
	for {
		n := c.sessions.Load()
		if n+c.copies.Load() >= c.limit {
			return false
		}
		if c.sessions.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// adopt counts sessions that another process has let in, whatever the limit.
func (c *census) adopt(n int) { c.sessions.Add(int64(n)) }

// await counts a session of the program as soon as the limit allows it. It returns ctx's
// error if that ends first, and ErrClosed once the engine drains or closes.
func (c *census) await(ctx context.Context) error {
	c.waiters.Add(1)
	defer c.waiters.Add(-1)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.admit() {
			break
		}
		select {
		case <-c.room:
		case <-ctx.Done():
		case <-c.closing:
			return engine.ErrClosed
		}
	}
	select {
	case <-c.closing: // a drain that has not seen this session does not wait for it
		c.leave(1)
		return engine.ErrClosed
	default:
	}
	if c.hasRoom() {
		c.tellRoom() // the next
	}
	return nil
}

// shut ends await, for good.
func (c *census) shut() { c.close.Do(func() { close(c.closing) }) }

// tellRoom makes one who waits for room look again.
func (c *census) tellRoom() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// active returns how many sessions there are.
func (c *census) active() int64 { return c.sessions.Load() }

// hasRoom tells whether another session would be admitted.
func (c *census) hasRoom() bool {
	return c.limit == 0 || c.sessions.Load()+c.copies.Load() < c.limit
}

// admitCopy counts a connection to a mirror that is about to begin, if enough room is left for
// sessions.
func (c *census) admitCopy() bool {
	if !core.MayCopy(c.sessions.Load(), c.copies.Add(1)-1, c.limit) {
		c.copies.Add(-1)
		return false
	}
	return true
}

// leaveCopy takes a connection to a mirror off the count. Listeners that rest for want of room
// look again by themselves.
func (c *census) leaveCopy() {
	c.copies.Add(-1)
	if c.waiters.Load() > 0 {
		c.tellRoom()
	}
}

// leave takes n sessions off the count.
func (c *census) leave(n int) {
	if c.sessions.Add(-int64(n)) == 0 {
		c.tellDrain()
	}
	if c.waiters.Load() > 0 {
		c.tellRoom()
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
