//go:build linux

package loops

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Sessions implements [engine.Engine]. The loops call which at the
// same moment, and wait for it.
func (e *Engine) Sessions(most int, which func(service string, host *sched.Host) bool) []engine.SessionInfo {
	found := make([][]engine.SessionInfo, len(e.loops)) // each loop has its own
	var count atomic.Int64
	e.walk(func(l *loop, s *session) bool {
		if !which(s.Svc.Name, s.Host) {
			return true
		}
		if most > 0 && count.Add(1) > int64(most) {
			return false
		}
		found[l.index] = append(found[l.index], l.info(s))
		return true
	})
	list := slices.Concat(found...)
	if most == 0 || len(list) < most {
		list = append(list, e.conns.List(max(most-len(list), 0), which)...)
	}
	return core.Sorted(list)
}

// FindByLocal implements [engine.Engine].
func (e *Engine) FindByLocal(local netip.AddrPort) []engine.SessionInfo {
	if local = core.Unmapped(local); local.Port() == 0 {
		return nil
	}
	found := make([][]engine.SessionInfo, len(e.loops))
	e.walk(func(l *loop, s *session) bool {
		fd := s.ends[backend].fd
		if s.localPort == 0 && fd >= 0 {
			// Asked for once: the next walk passes by without a call.
			s.localPort = l.sys.localAddr(fd).Port()
		}
		if s.localPort == local.Port() && l.sys.localAddr(fd) == local {
			found[l.index] = append(found[l.index], l.info(s))
		}
		return true
	})
	return core.Sorted(append(slices.Concat(found...), e.conns.FindByLocal(local)...))
}

// EndSessions implements [engine.Engine]. The loops call which at
// the same moment, and wait for it.
func (e *Engine) EndSessions(why engine.Ending, which func(engine.Candidate) bool) int {
	how := core.TerminationOf(why)
	var ended atomic.Int64
	e.walk(func(l *loop, s *session) bool {
		if which(s.Candidate(l.idOf(s))) {
			l.end(s, how)
			ended.Add(1)
		}
		return true
	})
	return int(ended.Load()) + e.conns.End(why, which)
}

// EndSession implements [engine.Engine].
func (e *Engine) EndSession(id uint64) (ended bool) {
	index, slot, generation := splitID(id)
	if index < 0 {
		return e.conns.EndOne(id)
	}
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed || index >= len(e.loops) {
		return false
	}
	l := e.loops[index]
	done := make(chan struct{})
	l.inbox.submit(func() {
		defer close(done)
		if int(slot) >= len(l.table.slabs)*slotsPerSlab {
			return
		}
		if s := l.table.at(slot, generation); s != nil {
			l.end(s, core.Killed)
			ended = true
		}
	})
	<-done
	return ended
}

// Explain implements [engine.Engine].
func (e *Engine) Explain(id uint64) (story engine.Story, ok bool) {
	index, slot, generation := splitID(id)
	if index < 0 {
		return e.conns.Explain(id)
	}
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed || index >= len(e.loops) {
		return story, false
	}
	l := e.loops[index]
	done := make(chan struct{})
	l.inbox.submit(func() {
		defer close(done)
		if int(slot) < len(l.table.slabs)*slotsPerSlab {
			if s := l.table.at(slot, generation); s != nil {
				story, ok = l.story(s), true
				return
			}
		}
		story, ok = l.gate.Past.Find(id, l.eng.epochNow())
	})
	<-done
	return story, ok
}

// Ended implements [engine.Engine]. A loop turns to its clients between some stories and the next.
func (e *Engine) Ended(most int) []engine.Story {
	found := make([][]engine.Story, len(e.loops)) // each loop has its own
	e.asking.RLock()
	if !e.closed {
		var wg sync.WaitGroup
		for _, l := range e.loops {
			wg.Add(1)
			l.ended(most, func(list []engine.Story) {
				found[l.index] = list
				wg.Done()
			})
		}
		wg.Wait()
	}
	e.asking.RUnlock()
	return core.Latest(append(slices.Concat(found...), e.conns.Ended(most)...), most)
}

// ended makes the loop call done with the stories of the sessions of it that have ended last. It
// does not wait.
func (l *loop) ended(most int, done func([]engine.Story)) {
	var r core.PastReader
	var step func()
	step = func() {
		if r.Step() {
			l.inbox.submit(step)
			return
		}
		done(r.List())
	}
	l.inbox.submit(func() {
		r = l.gate.Past.Read(most, l.eng.epochNow())
		step()
	})
}

