package fleet

import (
	"context"
	"sync"
	"time"
)

// joinWithin is how long after its start a node lets orders wait until it has joined.
const joinWithin = 5 * time.Second

// arrival is what orders wait for that come while a node is joining: a script that upgrades a
// node and then changes something must not meet the moment between two processes.
type arrival struct {
	over   chan struct{}
	begins func() // lets the time run, once
	ends   func() // closes over, once
}

func newArrival() arrival {
	a := arrival{over: make(chan struct{})}
	a.begins = sync.OnceFunc(func() { time.AfterFunc(joinWithin, a.ends) })
	a.ends = sync.OnceFunc(func() { close(a.over) })
	return a
}

// Await waits until this node runs what its fleet has, or knows why it cannot, for
// [director.Options].Fleet. It waits until five seconds after the start at most: later, a node
// that has left its fleet says so at once.
func (n *Node) Await(ctx context.Context) {
	select {
	case <-n.arrival.over:
		return
	default:
	}
	select {
	case <-n.arrival.over:
	case <-ctx.Done():
	case <-time.After(joinWithin): // Run has not begun
	}
}
