package director

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/certs"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// State is what runs: the configuration, and the services, groups and hosts made
// from it. It is immutable except for the counters and the status of its targets.
// Any goroutine may read it.
type State struct {
	Generation uint64 // counts the changes of the configuration, from 1 on
	Config     *config.Config
	Services   []*Service

	unconfirmed *unconfirmed // changes; nil: there are none
	tls         *certs.Set
	replaced    chan struct{}
	index       *index
}

// index finds the targets of a state. It is made when it is first asked for.
type index struct {
	once sync.Once
	all  map[targetKey]*Target
}

// Replaced returns a channel that is closed when another state has taken the
// place of this one.
func (s *State) Replaced() <-chan struct{} { return s.replaced }

// publish makes a state the one that readers see.
func (d *Director) publish(state *State) {
	state.replaced = make(chan struct{})
	d.soon.forget()
	if was := d.state.Swap(state); was != nil {
		close(was.replaced)
	}
}

// Service is a service that runs.
type Service struct {
	Config *config.Service
	Groups []*Group

	rules *rules // of its routes; nil: none

	// The rest belongs to the director's goroutine.
	unsettled bool   // a host's state can change while its configuration does not
	lacking   bool   // a host has no target
	mark      uint64 // the last call of adopt that kept it
	route     *route // that the engine has for it
}

// Group is a group of hosts, enabled or not.
type Group struct {
	Config  *config.Group
	Hosts   []*Host
	Mirrors []*Mirror     // in the order of the configuration
	Times   *sched.Times  // of all sessions that its hosts have had; outlives them
	Sticky  *sched.Sticky // whom its clients come back to; nil: they do not
	// Takes tells whether new clients may come to it: it is the enabled group, or a
	// route names it.
	Takes  bool
	id     engine.GroupID // never Default
	rule   *rule
	custom *sched.Custom // the program's scheduler; nil: it has one of txlb's

	holding *holding // outlives it
}

// Host is a host of the configuration with the addresses that it stands for. See
// Stats, All and Leaving for those that it no longer has.
type Host struct {
	Config  *config.Host
	Targets []*Target // none while the name has never resolved
	Shares  []Share   // what each of the Targets gets of the sessions
	// Problem is what is wrong with the name, "" if nothing is: why there is no
	// target, or why the targets may be out of date.
	Problem      string
	ProblemSince time.Time

	name     string     // the DNS name in the address, "" without
	departed []departed // targets of addresses that the host no longer has, the oldest first
	past     past       // what earlier ones have counted
	elder    *elder     // what the host has counted in an earlier process; nil: there was none
	mark     uint64     // the last call of adopt that had a use for it; the director's own
	heir     uint64     // the last call of adopt that had a host of its name
}

// Share is a target's share of the sessions, from the configuration of the host and
// the SRV record, if there is one.
type Share struct {
	Weight int
	Backup bool
}

// Up tells whether the host has a target that is up.
func (h *Host) Up() bool {
	for _, t := range h.Targets {
		if t.Host.Up() {
			return true
		}
	}
	return false
}

// Target is one address of a host, with its counters.
type Target struct {
	Host   *sched.Host
	status atomic.Pointer[Status]
	checks [health.Codes]atomic.Uint64 // probes that have ended, by code

	// The rest belongs to the director's goroutine.
	key         targetKey
	rule        *rule
	slowStart   time.Duration
	maxSessions int
	maint       bool
	waiting     bool // for the first check that passes (start="down")
	probing     bool
	excused     bool      // the last probe ended too late to prove anything
	lastResort  bool      // all hosts of its group were down when all were last looked at
	last        time.Time // the last probe's start, or the last change if that was later
	next        time.Time // of the next probe; zero: not decided
	failed      int       // probes failed in a row while up
	passed      int       // probes passed in a row while down
	since       time.Time // when its slow start began
	step        int       // of the slow start; rampSteps: the full share
	grey        grey      // what its clients met after the connect
	elsewhere   elsewhere // what a fleet says of it
}

