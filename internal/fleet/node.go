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
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
)

// Options are what a Node is made of.
type Options struct {
	Config   config.Fleet                             // of the node; Name is not ""
	Connect  func(ctx context.Context) (Store, error) // begins a connection to the store
	StateDir string                                   // where it keeps what it knows of itself
	Version  string                                   // of the program
	Vitals   func() (ready bool, sessions int64)      // nil: ready, without sessions
	Log      *slog.Logger                             // nil: slog.Default
}

const (
	// commitWithin bounds a compare-and-swap: etcd gives up after seven seconds.
	commitWithin = 8 * time.Second
	// firstPause and longestPause are how long a node waits between attempts to join.
	firstPause, longestPause = 500 * time.Millisecond, 5 * time.Second
	// retryEvery is how often a node tries again to run what it could not.
	retryEvery = 5 * time.Second
	// saveEvery is the least time between two copies of the configuration in the node's file.
	saveEvery = time.Second
)

// Node is this process as one of a fleet. Its methods may be called from any goroutine.
type Node struct {
	opt      Options
	log      *slog.Logger
	name     string
	path     string // of the memory
	instance string // of this process
	started  time.Time
	wake     chan struct{} // the fleet has something new
	publish  chan struct{} // this node has
	settled  chan struct{} // this node runs what the fleet has

	mu         sync.Mutex
	dir        *director.Director // nil: Run has not begun
	memory     memory
	former     string // instance of the process that was this node before
	handedOver bool   // another process is the node now

	store   Store // nil: this node has not joined
	why     error // it has not
	told    string
	since   time.Time // when it has joined, or left
	mine    int64     // revision of the node's key
	written string    // its value

	known    int64     // revision of the key of the configuration as last heard
	newest   *document // that is there; nil: none that can be used
	newestAt time.Time // when this node has heard of it
	unusable error     // why it cannot be
	problem  error     // why this node does not run the newest
	copied   error     // why its file does not have it
	members  map[string]Member
	heard    time.Time // when the store has last said something

	dispossessed chan struct{} // the node's key is gone, or another's
}

// New returns a node that has not joined. The error is about the folder for state, or about
// the name of the machine.
func New(opt Options) (*Node, error) {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Vitals == nil {
		opt.Vitals = func() (bool, int64) { return true, 0 }
	}
	name, err := opt.Config.NodeName()
	if err != nil {
		return nil, err
	}
	n := &Node{
		opt: opt, log: opt.Log, name: name, instance: newID(), started: time.Now(), since: time.Now(),
		path: filepath.Join(opt.StateDir, "fleet-"+opt.Config.Name+".json"),
		wake: make(chan struct{}, 1), publish: make(chan struct{}, 1), settled: make(chan struct{}, 1), dispossessed: make(chan struct{}, 1),
		why: errStarting, members: map[string]Member{},
	}
	if n.memory, err = recall(n.path); err != nil {
		return nil, err
	}
	n.former = n.memory.Instance
	return n, nil
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
	n.dir = dir
	n.memory.Instance = n.instance
	n.mu.Unlock()
	n.remember()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { n.follow(ctx) })
	beside.Go(func() { n.copy(ctx) })
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

// HandOver tells that another process is this node from now on: its place stays when Run ends.
func (n *Node) HandOver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handedOver = true
}

func (n *Node) isHandedOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handedOver
}

// left notes that the node is without the store.
func (n *Node) left(err error) {
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

// within calls f with a limit.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(bounded)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the store has not answered within %v", limit)
	}
	return err
}

// membership joins the fleet and stays in it. It returns why the node is in it no more, and
// whether it was.
func (n *Node) membership(ctx context.Context) (joined bool, _ error) {
	store, err := n.opt.Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = store.Close() }()
	lease, revision, err := n.claim(ctx, store)
	leaving := ctx
	defer func() { // a node that joins again keeps its place
		if lease != 0 && (!joined || leaving.Err() != nil) {
			n.release(store, lease)
		}
	}()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watched := make(chan error, 1)
	watch := func(after int64) {
		watching.Go(func() { watched <- store.Watch(ctx, n.prefix(), after, n.hear) })
	}
	watch(revision)
	tick := time.NewTicker(n.renewEvery())
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-n.dispossessed:
			return true, errors.New("the key of this node is gone")
		case err = <-watched:
			if !errors.Is(err, ErrCompacted) {
				return true, err
			}
			var entries []Entry
			if entries, revision, err = n.get(ctx, store); err == nil {
				n.hearAll(entries)
				watch(revision)
			}
		case <-n.publish:
			err = n.tell(ctx, store, lease)
		case <-tick.C:
			err = within(ctx, n.patience(), func(ctx context.Context) error { return store.Renew(ctx, lease) })
			if err == nil {
				err = n.tell(ctx, store, lease)
			}
		}
		if err != nil {
			return true, err
		}
	}
}

