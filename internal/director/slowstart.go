package director

import (
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

const (
	// rampSteps is the number of steps of a slow start.
	rampSteps = 20
	// rampEvery is the least time between two looks at slow starts: each may
	// cost a table.
	rampEvery = 100 * time.Millisecond
)

// startRamp begins the slow start of a target that has come back, if its host
// has one.
func (d *Director) startRamp(t *Target, now time.Time) {
	if t.slowStart == 0 {
		return
	}
	t.since, t.step = now, 0
	t.limit()
	d.ramping[t] = true
}

// endRamp gives a target its full share.
func (d *Director) endRamp(t *Target) {
	t.step = rampSteps
	t.limit()
	delete(d.ramping, t)
}

// limit tells the host how many sessions it may have: in its slow start a part of its
// maxSessions, but at least one. HAProxy does the same.
func (t *Target) limit() {
	n := t.maxSessions
	if n > 0 && t.step < rampSteps {
		n = (n*max(t.step, 1) + rampSteps - 1) / rampSteps
	}
	t.Host.SetMaxSessions(n)
}

// ramp takes slow starts a step further and returns the time until it should
// look again. Those whose step is due at the same look share a table.
func (d *Director) ramp(now time.Time) time.Duration {
	if len(d.ramping) == 0 {
		return scanEvery
	}
	if since := now.Sub(d.ramped); since < rampEvery {
		return rampEvery - since
	}
	d.ramped = now
	for t := range d.ramping {
		if d.targets[t.key] != t {
			d.endRamp(t)
			continue
		}
		step := rampStep(now.Sub(t.since), t.slowStart)
		if step == t.step {
			continue
		}
		t.step = step
		t.limit()
		if step == rampSteps {
			d.endRamp(t)
		}
		d.changed(t.key.service)
	}
	return rampEvery
}

// rampStep returns the step of a slow start that began some time ago.
func rampStep(run, slowStart time.Duration) int {
	if run >= slowStart {
		return rampSteps
	}
	return int(rampSteps * float64(run) / float64(slowStart))
}

// shares returns how a table chooses among the group's hosts: as configured, unless
// one of them is in its slow start. Then every weight is multiplied, so that a
// twentieth of weight 1 is a whole number, and a scheduler without weights is
// replaced by its weighted relative. full is what the weight is when the slow start is
// over.
func (g *Group) shares() (scheduler string, weights func(Share, *Target) (weight, full int)) {
	scheduler = g.Config.Scheduler
	if !g.ramping() {
		return scheduler, func(s Share, _ *Target) (weight, full int) { return s.Weight, s.Weight }
	}
	scheduler, weighted := sched.Weighted(scheduler)
	base := func(s Share) int { return s.Weight }
	if !weighted {
		base = func(s Share) int { return min(s.Weight, 1) }
	}
	most := 1
	for _, h := range g.Hosts {
		for _, s := range h.Shares {
			most = max(most, base(s))
		}
	}
	scale := max(1, min(rampSteps, config.MaxWeight/most))
	return scheduler, func(s Share, t *Target) (weight, full int) {
		full = base(s) * scale
		return (full*max(t.step, 1) + rampSteps - 1) / rampSteps, full
	}
}

// ramping tells whether a host that takes clients is in its slow start.
func (g *Group) ramping() bool {
	for t := range g.serving() {
		if t.step < rampSteps {
			return true
		}
	}
	return false
}
