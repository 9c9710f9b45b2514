//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/sched"
)

// changer changes one service while its clients work. It is the only one who
// does, so what it chooses depends on its random numbers alone.
//
// Whatever it does, each group keeps a host that is alive, ready and has a
// weight: that is what "could have been saved" rests on.
type changer struct {
	service *service
	dir     *director.Director
	rec     *record
	rng     *rand.Rand
	seen    map[*sched.Host]bool // every host that the service has ever had; its counters must be 0 in the end
}

// errNotNow drops a change that changes nothing or leaves a group without a
// host.
var errNotNow = errors.New("the change is none, or a group would have no host left")

// work makes changes until ctx ends. The one under way is finished: hosts that
// were killed are alive when it returns.
func (c *changer) work(ctx context.Context) {
	const least, more = 50 * time.Millisecond, 300 * time.Millisecond
	c.look()
	for {
		wait(ctx, least+time.Duration(c.rng.Int64N(int64(more))))
		if ctx.Err() != nil {
			return
		}
		err := errNotNow
		for errors.Is(err, errNotNow) {
			err = c.one(ctx)
		}
		if err != nil {
			c.rec.broke(c.service.name, err)
		}
	}
}

// one makes one random change.
func (c *changer) one(ctx context.Context) error {
	n := c.rng.IntN(100)
	if c.service.mortal && n < 25 {
		s := c.victim()
		how := deaths()[c.rng.IntN(len(deaths()))]
		away := 20*time.Millisecond + time.Duration(c.rng.Int64N(int64(500*time.Millisecond)))
		return c.kill(ctx, s, how, away)
	}
	group := c.rng.IntN(2)
	server := c.service.servers[c.rng.IntN(len(c.service.servers))]
	weight := []int{0, 0, 1, 1, 2, 5, 20, 100}[c.rng.IntN(8)]
	switch {
	case n < 50:
		return c.do("state", group, server, func(g *config.Group, h *config.Host) (string, error) {
			if h == nil {
				return "", errNotNow
			}
			switch {
			case h.State != "ready":
				h.State = "ready"
			case n%2 == 0: // so that more hosts are ready than not
				h.State = "drain"
			default:
				return "", errNotNow
			}
			return h.State, nil
		})
	case n < 75:
		return c.do("weight", group, server, func(g *config.Group, h *config.Host) (string, error) {
			if h == nil {
				return "", errNotNow
			}
			h.Weight = weight
			return fmt.Sprintf("has weight %d", weight), nil
		})
	case n < 90:
		return c.do("hosts", group, server, func(g *config.Group, h *config.Host) (string, error) {
			if h == nil {
				g.Hosts = append(g.Hosts, newHost(server))
				return "added", nil
			}
			g.Hosts = slices.DeleteFunc(g.Hosts, func(other *config.Host) bool { return other == h })
			return "removed", nil
		})
	}
	return c.edit("group", func(s *config.Service) (string, error) {
		for _, g := range s.Groups {
			g.Enabled = !g.Enabled
		}
		return "takes sessions with group " + s.Enabled().Name, nil
	})
}

// victim chooses a server to kill: one that takes sessions now, for others
// would be missed by nobody.
func (c *changer) victim() *servers.Server {
	var serving []*servers.Server
	group := serviceOf(c.dir.State().Config, c.service.name).Enabled()
	for _, s := range c.service.servers {
		if slices.ContainsFunc(group.Hosts, func(h *config.Host) bool { return h.Name == s.Name && takes(h) }) {
			serving = append(serving, s)
		}
	}
	return serving[c.rng.IntN(len(serving))] // safe keeps one at least
}

// takes tells whether a host takes new sessions.
func takes(h *config.Host) bool { return h.State == "ready" && h.Weight > 0 }

// do edits the host that is the server in a group, nil if it is not there.
func (c *changer) do(verb string, group int, server *servers.Server, edit func(*config.Group, *config.Host) (string, error)) error {
	return c.edit(verb, func(s *config.Service) (string, error) {
		g := s.Groups[group]
		var host *config.Host
		for _, h := range g.Hosts {
			if h.Name == server.Name {
				host = h
			}
		}
		what, err := edit(g, host)
		return fmt.Sprintf("host %s of group %s %s", server.Name, g.Name, what), err
	})
}

// edit changes the service, unless a group would be without a host.
func (c *changer) edit(verb string, edit func(*config.Service) (string, error)) error {
	var what string
	// Not the caller's context: an end in the middle would leave a host drained
	// that is killed next, or dead.
	_, err := c.dir.Do(context.Background(), director.Change{By: "soak", From: "soak", Verb: verb, Apply: func(cfg *config.Config) (err error) {
		s := serviceOf(cfg, c.service.name)
		if what, err = edit(s); err == nil && !safe(s, "") {
			err = errNotNow
		}
		return err
	}})
	if err != nil {
		return err
	}
	c.look()
	c.rec.changed(verb, c.service.name+" "+what)
	return nil
}

