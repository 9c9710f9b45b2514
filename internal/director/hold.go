package director

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/sched"
)

// DefaultMostHeld is how many clients a group holds at once if nothing else is said. Each
// has a socket, and less than a kilobyte of memory.
const DefaultMostHeld = 10_000

const (
	// releaseEvery is how often clients are let out of a group that is released over a time.
	releaseEvery = 10 * time.Millisecond
	// commandTimeout bounds <group onHold>.
	commandTimeout = time.Minute
	// outputDelay is how long after the end of <group onHold> its output is read: a daemon that
	// it has started may keep it open.
	outputDelay = time.Second
	// commandAgain is how long after its start <group onHold> is run again, if it has ended and
	// clients are still held.
	commandAgain = 10 * time.Second
)

// Hold is a group that an operator holds: new clients wait, unread, until Until or a release.
// It is immutable.
type Hold struct {
	By, From string    // who has said so, and from where
	Since    time.Time // the first order; others have extended it
	Until    time.Time // when it ends by itself
	Most     int       // clients that wait at once, at most

	// Of one that is being released:
	Released time.Time     // when that was said; zero: it was not
	Over     time.Duration // from then on, all are let out evenly
	Waited   int           // how many waited then

	// ID is that of the order, if it holds on all nodes; "": this node alone holds. ReleaseID is
	// that of the last release of all nodes.
	ID, ReleaseID string
}

// Releasing tells whether the clients are being let out.
func (h *Hold) Releasing() bool { return !h.Released.IsZero() }

// End is when the hold ends.
func (h *Hold) End() time.Time {
	if h.Releasing() {
		return h.Released.Add(h.Over)
	}
	return h.Until
}

// keep is how many clients still wait at a time: the line from all that waited at the release
// to none at its end. Whoever comes later goes behind them, and is let out as often as one
// comes.
func (h *Hold) keep(now time.Time) int64 {
	if !h.Releasing() {
		return math.MaxInt64
	}
	left := h.End().Sub(now)
	if left <= 0 || h.Over <= 0 {
		return 0
	}
	return int64(math.Ceil(float64(h.Waited) * min(float64(left)/float64(h.Over), 1)))
}

// holding is what outlives a change of a group's configuration: whether it is held, and its
// command. The pointers are the director's to set, for all to read.
type holding struct {
	now     atomic.Pointer[Hold] // nil: it is not
	gate    *sched.Gate          // of now
	running atomic.Bool          // the command is
	began   time.Time            // when it was last started
}

// Hold returns how an operator holds the group; nil: nobody does.
func (g *Group) Hold() *Hold { return g.holding.now.Load() }

// Holds tells whether new clients of the group wait rather than being rejected: an operator
// holds it, or no host is up and allDown="hold" is configured.
func (g *Group) Holds() bool { return g.Hold() != nil || g.Awaits() && !g.Usable() }

// Awaits tells whether clients of the group wait while no host is up. A group without any
// host rejects them.
func (g *Group) Awaits() bool { return g.Config.AllDown == "hold" && len(g.Hosts) > 0 }

// Held returns how many clients the group holds now.
func (g *Group) Held() int {
	if !g.Holds() {
		return 0
	}
	return g.Times.Queue.Len()
}

// MostHeld returns how many clients the group holds at once, at most.
func (g *Group) MostHeld() int {
	if h := g.Hold(); h != nil {
		return h.Most
	}
	return DefaultMostHeld
}

// HoldOrder says how to hold a group.
type HoldOrder struct {
	By, From       string
	Service, Group string
	For            time.Duration // at least
	Most           int           // 0: DefaultMostHeld
	ID             string        // see Hold; "" for a caller of Director.Hold
}

// hold is how a group is held by the order, from now on.
func (o *HoldOrder) hold(now time.Time) *Hold {
	h := &Hold{By: o.By, From: o.From, Since: now, Until: now.Add(o.For), Most: o.Most, ID: o.ID}
	if h.Most == 0 {
		h.Most = DefaultMostHeld
	}
	return h
}

// Released is the answer of Release.
type Released struct {
	Waiting int         // clients that waited
	Held    bool        // false: the group was not held
	Alone   *AloneError // why this node alone has released; nil: all have
}

