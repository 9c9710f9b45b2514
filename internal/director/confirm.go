package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
)

// A change may ask to be confirmed ([Change].Confirm). It is made at once, and undone at its
// time unless [Director.Confirm] comes before. Until then it is in no file: see
// [State.Settled]. The undo is a change like any other, made of [changes.Undo]: that one
// change goes, and later ones stay.

const (
	// Bounds of Change.Confirm.
	minConfirm, maxConfirm = time.Second, 24 * time.Hour
	// maxUnconfirmed is how many changes may wait to be confirmed at once.
	maxUnconfirmed = 32
	// An undo that failed is tried again after undoAgain, and then after twice as long each
	// time, up to undoAgainMost.
	undoAgain, undoAgainMost = time.Second, time.Minute
)

// Errors of [Director.Confirm].
var (
	ErrNothingPending = errors.New("no change waits to be confirmed")
	// ErrNotDue refuses an undo, in Options.Commit, of a change whose time is not over.
	ErrNotDue = errors.New("its time to be confirmed is not over")
	// errConfirmed drops an undo whose change was confirmed while it waited for names.
	errConfirmed = errors.New("the change was confirmed")
)

// Pending is a change that is undone when its time is over, unless it is confirmed before.
// It is immutable: any goroutine may read it. Those of all nodes are told of in sharing.go.
type Pending struct {
	Generation     uint64 // that the change has made, and by which it is confirmed
	Made, Until    time.Time
	By, From, Verb string // see Change
	// Trouble is why it could not be undone when its time was over, "" if that has not
	// happened. It stays in force, and the undo is tried again.
	Trouble string

	shared        bool // it waits on all nodes
	before, after *config.Config
	work          func() edits
	doc           *document.File // the file that a reload has read; nil: it was no reload

	watch *watch // belongs to the director's goroutine
}

// watch is what the director looks at until the change is confirmed.
type watch struct {
	// groups are those that the change has enabled. true: it has had a host that is up, as far
	// as was known when it was enabled, or since. One that was enabled by force before any host
	// was up is not undone for that.
	groups map[groupKey]bool
	again  time.Time     // when the undo that failed is tried again
	pause  time.Duration // until the next time after that
	due    time.Time     // of a change of all nodes: when this one undoes it; zero: its time is not over
}

// Edits returns what the change has done.
func (p *Pending) Edits() []changes.Edit { return p.work().done }

// Fate says in a few words what becomes of the change.
func (p *Pending) Fate() string {
	if p.Trouble != "" {
		return "its undo failed and is tried again: " + p.Trouble
	}
	if p.Overdue(time.Now()) {
		return "its time is over, and it is undone when the store of the fleet says so, unless confirmed"
	}
	return "undone at " + p.Until.Format("15:04:05") + " unless confirmed"
}

// undo takes the change back in a configuration.
func (p *Pending) undo(now *config.Config) (changes.Merged, error) {
	return changes.Undo(p.before, p.after, now)
}

// undone tells whether a configuration has nothing of the change any more.
func (p *Pending) undone(now *config.Config) bool {
	m, err := p.undo(now)
	return err == nil && len(m.Kept)+len(m.Lost) == 0
}

// within tells whether a configuration has all that the change has made.
func (p *Pending) within(c *config.Config) bool {
	m, err := p.undo(c)
	return err == nil && len(m.Kept) > 0 && len(m.Lost) == 0
}

// unconfirmed are the changes of a configuration that wait to be confirmed. It is immutable.
// nil has none.
type unconfirmed struct {
	config *config.Config // that has them
	list   []*Pending     // the oldest first, at least one

	once    sync.Once
	settled *config.Config
	err     error
}

func newUnconfirmed(c *config.Config, list []*Pending) *unconfirmed {
	if len(list) == 0 {
		return nil
	}
	return &unconfirmed{config: c, list: list}
}

func (u *unconfirmed) all() []*Pending {
	if u == nil {
		return nil
	}
	return u.list
}

// of returns the change that has made a generation, nil without.
func (u *unconfirmed) of(generation uint64) *Pending {
	for _, p := range u.all() {
		if p.Generation == generation {
			return p
		}
	}
	return nil
}

// without returns a list without a change that is confirmed.
func without(list []*Pending, p *Pending) []*Pending {
	return slices.DeleteFunc(slices.Clone(list), func(o *Pending) bool { return o.Generation == p.Generation })
}

