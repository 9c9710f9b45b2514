package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/fleet/quota"
)

// limits shares the limits of services out among the nodes that hear each other (package quota),
// and tells the engine how much of them it may use. Without shared limits its goroutine only
// follows who the others are.
type limits struct {
	n        *Node
	allot    func(service string, a engine.Allotment) (engine.Usage, bool)
	exchange *peers.Exchange // nil: this node hears nobody
	wake     chan struct{}
	settled  chan struct{}  // closed once this node knows its part of all limits
	writing  sync.WaitGroup // of the memory of the node

	mu    sync.Mutex
	quota *quota.Node
	given bool // another process has the parts now
	leave bool // no new clients are taken
	state *director.State
	all   []*sharedLimits
	heard map[string]*heardNode // that this one hears
	rows  map[string]*heardRows // by key
	moves uint64                // how often rows have changed
	said  map[string]string     // by key
	hears map[string]string     // the nodes that this one hears, with their addresses
	alone int                   // nodes that nobody can hear, as last counted
	// before is what the process before this one might use.
	before map[string]engine.Allotment
}

const (
	// lookEvery is how often a node looks at its limits. What others say it looks at at once.
	lookEvery = 25 * time.Millisecond
	// lookPause is the least time between two looks, unless one takes more than a tenth of it.
	lookPause = 5 * time.Millisecond
	// maxShared is how many services may share limits. Others take an even share.
	maxShared = peers.MaxLimits/kinds - 1
	// theNode is the key of what a node says of itself.
	theNode = ""
)

// The limits of a service that nodes share.
const (
	sessions = iota
	rate
	kinds
)

// kindNames are the attributes of <limits>.
var kindNames = [kinds]string{"sessions", "rate"}

// sharedLimits is a service whose limits are shared.
type sharedLimits struct {
	config *config.Service
	local  bool             // there are too many: it takes an even share
	known  bool             // last is there
	last   engine.Allotment // what the engine was told
	meters [kinds]meter     // of clients that were rejected
	begun  meter
	is     [kinds]oneLimit
}

// oneLimit is one limit of it.
type oneLimit struct {
	limit   int
	looked  bool // the following three are there
	moved   uint64
	allowed int64
	settled bool
	used    int64
	told    quota.Row
	toldAt  time.Time
	owed    bool // others may have to be told more
}

// key names a limit among nodes.
func (s *sharedLimits) key(kind int) string { return kindNames[kind] + " " + s.config.Name }

func limitOf(l *config.Limits, kind int) int {
	if kind == sessions {
		return l.Sessions
	}
	return l.Rate
}

func newLimits(n *Node) *limits {
	return &limits{
		n: n, allot: n.opt.Allot, wake: make(chan struct{}, 1), settled: make(chan struct{}),
		quota: quota.NewNode(n.name, newID()[:16]), heard: map[string]*heardNode{}, rows: map[string]*heardRows{}, said: map[string]string{},
	}
}

// run looks after limits until ctx ends. The engine keeps the parts that it has then.
func (l *limits) run(ctx context.Context, dir *director.Director) {
	defer l.writing.Wait()
	seldom := time.NewTicker(beat)
	defer seldom.Stop()
	for ctx.Err() == nil {
		var tick <-chan time.Time
		state, began := dir.State(), time.Now()
		if l.look(state, began) {
			tick = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(lookPause, min(10*time.Since(began), beat))):
		}
		select {
		case <-ctx.Done():
		case <-tick:
		case <-l.wake:
		case <-seldom.C:
		case <-state.Replaced():
		}
	}
}

// fleetNow is what the store says of the nodes.
type fleetNow struct {
	joined bool
	since  time.Time // of joined
	nodes  int       // all of them
	alone  int       // of these, those that nobody can hear
	there  []string  // the others
}

func (n *Node) fleetNow() (f fleetNow) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f.joined, f.since = n.store != nil, n.since
	for name, m := range n.members {
		if name == n.name {
			continue
		}
		f.nodes++
		if m.Peer == "" {
			f.alone++
		} else {
			f.there = append(f.there, name)
		}
	}
	f.nodes++
	if !f.joined {
		f.nodes = max(f.nodes, n.memory.Nodes)
	}
	return f
}

// look looks at all shared limits, and tells whether there are some.
func (l *limits) look(state *director.State, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.given {
		return false
	}
	if state != l.state {
		l.list(state)
	}
	fleet := l.n.fleetNow()
	if !fleet.joined || now.Sub(fleet.since) < l.n.opt.Config.Lease { // others may join again later
		fleet.alone = max(fleet.alone, l.alone)
	}
	l.alone = fleet.alone
	if l.exchange != nil {
		fleet.alone += l.hear(&fleet)
	} else {
		fleet.alone = fleet.nodes - 1
	}
	settled := true
	for _, s := range l.all {
		settled = l.share(s, &fleet, now) && settled
	}
	l.tell(fleet.joined)
	select {
	case <-l.settled:
	default:
		if settled {
			close(l.settled)
		}
	}
	if l.n.noteLimits(l.shown(), fleet) {
		l.writing.Go(l.n.remember) // which waits for the disk: other nodes and an upgrade must not
	}
	return len(l.all) > 0
}

