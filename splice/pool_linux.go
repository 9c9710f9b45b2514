package splice

import (
	"errors"
)

const (
	// smallest is the capacity below which a pipe is not worth its two
	// descriptors: a copy of that much costs less than the calls around it.
	smallest = 64 << 10
	// spare is how many unused pipes a pool keeps open.
	spare = 16
	// patience is how many further Gets fail without asking the kernel after
	// one that the kernel refused.
	patience = 1024
)

// ErrExhausted is returned by Get when another pipe would pass the pool's
// limit or the kernel's quota. The caller copies instead.
var ErrExhausted = errors.New("no pipe to be had: the pool's limit or the kernel's quota is reached")

// Pool lends pipes to one goroutine. The zero value is not usable.
type Pool struct {
	size  int   // bytes asked for each pipe
	limit int64 // bytes that all pipes of the pool may be able to hold
	total int64 // bytes that its open pipes can hold
	lent  int
	free  []*Pipe // all empty
	wait  int     // Gets to refuse before the kernel is asked again
}

// NewPool returns a pool of pipes of size bytes whose capacities add up to at
// most limit bytes.
func NewPool(size int, limit int64) *Pool {
	return &Pool{size: size, limit: limit, free: make([]*Pipe, 0, spare)}
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
	if p.total+int64(p.size) > p.limit {
		return nil, ErrExhausted
	}
	pipe, err := NewPipe(p.size)
	if err != nil {
		p.wait = patience
		return nil, errors.Join(ErrExhausted, err)
	}
	if pipe.size < min(smallest, p.size) {
		p.wait = patience
		return nil, errors.Join(ErrExhausted, pipe.Close())
	}
	p.total += int64(pipe.size)
	p.lent++
	return pipe, nil
}

// Put takes a pipe back. One that still holds bytes is closed.
func (p *Pool) Put(pipe *Pipe) {
	p.lent--
	if pipe.held == 0 && len(p.free) < spare {
		p.free = append(p.free, pipe)
		return
	}
	p.total -= int64(pipe.size)
	_ = pipe.Close() // nothing to be done about it, and the descriptors are gone
}

// Lent returns how many pipes are lent.
func (p *Pool) Lent() int { return p.lent }

// Open returns how many pipes exist, lent ones included.
func (p *Pool) Open() int { return p.lent + len(p.free) }

// Close closes the pipes that are not lent.
func (p *Pool) Close() {
	for _, pipe := range p.free {
		p.total -= int64(pipe.size)
		_ = pipe.Close()
	}
	p.free = p.free[:0]
}