// Hold makes new clients of a group wait, unread and in their order, until it is released or
// For is over. If it is held already, For and Most are replaced, and a release under way ends.
// Sessions that have a host go on. It returns how the group is held, and whether it was. With
// Options.Fleet, all nodes hold.
func (d *Director) Hold(ctx context.Context, o HoldOrder) (h *Hold, was bool, err error) {
	if d.opt.Fleet != nil {
		return d.holdEverywhere(ctx, o)
	}
	err = d.ordered(ctx, func() error {
		g, err := d.groupFor(o.Service, o.Group)
		if err != nil {
			return err
		}
		h = o.hold(time.Now())
		if before := g.Hold(); before != nil {
			h.Since, was = before.Since, true
		}
		d.holdAs(o.Service, g, h, o.For)
		return nil
	})
	return h, was, err
}

// holdAs holds a group as an order says.
func (d *Director) holdAs(service string, g *Group, h *Hold, within time.Duration) {
	d.hold(service, g, h)
	d.log.Info("holding new clients", "service", service, "group", g.Config.Name, "for", within, "max", h.Most, "by", h.By, "from", h.From)
}

// Release ends the hold of a group. Those who wait get their hosts in their order: at once,
// or evenly over a time, with those who come meanwhile behind them. With Options.Fleet, all
// nodes do; if they are not reached, this one does.
func (d *Director) Release(ctx context.Context, o ReleaseOrder) (Released, error) {
	if d.opt.Fleet != nil {
		return d.releaseEverywhere(ctx, o)
	}
	return d.releaseHere(ctx, o)
}

// releaseHere is Release on this node.
func (d *Director) releaseHere(ctx context.Context, o ReleaseOrder) (r Released, err error) {
	err = d.ordered(ctx, func() error {
		g, err := d.groupFor(o.Service, o.Group)
		if err == nil && g.Hold() != nil {
			r = Released{Waiting: d.release(o.Service, g, &o), Held: true}
		}
		return err
	})
	return r, err
}

// release lets the clients of a held group go on, and returns how many wait.
func (d *Director) release(service string, g *Group, o *ReleaseOrder) (waiting int) {
	waiting = g.Times.Queue.Len()
	d.log.Info("releasing held clients", "service", service, "group", g.Config.Name, "clients", waiting, "over", o.Over, "by", o.By, "from", o.From)
	if o.Over <= 0 || waiting == 0 {
		d.endHold(service, g, "released")
		return waiting
	}
	next := *g.Hold()
	next.Released, next.Over, next.Waited = time.Now(), o.Over, waiting
	if o.ID != "" { // one that this node makes alone does not repeat an earlier one
		next.ReleaseID = o.ID
	}
	g.holding.now.Store(&next)
	return waiting
}

// ordered runs an order on the goroutine of Run, unless changes are refused.
func (d *Director) ordered(ctx context.Context, f func() error) error {
	var refused error
	if err := d.order(ctx, func() {
		if refused = d.refused(); refused == nil {
			refused = f()
		}
		d.publishPlan() // what was ordered holds when it is answered
	}); err != nil {
		return err
	}
	return refused
}

func (d *Director) groupFor(service, group string) (*Group, error) {
	for _, s := range d.State().Services {
		if s.Config.Name == service {
			if g := s.group(group); g != nil {
				return g, nil
			}
			return nil, fmt.Errorf("service %q has no group %q", service, group)
		}
	}
	return nil, fmt.Errorf("there is no service %q", service)
}

// hold holds a group from now on.
func (d *Director) hold(service string, g *Group, h *Hold) {
	g.holding.now.Store(h)
	g.holding.gate = sched.NewGate()
	g.holding.gate.Keep(h.keep(time.Now()))
	d.holds[groupKey{service, g.Config.Name}] = g.holding
	d.changed(service)
}