// release ends a lease, unless another process is the node.
func (n *Node) release(store Store, lease Lease) {
	if n.isHandedOver() {
		return
	}
	_ = within(context.Background(), time.Second, func(ctx context.Context) error { return store.Revoke(ctx, lease) })
}

func (n *Node) get(ctx context.Context, store Store) (entries []Entry, revision int64, err error) {
	err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
		entries, revision, err = store.Get(ctx, n.prefix())
		return err
	})
	return entries, revision, err
}

// claimTries is how often a node tries to write its key while that changes.
const claimTries = 5

// claim writes the node's key and takes in what the fleet has. A lease that it returns with an
// error has been made for nothing.
func (n *Node) claim(ctx context.Context, store Store) (lease Lease, revision int64, err error) {
	for range claimTries {
		var entries []Entry
		if entries, revision, err = n.get(ctx, store); err != nil {
			return lease, 0, err
		}
		var was int64
		for _, e := range entries {
			if e.Key != n.nodeKey() {
				continue
			}
			if err := n.mayReplace(e); err != nil {
				return lease, 0, err
			}
			was = e.Revision
		}
		if lease == 0 {
			err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
				lease, err = store.Grant(ctx, n.opt.Config.Lease)
				return err
			})
			if err != nil {
				return 0, 0, err
			}
		}
		value := n.self()
		var mine int64
		err = within(ctx, n.patience(), func(ctx context.Context) (err error) {
			mine, _, err = store.Swap(ctx, n.nodeKey(), []byte(value), was, lease)
			return err
		})
		if errors.Is(err, ErrMoved) {
			continue
		}
		if err != nil {
			return lease, 0, err
		}
		select { // what an earlier membership has been told
		case <-n.dispossessed:
		default:
		}
		n.mu.Lock()
		n.mine, n.written, n.former = mine, value, ""
		n.known, n.newest, n.unusable = 0, nil, nil
		n.store, n.why, n.told, n.since = store, nil, "", time.Now()
		n.mu.Unlock()
		n.hearAll(entries)
		n.log.Info("joined the fleet", "fleet", n.opt.Config.Name, "node", n.name)
		return lease, revision, nil
	}
	return lease, 0, err
}

// mayReplace tells why this process may not take the place of the one that has the node's key.
func (n *Node) mayReplace(e Entry) error {
	m, err := readMember(e.Value)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("the key %s has no node of txlb: %w; delete it", e.Key, err)
	case m.ID != n.memory.ID:
		return fmt.Errorf("another node of the fleet has the name %q (txlb %s, since %s): give this one another name with <fleet node>, or wait until the other's lease ends",
			n.name, m.Version, m.Started.Local().Format(time.DateTime))
	case m.Instance != n.instance && m.Instance != n.former:
		return fmt.Errorf("another process is the node %q, with the same id: was %s copied from another machine? Delete it on one of the two", n.name, n.path)
	}
	return nil
}

// hearAll takes in all that the fleet has.
func (n *Node) hearAll(entries []Entry) {
	n.mu.Lock()
	n.members = map[string]Member{}
	n.mu.Unlock()
	n.hear(entries)
	n.poke(n.wake) // also if there is no configuration
}

// hear takes in what has changed.
func (n *Node) hear(entries []Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = time.Now()
	for _, e := range entries {
		switch name, is := cutPrefix(e.Key, n.nodePrefix()); {
		case e.Key == n.configKey():
			n.hearConfig(e)
		case is:
			n.hearNode(name, e)
		}
	}
}

func cutPrefix(key, prefix string) (string, bool) {
	if len(key) > len(prefix) && key[:len(prefix)] == prefix {
		return key[len(prefix):], true
	}
	return "", false
}

