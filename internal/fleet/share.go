package fleet

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/words"
)

// sharing shares the checks of hosts out among the nodes: it tells the others what this one has
// found, and its director what the others have. Its goroutine looks at all targets each time
// that something has changed, and each beat.
type sharing struct {
	n        *Node
	exchange *peers.Exchange
	wake     chan struct{}
	lost     chan struct{}      // a node is heard no more
	stop     context.CancelFunc // of the Exchange; nil: it has not begun

	// What follows belongs to its goroutine.
	state    *director.State // that all is of
	all      []*record
	records  map[*director.Target]*record
	nodes    *peers.Nodes
	live     string                       // names of nodes
	found    map[peers.Host]peers.Finding // what this node tells
	sessions map[peers.Host]int64

	silent atomic.Bool // nothing is told now

	// relative is Target.Relative, but in tests whose nodes have one machine.
	relative func(*director.Target) bool
	// least is leastPause, but in simulations, whose clock stands still during a look.
	least time.Duration
	round uint64
}

// record is what sharing knows of a target. With 100,000 of them a look at rest may neither search
// nor allocate for each.
type record struct {
	target *director.Target
	group  *director.Group
	host   peers.Host
	hash   uint64
	alone  bool         // each node checks it itself, and tells nobody of it
	shared bool         // nodes share its checks
	nodes  *peers.Nodes // that mine is about
	mine   bool
	heard  *peers.Heard // that others is about
	others peers.Verdict
	told   bool // the director has been told of rule
	rule   director.Ruling
	round  uint64 // when it was last seen

	// What this node tells of it.
	tells    bool
	finding  peers.Finding
	sessions int64
}

const (
	// beat is how often a node says something at least: after three without, it is not live.
	beat = time.Second
	// leastPause is the least time between two looks at all targets, unless one takes more
	// than a tenth of it. A beat is the most.
	leastPause = 20 * time.Millisecond
	// staleAfter is how long after a look what it has told counts, if no other one follows.
	staleAfter = 3 * beat
)

// newSharing returns how a node shares checks, nil if it does not.
func newSharing(n *Node, c *config.Fleet) (*sharing, error) {
	if c.Listen == "" {
		return nil, nil
	}
	var auth *peers.Auth
	var err error
	if c.Secret != "" {
		auth, err = peers.BySecret(c.Name, c.Secrets()...)
	} else {
		auth = peers.ByCertificates(c.Cert, c.Key, c.CA) // whatever the files have: this node serves
	}
	if err != nil {
		return nil, err
	}
	s := &sharing{n: n, wake: make(chan struct{}, 1), lost: make(chan struct{}, 1), records: map[*director.Target]*record{},
		found: map[peers.Host]peers.Finding{}, sessions: map[peers.Host]int64{}, relative: (*director.Target).Relative, least: leastPause}
	s.silent.Store(true)
	s.exchange = peers.New(peers.Options{
		Fleet: c.Name, Node: n.name, Instance: n.instance, Version: n.opt.Version, Listen: c.Listen, Advertise: c.PeerAddress(), Auth: auth,
		Network: n.opt.Network, Beat: beat, Changed: func() { n.poke(s.wake) }, Lost: func() { n.poke(s.lost) }, Said: n.heardLimits, Log: n.log,
	})
	return s, nil
}

// Notice is what the director tells of, see [director.Options].Notify: what this node has found
// goes to the others at once.
func (n *Node) Notice(what director.Notice) {
	if n.sharing != nil && (what.Kind == director.HostDown || what.Kind == director.HostUp) {
		n.poke(n.sharing.wake)
	}
}

// run shares until ctx ends, and then makes the director check all by itself, or until the process
// has been handed over.
func (s *sharing) run(ctx context.Context, dir *director.Director) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.n.mu.Lock()
	s.stop = cancel
	if s.n.handedOver {
		cancel()
	}
	s.n.mu.Unlock()
	ended := make(chan struct{})
	go func() { s.exchange.Run(ctx); close(ended) }()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	stale := time.AfterFunc(staleAfter, func() { // the looks have stopped
		s.exchange.Tell(nil, nil)
		s.silent.Store(true)
	})
	defer stale.Stop()
	for ctx.Err() == nil {
		s.exchange.Follow(s.n.follows())
		stale.Reset(staleAfter)
		took := s.look(ctx, dir, time.Now())
		select {
		case <-ctx.Done():
		case <-s.lost: // its hosts wait
			s.n.poke(s.wake)
		case <-time.After(max(s.least, min(10*took, beat))):
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-tick.C:
		}
	}
	<-ended
	if !s.n.isHandedOver() { // it gets no more clients then
		s.look(context.Background(), dir, time.Now())
	}
}

