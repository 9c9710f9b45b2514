// Package fleet makes several nodes of txlb have one configuration: a [Node] keeps what they
// share in a [Store], decides there about changes, and follows those of the others.
//
// The store has one key with the configuration ([Node.Commit] is a compare-and-swap of it)
// and one key for each node, which goes when its lease ends. The director of the node stays the
// one writer: it asks Commit about a change that it has prepared, and is given what others have
// changed by its Do. Without the store a node serves what it has, and refuses changes.
//
// What a store is, only the packages below know: etcd has the driver of that name. See
// docs/design/fleet.md.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
)

// Options are what a Node is made of.
type Options struct {
	Config   config.Fleet                             // of the node; Name is not ""
	Connect  func(ctx context.Context) (Store, error) // begins a connection to the store
	StateDir string                                   // where it keeps what it knows of itself
	Version  string                                   // of the program
	Vitals   func() (sessions int64, unready error)   // unready: why no new clients are taken; nil: ready, without sessions
	// Obey does what an order tells this process: Upgrade or Shutdown. It returns when that is
	// done, or begun in the case of Shutdown, and what came of it. nil: the process obeys nobody.
	Obey func(ctx context.Context, verb, by, from string) (answer string, err error)
	// Grace is how long the process remains a node after it has been told to shut down.
	Grace time.Duration
	// Allot is that of the engine, for shared limits. nil: this node shares none.
	Allot   func(service string, a engine.Allotment) (engine.Usage, bool)
	Network peers.Network // how nodes that share checks reach each other; nil: TCP
	Log     *slog.Logger  // nil: slog.Default
}

const (
	// commitWithin bounds a compare-and-swap: etcd gives up after seven seconds.
	commitWithin = 8 * time.Second
	// firstPause and longestPause are how long a node waits between attempts to join.
	firstPause, longestPause = 500 * time.Millisecond, 5 * time.Second
	// retryEvery is how often a node tries again to run what it could not.
	retryEvery = 5 * time.Second
	// keepWithin is how long a node waits for a write of its memory before it goes on without.
	keepWithin = time.Second
	// handOverWithin is how long a hand-over waits for a write of the memory.
	handOverWithin = time.Second
	// saveEvery is the least time between two copies of the configuration in the node's file.
	saveEvery = time.Second
	// saveShare keeps copies from taking more than that part of the time: with 10,000 hosts
	// one is a fifth of a second of work.
	saveShare = 10
)

// Node is this process as one of a fleet. Its methods may be called from any goroutine.
type Node struct {
	opt      Options
	log      *slog.Logger
	name     string
	path     string // of the memory
	before   string // where earlier versions had it
	instance string // of this process
	started  time.Time
	wake     chan struct{} // the fleet has something new
	publish  chan struct{} // this node has
	settled  chan struct{} // this node runs what the fleet has
	arrival  arrival       // for orders that come while this node is joining

	keeping chan struct{} // has an element while the memory is written; taken before mu

	lock func(path string) (*os.File, place, error) // lockPlace, but in tests

	mu         sync.Mutex
	dir        *director.Director // nil: Run has not begun
	begun      config.Fleet       // what dir had then; it takes what is changed since no more
	memory     memory
	unread     error    // why it is not read yet; nil: it is
	unkept     error    // why its file does not have it; copy tries again
	handedOver bool     // another process is the node now
	locked     *os.File // the place of this process; nil: it is not locked
	where      place
	lineage    []string             // processes that have handed over to this one, the last at the end, until it joins
	unplaced   string               // why it is not locked, as the log was told
	complaints map[string]time.Time // when the log was told of keys that make no sense

	store   Store // nil: this node has not joined
	why     error // it has not
	told    string
	since   time.Time // when it has joined, or left
	mine    int64     // revision of the node's key
	written string    // its value

	known    int64     // revision of the key of the configuration as last heard
	newest   *document // that is there; nil: none that can be used
	newestAt time.Time // when this node has heard of it
	offered  offer     // what this node has written last, or tried to
	unusable error     // why it cannot be
	emptyAt  time.Time // when this node has seen that there is none
	ran      *document // that this process ran last; nil: none
	problem  error     // why this node does not run the newest
	copied   error     // why its file does not have it
	members  map[string]Member
	upTo     int64               // the newest revision that this node has heard of
	holds    map[string]*held    // by their keys
	counted  map[string]counting // holds, by their IDs
	running  map[uint64]int64    // revisions of the keys of changes whose time runs, by generation
	heard    time.Time           // when the store has last said something

	telling  sync.Mutex // held while the director learns what is held
	commands commands
	synced   *document // what the director knows to be confirmed; belongs to follow

	revision int64      // of the store, the newest that this node has seen
	lost     chan error // why the node has to join again

	silence silence       // of the store
	refusal refusal       // of the store
	doubted chan struct{} // the store has refused something else than the node's key

	sharing *sharing // of checks; nil: it does not share them
	checks  Checks   // as last looked

	limits       *limits       // nil: none are shared
	sharedLimits []SharedLimit // as last looked
	// relayed are nodes that only others know, with their addresses, see relay.
	relayed map[string]string

	orders // what nodes are told to do
}

