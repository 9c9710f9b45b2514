package director

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// Mirror is a mirror of a group. It keeps its counters for as long as its address stays
// configured there.
type Mirror struct {
	Config *config.Mirror
	// Problem is what is wrong with the name in its address, "" if nothing is.
	Problem string

	mirror *sched.Mirror
	name   string                             // the DNS name in the address, "" without
	elder  *atomic.Pointer[sched.MirrorStats] // what it has counted in an earlier process; nil: there was none
	told   *mirrorTold
}

// mirrorTold is what the log knows of a mirror. It belongs to the director's goroutine.
type mirrorTold struct {
	down bool
	at   time.Time // of the last line about that
	lost map[string]uint64
	when time.Time // of the last line about lost copies
}

const (
	// tellMirrorEvery is the least time between two lines of the log about a mirror that goes
	// down and comes up, and tellLostEvery between two about copies that were lost.
	tellMirrorEvery = 10 * time.Second
	tellLostEvery   = time.Minute
)

// Addr returns where copies go; "": its name has not resolved yet.
func (m *Mirror) Addr() string { return m.mirror.Addr().String() }

// Trouble returns why no copies go there just now; nil: they do, as far as is known.
func (m *Mirror) Trouble() *sched.MirrorTrouble { return m.mirror.Trouble() }

// Stats returns the counters of the mirror. None falls while it is configured.
func (m *Mirror) Stats() sched.MirrorStats {
	s := m.mirror.Stats()
	if m.elder != nil {
		if e := m.elder.Load(); e != nil {
			s.Add(*e)
		}
	}
	return s
}

// mirrors returns the mirrors of a group: those that it had, and new ones. was is the group
// before, nil without one.
func (d *Director) mirrors(service string, was *Group, g *config.Group) []*Mirror {
	if len(g.Mirrors) == 0 {
		return nil
	}
	list := make([]*Mirror, len(g.Mirrors))
	for i := range g.Mirrors {
		c := &g.Mirrors[i]
		m := was.mirror(c.Address)
		if m == nil {
			m = &Mirror{mirror: sched.NewMirror(c.Address), told: new(mirrorTold)}
			d.heirlooms.inheritMirror(groupKey{service, g.Name}, m, c.Address)
		}
		one := *m
		one.Config = c
		d.resolveMirror(&one)
		list[i] = &one
	}
	return list
}

// mirror returns the mirror with an address, nil if there is none.
func (g *Group) mirror(address string) *Mirror {
	if g != nil {
		for _, m := range g.Mirrors {
			if m.Config.Address == address {
				return m
			}
		}
	}
	return nil
}

// resolveMirror finds where a mirror is. Of several addresses of a name it is the first.
func (d *Director) resolveMirror(m *Mirror) {
	m.name, m.Problem = "", ""
	dns, port, addr, err := hostName(m.Config.Address)
	switch {
	case err != nil:
		m.Problem = err.Error()
		return
	case dns == "":
		m.mirror.SetAddr(addr)
		return
	}
	m.name = dns
	n := d.names[dns]
	if n.err != nil {
		m.Problem = n.err.Error()
	} else if len(n.ends) == 0 {
		m.Problem = fmt.Sprintf("%s: %v", dns, errNotYet)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		m.Problem = fmt.Sprintf("address %q: port %q is not a number", m.Config.Address, port)
	} else if len(n.ends) > 0 {
		m.mirror.SetAddr(sched.TCPAddr(netip.AddrPortFrom(n.ends[0].ip, uint16(number))))
	}
}

// mirrorShares is what a table of the group has to know.
func (g *Group) mirrorShares() (list []sched.MirrorShare) {
	for _, m := range g.Mirrors {
		if m.Config.Percent > 0 {
			list = append(list, sched.MirrorShare{Mirror: m.mirror, Percent: m.Config.Percent, ProxyProtocol: proxyVersions[m.Config.ProxyProtocol]})
		}
	}
	return list
}

// tellMirrors logs which mirrors have gone down and come back, and how many copies were lost.
func (d *Director) tellMirrors(now time.Time) {
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			for _, m := range g.Mirrors {
				d.tellMirror(s.Config.Name, g.Config.Name, m, now)
			}
		}
	}
}

func (d *Director) tellMirror(service, group string, m *Mirror, now time.Time) {
	t, trouble := m.told, m.Trouble()
	note := func(verb, text string) {
		d.events.note(Event{Kind: HealthEvent, Generation: d.State().Generation, Verb: verb,
			Text: fmt.Sprintf("%s %s mirror %s%s", service, group, m.Config.Address, text)})
	}
	if down := trouble != nil; down != t.down && now.Sub(t.at) >= tellMirrorEvery {
		t.down, t.at = down, now
		if down {
			d.log.Warn("mirror down", "service", service, "group", group, "mirror", m.Config.Address, "reason", trouble.Reason)
			note("mirror down", ": "+trouble.Reason)
		} else {
			d.log.Info("mirror up", "service", service, "group", group, "mirror", m.Config.Address)
			note("mirror up", "")
		}
	}
	if now.Sub(t.when) < tellLostEvery {
		return
	}
	lost := m.mirror.Stats().Lost
	var why []string
	all := uint64(0)
	for _, reason := range slices.Sorted(maps.Keys(lost)) {
		if n := lost[reason] - t.lost[reason]; n > 0 {
			all += n
			why = append(why, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if all > 0 {
		t.lost, t.when = lost, now
		reasons := strings.Join(why, ", ")
		d.log.Warn("copies for a mirror lost", "service", service, "group", group, "mirror", m.Config.Address, "copies", all, "reasons", reasons)
		note("mirror lost copies", fmt.Sprintf(": %d (%s)", all, reasons))
	}
}

// exportedMirror is what a mirror has counted.
type exportedMirror struct {
	Address string            `json:"address"`
	Stats   sched.MirrorStats `json:"stats"`
}

// exportMirrors returns the counters of the group's mirrors.
func (g *Group) exportMirrors() (list []exportedMirror) {
	for _, m := range g.Mirrors {
		list = append(list, exportedMirror{m.Config.Address, m.Stats()})
	}
	return list
}

// past returns what a mirror has counted that no longer runs there.
func (e *exportedMirror) past() *sched.MirrorStats {
	s := e.Stats
	s.Active = 0
	return &s
}

// inheritMirror gives a new mirror what its likeness has counted.
func (l *heirlooms) inheritMirror(in groupKey, m *Mirror, address string) {
	if l == nil || l.groups[in] == nil {
		return
	}
	for i := range l.groups[in].Mirrors {
		if e := &l.groups[in].Mirrors[i]; e.Address == address {
			m.elder = new(atomic.Pointer[sched.MirrorStats])
			m.elder.Store(e.past())
		}
	}
}

// takeInMirrors takes in newer words of the other process.
func (e *exportedGroup) takeInMirrors(g *Group) {
	for i := range e.Mirrors {
		if m := g.mirror(e.Mirrors[i].Address); m != nil && m.elder != nil {
			m.elder.Store(e.Mirrors[i].past())
		}
	}
}
