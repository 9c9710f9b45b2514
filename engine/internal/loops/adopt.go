//go:build linux

package loops

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Sessions that arrive: from another process, or back from one. How they depart is in move.go.

// adoption is a session that arrives.
type adoption struct {
	pass *core.Passport
	fds  [2]int32 // client, backend; -1: none
	to   core.Destination
	fate core.Fate
}

// Adopt implements [engine.Engine].
func (e *Engine) Adopt(batch []engine.Moved) []error {
	problems := make([]error, len(batch))
	refuse := e.census.draining.Load()
	var list []*adoption
	index := map[*adoption]int{}
	named := map[string]map[core.PassHost]*sched.Host{} // by service, what stories name
	for i := range batch {
		a := &adoption{}
		if problems[i] = a.receive(&batch[i]); problems[i] == nil && refuse {
			problems[i] = engine.ErrClosed
		}
		if problems[i] == nil {
			problems[i] = e.locate(a, named)
		}
		if problems[i] != nil {
			cutOff(a.fds)
			continue
		}
		index[a] = i
		list = append(list, a)
	}
	if !e.land(list) {
		for _, a := range list {
			cutOff(a.fds)
			problems[index[a]] = engine.ErrClosed
		}
	}
	return problems
}

// receive takes over what was sent of a session, also on error.
func (a *adoption) receive(m *engine.Moved) (err error) {
	a.fds = [2]int32{-1, -1}
	defer closeFiles(m.Files)
	for i, f := range m.Files {
		if f == nil {
			continue
		}
		fd, err := core.Duplicate(f)
		if err != nil {
			return fmt.Errorf("engine: a socket of a session that moves: %w", err)
		}
		a.fds[i] = int32(fd)
	}
	if a.pass, err = core.ParsePassport(m.State); err != nil {
		return err
	}
	if a.fds[client] < 0 || (a.fds[backend] < 0) != (a.pass.Stage != core.Connected) {
		return errors.New("engine: a session that moves has other sockets than its state says")
	}
	for i, fd := range a.fds {
		if fd < 0 {
			continue
		}
		kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil || kind != unix.SOCK_STREAM {
			return errors.New("engine: a session that moves has a descriptor that is not a stream socket")
		}
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || (domain == unix.AF_UNIX) != (a.pass.Ends[i].Flags&core.PassUnix != 0) {
			return errors.New("engine: a session that moves has a socket of another family than its state says")
		}
	}
	return nil
}

// locate finds what the passport names. A host that stories name is looked up, or made,
// once for all sessions that have the same named; nil: there are no others.
func (e *Engine) locate(a *adoption, named map[string]map[core.PassHost]*sched.Host) error {
	p := a.pass
	svc := e.serving.Load().Services[p.Service]
	if svc == nil {
		return fmt.Errorf("%w: %q, of a session that moves", engine.ErrNoService, p.Service)
	}
	route := svc.Route.Load()
	a.to.Svc = svc
	for t := range core.Tables(route) {
		if p.Group == t.Group() || p.Group == "" && t == route.Table {
			a.to.Table = t
			break
		}
	}
	if p.Stage == core.Connected {
		host, err := e.hostNamed(route, a.to.Table, p)
		if err != nil {
			return err
		}
		a.to.Host = host
	}
	if p.Try != nil {
		for _, name := range p.Try.Tried {
			if h := find(a.to.Table, name); h != nil {
				a.to.Tried = append(a.to.Tried, h)
			}
		}
	}
	if p.Story != nil && len(p.Story.Tries) > 0 {
		hosts := named[p.Service]
		if hosts == nil {
			hosts = map[core.PassHost]*sched.Host{}
			if named != nil {
				named[p.Service] = hosts
			}
		}
		for i := range p.Story.Tries {
			if name := p.Story.Tries[i].Host; hosts[name] == nil {
				hosts[name] = hostOf(route, name)
			}
		}
		a.to.Named = hosts
	}
	return nil
}

// hostNamed returns the host of a session that arrives.
func (e *Engine) hostNamed(route *engine.Route, table *sched.Table, p *core.Passport) (*sched.Host, error) {
	if h := find(table, p.Host); h != nil {
		return h, nil
	}
	addr, err := sched.ParseAddr(p.Host.Addr)
	if err != nil {
		return nil, fmt.Errorf("engine: service %q: host %q of a session that moves: %w", p.Service, p.Host.Name, err)
	}
	if p.Group == "" {
		for t := range core.Tables(route) {
			if h := find(t, p.Host); h != nil {
				return h, nil
			}
		}
	}
	if e.opt.FindHost != nil {
		if h := e.opt.FindHost(p.Service, p.Group, p.Host.Name, addr); h != nil {
			return h, nil
		}
	}
	return sched.NewHost(p.Host.Name, addr), nil
}