// New returns a node that has not joined. The error is about the name of the machine. A folder
// for state that cannot be read keeps the node from joining, and not from serving.
func New(opt Options) (*Node, error) {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Vitals == nil {
		opt.Vitals = func() (int64, error) { return 0, nil }
	}
	name, err := opt.Config.NodeName()
	if err != nil {
		return nil, err
	}
	n := &Node{
		opt: opt, log: opt.Log, name: name, instance: newID(), started: time.Now(), since: time.Now(),
		path:    filepath.Join(opt.StateDir, "fleet-"+opt.Config.Name+"@"+name+".json"), // no name has @
		before:  filepath.Join(opt.StateDir, "fleet-"+opt.Config.Name+".json"),
		arrival: newArrival(), keeping: make(chan struct{}, 1), lock: lockPlace,
		wake: make(chan struct{}, 1), publish: make(chan struct{}, 1), settled: make(chan struct{}, 1), lost: make(chan error, 1), doubted: make(chan struct{}, 1),
		why: errStarting, members: map[string]Member{}, running: map[uint64]int64{}, holds: map[string]*held{}, counted: map[string]counting{}, commands: commands{}, complaints: map[string]time.Time{}, orders: newOrders(),
	}
	if n.memory, n.unread = recall(n.path, n.before); n.unread != nil {
		n.why = n.unread
	}
	n.commands.recall(n.memory.Commands)
	if opt.Allot != nil {
		n.limits = newLimits(n)
	}
	n.sharing, err = newSharing(n, &n.opt.Config)
	if n.limits != nil && n.sharing != nil {
		n.limits.exchange = n.sharing.exchange
	}
	return n, err
}

// Why a node has not joined.
var (
	errStarting = errors.New("this node has not asked its store yet")
	errLeft     = errors.New("this node is leaving")
)

// Generation is that of the configuration that the node had last, for
// [director.Options].Generation; 0: it had none.
func (n *Node) Generation() uint64 { return n.memory.Generation }

