//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// mebibyte is the unit of bulk work.
const mebibyte = 1 << 20

// bulkRamp is how long streams run before they are measured.
const bulkRamp = 200 * time.Millisecond

// bulkLoad moves endless streams that the backend writes.
func bulkLoad(count int) workload {
	w := bulk("bulk", count, streams, readStream)
	w.title, w.how = fmt.Sprintf("Streams that a program writes: %d", count), "endless streams of write(2), a window in their middle"
	w.group = bulks
	return w
}

// fileLoad moves files that a web server sends with sendfile(2). They come in
// fragments of 4 KiB, each of which takes one of the slots of a pipe, so that a pipe
// holds less of a file than of a stream that is written.
func fileLoad(count int) workload {
	w := bulk("file", count, web, readFiles)
	w.title, w.how = fmt.Sprintf("Files that nginx sends by sendfile: %d", count), "files of 64 MiB one after the other, a window in their middle"
	w.group = files
	return w
}

// bulk is a workload of a number of streams to the client.
func bulk(name string, count int, backend string, read reader) workload {
	return workload{
		name: fmt.Sprintf("%s%d", name, count), unit: "MiB", backend: backend, with: []string{spliced}, controls: []string{usualControl, "bbr"},
		figures: figures("MiB", "MiB"), run: func(ctx context.Context, t *trial) error { return runBulk(ctx, t, count, read) },
	}
}

// runBulk measures a window in the middle of new streams, so that neither
// what is in buffers at its ends nor the start-up counts.
func runBulk(ctx context.Context, t *trial, count int, read reader) error {
	s, err := startStreams(t.to(), count, read)
	if err != nil {
		return err
	}
	defer s.close()
	if err := pause(ctx, bulkRamp); err != nil {
		return err
	}
	var before, after int64
	err = t.measure(func() (time.Duration, error) {
		before = s.moved.Load()
		err := pause(ctx, t.length)
		after = s.moved.Load()
		return 0, err
	})
	t.units, t.failed = float64(after-before)/mebibyte, int(s.failed.Load())
	if err == nil && t.units == 0 {
		err = errors.New("no byte moved")
	}
	return err
}

// reader asks for bytes over a connection and reads and counts them until it
// fails. It never returns nil: there is no end.
type reader func(c net.Conn, moved *atomic.Int64) error

// streamSet is a number of streams under way.
type streamSet struct {
	conns         []net.Conn
	work          sync.WaitGroup
	stop          chan struct{} // closed when they are ended on purpose
	moved, failed atomic.Int64  // bytes, streams
}

// startStreams opens streams and keeps them busy until close.
func startStreams(to dialer, count int, read reader) (*streamSet, error) {
	s := &streamSet{stop: make(chan struct{})}
	for range count {
		c, err := to.dial(5 * time.Second)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, c)
		s.work.Go(func() { s.keepBusy(c, read) })
	}
	return s, nil
}

func (s *streamSet) keepBusy(c net.Conn, read reader) {
	err := read(c, &s.moved)
	select {
	case <-s.stop:
	default:
		if err != nil {
			s.failed.Add(1)
		}
	}
}

func (s *streamSet) close() {
	close(s.stop)
	for _, c := range s.conns {
		c.Close()
	}
	s.work.Wait()
}

// startStalled opens streams to the client that nobody reads, and returns when
// they have filled all buffers on their way.
func startStalled(ctx context.Context, address string, count int) (*streamSet, error) {
	s := &streamSet{stop: make(chan struct{})}
	small := net.Dialer{Timeout: 5 * time.Second, Control: smallBuffer}
	for range count {
		c, err := small.DialContext(ctx, "tcp", address)
		if err == nil {
			s.conns = append(s.conns, c)
			_, err = c.Write([]byte{opDown})
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("stalled reader %d: %w", len(s.conns)+1, err)
		}
	}
	if err := quiet(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// smallBuffer leaves as much as possible of what a reader does not read in
// the buffers of the peer.
func smallBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10)
	}); e != nil {
		return e
	}
	return err
}

// quiet returns when the machine sends hardly anything any more, or after 5
// seconds at the latest.
func quiet(ctx context.Context) error {
	const step, enough, most = 100 * time.Millisecond, 100, 50
	last, err := segments()
	for range most {
		if err != nil {
			return err
		}
		if err := pause(ctx, step); err != nil {
			return err
		}
		var now uint64
		if now, err = segments(); err == nil && now-last < enough {
			return nil
		}
		last = now
	}
	return err
}

// readStream reads what the streams backend writes.
func readStream(c net.Conn, moved *atomic.Int64) error {
	if _, err := c.Write([]byte{opDown}); err != nil {
		return err
	}
	for buf := make([]byte, block); ; {
		n, err := c.Read(buf)
		moved.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// readFiles reads one large file of the web backend after the other.
func readFiles(c net.Conn, moved *atomic.Int64) error {
	buf, r := make([]byte, block), bufio.NewReaderSize(c, 4096)
	for {
		if _, err := io.WriteString(c, "GET /64m HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s: want 200", resp.Status)
		}
		// The buffer of r is small, so that most is read into buf at once.
		for err == nil {
			var n int
			n, err = resp.Body.Read(buf)
			moved.Add(int64(n))
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
	}
}
