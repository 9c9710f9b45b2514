package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
)

const (
	// maxEvents is how many changes are remembered, and how many of all other
	// events together, so that hosts which come and go push out no change.
	maxEvents = 256
	// maxEventEdits is how many edits all of them may have together; the newest
	// change is remembered whatever it has.
	maxEventEdits = 50_000
)

// EventKind is what an event is about.
type EventKind string

const (
	ConfigEvent EventKind = "change" // the configuration was changed
	HealthEvent EventKind = "health" // a host went down or came up
	OrderEvent  EventKind = "order"  // something was done that is no change of the configuration
)

// Event is something that has happened.
type Event struct {
	Seq            uint64 // counts all events since the start, from 1
	Kind           EventKind
	Generation     uint64 // of the configuration then; of a change, the one that came of it
	Time           time.Time
	By, From, Verb string         // see Change; of a host, only Verb: "host down", "host up"
	Text           string         // of a host, which one and why; of an order, what came of it
	Edits          []changes.Edit // what a change did; Done hides secrets
	Leap           string         // of a change that Rollback does not undo: see Change
}

// event is a change with its way back. The caller of the change computes the edits,
// not the director's goroutine; until then the event keeps both models.
type event struct {
	Event
	work func() edits
}

// edits are the way from one configuration to another, and back.
type edits struct {
	done, undo []changes.Edit
}

// between tells the way from one model to another. Nobody asks for that of a program's: there
// are no verbs that would take it.
func between(before, after *config.Config) func() edits {
	if after.Program {
		return func() edits { return edits{} }
	}
	return sync.OnceValue(func() edits { return edits{changes.Diff(before, after), changes.Diff(after, before)} })
}

// events are what is remembered, the oldest first.
type events struct {
	mu    sync.Mutex
	seq   uint64
	list  []*event // changes
	notes []Event  // all else
}

func (e *events) add(n *event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	n.Seq, n.Kind = e.seq, ConfigEvent
	e.list = append(e.list, n)
	if len(e.list) > maxEvents {
		e.list[0] = nil
		e.list = e.list[1:]
	}
}

func (e *events) note(n Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n.Time = time.Now()
	e.remember(n)
}

// remember adds an event that has its time. e.mu is held.
func (e *events) remember(n Event) {
	e.seq++
	n.Seq = e.seq
	e.notes = append(e.notes, n)
	if len(e.notes) > maxEvents {
		e.notes = e.notes[1:]
	}
}

// takeIn adds events of another process, the newest of which has the number last. This one
// had its own numbers after the last that it knew of there. They change, so that who has read
// there goes on here.
func (e *events) takeIn(notes []Event, last, known uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if last <= known {
		return
	}
	by := last - known
	e.seq += by
	var own []Event
	for i, n := range e.notes {
		if n.Seq > known {
			own = slices.Clone(e.notes[i:])
			e.notes = e.notes[:i:i]
			break
		}
	}
	for i := range own {
		own[i].Seq += by
	}
	for _, c := range e.list {
		if c.Seq > known {
			c.Seq += by
		}
	}
	e.notes = append(append(e.notes, notes...), own...)
	e.notes = e.notes[max(0, len(e.notes)-maxEvents):]
}

// all returns the changes that are remembered, with their edits, and all other
// events, both as of one moment.
func (e *events) all() (changes []*event, notes []Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	changes = make([]*event, len(e.list)) // copies: others may be reading those of an earlier call
	for i, ev := range e.list {
		one := *ev
		one.Edits = one.work().done
		changes[i] = &one
	}
	return changes, slices.Clone(e.notes)
}

// bound forgets the oldest changes while all together have too many edits.
func (e *events) bound() {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	for i := len(e.list) - 1; i >= 0; i-- {
		w := e.list[i].work()
		if total += len(w.done) + len(w.undo); total > maxEventEdits && i < len(e.list)-1 {
			e.list = append([]*event(nil), e.list[i+1:]...)
			return
		}
	}
}

// Events returns what has happened last, the oldest first: up to 256 changes of the
// configuration, fewer if they are very large, and up to 256 other events. An
// answer that contains an event also contains all earlier ones that are remembered.
func (d *Director) Events() []Event {
	changes, list := d.events.all()
	for _, e := range changes {
		list = append(list, e.Event)
	}
	slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return list
}

