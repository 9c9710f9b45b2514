package console

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// Options describe a terminal.
type Options struct {
	Width, Height int  // in letters; 0: 80 and 24
	Color         bool // it shows colours, and its user wants them
}

// Terminal is a terminal in raw mode. One goroutine reads it until reading fails: the
// owner of the Terminal closes its input, and may then Wait. Shell, Line and Top may
// only be called one after the other; Resize and Interrupt at any time.
//
// A command that writes waits for the terminal. A Writer with a time limit ends that
// with an error.
type Terminal struct {
	rw    io.ReadWriter
	style Style
	input input
}

// New makes a Terminal and starts to read it.
func New(rw io.ReadWriter, opt Options) *Terminal {
	t := &Terminal{rw: rw, style: Style{Color: opt.Color}, input: newInput()}
	t.Resize(opt.Width, opt.Height)
	go t.input.read(rw)
	return t
}

// Wait returns when the terminal is no longer read.
func (t *Terminal) Wait() { <-t.input.ended }

// Resize sets the size of the terminal.
func (t *Terminal) Resize(width, height int) {
	if width <= 0 {
		width = 80
	}
	if height <= 0 {
		height = 24
	}
	const most = 1000 // more is no terminal, and costs memory
	in := &t.input
	in.mu.Lock()
	in.size = size{min(width, most), min(height, most)}
	in.mu.Unlock()
	in.resized.set()
}

// Interrupt does what Ctrl-C does: it stops the running command and drops the keys
// typed ahead; without a command, it drops the line being typed.
func (t *Terminal) Interrupt() { t.input.interrupt() }

// size is how large a terminal is, in letters.
type size struct{ width, height int }

// flag wakes one goroutine that waits for it. Setting it twice is the same as once.
type flag chan struct{}

func (f flag) set() {
	select {
	case f <- struct{}{}:
	default:
	}
}

// typed is a key with where it came from.
type typed struct {
	key    key
	pasted bool
}

// typedAhead is how many keys are buffered. Then reading pauses.
const typedAhead = 32 << 10

// input is what was typed and not yet taken.
type input struct {
	mu    *sync.Mutex
	queue []typed
	size  size
	stop  context.CancelCauseFunc // of the command that runs, nil without
	err   error                   // why reading has ended
	left  bool                    // nobody will take keys any more

	ready, room, resized flag
	ended                chan struct{}
}

func newInput() input {
	return input{
		mu: new(sync.Mutex), ended: make(chan struct{}),
		ready: make(flag, 1), room: make(flag, 1), resized: make(flag, 1),
	}
}

// read takes keys in until reading fails.
func (in *input) read(from io.Reader) {
	var d decoder
	buf := make([]byte, 4<<10)
	defer close(in.ended)
	for {
		n, err := from.Read(buf)
		for _, b := range buf[:n] {
			// The byte that ends a paste belongs to it, and gives no key.
			if k, ok := d.feed(b); ok {
				in.put(typed{k, d.paste})
			}
		}
		if k, ok := d.rest(); ok {
			in.put(typed{k, false})
		}
		if err != nil {
			in.mu.Lock()
			in.err = err
			if in.stop != nil && in.gone() {
				in.stop(errHangup)
			}
			in.mu.Unlock()
			in.ready.set()
			return
		}
	}
}

// put adds a key. It waits while the buffer is full, except for Ctrl-C.
func (in *input) put(t typed) {
	if t.key == keyCtrlC {
		in.interrupt()
		return
	}
	in.mu.Lock()
	for len(in.queue) >= typedAhead && !in.left {
		in.mu.Unlock()
		<-in.room
		in.mu.Lock()
	}
	if !in.left {
		in.queue = append(in.queue, t)
	}
	in.mu.Unlock()
	in.ready.set()
}

func (in *input) interrupt() {
	in.mu.Lock()
	if in.stop != nil {
		in.stop(errStopped)
		in.queue = nil
		in.room.set()
	} else if !in.left && len(in.queue) < 2*typedAhead {
		in.queue = append(in.queue, typed{key: keyCtrlC})
	}
	in.mu.Unlock()
	in.ready.set()
}

// gone tells whether reading the terminal has failed. The caller holds mu.
func (in *input) gone() bool { return in.err != nil && !errors.Is(in.err, io.EOF) }

// abandon drops all further keys, and wakes a reader that waits for room.
func (in *input) abandon() {
	in.mu.Lock()
	in.queue, in.left = nil, true
	in.mu.Unlock()
	in.room.set()
}

// during returns a context that Ctrl-C ends, and a function that ends its use.
func (in *input) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	in.mu.Lock()
	in.stop = stop
	if in.gone() {
		stop(errHangup)
	}
	in.mu.Unlock()
	return ctx, func() {
		in.mu.Lock()
		in.stop = nil
		in.mu.Unlock()
		stop(nil)
	}
}

// take removes the next key. With typedOnly it skips pasted keys, which stay.
func (in *input) take(typedOnly bool) (k key, ok bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := 0
	if typedOnly {
		i = slices.IndexFunc(in.queue, func(t typed) bool { return !t.pasted })
	}
	if i < 0 || i >= len(in.queue) {
		return 0, false, in.err
	}
	k = in.queue[i].key
	if i == 0 {
		in.queue = in.queue[1:]
	} else {
		in.queue = slices.Delete(in.queue, i, i+1)
	}
	in.room.set()
	return k, true, nil
}

func (in *input) current() size {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.size
}

// event is what a live view waits for.
type event uint8

const (
	eventKey event = iota
	eventTick
	eventResize
)

// next waits for a key, a tick or a new size.
func (in *input) next(ctx context.Context, tick <-chan time.Time) (event, key, error) {
	for {
		if k, ok, err := in.take(false); ok || err != nil {
			return eventKey, k, err
		}
		select {
		case <-ctx.Done():
			return 0, 0, context.Cause(ctx)
		case <-tick:
			return eventTick, 0, nil
		case <-in.resized:
			return eventResize, 0, nil
		case <-in.ready:
		}
	}
}
