package director

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
)

const (
	// maxProbes is how many probes are under way at once.
	maxProbes = 64
	// probeTimeout is how long a probe may take, or its interval if shorter.
	probeTimeout = 2 * time.Second
	// lastResortInterval is the longest time between probes of a group whose
	// hosts are all down.
	lastResortInterval = time.Second
	// heartbeatFall is how many failed heartbeats in a row take a host out.
	heartbeatFall = 3
	// coarse is the least time between two looks at what is due, which take long
	// where hosts are many.
	coarse = 10 * time.Millisecond
)

// probeResult is a probe that has ended.
type probeResult struct {
	target  *Target
	started time.Time
	err     error
}

// failed takes in that a connect of the engine took a host down.
func (d *Director) failed(f engine.Failure) {
	if t := d.byHost[f.Host]; t != nil && !f.Host.Up() {
		d.down(t, f.Err.Error())
	}
}

// scan finds hosts whose failure the engine could not report.
func (d *Director) scan() {
	for _, t := range d.targets {
		if !t.Host.Up() && t.Status().Up {
			d.down(t, "a connect failed")
		}
	}
}

// down notes that a target is down, however that came.
func (d *Director) down(t *Target, reason string) {
	if !t.Status().Up {
		return
	}
	now := time.Now()
	t.status.Store(&Status{Reason: reason, Since: now})
	t.fails = 0
	t.last, t.next = now, time.Time{}
	d.changed(t.key.service)
	d.log.Warn("host down", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "reason", reason)
	if g := d.group(t.key); g != nil && g.lastWas(t) {
		d.log.Error("all hosts are down", "service", t.key.service, "group", t.key.group)
	}
}

// up notes that a target is up again.
func (d *Director) up(t *Target) {
	was := t.Status()
	t.Host.MarkUp()
	t.status.Store(&Status{Up: true, Since: time.Now()})
	t.fails = 0
	d.changed(t.key.service)
	d.log.Info("host up", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "down_for", time.Since(was.Since).Round(time.Millisecond).String())
}

// judge takes in the result of a probe.
func (d *Director) judge(r probeResult) {
	d.probing--
	t := r.target
	t.probing = false
	t.next = time.Time{}
	if d.targets[t.key] != t {
		return // it has gone meanwhile
	}
	status := t.Status()
	switch {
	case r.started.Before(status.Since), errors.Is(r.err, health.ErrLocal):
		// Says nothing about the host as it is now.
	case r.err == nil && !status.Up:
		d.up(t)
	case r.err == nil:
		t.fails = 0
	case status.Up:
		if t.fails++; t.fails >= heartbeatFall {
			t.Host.MarkDown()
			d.down(t, r.err.Error())
		}
	default:
		t.status.Store(&Status{Reason: r.err.Error(), Since: status.Since})
	}
}

// group returns the group of a target, nil if it has gone.
func (d *Director) group(key targetKey) *Group {
	for _, s := range d.State().Services {
		if s.Config.Name != key.service {
			continue
		}
		for _, g := range s.Groups {
			if g.Config.Name == key.group {
				return g
			}
		}
	}
	return nil
}

// allDown tells whether the group has hosts that should serve, and none is up:
// then the engine picks a last resort. As there, weight 0 counts for nothing.
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

// lastWas tells whether t, which is down, was the last that served, as far as
// the director has noticed.
func (g *Group) lastWas(t *Target) bool {
	served := false
	for other := range g.serving() {
		if other.Status().Up {
			return false
		}
		served = served || other == t
	}
	return served
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

// startProbes starts the probes that are due and returns the time until it
// should look again.
func (d *Director) startProbes(ctx context.Context, now time.Time) time.Duration {
	if since := now.Sub(d.swept); since < coarse {
		return coarse - since
	}
	d.swept = now
	soonest := scanEvery
	due := d.due[:0]
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			allDown := g.allDown()
			for _, h := range g.Hosts {
				if h.Config.State == "maint" {
					continue
				}
				for _, t := range h.Targets {
					every := probeInterval(&d.config.Manager, t.Host.Up(), allDown)
					if wait, ok := t.wait(now, every); !ok {
						continue
					} else if wait > 0 {
						soonest = min(soonest, wait)
					} else {
						due = append(due, dueProbe{t, every})
					}
				}
			}
		}
	}
	// The longest due come first: otherwise silent hosts at the front, due
	// again as soon as they have timed out, would keep all others waiting.
	slices.SortFunc(due, func(a, b dueProbe) int { return a.target.next.Compare(b.target.next) })
	for _, p := range due[:min(len(due), maxProbes-d.probing)] {
		d.probing++
		p.target.probing = true
		p.target.last = now
		go d.probe(ctx, p.target, now, min(p.every-slack(p.every), probeTimeout))
	}
	clear(due)
	d.due = due
	return soonest // those that are left start when a probe has ended
}

// slack is what an interval loses so that no probe is late: what makes it due
// is seen up to coarse later, and then that it is due.
func slack(every time.Duration) time.Duration { return min(2*coarse, every/4) }

// dueProbe is a probe that should go out.
type dueProbe struct {
	target *Target
	every  time.Duration
}

// wait returns the time until the next probe of a target that is to be probed
// so often, and whether there is to be one. Intervals go from start to start
// and are shorter than asked for by up to a fifth and the slack, so that the
// probes of many hosts spread.
func (t *Target) wait(now time.Time, every time.Duration) (time.Duration, bool) {
	if every == 0 {
		t.last, t.next = now, time.Time{}
		return 0, false
	}
	if t.probing {
		return 0, false
	}
	if t.next.IsZero() {
		t.next = t.last.Add(spread(every))
	}
	if t.next.Sub(now) > every { // more urgent than it was
		t.next = now.Add(spread(every))
	}
	return t.next.Sub(now), true
}

func spread(every time.Duration) time.Duration {
	return every - slack(every) - time.Duration(rand.Int64N(int64(every)/5+1))
}

// probeInterval returns how often a target is to be probed, 0 for never.
func probeInterval(m *config.Manager, up, allDown bool) time.Duration {
	switch {
	case up && m.Heartbeat.Enable:
		return m.Heartbeat.Interval
	case up:
		return 0
	case allDown && m.HostCheck.Enable:
		return min(m.HostCheck.Interval, lastResortInterval)
	case allDown:
		return lastResortInterval
	case m.HostCheck.Enable:
		return m.HostCheck.Interval
	}
	return 0
}

// probe is the goroutine of one probe.
func (d *Director) probe(ctx context.Context, t *Target, started time.Time, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d.probed <- probeResult{t, started, d.opt.Probe(ctx, t.key.addr)} // has room for every probe
}
