package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/director"
)

// Changes of the fleet that wait to be confirmed. The document has what undoes each, so that
// one compare-and-swap makes the change and notes it, undoes it, or confirms it, and only one
// of several nodes succeeds. A key below confirm/ on a lease is the deadline: the store deletes
// it. A change that the document has and that has no key any more is over.

// unconfirmed is a change of the fleet that waits to be confirmed. It is immutable.
type unconfirmed struct {
	change
	For           time.Duration
	before, after *config.Config // what is shared of them
}

// confirmed tells who has confirmed a change.
type confirmed struct {
	Generation uint64
	Node, By   string
	Time       time.Time
}

// xmlUnconfirmed is an unconfirmed as XML. Then are the edits from the configuration of the
// document to the one that the change has made, and Undo those from there to the one before.
type xmlUnconfirmed struct {
	xmlChange
	For  string `xml:"for,attr"`
	Then string `xml:"then"`
	Undo string `xml:"undo"`
}

type xmlConfirmed struct {
	Generation uint64    `xml:"generation,attr"`
	Node       string    `xml:"node,attr"`
	By         string    `xml:"by,attr"`
	Time       time.Time `xml:"time,attr"`
}

// encode writes the change for a document with a configuration.
func (u *unconfirmed) encode(c *config.Config) (x xmlUnconfirmed, err error) {
	then, err := json.Marshal(changes.Diff(c, u.after))
	if err != nil {
		return x, err
	}
	undo, err := json.Marshal(changes.Diff(u.after, u.before))
	return xmlUnconfirmed{u.change.xml(), u.For.String(), string(then), string(undo)}, err
}

// decode reads what encode has written.
func (x *xmlUnconfirmed) decode(c *config.Config) (*unconfirmed, error) {
	fail := func(err error) (*unconfirmed, error) {
		return nil, fmt.Errorf("has generation %d as not confirmed, which cannot be undone here: %w", x.Generation, err)
	}
	u := &unconfirmed{change: change(x.xmlChange).noted()}
	var then, undo []changes.Edit
	var err error
	if u.For, err = time.ParseDuration(x.For); err != nil {
		return fail(err)
	}
	if u.For <= 0 || u.For > maxHold {
		return fail(fmt.Errorf("%v is not a time to wait", u.For))
	}
	if err := errors.Join(json.Unmarshal([]byte(x.Then), &then), json.Unmarshal([]byte(x.Undo), &undo)); err != nil {
		return fail(err)
	}
	if u.after, err = changes.Apply(c, then); err != nil {
		return fail(err)
	}
	if u.before, err = changes.Apply(u.after, undo); err != nil {
		return fail(err)
	}
	u.after, u.before = shared(u.after), shared(u.before)
	return u, nil
}

// pending is the change as the director knows it. own has what is the node's own, before and
// after the change.
func (u *unconfirmed) pending(before, after *config.Config) *director.Pending {
	return director.NewPending(director.Pending{
		Generation: u.Generation, Made: u.Time, Until: u.Time.Add(u.For), By: u.By, From: "node " + u.Node, Verb: u.Verb,
	}, before, after)
}

// waiting returns a change of the document, nil without.
func (d *document) waiting(generation uint64) *unconfirmed {
	for _, u := range d.Unconfirmed {
		if u.Generation == generation {
			return u
		}
	}
	return nil
}

// wait notes in a document which changes wait to be confirmed: of those of the document before,
// and the one that has led to this one.
func (d *document) wait(before *document, p *director.Proposal) error {
	all := map[uint64]*unconfirmed{}
	var list []*director.Pending
	var undone *director.Pending
	add := func(u *unconfirmed) {
		one := u.pending(u.before, u.after)
		all[u.Generation], list = u, append(list, one)
		if p.Undoes == u.Generation {
			undone = one
		}
	}
	for _, u := range before.Unconfirmed {
		add(u)
	}
	if p.Confirm > 0 {
		if len(list) >= director.MaxUnconfirmed {
			return fmt.Errorf("%d changes of the fleet wait to be confirmed, and no more can; confirm some first", len(list))
		}
		add(&unconfirmed{d.last(), p.Confirm, before.Config, d.Config})
	}
	for _, one := range director.StillWaiting(list, undone, d.Config) {
		u := *all[one.Generation]
		u.before, u.after = one.Models()
		d.Unconfirmed = append(d.Unconfirmed, &u)
	}
	for _, u := range before.Unconfirmed {
		if d.waiting(u.Generation) == nil {
			d.Dropped = append(slices.Clone(d.Dropped), u.Generation)
		}
	}
	d.Dropped = d.Dropped[max(0, len(d.Dropped)-maxHistory):]
	return nil
}