// relay notes nodes that others hear, and that neither the store nor this node knows.
func (n *Node) relay(nodes map[string]string) {
	n.mu.Lock()
	same := maps.Equal(n.relayed, nodes)
	n.relayed = nodes
	n.mu.Unlock()
	if !same {
		n.poke(n.sharing.wake)
	}
}

// follows are the nodes that share checks, as the store has last said, and those that others hear.
func (n *Node) follows() (list []peers.Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, m := range n.members {
		list = append(list, peers.Member{Name: name, Addr: m.Peer})
	}
	for name, addr := range n.relayed {
		if _, known := n.members[name]; !known {
			list = append(list, peers.Member{Name: name, Addr: addr})
		}
	}
	return list
}

// look goes through all targets: it rules who checks them, and tells what this node has found.
// It returns how long that took, without the wait for the director.
func (s *sharing) look(ctx context.Context, dir *director.Director, now time.Time) (took time.Duration) {
	var rulings []director.Ruling
	var counts Checks
	news := s.list(dir.State())
	s.exchange.Read(func(h *peers.Heard) {
		if live := strings.Join(h.Names, " "); s.nodes == nil || live != s.live {
			s.nodes, s.live = peers.NewNodes(s.n.name, h.Names), live
		}
		counts.Nodes = 1 + len(h.Names)
		for _, r := range s.all {
			if r.nodes != s.nodes {
				r.nodes, r.mine = s.nodes, s.nodes.Mine(r.hash)
			}
			if r.heard != h {
				r.heard, r.others = h, h.Verdict(r.host)
			}
			status, fresh := r.group.Finding(r.target, now)
			news = s.tell(r, &status, r.mine && r.shared && fresh) || news
			mine, v := r.mine || !r.shared, &r.others
			rule := director.Ruling{Target: r.target}
			if !mine && v.Known {
				rule.Elsewhere, rule.Up, rule.Reason, rule.By = true, v.Up, v.Reason, v.By
			}
			if !r.told || rule != r.rule {
				r.told, r.rule = true, rule
				rulings = append(rulings, rule)
			}
			counts.add(mine, v.Known, status.Up == v.Up)
		}
	})
	if s.silent.Swap(false) || news {
		s.exchange.Tell(s.found, s.sessions)
	}
	took = time.Since(now)
	if len(rulings) > 0 && (dir.Rule(ctx, rulings) != nil || dir.State() != s.state) {
		for i := range rulings { // it may not have taken them: this ends, the director has, or a target had gone
			s.records[rulings[i].Target].told = false
		}
	}
	s.n.mu.Lock()
	s.n.checks = counts
	s.n.mu.Unlock()
	return took
}

// list rebuilds s.all if the state is a new one. news is whether this node has to take back what
// it told of a host that is gone.
func (s *sharing) list(state *director.State) (news bool) {
	if state == s.state {
		return false
	}
	s.state, s.all = state, nil
	s.round++
	for _, svc := range state.Services {
		for _, g := range svc.Groups {
			watched := g.Watched()
			for _, host := range g.Hosts {
				for _, t := range host.Targets {
					r := s.record(t)
					r.group, r.shared, r.round = g, watched && !r.alone, s.round
					s.all = append(s.all, r)
				}
			}
		}
	}
	for t, r := range s.records {
		if r.round != s.round {
			delete(s.records, t)
			delete(s.found, r.host)
			delete(s.sessions, r.host)
			news = true
		}
	}
	return news
}

// tell takes in what this node tells of a target. It reports whether that is something new.
func (s *sharing) tell(r *record, is *director.Status, tells bool) (news bool) {
	var f peers.Finding
	if tells {
		f = peers.Finding{Up: is.Up, Reason: is.Reason, Since: is.Since}
	}
	if tells != r.tells || f != r.finding {
		if r.tells, r.finding, news = tells, f, true; tells {
			s.found[r.host] = f
		} else {
			delete(s.found, r.host)
		}
	}
	if n := r.target.Host.Sessions(); n != r.sessions && !r.alone {
		if r.sessions, news = n, true; n > 0 {
			s.sessions[r.host] = n
		} else { // all that are not told of have none
			delete(s.sessions, r.host)
		}
	}
	return news
}

// record returns the record of a target.
func (s *sharing) record(t *director.Target) *record {
	r := s.records[t]
	if r == nil {
		r = &record{target: t}
		r.host.Service, r.host.Group, r.host.Name, r.host.Addr = t.Where()
		r.hash = r.host.Hash()
		r.alone = s.relative(t) || !r.host.Valid()
		s.records[t] = r
	}
	return r
}

