package director

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// awaiting is how long a host that was removed in another process is kept at least for the
// sessions that come from there.
const awaiting = time.Minute

// heirlooms are what another process knew of hosts, until New has given it to them.
type heirlooms struct {
	state   *exported
	groups  map[groupKey]*exportedGroup
	hosts   map[hostKey]*exportedHost
	targets map[targetKey]*exportedTarget
}

type hostKey struct{ service, group, host string }

func (e *exported) heirlooms() *heirlooms {
	l := &heirlooms{e, map[groupKey]*exportedGroup{}, map[hostKey]*exportedHost{}, map[targetKey]*exportedTarget{}}
	for i := range e.Services {
		s := &e.Services[i]
		for j := range s.Groups {
			g := &s.Groups[j]
			l.groups[groupKey{s.Name, g.Name}] = g
			for k := range g.Hosts {
				h := &g.Hosts[k]
				l.hosts[hostKey{s.Name, g.Name, h.Name}] = h
				for n := range h.Targets {
					if key, ok := h.Targets[n].key(s.Name, g.Name, h.Name); ok {
						l.targets[key] = &h.Targets[n]
					}
				}
			}
		}
	}
	return l
}

// key tells which target it is; false: there can be none with that address.
func (e *exportedTarget) key(service, group, host string) (targetKey, bool) {
	addr, err := sched.ParseAddr(e.Addr)
	return targetKey{service, group, host, addr}, err == nil
}

// snapshot has the counters of the engine.
func (e *exported) snapshot() engine.Snapshot {
	s := engine.Snapshot{Services: make(map[string]engine.ServiceStats, len(e.Services)), Loops: e.Loops}
	for i := range e.Services {
		s.Services[e.Services[i].Name] = e.Services[i].Stats
	}
	return s
}

// past is what all addresses of the host have counted.
func (e *exportedHost) past() *past {
	p := &past{stats: e.Stats}
	p.stats.Active, p.stats.Up = 0, false
	for code := range health.Code(health.Codes) {
		p.checks[code] = e.Checks[code.String()]
	}
	return p
}

// inheritGroup gives a new group what its likeness has counted.
func (l *heirlooms) inheritGroup(service string, g *Group) {
	if l == nil {
		return
	}
	if e := l.groups[groupKey{service, g.Config.Name}]; e != nil {
		e.count(g.Times)
	}
}

// count makes counters go on where they were.
func (e *exportedGroup) count(t *sched.Times) {
	var c sched.Counted
	for to, from := range map[*sched.Histogram]*sched.Histogram{
		&c.Connects: e.Connects, &c.Sessions: e.Sessions, &c.Waits: e.Waits, &c.Turnarounds: e.Turns,
	} {
		if from != nil {
			*to = *from
		}
	}
	t.Inherit(c)
	t.Queue.Outdo(e.Longest)
}

// inheritHost gives a new host what its likeness has counted, and the addresses that it no
// longer has.
func (d *Director) inheritHost(service string, g *Group, h *Host, now time.Time) {
	if d.heirlooms == nil {
		return
	}
	e := d.heirlooms.hosts[hostKey{service, g.Config.Name, h.Config.Name}]
	if e == nil {
		return
	}
	h.elder = new(elder)
	h.elder.Store(e.past())
	for i := range e.Gone {
		gone := &e.Gone[i]
		key, ok := gone.key(service, g.Config.Name, h.Config.Name)
		if !ok || len(h.departed) == maxDeparted {
			continue
		}
		t := newTarget(key, g, now)
		t.settle(g, h.Config, d.tls)
		gone.restore(t, now)
		h.departed = append(h.departed, departed{t, earlier(gone.Left, now), gone.Returns, now.Add(awaiting)})
	}
}

// inheritTarget gives a new target the health of its likeness.
func (d *Director) inheritTarget(t *Target, now time.Time) {
	if d.heirlooms == nil {
		return
	}
	e := d.heirlooms.targets[t.key]
	if e == nil {
		return
	}
	e.restore(t, now)
	if run := now.Sub(e.Ramp); !e.Ramp.IsZero() && t.Host.Up() && run < t.slowStart {
		d.startRamp(t, now)
		t.since = earlier(e.Ramp, now)
		t.step = rampStep(now.Sub(t.since), t.slowStart)
		t.limit()
	}
}

// restore gives a target that nobody uses yet the health of its likeness.
func (e *exportedTarget) restore(t *Target, now time.Time) {
	t.Host.Restore(e.Era, e.Up)
	t.waiting = e.Waiting && !e.Up
	t.restoreEjection(e.Ejection, now)
	t.observe(e, now)
}

