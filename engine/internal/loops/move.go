//go:build linux

package loops

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Sessions leave the loops for another process, and arrive from one: see
// docs/design/moving-sessions.md. A session that departs is gone from its loop at once,
// without an end; what it was is in its passport alone. So it is the same whether it arrives
// in the other process or comes back to this one: see adopt.go.

// departed is a session that no loop has, while its sockets are open here.
type departed struct {
	pass core.Passport
	fds  [2]int32 // client, backend; -1: none
	was  [2]core.Meter
}

// move is a move under way, or one that waits for its end.
type move struct {
	eng    *Engine
	groups map[groupKey]string
	gone   []*departed // that the other process has
	once   sync.Once
}

type groupKey struct {
	svc  *core.Service
	host *sched.Host
}

// groupOf names the group of a host, "" if no route of the service leads to it.
func (m *move) groupOf(svc *core.Service, h *sched.Host) string {
	key := groupKey{svc, h}
	if name, known := m.groups[key]; known {
		return name
	}
	m.groups[key] = ""
	for t := range core.Tables(svc.Route.Load()) {
		for other := range t.All() { // each of them will be asked for
			m.groups[groupKey{svc, other}] = t.Group()
		}
	}
	return m.groups[key]
}

// MoveSessions implements [engine.Engine].
func (e *Engine) MoveSessions(ctx context.Context, give func([]engine.Moved) error) (*engine.Move, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := &move{eng: e, groups: map[groupKey]string{}}
	err := engine.ErrClosed
	if !e.closed {
		err = m.run(ctx, give)
		e.onLoops(func(*loop) {}) // what departed in the turn before is off the census now
	}
	return engine.NewMove(len(m.gone), int(e.census.active()), m.commit, m.takeBack), err
}

// passes are the order in which sessions move. Those with UNIX sockets come behind the
// others, because they cannot be taken back, and clients without a host come last.
var passes = [...]func(*session) bool{
	func(s *session) bool {
		return s.phase == established && !s.ends[client].is(unixSocket) && !s.ends[backend].is(unixSocket)
	},
	func(s *session) bool { return s.phase == established },
	func(s *session) bool { return s.phase == established || s.phase == connecting },
}

