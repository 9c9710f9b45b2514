package director

import (
	"time"

	"github.com/txlb/txlb/config"
)

// pending is a change that is made to the model and waits for its names. No
// other change is taken meanwhile, so the model it began with still runs.
type pending struct {
	request
	config *config.Config
	work   func() edits
}

// change begins a Do. It ends in finish or in drop.
func (d *Director) change(r request) {
	d.pending = &pending{request: r, config: d.config.Clone()}
	if want := r.change.Generation; want != 0 && want != d.State().Generation {
		d.drop(d.moved(want))
		return
	}
	if err := r.change.Apply(d.pending.config); err != nil {
		d.drop(err)
		return
	}
	if err := d.pending.config.Check("configuration").Err(); err != nil {
		d.drop(err)
		return
	}
	d.pending.config.Share(d.config)
	d.pending.work = between(d.config, d.pending.config)
	if r.change.DryRun {
		d.answer(d.State().Generation)
		return
	}
	for host := range hostNames(d.pending.config) {
		if d.names[host] == nil {
			d.names[host] = &name{}
		}
	}
	d.finish()
}

// finish does the change that is pending, if its names have been looked up.
func (d *Director) finish() {
	if d.pending == nil || !d.lookedUp(d.pending.config) {
		return
	}
	p := d.pending
	generation, err := d.adopt(p.config, d.State().Generation+1)
	if err != nil {
		d.drop(err)
		return
	}
	d.events.add(&event{Event{Generation: generation, Time: time.Now(), By: p.change.By, From: p.change.From, Verb: p.change.Verb}, p.work})
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