func newHost(s *servers.Server) *config.Host {
	return config.NewHost(s.Name, s.Addr)
}

func serviceOf(cfg *config.Config, name string) *config.Service {
	for _, s := range cfg.Services {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// safe tells whether each group has a host that takes sessions without the one
// at the address without.
func safe(s *config.Service, without string) bool {
	for _, g := range s.Groups {
		if !slices.ContainsFunc(g.Hosts, func(h *config.Host) bool {
			return takes(h) && h.Address != without
		}) {
			return false
		}
	}
	return true
}

// deaths are the ways to kill a server: with whatever it is doing, with a queue
// of connections that it has not accepted, and without any session.
func deaths() []string { return []string{killed, frozen, drained} }

const (
	killed  = "killed"
	frozen  = "stopped and killed"
	drained = "drained and killed"
)

// kill kills a server and starts it again.
func (c *changer) kill(ctx context.Context, s *servers.Server, how string, away time.Duration) (err error) {
	if !safe(serviceOf(c.dir.State().Config, c.service.name), s.Addr) {
		return errNotNow
	}
	if how == drained {
		ready, err := c.drain(s)
		defer func() { err = errors.Join(err, ready()) }()
		if err != nil {
			return err
		}
	}
	// The others have to be in, or there is nobody to save the sessions.
	if err := c.awaitUp(func(t *director.Target) bool { return t.Host.Addr().String() != s.Addr }); err != nil {
		return err
	}
	if how == frozen {
		if err := s.Freeze(); err != nil {
			return err
		}
		const queue = 50 * time.Millisecond // time for some connections to come
		wait(ctx, queue)
	}
	k := &kill{service: c.service.name, host: s.Name, drained: how == drained}
	c.rec.dying(k)
	before := c.load(s)
	s.Kill()
	after := c.load(s)
	c.rec.died(k, int(before.active)+int(after.picks-before.picks))
	c.rec.changed(how, fmt.Sprintf("%s host %s %s with %d sessions", c.service.name, s.Name, how, k.held))
	wait(ctx, away)
	if err := s.Start(context.Background()); err != nil {
		return err
	}
	return c.awaitUp(func(*director.Target) bool { return true })
}

// drain takes a server out of all groups and returns when it has no session
// left, with what puts it back where it was in.
func (c *changer) drain(s *servers.Server) (ready func() error, err error) {
	was := map[string]string{}
	set := func(verb string, state func(g *config.Group, h *config.Host) string) error {
		return c.edit(verb, func(svc *config.Service) (string, error) {
			for _, g := range svc.Groups {
				for _, h := range g.Hosts {
					if h.Name == s.Name {
						h.State = state(g, h)
					}
				}
			}
			return "host " + s.Name + " " + verb, nil
		})
	}
	if err := set("drain", func(g *config.Group, h *config.Host) string {
		was[g.Name] = h.State
		return "drain"
	}); err != nil {
		return func() error { return nil }, err
	}
	ready = func() error {
		return set("back", func(g *config.Group, _ *config.Host) string { return was[g.Name] })
	}
	// A loop may hold the table from before the drain and pick from it a moment
	// later than the host is first seen without sessions, so it is looked at for
	// a while.
	const looks = 10
	free := 0
	return ready, until(context.Background(), func() error {
		if n := c.load(s).active; n != 0 {
			free = 0
			return fmt.Errorf("host %s still has %d sessions after %v of drain", s.Name, n, patience)
		}
		if free++; free < looks {
			return errors.New("the drained host was free for too short a time")
		}
		return nil
	})
}

// load adds up the counters of all hosts that the server ever was.
func (c *changer) load(s *servers.Server) (sum struct {
	active int64
	picks  uint64
}) {
	for h := range c.seen {
		if h.Addr().String() == s.Addr {
			stats := h.Stats()
			sum.active += stats.Active
			sum.picks += stats.Picks
		}
	}
	return sum
}

// look notes the hosts that the service has now. They outlive their removal
// until the last session has gone.
func (c *changer) look() {
	for t := range c.targets() {
		c.seen[t.Host] = true
	}
}

// targets yields what the service's hosts stand for now.
func (c *changer) targets() func(yield func(*director.Target) bool) {
	return func(yield func(*director.Target) bool) {
		for _, s := range c.dir.State().Services {
			if s.Config.Name != c.service.name {
				continue
			}
			for _, g := range s.Groups {
				for _, h := range g.Hosts {
					for _, t := range h.Targets {
						if !yield(t) {
							return
						}
					}
				}
			}
		}
	}
}

// awaitUp returns when txlb has found all hosts of which is up: probes bring
// back those that a killed server took out.
func (c *changer) awaitUp(of func(*director.Target) bool) error {
	return until(context.Background(), func() error {
		for t := range c.targets() {
			if of(t) && !t.Host.Up() {
				return fmt.Errorf("host %s at %s answers and is still down after %v: %s",
					t.Host.Name(), t.Host.Addr(), patience, t.Status().Reason)
			}
		}
		return nil
	})
}