// observe takes in how the checks of a target went in another process.
func (t *Target) observe(e *exportedTarget, now time.Time) {
	t.failed, t.passed = 0, 0
	if e.Up {
		t.failed = min(max(e.Failed, 0), t.rule.fall-1)
	} else {
		t.passed = min(max(e.Passed, 0), t.rule.rise-1)
	}
	t.last, t.next = earlier(e.Last, now), e.Next
	if late := now.Sub(e.Next); !e.Next.IsZero() && late > 0 { // all are, if this process was long in coming
		t.next = now.Add(rand.N(late))
	}
	t.restate(func(s *Status) {
		s.Up, s.Reason, s.Since = e.Up, e.Reason, earlier(e.Since, now)
		if code, known := health.CodeOf(e.Check.Code); known {
			s.Check = health.Result{Code: code, Text: e.Check.Text, Took: e.Check.Took}
			s.Checked = earlier(e.Check.Ended, now)
		}
	})
}

// earlier returns at, or now if that is earlier: the clock was set back.
func earlier(at, now time.Time) time.Time {
	if at.After(now) {
		return now
	}
	return at
}

// inheritClients gives a sticky group the clients of its likeness.
func (l *heirlooms) inheritClients(service string, g *Group) {
	if l == nil {
		return
	}
	if e := l.groups[groupKey{service, g.Config.Name}]; e != nil {
		e.remember(g)
	}
}

// remember takes clients in that come back to a host of the group.
func (e *exportedGroup) remember(g *Group) {
	if g.Sticky == nil || len(e.Clients) == 0 {
		return
	}
	there := map[targetAt]*sched.Host{}
	for _, h := range g.Hosts {
		for t := range h.All() {
			there[targetAt{h.Config.Name, t.key.addr}] = t.Host
		}
	}
	var hosts []*sched.Host // by their numbers; nil: it is not here
	for i := range e.Hosts {
		h := &e.Hosts[i]
		for _, list := range [][]exportedTarget{h.Targets, h.Gone} {
			for n := range list {
				addr, _ := sched.ParseAddr(list[n].Addr)
				hosts = append(hosts, there[targetAt{h.Name, addr}])
			}
		}
	}
	e.Clients.each(func(c sched.Client, target uint32) {
		if int64(target) < int64(len(hosts)) && hosts[target] != nil {
			c.Host = hosts[target]
			g.Sticky.Remember(c)
		}
	})
}

type targetAt struct {
	host string
	addr sched.Addr
}

// inheritNames puts in what names stood for in another process, so that New does not wait
// for them. It returns those that it has to look up.
func (d *Director) inheritNames(used names) names {
	if d.heirlooms == nil {
		return used
	}
	left := names{}
	for host, every := range used {
		left[host] = every
	}
	now := time.Now()
	for _, e := range d.heirlooms.state.Names {
		every, wanted := left[e.Name]
		if !wanted || len(e.Ends) == 0 && e.Err == "" {
			continue
		}
		n := &name{every: every, source: d.source, since: earlier(e.Since, now), next: e.Next}
		if n.next.IsZero() || n.next.Sub(now) > max(every, lookupAgain) {
			n.next = now
		}
		if e.Err != "" {
			n.err = errors.New(e.Err)
		}
		for _, end := range e.Ends {
			if ip, err := netip.ParseAddr(end.IP); err == nil {
				n.ends = append(n.ends, endpoint{ip, end.Target, end.Port, end.Priority, end.Weight})
			}
		}
		if len(n.ends) == 0 && n.err == nil {
			continue
		}
		d.names[e.Name] = n
		delete(left, e.Name)
	}
	return left
}

// inherit takes in what New could not give to hosts.
func (d *Director) inherit(e *exported) {
	d.eng.Inherit(e.snapshot())
	d.inheritRoutes(e)
	d.files.failed.Store(e.ReloadFailed)
	d.events.seq, d.events.notes, d.noted = e.Events, e.Notes, e.Events
	for _, c := range e.Changes {
		was := edits{c.Edits, c.Undo}
		c.Edits = nil
		d.events.list = append(d.events.list, &event{c.Event, func() edits { return was }})
	}
	d.events.list = d.events.list[max(0, len(d.events.list)-maxEvents):]
	d.events.notes = d.events.notes[max(0, len(d.events.notes)-maxEvents):]
	for _, u := range e.Usability {
		d.usability[usabilityKey{groupKey{u.Service, u.Group}, u.Takes}] = &usability{u.Usable, u.Since, u.Told}
	}
	for _, h := range e.Ended {
		d.ended[groupKey{h.Service, h.Group}] = h.ID
	}
	now := time.Now()
	for _, l := range e.Leavers {
		d.inheritLeaver(l, now)
	}
	d.showLeavers()
}

