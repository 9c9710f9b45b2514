package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
)

// What all nodes of a fleet do together beside changes: changes that wait to be confirmed, and
// holds. An order goes to Options.Fleet, which writes it where all nodes see it, and comes back
// as State does, on whatever node it was given: by Change.Waits and Await, by Due, and by HoldShared. All of
// these say what is, and not what has changed, so that it does no harm to say it twice.

// Fleet writes orders where all nodes see them. Its methods may wait. They are not called on
// the director's goroutine, so that they may call the director. Share is the exception.
type Fleet interface {
	// Await waits while the node is joining, for some seconds at most: who gives an order just
	// after a start or a hand-over need not know.
	Await(ctx context.Context)
	// Confirm keeps a change that waits on all nodes.
	Confirm(ctx context.Context, generation uint64, by, from string) error
	// Hold holds a group on all nodes. The director has been told when it returns.
	Hold(ctx context.Context, o HoldOrder) error
	// Release ends the hold of a group on all nodes; held: there was one. The error is an
	// *AloneError if only this node can end it now.
	Release(ctx context.Context, o ReleaseOrder) (held bool, err error)
	// Share returns the even share that the node has of a shared limit, 0 of none. It is called on
	// the director's goroutine, and does not wait.
	Share(limit int) int
}

// awaitFleet lets an order of somebody wait while the node is joining its fleet.
func (d *Director) awaitFleet(ctx context.Context) {
	if d.opt.Fleet != nil {
		d.opt.Fleet.Await(ctx)
	}
}

// AloneError tells that other nodes are not reached.
type AloneError struct {
	Why     error
	Unknown bool // they may be: nobody can tell
}

func (e *AloneError) Error() string { return oneLine(e.Why) }
func (e *AloneError) Unwrap() error { return e.Why }

// Waits is what of the changes of all nodes waits to be confirmed.
type Waits struct {
	// List returns those, made by NewPending, the oldest first. running is the configuration
	// with them, and known what this node knew of them before. It is called on the director's
	// goroutine.
	List func(running *config.Config, known []*Pending) []*Pending
	// Kept tells who has confirmed a change that waits no longer. ok is false if nobody has.
	Kept func(generation uint64) (by, from string, ok bool)
	// Here tells that the change was confirmed on this node, so that events have it already.
	Here func(generation uint64) bool
}

// NewPending makes a change of all nodes that waits to be confirmed of what p tells of it. It
// made after of before.
func NewPending(p Pending, before, after *config.Config) *Pending {
	p.shared, p.before, p.after, p.work, p.watch = true, before, after, between(before, after), newWatching()
	return &p
}

// Shared tells whether the change waits on all nodes.
func (p *Pending) Shared() bool { return p.shared }

// Overdue tells whether the change is one of all nodes whose time is over by the clock of the one
// that made it: it is undone when the store of the fleet says so, which it does not while it is
// not there.
func (p *Pending) Overdue(now time.Time) bool { return p.shared && now.After(p.Until) }

// Models returns the configurations before and after the change. They must not be changed.
func (p *Pending) Models() (before, after *config.Config) { return p.before, p.after }

// Undo returns a configuration without the change. What later changes have made stays.
func (p *Pending) Undo(now *config.Config) (*config.Config, error) {
	m, err := p.undo(now)
	return m.Config, err
}

// StillWaiting returns which changes of a list wait to be confirmed when now runs. undone, one
// of the list, is taken back by now; nil: none is.
func StillWaiting(list []*Pending, undone *Pending, now *config.Config) []*Pending {
	if undone != nil {
		list = takenBack(list, undone)
	}
	return stillWaiting(list, now)
}

// MaxUnconfirmed is how many changes may wait to be confirmed at once.
const MaxUnconfirmed = maxUnconfirmed

func newWatching() *watch { return &watch{groups: map[groupKey]bool{}, pause: undoAgain} }

