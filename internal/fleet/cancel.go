package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Cancel keeps the nodes that have not begun from beginning. One that has begun finishes. An order
// that has stopped before its end is forgotten, and so is one that this version cannot read. id
// is that of the order which is meant, or [Status.OrderProblemID]; "": the one that is there. It returns what it has done in
// one line, and the order as it is then. The error says why nothing was done; it wraps an
// *UnknownError if it may still be.
//
// It is a compare-and-swap of what this node has seen, so it never ends an order that came later.
func (n *Node) Cancel(ctx context.Context, id, by string) (done string, o *Order, err error) {
	n.Await(ctx)
	for {
		n.mu.Lock()
		store, why, at, was, bad := n.store, n.why, n.orderAt, n.plan, n.orderBad
		n.mu.Unlock()
		switch {
		case store == nil:
			return "", nil, &RefusedError{n.opt.Config.Name, why}
		case at == 0:
			return "", nil, errors.New("there is nothing to cancel: the fleet has no order")
		case id != "" && bad != nil && id != unreadable(at), id != "" && bad == nil && was.ID != id:
			return "", nil, errors.New("the order that was meant is not there any more: see show fleet")
		case bad == nil && was.over() && !was.Stopped():
			return "", nil, fmt.Errorf("there is nothing to cancel: %s", was.Headline())
		}
		var to *Order // nil: delete it
		if bad == nil && !was.over() {
			to = was.cancelled(by, n.name)
		}
		err := n.swapOrder(ctx, store, at, to)
		if errors.Is(err, ErrMoved) && bad == nil { // perhaps the same one, a step further
			id = was.ID
			continue
		}
		if errors.As(err, new(*UnknownError)) {
			return "", nil, fmt.Errorf("the store of fleet %s has not said whether it takes that, which may still take effect (see show fleet): %w", n.opt.Config.Name, err)
		}
		if err != nil {
			return "", nil, &RefusedError{n.opt.Config.Name, err}
		}
		switch {
		case bad != nil:
			done = "forgotten: " + oneLine(bad)
		case to == nil:
			done, o = "forgotten: "+was.Headline(), was
		default:
			done, o = to.Headline(), to
		}
		n.log.Info("an order of the fleet is cancelled", "by", by, "what", done)
		return done, o, nil
	}
}

// unreadable is the id of an order that cannot be read, by the revision of its key.
func unreadable(at int64) string { return fmt.Sprintf("revision-%d", at) }

// swapOrder writes an order over what this node has known at a revision, or deletes that: to is
// nil. The error is ErrMoved if something else is there by now, which the node then knows, and
// errWentBack if that is older, which the node would ignore.
func (n *Node) swapOrder(ctx context.Context, store Store, at int64, to *Order) error {
	var value []byte
	if to != nil {
		var err error
		if value, err = json.Marshal(to); err != nil {
			return err
		}
	}
	n.mu.Lock()
	known := max(at, n.orderGone)
	n.mu.Unlock()
	var revision int64
	var there Entry
	err := within(ctx, commitWithin, func(ctx context.Context) (err error) {
		revision, there, err = store.Swap(ctx, n.orderKey(), value, at, 0)
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.store != store: // what it had is not known here any more
	case errors.Is(err, ErrMoved) && there.Key != "" && there.Revision < known:
		n.loses(errWentBack)
		return errWentBack
	case errors.Is(err, ErrMoved):
		n.hearOrder(there.orDeleted(n.orderKey(), at))
		n.poke(n.glance)
	case err == nil && revision > n.orderAt && to == nil:
		n.forgetOrder()
		n.orderGone = revision
		n.poke(n.glance)
	case err == nil && revision > n.orderAt:
		n.plan, n.orderAt, n.orderBad = to, revision, nil
		n.tellWaiters()
		n.poke(n.glance)
	}
	return err
}

// cancelled returns a copy that somebody has ended, on a node.
func (o *Order) cancelled(by, node string) *Order {
	c := o.clone()
	c.Ended, c.Cancelled = time.Now(), true
	// Versions that do not know Cancelled show Problem, and go on with nothing that has Ended.
	c.Problem = fmt.Sprintf("cancelled by %s on node %s", by, node)
	if i := o.current(); i < len(o.Steps) && o.Steps[i].State == Begun {
		c.Problem += fmt.Sprintf("; node %s has begun and finishes", o.Steps[i].Node)
	}
	return c
}

// Stopped tells whether the order has ended before its end, and nobody has cancelled it.
func (o *Order) Stopped() bool { return o != nil && o.Problem != "" && !o.Cancelled }

// Headline is the order in one line.
func (o *Order) Headline() string {
	return fmt.Sprintf("%s by %s on %s: %s", o.Verb, printable(o.By), printable(o.Node), printable(o.Summary()))
}

// notBegun lists the nodes that have not begun.
func (o *Order) notBegun() string {
	var names []string
	for _, s := range o.Steps {
		if s.State == Waiting || s.State == Asked {
			names = append(names, s.Node)
		}
	}
	return strings.Join(names, ", ")
}

// Upgrade tells whether an upgrade of nodes goes on, as this node has last heard, and whether one
// has stopped before its end, and nobody has cancelled it or begun another one.
func (s *Status) Upgrade() (running, stopped bool) {
	o := s.Order
	if o == nil || o.Verb != Upgrade {
		return false, false
	}
	return !o.over(), o.Stopped()
}

// Cancellable tells whether there is an order to cancel, as this node has last heard.
func (s *Status) Cancellable() bool {
	return s.OrderProblem != "" || s.Order != nil && (!s.Order.over() || s.Order.Stopped())
}
