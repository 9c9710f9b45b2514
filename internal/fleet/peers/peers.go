// Package peers lets the nodes of a fleet tell each other what they know of hosts and clients:
// what their checks have found, how many sessions each host has, and how much of shared limits
// they use. Each node follows each other one, by a stream of server-sent events over TLS, on
// which both sides prove that they belong to the fleet ([Auth]). Nobody decides anything for
// another: a node that is not heard of is simply not counted on.
//
// Nothing queues: what a node tells is a table ([feed]), and who follows it slowly misses what
// lies between. What a node hears is bounded, and dropped when it begins again.
package peers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options are what an Exchange is made of.
type Options struct {
	Fleet, Node string
	Instance    string // of this process
	Version     string // of the program
	Listen      string // where others follow this node
	Advertise   string // where they find that; for its own certificate alone
	Auth        *Auth
	Network     Network       // nil: TCP
	Beat        time.Duration // how often it says something at least; 0: 1 s
	Changed     func()        // something has been heard; must not wait, or call the Exchange. nil: nobody wants to know
	Lost        func()        // a node is not live any more; else like Changed
	Said        func()        // a node has said something of limits, or who is live has changed; else like Changed
	Log         *slog.Logger
}

// Network is how nodes reach each other. An address has a host and a port. Listen and Dial return
// an error when ctx ends, which does not end what they have returned.
type Network interface {
	Listen(ctx context.Context, address string) (net.Listener, error)
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// tcp is the Network that nodes have.
type tcp struct{}

func (tcp) Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", address)
}

func (tcp) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// silentBeats is how many beats a node may miss before it is not live.
const silentBeats = 3

// Member is a node that this one is to follow.
type Member struct{ Name, Addr string }

// Host is an address of a host of the configuration.
type Host struct {
	Service string `json:"s"`
	Group   string `json:"g,omitempty"`
	Name    string `json:"h,omitempty"`
	Addr    string `json:"a,omitempty"`
}

// Finding is what the checks of a node have concluded of a host.
type Finding struct {
	Up     bool
	Reason string    // why it is down
	Since  time.Time // by the clock of this node
}

// Exchange is this process among the nodes. Its methods may be called from any goroutine.
type Exchange struct {
	opt Options

	mu       sync.RWMutex
	news     chan struct{} // closed when the tables have changed
	checks   *feed[Host, Finding]
	sessions *feed[Host, int64]
	limits   *feed[string, string]
	peers    map[string]*peer
	totals   totals    // of all live peers
	known    bool      // sessions has been told, and not withdrawn
	said     *Heard    // what live nodes have said; nil: something else than when it was made
	closed   time.Time // since when one of the next two is not nil
	opened   error     // why nobody can follow this node; nil: they can
	unfit    error     // why its certificate is not right; nil: it is
	stale    error     // why its files are not right, while what they had is in use
	// staleSince is since when.
	staleSince time.Time
	follow     func(*peer)
	followers  int                    // that follow this node now
	streams    map[string][]*follower // by what they say is their name, the oldest first
	limitsAt   uint64                 // the last of all peers
	moved      chan struct{}          // closed when the nodes to follow have changed
	refused    refused

	provesEvery time.Duration // how often certificates of open streams are looked at
}

// peer is another node, as this one hears it. x.mu guards what can change.
type peer struct {
	member Member
	stop   context.CancelFunc
	silent *time.Timer // runs out when it has said nothing for too long

	live              bool
	since             time.Time     // of live
	heard             time.Time     // when it last said something
	began             time.Time     // when its stream was first ready
	patience          time.Duration // how long it may say nothing
	why               error         // it is not followed; nil: it is, or nothing has been tried
	told              string        // of why, to the log; "": nothing since it was live
	toldAt            time.Time
	version, instance string
	tables
}

// tables are what a node has said.
type tables struct {
	checks   map[Host]Finding
	sessions map[Host]int64
	limits   map[string]string
	// limitText is how many bytes limits has.
	limitText int
	limitsAt  uint64 // another one whenever limits has changed
	text      int    // bytes of the names in both
	counted   bool   // sessions has all hosts
	into      totals // that sessions is part of; nil: of none
}

