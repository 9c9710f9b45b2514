package director

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
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
	// coarse is how close together the director looks at what is due, so that
	// thousands of hosts cost few looks.
	coarse = 10 * time.Millisecond
)

// probeResult is a probe that has ended.
type probeResult struct {
	target *Target
	err    error
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
	t.status.Store(&Status{Reason: reason, Since: time.Now()})
	t.fails = 0
	t.next = time.Time{}
	d.changed(t.key.service)
	d.log.Warn("host down", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "reason", reason)
	if g := d.group(t.key); g != nil && g.allDown() {
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
	case r.err == nil && (!status.Up || !t.Host.Up()):
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

// allDown tells whether the group has hosts that should serve, and none does.
func (g *Group) allDown() bool {
	some := false
	for _, h := range g.Hosts {
		if h.Config.State != "ready" {
			continue
		}
		for _, t := range h.Targets {
			if t.Host.Up() {
				return false
			}
			some = true
		}
	}
	return some
}

// startDue starts the probes and look-ups that are due and returns the time
// until the next one is.
func (d *Director) startDue(ctx context.Context) time.Duration {
	now := time.Now()
	soonest := d.startLookups(ctx, now)
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			allDown := g.allDown()
			for _, h := range g.Hosts {
				if h.Config.State == "maint" {
					continue
				}
				for _, t := range h.Targets {
					every := probeInterval(&d.config.Manager, t.Host.Up(), allDown)
					if every == 0 || t.probing {
						continue
					}
					if t.next.IsZero() || t.next.Sub(now) > every {
						// New, or more urgent than it was. Sooner than asked
						// for by up to a fifth, so that probes do not all go
						// out at the same moment.
						t.next = now.Add(every - time.Duration(rand.Int64N(int64(every)/5+1)))
					}
					if wait := t.next.Sub(now); wait > 0 {
						soonest = min(soonest, wait)
					} else if d.probing < maxProbes {
						d.probing++
						t.probing = true
						go d.probe(ctx, t, min(every, probeTimeout))
					}
				}
			}
		}
	}
	return max(soonest, coarse)
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
func (d *Director) probe(ctx context.Context, t *Target, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d.probed <- probeResult{t, d.opt.Probe(ctx, t.key.addr)} // has room for every probe
}
