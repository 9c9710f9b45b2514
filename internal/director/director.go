// Package director is the control plane: the one writer.
//
// One goroutine, [Director.Run], decides everything that the event loops only
// read. A change of the configuration comes in through [Director.Do], a failed
// connect through the engine's reports, a probe and a name through goroutines
// of the director's own; each decision leaves as a new plan for the engine.
// Readers load [Director.State] and never wait.
//
// Health: a group with a <check> is probed as that says. In others hostCheck probes
// hosts that are out, and one success brings a host back; heartbeat probes hosts
// that are in, and the third failure in a row takes one out. In both, failed
// connects of clients take a host out, the first one unless maxFails says
// otherwise: the host itself counts them. While every host of a group is out, they
// are probed at most a second apart, whatever the intervals are. A probe that fails
// because this machine has no descriptor or local port says nothing about the host,
// and neither does one that began before the host last changed. A host that has
// come back gets its share step by step during its slow start, each step with a new
// table. With start="down", a host is in no table before a check of it has passed.
//
// A host name stands for its IPv4 addresses, or for its IPv6 addresses if it has no
// other; the name of SRV records stands for the addresses and ports of the hosts
// that they name. Names are looked up again at the interval of their hosts.
// Addresses that stay keep health and sessions. Those that go get no new sessions;
// their health is kept for ten minutes, in case they come back. A name that stops
// resolving keeps its addresses. A host whose name has never resolved is left out
// until it does. Counters and sessions belong to the host, whatever its addresses
// are: see [Host.Stats].
//
// Limits: Options.MaxProbes are under way at once, the longest due first, and every
// 10 ms at most 128 new ones start. If more hosts than that are silent, probes
// start late, but none is skipped.
package director

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/certs"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// Engine is what the director needs of the data plane.
type Engine interface {
	Apply(engine.Plan) error
	Failures() <-chan engine.Failure
	Refused(yield func(service, reason string, clients uint64))
	EndSessions(why engine.Ending, which func(engine.Candidate) bool) int
	Sessions(most int, which func(service string, host *sched.Host) bool) []engine.SessionInfo
	Listeners() []engine.Listener
	Snapshot() engine.Snapshot
	Inherit(before engine.Snapshot)
}

// Options are what a Director may be given.
type Options struct {
	Log      *slog.Logger // nil: slog.Default
	Resolver Resolver     // asked without <dns servers>; nil: the servers of /etc/resolv.conf are
	// Probe makes one probe; nil: package health does.
	Probe func(context.Context, health.Probe) health.Result
	// MaxProbes is how many probes are under way at once; 0: 64. Each takes two
	// descriptors at most.
	MaxProbes int
	// Schedulers are the program's own, by NAME: those of groups whose scheduler is
	// "custom:NAME". The map is copied.
	Schedulers map[string]sched.Scheduler
	Document   *document.File // where the configuration came from; nil: it was not read from a file
	// Inherited is the state of a director in another process, whose place this one takes:
	// counters, health, events and all else go on for services and hosts that have the same
	// names. New does not wait for names that were looked up there. nil: there is none.
	Inherited *Inherited
	// Prepare prepares a change outside the engine, such as the listeners of admin
	// interfaces, before the change is accepted. An error rejects the change.
	// Otherwise settle is called once, with true if next now runs and false if the
	// change was rejected; it must not wait. Prepare may wait: it has its own
	// goroutine, and ctx ends when the change is dropped. One call runs at a time.
	// nil: there is nothing to prepare.
	Prepare func(ctx context.Context, was, next *config.Config) (settle func(accepted bool), err error)

	// Commit is asked about each change that is prepared, before it is made: it is how a fleet
	// decides. nil: changes are this process's alone.
	Commit Commit
	// Fleet decides about all else that all nodes do together; nil: nothing is.
	Fleet Fleet
	// Generation is that of the configuration at the start, if none is inherited; 0: 1.
	Generation uint64

	// Starting bounds New, beside the timeout of its look-ups; nil: nothing else does.
	Starting context.Context
	// Notify is called with what happens, in its order, one call at a time. It must not
	// wait, as all decisions do meanwhile. nil: nobody wants to know.
	Notify func(Notice)
	// Hooks returns what the program does for a service. It is asked when a route of the
	// service is built, and must not wait. nil: nothing.
	Hooks func(service string) Hooks
}

