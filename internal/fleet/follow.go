package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
)

// follow is the goroutine that makes the director run what the fleet has.
func (n *Node) follow(ctx context.Context) {
	for {
		next := never
		if !n.act(ctx) {
			next = retryEvery
		}
		again := time.After(min(next, n.endHolds(ctx)))
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
		if err = n.adopt(ctx, newest); err == nil {
			n.sync(ctx, newest)
		}
	}
	if ctx.Err() != nil {
		return true
	}
	_ = n.tellHolds(ctx) // it fails at a hand-over: the next process is told
	n.mu.Lock()
	was := n.problem
	n.problem = err
	n.mu.Unlock()
	if newest != nil || unusable != nil {
		n.arrival.ends()
	}
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
	if err := n.mayFound(); err != nil {
		return err
	}
	state := n.dir.State()
	n.mu.Lock()
	doc := &document{
		Fleet: n.opt.Config.Name, Version: n.opt.Version, Generation: state.Generation, ID: newID(), Config: shared(state.Config),
		Unconfirmed: n.carry(state),
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
	n.offers(doc, value)
	var leases []Lease
	defer func() {
		for _, lease := range leases { // nothing has them
			n.release(store, lease)
		}
	}()
	var also []Write
	var deadlines []uint64
	for _, u := range doc.Unconfirmed {
		n.mu.Lock()
		runs := n.running[u.Generation] != 0
		n.mu.Unlock()
		if runs {
			continue
		}
		var lease Lease
		err := within(ctx, commitWithin, func(ctx context.Context) (err error) {
			lease, err = store.Grant(ctx, max(time.Until(u.Time.Add(u.For)), time.Second))
			return err
		})
		if err != nil {
			return fmt.Errorf("cannot write the configuration of a new fleet: %w", err)
		}
		leases, also, deadlines = append(leases, lease), append(also, n.deadline(u, lease)), append(deadlines, u.Generation)
	}
	revision, _, err := n.swap(ctx, store, value, 0, also)
	if err == nil || errors.As(err, new(*UnknownError)) {
		leases = nil
	}
	if errors.Is(err, ErrMoved) {
		return nil // the watch will tell
	}
	if err != nil {
		return fmt.Errorf("cannot write the configuration of a new fleet: %w", err)
	}
	n.log.Info("began the fleet with the configuration of this node", "fleet", n.opt.Config.Name, "node", n.name, "generation", doc.Generation)
	n.noteNewest(doc, revision, deadlines...)
	return nil
}

// mayFound tells why this node leaves it to another one to write what a store without a
// configuration should have: if the key was deleted, nothing of what any node ran may be lost. A
// node that cannot write it is awaited for as long as a lease lasts.
func (n *Node) mayFound() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	best := Member{Generation: n.memory.Generation}
	for name, m := range n.members {
		if name != n.name && m.Generation > best.Generation {
			best = m
		}
	}
	if best.Name == "" || time.Since(n.emptyAt) >= n.opt.Config.Lease {
		return nil
	}
	return fmt.Errorf("the store has no configuration; node %s should write it, which ran generation %d and this node %d", best.Name, best.Generation, n.memory.Generation)
}

// noteNewest takes in a document that this node has written, with the deadlines of changes.
func (n *Node) noteNewest(doc *document, revision int64, deadlines ...uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store != nil && revision > n.known {
		n.known, n.newest, n.unusable, n.newestAt = revision, doc, nil, time.Now()
		for _, generation := range deadlines {
			n.running[generation] = revision
		}
	}
	n.revision = max(n.revision, revision)
	n.poke(n.wake)
}

// errSame drops a change that would change nothing.
var errSame = errors.New("nothing to change")

// maxTold is how many edits go to the log when a node joins.
const maxTold = 100

