//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// mebibyte is the unit of bulk work.
const mebibyte = 1 << 20

// bulkLoad moves bytes one way over a number of streams.
func bulkLoad(count int, op byte) workload {
	w := workload{
		name: fmt.Sprintf("bulk%d", count), title: fmt.Sprintf("Bulk, streams to the client: %d", count), unit: "MiB",
		how: "endless streams, a window in their middle", backend: streams, brief: ramp, figures: figures("MiB", "MiB"),
		run: func(ctx context.Context, t *trial) error { return bulk(ctx, t, count, op) },
	}
	if op == opUp {
		w.name += "-up"
		w.title = fmt.Sprintf("Bulk, streams to the backend: %d", count)
	}
	return w
}

// bulk measures a window in the middle of endless streams, so that neither
// what is in buffers at its ends nor the start-up counts.
func bulk(ctx context.Context, t *trial, count int, op byte) error {
	s, err := startStreams(t.addr, count, op)
	if err != nil {
		return err
	}
	defer s.close()
	if err := pause(ctx, ramp); err != nil {
		return err
	}
	var before, after int64
	err = t.measure(func() error {
		before = s.moved.Load()
		err := pause(ctx, t.length)
		after = s.moved.Load()
		return err
	})
	t.units, t.failed = float64(after-before)/mebibyte, int(s.failed.Load())
	if err == nil && t.units == 0 {
		err = errors.New("no byte moved")
	}
	return err
}

// streamSet is a number of streams under way.
type streamSet struct {
	conns         []net.Conn
	work          sync.WaitGroup
	stop          chan struct{} // closed when they are ended on purpose
	moved, failed atomic.Int64  // bytes, streams
}

// startStreams opens streams of one kind and keeps them busy until close.
func startStreams(address string, count int, op byte) (*streamSet, error) {
	s := &streamSet{stop: make(chan struct{})}
	for range count {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, c)
		s.work.Go(func() { s.keepBusy(c, op) })
	}
	return s, nil
}

func (s *streamSet) keepBusy(c net.Conn, op byte) {
	err := move(c, op, &s.moved)
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

// move reads or writes c until it fails, and counts the bytes. It never
// returns nil: a stream has no end.
func move(c net.Conn, op byte, moved *atomic.Int64) error {
	if _, err := c.Write([]byte{op}); err != nil {
		return err
	}
	step := c.Read
	if op == opUp {
		step = c.Write
	}
	for buf := make([]byte, block); ; {
		n, err := step(buf)
		moved.Add(int64(n))
		if err != nil {
			return err
		}
	}
}