func newTables() tables {
	return tables{checks: map[Host]Finding{}, sessions: map[Host]int64{}, limits: map[string]string{}}
}

// New returns an Exchange that has not begun.
func New(opt Options) *Exchange {
	if opt.Beat == 0 {
		opt.Beat = time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Network == nil {
		opt.Network = tcp{}
	}
	if opt.Changed == nil {
		opt.Changed = func() {}
	}
	if opt.Lost == nil {
		opt.Lost = func() {}
	}
	if opt.Said == nil {
		opt.Said = func() {}
	}
	return &Exchange{
		opt: opt, news: make(chan struct{}), moved: make(chan struct{}), peers: map[string]*peer{}, streams: map[string][]*follower{}, provesEvery: provesEvery,
		totals: totals{},
		checks: newFeed[Host, Finding](), sessions: newFeed[Host, int64](), limits: newFeed[string, string](),
	}
}

// Run listens, and follows the nodes that Follow names, until ctx ends.
func (x *Exchange) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	x.mu.Lock()
	x.follow = func(p *peer) { // x.mu is held
		following, stop := context.WithCancel(ctx)
		p.stop = stop
		p.silent = time.AfterFunc(time.Hour, func() { x.silence(p) })
		p.silent.Stop()
		running.Go(func() { x.followPeer(following, p) })
	}
	for _, p := range x.peers {
		x.follow(p)
	}
	x.mu.Unlock()
	running.Go(func() { x.listen(ctx) })
	if x.opt.Auth.files != nil {
		running.Go(func() { x.watchOwn(ctx.Done()) })
	}
	<-ctx.Done()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.follow, x.said = nil, nil
	for name, p := range x.peers {
		p.end()
		delete(x.peers, name)
	}
}

// end stops following. x.mu is held.
func (p *peer) end() {
	if p.stop != nil {
		p.stop()
		p.silent.Stop()
	}
	p.live = false
	p.leave()
}

// Follow says which nodes the fleet has. One that is none of them any more is followed for as
// long as it is live: its lease has ended because it does not reach the store.
func (x *Exchange) Follow(members []Member) {
	x.mu.Lock()
	defer x.mu.Unlock()
	wanted := make(map[string]Member, len(members))
	for _, m := range members {
		if m.Name != x.opt.Node && m.Addr != "" {
			wanted[m.Name] = m
		}
	}
	changed := false
	for name, p := range x.peers {
		m, is := wanted[name]
		if is && m == p.member || !is && p.live {
			continue
		}
		p.end()
		delete(x.peers, name)
		x.said = nil
		changed = true
	}
	for name, m := range wanted {
		if x.peers[name] != nil {
			continue
		}
		p := &peer{member: m, tables: newTables(), since: time.Now()}
		x.peers[name] = p
		changed = true
		if x.follow != nil {
			x.follow(p)
		}
	}
	if changed {
		close(x.moved)
		x.moved = make(chan struct{})
		x.opt.Changed()
		x.opt.Said()
	}
}

// silence notes that a node has said nothing for too long.
func (x *Exchange) silence(p *peer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(p.heard) >= p.patience { // else it has spoken while this waited for the lock
		x.lose(p, errSilent)
	}
}

// lose notes that a node is not live. x.mu is held.
func (x *Exchange) lose(p *peer, why error) {
	p.why = why
	if p.live {
		p.live, p.since = false, time.Now()
		p.leave()
		p.tables = newTables() // it is followed again from the beginning
		x.said = nil
		x.opt.Log.Warn("node not heard, its hosts are checked by others", "node", p.member.Name, "addr", p.member.Addr, "err", why)
		p.told, p.toldAt = cause(why), time.Now()
		x.opt.Changed()
		x.opt.Said()
		x.opt.Lost()
	}
}

// Tell says what this node's checks have found and how many sessions its hosts have. What is
// not in a map is said no more; sessions that are nil are not known. The maps are read only
// during the call.
func (x *Exchange) Tell(checks map[Host]Finding, sessions map[Host]int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := x.checks.replace(checks)
	x.sessions.replace(sessions) // waits for the next beat
	x.known = sessions != nil
	if at {
		x.announce()
	}
}

