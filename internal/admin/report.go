package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
)

// Status is the Data of status.
type Status struct {
	Version    string    `json:"version,omitempty"`
	Started    time.Time `json:"started"`
	Generation uint64    `json:"generation"`
	Services   int       `json:"services"`
	Hosts      int       `json:"hosts"`
	Sessions   int64     `json:"sessions"`
	Problems   []string  `json:"problems,omitempty"` // what is wrong now
}

// ServiceInfo is one service in the Data of show services.
type ServiceInfo struct {
	Name          string   `json:"name"`
	Listen        []string `json:"listen"` // as bound, with the port that a 0 became
	Group         string   `json:"group"`  // the enabled one, "" if there is none
	Scheduler     string   `json:"scheduler"`
	HostsUp       int      `json:"hosts_up"` // of the enabled group
	Hosts         int      `json:"hosts"`
	Sessions      int64    `json:"sessions"`
	SessionsTotal uint64   `json:"sessions_total"`
	In            uint64   `json:"bytes_in"`
	Out           uint64   `json:"bytes_out"`
	Refused       uint64   `json:"sessions_refused"`
}

// HostInfo is one host in the Data of show hosts. Its counters are those of
// all its addresses.
type HostInfo struct {
	Service       string       `json:"service"`
	Group         string       `json:"group"`
	Enabled       bool         `json:"enabled"` // the group takes the clients
	Name          string       `json:"name"`
	Address       string       `json:"address"` // as configured
	State         string       `json:"state"`
	Weight        int          `json:"weight"`
	Backup        bool         `json:"backup"`
	Up            bool         `json:"up"` // one of its addresses is
	Reason        string       `json:"reason,omitempty"`
	Problem       string       `json:"problem,omitempty"` // with its name, though it may be up
	Sessions      int64        `json:"sessions"`
	SessionsTotal uint64       `json:"sessions_total"`
	Failures      uint64       `json:"connect_failures"`
	EarlyResets   uint64       `json:"early_resets"` // sessions that it reset before the first byte of an answer
	In            uint64       `json:"bytes_in"`
	Out           uint64       `json:"bytes_out"`
	Targets       []TargetInfo `json:"targets"`
}

// TargetInfo is one address of a host.
type TargetInfo struct {
	Address  string    `json:"address"`
	Up       bool      `json:"up"`
	Reason   string    `json:"reason,omitempty"` // of the last change, and of the last probe while down
	Since    time.Time `json:"since"`
	Sessions int64     `json:"sessions"`
	Leaving  bool      `json:"leaving,omitempty"` // the host no longer has the address: no new sessions
}

// ConfigInfo is the Data of show config.
type ConfigInfo struct {
	Generation uint64 `json:"generation"`
	XML        string `json:"xml"`
}

func (k *call) status() (Result, error) {
	state, snap := k.state(), k.admin.opt.Engine.Snapshot()
	s := Status{
		Version: k.admin.opt.Version, Started: k.admin.started, Generation: state.Generation, Services: len(state.Services),
	}
	for _, svc := range snap.Services {
		s.Sessions += svc.Active
	}
	for _, svc := range state.Services {
		if svc.Config.Enabled() == nil {
			s.Problems = append(s.Problems, fmt.Sprintf("service %s has no group: its clients are closed", show(svc.Config.Name)))
		}
		for _, g := range svc.Groups {
			s.Hosts += len(g.Hosts)
			s.Problems = append(s.Problems, problems(svc, g)...)
		}
	}
	head := fmt.Sprintf("generation %d, %s, %s, %s", s.Generation,
		count(s.Services, "service"), count(s.Hosts, "host"), count(int(s.Sessions), "session"))
	if s.Version != "" {
		head = "txlb " + s.Version + ", " + head
	}
	return Result{Text: strings.Join(append([]string{head}, s.Problems...), "\n"), Data: s, Generation: s.Generation}, nil
}

// problems tells what is wrong with a group.
func problems(s *director.Service, g *director.Group) []string {
	var list []string
	up := 0
	for _, h := range g.Hosts {
		info := hostInfo(s, g, h)
		if info.Up {
			up++
			if info.Problem != "" {
				list = append(list, fmt.Sprintf("host %s of group %s of service %s is up, but %s", show(info.Name), show(info.Group), show(info.Service), info.Problem))
			}
			continue
		}
		if info.State != "maint" {
			list = append(list, fmt.Sprintf("host %s of group %s of service %s is down: %s", show(info.Name), show(info.Group), show(info.Service), info.Reason))
		}
	}
	switch {
	case !g.Config.Enabled:
	case len(g.Hosts) == 0:
		list = append(list, fmt.Sprintf("group %s of service %s is empty: its clients are closed", show(g.Config.Name), show(s.Config.Name)))
	case up == 0:
		list = append(list, fmt.Sprintf("every host of group %s of service %s is down", show(g.Config.Name), show(s.Config.Name)))
	}
	return list
}