// takenBack returns a list without a change that is undone. Later changes are then such as if
// that one had never been: otherwise their own undo would bring it back.
func takenBack(list []*Pending, p *Pending) []*Pending {
	list = without(list, p)
	for i, o := range list {
		if o.Generation < p.Generation {
			continue
		}
		before, err := p.undo(o.before)
		if err != nil {
			continue
		}
		after, err := p.undo(o.after)
		if err != nil {
			continue
		}
		later := *o
		later.before, later.after = before.Config, after.Config
		list[i] = &later
	}
	return list
}

// Pending returns the changes that wait to be confirmed, the oldest first.
func (s *State) Pending() []*Pending { return s.unconfirmed.all() }

// Settled returns the configuration without the changes that wait to be confirmed: the one
// that is saved, and that runs when nobody confirms them. The error says why there is none.
func (s *State) Settled() (*config.Config, error) {
	u := s.unconfirmed
	if u == nil {
		return s.Config, nil
	}
	u.once.Do(func() {
		c := u.config
		for _, p := range slices.Backward(u.list) {
			m, err := p.undo(c)
			if err != nil {
				u.err = fmt.Errorf("generation %d (%s) is not confirmed, and the configuration without it is not valid: %w", p.Generation, p.Verb, err)
				return
			}
			c = m.Config
		}
		u.settled = c
	})
	return u.settled, u.err
}

// Undone returns how many changes were undone because nobody has confirmed them.
func (d *Director) Undone() uint64 { return d.undos.Load() }

// Confirm keeps a change that would be undone otherwise, by the generation that it has made;
// 0 stands for the only one that waits. by and from say for the log who confirms. A change of
// all nodes is kept if Options.Fleet says so.
func (d *Director) Confirm(ctx context.Context, generation uint64, by, from string) (p *Pending, err error) {
	d.awaitFleet(ctx)
	if p, err := d.State().pendingBy(generation); err == nil && p.shared && d.refused() == nil {
		return d.confirmShared(ctx, p, by, from)
	}
	if err := d.order(ctx, func() { p, err = d.confirm(generation, by, from) }); err != nil {
		return nil, err
	}
	return p, err
}

func (d *Director) confirm(generation uint64, by, from string) (*Pending, error) {
	if why := d.refused(); why != nil {
		return nil, why
	}
	p, err := d.State().pendingBy(generation)
	if err != nil {
		return nil, err
	}
	if u := d.underway; u != nil && u.change.undoes != nil && u.change.undoes.Generation == p.Generation {
		if u.committing != nil { // others may have accepted it
			return nil, fmt.Errorf("generation %d (%s) is being undone", p.Generation, p.Verb)
		}
		d.drop(errConfirmed)
	}
	d.keep(p, by, from)
	d.unconfirmed = newUnconfirmed(d.config, without(d.unconfirmed.all(), p))
	d.republish()
	return p, nil
}

// keep notes that a change is confirmed.
func (d *Director) keep(p *Pending, by, from string) {
	if p.doc != nil {
		d.files.take(p.doc) // first: nothing is saved while the reload waits
	}
	d.log.Info("change confirmed", "generation", p.Generation, "verb", p.Verb, "by", by, "from", from)
}

// pendingBy returns the change that has made a generation and waits to be confirmed; 0 stands
// for the only one.
func (s *State) pendingBy(generation uint64) (*Pending, error) {
	list := s.Pending()
	p := s.unconfirmed.of(generation)
	var names []string
	for _, o := range list {
		names = append(names, fmt.Sprintf("%d (%s)", o.Generation, o.Verb))
	}
	switch {
	case len(list) == 0:
		return nil, ErrNothingPending
	case generation == 0 && len(list) == 1:
		p = list[0]
	case generation == 0:
		return nil, fmt.Errorf("%d changes wait to be confirmed; say which one: %s", len(list), strings.Join(names, ", "))
	case p == nil:
		return nil, fmt.Errorf("generation %d does not wait to be confirmed; those that do: %s", generation, strings.Join(names, ", "))
	}
	return p, nil
}

// confirmable tells whether a change may wait to be confirmed for so long; 0: it does not.
func (d *Director) confirmable(within time.Duration) error {
	if within == 0 {
		return nil
	}
	if n := len(d.unconfirmed.all()); n >= maxUnconfirmed {
		return fmt.Errorf("%d changes wait to be confirmed, and no more can; confirm some first", n)
	}
	return CheckConfirm(within)
}

// CheckConfirm tells whether [Change].Confirm may be so long.
func CheckConfirm(within time.Duration) error {
	if within < minConfirm || within > maxConfirm {
		return fmt.Errorf("confirm: %v is not between 1s and 24h", within)
	}
	return nil
}

