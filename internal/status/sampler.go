package status

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

const (
	// SampleEvery is how often the sampler looks. What rises and falls between two
	// samples is not seen.
	SampleEvery = time.Second
	// rateOver is how many samples a rate is taken over, and refusedOver how many
	// RefusedNow is.
	rateOver, refusedOver = 3, 10
)

// Key names a service, a group of it, or a host of that; what is below is "".
type Key struct{ Service, Group, Host string }

// Traffic is what the sampler has seen of a service, a group, a host, or of all
// services together: what counters do not tell themselves.
type Traffic struct {
	// ID numbers services and groups together, and the hosts of a group, from 1 on.
	// It stays while the row does.
	ID int
	// Rates are a second, over the last three: new sessions, bytes and failed
	// connects. They are 0 until there are two samples.
	Rate, InRate, OutRate, FailRate float64
	LastSecond                      uint64        // new sessions in the last second
	MaxRate                         uint64        // the greatest LastSecond
	Max                             int64         // most sessions at once
	LastSession                     time.Time     // when one was last seen to begin; zero: never
	ConnectTime                     time.Duration // mean of connects in the last three seconds; 0: there was none
	TurnTime                        time.Duration // likewise of turnarounds
	RefusedNow                      uint64        // of a service: clients rejected in the last ten seconds

	// Of groups and hosts. A group is up while a host of it serves new clients.
	Up      bool
	Changed time.Time // when Up did
	Downs   uint64    // how often it went down
	downFor time.Duration

	// Turnaround is the mean of about the last 1,024 turnarounds of a service, group or host
	// (see sched.Host.Turned), and WorstTurnaround the longest of the last minute. 0: there
	// was none.
	Turnaround, WorstTurnaround time.Duration
	// Means of about the last 1,024, MeanSession of a group or host, and the others of a
	// group. MeanWait is of those that waited.
	MeanConnect, MeanSession, MeanWait time.Duration
	// WaitingSince is when the first of the samples was taken that have all found clients
	// waiting for a host of the group; zero: the last one found none.
	WaitingSince time.Time
	FirstWeight  int // of a host: its weight when it was first seen
}

// Downtime is how long it has been down in all.
func (t *Traffic) Downtime(now time.Time) time.Duration {
	if t.Up {
		return t.downFor
	}
	return t.downFor + max(now.Sub(t.Changed), 0)
}

// sampler watches the running state over time. Callers load the state under mu, so
// that an older state never comes after a newer one.
type sampler struct {
	mu      sync.Mutex
	state   *director.State // what rows are of
	rows    map[Key]*row
	tree    []serviceRows // the same, in the order of state
	ids     int           // given to services and groups
	all     Traffic
	first   time.Time     // of the first sample
	at      time.Time     // of the last one
	cpu     float64       // the process' at the last sample
	busy    float64       // processors in use since the sample before; negative: not known
	sampled chan struct{} // closed by the next sample
}

type serviceRows struct {
	*row
	groups []groupRows
}

type groupRows struct {
	*row
	hosts []*row
}

// row is one service, group or host.
type row struct {
	Traffic
	hosts                  int        // IDs given to its hosts
	before                 uint64     // sessions that an earlier process has counted, until the first sample
	past                   []counters // of the last samples, the newest last
	connect, session, wait mean
	turnaround             mean
	worst                  worst
	history                *ring // nil: none is kept
}

// counters are what rates are made of.
type counters struct {
	at                               time.Duration // since the first sample
	total, in, out, failed, rejected uint64
	connects                         uint64
	connectTime                      time.Duration // that they took
	turns                            uint64
	turnTime                         time.Duration
}