// list finds the services whose limits are shared.
func (l *limits) list(state *director.State) {
	was := map[string]*sharedLimits{}
	for _, s := range l.all {
		was[s.config.Name] = s
	}
	l.state, l.all = state, nil
	keys := map[string]bool{}
	for _, svc := range state.Services {
		if !svc.Config.Limits.Shared() {
			continue
		}
		s := was[svc.Config.Name]
		if s == nil {
			s = new(sharedLimits)
		}
		s.config, s.local = svc.Config, l.exchange == nil || len(l.all) >= maxShared
		for kind := range kinds {
			limit := limitOf(&svc.Config.Limits, kind)
			if s.is[kind].limit = limit; limit == 0 || s.local {
				s.is[kind] = oneLimit{limit: limit, allowed: all}
			} else {
				keys[s.key(kind)] = true
			}
		}
		l.all = append(l.all, s)
	}
	l.quota.Only(keys)
	maps.DeleteFunc(l.said, func(key, _ string) bool { return key != theNode && !keys[key] })
}

// share looks at the limits of a service. It returns whether this node knows its parts.
func (l *limits) share(s *sharedLimits, fleet *fleetNow, now time.Time) (settled bool) {
	if !s.known {
		for kind := range kinds {
			s.is[kind].allowed = even(s.is[kind].limit, fleet.nodes)
		}
		if s.last, s.known = l.before[s.config.Name]; !s.known {
			s.last, s.known = s.allotment(), true
		}
		delete(l.before, s.config.Name) // the service may go, and come back when it has another part
	}
	use, ok := l.allot(s.config.Name, s.last)
	if !ok {
		return false // the engine has it in a moment
	}
	s.begun.note(use.Begun, now)
	s.meters[sessions].note(use.OverSessions, now)
	s.meters[rate].note(use.OverRate, now)
	used := [kinds]int64{use.Sessions, s.begun.last(meterSlots)}
	var in [kinds]quota.Limit
	for kind := range kinds {
		one, key := &s.is[kind], s.key(kind)
		if one.limit == 0 {
			continue
		}
		each := even(one.limit, fleet.nodes)
		heard := l.rows[key]
		if heard == nil {
			heard = noRows
		}
		in[kind] = quota.Limit{
			Limit: max(int64(one.limit)-int64(fleet.alone)*each, each), Share: each, Used: used[kind], Leaves: l.leave, Rows: heard.by,
			Wants: min(s.meters[kind].last(wantsSlots), max(each/wantsPart, 1)),
		}
		one.used = used[kind]
		if s.local {
			one.allowed = each
			continue
		}
		if one.looked && one.moved == heard.moved && l.quota.Still(key, &in[kind]) {
			continue
		}
		one.allowed, one.settled = l.quota.Look(key, &in[kind])
		one.looked, one.owed, one.moved = true, true, heard.moved
	}
	next := s.allotment()
	if next != s.last {
		lower := next.Sessions < s.last.Sessions
		s.last = next
		use, ok = l.allot(s.config.Name, next)
		if one := &s.is[sessions]; lower && ok && !s.local && one.limit > 0 && use.Sessions > one.allowed {
			// More have begun since the node looked. From now on none does, and no other node has
			// been told of the gifts.
			in[sessions].Used, one.used = use.Sessions, use.Sessions
			one.allowed, one.settled = l.quota.Reclaim(s.key(sessions), &in[sessions])
			if next = s.allotment(); next != s.last {
				s.last = next
				l.allot(s.config.Name, next)
			}
		}
	}
	settled = true
	for kind := range kinds {
		one, key := &s.is[kind], s.key(kind)
		if one.limit == 0 || s.local {
			continue
		}
		if settled = settled && one.settled; !one.owed {
			continue
		}
		row := l.quota.Row(key)
		if one.worth(row, now) {
			one.told, one.toldAt = *row, now
			l.said[key] = encode(row)
		}
		one.owed = !row.Same(&one.told)
	}
	return settled
}

// wantsPart keeps clients that come again and again from taking all that others have free: a node
// asks for at most that part of an even share at once beyond what it uses.
const wantsPart = 4

// wantsSlots is for how long a node keeps places for clients that it has rejected, in slots of a
// meter: two or three exchanges.
const wantsSlots = 3

// all is more than every limit.
const all = 1 << 30

// even is an even share of a limit, rounded down, but at least 1: a node must be able to serve.
func even(limit, nodes int) int64 {
	if limit == 0 {
		return all
	}
	return int64(max(1, limit/max(nodes, 1)))
}

// allotment is what the engine may use.
func (s *sharedLimits) allotment() engine.Allotment {
	return engine.Allotment{Sessions: s.is[sessions].forEngine(), Rate: s.is[rate].forEngine()}
}