// Checks is who checks the addresses of hosts that this node has.
type Checks struct {
	Nodes    int `json:"nodes"`    // that share them, this one included
	Mine     int `json:"mine"`     // this node, as its share
	Learned  int `json:"learned"`  // others, and it believes them
	Fallback int `json:"fallback"` // this node, because no other tells of them
	Differs  int `json:"differs"`  // this node too, because it has found something else than others
}

func (c *Checks) add(mine, known, agrees bool) {
	switch {
	case mine:
		c.Mine++
	case !known:
		c.Fallback++
	case agrees:
		c.Learned++
	default:
		c.Differs++
	}
}

// Shares is how a node shares checks, in a Status.
type Shares struct {
	Checks
	Listen string `json:"listen"`
	Closed string `json:"closed,omitempty"` // why other nodes cannot follow this one
	// Unfit is that the certificate of this node is why. Stale is what is wrong with its files while
	// what they had last is in use.
	Unfit bool   `json:"unfit,omitempty"`
	Stale string `json:"stale,omitempty"`
	// StaleSince is since when.
	StaleSince time.Time `json:"stale_since,omitzero"`
	// Certificates is that nodes know each other by them, and not by a secret.
	Certificates bool `json:"certificates,omitempty"`
	// ClosedSince is since when.
	ClosedSince time.Time    `json:"closed_since,omitzero"`
	Peers       []peers.Peer `json:"peers"` // by name
	// Missing are the nodes whose sessions this one does not know now, by name. Complete tells
	// that there are none, and that it knows all nodes.
	Missing  []string `json:"missing,omitempty"`
	Complete bool     `json:"complete"`
}

// shares returns how the node shares checks, nil if it does not. n.mu is held.
func (n *Node) shares() *Shares {
	if n.sharing == nil {
		return nil
	}
	s := &Shares{Checks: n.checks, Listen: n.opt.Config.Listen, Certificates: n.opt.Config.Secret == ""}
	list, closed := n.sharing.exchange.Peers()
	s.Peers = append([]peers.Peer{}, list...)
	if closed != nil {
		s.Closed, s.ClosedSince = oneLine(closed), n.sharing.exchange.ClosedSince()
	}
	since, unfit, stale := n.sharing.exchange.Certificate()
	s.Unfit = unfit != nil
	if stale != nil {
		s.Stale, s.StaleSince = oneLine(stale), since
	}
	s.Missing, s.Complete = n.missing(s)
	return s
}

// Remedy is what helps if others cannot follow this node, or it does not hear them.
func (s *Shares) Remedy() string {
	switch {
	case s == nil:
	case s.Unfit || s.Stale != "" && s.Closed == "":
		return "correct the files of cert, key and ca in <fleet>, which are read again without a restart: a certificate that has not ended, of the authority in ca, for servers and clients, and for the host of advertise"
	case s.Closed != "":
		return "find the program that has the port of <fleet listen>: ss -ltnp"
	case s.Certificates:
		return "look at <fleet listen> and advertise of both, at the end of their certificates, at the authorities in ca and the hosts that they are for, and at the network"
	}
	return "look at <fleet listen>, advertise and secret of both, and at the network"
}

// String is one line.
func (s *Shares) String() string {
	among := "shared by " + words.Count(s.Nodes, "node")
	if s.Nodes <= 1 {
		among = "shared with no other node"
	}
	text := fmt.Sprintf("checks, %s: %d hosts by this node, %d by others alone", among, s.Mine+s.Fallback+s.Differs, s.Learned)
	if s.Fallback > 0 {
		text += fmt.Sprintf("; %d of this node's because no other node tells of them", s.Fallback)
	}
	if s.Differs > 0 {
		text += fmt.Sprintf("; %d of this node's because it has found something else than others", s.Differs)
	}
	if s.Closed != "" {
		text += "; other nodes cannot follow this one: " + printable(s.Closed)
	}
	if s.Stale != "" {
		text += "; the files of this node's certificate are not right, and the former ones are in use: " + printable(s.Stale)
	}
	for _, p := range s.Peers {
		if !p.Live {
			text += fmt.Sprintf("\nnode %s is not heard", printable(p.Name))
			if p.Why != "" {
				text += ": " + printable(p.Why)
			}
		}
	}
	for _, name := range s.Silent() {
		text += fmt.Sprintf("\nnode %s tells nothing: it has no <fleet listen>", printable(name))
	}
	return text
}
