// Package status is the one place that reads the running state. [Source.Read] puts
// together what the director and the engine know: services, groups and hosts with
// their counters, rates and one list of problems. Metrics, page, reports, JSON,
// show stat and the live view only format a Reading; none of them sums or judges
// anything.
//
// counters.go has one row for each counter. problems.go decides what is wrong.
// sampler.go samples once a second what counters do not have: rates, maxima,
// downtime; history.go keeps ten minutes of it for charts. A Reading is a snapshot:
// it may be read from any goroutine, and costs a walk through all hosts (about 7 ms
// for 10,000).
package status

import (
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/sched"
)

// Source is where a Reading comes from.
type Source struct {
	Director *director.Director // required
	Engine   Engine             // required
	Version  string             // of the program
	Started  time.Time          // when the process started
	// SessionsLimit is <engine maxSessions>, or what the limit of open files
	// allows; 0: none.
	SessionsLimit int
	FDLimit       uint64               // of open files; 0: not known
	PipeMemory    int64                // <engine pipeMemory>
	PipeQuota     int64                // how much of it the kernel allows this user
	Draining      func() bool          // nil: never
	Former        func() *Former       // which process this one has taken over from; nil, or of nil: there is none that has anything left
	Accepting     func() *time.Time    // until when a process that drains accepts new clients; nil, or of nil: it does not
	Off           func() []Off         // admin interfaces that should run and do not; nil: none
	Logs          func() []logs.Stats  // of log and audit file; nil: not known
	Guard         *guard.Guard         // of the admin interfaces; nil: there are none
	Fleet         func() *fleet.Status // nil: the node is in no fleet
	Elsewhere     Elsewhere            // nil: the node is in no fleet

	sampler sampler
	origin  atomic.Pointer[origin] // nil: this process has taken nobody's place
}

// Off is an admin interface that should run and does not. It is tried again.
type Off struct {
	Interface string // the element: web, ssh, socket, metrics, control
	Err       string
}

func (s *Source) off() []Off {
	if s.Off == nil {
		return nil
	}
	return s.Off()
}

// Engine is what a Reading needs of the data plane.
type Engine interface {
	Snapshot() engine.Snapshot
	Listeners() []engine.Listener
}

// Facts are what a Reading is made of.
type Facts struct {
	At            time.Time
	Started       time.Time // the first process: see Source.Origin
	Upgraded      time.Time // when this process has taken the place of another one; zero: it has not
	UpgradedFrom  string    // the version of that
	Version       string
	State         *director.State // required
	Snapshot      engine.Snapshot
	Listeners     []engine.Listener
	Movable       []Movable // those of Listeners whose addresses may be on another machine
	SessionsLimit int       // 0: none
	FDLimit       uint64
	PipeMemory    int64     // <engine pipeMemory>
	PipeQuota     int64     // how much of it the kernel allows this user
	Draining      bool      // the process accepts no new clients, and ends when its sessions have
	CPU           float64   // seconds of processor time that the process has used; 0: not known
	Accepting     time.Time // Draining, but until then it still does; zero: it does not
	Former        *Former   // from which this process has taken over, while that lasts; nil: none
	Off           []Off

	HasFile      bool           // the configuration came from a file
	Unsaved      []changes.Edit // changes that the file lacks, and that are saved with the next
	Undone       uint64         // changes that were undone because nobody has confirmed them
	ReloadFailed bool           // the file was wrong when it was last read

	Rejections []director.Rejection // of the last seconds
	Faults     map[string]uint64    // of the program's own schedulers, by name; empty: it has none
	Leavers    []director.Leaver    // what was removed or drains, and has sessions
	Interfaces []guard.Stats        // of the admin; nil: there are none

	Logs []logs.Stats // of log and audit file

	Fleet     *fleet.Status // nil: the node is in no fleet
	Elsewhere Elsewhere     // nil: the node is in no fleet
}

// Former is a process that this one has taken over from, and that has not ended yet.
type Former struct {
	PID      int   `json:"pid"`
	Sessions int64 `json:"sessions"` // that it still has
}

// Reading is everything that runs at one moment.
type Reading struct {
	Facts
	Services []Service // in the order of the configuration
	Problems []Problem // the worst first
	Sessions int64     // now, all services
	Totals   Totals
	All      Traffic // of all services together
	// Busy is how many processors the process has used in the last second, on
	// average; negative: not known.
	Busy float64
}