// epochNow returns 0 on the engine's clock as a time, by the clock of the machine as it is set now.
func (e *Engine) epochNow() time.Time { return time.Now().Add(-time.Duration(e.clock())) }

// story tells what is known of a session of the loop.
func (l *loop) story(s *session) engine.Story {
	i := l.info(s)
	story := engine.Story{ID: i.ID, Client: i.Client, Listener: i.Listener, Local: i.Local, Idle: i.Idle, In: i.In, Out: i.Out, Turns: i.Turns, Waiting: i.Waiting, TCP: l.tcpOf(s)}
	s.Tell(&story, l.eng.epochNow(), l.now)
	if s.phase == lingering {
		story.Stage = engine.StageClosing
	}
	return story
}

// walk calls f for every session, on the session's loop, and returns when all
// loops are through. A loop does it in steps of slotsPerSlab sessions, which take
// a fraction of a millisecond, and turns to its clients between them; f ends the
// walk of its loop by returning false.
func (e *Engine) walk(f func(*loop, *session) bool) {
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed {
		return
	}
	var wg sync.WaitGroup
	for _, l := range e.loops {
		wg.Add(1)
		l.visit(func(s *session) bool { return f(l, s) }, wg.Done)
	}
	wg.Wait()
}

// endsAtOnce is how many sessions a step ends at most: closing two sockets each takes far
// longer than to look at a session.
const endsAtOnce = 32

// visit makes the loop call f for each of its sessions, in the steps that walk
// speaks of, and then done. It does not wait; any goroutine may call it.
func (l *loop) visit(f func(*session) bool, done func()) {
	next, from := 0, 0 // slab, and session in it
	var step func()
	step = func() {
		if next == len(l.table.slabs) {
			done()
			return
		}
		slab := l.table.slabs[next]
		for ended := 0; from < len(slab) && ended < endsAtOnce; from++ {
			s := &slab[from]
			if s.phase == vacant {
				continue
			}
			if !f(s) {
				done()
				return
			}
			if s.phase == vacant {
				ended++
			}
		}
		if from == len(slab) {
			next, from = next+1, 0
		}
		l.inbox.submit(step)
	}
	l.inbox.submit(step)
}

// info describes a session of the loop.
func (l *loop) info(s *session) engine.SessionInfo {
	i := engine.SessionInfo{
		ID: l.idOf(s), Service: s.Svc.Name, Host: s.Host,
		Client:   l.clientAddr(s),
		Listener: l.listenerOf(s),
		Started:  l.eng.epoch.Add(time.Duration(s.Started)),
		Idle:     time.Duration(max(l.now-s.active, 0)),
		In:       s.in, Out: s.out,
		Turns: s.turning.Sum(), Answered: s.out > 0 || s.flows[backend].pending(),
		Held: s.Held(l.now),
	}
	if !s.flows[backend].done { // else there will be no answer
		i.Waiting = s.turning.Waiting(l.now)
	}
	if b := s.ends[backend].fd; b >= 0 {
		i.Local = l.sys.localAddr(b)
	}
	return i
}

// listenerOf returns the address that the client has connected to.
func (l *loop) listenerOf(s *session) string {
	e := &s.ends[client]
	if !e.is(unixSocket) {
		if a := l.sys.localAddr(e.fd); a.IsValid() {
			return a.String()
		}
	} else if path := l.sys.localPath(e.fd); path != "" {
		return "unix:" + path
	}
	return ""
}

// clientAddr returns who the client is.
func (l *loop) clientAddr(s *session) netip.AddrPort {
	if o := s.Origin(); o != nil {
		return o.Client
	}
	return l.table.client(s)
}

func (l *loop) idOf(s *session) uint64 {
	return uint64(uint32(s.generation))<<core.IDGenerationBits | uint64(l.index+1)<<core.IDSlotBits | uint64(s.slot)
}

// splitID takes an ID apart. The loop is -1 for a session that a goroutine carries.
func splitID(id uint64) (loop int, slot, generation int32) {
	const slotBits, generationBits = core.IDSlotBits, core.IDGenerationBits
	return int(id>>slotBits&(1<<(generationBits-slotBits)-1)) - 1, int32(id & (1<<slotBits - 1)), int32(id >> generationBits)
}
