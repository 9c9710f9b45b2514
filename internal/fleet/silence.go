package fleet

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A node counts as joined as long as its lease lasts, though the store may have gone silent just
// after the last renewal. So each answer is noted, and when the next one is late, the node asks
// something else: only if that is not answered either, the store is silent. One slow answer
// shows nothing.

// silence is what a node knows of the answers of its store.
type silence struct {
	mu       sync.Mutex
	answered time.Time // when the store has last answered
	why      error     // what has come instead since; nil: nothing, or it answers
	silent   bool      // it has not answered a second question either
	toldAt   time.Time // when the log was told
}

// hears notes what has come of a call.
func (s *silence) hears(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || errors.Is(err, ErrMoved) || errors.Is(err, ErrLeaseGone) || errors.Is(err, ErrCompacted) {
		s.answered, s.why, s.silent = time.Now(), nil, false
	} else if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) { // that nothing has come is said anyway
		s.why = err
	}
}

// since returns for how long the store is silent, and what has come instead; 0: it is not.
func (s *silence) since() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.silent {
		return 0, nil
	}
	return time.Since(s.answered), s.why
}

// last is when the store has last answered.
func (s *silence) last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered
}

// falls notes that the store is silent. It returns for how long, and whether to tell the log.
func (s *silence) falls(asked time.Time) (since time.Duration, why error, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered.After(asked) { // another call was answered meanwhile
		return 0, nil, false
	}
	tell = !s.silent && time.Since(s.toldAt) >= complainEvery
	if tell {
		s.toldAt = time.Now()
	}
	s.silent = true
	return time.Since(s.answered), s.why, tell
}

// attentive is a store whose answers are noted.
type attentive struct {
	Store
	n *Node
}

// hears notes what has come of a call. If a write of something else than the node's key has failed,
// the node finds out whether its own would.
func (a *attentive) hears(write bool, err error) {
	a.n.silence.hears(err)
	if write && err != nil && !errors.Is(err, ErrMoved) {
		a.n.poke(a.n.doubted)
	}
}

func (a *attentive) Get(ctx context.Context, prefix string) (entries []Entry, revision int64, err error) {
	entries, revision, err = a.Store.Get(ctx, prefix)
	a.hears(false, err)
	return entries, revision, err
}

func (a *attentive) Swap(ctx context.Context, key string, value []byte, was int64, lease Lease, also ...Write) (revision int64, is Entry, err error) {
	revision, is, err = a.Store.Swap(ctx, key, value, was, lease, also...)
	a.hears(key != a.n.nodeKey(), err)
	return revision, is, err
}

func (a *attentive) Grant(ctx context.Context, ttl time.Duration) (lease Lease, err error) {
	lease, err = a.Store.Grant(ctx, ttl)
	a.hears(true, err)
	return lease, err
}

func (a *attentive) Renew(ctx context.Context, lease Lease) error {
	err := a.Store.Renew(ctx, lease)
	a.hears(false, err)
	return err
}

// lateAfter is how late an answer may be before the node asks something else, and doubtFor how
// long it waits for that.
func (n *Node) lateAfter() time.Duration { return min(time.Second, n.opt.Config.Lease/10) }
func (n *Node) doubtFor() time.Duration  { return min(time.Second, n.opt.Config.Lease/6) }

// doubt is the goroutine that asks something else when the answers of the store are late, until
// ctx ends.
func (n *Node) doubt(ctx context.Context, store Store) {
	for {
		wait := time.Until(n.silence.last().Add(n.renewEvery() + n.lateAfter()))
		if wait <= 0 {
			asked := time.Now()
			err := within(ctx, n.doubtFor(), func(ctx context.Context) error {
				_, _, err := store.Get(ctx, n.nodeKey())
				return err
			})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				if since, why, tell := n.silence.falls(asked); tell {
					n.log.Warn("the store does not answer", "fleet", n.opt.Config.Name, "node", n.name, "for", since.Round(time.Second), "err", why)
				}
			}
			wait = n.lateAfter()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