// Totals are sums over everything that runs.
type Totals struct {
	Hosts      int    // of all groups
	Unresolved int    // of them, those whose name does not resolve
	Sessions   uint64 // clients accepted
	Out        uint64 // bytes to clients
	Pipes      int64  // that the loops have
	Spliced    uint64 // bytes moved through them
}

// Uptime is how long txlb has run without a restart; an upgrade is none.
func (r *Reading) Uptime() time.Duration { return r.At.Sub(r.Started) }

// Find returns what has these names: a service, with group "" and host ""; a group
// of it, with host ""; or a host. What is not there is nil.
func (r *Reading) Find(service, group, host string) (*Service, *Group, *Host) {
	for i := range r.Services {
		s := &r.Services[i]
		if s.Config.Name != service {
			continue
		}
		for j := range s.Groups {
			g := &s.Groups[j]
			if g.Config.Name != group {
				continue
			}
			for k := range g.Hosts {
				if g.Hosts[k].Config.Name == host {
					return s, g, &g.Hosts[k]
				}
			}
			return s, g, nil
		}
		return s, nil, nil
	}
	return nil, nil, nil
}

// Service is a service with what it counts.
type Service struct {
	*director.Service
	Stats     engine.ServiceStats
	Refused   uint64   // clients closed without a host, for any reason
	Failures  uint64   // failed connects, for any reason
	Listeners []string // where it listens, with the port that 0 became, sorted
	Multipath []string // those of Listeners where clients may use Multipath TCP
	Encrypted []string // those of Listeners where TLS of clients ends
	Standby   []string // those of Listeners whose address no interface of this machine has
	// Certificates are those of Encrypted, and Encrypts tells whether the service makes
	// TLS handshakes with its clients ("client") and with hosts ("host").
	Certificates []director.Certificate
	Encrypts     map[string]bool
	Groups       []Group
	Level        Level // of its worst problem
	Traffic      Traffic
}

// Enabled returns the group that has the clients, nil without one.
func (s *Service) Enabled() *Group {
	for i := range s.Groups {
		if s.Groups[i].Config.Enabled {
			return &s.Groups[i]
		}
	}
	return nil
}

// Queues tells whether a group of the service does.
func (s *Service) Queues() bool {
	return slices.ContainsFunc(s.Groups, func(g Group) bool { return g.Queues() })
}

// Group is a group with what its hosts count together.
type Group struct {
	*director.Group
	Stats   sched.HostStats // sums
	Hosts   []Host
	Up      int // hosts that have an address that is up, maintenance apart
	Serving int // of these, the ones that take new clients: ready, with a weight
	Level   Level
	Traffic Traffic
	// Waiting is how many clients wait for a host, and MostWaiting how many have at once,
	// at most. Groups that have no queue (see director.Group.Queues) have none.
	Waiting, MostWaiting int
	Hold                 *Hold // how its new clients are held; nil: they are not
}

// Hold is how a group holds its new clients. It is also its form in JSON.
type Hold struct {
	Why      string     `json:"why"`                // "operator": by the verb hold; "all_down": no host is up, and allDown="hold"
	By       string     `json:"by,omitempty"`       // the operator
	Since    time.Time  `json:"since,omitzero"`     // zero: not known
	Until    *time.Time `json:"until,omitempty"`    // when it ends by itself; null: when a host is up
	Released *time.Time `json:"released,omitempty"` // since when clients are let out, until Until; null: they are not
	Max      int        `json:"max"`                // clients that wait at once, at most
	Held     int        `json:"held"`               // that wait now
}

// holdOf returns how a group holds its clients, nil if it does not.
func holdOf(g *Group) *Hold {
	if h := g.Group.Hold(); h != nil {
		end := h.End()
		one := &Hold{Why: "operator", By: h.By, Since: h.Since, Until: &end, Max: h.Most, Held: g.Waiting}
		if h.Releasing() {
			one.Released = &h.Released
		}
		return one
	}
	if !g.Group.Holds() {
		return nil
	}
	one := &Hold{Why: "all_down", Max: g.MostHeld(), Held: g.Waiting}
	for i := range g.Hosts {
		if h := &g.Hosts[i]; h.Since.After(one.Since) && !h.Health.Works() {
			one.Since = h.Since
		}
	}
	return one
}

