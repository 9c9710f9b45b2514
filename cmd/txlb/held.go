package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// held is the listener of a surface. Another process may get its socket: then it accepts
// nothing for a while, or never again, and who waits in Accept notices nothing. All methods
// may be called from any goroutine.
type held struct {
	net.Listener
	done chan struct{} // closed by Close

	mu       sync.Mutex
	paused   chan struct{} // closed when it accepts again; nil: it accepts
	released bool
	closed   bool
}

func newHeld(ln net.Listener) *held { return &held{Listener: ln, done: make(chan struct{})} }

// Accept waits while the listener is paused.
func (h *held) Accept() (net.Conn, error) {
	for {
		c, err := h.Listener.Accept()
		if err == nil {
			return c, nil
		}
		wait, again := h.state()
		if !wait {
			return nil, err
		}
		select {
		case <-again:
		case <-h.done:
			return nil, net.ErrClosed
		}
	}
}

// state tells what to do after a failed accept: give up, or try again when again is closed.
func (h *held) state() (wait bool, again <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.closed && (h.released || h.paused != nil), h.paused
}

// pause makes Accept wait until resume. Clients wait in the kernel meanwhile, unless
// another process accepts them.
func (h *held) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused == nil && !h.released {
		h.paused = make(chan struct{})
		h.until(time.Unix(1, 0))
	}
}

func (h *held) resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused != nil && !h.released {
		h.until(time.Time{})
		close(h.paused)
		h.paused = nil
	}
}

// until sets the time at which Accept gives up.
func (h *held) until(t time.Time) {
	if ln, ok := h.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = ln.SetDeadline(t)
	}
}

// release closes the listener, which another process has now. The file of a UNIX socket
// stays. Accept waits until Close.
func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.released {
		return
	}
	h.released, h.paused = true, nil
	if ln, ok := h.Listener.(interface{ Leave() error }); ok {
		_ = ln.Leave()
		return
	}
	_ = h.Listener.Close()
}

// Close closes the listener.
func (h *held) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return net.ErrClosed
	}
	h.closed = true
	close(h.done)
	if h.released {
		return nil
	}
	return h.Listener.Close()
}

// File returns a duplicate of the socket.
func (h *held) File() (*os.File, error) {
	ln, ok := h.Listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("the listener of %v has no descriptor", h.Addr())
	}
	return ln.File()
}

// SyscallConn implements [syscall.Conn].
func (h *held) SyscallConn() (syscall.RawConn, error) {
	ln, ok := h.Listener.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return ln.SyscallConn()
}