// Run takes a sample each second until ctx ends. The process runs it in one
// goroutine, for all readers.
func (s *Source) Run(ctx context.Context) {
	tick := time.NewTicker(SampleEvery)
	defer tick.Stop()
	for {
		s.Sample()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Sample takes one sample, as Run does each second.
func (s *Source) Sample() { s.sampler.sample(s.counts) }

// Sampled returns a channel that the next sample closes.
func (s *Source) Sampled() <-chan struct{} {
	s.sampler.mu.Lock()
	defer s.sampler.mu.Unlock()
	return s.sampler.next()
}

func (s *sampler) next() chan struct{} {
	if s.sampled == nil {
		s.sampled = make(chan struct{})
	}
	return s.sampled
}

// sample takes the counters in as they are now.
func (s *sampler) sample(facts func() Facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := facts()
	r := sum(f)
	s.arrange(f.State, f.At)
	s.see(r)
	if s.first.IsZero() {
		s.first = f.At
	}
	at := f.At.Sub(s.first)
	s.all.Rate, s.all.InRate, s.all.OutRate, s.all.FailRate, s.all.LastSecond = 0, 0, 0, 0, 0
	for i := range r.Services {
		svc, rows := &r.Services[i], &s.tree[i]
		c := counters{at: at, total: svc.Stats.Sessions, in: svc.Stats.In, out: svc.Stats.Out, failed: svc.Failures, rejected: svc.Refused}
		for j := range svc.Groups {
			g, groupRows := &svc.Groups[j], &rows.groups[j]
			connects := g.Times.Connects()
			c.connects += connects.Count()
			c.connectTime += connects.Sum
			turns := g.Times.Turnarounds()
			c.turns += turns.Count()
			c.turnTime += turns.Sum
			groupRows.connect.of(connects)
			groupRows.session.of(g.Times.Sessions())
			groupRows.turnaround.of(turns)
			groupRows.MeanConnect, groupRows.MeanSession, groupRows.Turnaround = groupRows.connect.value, groupRows.session.value, groupRows.turnaround.value
			if g.Queues() {
				groupRows.wait.of(g.Times.Waits())
				groupRows.MeanWait = groupRows.wait.value
			}
			groupRows.queued(g.Waiting, f.At)
			groupRows.take(counters{
				at: at, total: g.Stats.Picks, in: g.Stats.In, out: g.Stats.Out, failed: g.Stats.Failures,
				connects: connects.Count(), connectTime: connects.Sum, turns: turns.Count(), turnTime: turns.Sum,
			}, f.At, rateOver)
			groupRows.WorstTurnaround = 0
			for k := range g.Hosts {
				h, row := &g.Hosts[k], groupRows.hosts[k]
				row.take(counters{
					at: at, total: h.Stats.Picks, in: h.Stats.In, out: h.Stats.Out, failed: h.Stats.Failures,
					connects: h.Stats.Connects, connectTime: h.Stats.ConnectTime, turns: h.Stats.Turns, turnTime: h.Stats.TurnTime,
				}, f.At, rateOver)
				row.session.take(h.Stats.Ended, h.Stats.EndedTime)
				row.turnaround.take(h.Stats.Turns, h.Stats.TurnTime)
				row.MeanSession, row.Turnaround = row.session.value, row.turnaround.value
				for t := range h.All() {
					row.worst.take(t.Host.WorstTurn(), at)
				}
				row.WorstTurnaround = row.worst.value(at)
				groupRows.WorstTurnaround = max(groupRows.WorstTurnaround, row.WorstTurnaround)
				row.remember(r.Totals.Hosts <= maxHistories, h.Stats.Active, h.CheckTook)
			}
		}
		rows.take(c, f.At, refusedOver)
		rows.turnaround.take(c.turns, c.turnTime)
		rows.Turnaround, rows.WorstTurnaround = rows.turnaround.value, 0
		for j := range rows.groups {
			rows.WorstTurnaround = max(rows.WorstTurnaround, rows.groups[j].WorstTurnaround)
		}
		rows.remember(len(r.Services) <= maxHistories, svc.Stats.Active, 0)
		s.all.Rate += rows.Rate
		s.all.InRate += rows.InRate
		s.all.OutRate += rows.OutRate
		s.all.FailRate += rows.FailRate
		s.all.LastSecond += rows.LastSecond
	}
	s.all.MaxRate = max(s.all.MaxRate, s.all.LastSecond)
	s.load(f)
	s.at = f.At
	close(s.next())
	s.sampled = nil
}

// load works out how busy the process is.
func (s *sampler) load(f Facts) {
	s.busy = -1
	if seconds := f.At.Sub(s.at).Seconds(); !s.at.IsZero() && f.CPU > 0 && seconds > 0 {
		s.busy = (f.CPU - s.cpu) / seconds
	}
	s.cpu = f.CPU
}

// read sums and judges what runs, and adds what has been seen of it.
func (s *sampler) read(facts func() Facts) *Reading {
	s.mu.Lock()
	r := sum(facts())
	s.arrange(r.State, r.At)
	s.see(r)
	for i := range r.Services {
		svc := &r.Services[i]
		svc.Traffic = s.tree[i].Traffic
		for j := range svc.Groups {
			g := &svc.Groups[j]
			g.Traffic = s.tree[i].groups[j].Traffic
			for k := range g.Hosts {
				g.Hosts[k].Traffic = s.tree[i].groups[j].hosts[k].Traffic
			}
		}
	}
	r.All, r.Busy = s.all, -1
	if !s.at.IsZero() {
		r.Busy = s.busy
	}
	s.mu.Unlock()
	r.judge()
	return r
}

// arrange makes rows those of a state. It keeps the rows of what was there.
func (s *sampler) arrange(state *director.State, now time.Time) {
	if state == s.state {
		return
	}
	rows := make(map[Key]*row, len(s.rows))
	keep := func(key Key, ids *int) *row {
		r := s.rows[key]
		if r == nil {
			*ids++
			r = &row{Traffic: Traffic{ID: *ids, Up: true, Changed: now}}
		}
		rows[key] = r
		return r
	}
	s.tree = make([]serviceRows, len(state.Services))
	for i, svc := range state.Services {
		s.tree[i] = serviceRows{keep(Key{Service: svc.Config.Name}, &s.ids), make([]groupRows, len(svc.Groups))}
		for j, g := range svc.Groups {
			group := keep(Key{Service: svc.Config.Name, Group: g.Config.Name}, &s.ids)
			s.tree[i].groups[j] = groupRows{group, make([]*row, len(g.Hosts))}
			for k, h := range g.Hosts {
				key := Key{svc.Config.Name, g.Config.Name, h.Config.Name}
				host := keep(key, &group.hosts)
				if s.rows[key] == nil {
					host.FirstWeight = h.Config.Weight
				}
				s.tree[i].groups[j].hosts[k] = host
			}
		}
	}
	s.state, s.rows = state, rows
}

// see takes in what is to be seen at any moment, not only in samples.
func (s *sampler) see(r *Reading) {
	s.all.Max = max(s.all.Max, r.Sessions)
	for i := range r.Services {
		svc, rows := &r.Services[i], &s.tree[i]
		rows.Max = max(rows.Max, svc.Stats.Active)
		for j := range svc.Groups {
			g, groupRows := &svc.Groups[j], &rows.groups[j]
			groupRows.Max = max(groupRows.Max, g.Stats.Active)
			groupRows.turn(g.Serving > 0, r.At)
			for k := range g.Hosts {
				h, row := &g.Hosts[k], groupRows.hosts[k]
				row.Max = max(row.Max, h.Stats.Active)
				row.turn(h.turned())
			}
		}
	}
}

// turned tells whether the director knows of an address of the host that is up,
// and the last time that an address went up or down.
func (h *Host) turned() (up bool, at time.Time) {
	for _, t := range h.Targets {
		status := t.Status()
		up = up || status.Up
		if status.Since.After(at) {
			at = status.Since
		}
	}
	return up, at
}

// turn takes in whether it is up, and since when.
func (t *Traffic) turn(up bool, at time.Time) {
	if up == t.Up {
		return
	}
	if up {
		t.downFor += max(at.Sub(t.Changed), 0)
	} else {
		t.Downs++
	}
	t.Up, t.Changed = up, at
}

// queued takes in how many clients a sample has found waiting.
func (t *Traffic) queued(n int, at time.Time) {
	switch {
	case n == 0:
		t.WaitingSince = time.Time{}
	case t.WaitingSince.IsZero():
		t.WaitingSince = at
	}
}

// take takes in the counters of a sample, and keeps those of as many before it.
func (r *row) take(c counters, now time.Time, keep int) {
	if n := len(r.past); n > 0 {
		last := r.past[n-1]
		r.LastSecond = uint64(perSecond(last.total, c.total, last, c) + 0.5)
		r.MaxRate = max(r.MaxRate, r.LastSecond)
		if c.total > last.total {
			r.LastSession = now
		}
		if n > keep {
			copy(r.past, r.past[1:])
			r.past = r.past[:n-1]
		}
	} else if c.total > r.before {
		r.LastSession = now
	}
	if r.past == nil {
		r.past = make([]counters, 0, keep+1)
	}
	r.past = append(r.past, c)
	old := r.past[max(0, len(r.past)-1-rateOver)]
	r.Rate, r.FailRate = perSecond(old.total, c.total, old, c), perSecond(old.failed, c.failed, old, c)
	r.InRate, r.OutRate = perSecond(old.in, c.in, old, c), perSecond(old.out, c.out, old, c)
	r.ConnectTime, r.TurnTime, r.RefusedNow = 0, 0, 0
	// Fewer than before are those of another one, which was deleted and added.
	if c.connects > old.connects && c.connectTime >= old.connectTime {
		r.ConnectTime = (c.connectTime - old.connectTime) / time.Duration(c.connects-old.connects)
	}
	if c.turns > old.turns && c.turnTime >= old.turnTime {
		r.TurnTime = (c.turnTime - old.turnTime) / time.Duration(c.turns-old.turns)
	}
	if was := r.past[0].rejected; was < c.rejected {
		r.RefusedNow = c.rejected - was
	}
}

// perSecond is by how much a counter has grown, a second, to the hundredth. One
// that has fallen is that of another one, which was deleted and added, or a sum
// that has lost a host: it tells nothing.
func perSecond(was, is uint64, from, to counters) float64 {
	seconds := (to.at - from.at).Seconds()
	if is < was || seconds <= 0 {
		return 0
	}
	return math.Round(float64(is-was)/seconds*100) / 100
}

// mean is the mean of the last times of a kind, of about meanOf of them.
type mean struct {
	n     uint64        // counted in all at the last look
	sum   time.Duration // of them
	value time.Duration
}

// meanOf is over how many HAProxy takes its means (TIME_STATS_SAMPLES).
const meanOf = 1024

// of takes in what a histogram has counted since the last look.
func (m *mean) of(h sched.Histogram) { m.take(h.Count(), h.Sum) }

// take takes in what was counted since the last look: n times in all, and their sum. Fewer
// than before, or a lower sum, are those of another one, which was deleted and added.
func (m *mean) take(n uint64, sum time.Duration) {
	if n < m.n || sum < m.sum {
		*m = mean{}
	}
	if n == m.n {
		return
	}
	last := (sum - m.sum) / time.Duration(n-m.n)
	weight := min(float64(n-m.n)/float64(min(n, meanOf)), 1)
	m.value += time.Duration(float64(last-m.value) * weight)
	m.n, m.sum = n, sum
}

// worst keeps the longest time of the last minute, to five seconds.
type worst struct {
	slots [12]time.Duration
	last  int64 // slot that was written last, counted from the first sample
}

const worstSlot = 5 * time.Second

// take takes in a time at so long after the first sample.
func (w *worst) take(d time.Duration, at time.Duration) {
	w.turn(at)
	slot := &w.slots[w.last%int64(len(w.slots))]
	*slot = max(*slot, d)
}

func (w *worst) value(at time.Duration) time.Duration {
	w.turn(at)
	return slices.Max(w.slots[:])
}

// turn forgets what is older than a minute.
func (w *worst) turn(at time.Duration) {
	now := int64(at / worstSlot)
	if now-w.last >= int64(len(w.slots)) {
		w.slots, w.last = [len(w.slots)]time.Duration{}, now
	}
	for w.last < now {
		w.last++
		w.slots[w.last%int64(len(w.slots))] = 0
	}
}
