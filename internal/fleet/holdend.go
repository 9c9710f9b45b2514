package fleet

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

// When a hold ends. The store ends it with a lease, and etcd begins the time of a lease again
// when it is restarted or elects. So a node that has counted the whole time itself deletes the
// key: no node that starts later holds again. A node that has not been there from the beginning
// also believes the clock of the node that was given the order, unless that says the hold is
// longer. The clock may be wrong, so such a node deletes nothing.

const (
	// clocksDiffer is by how much the clocks of two nodes may differ.
	clocksDiffer = 10 * time.Second
	// othersDelete is how long after its end, and half of it more by chance, a hold is deleted
	// by a node that was not given the order, if it is still there.
	othersDelete = time.Second
	never        = time.Duration(math.MaxInt64)
)

// noteHold notes what the key of a hold has, nil: nothing, and counts the time of the hold from
// when it is first noted. n.mu is held.
func (n *Node) noteHold(key string, h *held) {
	if was := n.holds[key]; was != nil && (h == nil || h.ID != was.ID) {
		delete(n.counted, was.ID)
	}
	if h == nil {
		delete(n.holds, key)
		return
	}
	h.heard = time.Now()
	n.holds[key] = h
	if _, is := n.counted[h.ID]; !is {
		n.counted[h.ID] = counting{since: time.Now()}
	}
}

// counting is how a node counts the time of a hold.
type counting struct {
	since time.Time
	late  bool // it was not there when the hold began
}

// countOn goes on with what was counted before this node was away. Other holds that it finds may
// have begun before. n.mu is held.
func (n *Node) countOn(was map[string]counting) {
	found := n.counted
	n.counted = make(map[string]counting, len(n.holds))
	for _, h := range n.holds {
		c, is := was[h.ID]
		if !is {
			c = counting{found[h.ID].since, true}
		}
		n.counted[h.ID] = c
	}
}

// wholeTime is when this node has counted the whole time of a hold. n.mu is held.
func (n *Node) wholeTime(h *held) time.Time { return n.counted[h.ID].since.Add(time.Duration(h.For)) }

// holdEnd is when a hold ends here. n.mu is held.
func (n *Node) holdEnd(h *held) time.Time {
	end := n.wholeTime(h)
	if clock := h.Time.Add(time.Duration(h.For) + clocksDiffer); n.counted[h.ID].late && clock.Before(end) {
		return clock
	}
	return end
}

// holdShown is when a hold ends, for people: by the clock of the node that was given the order,
// unless that is over and this node holds on. n.mu is held.
func (n *Node) holdShown(h *held, now time.Time) time.Time {
	end, clock := n.holdEnd(h), h.Time.Add(time.Duration(h.For))
	if clock.After(now) && clock.Before(end) {
		return clock
	}
	return end
}

// endHolds deletes the holds whose whole time this node has counted. It returns when it has to
// be called again.
func (n *Node) endHolds(ctx context.Context) (next time.Duration) {
	type over struct {
		key string
		at  int64
	}
	var all []over
	next = never
	n.mu.Lock()
	store := n.store
	for key, h := range n.holds {
		if h.Released != nil { // nobody holds again, and the store deletes it
			continue
		}
		left := time.Until(n.wholeTime(h))
		if h.Node != n.name { // not all at once
			left += othersDelete
			if left > 0 {
				left += rand.N(othersDelete / 2)
			}
		}
		if left > 0 {
			next = min(next, left)
		} else {
			all = append(all, over{key, h.revision})
		}
	}
	n.mu.Unlock()
	if store == nil {
		return never // it is called when this node has joined
	}
	for _, one := range all {
		var revision int64
		var is Entry
		err := within(ctx, n.patience(), func(ctx context.Context) (err error) {
			revision, is, err = store.Swap(ctx, one.key, nil, one.at, 0)
			return err
		})
		switch {
		case err == nil:
			is = Entry{Key: one.key, Revision: revision, Deleted: true}
		case errors.Is(err, ErrMoved):
			is = is.orDeleted(one.key, one.at)
		default:
			next = min(next, retryEvery)
			continue
		}
		n.mu.Lock()
		if n.store == store {
			n.hearHold(is)
		}
		n.mu.Unlock()
	}
	return next
}