// hostOf returns the host of a route that has a name and an address, or a stranger.
func hostOf(route *engine.Route, name core.PassHost) *sched.Host {
	for t := range core.Tables(route) {
		if h := find(t, name); h != nil {
			return h
		}
	}
	return core.Stranger(name)
}

// find returns the host of a table that has a name and an address; nil: there is none.
func find(t *sched.Table, name core.PassHost) *sched.Host {
	for h := range t.All() {
		if h.Name() == name.Name && h.Addr().String() == name.Addr {
			return h
		}
	}
	return nil
}

// land spreads sessions over the loops and returns when they have them. It returns false
// if the engine is closed.
func (e *Engine) land(list []*adoption) bool {
	e.asking.RLock()
	defer e.asking.RUnlock()
	if e.closed {
		return false
	}
	e.census.adopt(len(list))
	active := make([]int64, len(e.loops))
	for i, l := range e.loops {
		active[i] = l.count.active.Load()
	}
	shares := make([][]*adoption, len(e.loops))
	for _, a := range list {
		least := 0
		for i := range active {
			if active[i] < active[least] {
				least = i
			}
		}
		active[least]++
		shares[least] = append(shares[least], a)
	}
	var wg sync.WaitGroup
	for i, l := range e.loops {
		if share := shares[i]; len(share) > 0 {
			wg.Add(1)
			l.inbox.submit(func() {
				defer wg.Done()
				for _, a := range share {
					l.adopt(a)
				}
			})
		}
	}
	wg.Wait()
	return true
}

// adopt takes on a session. The engine has counted it.
func (l *loop) adopt(a *adoption) {
	p := a.pass
	s, try := l.table.get()
	for i := range s.ends {
		s.ends[i] = end{fd: a.fds[i]}
		if a.fds[i] < 0 {
			continue
		}
		s.ends[i].set(shared)
		for _, f := range endFlags {
			if p.Ends[i].Flags&f.pass != 0 {
				s.ends[i].set(f.ours)
			}
		}
	}
	at := l.now
	if p.Written > 0 {
		at = l.eng.clock() - min(max(monotonic()-p.Written, 0), maxAway)
	}
	s.active = at - p.Idle
	s.in, s.out = p.In, p.Out
	s.turning.Restore(p, at)
	l.count.active.Add(1)
	if p.Notes != nil {
		l.table.cameFrom(s, p.Notes.Client)
	} else {
		l.table.cameFrom(s, l.sys.peerAddr(s.ends[client].fd))
	}
	s.phase = connecting
	l.leftovers.watch(s, client)
	if p.Stage == core.Connected {
		s.phase = established
		l.leftovers.watch(s, backend)
	}
	for i := range s.flows { // a client may have lost a host that had read from it, and taken nothing
		l.restore(&s.flows[i], &p.Flows[i])
	}
	a.to.Who = func() netip.AddrPort { return l.clientAddr(s) }
	step := s.Arrive(&l.gate, a.to, p, try, at, l.now)
	if p.Try == nil {
		l.table.tries.Put(try)
	}
	switch {
	case a.fate == core.IsLost:
		s.ends[client].set(broken)
		s.ends[backend].set(broken)
		l.end(s, core.Killed)
	case a.fate == core.IsOver:
		for i := range s.flows {
			l.letGo(&s.flows[i])
			s.flows[i].done = true
		}
		l.end(s, core.Normal)
	case s.phase == established:
		l.guardAdopted(s)
		l.expectBy(s)
		l.agenda.add(s)
	default:
		if !s.ends[client].is(unixSocket) {
			l.setLinger(&s.ends[client], false) // see guard
		}
		l.follow(s, step)
	}
}

// restore makes a flow that of a passport.
func (l *loop) restore(f *flow, p *core.PassFlow) {
	f.done, f.corked, f.header = p.Flags&core.PassDone != 0, p.Flags&core.PassCorked != 0, p.Flags&core.PassHeader != 0
	f.streamed, f.ahead = p.Streamed, p.Ahead
	if len(p.Held) > 0 {
		f.held = bytes.Clone(p.Held) // they are a part of a message
	}
	mode := l.eng.opt.Splice
	if mode != engine.SpliceNever && (mode == engine.SpliceAlways || p.Flags&core.PassSplicing != 0) {
		f.splice()
		if p.Window > 0 {
			f.window = max(p.Window, minWindow)
		}
	}
}