// shared returns what waits to be confirmed when cfg runs as a generation: the changes of all
// nodes that are given, and those of this node alone.
func (d *Director) shared(w *Waits, cfg *config.Config, generation uint64) []*Pending {
	known := d.unconfirmed.all()
	list := slices.Clone(w.List(cfg, known))
	still := map[uint64]bool{}
	for i, p := range list {
		one := *p
		still[p.Generation] = true
		if was := d.unconfirmed.of(p.Generation); was != nil && was.shared {
			one.Made, one.Until, one.By, one.From, one.Trouble = was.Made, was.Until, was.By, was.From, was.Trouble
			one.work, one.doc, one.watch = was.work, was.doc, was.watch
		} else if p.Generation == generation && generation != d.State().Generation {
			one.watch = newWatch(d.State(), cfg)
		} else {
			one.watch = newWatching()
		}
		list[i] = &one
	}
	for _, p := range known {
		if !p.shared {
			list = append(list, p)
		} else if !still[p.Generation] {
			d.waitsNoMore(p, w)
		}
	}
	slices.SortStableFunc(list, func(a, b *Pending) int { return cmp.Compare(a.Generation, b.Generation) })
	return list
}

// waitsNoMore notes that a change of all nodes was confirmed. An undo, or a rollback, is a
// change, and noted as that.
func (d *Director) waitsNoMore(p *Pending, w *Waits) {
	by, from, kept := w.Kept(p.Generation)
	if !kept {
		return
	}
	d.keep(p, by, from)
	if !w.Here(p.Generation) {
		d.events.note(Event{
			Kind: OrderEvent, Generation: d.State().Generation, By: by, From: from, Verb: fmt.Sprintf("confirm %d", p.Generation),
			Text: fmt.Sprintf("generation %d stays: %s", p.Generation, p.Verb),
		})
	}
}

// Await says what waits to be confirmed on all nodes, without another configuration: the one
// that runs has it, as is tells of the generation.
func (d *Director) Await(ctx context.Context, generation uint64, w *Waits) error {
	return d.ordered(ctx, func() error {
		if d.State().Generation != generation {
			return fmt.Errorf("generation %d does not run", generation)
		}
		list := d.shared(w, d.config, generation)
		if u := d.underway; u != nil && u.committing == nil && u.change.undoes != nil && u.change.undoes.shared && !slices.ContainsFunc(list, func(p *Pending) bool { return p.Generation == u.change.undoes.Generation }) {
			d.drop(errConfirmed)
		}
		d.unconfirmed = newUnconfirmed(d.config, list)
		d.republish()
		return nil
	})
}

// Due tells that the time of a change of all nodes is over. This one undoes it after a while,
// unless another one has by then, or it is confirmed.
func (d *Director) Due(ctx context.Context, generation uint64, after time.Duration) error {
	return d.ordered(ctx, func() error {
		p := d.unconfirmed.of(generation)
		if p == nil || !p.shared {
			return nil
		}
		if at := time.Now().Add(after); p.watch.due.IsZero() {
			p.watch.due = at
		} else if p.watch.again.After(at) && p.Trouble != "" { // what stood in its way may be gone
			p.watch.again, p.watch.pause = at, undoAgain
		}
		return nil
	})
}

// confirmShared is Confirm for a change of all nodes.
func (d *Director) confirmShared(ctx context.Context, p *Pending, by, from string) (*Pending, error) {
	if err := d.opt.Fleet.Confirm(ctx, p.Generation, by, from); err != nil {
		return nil, err
	}
	err := d.ordered(ctx, func() error {
		is := d.unconfirmed.of(p.Generation)
		if is == nil || !is.shared { // Await was quicker
			return nil
		}
		d.keep(is, by, from)
		d.unconfirmed = newUnconfirmed(d.config, without(d.unconfirmed.all(), is))
		d.republish()
		return nil
	})
	if err != nil && d.refused() != nil { // the next process learns of it by itself
		err = nil
	}
	return p, err
}

// SharedHold is a group that is held on all nodes, or was just released.
type SharedHold struct {
	HoldOrder
	Release *ReleaseOrder // nil: it is held
	Here    bool          // the last order was given on this node: events have it already
	End     time.Time     // it ends then at the latest; zero: For after this node has heard of it
}

// ReleaseOrder says how to release a group.
type ReleaseOrder struct {
	By, From       string
	Service, Group string
	Over           time.Duration // 0: all clients go on at once
	ID             string        // of one on all nodes; "" for a caller of Director.Release
}

