package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
)

// Where a fleet decides about changes. A change that is prepared goes to Options.Commit, in a
// goroutine of its own, and is made when that accepts it. What other nodes have changed comes
// by Do as any change, with Change.Given, and is not asked about again. From the moment when
// others may have accepted a change, no node may drop it because of itself alone: a listener
// that cannot be opened here is left out, and tried again.

// Commit decides about a change for all nodes. generation is that of the configuration with
// it: the one that it started from if the change is about this node alone. It may wait; ctx
// ends when the process does, and the answer is awaited then too. An error rejects the
// change. One call runs at a time.
type Commit func(ctx context.Context, p Proposal) (generation uint64, err error)

// Proposal is a change that is prepared. The models must not be changed.
type Proposal struct {
	By, From, Verb string
	Generation     uint64 // of Was
	Was, Next      *config.Config
	Confirm        time.Duration // as in Change
	Undoes         uint64        // the change of all nodes that it takes back, as nobody has confirmed it; 0: none
	Why            string        // of Undoes
	Late           bool          // Undoes as its time is over, by Due
}

// verdict is the answer of Options.Commit.
type verdict struct {
	generation uint64
	err        error
}

// commit asks whether the change that is under way may be made.
func (d *Director) commit() {
	p := d.underway
	p.committing, p.over = make(chan verdict, 1), make(chan struct{})
	q := Proposal{
		By: p.change.By, From: p.change.From, Verb: p.change.Verb, Generation: d.State().Generation, Was: d.config, Next: p.config,
		Confirm: p.change.Confirm,
	}
	if u := p.change.undoes; u != nil && u.shared {
		q.Undoes, q.Why, q.Late = u.Generation, u.text(), u.late
	}
	go d.ask(q, p.committing)
}

// ask is the goroutine of one call of Options.Commit.
func (d *Director) ask(p Proposal, answer chan<- verdict) {
	err := portsFree(p.Was, p.Next)
	if err != nil {
		answer <- verdict{err: err}
		return
	}
	generation, err := d.opt.Commit(d.life, p)
	answer <- verdict{generation, err}
}

// decided makes or drops the change that is under way.
func (d *Director) decided(v verdict) {
	if v.err != nil {
		d.drop(v.err)
		return
	}
	// Only a change of what is the node's own has a generation that others have too. It is in no
	// store, and may still be dropped.
	if d.underway.change.Confirm > 0 && d.unconfirmed.of(v.generation) != nil {
		d.drop(fmt.Errorf("generation %d has a change that waits to be confirmed already, and this one, of what is the node's own, has the same: confirm that one first", v.generation))
		return
	}
	d.make(v.generation)
}

// awaitVerdict takes the answer about a change that is under way when Run ends.
func (d *Director) awaitVerdict() {
	p := d.underway
	if p == nil || p.committing == nil {
		return
	}
	if v := <-p.committing; v.err == nil {
		d.drop(fmt.Errorf("accepted as generation %d, which this node runs after its next start: %w", v.generation, ErrStopped))
	} else {
		d.drop(v.err)
	}
}

// accepted tells whether others run the change already.
func (p *underway) accepted() bool { return p.change.Given != 0 || p.committing != nil }

// end notes that the change is made or dropped.
func (p *underway) end() {
	if p.over != nil {
		close(p.over)
	}
}

// portsFree finds out whether listeners that a change adds can be opened, before other nodes
// take it up: this one should then refuse it. What only shows when they are opened makes
// them closed.
func portsFree(was, next *config.Config) error {
	running, ports := map[string]bool{}, map[string]bool{}
	for _, s := range was.Services {
		for i := range s.Listen {
			running[s.Listen[i].Address] = true
			_, port, _ := net.SplitHostPort(s.Listen[i].Address)
			ports[port] = true
		}
	}
	for _, s := range next.Services {
		for i := range s.Listen {
			l := &s.Listen[i]
			host, port, err := net.SplitHostPort(l.Address)
			if running[l.Address] || err != nil || strings.HasPrefix(l.Address, "unix:") || ports[port] || l.FreeBind || l.Interface != "" {
				continue
			}
			if host == "*" {
				host = ""
			}
			ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("service %q: listen on %s: the address is in use by another process: %w", s.Name, l.Address, syscall.EADDRINUSE)
			}
			if err == nil {
				_ = ln.Close()
			}
		}
	}
	return nil
}

// Closed is a listener that should be open and cannot be, in a configuration that other nodes
// have accepted. It is tried again.
type Closed struct {
	Service string `json:"service"`
	Listen  string `json:"listen"`
	Err     string `json:"err"`
}

// closed are the listeners that should be open and are not. The map belongs to the director's
// goroutine.
type closed struct {
	why  map[listenerOf]string
	next time.Time // when they are tried again
	list atomic.Pointer[[]Closed]
}

