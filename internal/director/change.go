package director

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
)

// pending is a change that has edited its copy of the model and waits for its names
// to be looked up. No other change starts meanwhile, so the model that it started
// from still runs.
type pending struct {
	request
	config *config.Config
	work   func() edits
	names  names            // that it uses
	lists  lists            // of its access rules
	source *source          // where they are looked up
	late   <-chan time.Time // when it has waited for long enough
	waited bool

	preparing chan preparation // has room for one; nil: there is nothing to prepare
	prepared  *preparation     // what came of that
	cancel    func()           // ends it
}

// preparation is the answer of Options.Prepare.
type preparation struct {
	settle func(accepted bool)
	err    error
}

// longestWait is how long a change waits for its names: longer than a look-up that
// starts at once can take.
const longestWait = lookupTimeout + time.Second

// change begins a Do. It ends in finish or in drop.
func (d *Director) change(r request) {
	d.pending = &pending{request: r, config: d.config.Clone()}
	if want := r.change.Generation; want != 0 && want != d.State().Generation {
		d.drop(d.movedOn(want))
		return
	}
	if err := r.change.Apply(d.pending.config); err != nil {
		d.drop(err)
		return
	}
	changes.Share(d.pending.config, d.config)
	if err := d.pending.config.CheckSince(d.config, "configuration").Err(); err != nil {
		d.drop(err)
		return
	}
	p := d.pending
	fresh := d.lists
	if r.change.lists != nil {
		fresh, _ = r.change.lists.settled(d.lists)
	}
	var err error
	if p.lists, err = readLists(p.config, fresh); err != nil {
		d.drop(err)
		return
	}
	p.work = between(d.config, p.config)
	p.late = time.After(longestWait)
	d.prepare()
	if r.change.DryRun {
		d.finish()
		return
	}
	p.names, p.source = namesOf(p.config), d.source
	if !slices.Equal(p.config.DNS.Servers, d.source.servers) {
		p.source = newSource(&p.config.DNS, d.opt.Resolver)
	}
	for host, every := range p.names {
		if d.names[host] == nil {
			d.names[host] = &name{every: every}
			d.nextLook = time.Time{}
		}
	}
	d.finish()
}

// prepare begins to prepare the change that is pending.
func (d *Director) prepare() {
	p := d.pending
	if d.opt.Prepare == nil {
		p.prepared = &preparation{}
		return
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(p.ctx)
	p.preparing = make(chan preparation, 1)
	go func(was, next *config.Config, answer chan<- preparation) {
		settle, err := d.opt.Prepare(ctx, was, next)
		answer <- preparation{settle, err}
	}(d.config, p.config, p.preparing)
}

// finish applies the pending change if everything is prepared and its names have
// been looked up, or it has waited for them long enough.
func (d *Director) finish() {
	p := d.pending
	switch {
	case p == nil, !p.waited && (p.prepared == nil || !d.lookedUp(p.names)):
		return
	case p.ctx.Err() != nil: // its caller has given up
		d.drop(p.ctx.Err())
		return
	case p.prepared == nil:
		d.drop(fmt.Errorf("the admin interfaces were not ready for the change within %v", longestWait))
		return
	case p.prepared.err != nil:
		d.drop(p.prepared.err)
		return
	case p.change.DryRun:
		d.answer(d.State().Generation, false)
		return
	}
	was := d.lists
	d.lists = p.lists
	generation, err := d.adopt(p.config, d.State().Generation+1)
	if err != nil {
		d.lists = was
		d.drop(err)
		return
	}
	d.events.add(&event{Event{Generation: generation, Time: time.Now(), By: p.change.By, From: p.change.From, Verb: p.change.Verb}, p.work})
	d.useSource(p.source)
	d.log.Info("configuration changed", "generation", generation,
		"verb", p.change.Verb, "by", p.change.By, "from", p.change.From)
	d.answer(generation, true)
}

// answer answers the change that is pending.
func (d *Director) answer(generation uint64, accepted bool) {
	p := d.pending
	d.pending = nil
	p.settle(accepted)
	p.answer <- answer{generation: generation, work: p.work}
}

// drop answers the pending change, if there is one, with an error and forgets it.
func (d *Director) drop(err error) {
	if d.pending == nil {
		return
	}
	p := d.pending
	d.pending = nil
	d.forgetNames()
	p.settle(false)
	p.answer <- answer{err: err}
}

// settle tells Options.Prepare whether the change now runs, at once or when Prepare
// has ended.
func (p *pending) settle(accepted bool) {
	if p.cancel == nil { // there was nothing to prepare
		return
	}
	p.cancel()
	tell := func(ready preparation) {
		if ready.settle != nil {
			ready.settle(accepted)
		}
	}
	if p.prepared != nil {
		tell(*p.prepared)
		return
	}
	go func() { tell(<-p.preparing) }()
}