// hearConfig takes in what the key of the configuration has. n.mu is held.
func (n *Node) hearConfig(e Entry) {
	if e.Revision <= n.known {
		return
	}
	n.known, n.newest, n.unusable, n.newestAt = e.Revision, nil, nil, time.Now()
	if e.Deleted {
		n.known = 0
	} else if n.newest, n.unusable = decode(e.Value, n.opt.Config.Name); n.unusable != nil {
		n.unusable = fmt.Errorf("what the store has in %s %w", e.Key, n.unusable)
	}
	n.poke(n.wake)
}

// hearNode takes in what the key of a node has. n.mu is held.
func (n *Node) hearNode(name string, e Entry) {
	if e.Deleted {
		delete(n.members, name)
	} else if m, err := readMember(e.Value); err == nil {
		m.Name = name
		n.members[name] = m
	}
	if name == n.name && n.mine != 0 && e.Revision > n.mine && (e.Deleted || n.members[name].Instance != n.instance) {
		n.poke(n.dispossessed)
	}
}

// poke notes that there is something to do.
func (n *Node) poke(what chan struct{}) {
	select {
	case what <- struct{}{}:
	default:
	}
}

// tell writes the node's key if it says something else than before.
func (n *Node) tell(ctx context.Context, store Store, lease Lease) error {
	value := n.self()
	n.mu.Lock()
	mine, same := n.mine, n.written == value
	n.mu.Unlock()
	if same {
		return nil
	}
	var revision int64
	err := within(ctx, n.patience(), func(ctx context.Context) (err error) {
		revision, _, err = store.Swap(ctx, n.nodeKey(), []byte(value), mine, lease)
		return err
	})
	if errors.Is(err, ErrMoved) {
		err = errors.New("the key of this node is gone, or another's")
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mine, n.written = revision, value
	return nil
}

// self is what the node's key says.
func (n *Node) self() string {
	ready, sessions := n.opt.Vitals()
	n.mu.Lock()
	m := Member{
		ID: n.memory.ID, Instance: n.instance, Version: n.opt.Version, Started: n.started.Round(time.Second),
		Ready: ready, Sessions: sessions, Generation: n.memory.Generation, Problem: n.trouble(),
	}
	n.mu.Unlock()
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is plain data
	}
	return string(data)
}

// remember writes what the node knows of itself.
func (n *Node) remember() {
	n.mu.Lock()
	m := n.memory
	n.mu.Unlock()
	if err := m.keep(n.path); err != nil {
		n.log.Warn("cannot keep what this node knows of its fleet", "err", err)
	}
}

// follow is the goroutine that makes the director run what the fleet has.
func (n *Node) follow(ctx context.Context) {
	for {
		var again <-chan time.Time
		if !n.act(ctx) {
			again = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-again:
		}
	}
}

// act does what is to be done now. It returns false if it has to be tried again.
func (n *Node) act(ctx context.Context) bool {
	n.mu.Lock()
	store, newest, unusable, known := n.store, n.newest, n.unusable, n.known
	n.mu.Unlock()
	var err error
	switch {
	case store == nil:
		return true
	case unusable != nil:
		err = unusable
	case newest == nil && known == 0:
		err = n.found(ctx, store)
	case newest != nil:
		err = n.adopt(ctx, newest)
	}
	if ctx.Err() != nil {
		return true
	}
	n.mu.Lock()
	was := n.problem
	n.problem = err
	n.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		n.log.Error("this node does not run what its fleet has", "fleet", n.opt.Config.Name, "node", n.name, "err", oneLine(err))
	}
	if err == nil && was != nil {
		n.log.Info("this node runs again what its fleet has", "fleet", n.opt.Config.Name, "node", n.name)
	}
	n.poke(n.publish)
	n.poke(n.settled)
	return err == nil
}

// found makes what runs here the configuration of a fleet that has none.
func (n *Node) found(ctx context.Context, store Store) error {
	state := n.dir.State()
	n.mu.Lock()
	doc := &document{
		Fleet: n.opt.Config.Name, Version: n.opt.Version, Generation: state.Generation, ID: newID(), Config: shared(state.Config),
	}
	if n.memory.Generation > 0 { // the fleet had one
		doc.Generation = max(doc.Generation, n.memory.Generation+1)
	}
	n.mu.Unlock()
	doc.History = []change{{Generation: doc.Generation, Node: n.name, By: "fleet", Verb: "begin the fleet", Time: time.Now()}}
	value, err := doc.encode()
	if err != nil {
		return err
	}
	var revision int64
	err = within(ctx, commitWithin, func(ctx context.Context) (err error) {
		revision, _, err = store.Swap(ctx, n.configKey(), value, 0, 0)
		return err
	})
	if errors.Is(err, ErrMoved) {
		return nil // the watch will tell
	}
	if err != nil {
		return fmt.Errorf("cannot write the configuration of a new fleet: %w", err)
	}
	n.log.Info("began the fleet with the configuration of this node", "fleet", n.opt.Config.Name, "node", n.name, "generation", doc.Generation)
	n.noteNewest(doc, revision)
	return nil
}