// endHold ends the hold of a group.
func (d *Director) endHold(service string, g *Group, why string) {
	h := g.Hold()
	g.holding.now.Store(nil)
	g.holding.gate = nil
	delete(d.holds, groupKey{service, g.Config.Name})
	if h.ID != "" {
		d.ended[groupKey{service, g.Config.Name}] = h.ID
	}
	d.changed(service)
	d.log.Info("no longer holding clients", "service", service, "group", g.Config.Name, "why", why,
		"after", time.Since(h.Since).Round(time.Millisecond), "waiting", g.Times.Queue.Len())
	if why != "released" { // an order is noted by who gives it
		d.events.note(Event{
			Kind: OrderEvent, Generation: d.State().Generation, Verb: "hold ended",
			Text: fmt.Sprintf("group %s of service %s: %s", g.Config.Name, service, why),
		})
	}
}

// hold is the hold that was written.
func (e *exportedHold) hold() Hold {
	return Hold{
		By: e.By, From: e.From, Since: e.Since, Until: e.Until, Most: e.Most, Released: e.Released, Over: e.Over, Waited: e.Waited,
		ID: e.ID, ReleaseID: e.Release,
	}
}

// inheritHold makes a new group held as its likeness in another process was.
func (d *Director) inheritHold(service string, g *Group) {
	if d.heirlooms == nil {
		return
	}
	e := d.heirlooms.groups[groupKey{service, g.Config.Name}]
	if e == nil {
		return
	}
	if c, now := e.Command, time.Now(); c != nil && !c.Runs && c.Began.Before(now) {
		g.holding.began = c.Began
	} else if c != nil { // the other process ends it, soon after it has handed over
		g.holding.began = now
	}
	if e.Hold == nil {
		return
	}
	h := e.Hold.hold()
	if now := time.Now(); h.Since.After(now) { // the clock was set back
		by := h.Since.Sub(now)
		h.Since, h.Until = h.Since.Add(-by), h.Until.Add(-by)
		if h.Releasing() {
			h.Released = h.Released.Add(-by)
		}
	}
	h.Waited, h.Most = max(h.Waited, 0), max(h.Most, 1)
	d.hold(service, g, &h)
}

// tendHolds lets clients out of groups that are being released, and ends holds whose time is
// over. It returns when it has to be called again.
func (d *Director) tendHolds(now time.Time) time.Duration {
	next := never
	for key, holding := range d.holds {
		g, err := d.groupFor(key.service, key.group)
		if err != nil || g.holding != holding { // it has been deleted
			delete(d.holds, key)
			continue
		}
		h := g.Hold()
		switch left := h.End().Sub(now); {
		case left > 0 && h.Releasing():
			holding.gate.Keep(h.keep(now))
			g.Times.Queue.Look()
			next = min(next, left, releaseEvery)
		case left > 0:
			next = min(next, left)
		case h.Releasing():
			d.endHold(key.service, g, "all are out")
		default:
			d.endHold(key.service, g, "its time was over")
		}
	}
	return next
}

// onBegin is called by the loops when a client begins to wait. It does not wait.
func (d *Director) onBegin() {
	select {
	case d.waiting <- struct{}{}:
	default: // it is to look already
	}
}

// hearQueue makes the director learn of a group's clients that begin to wait, if it has
// something to do then.
func (d *Director) hearQueue(g *Group) {
	if g.Config.OnHold == "" {
		g.Times.Queue.OnBegin(nil)
		return
	}
	g.Times.Queue.OnBegin(d.onBegin)
}

// runCommands runs the commands of groups that hold clients. One that runs is left alone, and
// one that has ended, and the clients still wait, is not run again at once. While changes are
// refused, during an upgrade and after it, none is started: it would run in both processes.
func (d *Director) runCommands(ctx context.Context, beside *sync.WaitGroup) {
	if ctx.Err() != nil || d.refused() != nil {
		return // a later scan looks again
	}
	now := time.Now()
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			h := g.holding
			if g.Config.OnHold == "" || g.Held() == 0 || now.Sub(h.began) < commandAgain || !h.running.CompareAndSwap(false, true) {
				continue
			}
			h.began = now
			service, group, command := s.Config.Name, g.Config.Name, g.Config.OnHold
			beside.Go(func() {
				defer h.running.Store(false)
				d.runCommand(ctx, service, group, command)
			})
		}
	}
}
