//go:build linux

package loops

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// crowd is a loop over a kernel in memory with sessions whose connects are under
// way.
func crowd(script []byte, sessions int, times engine.Timeouts) *theatre {
	g := newTheatre(script)
	route := *g.svc.Route.Load()
	route.Timeouts = times
	g.svc.Route.Store(&route)
	for range sessions {
		g.script = []byte{3} // the connect takes its time
		g.accept()
	}
	return g
}

// connectAll makes every connect succeed.
func (g *theatre) connectAll(t *testing.T) {
	t.Helper()
	for _, s := range g.k.sockets {
		s.answer(0)
	}
	g.settle()
	g.l.table.each(func(s *session) {
		if s.phase != established {
			t.Fatalf("session %d is in phase %d", s.slot, s.phase)
		}
	})
}

// pass lets time go by for a loop that is idle.
func (g *theatre) pass(d int64) {
	for end := g.l.now + d; g.l.now < end; {
		g.l.now = min(end, max(g.l.timers.alarmAt, g.l.now+1e6))
		g.turn(nil)
		g.settle()
	}
}

// The process stands still for longer than the time-outs while every client sends.
// No session ends: not when the events come in many batches, not when it stands
// still again in the middle of them, and not between a poll and its batch.
func TestB66WhatCameWhileTheLoopStoodStillCounts(t *testing.T) {
	const sessions = 1500
	for name, test := range map[string]struct{ stood, again int64 }{
		"shorter than it takes to be noticed": {600e6, 0},
		"longer":                              {5e9, 0},
		"and again between batches":           {600e6, 600e6},
	} {
		t.Run(name, func(t *testing.T) {
			g := crowd(nil, sessions, engine.Timeouts{Idle: 1500e6})
			g.connectAll(t)
			g.pass(1e9)
			g.l.now += test.stood
			g.turn(nil) // the wait was interrupted: no event was taken
			for _, s := range g.k.sockets {
				s.farSend(1)
			}
			for more := true; more; {
				events := g.due(batchSize)
				more = len(events) == batchSize
				g.l.now += test.again
				g.turn(events)
			}
			g.settle()
			if n := g.e.census.sessions.Load(); n != sessions {
				t.Fatalf("%d of %d sessions were ended although bytes had come", sessions-n, sessions)
			}
			g.pass(4e9)
			if n := g.e.census.sessions.Load(); n != 0 {
				t.Errorf("%d silent sessions never end", n)
			}
			if len(g.k.wrong) > 0 {
				t.Error(g.k.wrong)
			}
		})
	}
}

// A host that answered while the process stood still has not failed.
func TestB66ConnectAnsweredWhileTheLoopStoodStill(t *testing.T) {
	const sessions = 1000
	g := crowd(nil, sessions, engine.Timeouts{Connect: 1e9, Total: 20e9})
	g.turn(nil)
	g.l.now += 3e9
	g.turn(nil)
	g.connectAll(t)
	for i, h := range g.hosts {
		if n := h.Stats().Failures; n != 0 || !h.Up() {
			t.Errorf("host %d has failed %d times", i, n)
		}
	}
	if n := g.e.census.sessions.Load(); n != sessions {
		t.Errorf("%d sessions, want %d", n, sessions)
	}
}

// Under load without end timers still fire: when all that was pending has been
// taken in.
func TestTimersFireUnderLoadWithoutEnd(t *testing.T) {
	const sessions = 1000
	g := crowd(nil, sessions, engine.Timeouts{Idle: 1500e6})
	g.connectAll(t)
	full := make([]unix.EpollEvent, batchSize) // of one session that never rests
	s := g.k.sockets[0]
	for i := range full {
		full[i] = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: s.key, Pad: s.gen}
	}
	for turns := 0; g.e.census.sessions.Load() > 1; turns++ {
		if turns > 1000 {
			t.Fatalf("%d sessions are there after %d full batches", g.e.census.sessions.Load(), turns)
		}
		s.farSend(1)
		g.l.now += 5e6
		g.turn(full)
		s.session.backends[0].farRead(1)
	}
	if g.l.now < 1500e6 {
		t.Error("sessions ended early")
	}
}

// What has come and waits for its turn to be spliced is no silence.
func TestB66BytesThatWaitForTheirTurn(t *testing.T) {
	const sessions = 100
	g := crowd([]byte{0}, sessions, engine.Timeouts{Idle: 1e9}) // every flow splices
	g.connectAll(t)
	g.l.now += 900e6
	for _, s := range g.k.sockets {
		s.farSend(300 << 10)
	}
	g.turn(g.due(batchSize)) // more than one turn moves
	g.l.now += 200e6
	for range 3 {
		g.turn(nil)
		g.l.now += tickSize
	}
	if n := g.e.census.sessions.Load(); n != sessions {
		t.Errorf("%d of %d sessions were ended with bytes in line", sessions-n, sessions)
	}
}

// After a quiet time the wheel's clock lags, and what it says is due lies in the
// past. The loop has not stood still: timers fire at their time.
func TestTimersAfterAQuietTime(t *testing.T) {
	g := crowd(nil, 1, engine.Timeouts{Idle: 3600e9})
	g.connectAll(t)
	g.pass(300e9)
	route := *g.svc.Route.Load()
	route.Timeouts.Idle = 300e9
	g.svc.Route.Store(&route)
	began := g.l.now
	g.l.table.each(func(s *session) { g.l.expectBy(s) })
	g.l.timers.setAlarm(g.l.now, g.l.sys)
	for g.l.table.slabs[0][0].phase != vacant && g.l.now-began < 5e9 {
		g.l.now += 1e6
		g.turn(nil)
	}
	if took := g.l.now - began; took > 100e6 {
		t.Errorf("the session ended after %d ms", took/1e6)
	}
}

// A session that waits for room in the queue of a UNIX socket asks again soon,
// whatever becomes of the timeouts meanwhile.
func TestOtherTimeoutsWhileAQueueIsFull(t *testing.T) {
	g := newTheatre(nil)
	h := sched.NewHost("u", sched.UnixAddr("/x"))
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: h, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	g.hosts = []*sched.Host{h}
	g.svc.Route.Store(&engine.Route{Table: table, Timeouts: engine.Timeouts{Connect: 5e9, Idle: 3600e9}})
	g.script = []byte{5} // the queue is full
	g.accept()
	g.l.timers.setAlarm(g.l.now, g.l.sys)
	g.pass(100e6)
	s := &g.l.table.slabs[0][0]
	if s.phase != connecting || !s.WaitsForRoom() {
		t.Fatalf("the session is in phase %d", s.phase)
	}
	g.svc.Route.Store(&engine.Route{Table: table, Timeouts: engine.Timeouts{Connect: 5e9, Idle: 60e9}})
	g.l.look(s)
	g.l.timers.setAlarm(g.l.now, g.l.sys)
	g.k.roomy = true
	began := g.l.now
	for s.phase == connecting && g.l.now-began < 8e9 {
		g.l.now += 1e6
		g.turn(nil)
	}
	if took := g.l.now - began; took > 100e6 || s.phase != established || !h.Up() {
		t.Errorf("after %d ms the session is in phase %d; the host is up: %v", took/1e6, s.phase, h.Up())
	}
}