// republish makes a state without another configuration the one that readers see.
func (d *Director) republish() {
	next := *d.State()
	next.unconfirmed = d.unconfirmed
	d.publish(&next)
}

// unconfirmedWith returns the changes that wait to be confirmed when a change is made, which
// leads to a generation.
func (d *Director) unconfirmedWith(u *underway, generation uint64, now time.Time) *unconfirmed {
	list := d.unconfirmed.all()
	if u.change.Waits != nil {
		return newUnconfirmed(u.config, d.shared(u.change.Waits, u.config, generation))
	}
	if u.change.undoes != nil {
		list = takenBack(list, u.change.undoes.Pending)
	}
	if u.change.Confirm > 0 {
		list = append(slices.Clone(list), &Pending{
			Generation: generation, Made: now, Until: now.Add(u.change.Confirm), By: u.change.By, From: u.change.From, Verb: u.change.Verb,
			shared: generation != d.State().Generation && d.opt.Fleet != nil,
			before: d.config, after: u.config, work: u.work, doc: u.change.doc, watch: newWatch(d.State(), u.config),
		})
	}
	return newUnconfirmed(u.config, stillWaiting(list, u.config))
}

// stillWaiting returns a list without what has been undone otherwise, as by a rollback. As long
// as a later change waits, its undo may bring the earlier one back.
func stillWaiting(list []*Pending, now *config.Config) []*Pending {
	for len(list) > 0 && list[len(list)-1].undone(now) {
		list = list[:len(list)-1]
	}
	return list
}

// newWatch finds the groups that a change enables. It is called before clients get there: the
// first of them may find out within a millisecond that no host answers.
func newWatch(was *State, after *config.Config) *watch {
	running := formerServices(was.Services)
	w := newWatching()
	for i, s := range after.Services {
		g := s.Enabled()
		if g == nil {
			continue
		}
		before := running.named(i, s.Name)
		if before == nil {
			before = new(Service)
		} else if e := before.Config.Enabled(); e != nil && e.Name == g.Name {
			continue
		}
		_, w.groups[groupKey{s.Name, g.Name}] = before.would(g)
	}
	return w
}

// fails returns a group that the change has enabled, that is still enabled, and that has lost
// its last host that is up.
func (w *watch) fails(state *State) (key groupKey, failed bool) {
	for key, usable := range w.groups {
		g := state.group(key)
		switch {
		case g == nil || !g.Config.Enabled:
		case g.Usable():
			w.groups[key] = true
		case usable:
			return key, true
		}
	}
	return groupKey{}, false
}

// group finds a group, nil without.
func (s *State) group(key groupKey) *Group {
	for _, svc := range s.Services {
		if svc.Config.Name == key.service {
			return svc.group(key.group)
		}
	}
	return nil
}

// undoInTime undoes the changes whose time is over, and those that have given the clients to
// a group without a host that is up. It returns after what time it has to be called again.
func (d *Director) undoInTime(now time.Time) time.Duration {
	for {
		if d.unconfirmed == nil || d.underway != nil || d.refused() != nil {
			return never // the end of a change, and each scan, ask again
		}
		next, due := never, (*undoing)(nil)
		for _, p := range slices.Backward(d.unconfirmed.list) { // the newest first: earlier ones then have nothing to take into account
			key, failed := p.watch.fails(d.State())
			at := p.Until
			if p.shared {
				at = p.watch.due
			}
			if failed {
				at = now
			}
			if at.Before(p.watch.again) {
				at = p.watch.again
			}
			switch {
			case p.shared && !failed && p.watch.due.IsZero():
			case at.After(now):
				next = min(next, at.Sub(now))
			case due != nil:
			case failed && (p.Until.After(now) || p.shared && p.watch.due.IsZero()):
				due = &undoing{Pending: p, why: fmt.Sprintf("group %s of service %s has no host that is up and ready", key.group, key.service)}
			default:
				due = &undoing{Pending: p, late: true, why: fmt.Sprintf("not confirmed within %v", p.Until.Sub(p.Made).Round(time.Millisecond))}
			}
		}
		if due == nil {
			return next
		}
		d.undo(due)
	}
}

// undoing is an undo that is under way.
type undoing struct {
	*Pending
	why  string
	late bool           // as the time is over
	lost []changes.Edit // what later changes do not allow
}