// LastEvent returns the Seq of the newest event, 0 if there is none. It is the
// cheap question for a caller that polls for events.
func (d *Director) LastEvent() uint64 {
	d.events.mu.Lock()
	defer d.events.mu.Unlock()
	return d.events.seq
}

// Note remembers a command that was carried out and does not change the
// configuration.
func (d *Director) Note(by, from, verb, text string) {
	d.events.note(Event{
		Kind: OrderEvent, Generation: d.State().Generation, By: by, From: from, Verb: verb, Text: text,
	})
}

// MovedError rejects a change that was meant for another generation of the
// configuration.
type MovedError struct {
	Want, Is uint64
	Since    []Event // what changed meanwhile, as far as it is remembered
}

// Error tells both generations and what changed between them.
func (e *MovedError) Error() string {
	if e.Want > e.Is {
		return fmt.Sprintf("the configuration is at generation %d; generation %d does not exist yet", e.Is, e.Want)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the configuration has changed from generation %d to %d", e.Want, e.Is)
	// Several changes may have one generation, and some may be newer than Is: they were made
	// between the look at the state and at the events.
	gone, last := e.Is-e.Want, e.Want
	for _, ev := range e.Since {
		if ev.Generation > last && ev.Generation <= e.Is {
			gone--
			last = ev.Generation
		}
	}
	if gone > 0 {
		fmt.Fprintf(&b, "; not remembered any more: %d", gone)
	}
	const most = 10 // shown of all edits
	shown := 0
	for _, ev := range e.Since {
		fmt.Fprintf(&b, "; %d by %s:", ev.Generation, ev.By)
		if len(ev.Edits) == 0 && ev.Verb != "" { // of another node, of which no more is known
			b.WriteString(" " + ev.Verb)
		}
		for i, edit := range ev.Edits {
			if shown++; shown > most {
				fmt.Fprintf(&b, " and more")
				return b.String()
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(" " + edit.Done())
		}
	}
	return b.String()
}

// At returns a *MovedError unless the configuration is at a generation.
func (d *Director) At(generation uint64) error {
	if d.State().Generation == generation {
		return nil
	}
	return d.movedOn(generation)
}

// movedOn makes the error of a change that came too late.
func (d *Director) movedOn(want uint64) error {
	err := &MovedError{Want: want, Is: d.State().Generation}
	changes, _ := d.events.all()
	for _, e := range changes {
		if e.Generation > want {
			err.Since = append(err.Since, e.Event)
		}
	}
	return err
}

// having counts the changes that have a generation.
func having(list []*event, generation uint64) (n int) {
	for _, e := range list {
		if e.Generation == generation {
			n++
		}
	}
	return n
}

// Rollback makes the configuration what it was before the last n changes, n > 0, as
// one more change, which can itself be rolled back. By, From, Generation, DryRun
// and Edits of c say how, as for Do. The file is not looked at, and <admin targets>
// stays as it is. A Generation that several changes have, as in a fleet those of the node's own
// do, does not say which one is meant: that is an error. A change with a Leap cannot be undone.
func (d *Director) Rollback(ctx context.Context, n int, c Change) (generation uint64, err error) {
	c.Verb = fmt.Sprintf("rollback %d", n)
	c.Apply = func(cfg *config.Config) error {
		all, _ := d.events.all()
		if n < 1 || n > len(all) {
			if len(all) == 0 {
				return errors.New("nothing to undo")
			}
			return fmt.Errorf("the number of remembered changes is %d; %d cannot be undone", len(all), n)
		}
		if same := having(all, c.Generation); c.Generation != 0 && same > 1 {
			return fmt.Errorf("%d changes have generation %d, because those of what is this node's own do not count in its fleet; look at show events, and give rollback without generation=", same, c.Generation)
		}
		var undo []changes.Edit
		for i := range n {
			ev := all[len(all)-1-i]
			if ev.Leap != "" {
				return fmt.Errorf("generation %d cannot be undone on this node, which %s then: all that it took over would be lost; use rollback on a node that made the changes one by one, or change the configuration",
					ev.Generation, ev.Leap)
			}
			undo = append(undo, ev.work().undo...)
		}
		was, err := changes.Apply(cfg, undo)
		if err != nil {
			return err
		}
		was.Admin.Targets = cfg.Admin.Targets // which is the file's to say
		*cfg = *was
		return nil
	}
	return d.Do(ctx, c)
}
