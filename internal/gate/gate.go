// Package gate lets a few at a time do what costs the processor and what strangers can
// ask for, such as key exchanges. So the event loops keep a processor.
package gate

import (
	"slices"
	"sync"
)

// Kind is a kind of work that passes a gate: a number from 0 on. Kinds take turns, so that
// much of one does not keep out another.
type Kind uint8

// Gate has so many places. Who finds none waits: first come, first served within a kind.
// All methods may be called from any goroutine.
type Gate struct {
	places  int
	mu      sync.Mutex
	free    int
	waiting [][]chan struct{} // by kind
	next    Kind              // whose turn it is
}

// New makes a gate for so many kinds of work.
func New(places, kinds int) *Gate {
	return &Gate{places: places, free: places, waiting: make([][]chan struct{}, kinds)}
}

// Places is how many may work at once.
func (g *Gate) Places() int { return g.places }

// Free is how many places are free now.
func (g *Gate) Free() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.free
}

// Waiting is how many wait for a place now, for work of a kind.
func (g *Gate) Waiting(k Kind) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting[k])
}

// Enter waits for a place. It returns false if done is closed first. Call Leave after an
// Enter that returned true.
func (g *Gate) Enter(done <-chan struct{}, k Kind) bool {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	g.waiting[k] = append(g.waiting[k], mine)
	g.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-done:
	}
	g.mu.Lock()
	if i := slices.Index(g.waiting[k], mine); i >= 0 {
		g.waiting[k] = slices.Delete(g.waiting[k], i, i+1)
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
	for range g.waiting {
		k := g.next
		g.next = (g.next + 1) % Kind(len(g.waiting))
		if q := g.waiting[k]; len(q) > 0 {
			close(q[0])
			g.waiting[k] = slices.Delete(q, 0, 1)
			return
		}
	}
	g.free++
}
