package fleet

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// wires is the network of a simulation: connections in memory between nodes, which count what
// goes through them. It has no delay and no loss, and a node can be cut off.
type wires struct {
	mu        sync.Mutex
	listeners map[string]*plug
	cut       map[string]bool // nodes that nothing reaches, and whose words reach nobody

	connections, writes, bytes atomic.Int64
}

func newWires() *wires { return &wires{listeners: map[string]*plug{}, cut: map[string]bool{}} }

// at is the network as the node with an address sees it.
func (w *wires) at(address string) *socket { return &socket{w, address} }

// silence cuts a node off, as a machine that has lost its power is.
func (w *wires) silence(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[address] = true
}

func (w *wires) isCut(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[a] || w.cut[b]
}

// socket is a peers.Network.
type socket struct {
	wires *wires
	self  string
}

// plug is a listener.
type plug struct {
	wires  *wires
	self   string
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (s *socket) Listen(_ context.Context, address string) (net.Listener, error) {
	s.wires.mu.Lock()
	defer s.wires.mu.Unlock()
	if s.wires.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
	}
	p := &plug{wires: s.wires, self: address, queue: make(chan net.Conn), closed: make(chan struct{})}
	s.wires.listeners[address] = p
	return p, nil
}

func (s *socket) Dial(ctx context.Context, address string) (net.Conn, error) {
	if s.wires.isCut(s.self, address) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.wires.mu.Lock()
	p := s.wires.listeners[address]
	s.wires.mu.Unlock()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	if p == nil {
		return nil, refused
	}
	there, back := newHalf(s, address), newHalf(s, address)
	select {
	case p.queue <- &wire{in: there, out: back, here: end(address), far: end(s.self)}:
		s.wires.connections.Add(1)
		return &wire{in: back, out: there, here: end(s.self), far: end(address)}, nil
	case <-p.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *plug) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *plug) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.wires.mu.Lock()
		defer p.wires.mu.Unlock()
		delete(p.wires.listeners, p.self)
	})
	return nil
}

func (p *plug) Addr() net.Addr { return end(p.self) }

// end is the address of a node.
type end string

func (end) Network() string  { return "tcp" }
func (e end) String() string { return string(e) }

// half is one direction of a connection, with as much room as buffers of sockets have.
type half struct {
	socket *socket
	far    string // the other node
	mu     sync.Mutex
	moved  *sync.Cond
	data   []byte
	ended  bool // nothing comes any more
	gone   bool // nobody reads any more
	read   deadline
	write  deadline
}

const halfRoom = 256 << 10

func newHalf(s *socket, far string) *half {
	h := &half{socket: s, far: far}
	h.moved = sync.NewCond(&h.mu)
	return h
}

// deadline is a deadline.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (l *deadline) over() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func (h *half) set(l *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.at = t; l.timer != nil {
		l.timer.Stop()
	}
	if !t.IsZero() {
		l.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.moved.Broadcast()
		})
	}
	h.moved.Broadcast()
}

// wire is one end of a connection.
type wire struct {
	in, out   *half
	here, far end
}

func (w *wire) Read(p []byte) (int, error) {
	h := w.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.read.over():
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0:
			n := copy(p, h.data)
			if h.data = h.data[n:]; len(h.data) == 0 {
				h.data = nil
			}
			h.moved.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

func (w *wire) Write(p []byte) (int, error) {
	h := w.out
	h.socket.wires.writes.Add(1)
	h.socket.wires.bytes.Add(int64(len(p)))
	lost := h.socket.wires.isCut(h.socket.self, h.far)
	h.mu.Lock()
	defer h.mu.Unlock()
	for done := 0; ; {
		switch {
		case h.ended:
			return done, net.ErrClosed
		case h.write.over():
			return done, os.ErrDeadlineExceeded
		case lost:
			return len(p), nil
		case h.gone:
			return done, syscall.EPIPE
		}
		n := min(len(p)-done, halfRoom-len(h.data))
		h.data = append(h.data, p[done:done+n]...)
		done += n
		h.moved.Broadcast()
		if done == len(p) {
			return done, nil
		}
		h.moved.Wait()
	}
}

func (w *wire) Close() error {
	lost := w.in.socket.wires.isCut(w.in.socket.self, w.in.far)
	for _, h := range []*half{w.in, w.out} {
		h.mu.Lock()
		for _, l := range []*deadline{&h.read, &h.write} {
			if l.timer != nil {
				l.timer.Stop()
			}
		}
		h.gone = h.gone || h == w.in
		h.ended = h.ended || h == w.out && !lost
		h.moved.Broadcast()
		h.mu.Unlock()
	}
	return nil
}

func (w *wire) LocalAddr() net.Addr  { return w.here }
func (w *wire) RemoteAddr() net.Addr { return w.far }

func (w *wire) SetDeadline(t time.Time) error {
	w.in.set(&w.in.read, t)
	w.out.set(&w.out.write, t)
	return nil
}

func (w *wire) SetReadDeadline(t time.Time) error  { w.in.set(&w.in.read, t); return nil }
func (w *wire) SetWriteDeadline(t time.Time) error { w.out.set(&w.out.write, t); return nil }
