package web

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/admin/users"
)

const (
	// maxConns is the limit of connections of the page. Each takes a descriptor
	// that a session could use.
	maxConns = 256
	// maxPerSource is the limit for one source: an IPv4 address, or a /64 of IPv6.
	// A browser opens at most six, and several may share an address.
	maxPerSource = 48
	// tellEvery is how often closed connections are logged, at most.
	tellEvery = time.Minute
)

// bounded is a listener that closes connections over its limits. So a source that
// opens connections without end uses up neither the descriptors of the process
// nor the places of other sources. Accept fails only when the listener is closed;
// after other errors, such as a lack of descriptors, it tries again.
type bounded struct {
	net.Listener
	log       *slog.Logger
	max, each int

	mu      sync.Mutex
	open    int
	sources map[netip.Prefix]int
	closed  uint64    // over the limits, since told
	told    time.Time // when that was logged
	done    chan struct{}
	once    sync.Once
}

// newBounded limits a listener to n connections; 0: maxConns.
func newBounded(ln net.Listener, conns int, log *slog.Logger) *bounded {
	if conns == 0 {
		conns = maxConns
	}
	return &bounded{
		Listener: ln, log: log, max: conns, each: min(maxPerSource, (conns+1)/2),
		sources: map[netip.Prefix]int{}, done: make(chan struct{}),
	}
}

// Accept returns the next connection within the limits.
func (b *bounded) Accept() (net.Conn, error) {
	wait := time.Duration(0)
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-b.done:
				return nil, net.ErrClosed
			case <-time.After(wait):
				continue
			}
		}
		wait = 0
		source := users.SourceOf(c.RemoteAddr().String())
		if b.take(source) {
			return &placed{Conn: c, free: sync.OnceFunc(func() { b.free(source) })}, nil
		}
		_ = c.Close()
	}
}

// Close ends Accept.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

func (b *bounded) take(source netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open < b.max && b.sources[source] < b.each {
		b.open++
		b.sources[source]++
		return true
	}
	b.closed++
	if now := time.Now(); now.Sub(b.told) >= tellEvery {
		b.log.Warn("admin page connections rejected, limit reached", "source", source.String(), "open", b.open,
			"of_the_source", b.sources[source], "closed_since", b.closed)
		b.told, b.closed = now, 0
	}
	return false
}

func (b *bounded) free(source netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if b.sources[source]--; b.sources[source] == 0 {
		delete(b.sources, source)
	}
}

// placed is a connection that frees its place when it is closed.
type placed struct {
	net.Conn
	free func()
}

// Close closes the connection.
func (p *placed) Close() error {
	defer p.free()
	return p.Conn.Close()
}