// confirm returns the document without a change that somebody confirms; nil: it does not wait.
func (d *document) confirm(c confirmed, version string) *document {
	if d.waiting(c.Generation) == nil {
		return nil
	}
	n := *d
	n.Version = version
	n.Unconfirmed = slices.DeleteFunc(slices.Clone(d.Unconfirmed), func(u *unconfirmed) bool { return u.Generation == c.Generation })
	n.Confirmed = append(slices.Clone(d.Confirmed), c)
	n.Confirmed = n.Confirmed[max(0, len(n.Confirmed)-maxHistory):]
	return &n
}

func (n *Node) confirmPrefix() string { return n.prefix() + "confirm/" }
func (n *Node) confirmKey(generation uint64) string {
	return n.confirmPrefix() + strconv.FormatUint(generation, 10)
}

// deadlines are the writes that go with a document which comes after another one: keys of
// changes that wait no longer go, and the one that comes gets its lease.
func (n *Node) deadlines(before, next *document, lease Lease) (also []Write) {
	for _, u := range before.Unconfirmed {
		if next.waiting(u.Generation) == nil {
			also = append(also, Write{Key: n.confirmKey(u.Generation), Delete: true})
		}
	}
	if u := next.waiting(next.Generation); u != nil && lease != 0 {
		also = append(also, n.deadline(u, lease))
	}
	return also
}

// deadline is the write of the key of a change, on a lease that ends when its time is over.
func (n *Node) deadline(u *unconfirmed, lease Lease) Write {
	value, err := json.Marshal(struct {
		By    string    `json:"by"`
		Node  string    `json:"node"`
		Verb  string    `json:"verb"`
		Until time.Time `json:"until"`
	}{u.By, u.Node, u.Verb, u.Time.Add(u.For).UTC().Round(time.Millisecond)})
	if err != nil {
		panic(err) // it is plain data
	}
	return Write{Key: n.confirmKey(u.Generation), Value: value, Lease: lease}
}

// hearDeadline takes in that the time of a change runs, or is over. n.mu is held.
func (n *Node) hearDeadline(name string, e Entry) {
	generation, err := strconv.ParseUint(name, 10, 63)
	if err == nil && strconv.FormatUint(generation, 10) != name { // 07 is no other name of 7
		err = errors.New("it has not the form of a number that txlb writes")
	}
	if err != nil {
		if !e.Deleted {
			n.complain("not a deadline, ignored", e.Key, err)
		}
		return
	}
	if e.Revision < n.running[generation] {
		return
	}
	if e.Deleted {
		delete(n.running, generation)
	} else {
		n.running[generation] = e.Revision
	}
	n.poke(n.wake)
}

// Confirm keeps a change of all nodes, for [director.Options].Fleet. The error is a
// *RefusedError if the store does not take that, and wraps an *UnknownError if it may still.
func (n *Node) Confirm(ctx context.Context, generation uint64, by, _ string) error {
	for range commitTries {
		n.mu.Lock()
		store, base, known, why := n.store, n.newest, n.known, n.refuses()
		n.mu.Unlock()
		if why != nil {
			return &RefusedError{n.opt.Config.Name, fmt.Errorf("%w; generation %d is not undone either until the store is back", why, generation)}
		}
		doc := base.confirm(confirmed{generation, n.name, by, time.Now()}, n.opt.Version)
		if doc == nil {
			return fmt.Errorf("generation %d: %w any more", generation, director.ErrNothingPending)
		}
		value, err := doc.encode()
		if err != nil {
			return err
		}
		n.offers(doc, value)
		revision, is, err := n.swap(ctx, store, value, known, n.deadlines(base, doc, 0))
		unknown := (*UnknownError)(nil)
		switch {
		case err == nil:
			n.noteNewest(doc, revision)
			return nil
		case errors.Is(err, ErrMoved) && is.Key != "" && is.Revision < known:
			n.loses(errWentBack)
			return &RefusedError{n.opt.Config.Name, errWentBack}
		case errors.Is(err, ErrMoved):
			there := n.read(is.orDeleted(n.configKey(), known))
			n.mu.Lock()
			n.hearConfig(there)
			n.mu.Unlock()
			continue
		case errors.As(err, &unknown):
			return fmt.Errorf("the store of fleet %s has not said whether generation %d is confirmed; look at status, and confirm again if it waits still: %w", n.opt.Config.Name, generation, err)
		}
		return &RefusedError{n.opt.Config.Name, err}
	}
	return &RefusedError{n.opt.Config.Name, errors.New("its configuration changes all the time; try again")}
}

// swap writes the key of the configuration, and others with it.
func (n *Node) swap(ctx context.Context, store Store, value []byte, known int64, also []Write) (revision int64, is Entry, err error) {
	err = within(ctx, commitWithin, func(ctx context.Context) (err error) {
		revision, is, err = store.Swap(ctx, n.configKey(), value, known, 0, also...)
		return err
	})
	return revision, is, err
}