// Run is the node's goroutine. It joins, follows and joins again until ctx ends, and then
// gives its place up, unless it was handed over.
func (n *Node) Run(ctx context.Context, dir *director.Director) {
	n.mu.Lock()
	n.dir, n.begun = dir, dir.State().Config.Fleet
	n.mu.Unlock()
	n.arrival.begins()
	defer n.arrival.ends()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.vacate()
	}()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { n.follow(ctx) })
	beside.Go(func() { n.copy(ctx) })
	if n.limits != nil {
		// Before others hear this process: one that says nothing of limits has no parts for them.
		n.limits.look(dir.State(), time.Now())
	}
	if n.sharing != nil {
		beside.Go(func() { n.sharing.run(ctx, dir) })
	}
	if n.limits != nil {
		beside.Go(func() { n.limits.run(ctx, dir) })
	}
	beside.Go(func() { n.oversee(ctx) })
	pause := firstPause
	for {
		joined, err := n.membership(ctx)
		if ctx.Err() != nil {
			n.left(errLeft)
			return
		}
		n.left(err)
		if n.isHandedOver() {
			<-ctx.Done()
			return
		}
		if joined {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}

// Announce makes the node tell the others at once what Options.Vitals says.
func (n *Node) Announce() { n.poke(n.publish) }

// HandOver tells that another process is this node from now on: its place stays when Run ends.
// It waits until this process writes nothing more of what the node knows, but not for long: clients
// wait, and a write that hangs comes to nothing.
func (n *Node) HandOver() {
	late := time.NewTimer(handOverWithin)
	defer late.Stop()
	select {
	case n.keeping <- struct{}{}:
		defer func() { <-n.keeping }()
	case <-late.C:
		n.log.Warn("handing over while the disk does not answer", "fleet", n.opt.Config.Name, "node", n.name, "file", n.path)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handedOver = true
	n.vacate() // the other process takes it
	if n.sharing != nil && n.sharing.stop != nil {
		n.sharing.stop() // the other process listens
	}
}

func (n *Node) isHandedOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handedOver
}

// left notes that the node is without the store.
func (n *Node) left(err error) {
	if errors.As(err, new(*UnknownError)) { // about the node's key, and not about a change that is refused now
		err = errors.New(err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store != nil || n.why == errStarting {
		n.since = time.Now()
	}
	n.store, n.why, n.mine, n.written = nil, err, 0, ""
	if text := err.Error(); text != n.told && !errors.Is(err, errLeft) && !n.handedOver {
		n.told = text
		n.log.Warn("not in the fleet: clients are served, changes are refused", "fleet", n.opt.Config.Name, "node", n.name, "err", text)
	}
}

func (n *Node) prefix() string     { return "/txlb/" + n.opt.Config.Name + "/" }
func (n *Node) configKey() string  { return n.prefix() + "config" }
func (n *Node) nodePrefix() string { return n.prefix() + "node/" }
func (n *Node) nodeKey() string    { return n.nodePrefix() + n.name }

// renewEvery is how often the lease is renewed, and patience how long one answer may take.
func (n *Node) renewEvery() time.Duration { return n.opt.Config.Lease / 3 }
func (n *Node) patience() time.Duration   { return max(n.renewEvery(), time.Second) }

// poke notes that there is something to do.
func (n *Node) poke(what chan struct{}) {
	select {
	case what <- struct{}{}:
	default:
	}
}

// recollect reads what the node knows of itself, if that has failed before.
// The disk may hang, so n.mu is not held meanwhile.
func (n *Node) recollect() error {
	n.mu.Lock()
	unread := n.unread
	n.mu.Unlock()
	if unread == nil {
		return nil
	}
	m, err := recall(n.path, n.before)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory, n.unread = m, err
	n.commands.recall(m.Commands)
	return err
}

// remember writes what the node knows of itself. Several goroutines do: one after the other, so
// that the newest is the last.
func (n *Node) remember() {
	n.keeping <- struct{}{}
	defer func() { <-n.keeping }()
	n.write()
}

// rememberInTime is remember for the goroutines that follow the fleet and renew the lease: while the
// disk hangs they go on after keepWithin. copy then writes what is not written.
func (n *Node) rememberInTime() {
	late := time.NewTimer(keepWithin)
	defer late.Stop()
	done := make(chan struct{})
	select {
	case n.keeping <- struct{}{}: // so at most one goroutine hangs
		go func() {
			defer close(done)
			defer func() { <-n.keeping }()
			n.write()
		}()
	case <-late.C:
		n.keepsLate()
		return
	}
	select {
	case <-done:
	case <-late.C:
		n.keepsLate()
	}
}

// keepsLate notes that the disk has not taken in time what this node knows of itself.
func (n *Node) keepsLate() {
	err := fmt.Errorf("cannot keep what this node knows of its fleet: the disk has not answered within %v", keepWithin)
	n.mu.Lock()
	was := n.unkept
	n.unkept = err
	n.mu.Unlock()
	if was == nil || was.Error() != err.Error() {
		n.log.Warn("this node forgets its fleet when it ends", "fleet", n.opt.Config.Name, "node", n.name, "err", err)
		n.poke(n.publish)
	}
}

// write is remember for who has the right to write: an element of keeping.
func (n *Node) write() {
	n.mu.Lock()
	m, was, over := n.memory, n.unkept, n.handedOver
	n.mu.Unlock()
	if over { // the file is the other's
		return
	}
	err := m.keep(n.path, n.isHandedOver)
	if errors.Is(err, errNotOurs) {
		return
	}
	if err == nil {
		_ = os.Remove(n.before)
	} else if err = fmt.Errorf("cannot keep what this node knows of its fleet: %w", err); was == nil || was.Error() != err.Error() {
		n.log.Warn("this node forgets its fleet when it ends", "fleet", n.opt.Config.Name, "node", n.name, "err", err)
	}
	n.mu.Lock()
	if err != nil || n.unkept == was { // else somebody has given up meanwhile, whose news the file may lack
		n.unkept = err
	}
	n.mu.Unlock()
	if (was == nil) != (err == nil) {
		n.poke(n.publish)
	}
}
