package socket

import (
	"context"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

// sampleEvery is how often counters are looked at for what they do not tell
// themselves: rates, the greatest numbers, when a host went down. What rises
// and falls between two looks is not seen.
const sampleEvery = time.Second

// rowKey names a row of show stat: a service, with group one of its groups,
// with host one of that group's hosts.
type rowKey struct{ service, group, host string }

// row is what has been seen of a service, a group or a host.
type row struct {
	id int // iid of services and groups, sid of hosts; it stays while the row does

	max         int64  // sessions at once
	total       uint64 // sessions at the last look
	rate, top   uint64 // new sessions in the last second
	lastSession time.Time

	up      bool
	changed time.Time     // when up did
	downs   uint64        // how often it went down
	downFor time.Duration // before changed

	// Of a group.
	sids             int // ids given to hosts
	connect, session mean

	firstWeight int // of a host
}

// mean is the mean of the last times of a kind, of about meanOf of them.
type mean struct {
	n     uint64        // counted in all at the last look
	sum   time.Duration // of them
	value time.Duration
}

// meanOf is over how many HAProxy takes its means (TIME_STATS_SAMPLES).
const meanOf = 1024

// take takes in what was counted since the last look.
func (m *mean) take(h sched.Histogram) {
	n := h.Count()
	if n <= m.n {
		return
	}
	last := (h.Sum - m.sum) / time.Duration(n-m.n)
	weight := min(float64(n-m.n)/float64(min(n, meanOf)), 1)
	m.value += time.Duration(float64(last-m.value) * weight)
	m.n, m.sum = n, h.Sum
}

// samples looks at counters. All methods may be called from any goroutine.
type samples struct {
	dir *director.Director
	eng *engine.Engine

	mu    sync.Mutex
	state *director.State // what rows has
	rows  map[rowKey]*row
	iids  int // ids given to services and groups
	at    time.Time
	// Of the process.
	all         row
	out         uint64 // bytes to clients at the last look
	outRate     uint64
	cpu, busy   float64 // seconds at the last look; the share of one processor since
	cpuIsKnown  bool
	greatestOut uint64
}

func newSamples(dir *director.Director, eng *engine.Engine) *samples {
	return &samples{dir: dir, eng: eng, rows: map[rowKey]*row{}}
}

// run looks once a second until ctx ends.
func (s *samples) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.look(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// arrange makes rows those of what runs. The caller holds mu.
func (s *samples) arrange(now time.Time) *director.State {
	state := s.dir.State()
	if state == s.state {
		return state
	}
	rows := make(map[rowKey]*row, len(s.rows))
	keep := func(key rowKey, id *int) *row {
		r := s.rows[key]
		if r == nil {
			*id++
			r = &row{id: *id, up: true, changed: now}
		}
		rows[key] = r
		return r
	}
	for _, svc := range state.Services {
		keep(rowKey{service: svc.Config.Name}, &s.iids)
		for _, g := range svc.Groups {
			group := keep(rowKey{svc.Config.Name, g.Config.Name, ""}, &s.iids)
			for _, h := range g.Hosts {
				key := rowKey{svc.Config.Name, g.Config.Name, h.Config.Name}
				if host := keep(key, &group.sids); s.rows[key] == nil {
					host.firstWeight = h.Config.Weight
				}
			}
		}
	}
	s.state, s.rows = state, rows
	return state
}

// firstWeight is the weight that a host was first seen with.
func (s *samples) firstWeight(of server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrange(time.Now())
	if r := s.rows[rowKey{of.service.Config.Name, of.group.Config.Name, of.host.Config.Name}]; r != nil {
		return r.firstWeight
	}
	return of.host.Config.Weight
}

// look takes the counters in as they are now.
func (s *samples) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := now.Sub(s.at)
	if since < sampleEvery/2 {
		return // two sockets are served at once, while one takes the other's place
	}
	first := s.at.IsZero()
	s.at = now
	state := s.arrange(now)
	snap := s.eng.Snapshot()
	var active int64
	var total, out uint64
	for _, svc := range state.Services {
		stats := snap.Services[svc.Config.Name]
		active, total, out = active+stats.Active, total+stats.Sessions, out+stats.Out
		s.rows[rowKey{service: svc.Config.Name}].count(now, since, stats.Active, stats.Sessions)
		for _, g := range svc.Groups {
			var sum sched.HostStats
			for _, h := range g.Hosts {
				stats := h.Stats()
				sum.Add(stats)
				r := s.rows[rowKey{svc.Config.Name, g.Config.Name, h.Config.Name}]
				r.count(now, since, stats.Active, stats.Picks)
				r.turn(turned(h))
			}
			r := s.rows[rowKey{svc.Config.Name, g.Config.Name, ""}]
			r.count(now, since, sum.Active, sum.Picks)
			r.connect.take(g.Times.Connects())
			r.session.take(g.Times.Sessions())
			r.turn(usable(g).up(), now)
		}
	}
	s.all.count(now, since, active, total)
	cpu, known := processCPU()
	if !first {
		s.outRate = perSecond(out, s.out, since)
		s.busy = (cpu - s.cpu) / since.Seconds()
	}
	s.out, s.cpu, s.cpuIsKnown = out, cpu, known && !first
	s.greatestOut = max(s.greatestOut, s.outRate)
}

// count takes in the sessions of a row.
func (r *row) count(now time.Time, since time.Duration, active int64, total uint64) {
	r.max = max(r.max, active)
	if total > r.total {
		r.lastSession = now
	}
	if since < time.Minute { // it is no first look
		r.rate = perSecond(total, r.total, since)
		r.top = max(r.top, r.rate)
	}
	r.total = total
}

// perSecond is the rate of a counter. One that has become less, since a host
// of the sum has gone, has none.
func perSecond(now, before uint64, since time.Duration) uint64 {
	if now < before {
		return 0
	}
	return uint64(float64(now-before)/since.Seconds() + 0.5)
}

// turn takes in whether a row is up, and since when.
func (r *row) turn(up bool, at time.Time) {
	if up == r.up {
		return
	}
	if up {
		r.downFor += max(at.Sub(r.changed), 0)
	} else {
		r.downs++
	}
	r.up, r.changed = up, at
}

// downtime is how long the row has been down in all.
func (r *row) downtime(now time.Time) time.Duration {
	if r.up {
		return r.downFor
	}
	return r.downFor + max(now.Sub(r.changed), 0)
}