// Status is the health of a target as the director sees it.
type Status struct {
	Up      bool
	Reason  string        // of the last change, and of the last probe while down
	Since   time.Time     // of the last change
	Check   health.Result // of the last probe: code, text, time taken; Unknown before the first
	Checked time.Time     // when that ended
	// Failed is how many probes in a row have failed while the target is up, of
	// the Fall that take it out; Passed how many have passed while it is down, of
	// the Rise that bring it back. See Progress.
	Failed, Fall int
	Passed, Rise int

	// CheckedBy are the nodes of the fleet that check it instead of this one, "" if it does
	// that itself.
	CheckedBy string

	Ejected *Ejected // it is up and gets no new clients; nil: it is not ejected
}

// Status returns the target's health.
func (t *Target) Status() Status { return *t.status.Load() }

// targetKey is what makes a target the same one across changes.
type targetKey struct {
	service, group, host string
	addr                 sched.Addr
}

func newTarget(key targetKey, g *Group, now time.Time) *Target {
	r := g.rule
	t := &Target{Host: sched.NewHostIn(g.Times, key.host, key.addr), key: key, last: now, step: rampSteps, failed: r.first()}
	if r.own { // the first checks come soon, spread over an interval
		t.next = now.Add(rand.N(r.fast))
	}
	if !g.Config.StartDown {
		t.status.Store(&Status{Up: true, Since: now, Failed: t.failed, Fall: r.fall, Rise: r.rise})
		return t
	}
	// The first check that passes is enough. It comes soon, as nobody is served
	// before.
	t.Host.MarkDown()
	t.waiting, t.failed, t.passed = true, 0, r.rise-1
	t.next = now.Add(rand.N(min(r.every(false, t.passed > 0, true), lastResortInterval)))
	t.status.Store(&Status{Reason: notChecked, Since: now, Fall: r.fall, Passed: t.passed, Rise: r.rise})
	return t
}

// groupKey is what makes a group the same one across changes.
type groupKey struct{ service, group string }

// notChecked is the reason of a host that is down until its first check.
const notChecked = "not checked yet"

// restate publishes a new status of a target.
func (t *Target) restate(change func(*Status)) {
	s := t.Status()
	change(&s)
	s.Failed, s.Fall, s.Passed, s.Rise = t.failed, t.rule.fall, t.passed, t.rule.rise
	t.status.Store(&s)
}

// settle gives a target what the configuration says of its host.
func (t *Target) settle(g *Group, h *config.Host, tls *certs.Set) {
	t.rule, t.slowStart, t.maint = g.rule, h.SlowStart, h.State == "maint"
	t.Host.SetFailLimit(g.Config.MaxFails, g.Config.FailWindow)
	t.Host.SetPeak(sched.Peaks(g.Config.Scheduler))
	source, _ := netip.ParseAddr(h.Source) // "" and client are none; the model has been checked
	t.Host.SetSource(sched.Source{Addr: source.Unmap(), Client: h.Source == config.ClientSource, Interface: h.Interface})
	t.Host.SetProxyProtocol(proxyVersions[h.ProxyProtocol])
	t.Host.SetTLS(tls.Client(clientKey(t.key.service, t.key.group, t.key.host)))
	t.maxSessions = h.MaxSessions
	t.limit()
	if s := t.Status(); s.Fall != g.rule.fall || s.Rise != g.rule.rise {
		t.restate(func(*Status) {})
	}
}

// proxyVersions are what <host proxyProtocol> may say.
var proxyVersions = map[string]int{"v1": 1, "v2": 2}

// hostName returns the DNS name in a host's address, "" if there is none, and
// the address otherwise. The name of SRV records has no port.
func hostName(address string) (name, port string, addr sched.Addr, err error) {
	if addr, err := sched.ParseAddr(address); err == nil {
		return "", "", addr, nil
	}
	if config.IsSRV(address) {
		return address, "", sched.Addr{}, nil
	}
	name, port, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", sched.Addr{}, fmt.Errorf("address %q: %w", address, err)
	}
	return name, port, sched.Addr{}, nil
}