// waits tells the director what of a document waits to be confirmed.
func (n *Node) waits(doc *document) *director.Waits {
	if len(doc.Unconfirmed) == 0 && len(n.dir.State().Pending()) == 0 {
		return nil
	}
	find := func(generation uint64) *confirmed {
		for i := range doc.Confirmed {
			if doc.Confirmed[i].Generation == generation {
				return &doc.Confirmed[i]
			}
		}
		return nil
	}
	return &director.Waits{
		List: func(running *config.Config, known []*director.Pending) (list []*director.Pending) {
			for _, u := range doc.Unconfirmed {
				before, after := u.whole(running, known)
				list = append(list, u.pending(before, after))
			}
			return list
		},
		Kept: func(generation uint64) (by, from string, ok bool) {
			if c := find(generation); c != nil {
				return c.By, "node " + c.Node, true
			}
			return "", "", false
		},
		Here: func(generation uint64) bool {
			c := find(generation)
			return c != nil && c.Node == n.name
		},
	}
}

// undid tells whether a document has come by the undo of a change that nobody has confirmed, or
// by another change that has ended its wait, such as a rollback.
func (d *document) undid(generation uint64) bool {
	return slices.Contains(d.Dropped, generation) || slices.ContainsFunc(d.History, func(c change) bool { return c.Undoes == generation })
}

// whole returns the configurations before and after the change with what is the node's own: as
// it was, if the change was made here, or as it is.
func (u *unconfirmed) whole(running *config.Config, known []*director.Pending) (before, after *config.Config) {
	before, after = running.Clone(), running.Clone()
	if p := pendingOf(known, u.Generation); p != nil {
		was, is := p.Models()
		before, after = was.Clone(), is.Clone()
	}
	take(before, u.before)
	take(after, u.after)
	return before, after
}

// pendingOf returns the change of all nodes that has made a generation, nil without.
func pendingOf(list []*director.Pending, generation uint64) *director.Pending {
	for _, p := range list {
		if p.Generation == generation && p.Shared() {
			return p
		}
	}
	return nil
}

// undoOwn takes back what a change that a document has undone has made of the node's own part.
func (n *Node) undoOwn(running *config.Config, doc *document) {
	for _, p := range slices.Backward(n.dir.State().Pending()) {
		if !p.Shared() || doc.waiting(p.Generation) != nil || !doc.undid(p.Generation) {
			continue
		}
		was, is := p.Models()
		own := was.Clone()
		take(own, is)
		if changes.Same(own, is) {
			continue
		}
		before, err := p.Undo(running)
		if err != nil {
			n.log.Warn("a change was undone in the fleet, and what it has made of this node's own stays", "change", p.Generation, "err", oneLine(err))
			continue
		}
		*running = *before
	}
}

// sync tells the director what of a document waits to be confirmed, if it does not know, and
// whose time is over.
func (n *Node) sync(ctx context.Context, doc *document) {
	if w := n.waits(doc); w != nil && n.synced != doc {
		if err := n.dir.Await(ctx, doc.Generation, w); err != nil {
			return // it changes just now, and will be asked again
		}
	}
	n.synced = doc
	for _, u := range doc.Unconfirmed {
		n.mu.Lock()
		// Only what the store has told up to the document's revision says that a key is missing.
		over := n.store != nil && n.newest == doc && n.upTo >= n.known && n.running[u.Generation] == 0
		n.mu.Unlock()
		if over {
			_ = n.dir.Due(ctx, u.Generation, n.turn(u.Node)) // else the next process is asked
		}
	}
}

// turnEvery is how long each node lets those before it undo a change.
const turnEvery = 100 * time.Millisecond

// turn is how long this node waits before it undoes a change of a node: that one comes first,
// and the others by name, so that not all prepare the same undo.
func (n *Node) turn(author string) (pause time.Duration) {
	if author == n.name {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	pause = turnEvery
	for name := range n.members {
		if name < n.name {
			pause += turnEvery
		}
	}
	return min(pause, 10*turnEvery)
}

// carry returns what of the director's changes waits on all nodes, for a document that this
// node writes because there was none.
func (n *Node) carry(state *director.State) (list []*unconfirmed) {
	for _, p := range state.Pending() {
		if p.Shared() {
			before, after := p.Models()
			list = append(list, &unconfirmed{
				change{Generation: p.Generation, Node: n.name, By: p.By, Verb: p.Verb, Time: p.Made}, p.Until.Sub(p.Made), shared(before), shared(after),
			})
		}
	}
	return list
}

// text is what events say of a change that has led to the document.
func (d *document) text(c change) string {
	if u := d.waiting(c.Generation); u != nil {
		return u.pending(u.before, u.after).Fate()
	}
	return c.Why
}