func (k *call) showServices() (Result, error) {
	state, snap := k.state(), k.admin.opt.Engine.Snapshot()
	want := k.args.text("service")
	if want != "" {
		if _, err := findService(state.Config, want); err != nil {
			return Result{}, err
		}
	}
	bound := map[string][]string{}
	for _, l := range k.admin.opt.Engine.Listeners() {
		bound[l.Service] = append(bound[l.Service], l.Addr)
	}
	infos := []ServiceInfo{}
	t := table{head: []string{"service", "listen", "group", "scheduler", "up", "sessions", "total", "in", "out", "refused"}, right: 4}
	for _, s := range state.Services {
		if want != "" && s.Config.Name != want {
			continue
		}
		stats := snap.Services[s.Config.Name]
		i := ServiceInfo{
			Name: s.Config.Name, Listen: slices.Sorted(slices.Values(bound[s.Config.Name])),
			Sessions: stats.Active, SessionsTotal: stats.Sessions, In: stats.In, Out: stats.Out,
		}
		for _, n := range stats.Refused {
			i.Refused += n
		}
		for _, g := range s.Groups {
			if !g.Config.Enabled {
				continue
			}
			i.Group, i.Scheduler, i.Hosts = g.Config.Name, g.Config.Scheduler, len(g.Hosts)
			for _, h := range g.Hosts {
				if h.Up() {
					i.HostsUp++
				}
			}
		}
		infos = append(infos, i)
		t.row(i.Name, strings.Join(i.Listen, " "), i.Group, i.Scheduler, fmt.Sprintf("%d/%d", i.HostsUp, i.Hosts),
			i.Sessions, i.SessionsTotal, i.In, i.Out, i.Refused)
	}
	return Result{Text: t.String(), Data: infos, Generation: state.Generation}, nil
}

func (k *call) showHosts() (Result, error) {
	state := k.state()
	service, group := k.args.text("service"), k.args.text("group")
	if service != "" {
		s, err := findService(state.Config, service)
		if err == nil && group != "" {
			_, err = findGroup(s, group)
		}
		if err != nil {
			return Result{}, err
		}
	} else if group != "" {
		return Result{}, fmt.Errorf("SERVICE is missing; write %s", k.verb.Syntax())
	}
	infos := []HostInfo{}
	t := table{head: []string{"service", "group", "host", "address", "state", "health", "weight", "sessions", "total", "failures", "resets", "in", "out"}, right: 6}
	for _, s := range state.Services {
		for _, g := range s.Groups {
			if service != "" && s.Config.Name != service || group != "" && g.Config.Name != group {
				continue
			}
			for _, h := range g.Hosts {
				i := hostInfo(s, g, h)
				infos = append(infos, i)
				where := i.Group
				if !i.Enabled {
					where += " (off)"
				}
				health := "up"
				switch {
				case !i.Up:
					health = "down: " + i.Reason
				case i.Problem != "":
					health = "up, but " + i.Problem
				}
				state := i.State
				if i.Backup {
					state += ",backup"
				}
				t.row(i.Service, where, i.Name, i.Address, state, health, i.Weight, i.Sessions, i.SessionsTotal, i.Failures, i.EarlyResets, i.In, i.Out)
			}
		}
	}
	// The longest column comes last, so that it pushes none aside.
	t.last(5)
	return Result{Text: t.String(), Data: infos, Generation: state.Generation}, nil
}

func hostInfo(s *director.Service, g *director.Group, h *director.Host) HostInfo {
	i := HostInfo{
		Service: s.Config.Name, Group: g.Config.Name, Enabled: g.Config.Enabled, Name: h.Config.Name,
		Address: h.Config.Address, State: h.Config.State, Weight: h.Config.Weight, Backup: h.Config.Backup,
		Reason: h.Problem, Problem: h.Problem, Targets: []TargetInfo{},
	}
	for _, t := range h.Targets {
		i.target(t, false)
		if !t.Host.Up() && i.Reason == "" {
			i.Reason = t.Status().Reason
		}
	}
	for _, t := range h.Leaving() {
		i.target(t, true)
	}
	stats := h.Stats()
	if i.Up = stats.Up; i.Up {
		i.Reason = ""
	}
	i.Sessions, i.SessionsTotal, i.Failures, i.EarlyResets = stats.Active, stats.Picks, stats.Failures, stats.EarlyResets
	i.In, i.Out = stats.In, stats.Out
	return i
}

// target adds one address.
func (i *HostInfo) target(t *director.Target, leaving bool) {
	status, stats := t.Status(), t.Host.Stats()
	i.Targets = append(i.Targets, TargetInfo{
		Address: t.Host.Addr().String(), Up: stats.Up, Reason: status.Reason, Since: status.Since, Sessions: stats.Active, Leaving: leaving,
	})
}

func (k *call) showConfig() (Result, error) {
	state := k.state()
	c := state.Config
	if k.caller.Role < Full {
		c = maskHashes(c)
	}
	xml, err := c.Marshal()
	if err != nil {
		return Result{}, err
	}
	return Result{Text: string(xml), Data: ConfigInfo{state.Generation, string(xml)}, Generation: state.Generation}, nil
}

// maskHashes returns a copy of a configuration that shows no password hash.
func maskHashes(c *config.Config) *config.Config {
	c = c.Clone()
	for _, u := range c.Admin.Users {
		if u.Password != "" {
			u.Password = masked
		}
	}
	return c
}
