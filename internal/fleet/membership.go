package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// within calls f with a limit. An *UnknownError stays one.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(bounded)
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	unknown := (*UnknownError)(nil)
	late := &lateError{limit}
	if errors.As(err, &unknown) {
		return &UnknownError{late}
	}
	return late
}

// lateError tells that an answer has not come in time.
type lateError struct{ limit time.Duration }

func (e *lateError) Error() string {
	limit := e.limit
	if limit >= time.Second {
		limit = limit.Round(100 * time.Millisecond)
	}
	return fmt.Sprintf("the store has not answered within %v", limit)
}

// diagnosed is an error with what the store can tell of it, if that is that no answer has come.
func diagnosed(ctx context.Context, store Store, err error) error {
	late := (*lateError)(nil)
	d, can := store.(Diagnoser)
	if !can || ctx.Err() != nil || !errors.As(err, &late) {
		return err
	}
	if why := d.Diagnose(ctx); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// Why a node has to join again, at once.
var (
	errDispossessed = errors.New("the key of this node is gone, or another's")
	errWentBack     = errors.New("the store has gone back to an earlier state: was it restored from a backup?")
)

// loses makes the node join again.
func (n *Node) loses(why error) {
	select {
	case n.lost <- why:
	default:
	}
}

// membership joins the fleet and stays in it. It returns why the node is in it no more, and
// whether it was.
func (n *Node) membership(ctx context.Context) (joined bool, _ error) {
	if err := n.recollect(); err != nil {
		return false, err
	}
	if err := n.occupy(); err != nil {
		return false, err
	}
	connected, err := n.opt.Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = connected.Close() }()
	store := &attentive{connected, n}
	renewed := time.Now() // the lease begins later
	lease, revision, err := n.claim(ctx, store)
	leaving := ctx
	defer func() { // a node that joins again keeps its place
		if lease != 0 && (!joined || leaving.Err() != nil) {
			n.release(store, lease)
		}
	}()
	if err != nil {
		return false, diagnosed(ctx, connected, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watched := make(chan error, 1)
	watch := func(after int64) {
		watching.Go(func() { watched <- store.Watch(ctx, n.prefix(), after, n.hear) })
	}
	watch(revision)
	watching.Go(func() { n.doubt(ctx, store) })
	tick := time.NewTicker(n.renewEvery())
	defer tick.Stop()
	again := false // something has failed
	for {
		var err error
		refused := false
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case err := <-n.lost:
			return true, err
		case err = <-watched:
			if !errors.Is(err, ErrCompacted) {
				return true, err
			}
			var entries []Entry
			if entries, revision, err = n.get(ctx, store, n.prefix()); err != nil {
				return true, err
			}
			n.hearAll(entries, revision)
			watch(revision)
			continue
		case <-n.publish:
			refused, err = n.round(ctx, store, lease, false, false)
		case <-n.doubted:
			refused, err = n.round(ctx, store, lease, false, true)
		case <-tick.C:
			began := time.Now()
			if err = n.renew(ctx, store, lease, renewed); err == nil {
				renewed = began
				if again {
					again = false
					tick.Reset(n.renewEvery())
				}
				refused, err = n.round(ctx, store, lease, true, false)
			}
		}
		switch {
		case err == nil:
		case n.isLost(err) || time.Since(renewed) >= n.opt.Config.Lease:
			return true, err
		case refused: // it is asked again with the next renewal
		default: // one slow answer is not the end while the lease lasts
			again = true
			tick.Reset(renewAgain)
		}
	}
}

// renewAgain is how soon a node tries again to tell the store that it lives.
const renewAgain = 500 * time.Millisecond

// isLost tells whether an error ends the node's membership, however long its lease lasts.
func (n *Node) isLost(err error) bool {
	return errors.Is(err, ErrLeaseGone) || errors.Is(err, errDispossessed) || errors.Is(err, errWentBack)
}

// renew renews the lease. It waits for an answer as long as the lease lasts that was last
// renewed then, but no longer than for any.
func (n *Node) renew(ctx context.Context, store Store, lease Lease, then time.Time) error {
	limit := max(min(n.patience(), n.opt.Config.Lease-time.Since(then)), time.Millisecond)
	return within(ctx, limit, func(ctx context.Context) error { return store.Renew(ctx, lease) })
}

// look finds out, where there is nothing to write, whether the node's key is there, and
// whether the store is what it was: a watch says nothing if a backup has taken its place.
func (n *Node) look(ctx context.Context, store Store) error {
	n.mu.Lock()
	seen := n.revision // a watch may see more meanwhile
	n.mu.Unlock()
	entries, revision, err := n.get(ctx, store, n.nodeKey())
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if revision < seen {
		return fmt.Errorf("%w (it has revision %d, and had %d)", errWentBack, revision, seen)
	}
	n.revision = max(n.revision, revision)
	for _, e := range entries {
		if e.Key == n.nodeKey() {
			return n.recognize(e)
		}
	}
	return errDispossessed
}

// recognize takes in what the node's key has, which this process may have written although the
// answer was lost. n.mu is held.
func (n *Node) recognize(e Entry) error {
	m, err := readMember(e.Value)
	if err != nil || m.ID != n.memory.ID || m.Instance != n.instance || e.Revision < n.mine {
		return errDispossessed
	}
	n.mine, n.written = e.Revision, string(e.Value)
	return nil
}

// release ends a lease, unless another process is the node.
func (n *Node) release(store Store, lease Lease) {
	if n.isHandedOver() {
		return
	}
	_ = within(context.Background(), time.Second, func(ctx context.Context) error { return store.Revoke(ctx, lease) })
}

func (n *Node) get(ctx context.Context, store Store, prefix string) (entries []Entry, revision int64, err error) {
	err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
		entries, revision, err = store.Get(ctx, prefix)
		return err
	})
	return entries, revision, err
}

