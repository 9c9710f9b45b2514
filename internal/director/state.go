package director

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// State is what runs: the configuration and what became of it. It is immutable
// but for the counters and the status of its targets, which move on by
// themselves; all of it may be read from any goroutine.
type State struct {
	Generation uint64 // counts the changes of the configuration, from 1 on
	Config     *config.Config
	Services   []*Service

	replaced chan struct{}
}

// Replaced returns a channel that is closed when another state has taken the
// place of this one.
func (s *State) Replaced() <-chan struct{} { return s.replaced }

// publish makes a state the one that readers see.
func (d *Director) publish(state *State) {
	state.replaced = make(chan struct{})
	if was := d.state.Swap(state); was != nil {
		close(was.replaced)
	}
}

// Service is a service that runs.
type Service struct {
	Config *config.Service
	Groups []*Group
}

// Group is a group of hosts, enabled or not.
type Group struct {
	Config *config.Group
	Hosts  []*Host
}

// Host is a host with the addresses that its name stands for.
type Host struct {
	Config  *config.Host
	Targets []*Target // none while the name does not resolve
	Problem string    // why there is none
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

	// The rest belongs to the director's goroutine.
	key     targetKey
	probing bool
	last    time.Time // the last probe's start, or the last change if that was later
	next    time.Time // of the next probe; zero: not decided
	fails   int       // probes failed in a row while up
}

// Status is the health of a target as the director sees it.
type Status struct {
	Up     bool
	Reason string // of the last change, and of the last probe while down
	Since  time.Time
}

// Status returns the target's health.
func (t *Target) Status() Status { return *t.status.Load() }

// targetKey is what makes a target the same one across changes.
type targetKey struct {
	service, group, host string
	addr                 sched.Addr
}

func newTarget(key targetKey, now time.Time) *Target {
	t := &Target{Host: sched.NewHost(key.host, key.addr), key: key, last: now}
	t.status.Store(&Status{Up: true, Since: now})
	return t
}

// hostName returns the DNS name in a host's address, "" if there is none, and
// the address otherwise.
func hostName(address string) (name, port string, addr sched.Addr, err error) {
	if addr, err := sched.ParseAddr(address); err == nil {
		return "", "", addr, nil
	}
	name, port, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", sched.Addr{}, fmt.Errorf("address %q: %w", address, err)
	}
	return name, port, sched.Addr{}, nil
}
