package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	late := fmt.Errorf("the store has not answered within %v", limit)
	if errors.As(err, &unknown) {
		return &UnknownError{late}
	}
	return late
}

// membership joins the fleet and stays in it. It returns why the node is in it no more, and
// whether it was.
func (n *Node) membership(ctx context.Context) (joined bool, _ error) {
	store, err := n.opt.Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = store.Close() }()
	lease, revision, err := n.claim(ctx, store)
	leaving := ctx
	defer func() { // a node that joins again keeps its place
		if lease != 0 && (!joined || leaving.Err() != nil) {
			n.release(store, lease)
		}
	}()
	if err != nil {
		return false, err
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
	tick := time.NewTicker(n.renewEvery())
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-n.dispossessed:
			return true, errors.New("the key of this node is gone")
		case err = <-watched:
			if !errors.Is(err, ErrCompacted) {
				return true, err
			}
			var entries []Entry
			if entries, revision, err = n.get(ctx, store); err == nil {
				n.hearAll(entries)
				watch(revision)
			}
		case <-n.publish:
			err = n.tell(ctx, store, lease)
		case <-tick.C:
			err = within(ctx, n.patience(), func(ctx context.Context) error { return store.Renew(ctx, lease) })
			if err == nil {
				err = n.tell(ctx, store, lease)
			}
		}
		if err != nil {
			return true, err
		}
	}
}

// release ends a lease, unless another process is the node.
func (n *Node) release(store Store, lease Lease) {
	if n.isHandedOver() {
		return
	}
	_ = within(context.Background(), time.Second, func(ctx context.Context) error { return store.Revoke(ctx, lease) })
}

func (n *Node) get(ctx context.Context, store Store) (entries []Entry, revision int64, err error) {
	err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
		entries, revision, err = store.Get(ctx, n.prefix())
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
		if entries, revision, err = n.get(ctx, store); err != nil {
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
		case <-n.dispossessed:
		default:
		}
		n.mu.Lock()
		n.known, n.newest, n.unusable = 0, nil, nil // it may be another store
		n.mu.Unlock()
		last := n.latest(entries)
		n.mu.Lock()
		n.mine, n.written, n.former = mine, value, ""
		n.store, n.why, n.told, n.since = store, nil, "", time.Now()
		n.takeAll(entries, last) // before anybody sees that it has joined: there may be a hold
		n.mu.Unlock()
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
	case err != nil:
		return fmt.Errorf("the key %s has no node of txlb: %w; delete it", e.Key, err)
	case m.ID != n.memory.ID:
		return fmt.Errorf("another node of the fleet has the name %q (txlb %s, since %s): give this one another name with <fleet node>, or wait until the other's lease ends",
			n.name, m.Version, m.Started.Local().Format(time.DateTime))
	case m.Instance != n.instance && m.Instance != n.former:
		return fmt.Errorf("another process is the node %q, with the same id: was %s copied from another machine? Delete it on one of the two", n.name, n.path)
	}
	return nil
}

// tell writes the node's key if it says something else than before.
func (n *Node) tell(ctx context.Context, store Store, lease Lease) error {
	value := n.self()
	n.mu.Lock()
	mine, same := n.mine, n.written == value
	n.mu.Unlock()
	if same {
		return nil
	}
	var revision int64
	err := within(ctx, n.patience(), func(ctx context.Context) (err error) {
		revision, _, err = store.Swap(ctx, n.nodeKey(), []byte(value), mine, lease)
		return err
	})
	if errors.Is(err, ErrMoved) {
		err = errors.New("the key of this node is gone, or another's")
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mine, n.written = revision, value
	return nil
}

// self is what the node's key says.
func (n *Node) self() string {
	ready, sessions := n.opt.Vitals()
	n.mu.Lock()
	m := Member{
		ID: n.memory.ID, Instance: n.instance, Version: n.opt.Version, Started: n.started.Round(time.Second),
		Ready: ready, Sessions: sessions, Generation: n.memory.Generation, Problem: n.trouble(),
	}
	if n.sharing != nil {
		m.Peer = n.opt.Config.PeerAddress()
	}
	n.mu.Unlock()
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is plain data
	}
	return string(data)
}