func (m *move) run(ctx context.Context, give func([]engine.Moved) error) error {
	for _, pass := range passes {
		for _, l := range m.eng.loops {
			for at := (walked{}); ; {
				if err := ctx.Err(); err != nil {
					return err
				}
				batch := m.collect(l, &at, pass)
				if len(batch) == 0 {
					break
				}
				if err := m.hand(batch, give); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// walked is how far a walk through the sessions of a loop has come.
type walked struct{ slab, slot int }

// collect takes a batch of sessions off a loop; none is left behind the last of them when it
// is empty.
func (m *move) collect(l *loop, at *walked, which func(*session) bool) (batch []*departed) {
	done := make(chan struct{})
	l.inbox.submit(func() {
		defer close(done)
		size := 0
		defer func() {
			l.turns.Publish()                           // the counts move too
			at := monotonic() - (l.eng.clock() - l.now) // ages are those of the loop's time
			for _, d := range batch {
				d.pass.Written = at
			}
		}()
		for ; at.slab < len(l.table.slabs); at.slab, at.slot = at.slab+1, 0 {
			slab := l.table.slabs[at.slab]
			for ; at.slot < len(slab); at.slot++ {
				if len(batch) == movedAtOnce || size > movedBytes {
					return
				}
				s := &slab[at.slot]
				if s.phase == vacant || !which(s) {
					continue
				}
				d := new(departed)
				if !l.depart(s, d, m.groupOf) {
					continue
				}
				batch = append(batch, d)
				size += len(d.pass.Flows[0].Held) + len(d.pass.Flows[1].Held)
			}
		}
	})
	<-done
	for _, d := range batch {
		d.was = d.meters()
	}
	return batch
}

// hand gives a batch to the other process. If that does not take it, its sessions come back.
func (m *move) hand(batch []*departed, give func([]engine.Moved) error) error {
	moved := make([]engine.Moved, len(batch))
	var problem error
	for i, d := range batch {
		moved[i].State = d.pass.Append(make([]byte, 0, 256+len(d.pass.Flows[0].Held)+len(d.pass.Flows[1].Held)))
		for side, fd := range d.fds {
			if fd < 0 {
				continue
			}
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				problem = os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
				break
			}
			moved[i].Files[side] = os.NewFile(uintptr(dup), [...]string{"client", "backend"}[side])
		}
	}
	if problem == nil {
		problem = give(moved)
	}
	for i := range moved {
		closeFiles(moved[i].Files)
	}
	if problem != nil {
		m.eng.reclaim(batch)
		return problem
	}
	m.gone = append(m.gone, batch...)
	return nil
}

func closeFiles(files [2]*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// commit closes what is of the other process.
func (m *move) commit() {
	m.once.Do(func() {
		for _, d := range m.gone {
			d.close()
		}
		m.gone = nil
	})
}

func (m *move) takeBack() (back, lost int) {
	m.once.Do(func() {
		back, lost = m.eng.reclaim(m.gone)
		m.gone = nil
	})
	return back, lost
}

func (d *departed) close() {
	for _, fd := range d.fds {
		if fd >= 0 {
			closeFD(fd)
		}
	}
}

// meters reads the counts of both sockets.
func (d *departed) meters() (m [2]core.Meter) {
	for i, fd := range d.fds {
		if fd >= 0 && d.pass.Ends[i].Flags&core.PassUnix == 0 {
			m[i] = meterOf(fd)
		}
	}
	return m
}

// reclaim makes sessions that departed arrive in this engine.
func (e *Engine) reclaim(list []*departed) (back, lost int) {
	arrivals := make([]*adoption, 0, len(list))
	for _, d := range list {
		a := &adoption{pass: &d.pass, fds: d.fds}
		if err := e.locate(a, nil); err != nil { // the service has gone meanwhile
			cutOff(d.fds)
			lost++
			continue
		}
		header := 0
		if a.to.Host != nil && d.pass.Flows[client].Flags&core.PassHeader != 0 {
			header = core.HeaderSize(a.to.Host, &d.pass, localAddrOf(d.fds[client]))
		}
		switch a.fate = d.pass.Reclaim(d.was, d.meters(), header); a.fate {
		case core.GoesOn:
			back++
		case core.IsLost:
			lost++
		}
		arrivals = append(arrivals, a)
	}
	if !e.land(arrivals) {
		for _, a := range arrivals {
			cutOff(a.fds)
		}
		return 0, len(list)
	}
	return back, lost
}

// cutOff resets the peers of sockets that no session has, and closes them.
func cutOff(fds [2]int32) {
	for _, fd := range fds {
		if fd >= 0 {
			disconnect(fd)
			shutdownBoth(fd)
			closeFD(fd)
		}
	}
}

// depart takes a session off the loop, without an end. It returns false if the session
// cannot move, or cannot now; then nothing has changed.
func (l *loop) depart(s *session, d *departed, groupOf func(*core.Service, *sched.Host) string) bool {
	stage, ok := s.Stage()
	if !ok || (stage == core.Connected) != (s.phase == established) || s.flows[0].sending || s.flows[1].sending || !l.unpipe(s) {
		return false
	}
	for i := range s.ends {
		e := &s.ends[i]
		if e.fd < 0 {
			continue
		}
		l.sys.remove(e.fd) // the other process has it too, so its close would not
		if i == backend && stage != core.Connected {
			l.drop(s, i) // the host is asked again, or another one
			e.fd = -1
			continue
		}
		l.narrow(&s.flows[1-i], e) // it is counted here
		if e.is(owesAck) {
			_ = l.sys.setInt(e.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		}
		if !e.is(unixSocket) {
			l.keepUrgent(e)
		}
	}
	if s.kept == kept {
		l.unkeep(s, -1)
	}
	l.loseCopies(s, sched.CopyMoved)
	l.ledger.settle(s)
	l.timers.stop(&s.timer)
	s.passTo(&d.pass, l.now)
	d.fds = [2]int32{s.ends[client].fd, s.ends[backend].fd}
	s.Depart(l.now, &d.pass, &l.table.tries, groupOf)
	l.count.active.Add(-1)
	s.phase = vacant
	l.leftovers.addSession(s)
	return true
}

// unpipe takes bytes that are in pipes into memory. Where it fails the session goes on with
// its pipe.
func (l *loop) unpipe(s *session) bool {
	for i := range s.flows {
		f := &s.flows[i]
		if f.pipe == nil || f.pipe.Held() == 0 {
			continue
		}
		held := make([]byte, f.pipe.Held())
		n, err := f.pipe.Read(held)
		if n > 0 {
			f.held, f.taken = held[:n], 0
		}
		if err != nil || f.pipe.Held() > 0 {
			return false
		}
	}
	for i := range s.flows { // empty pipes are of use to others
		if f := &s.flows[i]; f.pipe != nil {
			held := f.held
			f.held = nil
			l.letGo(f)
			f.held = held
		}
	}
	return true
}

// endFlags pairs the flags of ends with those of passports. What epoll tells again is left
// out.
var endFlags = [...]struct {
	ours flags
	pass uint16
}{
	{hungUp, core.PassHungUp}, {urgent, core.PassUrgent}, {inline, core.PassInline}, {ended, core.PassEnded},
	{reset, core.PassReset}, {broken, core.PassBroken}, {sentOnce, core.PassSentOnce}, {nodelay, core.PassNoDelay},
	{tuned, core.PassTuned}, {unixSocket, core.PassUnix}, {answered, core.PassAnswered}, {headed, core.PassHeaded},
}

// passTo writes what the loop knows of the session into a passport.
func (s *session) passTo(p *core.Passport, now int64) {
	p.Idle, p.In, p.Out = max(now-s.active, 0), s.in, s.out
	s.turning.Pass(p, now)
	for i := range s.ends {
		for _, f := range endFlags {
			if s.ends[i].is(f.ours) {
				p.Ends[i].Flags |= f.pass
			}
		}
	}
	if s.phase != established {
		p.Ends[backend].Flags = 0
	}
	for i := range s.flows {
		f, to := &s.flows[i], &p.Flows[i]
		to.Window, to.Streamed = f.window, f.streamed
		for _, flag := range []struct {
			on   bool
			pass uint8
		}{{f.mode == splicing, core.PassSplicing}, {f.corked, core.PassCorked}, {f.done, core.PassDone}, {f.header && !f.done && !s.Settled() && s.phase == established, core.PassHeader}} {
			if flag.on {
				to.Flags |= flag.pass
			}
		}
		if held := f.held[f.taken:]; len(held) > 0 && !f.done {
			to.Held, to.Ahead = held, f.ahead // the passport owns them now
		}
	}
}

// monotonic returns a time in ns that all processes of the machine agree on.
func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano()
}
