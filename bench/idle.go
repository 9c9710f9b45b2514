//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/internal/servers"
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
// much they let the peer's memory grow.
func idle(ctx context.Context, t *trial) error {
	var s sessions
	defer s.close()
	err := t.measure(func() (time.Duration, error) {
		kib, err := s.growth(ctx, t.peer, t.to(), t.sessions)
		t.note(grown, kib)
		return 0, err
	})
	t.units, t.failed = float64(len(s.conns)), s.failed
	t.note("sessions", t.units)
	return err
}

// sessions are connections that are open and silent.
type sessions struct {
	conns  []net.Conn
	failed int // could not be opened
}

// open opens n of them. A peer that is full does not answer: after the first
// failures no more is to be learnt.
func (s *sessions) open(ctx context.Context, to dialer, n int) {
	var mu sync.Mutex
	var next, failed atomic.Int64
	var dialers sync.WaitGroup
	for range 32 {
		dialers.Go(func() {
			for ctx.Err() == nil && failed.Load() == 0 && next.Add(1) <= int64(n) {
				c, err := open(to)
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

// growthSteps is in how many steps growth opens the second half of the sessions.
const growthSteps = 5

// growth opens n sessions and returns by how many KiB each lets the memory of a program
// grow: the median of a few steps, after the first half. So what the program allocates
// once is not counted: the first collection of garbage alone gives a Go program 1 MiB,
// whether it has 4,000 sessions or 8,000.
func (s *sessions) growth(ctx context.Context, peer *servers.Server, to dialer, n int) (kib float64, err error) {
	var steps []float64
	last, opened := uint64(0), 0
	for i := range growthSteps + 1 {
		more := n / 2 / growthSteps
		if i == 0 {
			more = n / 2
		}
		s.open(ctx, to, more)
		// Long enough for whatever a program does a moment after the last byte.
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
		if len(s.conns) == opened {
			return 0, fmt.Errorf("no more than %d of %d sessions could be opened", opened, n)
		}
		now, err := resident(peer)
		if err != nil {
			return 0, err
		}
		if i > 0 {
			// Memory may shrink: a collector has run. That is a growth of nothing.
			steps = append(steps, float64(max(now, last)-last)/1024/float64(len(s.conns)-opened))
		}
		last, opened = now, len(s.conns)
	}
	return median(steps), nil
}

func (s *sessions) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

// open returns a session that has exchanged one message.
func open(to dialer) (net.Conn, error) {
	c, err := to.dial(5 * time.Second)
	if err != nil {
		return nil, err
	}
	if err := echo(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
