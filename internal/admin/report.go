package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
)

// Status is the Data of status.
type Status struct {
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started"` // the first process, of which each next one has taken over
	// Upgraded is when this process has taken over, and UpgradedFrom the version before.
	Upgraded     *time.Time `json:"upgraded,omitempty"`
	UpgradedFrom string     `json:"upgraded_from,omitempty"`
	Generation   uint64     `json:"generation"`
	Services     int        `json:"services"`
	Hosts        int        `json:"hosts"`
	Sessions     int64      `json:"sessions"`
	Rate         float64    `json:"rate"`               // new sessions a second, over the last three
	MaxRate      uint64     `json:"rate_max"`           // most new sessions in one second
	InRate       float64    `json:"in_rate"`            // bytes from clients a second
	OutRate      float64    `json:"out_rate"`           // bytes to clients a second
	Draining     bool       `json:"draining,omitempty"` // no new clients; it ends when the sessions have
	Unsaved      int        `json:"unsaved,omitempty"`  // changes that the file lacks
	// Pending are changes that are undone unless they are confirmed, the oldest first.
	Pending  []PendingInfo `json:"pending,omitempty"`
	Problems []string      `json:"problems,omitempty"` // what is wrong now, the worst first

	Facilities []Facility `json:"facilities,omitempty"`

	// Of a user who may have less memory in pipes than <engine pipeMemory>, in bytes.
	PipeQuota  int64 `json:"pipe_quota,omitempty"`
	PipeMemory int64 `json:"pipe_memory,omitempty"`
}

// Facility is something of the kernel that the loops use where they may.
type Facility struct {
	Name  string `json:"name"`
	InUse bool   `json:"in_use"`
	Why   string `json:"why,omitempty"` // it is not
}

// ServiceInfo is one service in the Data of show services.
type ServiceInfo struct {
	Name          string   `json:"name"`
	Listen        []string `json:"listen"`            // as bound, with the port that a 0 became
	Multipath     []string `json:"mptcp,omitempty"`   // those of listen where clients may use Multipath TCP
	TLS           []string `json:"tls,omitempty"`     // those of listen where TLS of clients ends
	Standby       []string `json:"standby,omitempty"` // those of listen whose address no interface of this machine has
	Group         string   `json:"group"`             // the enabled one, "" if there is none
	Scheduler     string   `json:"scheduler"`
	StickyClients int      `json:"sticky_clients,omitempty"` // whom the group remembers, with a scheduler that is sticky
	HostsUp       int      `json:"hosts_up"`                 // of the enabled group
	Hosts         int      `json:"hosts"`
	Sessions      int64    `json:"sessions"`
	SessionsTotal uint64   `json:"sessions_total"`
	In            uint64   `json:"bytes_in"`
	Out           uint64   `json:"bytes_out"`
	Refused       uint64   `json:"sessions_refused"`
	Rate          float64  `json:"rate"` // new sessions a second, over the last three; so are the others
	MaxRate       uint64   `json:"rate_max"`
	InRate        float64  `json:"in_rate"`
	OutRate       float64  `json:"out_rate"`
	Usable        bool     `json:"usable"` // a host that is up takes its clients

	Turnarounds
	Queues  []QueueInfo  `json:"queues,omitempty"`  // of its groups whose clients wait, may have to, or have done so
	Mirrors []MirrorInfo `json:"mirrors,omitempty"` // of its groups
	// Holds says by group how those hold their new clients that do.
	Holds map[string]*status.Hold `json:"holds,omitempty"`
}

// QueueInfo is the queue of a group: clients that wait until a host has room, or the group is
// released.
type QueueInfo struct {
	Group   string  `json:"group"`
	Waiting int     `json:"queue"`
	Most    int     `json:"queue_max"`     // at once, ever
	Wait    float64 `json:"queue_seconds"` // mean of about the last 1,024 that waited
}

// HostInfo is one host in the Data of show hosts. Its counters are those of
// all its addresses.
type HostInfo struct {
	Service  string            `json:"service"`
	Group    string            `json:"group"`
	Enabled  bool              `json:"enabled"` // the group is active
	Takes    bool              `json:"takes"`   // the group takes clients: it is active, or a route leads to it
	Name     string            `json:"name"`
	Address  string            `json:"address"` // as configured
	State    string            `json:"state"`
	Weight   int               `json:"weight"`
	Backup   bool              `json:"backup"`
	Zone     string            `json:"zone,omitempty"`
	TLS      string            `json:"tls,omitempty"` // yes, unverified
	Settings map[string]string `json:"settings"`      // every attribute that setHost knows
	Up       bool              `json:"up"`            // one of its addresses is
	Health   string            `json:"health"`        // up, part (some addresses), down, none (no address), maint
	Reason   string            `json:"reason,omitempty"`
	Problem  string            `json:"problem,omitempty"` // with its name, though it may be up
	Ejected  *director.Ejected `json:"ejected,omitempty"` // why it, or an address of it, gets no new clients though it is up
	Targets  []TargetInfo      `json:"targets"`
	Rate     float64           `json:"rate"` // as of a service
	MaxRate  uint64            `json:"rate_max"`
	InRate   float64           `json:"in_rate"`
	OutRate  float64           `json:"out_rate"`
	Turnarounds
	Elsewhere *status.Sessions `json:"elsewhere,omitempty"` // on other nodes of the fleet
	Counters  Counters         `json:"-" counters:"host"`   // of all its addresses, written beside the other fields
}

