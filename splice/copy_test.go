package splice

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCopy(t *testing.T) {
	a, src := net.Pipe()
	dst, b := net.Pipe()
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		_, _ = a.Write(want)
		_ = a.Close()
	}()
	moved := 0
	done := make(chan error, 1)
	go func() {
		done <- Copy(dst, src, func(n int) { moved += n })
		_ = dst.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came, or others: %v", len(got), len(want), err)
	}
	if err := <-done; err != nil || moved != len(want) {
		t.Errorf("moved %d: %v", moved, err)
	}
}

func TestCopyTellsWhichSideFailed(t *testing.T) {
	a, src := net.Pipe()
	dst, b := net.Pipe()
	defer func() { _ = a.Close() }()
	_ = src.SetReadDeadline(time.Unix(1, 0))
	if err := Copy(dst, src, func(int) {}); !errors.Is(err, ErrRead) || errors.Is(err, ErrWrite) {
		t.Errorf("a read that fails: %v", err)
	}
	_ = src.SetReadDeadline(time.Time{})
	_ = b.Close()
	go func() { _, _ = a.Write([]byte("x")) }()
	if err := Copy(dst, src, func(int) {}); !errors.Is(err, ErrWrite) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write that fails: %v", err)
	}
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(dialled.Close(), accepted.Close()) })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// hidden is a connection that does not show what it is.
type hidden struct{ net.Conn }

// A stream that stops, goes on and ends, from a connection of the system's and from
// another.
func TestCopyFromTCP(t *testing.T) {
	for name, hide := range map[string]bool{"TCP": false, "hidden": true} {
		t.Run(name, func(t *testing.T) {
			a, from := tcpPair(t)
			to, b := tcpPair(t)
			var src net.Conn = from
			if hide {
				src = hidden{from}
			}
			done := make(chan error, 1)
			go func() {
				err := Copy(to, src, func(int) {})
				_ = to.CloseWrite()
				done <- err
			}()
			for _, size := range []int{1, len(smallBuffer{}) - 1, len(smallBuffer{}), len(smallBuffer{}) + 1, 300_000, 1, 100_000} {
				want := bytes.Repeat([]byte{byte(size), byte(size >> 8), 7}, size/3+1)[:size]
				go func() { _, _ = a.Write(want) }()
				got := make([]byte, size)
				if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("of %d bytes others came: %v", size, err)
				}
			}
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(b); err != nil || len(rest) > 0 {
				t.Errorf("%d bytes more: %v", len(rest), err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// What ends a Copy early is told: a deadline, a reset, a close.
func TestCopyFromTCPFails(t *testing.T) {
	for name, end := range map[string]func(a, from *net.TCPConn){
		"deadline": func(_, from *net.TCPConn) { _ = from.SetReadDeadline(time.Unix(1, 0)) },
		"reset":    func(a, _ *net.TCPConn) { _ = errors.Join(a.SetLinger(0), a.Close()) },
		"close":    func(_, from *net.TCPConn) { _ = from.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, from := tcpPair(t)
			to, b := tcpPair(t)
			done := make(chan error, 1)
			go func() { done <- Copy(to, from, func(int) {}) }()
			if _, err := a.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			end(a, from)
			err := <-done
			want := map[string]error{"deadline": os.ErrDeadlineExceeded, "reset": syscall.ECONNRESET, "close": net.ErrClosed}[name]
			if !errors.Is(err, ErrRead) || !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

// Copies that wait hold next to nothing.
func TestCopyWaitsWithoutABuffer(t *testing.T) {
	const count, most = 100, 8 << 10
	for name, hide := range map[string]bool{"TCP": false, "hidden": true} {
		t.Run(name, func(t *testing.T) {
			var copying sync.WaitGroup
			var ends []*net.TCPConn
			heap := func() uint64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC() // what the pools had at the first is gone
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before := heap()
			for range count {
				a, from := tcpPair(t)
				to, b := tcpPair(t)
				var src net.Conn = from
				if hide {
					src = hidden{from}
				}
				copying.Go(func() { _ = Copy(to, src, func(int) {}) })
				ends = append(ends, a)
				for range 2 {
					if _, err := a.Write(make([]byte, 100_000)); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(b, make([]byte, 100_000)); err != nil {
						t.Fatal(err)
					}
				}
				// The last bytes are few, so that no buffer is full when they are out.
				if _, err := a.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			if each := (int64(heap()) - int64(before)) / count; each > most {
				t.Errorf("a Copy that waits holds %d bytes, want %d at most", each, most)
			}
			for _, a := range ends {
				_ = a.Close()
			}
			copying.Wait()
		})
	}
}

// tried is a connection that can be tried and waited for.
type tried struct {
	net.Conn
	t     *testing.T
	from  *Source
	bytes chan []byte
	next  []byte
}

func (c *tried) TryRead(p []byte) (int, error) {
	if c.next == nil {
		return 0, fmt.Errorf("as always: %w", ErrNothing)
	}
	n := copy(p, c.next)
	c.next = nil
	return n, nil
}

func (c *tried) Wait() error {
	if c.from.small != nil || c.from.large != nil {
		c.t.Error("a buffer is held")
	}
	ok := false
	if c.next, ok = <-c.bytes; !ok {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// A connection that can be waited for is tried first, and waited for without a buffer.
func TestSourceOfAWaiter(t *testing.T) {
	c := &tried{t: t, bytes: make(chan []byte, 2)}
	c.from = NewSource(c)
	c.bytes <- []byte("one")
	c.bytes <- []byte("two")
	close(c.bytes)
	for _, want := range []string{"one", "two"} {
		if b, err := c.from.Next(); string(b) != want || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if b, err := c.from.Next(); len(b) != 0 || err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v", b, err)
	}
}