func (d *Director) inheritLeaver(e exportedLeaver, now time.Time) {
	l := &Leaver{Service: e.Service, Group: e.Group, Host: e.Host, Address: e.Address, Removed: e.Removed, Until: e.Until, since: earlier(e.Since, now), awaited: now.Add(awaiting)}
	if e.Host == "" {
		if !d.listens(l) {
			d.leavers.listeners = append(d.leavers.listeners, l)
		}
		return
	}
	addr, err := sched.ParseAddr(e.Address)
	if err != nil {
		return
	}
	key := targetKey{e.Service, e.Group, e.Host, addr}
	t := d.State().places()[key]
	switch {
	case t != nil:
		l.Removed = l.Removed && d.targets[key] != t
	case e.Removed:
		if t = d.State().gone(key, now); e.Target != nil {
			e.Target.restore(t, now)
		}
		d.strays.put(t)
	default:
		return
	}
	l.target = t
	d.leavers.hosts[t] = l
}

// gone makes a target for a host that is not configured.
func (s *State) gone(key targetKey, now time.Time) *Target {
	g := &Group{Config: config.NewGroup(key.group), Times: new(sched.Times)}
	g.rule = newRule(&s.Config.Manager, g.Config)
	for _, svc := range s.Services {
		if svc.Config.Name == key.service {
			if is := svc.group(key.group); is != nil {
				g = is
			}
		}
	}
	t := newTarget(key, g, now)
	t.settle(g, config.NewHost(key.host, key.addr.String()), nil)
	return t
}

// strays are the targets that no configuration has and that sessions of another process may
// have. Loops ask for them, and must not wait for the director, which may wait for them.
type strays struct {
	mu   sync.Mutex
	all  map[targetKey]*Target
	came []*Target // that were asked for since the director has looked
}

// HostFor returns the host that a session of another process has, which goes on here: one
// that is configured, that its name no longer stands for, or that was removed. One that is
// none of these counts as removed. Any goroutine may call it, and it does not wait for Run.
func (d *Director) HostFor(service, group, host string, addr sched.Addr) *sched.Host {
	key, state := targetKey{service, group, host, addr}, d.State()
	if t := state.places()[key]; t != nil {
		return t.Host
	}
	d.strays.mu.Lock()
	defer d.strays.mu.Unlock()
	t := d.strays.all[key]
	if t == nil {
		t = state.gone(key, time.Now())
		d.strays.put(t)
	}
	d.strays.came = append(d.strays.came, t)
	return t.Host
}

// put adds a target. s.mu is held.
func (s *strays) put(t *Target) {
	if s.all == nil {
		s.all = map[targetKey]*Target{}
	}
	s.all[t.key] = t
}

// drop forgets a target.
func (s *strays) drop(t *Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[t.key] == t {
		delete(s.all, t.key)
	}
}

// places has the targets of all hosts, those of addresses that they no longer have included.
func (s *State) places() map[targetKey]*Target {
	s.index.once.Do(func() {
		s.index.all = map[targetKey]*Target{}
		for _, svc := range s.Services {
			for _, g := range svc.Groups {
				for _, h := range g.Hosts {
					for t := range h.All() {
						if s.index.all[t.key] == nil { // an address that it has comes first
							s.index.all[t.key] = t
						}
					}
				}
			}
		}
	})
	return s.index.all
}

// noteStrays notes the targets that sessions of another process have brought.
func (d *Director) noteStrays(now time.Time) {
	d.strays.mu.Lock()
	came := d.strays.came
	d.strays.came = nil
	d.strays.mu.Unlock()
	for _, t := range came {
		l := d.leaves(t, now)
		l.awaited = now.Add(awaiting)
		l.Removed = d.targets[t.key] != t
	}
	if len(came) > 0 {
		d.showLeavers()
	}
}

// inheritUnconfirmed makes the changes of cfg that waited to be confirmed wait on. The clock
// of the other process counts, but none waits longer than it was meant to.
func (d *Director) inheritUnconfirmed(cfg *config.Config) {
	if d.heirlooms == nil {
		return
	}
	e := d.heirlooms.state
	d.undos.Store(e.Undone)
	var list []*Pending
	for i := range e.Pending {
		p, err := e.Pending[i].restore(cfg, time.Now())
		if err != nil {
			d.log.Error("a change that waits to be confirmed cannot be undone any more: it stays",
				"change", e.Pending[i].Generation, "verb", e.Pending[i].Verb, "by", e.Pending[i].By, "err", err)
			continue
		}
		list = append(list, p)
	}
	d.unconfirmed = newUnconfirmed(cfg, list)
}