// Change is one change of the configuration.
type Change struct {
	By, From, Verb string                     // who, from where, what: for the log
	Apply          func(*config.Config) error // changes a copy; an error drops it

	Generation uint64 // if not 0: refused with a *MovedError unless it is this one that runs
	DryRun     bool   // do all but make the change
	// Given is the generation that others have given the change, with which they have
	// accepted it: 0 if they have not. Options.Commit is then not asked, and listeners that
	// cannot be opened here are left out, see Director.Closed.
	Given uint64
	// Waits is, with Given, what of the changes of all nodes waits to be confirmed, and Text
	// what events say of the change.
	Waits *Waits
	Text  string
	// Leap tells that others have made the change as several, of which nothing is known here:
	// Rollback does not go back beyond it, and says this. Apply may set it. nil or "": it is one.
	Leap *string
	// Confirm is when the change is undone unless it is confirmed before; 0: never. See
	// [Director.Confirm].
	Confirm time.Duration
	Edits   *[]changes.Edit // if not nil: where to tell what the change did, or would do

	// lists and tls are files that were read for it; others that it names are read, if they
	// are new.
	lists  lists
	tls    *certs.Set
	doc    *document.File // that it was read from, and that is stored once it is confirmed
	undoes *undoing       // the change that it undoes; nil: none
}

// Director is the control plane. See the package comment.
type Director struct {
	eng   Engine
	opt   Options
	log   *slog.Logger
	state atomic.Pointer[State]

	changes chan request
	orders  chan func() // what is no change of the configuration
	probed  chan probeResult
	looked  chan lookup
	stopped chan struct{} // closed when Run has returned
	files   files
	events  events
	started *config.Config // what New was given
	customs map[string]*custom
	frozen  atomic.Pointer[frost] // why changes are refused; nil: they are not
	adopted uint64                // counts the calls of adopt
	undos   atomic.Uint64         // changes that were undone because nobody has confirmed them
	groups  engine.GroupID        // counts the groups that there have been

	// What follows belongs to New, and then to Run.
	config   *config.Config
	underway *underway // the change that waits for its names
	// unconfirmed are the changes that are undone unless they are confirmed; nil: none.
	unconfirmed *unconfirmed
	leftOut     map[leftOut]bool // hosts that the log has told of
	looping     []config.Loop    // names that the log has told of
	targets     map[targetKey]*Target
	byHost      map[*sched.Host]*Target
	names       map[string]*name
	used        names           // by what runs
	unsettled   []unsettled     // hosts of what runs that change by themselves
	forgotten   bool            // a departed target has become part of its host's past
	moved       map[string]bool // names that the state is behind of; true: in their addresses
	source      *source         // where names are looked up
	routes      map[string]*route
	lists       lists           // of access rules, as they were last read
	tls         *certs.Set      // certificates and authorities of what runs
	life        context.Context // of Run
	closed      closed          // listeners that should be open and are not
	looker      looker          // at their files
	dirty       bool            // a plan is due
	touched     map[string]bool // services whose hosts have changed since tellUsable
	// touchedAll is whether all may have.
	touchedAll bool
	usability  map[usabilityKey]*usability
	rejections map[rejection]*rejected
	recent     atomic.Pointer[[]Rejection]        // for Rejections
	probing    int                                // probes under way
	swept      time.Time                          // when startProbes last looked
	soon       soon                               // what it looks at
	stoodAt    time.Time                          // when a probe last ended too late to prove anything
	reweigh    bool                               // a host has been complained of
	weighed    time.Time                          // when weigh last ran
	listening  bool                               // listen runs
	listened   time.Time                          // when it was last started
	heard      chan map[*sched.Host]time.Duration // what it has found; has room for the one that runs
	endings    endings
	leavers    leavers
	leaving    atomic.Pointer[[]Leaver] // for Leavers
	ramping    map[*Target]bool
	ramped     time.Time // when ramp last went through them

	strays    strays     // have their own lock
	heirlooms *heirlooms // of another process; only while New runs
	exported  time.Time  // when Export or ExportChanges was last called
	noted     uint64     // the newest event then

	nextLook time.Time // when startLookups goes through the names again

	holds   map[groupKey]*holding // groups that are held
	ended   map[groupKey]string   // the IDs of holds of all nodes that have ended on this one
	waiting chan struct{}         // has room for one: clients begin to wait in a group that has a command
}