// announce wakes all that follow this node. x.mu is held.
func (x *Exchange) announce() {
	close(x.news)
	x.news = make(chan struct{})
}

// Heard is what live nodes have said. It is valid only during [Exchange.Read].
type Heard struct {
	Names   []string // of the nodes, in order
	peers   []*peer
	tallies map[Host]tally
}

// tally is what nodes say of a host. Who asks for many hosts of many nodes finds it at once.
type tally struct {
	up      bool            // one of them has found it up
	reason  string          // of the first that has not
	down    int             // which of Heard.Names that is
	tellers int             // how many nodes tell
	by      [Copies + 1]int // the first of them
}

// Read calls f with what has been heard. f must not call the Exchange.
func (x *Exchange) Read(f func(*Heard)) {
	h := x.heard()
	x.mu.RLock()
	defer x.mu.RUnlock()
	f(h)
}

// heard returns what has been heard by now.
func (x *Exchange) heard() *Heard {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.said != nil {
		return x.said
	}
	h, rows := new(Heard), 0
	for _, name := range slices.Sorted(maps.Keys(x.peers)) {
		if p := x.peers[name]; p.live {
			h.Names = append(h.Names, name)
			h.peers = append(h.peers, p)
			rows += len(p.checks)
		}
	}
	h.tallies = make(map[Host]tally, rows/Copies)
	for i, p := range h.peers {
		for host, f := range p.checks {
			t := h.tallies[host]
			t.add(i, &f)
			h.tallies[host] = t
		}
	}
	x.said = h
	return h
}

// add counts what a node says.
func (t *tally) add(node int, f *Finding) {
	t.up = t.up || f.Up
	if !f.Up && t.reason == "" {
		t.reason, t.down = f.Reason, node
	}
	if t.tellers < len(t.by) {
		t.by[t.tellers] = node
	}
	t.tellers++
}

// Verdict is what live nodes that check a host have concluded: it is up if one of them says so,
// and down if Copies of them do. Less may be one node that is cut off from the host.
type Verdict struct {
	Known  bool // they tell enough
	Up     bool
	Reason string // why it is down, with the name of the node
	By     string // the nodes, with spaces between them
}

// Verdict returns what is known of a host.
func (h *Heard) Verdict(host Host) (v Verdict) {
	t := h.tallies[host]
	if !t.up && t.tellers < Copies {
		return v
	}
	v.Known, v.Up = true, t.up
	if !t.up {
		v.Reason = "node " + h.Names[t.down] + ": " + t.reason
	}
	for i := range min(t.tellers, len(t.by)) {
		if i > 0 {
			v.By += " "
		}
		v.By += h.Names[t.by[i]]
	}
	return v
}

// Peer is another node in a Status.
type Peer struct {
	Name    string    `json:"name"`
	Addr    string    `json:"addr"`
	Live    bool      `json:"live"`           // what it says counts
	Since   time.Time `json:"since"`          // of Live
	Why     string    `json:"why,omitempty"`  // it is not
	Heard   time.Time `json:"heard,omitzero"` // when it last said something
	Checks  int       `json:"checks"`         // hosts whose state it tells
	Counted bool      `json:"counted"`        // it has told the sessions of all hosts
	Version string    `json:"version,omitempty"`
}

// ClosedSince is since when none of the other nodes can follow this one, zero if they can.
func (x *Exchange) ClosedSince() time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.closed
}

// Peers returns the other nodes by name, and why none of them can follow this one, nil if
// they can.
func (x *Exchange) Peers() (list []Peer, closed error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(x.peers)) {
		p := x.peers[name]
		one := Peer{Name: name, Addr: p.member.Addr, Live: p.live, Since: p.since, Heard: p.heard, Version: p.version}
		if p.live {
			one.Checks, one.Counted = len(p.checks), p.counted
		} else if p.why != nil {
			one.Why = strings.ReplaceAll(p.why.Error(), "\n", "; ")
		}
		list = append(list, one)
	}
	return list, errors.Join(x.opened, x.unfit)
}

// Certificate tells what is wrong with this node's own certificate: unfit, and others refuse it;
// stale since then, and its files are not right while what they had is in use.
func (x *Exchange) Certificate() (since time.Time, unfit, stale error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.staleSince, x.unfit, x.stale
}
