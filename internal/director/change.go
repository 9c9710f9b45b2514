package director

import (
	"slices"
	"time"

	"github.com/txlb/txlb/config"
)

// pending is a change that is made to the model and waits for its names. No
// other change is taken meanwhile, so the model it began with still runs.
type pending struct {
	request
	config *config.Config
	work   func() edits
	names  names            // that it uses
	source *source          // where they are looked up
	late   <-chan time.Time // when it has waited for long enough
	waited bool
}

// longestWait is how long a change waits for its names: for those that are asked
// for at once, longer than any look-up takes.
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
	d.pending.config.Share(d.config)
	if err := d.pending.config.CheckSince(d.config, "configuration").Err(); err != nil {
		d.drop(err)
		return
	}
	d.pending.work = between(d.config, d.pending.config)
	if r.change.DryRun {
		d.answer(d.State().Generation)
		return
	}
	p := d.pending
	p.names, p.source, p.late = namesOf(p.config), d.source, time.After(longestWait)
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

// finish does the change that is pending, if its names have been looked up or it
// has waited for them for long enough.
func (d *Director) finish() {
	p := d.pending
	if p == nil || !p.waited && !d.lookedUp(p.names) {
		return
	}
	generation, err := d.adopt(p.config, d.State().Generation+1)
	if err != nil {
		d.drop(err)
		return
	}
	d.events.add(&event{Event{Generation: generation, Time: time.Now(), By: p.change.By, From: p.change.From, Verb: p.change.Verb}, p.work})
	d.useSource(p.source)
	d.log.Info("configuration changed", "generation", generation,
		"verb", p.change.Verb, "by", p.change.By, "from", p.change.From)
	d.answer(generation)
}

// answer answers the change that is pending.
func (d *Director) answer(generation uint64) {
	p := d.pending
	d.pending = nil
	p.answer <- answer{generation: generation, work: p.work}
}

// drop answers the change that is pending, if there is one, with an error and
// forgets what it brought.
func (d *Director) drop(err error) {
	if d.pending == nil {
		return
	}
	p := d.pending
	d.pending = nil
	d.forgetNames()
	p.answer <- answer{err: err}
}
