package engine

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// expectGone reads until the connection is over, cleanly or not.
func (p *peer) expectGone() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(patience))
	if n, err := p.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Errorf("the session goes on: %d bytes, %v", n, err)
	}
}

func TestEndSessionsOfOneHost(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo), backendServer(t, echo))
		var clients []*peer
		for range 8 { // in turn, so four each
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			clients = append(clients, c)
		}
		if n := r.e.EndSessions(func(service string, _ *sched.Host) bool { return service != "web" }); n != 0 {
			t.Errorf("%d sessions of no service ended", n)
		}
		doomed := r.hosts[0]
		if n := r.e.EndSessions(func(service string, h *sched.Host) bool { return service == "web" && h == doomed }); n != 4 {
			t.Errorf("%d sessions ended, want 4", n)
		}
		eventually(t, "the host is free", func() bool { return doomed.Stats().Active == 0 })
		if n := r.hosts[1].Stats().Active; n != 4 {
			t.Errorf("the other host has %d sessions, want 4", n)
		}
		eventually(t, "the service has four sessions", func() bool { return r.stats().Active == 4 })
		if n := r.stats().Ended["KD"]; n != 4 {
			t.Errorf("%d sessions are counted as killed", n)
		}
		if n := r.e.EndSessions(func(string, *sched.Host) bool { return true }); n != 4 {
			t.Errorf("%d of the others ended, want 4", n)
		}
		for _, c := range clients {
			c.expectGone()
		}
		r.quiet()
	})
}

// A session ended by an operator while bytes are on the way ends by a reset.
func TestEndSessionsLoseNoBytesSilently(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, func(p *peer) { _, _ = p.Write(make([]byte, 32<<20)) }))
		c := r.dial()
		r.standstill()
		if n := r.e.EndSessions(func(string, *sched.Host) bool { return true }); n != 1 {
			t.Errorf("%d sessions ended", n)
		}
		c.expectReset()
	})
}

func TestEndSessionsAfterClose(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		e, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if n := e.EndSessions(func(string, *sched.Host) bool { return true }); n != 0 {
			t.Errorf("%d sessions ended", n)
		}
	})
}
