package page

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/director"
)

const (
	// historyLength is how many samples are kept: ten minutes.
	historyLength = 600
	historyStep   = time.Second
	// maxHostHistory is how many hosts there may be for each to have a past;
	// where there are more, a chart of a host begins when it is opened.
	maxHostHistory = 256
	// rateOver is how many samples a rate is taken over, and refusedOver how many
	// RefusedNow is.
	rateOver, refusedOver = 3, 10
	// maxSent is how many hosts one event has; resend is how many events there may
	// be between two that have the same host, and resendAge if only the time of its
	// last probe is another.
	maxSent, resend, resendAge = 400, 15, 4
)

// Meter takes the figures once a second, and when the configuration changes if
// that is to be seen sooner, and keeps those of the last ten
// minutes. Sample is for one goroutine; everything else may be called from
// any, and waits for no sample longer than it takes to copy a pointer or the
// series asked for.
type Meter struct {
	boot string

	// What Sample alone uses.
	hosts    map[string]*hostMeter
	services map[string]*serviceMeter
	of       *director.State // that order was made of
	order    []hostRef
	cursor   int // of the next host to be sent
	count    int // samples so far

	mu         sync.Mutex
	last       *Figures
	past       map[string]*ring
	remembered int64 // the Figures.Time of the last that went there
}

// hostRef is a host with its ID and its parents.
type hostRef struct {
	id      string
	service *director.Service
	group   *director.Group
	host    *director.Host
}

// counters are what rates are made of.
type counters struct {
	at                  time.Time
	total, in, out, bad uint64
	connects            uint64
	connectTime         time.Duration // that they took
}

// connectMS is what connects took on average between two counts; nil: there was
// none, or the host was deleted and added between them.
func connectMS(was, is counters) *float64 {
	if is.connects <= was.connects || is.connectTime < was.connectTime {
		return nil
	}
	return milliseconds((is.connectTime - was.connectTime) / time.Duration(is.connects-was.connects))
}

// window holds the last counters, the newest at the end.
type window struct {
	list [refusedOver + 1]counters
	n    int
}

func (w *window) push(c counters) {
	if w.n == len(w.list) {
		copy(w.list[:], w.list[1:])
		w.n--
	}
	w.list[w.n] = c
	w.n++
}

// back returns what was pushed some pushes ago, or the oldest there is.
func (w *window) back(pushes int) counters { return w.list[max(0, w.n-1-pushes)] }

// hostMeter is what is known of a host beside its figures. It remembers no more
// counters than the rates need, as there may be many.
type hostMeter struct {
	list  [rateOver + 1]counters
	n     int
	sent  HostFigures
	event int // when it was last sent, by count
	seen  int // when it was last there, by count
}

type serviceMeter struct {
	window
	failures window
	seen     int
}

// NewMeter returns a Meter that has measured nothing. boot tells this process
// from every other.
func NewMeter(boot string) *Meter {
	return &Meter{
		boot: boot, hosts: map[string]*hostMeter{}, services: map[string]*serviceMeter{}, past: map[string]*ring{},
	}
}

// Boot returns what tells this process from every other.
func (m *Meter) Boot() string { return m.boot }

// Sample takes the figures, which are to be sent to all live pages. src needs
// State, Snapshot and what else of it a page shows; its Boot and Figures are
// set here.
func (m *Meter) Sample(src Source) Figures {
	if src.At.IsZero() {
		src.At = time.Now()
	}
	m.count++
	if m.of != src.State {
		m.of, m.order = src.State, hostRefs(src.State)
	}
	f := &Figures{
		Time: src.At.UnixMilli(), Boot: m.boot, Version: src.Version, Generation: src.State.Generation,
		Services: map[string]ServiceFigures{}, Hosts: map[string]HostFigures{},
		all: make(map[string]HostFigures, len(m.order)),
	}
	m.sampleHosts(src, f)
	for _, s := range src.State.Services {
		m.sampleService(src, f, s)
	}
	maps.DeleteFunc(m.services, func(_ string, s *serviceMeter) bool { return s.seen != m.count })
	maps.DeleteFunc(m.hosts, func(_ string, h *hostMeter) bool { return h.seen != m.count })
	m.choose(f)
	src.Boot, src.Figures = m.boot, f
	f.Revision = revision(&src)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = f
	m.remember(f)
	return *f
}

