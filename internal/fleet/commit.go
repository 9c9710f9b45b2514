package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
)

// RefusedError rejects a change because of the fleet or of its store, and not because of the
// change.
type RefusedError struct {
	Fleet string
	Why   error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("fleet %s takes no changes from this node now: %v", e.Fleet, oneLine(e.Why))
}

func (e *RefusedError) Unwrap() error { return e.Why }

// Commit decides about a change for [director.Options].Commit: it is one compare-and-swap in
// the store. A change of what the node alone has is always accepted. The error is a
// *director.MovedError if other nodes have changed something that this one does not run yet, a
// *LagsError if it cannot run that, a *RefusedError if the store does not take it, and wraps an
// *UnknownError if it may still take it.
func (n *Node) Commit(ctx context.Context, p director.Proposal) (generation uint64, err error) {
	if sameShared(p.Was, p.Next) && p.Undoes == 0 {
		return p.Generation, nil
	}
	for range commitTries {
		n.mu.Lock()
		n.commands.learn(p.Was) // the change may delete groups
		store, base, known, why, lags := n.store, n.newest, n.known, n.refuses(), n.lags()
		n.mu.Unlock()
		if why != nil {
			return 0, &RefusedError{n.opt.Config.Name, why}
		}
		if !sameShared(p.Was, base.Config) {
			if lags != nil {
				return 0, lags
			}
			return 0, n.moved(p, base)
		}
		generation, err = n.commit(ctx, store, base, known, p)
		if !errors.Is(err, errOther) { // it has the same configuration: somebody has confirmed a change
			return generation, err
		}
	}
	return 0, &RefusedError{n.opt.Config.Name, errors.New("its configuration changes all the time; try again")}
}

// commitTries is how often a write is tried while the configuration's key has another revision.
const commitTries = 5

// errOther tells that the key has another revision than this node has known, and what it has is
// known now.
var errOther = errors.New("the store has another configuration")

// commit makes one attempt for Commit, or returns errOther.
func (n *Node) commit(ctx context.Context, store Store, base *document, known int64, p director.Proposal) (generation uint64, err error) {
	if p.Undoes != 0 && base.waiting(p.Undoes) == nil {
		return 0, fmt.Errorf("generation %d: %w any more", p.Undoes, director.ErrNothingPending)
	}
	n.mu.Lock()
	runs := n.running[p.Undoes] != 0
	n.mu.Unlock()
	if p.Late && runs {
		return 0, fmt.Errorf("generation %d: %w", p.Undoes, director.ErrNotDue)
	}
	doc := base.next(change{
		Node: n.name, By: p.By, From: p.From, Verb: p.Verb, Time: time.Now(), Undoes: p.Undoes, Why: p.Why,
	}, p.Next, n.opt.Version)
	if err := doc.wait(base, &p); err != nil {
		return 0, err
	}
	value, err := doc.encode()
	if err != nil {
		return 0, err
	}
	var lease Lease
	if doc.waiting(doc.Generation) != nil {
		err := within(ctx, commitWithin, func(ctx context.Context) (err error) {
			lease, err = store.Grant(ctx, p.Confirm)
			return err
		})
		if err != nil {
			return 0, &RefusedError{n.opt.Config.Name, err}
		}
	}
	n.offers(doc, value)
	revision, is, err := n.swap(ctx, store, value, known, n.deadlines(base, doc, lease))
	unknown := (*UnknownError)(nil)
	if lease != 0 && err != nil && !errors.As(err, &unknown) {
		n.release(store, lease) // nothing has it
	}
	switch {
	case err == nil && lease != 0:
		n.noteNewest(doc, revision, doc.Generation)
		return doc.Generation, nil
	case err == nil:
		n.noteNewest(doc, revision)
		return doc.Generation, nil
	case errors.Is(err, ErrMoved) && is.Key != "" && is.Revision < known:
		n.loses(errWentBack)
		return 0, &RefusedError{n.opt.Config.Name, errWentBack}
	case errors.Is(err, ErrMoved):
		there := n.read(is.orDeleted(n.configKey(), known))
		n.mu.Lock()
		n.hearConfig(there)
		newest, why := n.newest, n.unusable
		n.mu.Unlock()
		if newest == nil {
			if why == nil {
				why = errors.New("somebody has deleted its configuration from the store; a node writes it again")
			}
			return 0, &RefusedError{n.opt.Config.Name, why}
		}
		return 0, errOther
	case errors.As(err, &unknown):
		return 0, fmt.Errorf("the store of fleet %s has not said whether it takes the change, which may still take effect (see show events): %w", n.opt.Config.Name, err)
	}
	return 0, &RefusedError{n.opt.Config.Name, err}
}

// orDeleted is what is there, or that nothing is.
func (e Entry) orDeleted(key string, known int64) Entry {
	if e.Key == "" {
		return Entry{Key: key, Revision: known + 1, Deleted: true}
	}
	return e
}

// refuses tells why no change can be accepted now. n.mu is held.
func (n *Node) refuses() error {
	switch {
	case n.store == nil:
		return n.why
	case n.unusable != nil:
		return n.unusable
	case n.newest == nil:
		return errors.New("this node has just joined, and has not read its configuration yet")
	}
	return n.older(n.newest)
}

// moved is the error of a change that came too late.
func (n *Node) moved(p director.Proposal, newest *document) error {
	err := &director.MovedError{Want: p.Generation, Is: newest.Generation}
	for _, c := range newest.History {
		if c.Generation > p.Generation {
			err.Since = append(err.Since, director.Event{
				Kind: director.ConfigEvent, Generation: c.Generation, Time: c.Time, By: c.By + " on node " + c.Node, From: c.From, Verb: c.Verb,
			})
		}
	}
	if i := len(err.Since) - 1; i >= 0 {
		theirs := p.Was.Clone()
		take(theirs, newest.Config)
		err.Since[i].Edits = changes.Diff(p.Was, theirs)
	}
	return err
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
