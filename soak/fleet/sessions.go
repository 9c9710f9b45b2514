//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// session is a connection that goes on until it fails, or is asked to finish.
type session struct {
	node   string       // which one carries it
	turns  atomic.Int64 // answers so far
	ended  atomic.Bool  // by an error
	wrong  atomic.Bool  // the error: it got other bytes than it had sent
	finish func()       // makes the client end it
	done   chan struct{}
}

// mostBytes is the most that a session sends at once.
const mostBytes = 2000

// open opens sessions, each of which sends some bytes every 50 ms and waits until they come
// back. end ends them; what ends then does not count.
func (f *netFleet) open(ctx context.Context, n int) (all []*session, end func(), err error) {
	over := make(chan struct{})
	var running sync.WaitGroup
	end = sync.OnceFunc(func() { close(over); running.Wait() })
	for i := range n {
		c, r, node, err := f.visit()
		if err != nil {
			end()
			return nil, nil, err
		}
		finished := make(chan struct{})
		s := &session{node: node, finish: sync.OnceFunc(func() { close(finished) }), done: make(chan struct{})}
		all = append(all, s)
		running.Go(func() {
			defer close(s.done)
			defer func() { _ = c.Close() }()
			for next := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}); ; {
				select {
				case <-over:
					return
				case <-finished:
					s.leave(c, r)
					return
				case <-time.After(50 * time.Millisecond):
				}
				if err := s.turn(c, r, next); err != nil {
					s.ended.Store(true)
					return
				}
				s.turns.Add(1)
			}
		})
	}
	return all, end, nil
}

// visit connects to the service that tells which node carries the connection.
func (f *netFleet) visit() (c net.Conn, r *bufio.Reader, node string, err error) {
	c, err = dial(f.space("clients", 0), fleetAddress+":"+echoPort)
	if err != nil {
		return nil, nil, "", err
	}
	r = bufio.NewReader(c)
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := r.ReadString('\n')
	if err != nil {
		_ = c.Close()
		return nil, nil, "", err
	}
	return c, r, strings.TrimSpace(line), nil
}

// turn sends bytes and waits until the same come back.
func (s *session) turn(c net.Conn, r io.Reader, next *rand.ChaCha8) error {
	sent := make([]byte, 1+next.Uint64()%mostBytes)
	_, _ = next.Read(sent) // never fails
	_ = c.SetDeadline(time.Now().Add(patience / 2))
	if _, err := c.Write(sent); err != nil {
		return err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		s.wrong.Store(true)
		return errors.New("other bytes have come back")
	}
	return nil
}

// leave ends the session as a client does that has all it wants.
func (s *session) leave(c net.Conn, r io.Reader) {
	_ = c.SetDeadline(time.Now().Add(patience / 2))
	err := c.(*net.TCPConn).CloseWrite()
	if err == nil {
		var n int64
		if n, err = io.Copy(io.Discard, r); n > 0 {
			s.wrong.Store(true)
		}
	}
	if err != nil || s.wrong.Load() {
		s.ended.Store(true)
	}
}

// settle waits until each session has had answers to what it sent after now, or has ended.
func settle(ctx context.Context, all []*session) error {
	var had []int64
	for _, s := range all {
		had = append(had, s.turns.Load())
	}
	return until(ctx, func() error {
		for i, s := range all {
			select {
			case <-s.done:
			default:
				if s.turns.Load() < had[i]+3 {
					return errors.New("a session stands still")
				}
			}
		}
		return nil
	})
}

// count counts sessions that have ended by an error, of a node and of the others.
func count(all []*session, node string) (own, others int) {
	for _, s := range all {
		switch {
		case !s.ended.Load():
		case s.node == node:
			own++
		default:
			others++
		}
	}
	return own, others
}

// corrupted counts sessions that got other bytes than they had sent.
func corrupted(all []*session) (n int) {
	for _, s := range all {
		if s.wrong.Load() {
			n++
		}
	}
	return n
}

// carried counts the sessions of a node.
func carried(all []*session, node string) (n int) {
	for _, s := range all {
		if s.node == node {
			n++
		}
	}
	return n
}
