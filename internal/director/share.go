package director

import (
	"context"
	"math/rand/v2"
	"time"
)

// Where a fleet shares checks out. A target that other nodes check is not probed here as long
// as it is here as they say: the rulings of the fleet change it then, as checks do. What this
// node finds itself, by failed connects or because an operator says so, counts at once, and
// makes it check the target itself until both agree again.

// Ruling is what a fleet says of a target.
type Ruling struct {
	Target *Target
	// Elsewhere says that other nodes check it, and that they have found it Up or not. By are
	// their names.
	Elsewhere, Up bool
	Reason        string // why it is down
	By            string
}

// elsewhere is the last ruling of a target, as far as the director needs it.
type elsewhere struct {
	is, up  bool
	learned bool // the target is down because a ruling said so
}

// resumeWithin spreads the first probes of targets that this node checks again.
const resumeWithin = time.Second

// Rule makes rulings of a fleet count. They are about transitions: one that says the same as
// the one before changes nothing, whatever has become of the target meanwhile.
func (d *Director) Rule(ctx context.Context, rulings []Ruling) error {
	return d.order(ctx, func() {
		now := time.Now()
		for i := range rulings {
			d.rule(&rulings[i], now)
		}
	})
}

// rule makes one ruling count.
func (d *Director) rule(r *Ruling, now time.Time) {
	t := r.Target
	if d.targets[t.key] != t {
		return
	}
	d.soon.forget()
	was, up := t.elsewhere, t.Status().Up
	t.elsewhere.is, t.elsewhere.up = r.Elsewhere, r.Up
	switch {
	case !r.Elsewhere:
		if was.is {
			t.failed, t.passed = 0, 0
			t.last, t.next = now, now.Add(rand.N(resumeWithin))
		}
	case !r.Up && up && (!was.is || was.up):
		t.Host.MarkDown()
		d.down(t, now, r.Reason, "checked_by", r.By)
		t.elsewhere.learned = true
	case r.Up && !up && (was.is && !was.up || was.learned || t.waiting):
		d.up(t, now)
	}
	t.restate(func(s *Status) { s.CheckedBy = r.By })
}

// spared tells whether other nodes probe the target for this one.
func (t *Target) spared(up bool) bool { return t.elsewhere.is && t.elsewhere.up == up }

// Finding is what the probes of this process say of a target of the group. fresh is whether
// they go on and tell something: the last one is not older than three intervals and its
// timeout, and the state is theirs, not what a client met or others have found.
func (g *Group) Finding(t *Target, now time.Time) (s Status, fresh bool) {
	s = t.Status()
	if s.Checked.IsZero() || s.Checked.Before(s.Since) || !s.Check.Tells() {
		return s, false
	}
	every := g.rule.every(s.Up, false, false)
	if every == 0 {
		every = lastResortInterval
	}
	return s, now.Sub(s.Checked) <= 3*max(every, g.rule.fast)+g.rule.probe.Timeout
}

// Watched tells whether hosts of the group are probed while they are up. Otherwise those that
// probe one are those that cannot reach it, and nobody could contradict them.
func (g *Group) Watched() bool { return g.rule.usual > 0 }

// Relative tells whether the address means something else on each machine: a UNIX socket, or an
// address of loopback, of the own machine (0.0.0.0, [::]) or of a link. Nodes that probe it
// probe different hosts.
func (t *Target) Relative() bool {
	ip := t.key.addr.IP().Addr()
	return t.key.addr.Path() != "" || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.Zone() != ""
}

// Where is what a target is an address of.
func (t *Target) Where() (service, group, host, addr string) {
	return t.key.service, t.key.group, t.key.host, t.key.addr.String()
}