// worth tells whether others have to know a row: gifts at once, what is used when that matters for
// them, and anything once a second.
func (s *oneLimit) worth(row *quota.Row, now time.Time) bool {
	was := &s.told
	if !row.SameHolding(was) {
		return true
	}
	free, before := row.Part-row.Used-row.Wants, was.Part-was.Used-was.Wants
	if free == before && row.Used == was.Used {
		return false
	}
	return max(free-before, before-free) >= max(1, before/8) || now.Sub(s.toldAt) >= beat
}

// tell says what is new.
func (l *limits) tell(joined bool) {
	if l.exchange == nil {
		return
	}
	l.said[theNode] = encode(header{l.quota.Life(), joined, l.quota.View(), l.hears})
	l.exchange.Say(l.said)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is plain data
	}
	return string(text)
}

// heardLimits is that another node has said something of limits, or has come or gone.
func (n *Node) heardLimits() {
	if n.limits != nil {
		n.poke(n.limits.wake)
	}
}

// AwaitLimits waits until this node knows its part of all shared limits, or ctx ends. Without
// shared limits it does not wait, nor on a node that hears no others.
func (n *Node) AwaitLimits(ctx context.Context) {
	if n.limits == nil || n.limits.exchange == nil {
		return
	}
	select {
	case <-n.limits.settled:
	case <-ctx.Done():
	}
}

// Linger is for a node that has left and whose sessions go on: until ctx ends it holds their part of
// shared limits, and gives others what they leave. It is for the time after Run, with its director.
func (n *Node) Linger(ctx context.Context, dir *director.Director) {
	l := n.limits
	if l == nil || l.exchange == nil || n.isHandedOver() {
		return
	}
	l.mu.Lock()
	l.leave = true
	some := len(l.all) > 0
	l.mu.Unlock()
	if !some {
		return
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	l.exchange.Tell(nil, nil) // it checks nothing any more
	l.exchange.Follow(n.follows())
	beside.Go(func() { l.exchange.Run(ctx) })
	l.run(ctx, dir)
}

// Parts is what a node holds of shared limits, for the process that takes its place.
type Parts struct {
	Quota   *quota.State                `json:"quota,omitempty"`
	Allowed map[string]engine.Allotment `json:"allowed,omitempty"` // by service
	Alone   int                         `json:"alone,omitempty"`   // nodes that nobody can hear, and that take an even share
}

// Parts returns what this node holds. With give it holds on to that until Keep: it takes and gives
// nothing any more.
func (n *Node) Parts(give bool) *Parts {
	l := n.limits
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.given = l.given || give
	p := &Parts{Allowed: map[string]engine.Allotment{}, Alone: l.alone}
	if l.exchange != nil {
		p.Quota = l.quota.State()
	}
	for _, s := range l.all {
		p.Allowed[s.config.Name] = l.withUsage(s)
	}
	return p
}

// Keep makes the node go on after Parts: the other process has not taken its place.
func (n *Node) Keep() {
	if l := n.limits; l != nil {
		l.mu.Lock()
		l.given = false
		l.mu.Unlock()
		n.poke(l.wake)
	}
}

// TakeParts gives this node what the process before it held. It is for the time before Run.
func (n *Node) TakeParts(p *Parts) {
	l := n.limits
	if l == nil || p == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Quota != nil && l.exchange != nil {
		l.quota.Take(p.Quota)
	}
	l.before, l.alone = withoutUsage(p.Allowed), p.Alone
	for service, a := range p.Allowed {
		l.allot(service, a)
	}
}

// SharedLimit is a limit of a service that nodes share, in a Status.
type SharedLimit struct {
	Service string `json:"service"`
	Limit   string `json:"limit"` // sessions or rate
	Fleet   int    `json:"fleet"` // of all nodes together
	Part    int64  `json:"part"`  // that this node may use now
	Used    int64  `json:"used"`  // by this node: sessions, or those that have begun in the last second
	// Even is that this node does not know its part, and takes an even share.
	Even bool `json:"even,omitempty"`
}

// shown is what a Status shows.
func (l *limits) shown() (list []SharedLimit) {
	for _, s := range l.all {
		for kind := range kinds {
			if one := &s.is[kind]; one.limit > 0 {
				list = append(list, SharedLimit{s.config.Name, kindNames[kind], one.limit, one.allowed, one.used, !one.settled})
			}
		}
	}
	return list
}

// noteLimits notes what a Status shows, and how many nodes there are. It tells whether that is to be
// remembered.
func (n *Node) noteLimits(list []SharedLimit, fleet fleetNow) (learned bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sharedLimits = list
	if learned = fleet.joined && len(list) > 0 && n.memory.Nodes != fleet.nodes; learned {
		n.memory.Nodes = fleet.nodes
	}
	return learned
}

// limitLines are the lines of a status about shared limits.
func (s *Status) limitLines(b *strings.Builder) {
	for _, l := range s.Limits {
		how := "its part"
		if l.Even {
			how = "an even share"
		}
		fmt.Fprintf(b, "%s of service %s, shared: %d of all nodes, this one uses %d of %d (%s)\n", l.Limit, printable(l.Service), l.Fleet, l.Used, l.Part, how)
	}
}
