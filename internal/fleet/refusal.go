package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A store may renew leases and take no writes: etcd does without space, and when a node has lost
// its rights. Such a node stays joined, so it has to say what is wrong. What shows it are the
// requests about the node's own key. A node that has nothing to write asks now and then for a
// write that cannot succeed, as no key has that revision: the store refuses it, or compares and
// changes nothing.

// probeEvery is how often a node that writes nothing asks whether it could.
const probeEvery = time.Minute

// noRevision is one that no key has.
const noRevision = -1

// refusal is what a node knows of how the store takes what it asks for. Node.mu protects it.
type refusal struct {
	failed int       // rounds in a row that have failed: one alone shows nothing
	why    error     // the last; nil: it has not
	wrote  time.Time // when a write was last taken, or compared
}

// refused is why the store does not do what this node asks, nil if it does. n.mu is held.
func (n *Node) refused() error {
	if n.store == nil || n.refusal.failed < 2 {
		return nil
	}
	return n.refusal.why
}

// round writes the node's key if it says something else than before. Otherwise it looks whether the
// key is there, if it is asked to, and whether the store takes writes, if that is not known. It
// returns whether the store is known to refuse, which is not to be asked again soon.
func (n *Node) round(ctx context.Context, store Store, lease Lease, looks, doubts bool) (refused bool, err error) {
	what := "write to"
	wrote, err := n.tell(ctx, store, lease)
	if err == nil && !wrote && looks {
		what, err = "read from", n.look(ctx, store)
	}
	if err == nil && !wrote && (doubts || n.probes()) {
		what, wrote, err = "write to", true, n.probe(ctx, store, lease)
	}
	if ctx.Err() != nil || n.isLost(err) {
		return false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &n.refusal
	if wrote && err == nil {
		r.wrote = time.Now()
	}
	switch {
	case err != nil:
		r.failed++
		r.why = fmt.Errorf("it cannot %s the store: %w", what, err)
		if r.failed == 2 {
			n.log.Warn("the store refuses what this node asks", "fleet", n.opt.Config.Name, "node", n.name, "err", oneLine(r.why))
		}
	case wrote:
		if r.failed >= 2 {
			n.log.Info("the store does again what this node asks", "fleet", n.opt.Config.Name, "node", n.name)
		}
		r.failed, r.why = 0, nil
	}
	return r.failed >= 2, err
}

// probes tells whether it has to be found out that the store takes writes.
func (n *Node) probes() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refusal.failed > 0 || time.Since(n.refusal.wrote) >= probeEvery
}

// probe finds out whether the store takes writes, and whether the node's key is there.
func (n *Node) probe(ctx context.Context, store Store, lease Lease) error {
	n.mu.Lock()
	value := []byte(n.written)
	n.mu.Unlock()
	var is Entry
	err := within(ctx, n.patience(), func(ctx context.Context) (err error) {
		_, is, err = store.Swap(ctx, n.nodeKey(), value, noRevision, lease)
		return err
	})
	if !errors.Is(err, ErrMoved) {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.recognize(is)
}