// Turnarounds are those of a service or a host, in seconds: each is the time from the last byte
// that was passed on from a client to the first byte back from its host. 0: there was none.
type Turnarounds struct {
	Mean  float64 `json:"turnaround_seconds"`       // of about the last 1,024
	Worst float64 `json:"turnaround_worst_seconds"` // of the last minute
}

func turnarounds(t *status.Traffic) Turnarounds {
	return Turnarounds{t.Turnaround.Seconds(), t.WorstTurnaround.Seconds()}
}

// Texts returns both for people.
func (t Turnarounds) Texts() (mean, worst string) { return brief(t.Mean), brief(t.Worst) }

// brief writes a time to three digits or so.
func brief(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// TargetInfo is one address of a host.
type TargetInfo struct {
	Address  string            `json:"address"`
	Up       bool              `json:"up"`
	Reason   string            `json:"reason,omitempty"` // of the last change, and of the last probe while down
	Since    time.Time         `json:"since"`
	Sessions int64             `json:"sessions"`
	Ejected  *director.Ejected `json:"ejected,omitempty"`
	Leaving  bool              `json:"leaving,omitempty"` // the host no longer has the address: no new sessions
}

// ConfigInfo is the Data of show config.
type ConfigInfo struct {
	Generation uint64 `json:"generation"`
	XML        string `json:"xml"`
}

func (k *call) status() (Result, error) {
	r := k.admin.opt.Status.Read()
	s := Status{
		Version: r.Version, Started: r.Started, UpgradedFrom: r.UpgradedFrom, Generation: r.State.Generation, Services: len(r.Services), Hosts: r.Totals.Hosts,
		Rate: r.All.Rate, InRate: r.All.InRate, OutRate: r.All.OutRate, MaxRate: r.All.MaxRate,
		Sessions: r.Sessions, Draining: r.Draining, Unsaved: len(r.Unsaved), Pending: NewPendingInfos(r.State.Pending(), r.At),
	}
	var facilities []string
	for _, f := range r.Snapshot.Facilities {
		s.Facilities = append(s.Facilities, Facility{f.Name, f.On, f.Why})
		if f.On {
			facilities = append(facilities, f.Name+" in use")
		} else {
			facilities = append(facilities, f.Name+" not in use: "+f.Why)
		}
	}
	if r.PipeQuota < r.PipeMemory {
		s.PipeQuota, s.PipeMemory = r.PipeQuota, r.PipeMemory
		facilities = append(facilities, fmt.Sprintf("pipes: %d MiB, the kernel's quota of this user (fs.pipe-user-pages-soft); pipeMemory is %d MiB, beyond the quota streams are copied",
			r.PipeQuota>>20, r.PipeMemory>>20))
	}
	for _, p := range r.Problems {
		text := p.String()
		if p.Remedy != "" {
			text += "; " + p.Remedy
		}
		s.Problems = append(s.Problems, text)
	}
	head := fmt.Sprintf("generation %d, %s, %s, %s, up %v", s.Generation,
		count(s.Services, "service"), count(s.Hosts, "host"), count(int(s.Sessions), "session"), r.Uptime().Round(time.Second))
	if !r.Upgraded.IsZero() {
		s.Upgraded = &r.Upgraded
		head += fmt.Sprintf(", upgraded %v ago from %s", r.At.Sub(r.Upgraded).Round(time.Second), cmp.Or(r.UpgradedFrom, "another version"))
	}
	if s.Version != "" {
		head = "txlb " + s.Version + ", " + head
	}
	lines := append([]string{head}, facilities...)
	return Result{Text: strings.Join(append(lines, s.Problems...), "\n"), Data: s, Generation: s.Generation}, nil
}

func (k *call) showServices() (Result, error) {
	r := k.admin.opt.Status.Read()
	want := k.args.text("service")
	if want != "" {
		if _, err := edits.Service(r.State.Config, want); err != nil {
			return Result{}, err
		}
	}
	infos := []ServiceInfo{}
	t := table{head: []string{"service", "listen", "group", "scheduler", "up", "sessions", "total", "in", "out", "refused"}, right: 4}
	queues := slices.ContainsFunc(r.Services, func(s status.Service) bool {
		return (want == "" || s.Config.Name == want) && s.Queues()
	})
	if queues {
		t.head = append(t.head, "waiting", "most", "wait")
	}
	for n := range r.Services {
		s := &r.Services[n]
		if want != "" && s.Config.Name != want {
			continue
		}
		i := ServiceInfo{
			Name: s.Config.Name, Listen: s.Listeners, Multipath: s.Multipath, TLS: s.Encrypted, Standby: s.Standby, Usable: s.Usable(),
			Sessions: s.Stats.Active, SessionsTotal: s.Stats.Sessions, In: s.Stats.In, Out: s.Stats.Out, Refused: s.Refused,
			Rate: s.Traffic.Rate, MaxRate: s.Traffic.MaxRate, InRate: s.Traffic.InRate, OutRate: s.Traffic.OutRate,
			Turnarounds: turnarounds(&s.Traffic),
		}
		if g := s.Enabled(); g != nil {
			i.Group, i.Scheduler, i.Hosts, i.HostsUp = g.Config.Name, g.Config.Scheduler, len(g.Hosts), g.Up
			if g.Sticky != nil {
				i.StickyClients = g.Sticky.Len()
			}
		}
		for m := range s.Groups {
			if g := &s.Groups[m]; g.Hold != nil {
				if i.Holds == nil {
					i.Holds = map[string]*status.Hold{}
				}
				i.Holds[g.Config.Name] = g.Hold
			}
			if g := &s.Groups[m]; g.Queues() {
				i.Queues = append(i.Queues, QueueInfo{g.Config.Name, g.Waiting, g.MostWaiting, g.Traffic.MeanWait.Seconds()})
			}
			for _, mirror := range s.Groups[m].Mirrors {
				i.Mirrors = append(i.Mirrors, mirrorInfo(s.Config.Name, s.Groups[m].Config.Name, mirror))
			}
		}
		infos = append(infos, i)
		active := i.Group
		if i.Holds[i.Group] != nil {
			active += " (held)"
		}
		cells := []any{i.Name, i.Listens(), active, i.Scheduler, fmt.Sprintf("%d/%d", i.HostsUp, i.Hosts),
			i.Sessions, i.SessionsTotal, i.In, i.Out, i.Refused}
		switch q, ok := i.Queue(); {
		case ok:
			cells = append(cells, q.Waiting, q.Most, q.MeanWait())
		case queues:
			cells = append(cells, "", "", "")
		}
		t.row(cells...)
	}
	return Result{Text: t.String(), Data: infos, Generation: r.State.Generation}, nil
}

// Listens is Listen for people: those where TLS ends say so, and those that stand by.
func (i *ServiceInfo) Listens() string {
	list := slices.Clone(i.Listen)
	for n, l := range list {
		if slices.Contains(i.TLS, l) {
			list[n] += ",tls"
		}
		if slices.Contains(i.Standby, l) {
			list[n] += ",standby"
		}
	}
	return strings.Join(list, " ")
}

// MeanWait is Wait for people.
func (q QueueInfo) MeanWait() time.Duration {
	return time.Duration(q.Wait * float64(time.Second)).Round(time.Millisecond)
}

// Queue adds up the queues of the service: the greatest Most and Wait count. ok is false
// if it has none.
func (i *ServiceInfo) Queue() (all QueueInfo, ok bool) {
	for _, q := range i.Queues {
		all.Waiting += q.Waiting
		all.Most = max(all.Most, q.Most)
		all.Wait = max(all.Wait, q.Wait)
	}
	return all, len(i.Queues) > 0
}

func (k *call) showHosts() (Result, error) {
	r := k.admin.opt.Status.Read()
	service, group := k.args.text("service"), k.args.text("group")
	if service != "" {
		s, err := edits.Service(r.State.Config, service)
		if err == nil && group != "" {
			_, err = edits.Group(s, group)
		}
		if err != nil {
			return Result{}, err
		}
	} else if group != "" {
		return Result{}, fmt.Errorf("SERVICE is missing; write %s", k.verb.Syntax())
	}
	infos := []HostInfo{}
	t := table{head: []string{"service", "group", "host", "address", "state", "health", "weight"}, right: 6}
	for n := range status.HostCounters {
		t.head = append(t.head, strings.ToLower(status.HostCounters[n].Label))
	}
	t.head = append(t.head, "turnaround", "worst")
	if r.ShowsElsewhere() {
		t.head = append(t.head, "elsewhere")
	}
	for n := range r.Services {
		s := &r.Services[n]
		for m := range s.Groups {
			g := &s.Groups[m]
			if service != "" && s.Config.Name != service || group != "" && g.Config.Name != group {
				continue
			}
			for l := range g.Hosts {
				i := hostInfo(s, g, &g.Hosts[l])
				infos = append(infos, i)
				where := i.Group
				if !i.Takes {
					where += " (off)"
				}
				health := "up"
				switch {
				case !i.Up:
					health = "down: " + i.Reason
				case i.Ejected != nil:
					health = i.Ejection()
				case i.Problem != "":
					health = "up, but " + i.Problem
				}
				state := i.State
				if i.Backup {
					state += ",backup"
				}
				if i.TLS != "" {
					state += ",tls=" + i.TLS
				}
				if i.Zone != "" {
					state += ",zone=" + i.Zone
				}
				cells := []any{i.Service, where, i.Name, i.Address, state, health, i.Weight}
				for n := range status.HostCounters {
					cells = append(cells, i.Counters[status.HostCounters[n].Key])
				}
				mean, worst := i.Texts()
				cells = append(cells, mean, worst)
				switch {
				case i.Elsewhere != nil:
					cells = append(cells, i.Elsewhere)
				case r.ShowsElsewhere():
					cells = append(cells, "-")
				}
				t.row(cells...)
			}
		}
	}
	// The longest column comes last, so that it pushes none aside.
	t.last(5)
	text := t.String()
	if why := r.WhyIncomplete(); why != "" {
		text += "\nelsewhere: there may be more, " + printable(why)
	}
	return Result{Text: text, Data: infos, Generation: r.State.Generation}, nil
}

// Ejection says why the host is ejected, and until when; "" if it is not.
func (i *HostInfo) Ejection() string {
	if i.Ejected == nil {
		return ""
	}
	return "up, ejected until " + i.Ejected.Until.Format("15:04:05") + ": " + i.Ejected.Why
}

func hostInfo(s *status.Service, g *status.Group, h *status.Host) HostInfo {
	i := HostInfo{
		Service: s.Config.Name, Group: g.Config.Name, Enabled: g.Config.Enabled, Takes: g.Takes, Name: h.Config.Name,
		Address: h.Config.Address, State: h.Config.State, Weight: h.Config.Weight, Backup: h.Config.Backup, Zone: h.Config.Zone, TLS: h.Config.TLS,
		Settings: map[string]string{},
		Up:       h.Stats.Up, Health: h.Health.String(), Problem: h.Problem, Targets: []TargetInfo{}, Ejected: h.Ejected,
		Counters: counters(&h.Stats),
		Rate:     h.Traffic.Rate, MaxRate: h.Traffic.MaxRate, InRate: h.Traffic.InRate, OutRate: h.Traffic.OutRate,
		Turnarounds: turnarounds(&h.Traffic), Elsewhere: h.Elsewhere,
	}
	if !h.Stats.Up {
		i.Reason = h.Reason
	}
	rows := config.Attributes("host")
	for n := range rows {
		if rows[n].Runtime {
			i.Settings[rows[n].Name] = rows[n].Get(h.Config)
		}
	}
	for _, t := range h.Targets {
		i.target(t, false)
	}
	for _, t := range h.Leaving() {
		i.target(t, true)
	}
	return i
}

// target adds one address.
func (i *HostInfo) target(t *director.Target, leaving bool) {
	status, stats := t.Status(), t.Host.Stats()
	i.Targets = append(i.Targets, TargetInfo{
		Address: t.Host.Addr().String(), Up: stats.Up, Reason: status.Reason, Since: status.Since, Sessions: stats.Active, Ejected: status.Ejected, Leaving: leaving,
	})
}

func (k *call) showConfig() (Result, error) {
	state := k.state()
	c := state.Config
	if k.secrets = k.caller.Role == users.Full; !k.secrets {
		c = c.Masked()
	}
	xml, err := c.Marshal()
	if err != nil {
		return Result{}, err
	}
	return Result{Text: string(xml), Data: ConfigInfo{state.Generation, string(xml)}, Generation: state.Generation}, nil
}

// MarshalJSON writes the counters beside the other fields.
func (i HostInfo) MarshalJSON() ([]byte, error) {
	type plain HostInfo
	data, err := json.Marshal(plain(i))
	if err != nil {
		return nil, err
	}
	data = data[:len(data)-1]
	for n := range status.HostCounters {
		key := status.HostCounters[n].Key
		data = fmt.Appendf(data, `,"%s":%d`, key, i.Counters[key])
	}
	return append(data, '}'), nil
}

// UnmarshalJSON is the inverse of MarshalJSON. A counter that is not there is 0.
func (i *HostInfo) UnmarshalJSON(data []byte) error {
	type plain HostInfo
	if err := json.Unmarshal(data, (*plain)(i)); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	i.Counters = make(Counters, len(status.HostCounters))
	for n := range status.HostCounters {
		key := status.HostCounters[n].Key
		if text, ok := all[key]; ok {
			v, err := strconv.ParseUint(string(text), 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			i.Counters[key] = v
		}
	}
	return nil
}
