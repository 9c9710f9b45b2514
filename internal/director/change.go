package director

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/internal/certs"
)

// underway is a change that has edited its copy of the model and waits for its names
// to be looked up. No other change starts meanwhile, so the model that it started
// from still runs.
type underway struct {
	request
	config *config.Config
	work   func() edits
	names  names            // that it uses
	lists  lists            // of its access rules
	tls    *certs.Set       // its certificates and authorities
	source *source          // where they are looked up
	late   <-chan time.Time // when it has waited for long enough
	waited bool

	preparing chan preparation // has room for one; nil: there is nothing to prepare
	prepared  *preparation     // what came of that
	cancel    func()           // ends it

	committing chan verdict  // of Options.Commit, has room for one; nil: it has not been asked
	over       chan struct{} // closed when the change is made or dropped; nil: it has not been asked
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
	d.underway = &underway{request: r, config: d.config.Clone()}
	if want := r.change.Generation; want != 0 && want != d.State().Generation {
		d.drop(d.movedOn(want))
		return
	}
	if why := d.refused(); why != nil && !r.change.DryRun {
		d.drop(why)
		return
	}
	if err := d.confirmable(r.change.Confirm); err != nil {
		d.drop(err)
		return
	}
	if err := r.change.Apply(d.underway.config); err != nil {
		d.drop(err)
		return
	}
	changes.Share(d.underway.config, d.config)
	if err := d.underway.config.CheckSince(d.config, "configuration").Err(); err != nil {
		d.drop(err)
		return
	}
	if err := d.checkCustoms(d.underway.config); err != nil {
		d.drop(err)
		return
	}
	p := d.underway
	fresh := d.lists
	if r.change.lists != nil {
		fresh, _ = r.change.lists.settled(d.lists)
	}
	var err error
	if p.lists, err = readLists(p.config, fresh); err != nil {
		d.drop(err)
		return
	}
	if p.tls, err = d.looker.store.Read(wantedTLS(p.config), r.change.tls); err != nil {
		d.drop(tlsProblems(p.config, fileOf(d.files.doc.Load()), err))
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

// prepare begins to prepare the change that is under way.
func (d *Director) prepare() {
	p := d.underway
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

// finish applies the change that is under way if everything is prepared and its names have
// been looked up, or it has waited for them long enough.
func (d *Director) finish() {
	p := d.underway
	switch {
	case p == nil, !p.waited && (p.prepared == nil || !d.lookedUp(p.names)), p.committing != nil:
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
	switch {
	case p.change.Given != 0:
		d.make(p.change.Given)
	case d.opt.Commit != nil:
		d.commit()
	default:
		d.make(d.State().Generation + 1)
	}
}

// make makes the change that is under way, the generation of which is given.
func (d *Director) make(generation uint64) {
	p := d.underway
	now := time.Now()
	lists, tls, unconfirmed := d.lists, d.tls, d.unconfirmed
	d.lists, d.tls, d.unconfirmed = p.lists, p.tls, d.unconfirmedWith(p, generation, now)
	adopt := d.adopt
	if p.accepted() {
		adopt = d.adoptOpen
	}
	generation, err := adopt(p.config, generation)
	if err != nil {
		d.lists, d.tls, d.unconfirmed = lists, tls, unconfirmed
		d.drop(err)
		return
	}
	d.looker.store.Use(d.tls)
	leap := ""
	if p.change.Leap != nil {
		leap = *p.change.Leap
	}
	text := cmp.Or(p.change.undoes.text(), p.change.Text, leap)
	if own := d.unconfirmed.of(generation); own != nil {
		text = own.Fate()
	}
	d.events.add(&event{Event{Generation: generation, Time: now, By: p.change.By, From: p.change.From, Verb: p.change.Verb, Text: text, Leap: leap}, p.work})
	d.useSource(p.source)
	d.log.Info("configuration changed", "generation", generation,
		"verb", p.change.Verb, "by", p.change.By, "from", p.change.From)
	d.notify(Notice{Kind: ConfigMoved, Generation: generation, Verb: p.change.Verb, Reason: text})
	d.undone(p.change.undoes, generation)
	d.answer(generation, true)
}

// answer answers the change that is under way.
func (d *Director) answer(generation uint64, accepted bool) {
	p := d.underway
	d.underway = nil
	p.settle(accepted)
	p.end()
	p.answer <- answer{generation: generation, work: p.work}
}

// drop answers the change that is under way, if there is one, with an error and forgets it.
func (d *Director) drop(err error) {
	if d.underway == nil {
		return
	}
	p := d.underway
	d.underway = nil
	d.forgetNames()
	p.settle(false)
	p.end()
	d.notUndone(p.change.undoes, err)
	p.answer <- answer{err: err}
}

// settle tells Options.Prepare whether the change now runs, at once or when Prepare
// has ended.
func (p *underway) settle(accepted bool) {
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