// adopt makes the director run a document.
func (n *Node) adopt(ctx context.Context, doc *document) error {
	n.mu.Lock()
	if err := n.older(doc); err != nil {
		n.mu.Unlock()
		return err
	}
	first := n.memory.Change == "" || n.memory.Generation == doc.Generation && n.memory.Change == doc.ID
	n.mu.Unlock()
	leap := ""
	c := doc.last()
	var differs []changes.Edit
	_, err := n.dir.Do(ctx, director.Change{
		By: c.By, From: "node " + c.Node, Verb: c.Verb, Given: doc.Generation, Leap: &leap, Edits: &differs,
		Waits: n.waits(doc), Text: doc.text(c),
		Apply: func(running *config.Config) error {
			// Only the director's goroutine changes the state, which is this one.
			n.mu.Lock()
			n.commands.learn(running)
			leap = n.leap(doc)
			n.mu.Unlock()
			if n.dir.State().Generation == doc.Generation && sameShared(running, doc.Config) || !n.isNewest(doc) {
				return errSame
			}
			before := n.dir.State().Config
			n.undoOwn(running, doc)
			take(running, doc.Config)
			n.mu.Lock()
			n.commands.giveBack(running, before)
			n.mu.Unlock()
			return nil
		},
	})
	switch {
	case errors.Is(err, errSame):
		if !n.isNewest(doc) {
			return nil
		}
	case err != nil:
		return &unfitError{doc.Generation, err}
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
	gone := n.commands.gone(n.dir.State().Config)
	moved := n.memory.Generation != doc.Generation || n.memory.Change != doc.ID || !slices.Equal(gone, n.memory.Commands)
	n.memory.Commands = gone
	n.memory.Generation, n.memory.Change, n.ran = doc.Generation, doc.ID, doc
	n.mu.Unlock()
	if moved {
		n.rememberInTime()
	}
	return nil
}

// leap tells what a document is for this node if it is not the next after the one that runs: it
// cannot know what the changes between them were. Those that this node has made itself it knows,
// also if it has not followed them yet. n.mu is held, on the director's goroutine.
func (n *Node) leap(doc *document) string {
	if n.ran == nil {
		return "joined the fleet"
	}
	if runs := max(n.ran.Generation, n.dir.State().Generation); runs+1 < doc.Generation {
		return fmt.Sprintf("caught up from generation %d", runs)
	}
	return ""
}

func (n *Node) isNewest(doc *document) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest == doc
}

// older refuses a document that is older than what this node had already: the store was
// restored from a backup, or filled by hand. n.mu is held.
func (n *Node) older(doc *document) error {
	m := n.memory
	const remedy = "delete %s there, and one of the nodes writes what it runs; or stop this process, delete %s, and start it: this node then takes what the store has"
	switch {
	case doc.Generation < m.Generation:
		return fmt.Errorf("the store has generation %d, and this node had %d: was it restored from a backup? "+remedy, doc.Generation, m.Generation, n.configKey(), n.path)
	case doc.Generation == m.Generation && doc.ID != m.Change && m.Change != "":
		return fmt.Errorf("the store has another generation %d than this node had: was it restored from a backup? "+remedy, doc.Generation, n.configKey(), n.path)
	}
	return nil
}

// copy is the goroutine that keeps a copy of the fleet's configuration in the node's file. What
// could not be written is tried again.
func (n *Node) copy(ctx context.Context) {
	pause := time.NewTimer(saveEvery)
	defer pause.Stop()
	told := ""
	for {
		stored, state, begun := n.dir.StoredReplaced(), n.dir.State(), time.Now()
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
		pause.Reset(max(saveEvery, saveShare*time.Since(begun)))
		select {
		case <-ctx.Done():
			continue
		case <-pause.C:
		}
		again := (<-chan time.Time)(nil)
		if n.lacksCopy() {
			again = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
		case <-state.Replaced():
		case <-stored: // somebody has read or written it: what was wrong with it may be right now
		case <-n.settled:
		case <-again:
			n.rememberAgain()
		}
	}
}

// lacksCopy tells whether the node's folder or file lacks what it should have.
func (n *Node) lacksCopy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.copied != nil || n.unkept != nil
}

// rememberAgain writes what the node knows of itself, if that has failed.
func (n *Node) rememberAgain() {
	n.mu.Lock()
	failed := n.unkept != nil
	n.mu.Unlock()
	if failed {
		n.remember()
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
	if n.dir.State().PendingReload() { // the file is neither read nor written until it is confirmed
		return nil
	}
	if n.dir.Stored() != nil && len(n.dir.Unsaved()) > 0 {
		_, err = n.dir.Save("fleet", "")
	}
	n.mu.Lock()
	was := n.copied
	n.copied = err
	n.mu.Unlock()
	if (was == nil) != (err == nil) {
		n.poke(n.publish)
	}
	return err
}