func (m *Meter) sampleHosts(src Source, f *Figures) {
	for _, r := range m.order {
		h := m.hosts[r.id]
		if h == nil {
			h = &hostMeter{event: -resend}
			m.hosts[r.id] = h
		}
		h.seen = m.count
		figures := hostFigures(r.host)
		h.rates(src.At, &figures)
		f.all[r.id] = figures
	}
}

// rates works the rates out and takes the counters in.
func (h *hostMeter) rates(now time.Time, f *HostFigures) {
	if h.n == len(h.list) {
		copy(h.list[:], h.list[1:])
		h.n--
	}
	c := counters{now, f.Total, f.In, f.Out, f.Failures, f.connects, f.connectTime}
	h.list[h.n] = c
	h.n++
	old := h.list[0]
	f.Rate, f.InRate, f.OutRate = rate(old.total, c.total, old, c), rate(old.in, c.in, old, c), rate(old.out, c.out, old, c)
	f.ConnectMS = connectMS(old, c)
}

// rate is by how much a counter has grown, a second. One that has fallen is that
// of another host, which was deleted and added: it tells nothing.
func rate(was, is uint64, from, to counters) float64 {
	seconds := to.at.Sub(from.at).Seconds()
	if is < was || seconds <= 0 {
		return 0
	}
	return math.Round(float64(is-was)/seconds*100) / 100
}

// hostFigures returns what a host has counted, and how its last probes went.
func hostFigures(h *director.Host) HostFigures {
	c := h.Stats()
	f := HostFigures{
		Sessions: c.Active, Total: c.Picks, Failures: c.Failures, In: c.In, Out: c.Out,
		connects: c.Connects, connectTime: c.ConnectTime,
	}
	passed, took := 0, time.Duration(0)
	for _, t := range h.Targets {
		if s := t.Status(); !s.Checked.IsZero() {
			f.Checked = max(f.Checked, s.Checked.UnixMilli())
			if s.Check.OK() {
				passed, took = passed+1, took+s.Check.Took
			}
		}
	}
	if passed > 0 {
		f.CheckMS = milliseconds(took / time.Duration(passed))
	}
	return f
}

func milliseconds(d time.Duration) *float64 {
	ms := math.Round(d.Seconds()*1e5) / 100
	return &ms
}

func (m *Meter) sampleService(src Source, f *Figures, s *director.Service) {
	id := serviceID(s.Config.Name)
	w := m.services[id]
	if w == nil {
		w = &serviceMeter{}
		m.services[id] = w
	}
	w.seen = m.count
	stats := src.Snapshot.Services[s.Config.Name]
	one := ServiceFigures{Sessions: stats.Active, Total: stats.Sessions, In: stats.In, Out: stats.Out}
	for _, n := range stats.Refused {
		one.Refused += n
	}
	for _, n := range stats.ConnectFailures {
		one.Failures += n
	}
	c := counters{at: src.At, total: one.Total, in: one.In, out: one.Out, bad: one.Refused}
	for _, g := range s.Groups {
		h := g.Times.Connects()
		c.connects += h.Count()
		c.connectTime += h.Sum
	}
	w.push(c)
	w.failures.push(counters{at: src.At, bad: one.Failures})
	old := w.back(rateOver)
	one.Rate, one.InRate, one.OutRate = rate(old.total, c.total, old, c), rate(old.in, c.in, old, c), rate(old.out, c.out, old, c)
	one.FailRate = rate(w.failures.back(rateOver).bad, one.Failures, old, c)
	if was := w.back(refusedOver).bad; was < c.bad {
		one.RefusedNow = c.bad - was
	}
	one.ConnectMS = connectMS(old, c)
	f.Services[id] = one
	f.Sessions += one.Sessions
}

// choose picks the hosts that an event has, those first whose turn is longest
// ago.
func (m *Meter) choose(f *Figures) {
	for range m.order {
		if m.cursor >= len(m.order) {
			m.cursor = 0
		}
		r := m.order[m.cursor]
		m.cursor++
		h, is := m.hosts[r.id], f.all[r.id]
		if age := m.count - h.event; age < resend && same(h.sent, is) && (age < resendAge || is.Checked == h.sent.Checked) {
			continue
		}
		h.sent, h.event = is, m.count
		f.Hosts[r.id] = is
		if len(f.Hosts) == maxSent {
			return
		}
	}
}

