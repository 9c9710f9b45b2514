//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// idleLoad holds as many sessions as fit. Memory that a program has had once it may
// keep, so each measurement has a new program.
func idleLoad() workload {
	return workload{
		name: "idle", title: "Idle sessions", unit: "session", how: "as many sessions as fit, silent after one small message each",
		backend: streams, rounds: 1, once: true, figures: memory(), proxied: true, run: idle,
	}
}

// idle opens sessions that exchange one message and then are silent, and measures by how
// much the second half of them lets the peer's memory grow. So what it allocates once is
// not counted: the first collection of garbage alone gives a Go program 1 MiB, whether it
// has 4,000 sessions or 8,000.
func idle(ctx context.Context, t *trial) error {
	var s sessions
	defer s.close()
	open := func(n int) error {
		s.open(ctx, t.addr, n)
		// Long enough for whatever a peer does a moment after the last byte.
		return pause(ctx, 500*time.Millisecond)
	}
	if err := open(t.sessions / 2); err != nil {
		return err
	}
	first := len(s.conns)
	before, err := resident(t.peer)
	if err != nil {
		return err
	}
	err = t.measure(func() (time.Duration, error) { return 0, open(t.sessions - t.sessions/2) })
	if err != nil {
		return err
	}
	after, err := resident(t.peer)
	if err != nil {
		return err
	}
	t.units, t.failed = float64(len(s.conns)), s.failed
	if len(s.conns) == first {
		return fmt.Errorf("of %d sessions %d could be opened, which is not more than half", t.sessions, first)
	}
	// Memory may shrink: a collector has run. That is a growth of nothing.
	t.note(grown, float64(max(after, before)-before)/1024/float64(len(s.conns)-first))
	t.note("sessions", t.units)
	return nil
}

// sessions are connections that are open and silent.
type sessions struct {
	conns  []net.Conn
	failed int // could not be opened
}

// open opens n of them. A peer that is full does not answer: after the first
// failures no more is to be learnt.
func (s *sessions) open(ctx context.Context, address string, n int) {
	var mu sync.Mutex
	var next, failed atomic.Int64
	var dialers sync.WaitGroup
	for range 32 {
		dialers.Go(func() {
			for ctx.Err() == nil && failed.Load() == 0 && next.Add(1) <= int64(n) {
				c, err := open(address)
				if err != nil {
					failed.Add(1)
					continue
				}
				mu.Lock()
				s.conns = append(s.conns, c)
				mu.Unlock()
			}
		})
	}
	dialers.Wait()
	s.failed += int(failed.Load())
}

func (s *sessions) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

// open returns a session that has exchanged one message.
func open(address string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := echo(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
