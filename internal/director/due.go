package director

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/txlb/txlb/internal/health"
)

const (
	// maxStarts is how many probes start at one look.
	maxStarts = 128
	// coarse is the least time between two looks at what is due.
	coarse = 10 * time.Millisecond
	// ahead is how far a look at all targets sees. With 50,000 it takes 7.5 ms, so the looks
	// until then go without.
	ahead = 250 * time.Millisecond
)

// soon has the targets that are probed next. All others are due later than until, unless
// something changes that their intervals depend on: then forget makes the next look go through
// all. A target whose probe is under way is added when that has ended.
type soon struct {
	list  []*Target // the longest due first: silent hosts, due again at once, keep nobody waiting
	until time.Time
}

func (s *soon) forget() { s.until = time.Time{} }

// find looks at all targets.
func (s *soon) find(state *State, now time.Time) {
	s.list = nil
	later := scanEvery
	for _, service := range state.Services {
		for _, g := range service.Groups {
			allDown := g.allDown()
			for _, h := range g.Hosts {
				for _, t := range h.Targets {
					t.lastResort = allDown
					if wait, ok := t.due(now); ok && wait <= ahead {
						s.list = append(s.list, t)
					} else if ok {
						later = min(later, wait)
					}
				}
			}
		}
	}
	slices.SortFunc(s.list, sooner)
	s.until = now.Add(later)
}

// add takes in a target whose probe has ended.
func (s *soon) add(t *Target, now time.Time) {
	if _, ok := t.due(now); ok && t.next.Before(s.until) {
		i, _ := slices.BinarySearchFunc(s.list, t, sooner)
		s.list = slices.Insert(s.list, i, t)
	}
}

func sooner(a, b *Target) int { return a.next.Compare(b.next) }

// take removes the targets that are due, so many at most.
func (s *soon) take(now time.Time, most int) (due []*Target) {
	n := 0
	for n < min(len(s.list), most) && !s.list[n].next.After(now) {
		n++
	}
	due, s.list = s.list[:n], s.list[n:]
	return due
}

// startProbes starts the probes that are due and returns the time until it
// should look again.
func (d *Director) startProbes(ctx context.Context, now time.Time) time.Duration {
	if since := now.Sub(d.swept); since < coarse {
		return coarse - since
	}
	d.swept = now
	if !now.Before(d.soon.until) {
		d.soon.find(d.State(), now)
	}
	due := d.soon.take(now, min(d.opt.MaxProbes-d.probing, maxStarts))
	d.start(ctx, due, now)
	if len(due) == maxStarts {
		return coarse
	}
	next := d.soon.until
	if list := d.soon.list; len(list) > 0 && list[0].next.After(now) { // else it starts when a probe has ended
		next = list[0].next
	}
	return next.Sub(now)
}

// start starts probes. Those by TCP go out together, which costs the least.
func (d *Director) start(ctx context.Context, due []*Target, now time.Time) {
	var together []*Target
	var connects []health.Probe
	for _, t := range due {
		d.probing++
		t.probing = true
		t.last = now
		probe := t.rule.of(t.Host, t.key.addr, t.Host.Up(), t.lastResort)
		if d.opt.Probe == nil && probe.Type == health.TCP && probe.Secure == nil {
			together = append(together, t)
			connects = append(connects, probe)
			continue
		}
		go d.probe(ctx, t, now, probe)
	}
	if len(connects) > 0 {
		go d.connect(ctx, together, now, connects)
	}
}

// due returns the time until the next probe of a target, and whether there is one.
func (t *Target) due(now time.Time) (time.Duration, bool) {
	up := t.Host.Up()
	lastResort := t.lastResort && !up // clients wait for the first that answers
	if t.maint || t.spared(up) && !lastResort {
		return 0, false
	}
	return t.wait(now, t.rule.every(up, t.failed > 0 || t.passed > 0, t.lastResort))
}

// slack shortens an interval so that no probe is late: both the event that makes a
// probe due and the probe itself are noticed up to coarse late.
func slack(every time.Duration) time.Duration { return min(2*coarse, every/4) }

// wait returns the time until the next probe of a target with this interval, and
// whether there is one. Intervals count from start to start. They are shortened at
// random by up to a fifth, and by the slack, so that the probes of many hosts
// spread.
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