// Host is a host with what it counts, all its addresses together.
type Host struct {
	*director.Host
	Stats  sched.HostStats
	Health Health
	// Reason says why the host, an address of it or its name does not work, ""
	// if nothing is wrong.
	Reason string
	Since  time.Time // when Health became what it is; zero: not known
	Level  Level
	// Ejected says why the host, or an address of it, is up and gets no new clients, and until
	// when; nil: none is ejected. AllEjected: no address that is up gets any.
	Ejected    *director.Ejected
	AllEjected bool
	Check      *director.Target // the target whose last check tells most about the host, nil without
	// Checked is when the last check of an address ended, zero if there was none,
	// and CheckTook what those that passed took on average, 0 if none did.
	Checked   time.Time
	CheckTook time.Duration
	Traffic   Traffic
	Elsewhere *Sessions // on other nodes of the fleet; nil: not known, or there are none
}

// Health is the condition of a host.
type Health uint8

const (
	Up          Health = iota // every address is up
	Part                      // some addresses are up
	Down                      // no address is up
	Unresolved                // it has no address: its name has never resolved
	Maintenance               // not checked, gets no clients
)

// String is the word that pages and JSON use.
func (h Health) String() string {
	return [...]string{"up", "part", "down", "none", "maint"}[h]
}

// Works tells whether the host has an address that is up.
func (h Health) Works() bool { return h == Up || h == Part }

// Serves tells whether new clients get to the host.
func (h *Host) Serves() bool {
	return h.Health.Works() && h.Config.State == "ready" && h.Config.Weight > 0 && !h.AllEjected
}

// Read returns what runs now, with what the samples have seen of it. Any
// goroutine may call it.
func (s *Source) Read() *Reading { return s.sampler.read(s.Facts) }

// Facts returns what Read sums and judges.
func (s *Source) Facts() Facts {
	d, f := s.Director, s.counts()
	f.Started, f.Version, f.Listeners = s.Origin(), s.Version, s.Engine.Listeners()
	f.Movable = movable(f.State.Config, f.Listeners, net.InterfaceAddrs)
	if o := s.origin.Load(); o != nil {
		f.Upgraded, f.UpgradedFrom = s.Started, o.version
	}
	f.SessionsLimit, f.FDLimit, f.Draining, f.Off = s.SessionsLimit, s.FDLimit, s.Draining != nil && s.Draining(), s.off()
	f.PipeMemory, f.PipeQuota = s.PipeMemory, s.PipeQuota
	if s.Former != nil {
		f.Former = s.Former()
	}
	if s.Accepting != nil {
		if until := s.Accepting(); until != nil {
			f.Accepting = *until
		}
	}
	f.HasFile, f.Unsaved, f.ReloadFailed, f.Rejections = d.Stored() != nil, d.Unsaved(), d.ReloadFailed(), d.Rejections()
	f.Undone = d.Undone()
	f.Leavers, f.Faults = d.Leavers(), d.SchedulerFaults()
	f.Interfaces = s.Guard.Stats()
	if s.Fleet != nil {
		f.Fleet, f.Elsewhere = s.Fleet(), s.Elsewhere
	}
	if s.Logs != nil {
		f.Logs = s.Logs()
	}
	return f
}

// counts are the facts that a sample takes in.
func (s *Source) counts() Facts {
	cpu, _ := processCPU()
	return Facts{At: time.Now(), State: s.Director.State(), Snapshot: s.Engine.Snapshot(), CPU: cpu}
}

// Read sums and judges facts. What only samples tell is missing.
func Read(f Facts) *Reading {
	r := sum(f)
	r.judge()
	return r
}

