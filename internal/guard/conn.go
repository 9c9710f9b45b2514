package guard

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection that was let in. Close gives its place back.
//
// While its handshake runs it holds a place of the gate, except where it waits
// for the client in Read or Write: a slow client keeps nobody out. What the
// client has sent is worked on when the place comes.
type Conn struct {
	net.Conn
	door   *door
	source netip.Prefix

	used     atomic.Int64 // when it was last used, as Unix nanoseconds
	loggedIn atomic.Bool
	working  atomic.Int32  // more than 0: it is not to be evicted
	left     atomic.Int64  // bytes that it may send before its login; see bounded
	bounded  atomic.Bool   // left counts
	gated    atomic.Bool   // it is in its handshake
	closed   chan struct{} // with Close
	closing  func() error

	mu     sync.Mutex
	login  *time.Timer   // nil: it has no time to keep to
	held   bool          // a place of the gate
	in     int           // goroutines that wait for the client in Read
	asking chan struct{} // closed when a goroutine that waits for a place has it; nil: none does
	ended  bool          // by Close
	late   *time.Timer   // gives the place back if nobody else does
}

// maxHold is how long a connection keeps a place of the gate at most. It is for
// a peer whose messages are read but not worked on.
const maxHold = time.Second

// errTooLong is the end of a connection that sends too much before its login.
var errTooLong = errors.New("too many bytes before the login")

func (d *door) conn(c net.Conn, from netip.Addr) *Conn {
	g := &Conn{Conn: c, door: d, source: sourceOf(from), closed: make(chan struct{})}
	g.closing = sync.OnceValue(g.end)
	g.Used()
	if d.limits.LoginBytes > 0 {
		g.left.Store(d.limits.LoginBytes)
		g.bounded.Store(true)
	}
	return g
}

// begin starts the time for the login.
func (c *Conn) begin() {
	if c.door.limits.Login == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended { // it was evicted at once
		return
	}
	c.login = time.AfterFunc(c.door.limits.Login, func() {
		select {
		case <-c.closed:
		default:
			c.door.rejects(LoginTimeout, c.source)
			_ = c.Close()
		}
	})
}

// Used says that the client has asked for something. What only comes in, such
// as half a header, is no use.
func (c *Conn) Used() { c.used.Store(time.Now().UnixNano()) }

// Working keeps the connection from being evicted until the function that it
// returns is called.
func (c *Conn) Working() (done func()) {
	c.working.Add(1)
	return func() {
		c.Used()
		c.working.Add(-1)
	}
}

// before tells whether c has to go before o.
func (c *Conn) before(o *Conn) bool {
	if in, other := c.loggedIn.Load(), o.loggedIn.Load(); in != other {
		return other
	}
	return c.used.Load() < o.used.Load()
}

// Handshake begins what has to pass the gate. Settled or LoggedIn ends it.
func (c *Conn) Handshake() { c.gated.Store(true) }

// Settled ends the handshake and its time. The client may still be anybody.
func (c *Conn) Settled() {
	c.gated.Store(false)
	c.Yield()
	c.untimed()
}

// untimed ends the time for the login.
func (c *Conn) untimed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.login != nil {
		c.login.Stop()
	}
}

// LoggedIn says that the client is a user: it is no stranger any more.
func (c *Conn) LoggedIn() {
	if c.loggedIn.Load() {
		return
	}
	c.bounded.Store(false)
	c.loggedIn.Store(true)
	c.Used()
	c.Settled()
}

// Yield gives back the place of the gate, for work that enters the gate by
// itself or that is none. The next Read takes one again.
func (c *Conn) Yield() { c.waiting(0) }

// waiting counts goroutines that wait for the client, and gives back the place
// of the gate.
func (c *Conn) waiting(more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in += more
	if c.held {
		c.held = false
		c.late.Stop()
		c.door.gate.Leave()
	}
}

// hold takes a place of the gate, unless the connection has one. One goroutine
// waits for it on behalf of all. It is false if the connection was closed
// meanwhile.
func (c *Conn) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.settles() {
		if other := c.asking; other != nil {
			c.mu.Unlock()
			<-other
			c.mu.Lock()
			continue
		}
		asking := make(chan struct{})
		c.asking = asking
		c.mu.Unlock()
		got := c.door.gate.Gate.Enter(c.closed, KeyExchange)
		c.mu.Lock()
		c.asking = nil
		close(asking)
		switch {
		case !got:
		case c.settles():
			c.door.gate.Leave()
		default:
			c.held = true
			if c.late == nil {
				c.late = time.AfterFunc(maxHold, c.Yield)
			} else {
				c.late.Reset(maxHold)
			}
		}
	}
	return !c.ended
}

// settles tells whether no place of the gate is needed: there is one, the
// handshake is over, what comes next is the client's to send, or nothing comes
// any more. c.mu is held.
func (c *Conn) settles() bool { return c.held || c.in > 0 || c.ended || !c.gated.Load() }

// Read reads what the client sends.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.gated.Load() && !c.bounded.Load() {
		return c.Conn.Read(p)
	}
	c.waiting(1)
	n, err := c.Conn.Read(p)
	c.waiting(-1)
	if c.bounded.Load() && c.left.Add(-int64(n)) < 0 {
		c.door.rejects(LoginTooLong, c.source)
		_ = c.Close()
		return 0, errTooLong
	}
	if err == nil && c.gated.Load() && !c.hold() {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write sends to the client.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.gated.Load() {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	had := c.held
	c.mu.Unlock()
	if !had { // another goroutine waits in Read
		return c.Conn.Write(p)
	}
	c.Yield()
	n, err := c.Conn.Write(p)
	if err == nil && !c.hold() {
		return n, net.ErrClosed
	}
	return n, err
}

// Close closes the connection. It may be called more than once.
func (c *Conn) Close() error { return c.closing() }

func (c *Conn) end() error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	close(c.closed)
	c.untimed()
	err := c.Conn.Close()
	c.Yield()
	c.door.left(c)
	return err
}

// reset closes the connection without a goodbye, so that nothing of it is left
// in the kernel.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only if it is closed
	}
	_ = c.Close()
}

// evict is Close for a connection that has lost its place.
func (c *Conn) evict() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// ConnOf returns the guarded connection below c, nil if there is none.
func ConnOf(c net.Conn) *Conn {
	for {
		switch at := c.(type) {
		case *Conn:
			return at
		case interface{ NetConn() net.Conn }:
			c = at.NetConn()
		default:
			return nil
		}
	}
}