type listenerOf struct{ service, listen string }

// reopenEvery is how often listeners that could not be opened are tried again.
const reopenEvery = 10 * time.Second

// Closed returns the listeners that should be open and are not, in order. Any goroutine may
// call it.
func (d *Director) Closed() []Closed {
	if list := d.closed.list.Load(); list != nil {
		return *list
	}
	return nil
}

// without returns a service without its closed listeners.
func (c *closed) without(s engine.Service) engine.Service {
	if len(c.why) == 0 {
		return s
	}
	s.Listen = slices.DeleteFunc(slices.Clone(s.Listen), func(l string) bool {
		_, shut := c.why[listenerOf{s.Name, l}]
		return shut
	})
	return s
}

// publish makes what is closed what Closed returns.
func (c *closed) publish() {
	list := make([]Closed, 0, len(c.why))
	for l, why := range c.why {
		list = append(list, Closed{l.service, l.listen, why})
	}
	slices.SortFunc(list, func(a, b Closed) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Listen, b.Listen))
	})
	c.list.Store(&list)
}

// adoptOpen is adopt for a configuration that others have accepted: listeners that cannot be
// opened are left out. The error is that of what is wrong beside them.
func (d *Director) adoptOpen(cfg *config.Config, generation uint64) (uint64, error) {
	before := d.closed.why
	d.closed.why = nil
	took, err := d.adopt(cfg, generation)
	for err != nil && d.closed.leaveOut(err) {
		took, err = d.adopt(cfg, generation)
	}
	if err != nil {
		d.closed.why = before
		return 0, err
	}
	d.tellClosed(before)
	return took, nil
}

// begin is the adopt of New. A process that takes another's place has to open all that was open
// there; what was closed there is tried again soon.
func (d *Director) begin(cfg *config.Config, generation uint64) (err error) {
	switch {
	case d.opt.Commit == nil:
		_, err = d.adopt(cfg, generation)
	case d.heirlooms == nil:
		_, err = d.adoptOpen(cfg, generation)
	default:
		d.closed.inherit(d.heirlooms.state.Closed)
		_, err = d.adopt(cfg, generation)
	}
	return err
}

// inherit takes over what was closed in another process.
func (c *closed) inherit(list []Closed) {
	if len(list) == 0 {
		return
	}
	c.why = map[listenerOf]string{}
	for _, l := range list {
		c.why[listenerOf{l.Service, l.Listen}] = cmp.Or(l.Err, "it cannot be opened")
	}
	c.publish()
}

// leaveOut notes the listeners that cannot be opened. It returns false if the error is about
// something else too, or about nothing new.
func (c *closed) leaveOut(err error) bool {
	list := unopened(err)
	more := false
	for _, e := range list {
		l := listenerOf{e.Service, e.Listen}
		if c.why[l] == "" {
			more = true
			if c.why == nil {
				c.why = map[listenerOf]string{}
			}
			c.why[l] = cmp.Or(oneLine(e.Err), "it cannot be opened")
		}
	}
	return more
}

// unopened returns the listeners that an error is about; nil if it is about something else too.
func unopened(err error) []*engine.ListenError {
	var all []*engine.ListenError
	switch err := err.(type) {
	case *engine.ListenError:
		return append(all, err)
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			list := unopened(err)
			if list == nil {
				return nil
			}
			all = append(all, list...)
		}
	}
	return all
}

// tellClosed publishes what is closed, and logs what has changed of it.
func (d *Director) tellClosed(before map[listenerOf]string) {
	if len(before)+len(d.closed.why) == 0 {
		return
	}
	d.closed.next = time.Now().Add(reopenEvery)
	d.closed.publish()
	for l, why := range d.closed.why {
		if before[l] == "" {
			d.log.Warn("listener closed, it cannot be opened on this node", "service", l.service, "listen", l.listen, "err", why)
		}
	}
	for l := range before {
		if d.closed.why[l] == "" {
			d.log.Info("listener no longer closed", "service", l.service, "listen", l.listen)
		}
	}
}

// reopen tries closed listeners again.
func (d *Director) reopen(now time.Time) {
	if len(d.closed.why) == 0 || now.Before(d.closed.next) {
		return
	}
	before := d.closed.why
	d.closed.why = nil
	for {
		routes, plan, err := d.plan(d.State(), false)
		if err == nil {
			err = d.eng.Apply(plan)
		}
		switch {
		case err == nil:
			d.routed(d.State(), routes)
		case d.closed.leaveOut(err):
			if len(d.closed.why) < len(before) {
				continue
			}
		default:
			d.closed.why = before
		}
		break
	}
	d.tellClosed(before)
}