// HoldShared says which groups are held on all nodes. Each node counts by its own clock, from
// when it has heard of the order: what it has ended by that is not held again. Groups that are
// not there yet are left out.
func (d *Director) HoldShared(ctx context.Context, list []SharedHold) error {
	return d.ordered(ctx, func() error {
		said := map[groupKey]bool{}
		for _, h := range list {
			key := groupKey{h.Service, h.Group}
			said[key] = true
			if g, err := d.groupFor(h.Service, h.Group); err == nil {
				d.holdShared(key, g, h)
			}
		}
		for key := range d.holds {
			if g, err := d.groupFor(key.service, key.group); err == nil && !said[key] && g.Hold() != nil && g.Hold().ID != "" && !g.Hold().Releasing() {
				d.endHold(key.service, g, "its time was over")
			}
		}
		for key := range d.ended {
			if !said[key] {
				delete(d.ended, key)
			}
		}
		return nil
	})
}

func (d *Director) holdShared(key groupKey, g *Group, h SharedHold) {
	is, r := g.Hold(), h.Release
	switch {
	case h.Release == nil && (is != nil && is.ID == h.ID || d.ended[key] == h.ID):
	case h.Release == nil:
		now := time.Now()
		next := h.hold(now)
		if !h.End.IsZero() && h.End.Before(next.Until) {
			next.Until = h.End
		}
		if !next.Until.After(now) { // this node has come too late for it
			if is != nil && is.ID != "" {
				d.endHold(key.service, g, "its time was over")
			}
			return
		}
		if is != nil {
			next.Since = is.Since
		}
		d.holdAs(key.service, g, next, h.For)
		d.noteShared(h.Here, h.By, h.From, fmt.Sprintf("hold %s %s for=%v", key.service, key.group, h.For), "")
	case is != nil && is.ID != "" && (!is.Releasing() || r.ID != "" && is.ReleaseID != r.ID):
		n := d.release(key.service, g, r)
		d.noteShared(h.Here, r.By, r.From, fmt.Sprintf("release %s %s", key.service, key.group), fmt.Sprintf("clients: %d", n))
	}
}

// noteShared makes an event of an order that another node was given.
func (d *Director) noteShared(here bool, by, from, verb, text string) {
	if !here {
		d.events.note(Event{Kind: OrderEvent, Generation: d.State().Generation, By: by, From: from, Verb: verb, Text: text})
	}
}

// holdEverywhere is Hold on all nodes.
func (d *Director) holdEverywhere(ctx context.Context, o HoldOrder) (h *Hold, was bool, err error) {
	d.awaitFleet(ctx)
	var g *Group
	look := func() (err error) {
		g, err = d.groupFor(o.Service, o.Group)
		return err
	}
	if err := d.ordered(ctx, look); err != nil {
		return nil, false, err
	}
	was = g.Hold() != nil
	if err := d.opt.Fleet.Hold(ctx, o); err != nil {
		return nil, was, err
	}
	if err := d.ordered(ctx, look); err != nil {
		if d.refused() != nil { // all nodes hold, and so does the next process of this one
			return o.hold(time.Now()), was, nil
		}
		return nil, was, err
	}
	if h = g.Hold(); h == nil {
		return nil, was, errors.New("it was released again at once")
	}
	return h, was, nil
}

// releaseEverywhere is Release on all nodes.
func (d *Director) releaseEverywhere(ctx context.Context, o ReleaseOrder) (r Released, err error) {
	d.awaitFleet(ctx)
	waiting := 0
	err = d.ordered(ctx, func() error {
		g, err := d.groupFor(o.Service, o.Group)
		if err == nil && g.Hold() != nil {
			waiting = g.Times.Queue.Len()
		}
		return err
	})
	if err != nil {
		return r, err
	}
	held, err := d.opt.Fleet.Release(ctx, o)
	if alone := (*AloneError)(nil); errors.As(err, &alone) {
		r, err = d.releaseHere(ctx, o)
		r.Alone = alone
		return r, err
	}
	if err != nil {
		return r, err
	}
	if held {
		return Released{Waiting: waiting, Held: true}, nil
	}
	return d.releaseHere(ctx, o) // all nodes know of none
}

// oneLine is an error without line ends.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
