package core

import (
	"iter"
	"net/netip"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// Stage returns how far a session has come that may move. ok is false for one that cannot,
// or need not: it is being rejected, or asked what only goroutines do.
func (a *Admission) Stage() (s Stage, ok bool) {
	switch a.state {
	case admitted:
		return Connected, true
	case unheard:
		return Unheard, true
	case untold:
		return Untold, true
	case looking, queued, picked, asked, queueFull, pledging:
		return Looking, true
	}
	return 0, false
}

// Depart takes the session out of the engine without an end, because it goes on by what is
// written into p: all that the admission knows. A host that has not answered is given back.
// groupOf names the group of a host, "" if it is not known.
func (a *Admission) Depart(now int64, p *Passport, free *Attempts, groupOf func(*Service, *sched.Host) string) {
	stage, ok := a.Stage()
	if !ok {
		return
	}
	route := a.Svc.Route.Load()
	p.Service, p.Stage, p.Age = a.Svc.Name, stage, now-a.Started
	if o := a.Origin(); o != nil {
		origin := *o // the notes are used again
		p.Origin = &origin
	}
	if n := a.notes; n != nil && n.recorded {
		p.Notes = &PassNotes{
			Client: n.client, Picked: ageOf(now, n.picked), Connected: ageOf(now, n.connected),
			Retries: n.retries, Before: n.before, Name: append([]byte(nil), n.name.Bytes()...),
		}
		if n.table != nil {
			p.Notes.Group = n.table.Group()
		}
	}
	t := a.attempt
	tried := true // its hosts may be read
	held := t != nil && t.wait.closed
	switch {
	case a.state == queued:
		tried = a.dequeue(now)
	case a.Host != nil && stage != Connected: // it has not answered, so it may be asked again
		t.tried.Forget()
	}
	p.Story = a.pass(now)
	if t != nil {
		p.Try = &PassTry{
			From: t.from.IP(), Since: now - t.since, StartTLS: uint8(t.startTLS), Commands: t.commands,
			Chosen: t.group.made, Heard: t.heard, Late: t.late, Alien: t.alien,
			Waits: ageOf(now, t.wait.first), Waited: int64(t.wait.total), Last: int64(t.wait.last), Before: t.wait.before,
		}
		if held { // its time begins when the gate opens
			p.Try.Waits = 0
		}
		if tried {
			for h := range t.tried.Each() {
				p.Try.Tried = append(p.Try.Tried, nameOf(h))
			}
			p.Try.Resorts = t.tried.LastResorts()
		}
		if g := route.Groups[t.group.id]; t.group.made && t.group.id != engine.Default && g != nil {
			p.Group = g.Group()
		}
	}
	if a.Host != nil {
		if stage == Connected {
			p.Host = nameOf(a.Host)
			if g := groupOf(a.Svc, a.Host); g != "" {
				p.Group = g
			}
		}
		a.Host.Depart()
		a.Host = nil
	}
	if a.counted {
		a.uncount(now)
	}
	if a.notes != nil {
		a.notes.hold.Leave()
	}
	if a.attempt != nil {
		a.attempt = nil
		if tried {
			free.Put(t)
		}
	}
	a.state = over
	a.Count().active.Add(-1)
}

// dequeue takes the session out of its queue and notes how long it was there. It returns
// false if its attempt is still in use by somebody who picks a host for it, and who resets it.
func (a *Admission) dequeue(now int64) (free bool) {
	w := &a.attempt.wait
	if w.waiter == nil { // it has not joined yet
		return true
	}
	waiter := w.waiter
	w.waiter = nil
	a.addWait(now)
	host, abandon := waiter.Leave()
	if host != nil {
		a.attempt.tried.Forget()
		host.Depart()
	}
	return !abandon
}

func nameOf(h *sched.Host) PassHost { return PassHost{h.Name(), h.Addr().String()} }

// ageOf returns how long ago a time is that a session notes; -1 for 0, which is none.
func ageOf(now, t int64) int64 {
	if t == 0 {
		return -1
	}
	return now - t
}

// timeOf is its inverse on another clock, which may have begun later.
func timeOf(now, age int64) int64 {
	switch t := now - age; {
	case age < 0:
		return 0
	case t == 0:
		return 1
	default:
		return t
	}
}

// Destination is where a session arrives.
type Destination struct {
	Svc   *Service
	Host  *sched.Host              // of a session that has one
	Table *sched.Table             // of the group that the passport names; nil: there is none such
	Tried []*sched.Host            // of its passport's, those that are there
	Named map[PassHost]*sched.Host // hosts that its story names; nil: it names none
	Who   func() netip.AddrPort    // the client's address, of a session that stays with its host
}

// Arrive makes the session one that has come from another process with a passport. The
// passport's ages hold at a time on this engine's clock, and it is now. A session that has a
// host goes on where it was; for others the step says what comes next.
func (a *Admission) Arrive(g *Gate, to Destination, p *Passport, try *Attempt, at, now int64) Step {
	*a = Admission{Svc: to.Svc, gate: g, Started: timeOf(at, p.Age)}
	a.Count().active.Add(1)
	free := g.free()
	if p.Origin != nil {
		a.noteHeader(free, p.Origin.Client, p.Origin.To)
	}
	a.resume(p.Story, to.triedBefore)
	if n := p.Notes; n != nil && g.Log != nil { // else nobody takes records in this process
		a.Record(free, n.Client)
		a.notes.host, a.notes.table = to.Host, tableNamed(to.Table, n.Group)
		a.notes.picked, a.notes.connected = timeOf(at, n.Picked), timeOf(at, n.Connected)
		a.notes.retries, a.notes.before = n.Retries, n.Before
		if len(n.Name) > 0 {
			a.notes.name.Set(n.Name)
		}
	}
	if p.Stage == Connected {
		era, up := to.Host.Standing()
		to.Host.Adopt()
		a.Host, a.era, a.state = to.Host, era, admitted
		a.mark(wasDown, !up)
	}
	var who netip.AddrPort
	if t := p.Try; t != nil {
		a.attempt = try
		who = t.From
		try.from, try.since, try.began = clientOf(who), at-t.Since, now
		if p.Stage == Connected {
			try.began = a.began()
		}
		try.startTLS, try.commands = startTLS(t.StartTLS), t.Commands
		try.heard, try.late, try.alien = t.Heard, t.Late, t.Alien
		try.wait.first, try.wait.total = timeOf(at, t.Waits), time.Duration(max(t.Waited, 0))
		try.wait.last, try.wait.before = time.Duration(max(t.Last, 0)), t.Before
		try.wait.since = at - int64(try.wait.last)
		if p.Story != nil {
			try.wait.held = time.Duration(max(p.Story.Held, 0))
		}
		try.wait.joined = try.wait.first != 0 || try.wait.total > 0
		if t.Chosen {
			try.group = chosen{to.Svc.groupNamed(p.Group), true}
		}
		var hold sched.Hold
		if p.Stage == Connected {
			hold, _ = to.Table.Hold(try.from, to.Host)
		}
		try.tried.Restore(to.Tried, t.Resorts, hold)
	} else if to.Table.Remembers() || to.Svc.limits.mode.Load() != 0 {
		who = to.Who()
		if hold, ok := to.Table.Hold(clientOf(who), to.Host); ok {
			a.note(free).hold = hold
		}
	}
	if p.Stage != Unheard && to.Svc.limits.mode.Load() != 0 {
		a.countIn(who.Addr().Unmap())
		a.Svc.limits.allotted.adopted()
	}
	switch p.Stage {
	case Unheard:
		a.state = unheard
		return a.awaitHeader(1)
	case Untold:
		a.state = untold
		return a.awaitHello(1)
	case Looking:
		a.state = looking
		return a.Next(now)
	}
	return Step{Do: Relay}
}

// triedBefore returns the host of a story that the session brings along: one of Named, else one of
// its own that has the name alone.
func (d *Destination) triedBefore(name PassHost) *sched.Host {
	if h := d.Named[name]; h != nil {
		return h
	}
	return Stranger(name)
}

// Stranger returns a host that no table has, for its name and address.
func Stranger(name PassHost) *sched.Host {
	addr, _ := sched.ParseAddr(name.Addr) // of one that cannot be read, the name is told
	return sched.NewHost(name.Name, addr)
}

// clientOf is the address of a client as its session has it.
func clientOf(a netip.AddrPort) sched.Addr {
	if !a.IsValid() {
		return sched.Addr{}
	}
	return sched.TCPAddr(a)
}

// tableNamed returns a table of a group for a record: t if it is that.
func tableNamed(t *sched.Table, group string) *sched.Table {
	if group == "" || t != nil && t.Group() == group {
		return t
	}
	other, err := sched.NewTable(sched.Policy{Group: group}, nil)
	if err != nil {
		return nil
	}
	return other
}

// groupNamed returns the group of that name among those that routes choose.
func (s *Service) groupNamed(name string) engine.GroupID {
	for id, t := range s.Route.Load().Groups {
		if name != "" && t.Group() == name {
			return id
		}
	}
	return engine.Default
}

// Tables yields the tables of a route: that of new clients and those that it may choose.
func Tables(r *engine.Route) iter.Seq[*sched.Table] {
	return func(yield func(*sched.Table) bool) {
		if r.Table != nil && !yield(r.Table) {
			return
		}
		for _, t := range r.Groups {
			if t != nil && !yield(t) {
				return
			}
		}
	}
}
