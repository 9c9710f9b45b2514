package splice

import (
	"errors"
	"net"
	"sync"
)

type (
	smallBuffer [2 << 10]byte
	largeBuffer [64 << 10]byte
)

// The buffers are shared by all Copies of the process.
var (
	smallBuffers = sync.Pool{New: func() any { return new(smallBuffer) }}
	largeBuffers = sync.Pool{New: func() any { return new(largeBuffer) }}
)

// Source reads from a connection, for one goroutine. While the connection is silent it
// holds no buffer if that is a *net.TCPConn, a *net.UnixConn or a [Waiter], and a small one
// else. A pool has the buffers.
type Source struct {
	conn  net.Conn
	ready *readiness   // of conn; nil: nothing but a Read tells whether it has bytes
	waits Waiter       // conn; nil: it is none
	small *smallBuffer // nil: not in use
	large *largeBuffer // nil: not in use
}

// Waiter is a connection that can be tried and waited for: TryRead is a Read that does not
// wait but returns ErrNothing, and Wait waits until a try makes sense. Its error is that of
// a Read that fails, such as at a deadline.
type Waiter interface {
	TryRead(p []byte) (n int, err error)
	Wait() error
}

// ErrNothing is returned by TryRead when nothing is there yet.
var ErrNothing = errors.New("nothing to read yet")

// NewSource returns a source of a connection.
func NewSource(conn net.Conn) *Source {
	s := &Source{conn: conn, ready: readinessOf(conn)}
	s.waits, _ = conn.(Waiter)
	return s
}

// Next returns the next bytes, which are good until the next call of a method. There may be
// bytes beside an error.
func (s *Source) Next() ([]byte, error) {
	for s.waits != nil {
		if s.large == nil {
			s.takeLarge()
		}
		n, err := s.waits.TryRead(s.large[:])
		if n > 0 || !errors.Is(err, ErrNothing) {
			return s.large[:n], err
		}
		s.Release()
		if err := s.waits.Wait(); err != nil {
			return nil, err
		}
	}
	if s.ready != nil {
		s.Release()
		n, err := s.ready.read(s)
		if s.large == nil {
			return nil, err
		}
		return s.large[:n], err
	}
	// A Read holds its buffer for as long as there is nothing to read. It gets the large
	// one while the one before has filled the small one.
	if s.large != nil {
		n, err := s.conn.Read(s.large[:])
		b := s.large[:n]
		if n >= len(s.small) {
			return b, err
		}
		// Silence may follow.
		n = copy(s.small[:], b)
		s.dropLarge()
		return s.small[:n], err
	}
	if s.small == nil {
		s.small = smallBuffers.Get().(*smallBuffer)
	}
	n, err := s.conn.Read(s.small[:])
	if n == len(s.small) {
		s.takeLarge() // for the next
	}
	return s.small[:n], err
}

func (s *Source) takeLarge() { s.large = largeBuffers.Get().(*largeBuffer) }

func (s *Source) dropLarge() {
	largeBuffers.Put(s.large)
	s.large = nil
}

// Release gives the buffers back. The source can be used further.
func (s *Source) Release() {
	if s.small != nil {
		smallBuffers.Put(s.small)
		s.small = nil
	}
	if s.large != nil {
		s.dropLarge()
	}
}