// claimTries is how often a node tries to write its key while that changes.
const claimTries = 5

// claim writes the node's key and takes in what the fleet has. A lease that it returns with an
// error has been made for nothing.
func (n *Node) claim(ctx context.Context, store Store) (lease Lease, revision int64, err error) {
	for range claimTries {
		var entries []Entry
		if entries, revision, err = n.get(ctx, store, n.prefix()); err != nil {
			return lease, 0, err
		}
		var was int64
		for _, e := range entries {
			if e.Key != n.nodeKey() {
				continue
			}
			if err := n.mayReplace(e); err != nil {
				return lease, 0, err
			}
			was = e.Revision
		}
		if lease == 0 {
			err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
				lease, err = store.Grant(ctx, n.opt.Config.Lease)
				return err
			})
			if err != nil {
				return 0, 0, err
			}
		}
		n.mu.Lock()
		fresh := n.memory.begins(n.instance)
		n.mu.Unlock()
		if fresh { // before the store knows it: the next process has to know that it is the same node
			n.rememberInTime()
		}
		value := n.self()
		var mine int64
		err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
			mine, _, err = store.Swap(ctx, n.nodeKey(), []byte(value), was, lease)
			return err
		})
		if errors.Is(err, ErrMoved) {
			continue
		}
		if err != nil {
			return lease, 0, err
		}
		select { // what an earlier membership has been told
		case <-n.lost:
		default:
		}
		n.mu.Lock()
		n.known, n.newest, n.unusable, n.emptyAt = 0, nil, nil, time.Now() // it may be another store
		n.mu.Unlock()
		last := n.latest(entries)
		n.mu.Lock()
		n.mine, n.written, n.revision = mine, value, max(mine, revision)
		others := len(n.memory.Instances) > 1
		n.memory.Instances, n.lineage = []string{n.instance}, nil
		n.store, n.why, n.told, n.since = store, nil, "", time.Now()
		n.refusal = refusal{wrote: time.Now()}
		n.running, n.holds = map[uint64]int64{}, map[string]*held{}
		n.takeAll(entries, last, revision) // before anybody sees that it has joined: there may be a hold
		n.mu.Unlock()
		if others {
			n.rememberInTime()
		}
		n.log.Info("joined the fleet", "fleet", n.opt.Config.Name, "node", n.name)
		return lease, revision, nil
	}
	return lease, 0, err
}

// mayReplace tells why this process may not take the place of the one that has the node's key.
func (n *Node) mayReplace(e Entry) error {
	m, err := readMember(e.Value)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil: // nobody writes that who is the node
		n.complain("not a node, written again", e.Key, err)
		return nil
	case m.ID != n.memory.ID:
		return fmt.Errorf("another node of the fleet has the name %q (txlb %s, since %s): give this one another name with <fleet node>, or wait until the other's lease ends",
			n.name, m.Version, m.Started.Local().Format(time.DateTime))
	case slices.Contains(n.lineage, m.Instance): // it has handed over
		return nil
	case m.Instance != n.instance && !slices.Contains(n.memory.Instances, m.Instance):
		return fmt.Errorf("another process is the node %q, with the same id: was %s copied from another machine? Delete it on one of the two", n.name, n.path)
	case m.Instance != n.instance && m.place != (place{}) && !n.where.is(m.place):
		// It may live. Only here it cannot, where this process has locked its place.
		return fmt.Errorf("the node %q was somewhere else a moment ago: on another machine, in another folder, or before this machine was booted. "+
			"This process joins when the lease of that one has ended, which takes %v at most. If this is a copy of that machine, give it another name with <fleet node>, and delete %s", n.name, n.opt.Config.Lease, n.path)
	}
	return nil
}

// tell writes the node's key if it says something else than before. It returns whether it has
// tried.
func (n *Node) tell(ctx context.Context, store Store, lease Lease) (tried bool, _ error) {
	value := n.self()
	n.mu.Lock()
	mine, same, seen := n.mine, n.written == value, n.revision
	n.mu.Unlock()
	if same {
		return false, nil
	}
	var revision int64
	var is Entry
	err := within(ctx, n.patience(), func(ctx context.Context) (err error) {
		revision, is, err = store.Swap(ctx, n.nodeKey(), []byte(value), mine, lease)
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.Is(err, ErrMoved):
		n.poke(n.publish)
		return true, n.recognize(is)
	case err != nil:
		return true, err
	case revision < seen:
		return true, fmt.Errorf("%w (it has revision %d, and had %d)", errWentBack, revision, seen)
	}
	n.mine, n.written, n.revision = revision, value, max(n.revision, revision)
	return true, nil
}

// self is what the node's key says.
func (n *Node) self() string {
	sessions, unready := n.opt.Vitals()
	n.mu.Lock()
	m := Member{
		place: n.where, ID: n.memory.ID, Instance: n.instance, Version: n.opt.Version, Started: n.started.Round(time.Second),
		Ready: unready == nil, Sessions: sessions, Generation: n.memory.Generation, Problem: n.trouble(),
	}
	if n.sharing != nil {
		m.Peer = n.opt.Config.PeerAddress()
	}
	n.mu.Unlock()
	if unready != nil {
		m.Unready = oneLine(unready)
	}
	return string(m.encode())
}
