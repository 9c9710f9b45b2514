package page

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
)

// maxSent is how many hosts one event has; resend is how many events there may
// be between two that have the same host, and resendAge if only the time of its
// last check is another.
const maxSent, resend, resendAge = 400, 15, 4

// Feed makes the events that live pages get once a second. It is for one
// goroutine.
type Feed struct {
	of     *director.State // that hosts was made of
	hosts  []string        // the IDs of all hosts, in their order
	sent   map[string]sent
	cursor int // of the next host to be sent
	count  int // events so far
}

// sent is what an event last had of a host.
type sent struct {
	HostFigures
	event int // by count
}

// Full returns the figures with all hosts: what a page that has just connected
// needs.
func (f *Feed) Full(src *Source) *Figures {
	f.arrange(src.State)
	r := src.Reading
	one := &Figures{
		Time: r.At.UnixMilli(), Boot: src.Boot, Version: r.Version, Generation: r.State.Generation, Revision: revision(src),
		Sessions: r.Sessions, Rate: r.All.Rate, InRate: r.All.InRate, OutRate: r.All.OutRate,
		Services: make(map[string]ServiceFigures, len(r.Services)), Hosts: make(map[string]HostFigures, len(f.hosts)),
	}
	n := 0
	for i := range r.Services {
		s := &r.Services[i]
		one.Services[serviceID(s.Config.Name)] = serviceFigures(s)
		for j := range s.Groups {
			for k := range s.Groups[j].Hosts {
				one.Hosts[f.hosts[n]] = hostFigures(&s.Groups[j].Hosts[k])
				n++
			}
		}
	}
	return one
}

// Next returns the figures for those who have had the last ones: of hosts those
// that have changed, first the ones whose turn is longest ago.
func (f *Feed) Next(src *Source) *Figures {
	one := f.Full(src)
	f.count++
	chosen := map[string]HostFigures{}
	for range f.hosts {
		if f.cursor >= len(f.hosts) {
			f.cursor = 0
		}
		id := f.hosts[f.cursor]
		f.cursor++
		was, known := f.sent[id]
		is := one.Hosts[id]
		if age := f.count - was.event; known && age < resend && same(was.HostFigures, is) && (age < resendAge || is.Checked == was.Checked) {
			continue
		}
		f.sent[id], chosen[id] = sent{is, f.count}, is
		if len(chosen) == maxSent {
			break
		}
	}
	one.Hosts = chosen
	return one
}

// arrange makes hosts those of a state.
func (f *Feed) arrange(state *director.State) {
	if f.of == state {
		return
	}
	f.of, f.hosts = state, nil
	kept := map[string]sent{}
	for _, s := range state.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				id := hostID(s.Config.Name, g.Config.Name, h.Config.Name)
				f.hosts = append(f.hosts, id)
				if was, known := f.sent[id]; known {
					kept[id] = was
				}
			}
		}
	}
	f.sent = kept
}

func serviceFigures(s *status.Service) ServiceFigures {
	t := &s.Traffic
	f := ServiceFigures{
		Sessions: s.Stats.Active, Total: s.Stats.Sessions, Rate: t.Rate, In: s.Stats.In, Out: s.Stats.Out, InRate: t.InRate, OutRate: t.OutRate,
		Refused: s.Refused, RefusedNow: t.RefusedNow, Failures: s.Failures, FailRate: t.FailRate, ConnectMS: milliseconds(t.ConnectTime),
		TurnaroundMS: milliseconds(t.TurnTime),
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		for _, m := range g.Mirrors {
			if f.Mirrors == nil {
				f.Mirrors = map[string]MirrorFigures{}
			}
			f.Mirrors[mirrorID(s.Config.Name, g.Config.Name, m.Config.Address)] = mirrorFigures(m)
		}
		if !g.Queues() {
			continue
		}
		if f.Queues == nil {
			f.Queues = map[string]QueueFigures{}
		}
		f.Queues[groupID(s.Config.Name, g.Config.Name)] = queueFigures(g)
	}
	return f
}

func mirrorFigures(m *director.Mirror) MirrorFigures {
	s := m.Stats()
	return MirrorFigures{s.Active, s.Sessions, s.Bytes, s.LostAll()}
}

func queueFigures(g *status.Group) QueueFigures {
	return QueueFigures{g.Waiting, g.MostWaiting, milliseconds(g.Traffic.MeanWait)}
}

func hostFigures(h *status.Host) HostFigures {
	t := &h.Traffic
	f := HostFigures{
		Sessions: h.Stats.Active, Total: h.Stats.Picks, Rate: t.Rate, Failures: h.Stats.Failures, In: h.Stats.In, Out: h.Stats.Out,
		InRate: t.InRate, OutRate: t.OutRate, ConnectMS: milliseconds(t.ConnectTime), CheckMS: milliseconds(h.CheckTook),
		TurnaroundMS: milliseconds(t.TurnTime),
	}
	if !h.Checked.IsZero() {
		f.Checked = h.Checked.UnixMilli()
	}
	if h.Elsewhere != nil {
		f.Elsewhere = elsewhere(h.Elsewhere)
	}
	return f
}

// milliseconds is a time to the hundredth; nil: nothing was measured.
func milliseconds(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	ms := math.Round(d.Seconds()*1e5) / 100
	return &ms
}

// same tells whether figures look alike, but for the time of the last check.
func same(a, b HostFigures) bool {
	differ := func(a, b *float64) bool { return (a == nil) != (b == nil) || a != nil && *a != *b }
	if differ(a.CheckMS, b.CheckMS) || differ(a.ConnectMS, b.ConnectMS) || differ(a.TurnaroundMS, b.TurnaroundMS) {
		return false
	}
	a.CheckMS, b.CheckMS, a.ConnectMS, b.ConnectMS, a.TurnaroundMS, b.TurnaroundMS = nil, nil, nil, nil, nil, nil
	a.Checked, b.Checked = 0, 0
	return a == b
}

// NewHistory returns the past of what has these IDs: services and hosts. What has
// no history is left out.
func NewHistory(from *status.Source, state *director.State, ids []string) History {
	asked := map[string]bool{}
	for _, id := range ids {
		asked[id] = true
	}
	named := map[string]status.Key{}
	add := func(id string, key status.Key) {
		if asked[id] {
			named[id] = key
		}
	}
	for _, s := range state.Services {
		add(serviceID(s.Config.Name), status.Key{Service: s.Config.Name})
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				add(hostID(s.Config.Name, g.Config.Name, h.Config.Name), status.Key{Service: s.Config.Name, Group: g.Config.Name, Host: h.Config.Name})
			}
		}
	}
	past := from.History(slices.Collect(maps.Values(named))...)
	h := History{Time: past.Time.UnixMilli(), Step: int(past.Step.Milliseconds()), Series: map[string]Series{}}
	for id, key := range named {
		s, known := past.Series[key]
		if !known {
			continue
		}
		one := Series{Rate: s.Rate, Sessions: s.Sessions, InRate: s.InRate, OutRate: s.OutRate, ConnectMS: measured(s.Connect), TurnaroundMS: measured(s.Turnaround)}
		if key.Host != "" {
			one.CheckMS = measured(s.Check)
		}
		h.Series[id] = one
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
func serviceID(service string) string                { return id('s', service) }
func groupID(service, group string) string           { return id('g', service, group) }
func hostID(service, group, host string) string      { return id('h', service, group, host) }
func mirrorID(service, group, address string) string { return id('m', service, group, address) }

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