// request is a call of Do that waits for Run.
type request struct {
	ctx    context.Context // of the caller, who may give up
	change Change
	answer chan<- answer // has room for one
}

type answer struct {
	generation uint64
	err        error
	work       func() edits
}

const (
	// startLookup bounds the look-ups that New waits for.
	startLookup = 5 * time.Second
	// scanEvery is how often the hosts are scanned for what the engine could
	// not report.
	scanEvery = time.Second
)

// ErrStopped is returned by Do when Run has ended.
var ErrStopped = errors.New("the director has stopped")

// New resolves the configuration's names, which may take five seconds, and
// makes the engine serve it. Names that do not resolve by then are left out
// until they do. The error is the engine's: listeners that cannot be opened; or
// that of Options.Starting. With Options.Commit others have accepted the configuration:
// listeners that cannot be opened here are left out, see [Director.Closed].
// cfg may be changed afterwards.
func New(cfg *config.Config, eng Engine, opt Options) (*Director, error) {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.MaxProbes == 0 {
		opt.MaxProbes = maxProbes
	}
	d := &Director{
		eng: eng, opt: opt, log: opt.Log,
		changes:    make(chan request),
		probed:     make(chan probeResult, opt.MaxProbes),
		orders:     make(chan func()),
		looked:     make(chan lookup, maxLookups),
		stopped:    make(chan struct{}),
		targets:    map[targetKey]*Target{},
		byHost:     map[*sched.Host]*Target{},
		names:      map[string]*name{},
		moved:      map[string]bool{},
		routes:     map[string]*route{},
		touched:    map[string]bool{},
		usability:  map[usabilityKey]*usability{},
		rejections: map[rejection]*rejected{},
		ramping:    map[*Target]bool{},
		heard:      make(chan map[*sched.Host]time.Duration, 1),
		endings:    endings{walked: make(chan walk, 1)},
		leavers:    leavers{hosts: map[*Target]*Leaver{}},
		holds:      map[groupKey]*holding{},
		ended:      map[groupKey]string{},
		waiting:    make(chan struct{}, 1),
	}
	cfg = cfg.Clone()
	var err error
	if d.customs, err = newCustoms(opt.Schedulers); err != nil {
		return nil, err
	}
	if err := d.checkCustoms(cfg); err != nil {
		return nil, err
	}
	if d.lists, err = readLists(cfg, nil); err != nil {
		return nil, err
	}
	d.looker.store = certs.NewStore(d.log)
	if d.tls, err = d.looker.store.Reread(wantedTLS(cfg)); err != nil {
		return nil, tlsProblems(cfg, fileOf(opt.Document), err)
	}
	d.looker.store.Use(d.tls)
	d.started = cfg
	d.files.take(opt.Document)
	d.source = newSource(&cfg.DNS, opt.Resolver)
	generation := max(opt.Generation, 1)
	if opt.Inherited != nil {
		d.heirlooms = opt.Inherited.state.heirlooms()
		generation = max(opt.Inherited.state.Generation, 1)
	}
	if err := d.lookupAll(d.inheritNames(namesOf(cfg))); err != nil {
		return nil, err
	}
	d.inheritUnconfirmed(cfg)
	if err := d.begin(cfg, generation); err != nil {
		return nil, err
	}
	if d.heirlooms != nil {
		d.inherit(d.heirlooms.state)
		d.heirlooms, d.opt.Inherited = nil, nil
	}
	return d, nil
}

// State returns what runs now.
func (d *Director) State() *State { return d.state.Load() }