// same tells whether figures look alike, but for the time of the last probe.
func same(a, b HostFigures) bool {
	differ := func(a, b *float64) bool { return (a == nil) != (b == nil) || a != nil && *a != *b }
	if differ(a.CheckMS, b.CheckMS) || differ(a.ConnectMS, b.ConnectMS) {
		return false
	}
	a.CheckMS, b.CheckMS, a.ConnectMS, b.ConnectMS, a.Checked, b.Checked = nil, nil, nil, nil, 0, 0
	return a == b
}

// Figures returns the last figures, with all hosts in Hosts if full is set: what
// a page that has just connected needs. It is nil before the first Sample.
func (m *Meter) Figures(full bool) *Figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || !full {
		return m.last
	}
	f := *m.last
	f.Hosts = f.all
	return &f
}

// ring is the past of one service or host.
type ring struct {
	rate, sessions, in, out []float32
	connect, check          []float32 // ms; NaN: nothing was measured
	last                    int64     // the Figures.Time of the newest
}

func (r *ring) add(v *[6]float32, at int64) {
	for i, list := range []*[]float32{&r.rate, &r.sessions, &r.in, &r.out, &r.connect, &r.check} {
		if len(*list) == 2*historyLength { // moved seldom, all at once
			copy(*list, (*list)[historyLength:])
			*list = (*list)[:historyLength]
		}
		*list = append(*list, v[i])
	}
	r.last = at
}

// remember adds the figures to the past, unless they are some beside those of
// every second. m.mu is held.
func (m *Meter) remember(f *Figures) {
	if f.Time-m.remembered < historyStep.Milliseconds()*9/10 {
		return
	}
	m.remembered = f.Time
	put := func(id string, rate float64, sessions int64, in, out float64, connect, check *float64) {
		r := m.past[id]
		if r == nil {
			r = &ring{}
			m.past[id] = r
		}
		v := [6]float32{float32(rate), float32(sessions), float32(in), float32(out)}
		for i, took := range []*float64{connect, check} {
			if v[4+i] = float32(math.NaN()); took != nil {
				v[4+i] = float32(*took)
			}
		}
		r.add(&v, f.Time)
	}
	for id, s := range f.Services {
		put(id, s.Rate, s.Sessions, s.InRate, s.OutRate, s.ConnectMS, nil)
	}
	if len(f.all) <= maxHostHistory {
		for id, h := range f.all {
			put(id, h.Rate, h.Sessions, h.InRate, h.OutRate, h.ConnectMS, h.CheckMS)
		}
	}
	maps.DeleteFunc(m.past, func(_ string, r *ring) bool { return r.last != f.Time })
}

// History returns the past of what has these IDs: services and, where there
// are at most 256, hosts. What is not known is left out.
func (m *Meter) History(ids ...string) History {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := History{Step: int(historyStep.Milliseconds()), Series: map[string]Series{}}
	h.Time = m.remembered
	tail := func(list []float32) []float32 {
		return append([]float32{}, list[max(0, len(list)-historyLength):]...)
	}
	for _, id := range ids {
		r := m.past[id]
		if r == nil {
			continue
		}
		s := Series{
			Rate: tail(r.rate), Sessions: tail(r.sessions), InRate: tail(r.in), OutRate: tail(r.out),
			ConnectMS: measured(tail(r.connect)),
		}
		if id[0] == 'h' {
			s.CheckMS = measured(tail(r.check))
		}
		h.Series[id] = s
	}
	return h
}

// measured makes null of what was not measured.
func measured(list []float32) []*float32 {
	values := make([]*float32, len(list))
	for i, v := range list {
		if v == v { // not NaN
			values[i] = &v
		}
	}
	return values
}

// The IDs of what is on a page: letters and digits whatever the names are, the
// same in every process, and as good as certain to differ.
func serviceID(service string) string           { return id('s', service) }
func groupID(service, group string) string      { return id('g', service, group) }
func hostID(service, group, host string) string { return id('h', service, group, host) }

func id(kind byte, names ...string) string {
	var room [256]byte
	b := room[:0]
	for _, n := range names {
		b = append(b, n...)
		b = append(b, 0)
	}
	sum := sha256.Sum256(b)
	var text [19]byte
	text[0] = kind
	hex.Encode(text[1:], sum[:9])
	return string(text[:])
}

// hostRefs lists the hosts of a state in its order.
func hostRefs(state *director.State) (list []hostRef) {
	for _, s := range state.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				list = append(list, hostRef{hostID(s.Config.Name, g.Config.Name, h.Config.Name), s, g, h})
			}
		}
	}
	return list
}
