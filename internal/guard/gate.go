package guard

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// Work is a kind of work that passes the gate. Kinds take turns, so that much of
// one does not keep out another.
type Work uint8

// The kinds of work.
const (
	KeyExchange Work = iota // of TLS and SSH
	Hash                    // of a password
	Render                  // of the metrics
	works
)

// Gate lets a few at a time do what costs the processor and what strangers can
// ask for. The others wait, first come, first served within a kind.
type Gate struct {
	places  int
	mu      sync.Mutex
	free    int
	waiting [works][]chan struct{}
	next    Work // kind whose turn it is
}

// NewGate makes a gate for the processors that the process uses now: a quarter
// of them may work at the gate, at least one and at most four.
func NewGate() *Gate {
	n := min(max(1, runtime.GOMAXPROCS(0)/4), 4)
	return &Gate{places: n, free: n}
}

// Places is how many may work at once.
func (g *Gate) Places() int { return g.places }

// Enter waits for a place, or for the end of ctx, whose error it returns then. Call
// Leave after an Enter without an error.
func (g *Gate) Enter(ctx context.Context, w Work) error {
	if g.enter(w, ctx.Done()) {
		return nil
	}
	return ctx.Err()
}

// enter is Enter that ends with done.
func (g *Gate) enter(w Work, done <-chan struct{}) bool {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	g.waiting[w] = append(g.waiting[w], mine)
	g.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-done:
	}
	g.mu.Lock()
	if i := slices.Index(g.waiting[w], mine); i >= 0 {
		g.waiting[w] = slices.Delete(g.waiting[w], i, i+1)
		g.mu.Unlock()
		return false
	}
	g.mu.Unlock()
	g.Leave() // the place was given just now
	return false
}

// Leave gives the place back.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range works {
		w := g.next
		g.next = (g.next + 1) % works
		if q := g.waiting[w]; len(q) > 0 {
			close(q[0])
			g.waiting[w] = slices.Delete(q, 0, 1)
			return
		}
	}
	g.free++
}