// text says for events why a change was undone, and what of it was not.
func (u *undoing) text() string {
	if u == nil {
		return ""
	}
	text := u.why
	if len(u.lost) > 0 {
		text += "; later changes stand in the way of: " + u.left()
	}
	return text
}

// left are the edits that were not made.
func (u *undoing) left() string {
	const most = 10
	var list []string
	for i, e := range u.lost {
		if i == most {
			list = append(list, fmt.Sprintf("and %d more", len(u.lost)-most))
			break
		}
		list = append(list, e.Done())
	}
	return strings.Join(list, ", ")
}

// undoer is who undoes changes, for log and events.
const undoer = "confirm"

// undo begins to undo a change. It ends in undone or notUndone.
func (d *Director) undo(u *undoing) {
	d.change(request{ctx: context.Background(), answer: make(chan answer, 1), change: Change{
		By: undoer, Verb: fmt.Sprintf("undo %d", u.Generation), undoes: u,
		Apply: func(cfg *config.Config) error {
			m, err := u.undo(d.config)
			if err != nil {
				return err
			}
			if u.lost = m.Lost; len(m.Kept) == 0 && !u.shared { // else all nodes have to know
				return errSame
			}
			*cfg = *m.Config
			return nil
		},
	}})
}

// undone notes that a change was undone.
func (d *Director) undone(u *undoing, generation uint64) {
	if u == nil {
		return
	}
	d.undos.Add(1)
	attrs := []any{"undone", u.Generation, "verb", u.Verb, "by", u.By, "reason", u.why, "generation", generation}
	if len(u.lost) > 0 {
		attrs = append(attrs, "stays", u.left())
	}
	d.log.Warn("change undone", attrs...)
}

// notUndone notes that a change could not be undone.
func (d *Director) notUndone(u *undoing, err error) {
	switch {
	case u == nil, errors.Is(err, ErrStopped), errors.Is(err, errConfirmed), d.refused() != nil:
		// Nobody wants it, or the next process does it.
	case u.shared && (errors.As(err, new(*MovedError)) || errors.Is(err, ErrNothingPending)): // another node was quicker
		u.watch.again = time.Now().Add(undoAgain)
	case u.shared && errors.Is(err, ErrNotDue):
		u.watch.due = time.Time{} // Due is called again
	case errors.Is(err, errSame):
		d.unconfirmed = newUnconfirmed(d.config, takenBack(d.unconfirmed.all(), u.Pending))
		d.republish()
		if len(u.lost) > 0 {
			d.log.Warn("change not undone, later changes stand in the way", "change", u.Generation, "verb", u.Verb, "by", u.By, "reason", u.why, "stays", u.left())
		}
		d.events.note(Event{Kind: OrderEvent, Generation: d.State().Generation, By: undoer, Verb: fmt.Sprintf("undo %d", u.Generation), Text: u.text() + "; nothing was changed"})
	default:
		d.undoLater(u, err)
	}
}

// undoLater keeps a change whose undo has failed, and says so.
func (d *Director) undoLater(u *undoing, err error) {
	u.watch.again = time.Now().Add(u.watch.pause)
	u.watch.pause = min(2*u.watch.pause, undoAgainMost)
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if text == u.Trouble {
		return
	}
	failed := *u.Pending
	failed.Trouble = text
	list := slices.Clone(d.unconfirmed.all())
	for i, p := range list {
		if p.Generation == failed.Generation {
			list[i] = &failed
		}
	}
	d.unconfirmed = newUnconfirmed(d.config, list)
	d.republish()
	d.log.Error("cannot undo a change, it stays for now", "change", u.Generation, "verb", u.Verb, "by", u.By, "reason", u.why, "err", text)
	d.events.note(Event{Kind: OrderEvent, Generation: d.State().Generation, By: undoer, Verb: fmt.Sprintf("undo %d", u.Generation), Text: "failed, and is tried again: " + text})
}

// PendingReload tells whether a reload waits to be confirmed: until then the file cannot be saved.
func (s *State) PendingReload() bool { return s.pendingReload() != nil }

// pendingReload returns the reload that waits to be confirmed, nil without.
func (s *State) pendingReload() *Pending {
	for _, p := range s.Pending() {
		if p.doc != nil {
			return p
		}
	}
	return nil
}

// errPendingReload refuses to read or write the file while a reload waits to be confirmed: it
// decides which file counts.
func errPendingReload(p *Pending) error {
	return fmt.Errorf("the reload of generation %d is not confirmed yet; write confirm %[1]d, or wait until it is undone at %s", p.Generation, p.Until.Format("15:04:05"))
}