// restore makes a change that waits to be confirmed of what another process says. cfg is what
// ran there.
func (e *exportedPending) restore(cfg *config.Config, now time.Time) (*Pending, error) {
	after, err := changes.Apply(cfg, e.Then)
	if err != nil {
		return nil, err
	}
	before, err := changes.Apply(after, e.Undo)
	if err != nil {
		return nil, err
	}
	doc, err := e.File.read()
	if err != nil {
		return nil, err
	}
	p := &Pending{
		Generation: e.Generation, Made: earlier(e.Made, now), Until: e.Until, By: e.By, From: e.From, Verb: e.Verb, Trouble: e.Trouble, shared: e.Shared,
		before: before, after: after, work: between(before, after), doc: doc, watch: newWatching(),
	}
	if latest := now.Add(e.Until.Sub(e.Made)); p.Until.After(latest) {
		p.Until = latest
	}
	for _, w := range e.Groups {
		p.watch.groups[groupKey{w.Service, w.Group}] = w.Usable
	}
	return p, nil
}

// inheritRoutes makes the counters of routes go on.
func (d *Director) inheritRoutes(e *exported) {
	services := formerServices(d.State().Services)
	for i := range e.Services {
		s := services.named(i, e.Services[i].Name)
		if s == nil || s.rules == nil {
			continue
		}
		before := map[routeKey]exportedRoute{}
		for _, r := range e.Services[i].Routes {
			before[routeKey{r.SNI, r.ALPN, r.Nets, r.N}] = r
		}
		for place, key := range routeKeys(s.rules.routes) {
			if r, there := before[key]; there && r.Group == s.rules.routes[place].Group {
				s.rules.table.Inherit(place, r.Clients)
			}
		}
	}
}

// TakeIn takes in what [Director.ExportChanges] of the process says whose state this
// director has begun with. Counters go on from there, and the health of a host is what
// either of the two has seen last. It may be called again, with newer words, by one goroutine at
// a time. Run has to be under way; when it has returned, TakeIn takes in the counters alone, for
// a third process that learns of them by this one's ExportChanges.
func (d *Director) TakeIn(data []byte) error {
	var e exported
	if err := e.read(data); err != nil {
		return err
	}
	err := d.order(context.Background(), func() { d.takeIn(&e, true) })
	if errors.Is(err, ErrStopped) {
		d.takeIn(&e, false)
		return nil
	}
	return err
}

// takeIn takes in counters and, if this director still decides something, all else.
func (d *Director) takeIn(e *exported, decides bool) {
	now := time.Now()
	d.eng.Inherit(e.snapshot())
	d.inheritRoutes(e)
	services := formerServices(d.State().Services)
	for i := range e.Services {
		s := services.named(i, e.Services[i].Name)
		for j := range e.Services[i].Groups {
			said := &e.Services[i].Groups[j]
			g := s.group(said.Name)
			if g == nil {
				continue
			}
			said.count(g.Times)
			said.takeInMirrors(g)
			hosts := former[Host]{list: g.Hosts, nameOf: func(h *Host) string { return h.Config.Name }}
			for k := range said.Hosts {
				h := hosts.named(k, said.Hosts[k].Name)
				if h == nil || h.elder == nil {
					continue
				}
				h.elder.Store(said.Hosts[k].past())
				if !decides {
					continue
				}
				for n := range said.Hosts[k].Targets {
					d.hear(&said.Hosts[k].Targets[n], h, now)
				}
			}
			if decides {
				said.remember(g)
			}
		}
	}
	if !decides {
		return
	}
	d.events.takeIn(e.Notes, e.Events, d.noted)
	d.noted = max(d.noted, e.Events)
}

// hear takes in the health of a target, if it is newer than what is known here.
func (d *Director) hear(e *exportedTarget, h *Host, now time.Time) {
	key, _ := e.key("", "", "")
	for _, t := range h.Targets {
		if t.key.addr != key.addr || t.waiting && e.Waiting {
			continue
		}
		switch was := t.Status(); {
		case e.Up == was.Up || !e.Since.After(was.Since):
		case e.Up:
			t.Host.MarkUp()
		default:
			t.Host.MarkDown()
			d.endRamp(t)
		}
		if was := t.Status(); e.Up != was.Up && e.Since.After(was.Since) {
			t.waiting = false
			t.observe(e, now)
			d.soon.forget()
			d.changed(t.key.service)
			d.touched[t.key.service] = true
		}
		if t.restoreEjection(e.Ejection, now) {
			d.changed(t.key.service)
		}
	}
}
