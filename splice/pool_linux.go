package splice

import (
	"errors"
	"sync/atomic"
)

const (
	// smallest is the capacity below which a pipe is not worth its two descriptors:
	// copying that much costs less than the calls.
	smallest = 64 << 10
	// spare is how many unused pipes a pool keeps open.
	spare = 16
	// patience is how many Gets fail without asking the kernel after the kernel has
	// refused one.
	patience = 1024
)

// ErrExhausted is returned by Get when another pipe would pass the budget or
// the kernel's quota. The caller copies instead.
var ErrExhausted = errors.New("no pipe to be had: the budget or the kernel's quota is used up")

// Budget bounds what the pipes of several pools may hold together. Its methods
// may be called from any goroutine and take no lock.
type Budget struct {
	limit int64        // bytes
	used  atomic.Int64 // bytes that all open pipes can hold
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// take takes n bytes if they are there.
func (b *Budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *Budget) give(n int64) { b.used.Add(-n) }

// ample tells whether half of the budget is left. Pools keep unused pipes only
// then, so all unused pipes together never take more than half of it.
func (b *Budget) ample() bool { return b.used.Load() <= b.limit/2 }

// Pool lends pipes to one goroutine. The zero value is not usable.
type Pool struct {
	size   int // bytes asked for each pipe
	budget *Budget
	lent   int
	free   []*Pipe // all empty
	wait   int     // Gets to refuse before the kernel is asked again
}

// NewPool returns a pool of pipes of size bytes. The budget may be shared with
// other pools.
func NewPool(size int, budget *Budget) *Pool {
	return &Pool{size: size, budget: budget, free: make([]*Pipe, 0, spare)}
}

// Get lends an empty pipe.
func (p *Pool) Get() (*Pipe, error) {
	if n := len(p.free); n > 0 {
		pipe := p.free[n-1]
		p.free = p.free[:n-1]
		p.lent++
		return pipe, nil
	}
	// Slow path: open one.
	if p.wait > 0 {
		p.wait--
		return nil, ErrExhausted
	}
	if !p.budget.take(int64(p.size)) {
		return nil, ErrExhausted
	}
	pipe, err := NewPipe(p.size)
	if err != nil {
		p.budget.give(int64(p.size))
		p.wait = patience
		return nil, errors.Join(ErrExhausted, err)
	}
	p.budget.give(int64(p.size - pipe.size)) // the kernel may have granted less, or more
	if pipe.size < min(smallest, p.size) {
		p.wait = patience
		return nil, errors.Join(ErrExhausted, p.close(pipe))
	}
	p.lent++
	return pipe, nil
}

// Put takes a pipe back. One that still holds bytes is closed.
func (p *Pool) Put(pipe *Pipe) {
	p.lent--
	if pipe.held == 0 && len(p.free) < spare && p.budget.ample() {
		p.free = append(p.free, pipe)
		return
	}
	_ = p.close(pipe) // nothing to be done about it, and the descriptors are gone
}

func (p *Pool) close(pipe *Pipe) error {
	p.budget.give(int64(pipe.size))
	return pipe.Close()
}

// Reserve counts other memory as a pipe: it takes the size of one out of the budget, unless
// less than half is left. Unreserve gives it back.
func (p *Pool) Reserve() bool { return p.budget.ample() && p.budget.take(int64(p.size)) }

// Unreserve gives back what Reserve has taken.
func (p *Pool) Unreserve() { p.budget.give(int64(p.size)) }

// Size returns how many bytes a pipe is asked to hold.
func (p *Pool) Size() int { return p.size }

// Lent returns how many pipes are lent.
func (p *Pool) Lent() int { return p.lent }

// Open returns how many pipes exist, lent ones included.
func (p *Pool) Open() int { return p.lent + len(p.free) }

// Close closes the pipes that are not lent.
func (p *Pool) Close() {
	for _, pipe := range p.free {
		_ = p.close(pipe)
	}
	p.free = p.free[:0]
}
