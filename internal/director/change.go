package director

import "github.com/txlb/txlb/config"

// pending is a change that is made to the model and waits for its names. No
// other change is taken meanwhile, so the model it began with still runs.
type pending struct {
	request
	config *config.Config
}

// change begins a Do. It ends in finish or in drop.
func (d *Director) change(r request) {
	d.pending = &pending{r, d.config.Clone()}
	if err := r.change.Apply(d.pending.config); err != nil {
		d.drop(err)
		return
	}
	if err := d.pending.config.Check("configuration").Err(); err != nil {
		d.drop(err)
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
	d.pending = nil
	d.log.Info("configuration changed", "generation", generation,
		"verb", p.change.Verb, "by", p.change.By, "from", p.change.From)
	p.answer <- answer{generation, nil}
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
	p.answer <- answer{0, err}
}
