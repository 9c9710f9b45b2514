package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// orders is what a node knows of the order of its fleet. Node.mu guards the fields that have no
// other owner.
type orders struct {
	glance     chan struct{} // there may be something to do
	plan       *Order        // that the store has; nil: none that can be used
	orderAt    int64         // revision of its key; 0: there is none
	orderBad   error         // why what the store has cannot be used
	orderGone  int64         // revision at which this node has deleted one
	obeyed     string        // what came of what this process has been told; "": it goes on
	tried      string        // the order that this process has obeyed, for the goroutine that does
	orderMoved chan struct{} // closed, and replaced, when one of the above has changed
}

func newOrders() orders {
	return orders{glance: make(chan struct{}, 1), orderMoved: make(chan struct{})}
}

func (n *Node) orderKey() string { return n.prefix() + "order" }

// hearOrder takes in what the key of the order has. n.mu is held.
func (n *Node) hearOrder(e Entry) {
	if e.Revision <= max(n.orderAt, n.orderGone) {
		return
	}
	n.forgetOrder()
	if e.Deleted {
		return
	}
	n.orderAt = e.Revision
	if n.plan, n.orderBad = readOrder(e.Value); n.orderBad != nil {
		n.orderBad = fmt.Errorf("what the store has in %s cannot be used: %w", e.Key, n.orderBad)
		n.complain("not an order, ignored", e.Key, n.orderBad)
	}
}

// forgetOrder notes that there is no order. n.mu is held.
func (n *Node) forgetOrder() {
	n.plan, n.orderAt, n.orderBad = nil, 0, nil
	n.tellWaiters()
}

// tellWaiters wakes who waits for an order. n.mu is held.
func (n *Node) tellWaiters() {
	close(n.orderMoved)
	n.orderMoved = make(chan struct{})
}

// putOrder writes an order over the one that this node has had. The error is ErrMoved if there
// is another one by now, which the node then knows.
func (n *Node) putOrder(ctx context.Context, was, o *Order) error {
	n.mu.Lock()
	store, why, at, is := n.store, n.why, n.orderAt, n.plan
	n.mu.Unlock()
	switch {
	case store == nil:
		return why
	case is != was:
		n.poke(n.glance)
		return ErrMoved
	}
	return n.swapOrder(ctx, store, at, o)
}

// Order makes nodes obey: one after the other, this one last. Without nodes it is all. It
// returns when all are done, or when this process has done its part and is not the node any
// more. The error says why nothing was begun, or where it has stopped and what is done. If ctx
// ends before, the nodes go on, and there is no error. Only one order at a time is accepted.
func (n *Node) Order(ctx context.Context, verb string, nodes []string, by, from string) (*Order, error) {
	n.Await(ctx)
	n.mu.Lock()
	members := maps.Clone(n.members)
	err := n.refuses()
	if err == nil && n.orderBad != nil {
		err = fmt.Errorf("%w; delete it: upgrade --cancel", n.orderBad)
	}
	was := n.plan
	v := sight{members: members, lease: n.opt.Config.Lease}
	if n.newest != nil {
		v.generation = n.newest.Generation
	}
	n.mu.Unlock()
	if err != nil {
		return nil, &RefusedError{n.opt.Config.Name, err}
	}
	if was != nil && !was.over() {
		return nil, n.occupied(was)
	}
	o, err := newOrder(verb, nodes, members, n.name)
	if err != nil {
		return nil, err
	}
	o.By, o.From = by, from
	if verb == Upgrade {
		for _, s := range o.Steps {
			if err := v.unfit(s.Node); err != nil {
				return nil, fmt.Errorf("nothing was begun: node %s %w; all nodes that are upgraded have to be ready", s.Node, err)
			}
		}
	}
	switch err := n.putOrder(ctx, was, o); {
	case errors.Is(err, ErrMoved):
		n.mu.Lock()
		is := n.plan
		n.mu.Unlock()
		if is == nil {
			return nil, &RefusedError{n.opt.Config.Name, err}
		}
		return nil, n.occupied(is)
	case errors.As(err, new(*UnknownError)):
		return nil, fmt.Errorf("the store of fleet %s has not said whether it takes the order, which may still take effect (see show fleet): %w", n.opt.Config.Name, err)
	case err != nil:
		return nil, &RefusedError{n.opt.Config.Name, err}
	}
	n.log.Info("the fleet is told", "verb", verb, "order", o.ID, "nodes", len(o.Steps), "by", by)
	return n.await(ctx, o)
}