// Do makes a change and returns the generation of the configuration that has
// it. The change is whole or not at all: an error from Apply, from the check
// of the configuration or from the engine leaves everything as it was. Changes
// made at the same moment are done one after the other. A change that brings
// new host names waits for their first look-up, six seconds at most; hosts whose
// names have not resolved by then are left out until they do. When ctx ends
// before, the change is dropped. A dry run waits for no names and returns the
// generation as it is. On a node that is joining its fleet, a change waits for that, some seconds
// at most.
func (d *Director) Do(ctx context.Context, c Change) (generation uint64, err error) {
	if c.Given == 0 && !c.DryRun {
		if d.awaitFleet(ctx); ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	reply := make(chan answer, 1)
	select {
	case d.changes <- request{ctx, c, reply}:
	case <-d.stopped:
		return 0, ErrStopped
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	// Run has taken it and will answer.
	a := <-reply
	if a.err != nil {
		return 0, a.err
	}
	if done := a.work().done; c.Edits != nil {
		*c.Edits = done
	}
	d.events.bound()
	return a.generation, nil
}

// Run is the director's goroutine. It returns when ctx ends, after its probes
// and look-ups have.
func (d *Director) Run(ctx context.Context) error {
	defer close(d.stopped)
	ctx, cancel := context.WithCancel(ctx)
	d.life = ctx
	var beside sync.WaitGroup
	beside.Go(func() { d.saveInTime(ctx) })
	defer beside.Wait()
	scan := time.NewTicker(scanEvery)
	defer scan.Stop()
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		changes, givenUp, late, prepared, committed := d.changes, (<-chan struct{})(nil), (<-chan time.Time)(nil), (<-chan preparation)(nil), (<-chan verdict)(nil)
		switch p := d.underway; {
		case p != nil && p.committing != nil: // whatever its caller does, it has been sent
			changes, committed = nil, p.committing
		case p != nil:
			changes, givenUp, late, prepared = nil, p.ctx.Done(), p.late, p.preparing
		}
		select {
		case <-ctx.Done():
			cancel()
			d.await()
			d.awaitVerdict()
			d.drop(ErrStopped)
			return nil
		case r := <-changes:
			d.change(r)
		case order := <-d.orders:
			order()
		case <-givenUp:
			d.drop(d.underway.ctx.Err())
		case ready := <-prepared:
			d.underway.prepared = &ready
			d.finish()
		case v := <-committed:
			d.decided(v)
		case <-late:
			d.drain() // what came at the same moment counts
			if d.underway != nil {
				d.underway.waited = true
				d.finish()
			}
		case f := <-d.eng.Failures():
			d.failed(f)
		case r := <-d.probed:
			d.judge(r)
		case l := <-d.looked:
			d.resolved(l)
		case w := <-d.endings.walked:
			d.wentThrough(w)
		case h := <-d.heard:
			d.hearSilence(h)
		case <-scan.C:
			// Reports come first: they have the better reason.
			d.drain()
			d.scan()
			d.forgetDeparted()
			d.looker.look(&beside)
			d.tickSticky(time.Now())
			d.noteStrays(time.Now())
			d.forgetLeavers(time.Now())
			d.tellRejections(time.Now())
			d.tellFaults(time.Now())
			d.reopen(time.Now())
			d.tellMirrors(time.Now())
			d.runCommands(ctx, &beside)
		case <-d.waiting:
			d.runCommands(ctx, &beside)
		case <-wake.C:
		}
		d.drain()
		d.settleNames()
		now := time.Now()
		nextUndo := d.undoInTime(now)
		if d.reweigh || now.Sub(d.weighed) >= weighEvery {
			d.reweigh, d.weighed = false, now
			d.weigh(now)
		}
		d.tellUsable()
		nextStep := min(d.ramp(now), d.tendHolds(now))
		d.publishPlan()
		nextClose := d.closeLeavers(now)
		d.endDue() // the new tables no longer have these hosts
		wake.Reset(min(nextClose, nextUndo, d.startLookups(ctx, now), d.startProbes(ctx, now), nextStep))
	}
}

// await takes the results of what is still under way.
func (d *Director) await() {
	for d.probing > 0 {
		<-d.probed
		d.probing--
	}
	d.awaitWalk()
	d.awaitSilence()
	for _, n := range d.names {
		for n.looking {
			l := <-d.looked
			d.names[l.host].looking = false
		}
	}
}

// drain takes in all waiting reports and results, so that many hosts that fail or
// come back at once cost few plans.
func (d *Director) drain() {
	for {
		select {
		case f := <-d.eng.Failures():
			d.failed(f)
		case r := <-d.probed:
			d.judge(r)
		case l := <-d.looked:
			d.resolved(l)
		default:
			return
		}
	}
}

// adopt makes cfg the running configuration, if the engine accepts it. If cfg runs
// already, addresses of names have changed, and the services in changed get new
// routes.
func (d *Director) adopt(cfg *config.Config, generation uint64) (uint64, error) {
	all := cfg != d.config
	state := &State{Generation: generation, Config: cfg, unconfirmed: d.unconfirmed, tls: d.tls, index: new(index)}
	was, running := d.State(), d.running(cfg)
	targets := map[targetKey]*Target{} // of hosts that are not kept
	d.awaitReturns()
	state.Services = make([]*Service, 0, len(cfg.Services))
	for i, s := range cfg.Services {
		before := running.before.named(i, s.Name)
		if running.keep(before, s) {
			state.Services = append(state.Services, before)
			continue
		}
		svc, routed := &Service{Config: s}, s.Routed()
		for _, g := range s.Groups {
			group := d.group(s.Name, before.group(g.Name), g)
			group.rule = newRule(&cfg.Manager, g)
			group.Takes = g.Enabled || routed[g.Name]
			group.Mirrors = d.mirrors(s.Name, before.group(g.Name), g)
			group.Hosts = make([]*Host, 0, len(g.Hosts))
			former := running.group(before, g.Name)
			for i, h := range g.Hosts {
				host := former.named(i, h.Name)
				if host != nil {
					host.heir = running.mark
				}
				if !former.keep(host, h) {
					host = d.host(s, group, h, host, targets)
					host.mark = running.mark
				}
				group.Hosts = append(group.Hosts, host)
			}
			d.heirlooms.inheritClients(s.Name, group)
			svc.Groups = append(svc.Groups, group)
		}
		var rules *rules
		if before != nil {
			rules = before.rules
		}
		svc.rules = rulesOf(svc, rules)
		svc.sum()
		state.Services = append(state.Services, svc)
	}
	routes, plan, err := d.plan(state, all)
	if err != nil {
		return 0, err
	}
	if err := d.eng.Apply(plan); err != nil {
		return 0, err
	}
	running.adoptClients(state)
	d.config, d.dirty = cfg, false
	d.routed(state, routes)
	d.replaceTargets(was, running.mark, targets)
	d.publish(state)
	if all {
		d.noteRemoved(was, running.mark)
		d.settleLeavers()
	}
	clear(d.moved)
	d.noteUnsettled(state)
	d.forgotten = false
	d.settle(state, running.mark)
	d.reweigh = true
	d.touchNew(was, state, running.mark)
	if all {
		d.useNames(namesOf(cfg))
	}
	d.reportLeftOut(state)
	d.tellLoops(state)
	return generation, nil
}

// group returns a group with what outlives a change of its configuration. was is the
// one before, nil without.
func (d *Director) group(service string, was *Group, g *config.Group) *Group {
	group := &Group{Config: g, Sticky: stickyOf(g, was), custom: d.customOf(g)}
	if was != nil {
		group.Times, group.id, group.holding = was.Times, was.id, was.holding
		d.hearQueue(group)
		return group
	}
	d.groups++
	group.Times, group.id, group.holding = new(sched.Times), d.groups, new(holding)
	d.heirlooms.inheritGroup(service, group)
	d.inheritHold(service, group)
	d.hearQueue(group)
	return group
}

// host returns the targets of a host: those that it had, and new ones. If an
// operator has changed its address, the health of all of them starts fresh.
func (d *Director) host(s *config.Service, g *Group, h *config.Host, before *Host, targets map[targetKey]*Target) *Host {
	host := &Host{Config: h}
	now := time.Now()
	for _, p := range d.parts(host) {
		key := targetKey{s.Name, g.Config.Name, h.Name, p.addr}
		var t *Target
		if before != nil && before.Config.Address == h.Address {
			if t = d.targets[key]; t == nil {
				t = before.returning(p.addr)
			}
		}
		if before == nil {
			t = d.returning(key, g.Times)
		}
		if t == nil {
			t = newTarget(key, g, now)
			t.settle(g, h, d.tls)
			d.inheritTarget(t, now)
		}
		targets[key] = t
		host.Targets = append(host.Targets, t)
		host.Shares = append(host.Shares, p.Share)
	}
	host.inherit(before, now)
	if before == nil {
		d.inheritHost(s.Name, g, host, now)
	}
	return host
}
