package txlb

import (
	"maps"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
)

// ServiceStats is what a service has counted, and how it is. Counters begin with the service.
type ServiceStats struct {
	Sessions int64  // open now, connections of DialContext among them
	Total    uint64 // clients ever accepted
	BytesIn  uint64 // from clients
	BytesOut uint64 // to clients
	Waiting  int    // clients that wait now because all hosts are full
	Usable   bool   // its clients find a host that is up
	// Rejected counts clients that got no host, by reason, and ConnectFailures connects to
	// hosts that failed. The reasons are those of docs/logs.md.
	Rejected        map[string]uint64
	ConnectFailures map[string]uint64
}

// HostStats is a host with what it has counted, and how it is.
type HostStats struct {
	Host             // as it is configured now
	Group  string    // its group
	Up     bool      // it is up, or one of the servers that its name stands for
	Reason string    // why it, or a part of it, is not up, or its name does not resolve
	Since  time.Time // when Up became what it is
	// Sessions are open now, and Total were ever begun, tries included.
	Sessions        int64
	Total           uint64
	BytesIn         uint64 // from clients
	BytesOut        uint64 // to clients
	ConnectFailures uint64
}

// Stats returns what the service has counted. It reads counters of all services and hosts
// (about 1 ms for 1,000 hosts), and waits for nothing.
func (s *LiveService) Stats() (ServiceStats, error) {
	one, err := s.read()
	if err != nil {
		return ServiceStats{}, err
	}
	stats := ServiceStats{
		Sessions: one.Stats.Active, Total: one.Stats.Sessions, BytesIn: one.Stats.In, BytesOut: one.Stats.Out,
		Usable: one.Usable(), Rejected: maps.Clone(one.Stats.Refused), ConnectFailures: maps.Clone(one.Stats.ConnectFailures),
	}
	for i := range one.Groups {
		stats.Waiting += one.Groups[i].Waiting
	}
	return stats, nil
}

// Hosts returns the hosts of all groups of the service, in the order of the configuration. It
// costs what Stats does.
func (s *LiveService) Hosts() ([]HostStats, error) {
	one, err := s.read()
	if err != nil {
		return nil, err
	}
	var all []HostStats
	for i := range one.Groups {
		g := &one.Groups[i]
		for j := range g.Hosts {
			h := &g.Hosts[j]
			all = append(all, HostStats{
				Host: hostOf(h.Config), Group: g.Config.Name, Up: h.Up(), Reason: h.Reason, Since: h.Since,
				Sessions: h.Stats.Active, Total: h.Stats.Picks, BytesIn: h.Stats.In, BytesOut: h.Stats.Out, ConnectFailures: h.Stats.Failures,
			})
		}
	}
	return all, nil
}

// MirrorStats is a mirror with what it has counted, and how it is.
type MirrorStats struct {
	Mirror          // as it is configured now
	Group    string // its group
	Up       bool   // it can be reached, as far as the last connect has shown
	Reason   string // why not, or what is wrong with its name
	Copies   int64  // sessions that are copied now
	Sessions uint64 // that were to be copied
	Bytes    uint64 // that it has taken
	// Lost counts the sessions whose copy is not whole, by reason; all reasons are there.
	Lost map[string]uint64
}

// Mirrors returns the mirrors of all groups of the service, in the order of the configuration.
// It costs what Stats does.
func (s *LiveService) Mirrors() ([]MirrorStats, error) {
	one, err := s.read()
	if err != nil {
		return nil, err
	}
	var all []MirrorStats
	for i := range one.Groups {
		g := &one.Groups[i]
		for _, m := range g.Mirrors {
			stats := m.Stats()
			is := MirrorStats{
				Group: g.Config.Name, Up: m.Addr() != "", Reason: m.Problem,
				Copies: stats.Active, Sessions: stats.Sessions, Bytes: stats.Bytes, Lost: stats.Lost,
			}
			get("mirror", m.Config, &is.Mirror)
			if t := m.Trouble(); t != nil {
				is.Up, is.Reason = false, t.Reason
			}
			all = append(all, is)
		}
	}
	return all, nil
}

// read reads the service.
func (s *LiveService) read() (*status.Service, error) {
	r := status.Read(s.balancer.source.Facts())
	one, _, _ := r.Find(s.name, "", "")
	if one == nil {
		_, err := edits.Service(r.State.Config, s.name)
		return nil, explain("", err)
	}
	return one, nil
}

// EndSessions closes all sessions and connections of the service, and returns how many those
// were. Clients may come again at once.
func (s *LiveService) EndSessions() (int, error) {
	if _, err := edits.Service(s.balancer.director.State().Config, s.name); err != nil {
		return 0, explain("EndSessions", err)
	}
	return s.balancer.engine.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Service == s.name }), nil
}

// Retry marks a host of the enabled group up, as a check that passes does.
func (s *LiveService) Retry(host string) error { return s.Group("").Retry(host) }

// Retry marks a host up, as a check that passes does. It goes down again if it is.
func (g *LiveGroup) Retry(host string) error {
	s := g.service
	if s.balancer.ctx.Err() != nil {
		return ErrClosed
	}
	state := s.balancer.director.State()
	m, err := edits.Service(state.Config, s.name)
	if err != nil {
		return explain("Retry", err)
	}
	group := g.name
	if on := m.Enabled(); group == "" && on != nil {
		group = on.Name
	}
	in, err := edits.Group(m, group)
	if err != nil {
		return explain("Retry", err)
	}
	h, err := edits.HostOrAddress(in, host)
	if err != nil {
		return explain("Retry", err)
	}
	b := s.balancer
	_, err = b.director.Retry(b.ctx, s.name, group, h.Name)
	return explain("Retry", b.ended(err))
}