// occupied refuses an order because of another one.
func (n *Node) occupied(o *Order) error {
	return fmt.Errorf("the fleet has an order already, and carries out one at a time: %s by %s on %s, %s: wait until it is done, or cancel it: upgrade --cancel", o.Verb, o.By, o.Node, o.Summary())
}

// await waits for the end of an order.
func (n *Node) await(ctx context.Context, o *Order) (*Order, error) {
	for {
		n.mu.Lock()
		is, moved, obeyed, joined := n.plan, n.orderMoved, n.obeyed, n.store != nil
		n.mu.Unlock()
		switch {
		case is != nil && is.ID == o.ID:
			o = is
		case joined && obeyed == "":
			return o, errors.New("somebody has deleted the order from the store: nodes that have not begun stay as they are")
		}
		if o.over() {
			return o, o.Err()
		}
		if obeyed != "" { // by this process, which is the last
			o = o.clone()
			o.Answer = obeyed
			return o, nil
		}
		select {
		case <-ctx.Done():
			return o, nil
		case <-moved:
		}
	}
}

// lookAgain is how long a node waits after the store has not taken what it says about an order.
const lookAgain = time.Second

// seen is what a node judges for how long.
type seen struct {
	stage      string
	since      time.Time
	generation uint64 // of the fleet then
}

// oversee is the goroutine that obeys orders, and judges how others do.
func (n *Node) oversee(ctx context.Context) {
	var is seen
	for {
		var again <-chan time.Time
		if wait := n.attend(ctx, &is); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-n.glance:
		case <-again:
		}
	}
}

// attend does what is to be done now for an order. It returns when to look again if nothing
// changes before; 0: never.
func (n *Node) attend(ctx context.Context, is *seen) time.Duration {
	n.mu.Lock()
	o := n.plan
	if o == nil || o.over() || o.current() == len(o.Steps) || n.store == nil || n.handedOver || n.obeyed != "" {
		n.mu.Unlock()
		*is = seen{}
		return 0
	}
	v := sight{members: maps.Clone(n.members), lease: n.opt.Config.Lease}
	// Without a configuration that it can use, a node judges and obeys as well: nobody else would
	// judge, and it may be told to shut down because of that.
	generation := n.memory.Generation
	if n.newest != nil {
		generation = n.newest.Generation
	}
	n.mu.Unlock()
	if stage := o.stage(v.members); stage != is.stage {
		*is = seen{stage, time.Now(), generation}
	}
	i := o.current()
	if s := &o.Steps[i]; s.Node == n.name && s.State != Waiting && s.Instance == n.instance && n.opt.Obey != nil && n.tried != o.ID {
		return n.obey(ctx, o, i)
	}
	if o.judge(v.members) != n.name {
		return 0
	}
	v.generation, v.waited = is.generation, time.Since(is.since)
	to, after := o.next(v)
	if to == nil {
		return after
	}
	err := n.putOrder(ctx, o, to)
	if errors.Is(err, ErrMoved) {
		return 0
	}
	if err != nil {
		return lookAgain
	}
	if to.Problem != "" {
		n.log.Warn("the fleet has stopped what it was told", "verb", o.Verb, "order", o.ID, "err", to.Problem)
	} else {
		n.log.Info("the fleet goes on with what it was told", "verb", o.Verb, "order", o.ID, "node", to.Steps[i].Node, "state", to.Steps[i].State)
	}
	return 0
}

// obey does what this process is told by a step of an order, and writes why if it fails.
func (n *Node) obey(ctx context.Context, o *Order, i int) time.Duration {
	if o.Steps[i].State == Asked {
		begun := o.at(i, Begun)
		if o.Verb == Shutdown {
			begun.Steps[i].Grace = n.opt.Grace
		}
		err := n.putOrder(ctx, o, begun)
		if errors.Is(err, ErrMoved) {
			return 0
		}
		if err != nil {
			return lookAgain
		}
	}
	n.tried = o.ID
	by := o.By + " on node " + o.Node
	n.log.Info("told by the fleet", "verb", o.Verb, "order", o.ID, "by", by, "from", o.From)
	answer, err := n.opt.Obey(ctx, o.Verb, by, o.From)
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.obeyed = answer
		n.tellWaiters()
		return 0
	}
	for ctx.Err() == nil {
		n.mu.Lock()
		is := n.plan
		n.mu.Unlock()
		if is == nil || is.ID != o.ID || is.over() {
			return 0
		}
		put := n.putOrder(ctx, is, is.stopped(i, "node %s: %s", n.name, oneLine(err)))
		if put == nil {
			return 0
		}
		if !errors.Is(put, ErrMoved) {
			select {
			case <-ctx.Done():
			case <-time.After(lookAgain):
			}
		}
	}
	return 0
}