// sum is Read without the judgement.
func sum(f Facts) *Reading {
	r := &Reading{Facts: f, Services: make([]Service, len(f.State.Services)), Busy: -1}
	bound, multipath, encrypted, standby := map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}
	ends, certificates := map[string]bool{}, map[string][]director.Certificate{}
	for _, c := range f.State.Certificates() {
		ends[c.Service+"\x00"+c.Listen] = true
		certificates[c.Service] = append(certificates[c.Service], c)
	}
	for _, l := range f.Listeners {
		if ends[l.Service+"\x00"+l.Listen] {
			encrypted[l.Service] = append(encrypted[l.Service], l.Addr)
		}
		bound[l.Service] = append(bound[l.Service], l.Addr)
		if l.MPTCP {
			multipath[l.Service] = append(multipath[l.Service], l.Addr)
		}
	}
	for _, m := range f.Movable {
		if m.Standby {
			standby[m.Service] = append(standby[m.Service], m.Addr)
		}
	}
	for i, svc := range f.State.Services {
		one := &r.Services[i]
		one.Service, one.Stats = svc, f.Snapshot.Services[svc.Config.Name]
		one.Listeners = slices.Compact(slices.Sorted(slices.Values(bound[svc.Config.Name])))
		one.Multipath = slices.Compact(slices.Sorted(slices.Values(multipath[svc.Config.Name])))
		one.Encrypted = slices.Compact(slices.Sorted(slices.Values(encrypted[svc.Config.Name])))
		one.Standby = slices.Compact(slices.Sorted(slices.Values(standby[svc.Config.Name])))
		one.Certificates, one.Encrypts = certificates[svc.Config.Name], encrypts(svc, len(certificates[svc.Config.Name]) > 0)
		for _, n := range one.Stats.Refused {
			one.Refused += n
		}
		for _, n := range one.Stats.ConnectFailures {
			one.Failures += n
		}
		r.Sessions += one.Stats.Active
		r.Totals.Sessions += one.Stats.Sessions
		r.Totals.Out += one.Stats.Out
		one.Groups = make([]Group, len(svc.Groups))
		for j, g := range svc.Groups {
			one.Groups[j] = readGroup(g)
			f.readElsewhere(svc.Config.Name, &one.Groups[j])
			r.Totals.Hosts += len(g.Hosts)
			for _, h := range g.Hosts {
				if h.Problem != "" {
					r.Totals.Unresolved++
				}
			}
		}
	}
	for _, l := range f.Snapshot.Loops {
		r.Totals.Pipes += l.Pipes
		r.Totals.Spliced += l.Spliced
	}
	return r
}

// encrypts tells with whom a service makes TLS handshakes, nil for one that does not.
func encrypts(s *director.Service, clients bool) map[string]bool {
	hosts := slices.ContainsFunc(s.Groups, func(g *director.Group) bool {
		return slices.ContainsFunc(g.Hosts, func(h *director.Host) bool { return h.Config.TLS != "" })
	})
	if !clients && !hosts {
		return nil
	}
	return map[string]bool{"client": clients, "host": hosts}
}

func readGroup(g *director.Group) Group {
	one := Group{
		Group: g, Hosts: make([]Host, len(g.Hosts)),
		Waiting: g.Times.Queue.Len(), MostWaiting: g.Times.Queue.Longest(),
	}
	for i, h := range g.Hosts {
		host := readHost(h)
		one.Stats.Add(host.Stats)
		if host.Health.Works() {
			one.Up++
		}
		if host.Serves() {
			one.Serving++
		}
		one.Hosts[i] = host
	}
	one.Hold = holdOf(&one)
	return one
}

func readHost(h *director.Host) Host {
	one := Host{Host: h, Stats: h.Stats()}
	up, downReason, upSince, downSince := 0, "", time.Time{}, time.Time{}
	passed, took, ejected := 0, time.Duration(0), 0
	for _, t := range h.Targets {
		s := t.Status()
		if s.Checked.After(one.Checked) {
			one.Checked = s.Checked
		}
		if !s.Checked.IsZero() && s.Check.OK() {
			passed, took = passed+1, took+s.Check.Took
		}
		if t.Host.Up() {
			up++
			if e := s.Ejected; e != nil {
				ejected++
				if one.Ejected == nil || e.Until.After(one.Ejected.Until) {
					one.Ejected = e
				}
			}
			if upSince.IsZero() || s.Since.Before(upSince) {
				upSince = s.Since
			}
			continue
		}
		if s.Since.After(downSince) {
			downSince = s.Since
		}
		if downReason == "" {
			downReason = s.Reason
			if s.Up { // the engine has just marked it, the director has not seen it yet
				downReason = "a client's connect failed"
			}
		}
	}
	one.AllEjected = ejected > 0 && ejected == up
	if passed > 0 {
		one.CheckTook = max(took/time.Duration(passed), 1)
	}
	one.Reason = downReason
	if one.Reason == "" {
		one.Reason = h.Problem
	}
	switch {
	case len(h.Targets) == 0:
		one.Health, one.Since = Unresolved, h.ProblemSince
	case up == 0:
		one.Health, one.Since = Down, downSince
	case up < len(h.Targets):
		one.Health, one.Since = Part, upSince
	default:
		one.Health, one.Since = Up, upSince
	}
	if h.Config.State == "maint" {
		one.Health = Maintenance
	}
	for _, t := range h.Targets {
		if one.Check == nil || checkedLater(t, one.Check) || one.Health == Part && !t.Status().Up {
			one.Check = t
		}
	}
	return one
}

// checkedLater tells whether the last check of t ended after that of u.
func checkedLater(t, u *director.Target) bool { return t.Status().Checked.After(u.Status().Checked) }