// noteNewest takes in a document that this node has written.
func (n *Node) noteNewest(doc *document, revision int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store != nil && revision > n.known {
		n.known, n.newest, n.unusable, n.newestAt = revision, doc, nil, time.Now()
	}
	n.poke(n.wake)
}

// errSame drops a change that would change nothing.
var errSame = errors.New("nothing to change")

// maxTold is how many edits go to the log when a node joins.
const maxTold = 100

// adopt makes the director run a document.
func (n *Node) adopt(ctx context.Context, doc *document) error {
	if err := n.older(doc); err != nil {
		return err
	}
	n.mu.Lock()
	first := n.memory.Change == "" || n.memory.Generation == doc.Generation && n.memory.Change == doc.ID
	n.mu.Unlock()
	c := doc.last()
	var differs []changes.Edit
	_, err := n.dir.Do(ctx, director.Change{
		By: c.By, From: "node " + c.Node, Verb: c.Verb, Given: doc.Generation, Edits: &differs,
		Apply: func(running *config.Config) error {
			// Only the director's goroutine changes the state, which is this one.
			if n.dir.State().Generation == doc.Generation && sameShared(running, doc.Config) || !n.isNewest(doc) {
				return errSame
			}
			take(running, doc.Config)
			return nil
		},
	})
	switch {
	case errors.Is(err, errSame):
		if !n.isNewest(doc) {
			return nil
		}
	case err != nil:
		return fmt.Errorf("generation %d cannot run here: %w", doc.Generation, err)
	case first:
		for i, e := range differs {
			if i == maxTold {
				n.log.Warn("more edits not logged", "number", len(differs)-maxTold)
				break
			}
			n.log.Warn("the fleet's configuration replaces what the file of this node says", "edit", e.Done())
		}
	}
	n.mu.Lock()
	moved := n.memory.Generation != doc.Generation || n.memory.Change != doc.ID
	n.memory.Generation, n.memory.Change = doc.Generation, doc.ID
	n.mu.Unlock()
	if moved {
		n.remember()
	}
	return nil
}

func (n *Node) isNewest(doc *document) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest == doc
}

// older refuses a document that is older than what this node had already: the store was
// restored from a backup, or filled by hand.
func (n *Node) older(doc *document) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.memory
	const remedy = "delete %s there, and one of the nodes writes what it runs; or delete %s here, and this node takes what the store has"
	switch {
	case doc.Generation < m.Generation:
		return fmt.Errorf("the store has generation %d, and this node had %d: was it restored from a backup? "+remedy, doc.Generation, m.Generation, n.configKey(), n.path)
	case doc.Generation == m.Generation && doc.ID != m.Change && m.Change != "":
		return fmt.Errorf("the store has another generation %d than this node had: was it restored from a backup? "+remedy, doc.Generation, n.configKey(), n.path)
	}
	return nil
}

// copy is the goroutine that keeps a copy of the fleet's configuration in the node's file.
func (n *Node) copy(ctx context.Context) {
	pause := time.NewTimer(saveEvery)
	defer pause.Stop()
	told := ""
	for {
		state := n.dir.State()
		if n.inStep() {
			err := n.save()
			if err == nil {
				told = ""
			} else if text := err.Error(); text != told {
				told = text
				n.log.Warn("the file of this node does not have the fleet's configuration; without the store the node would start with an older one", "err", text)
			}
		}
		if ctx.Err() != nil {
			return
		}
		pause.Reset(saveEvery)
		select {
		case <-ctx.Done():
			continue
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
		case <-state.Replaced():
		case <-n.settled:
		}
	}
}

// inStep tells whether this node runs what the fleet had when it last heard of it.
func (n *Node) inStep() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest != nil && n.problem == nil
}

// save makes the file say what runs.
func (n *Node) save() (err error) {
	if n.dir.Stored() != nil && len(n.dir.Unsaved()) > 0 {
		_, err = n.dir.Save("fleet", "")
	}
	n.mu.Lock()
	n.copied = err
	n.mu.Unlock()
	return err
}
