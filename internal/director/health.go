package director

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
)

const (
	// maxProbes is how many probes are under way at once, unless Options say.
	maxProbes = 64
	// probeTimeout is how long a probe of <manager> may take, or its interval if
	// shorter.
	probeTimeout = 2 * time.Second
	// lastResortInterval is the longest time between probes of a group whose
	// hosts are all down.
	lastResortInterval = time.Second
	// heartbeatFall is how many failed heartbeats in a row take a host out.
	heartbeatFall = 3
	// tooLate bounds how long after its timeout a failed probe may end and still
	// count.
	tooLate = 100 * time.Millisecond
)

// probeResult is a probe that has ended.
type probeResult struct {
	target  *Target
	started time.Time
	result  health.Result
}

// settle gives all targets what the configuration says of their hosts. A host
// that was in maintenance has come back.
func (d *Director) settle(state *State, kept uint64) {
	now := time.Now()
	for _, s := range state.Services {
		if s.mark == kept {
			continue
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				for _, t := range h.Targets {
					was := t.maint
					t.settle(g, h.Config, d.tls)
					if was && h.Config.State == "ready" && t.Host.Up() {
						d.startRamp(t, now)
						d.changed(s.Config.Name)
					}
				}
			}
		}
	}
}

// failed handles the engine's report that failed connects took a host down.
func (d *Director) failed(f engine.Failure) {
	switch t := d.byHost[f.Host]; {
	case t == nil:
	case f.Suspect:
		d.suspect(t, f.Err.Error())
	case !f.Host.Up():
		d.down(t, time.Now(), f.Err.Error())
	}
}

// connectFailed is the reason of a host whose failure the engine could not report.
const connectFailed = "a connect failed"

// scan finds hosts whose failure the engine could not report.
func (d *Director) scan() {
	for _, t := range d.targets {
		if !t.Host.Up() && t.Status().Up {
			d.down(t, time.Now(), connectFailed)
		}
	}
}

// down notes that a target is down since now, for whatever reason. more is for the log.
func (d *Director) down(t *Target, now time.Time, reason string, more ...any) {
	if !t.Status().Up {
		return
	}
	t.failed, t.passed = 0, 0
	t.last, t.next = now, time.Time{}
	t.elsewhere.learned = false
	d.soon.forget() // of a group whose hosts are all down now
	d.endRamp(t)
	t.endEjection(now)
	t.restate(func(s *Status) { s.Up, s.Reason, s.Since = false, reason, now })
	d.changed(t.key.service)
	d.touched[t.key.service] = true
	d.markedDown(t)
	d.noteHost("host down", t, reason)
	d.log.Warn("host down", append([]any{"service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "reason", reason}, more...)...)
}

// up notes that a target is up again since now.
func (d *Director) up(t *Target, now time.Time) {
	was := t.Status()
	if !t.waiting { // it has come back, and is not new
		d.startRamp(t, now) // first: clients who wait for a host get it as soon as it is marked up
	}
	t.Host.MarkUp()
	d.soon.forget()
	t.failed, t.passed = 0, 0
	t.waiting, t.elsewhere.learned = false, false
	t.endEjection(now)
	t.restate(func(s *Status) { s.Up, s.Reason, s.Since = true, "", now })
	d.changed(t.key.service)
	d.touched[t.key.service] = true
	d.markedUp(t)
	d.noteHost("host up", t, "after "+now.Sub(was.Since).Round(time.Millisecond).String())
	d.log.Info("host up", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "down_for", now.Sub(was.Since).Round(time.Millisecond).String())
}

// noteHost adds an event: a target went down or came up.
func (d *Director) noteHost(what string, t *Target, text string) {
	n := Notice{Kind: HostUp}
	if !t.Status().Up {
		n.Kind, n.Reason = HostDown, text
	}
	d.noteTarget(what, t, n, text)
}

// noteTarget adds an event about a target, and gives notice of it.
func (d *Director) noteTarget(what string, t *Target, n Notice, text string) {
	d.events.note(Event{
		Kind: HealthEvent, Generation: d.State().Generation, Verb: what,
		Text: fmt.Sprintf("%s %s %s (%v): %s", t.key.service, t.key.group, t.key.host, t.key.addr, text),
	})
	n.Service, n.Group, n.Host, n.Addr = t.key.service, t.key.group, t.key.host, t.key.addr.String()
	d.notify(n)
}

// judge handles the result of a probe.
func (d *Director) judge(r probeResult) {
	t := r.target
	d.probing--
	t.probing, t.next = false, time.Time{}
	t.checks[r.result.Code].Add(1)
	if d.targets[t.key] != t {
		return // it has gone meanwhile
	}
	if !r.started.Before(t.Status().Since) { // else it has changed meanwhile
		d.learn(r)
	}
	d.soon.add(t, time.Now())
}

// learn makes the result of a probe count.
func (d *Director) learn(r probeResult) {
	t := r.target
	ok := r.result.OK()
	if r.result.Tells() && r.result.Late > tooLate && !t.excused {
		// This process stood still, or had no processor for long: the answer may
		// have come in time. The target is probed again at once, and that counts.
		t.excused = true
		t.next = time.Now()
		d.stoodStill(r.result.Late)
		return
	}
	t.excused = false
	if t.unchecked() {
		d.touched[t.key.service] = true
	}
	tells, up := r.result.Tells(), t.Status().Up
	switch {
	case !tells:
	case ok && up:
		t.failed = 0
	case ok:
		t.passed++
	case up:
		t.failed++
	default:
		t.passed = 0
	}
	// The result is there before the change of state that follows from it: who hears of the
	// change finds that a probe has found it, see Finding.
	now := time.Now()
	t.restate(func(s *Status) {
		s.Check, s.Checked = r.result, now
		if !up && !ok && tells {
			s.Reason = r.result.Text
		}
	})
	switch {
	case ok && !up && t.passed >= t.rule.rise:
		d.up(t, now)
	case !ok && tells && up && t.failed >= t.rule.fall:
		t.Host.MarkDown()
		d.down(t, now, r.result.Text, "check", r.result.Code.String(), "took", r.result.Took.String())
	}
}

// stoodStill notes that a probe ended too late to count.
func (d *Director) stoodStill(late time.Duration) {
	if now := time.Now(); now.Sub(d.stoodAt) > scanEvery { // all probes under way end like this
		d.stoodAt = now
		d.log.Warn("health checks discarded, txlb was stalled or is overloaded", "late", late.Round(time.Millisecond).String())
	}
}

// allDown tells whether the group has hosts that should serve and none of them is
// up. The engine then picks a last resort. Hosts of weight 0 are ignored, as the
// engine does.
func (g *Group) allDown() bool {
	some := false
	for t := range g.serving() {
		if t.Host.Up() {
			return false
		}
		some = true
	}
	return some
}

// serving yields the targets that sessions can be given to.
func (g *Group) serving() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		for _, h := range g.Hosts {
			if h.Config.State != "ready" || h.Config.Weight == 0 {
				continue
			}
			for _, t := range h.Targets {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// probe is the goroutine of one probe.
func (d *Director) probe(ctx context.Context, t *Target, started time.Time, p health.Probe) {
	probe := d.opt.Probe
	if probe == nil {
		probe = health.Run
	}
	d.probed <- probeResult{t, started, probe(ctx, p)} // has room for every probe
}

// connect is the goroutine of TCP probes that go out together.
func (d *Director) connect(ctx context.Context, targets []*Target, started time.Time, probes []health.Probe) {
	health.Connect(ctx, probes, func(i int, r health.Result) {
		d.probed <- probeResult{targets[i], started, r} // has room for every probe
	})
}
