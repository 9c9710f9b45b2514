package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/fleet/etcd"
	"github.com/txlb/txlb/internal/status"
)

// node is this process as a node of a fleet. A nil one is of a process that is in none.
type node struct {
	*fleet.Node
	source *status.Source
	self   self // what it does when it is told
}

// newNode returns the node that a configuration makes of this process, nil without <fleet>.
func newNode(c *config.Config, doc *document.File, eng engine.Engine, log *slog.Logger) (*node, error) {
	if c.Fleet.Name == "" {
		return nil, nil
	}
	n, settings := new(node), c.Fleet
	var err error
	n.Node, err = fleet.New(fleet.Options{
		Config: settings, StateDir: stateDir(doc), Version: version, Log: log, Vitals: n.vitals, Obey: n.obey,
		Grace: c.Engine.Grace, Allot: eng.Allot,
		Connect: func(ctx context.Context) (fleet.Store, error) { return etcd.Open(ctx, &settings) },
	})
	return n, err
}

// govern makes the fleet decide about the changes of a director.
func (n *node) govern(opt director.Options) director.Options {
	if n != nil {
		opt.Commit, opt.Fleet, opt.Generation, opt.Notify = n.Commit, n, n.Generation(), n.Notice
	}
	return opt
}

// watchedBy makes a Source show the fleet, and the node tell what that has.
func (n *node) watchedBy(source *status.Source) {
	if n != nil {
		n.source, source.Fleet, source.Elsewhere = source, n.Status, n.Elsewhere
	}
}

// commands makes the process do what its fleet tells the node.
func (n *node) commands(process self) {
	if n != nil {
		n.self = process
	}
}

// vitals is what the other nodes learn of this process.
func (n *node) vitals() (sessions int64, unready error) {
	for _, s := range n.source.Engine.Snapshot().Services {
		sessions += s.Active
	}
	return sessions, ready(n.source)
}

// obey does what the fleet tells this process.
func (n *node) obey(ctx context.Context, verb, by, from string) (string, error) {
	switch verb {
	case fleet.Upgrade:
		return n.self.Upgrade(ctx, by, from)
	case fleet.Shutdown:
		n.source.Director.Note(by, from, verb, "")
		n.self.Shutdown()
		return "draining, then shutting down", nil
	}
	return "", fmt.Errorf("txlb %s does not know %s", version, verb)
}

// announce tells the other nodes at once that this process is not ready any more.
func (n *node) announce() {
	if n != nil {
		n.Announce()
	}
}

// orders is what the admin does to other nodes.
type orders struct{ *fleet.Node }

func (o orders) Order(ctx context.Context, verb string, nodes []string, by, from string) (string, any, error) {
	done, err := o.Node.Order(ctx, verb, nodes, by, from)
	if err != nil {
		return "", nil, err
	}
	return done.String(), done, nil
}

func (o orders) Cancel(ctx context.Context, id, by string) (string, any, error) {
	done, order, err := o.Node.Cancel(ctx, id, by)
	if err != nil || order == nil {
		return done, nil, err
	}
	return done, order, nil
}

// run makes this process the node until ctx ends.
func (n *node) run(ctx context.Context, dir *director.Director) {
	if n != nil {
		n.Run(ctx, dir)
	}
}

// handOver tells that another process is the node now.
func (n *node) handOver() {
	if n != nil {
		n.HandOver()
	}
}

// partsWithin is how long a process that starts may let clients wait until it knows its part of
// the limits that its fleet shares.
const partsWithin = 2 * time.Second

// waits tells whether clients have to wait at the start: limits are shared, and this process does
// not know its part of them.
func (n *node) waits(c *config.Config) bool {
	return n.shares(c) && c.Fleet.Listen != ""
}

// shares tells whether limits are shared.
func (n *node) shares(c *config.Config) bool {
	return n != nil && slices.ContainsFunc(c.Services, func(s *config.Service) bool { return s.Limits.Shared() })
}

// awaitParts waits until this process knows its part of all limits, but not for long.
func (n *node) awaitParts(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, partsWithin)
	defer cancel()
	n.AwaitLimits(within)
}

// linger holds the part of sessions that go on after run, until ctx ends.
func (n *node) linger(ctx context.Context, dir *director.Director) {
	if n != nil {
		n.Linger(ctx, dir)
	}
}

// parts returns what this process holds of shared limits. With give it gives that to another
// process: nothing may change any more, unless keepParts is called.
func (n *node) parts(give bool) *fleet.Parts {
	if n == nil {
		return nil
	}
	return n.Parts(give)
}

func (n *node) keepParts() {
	if n != nil {
		n.Keep()
	}
}

// lineage is this process and those before it as a node, for succeed of the one behind it.
func (n *node) lineage() []string {
	if n == nil {
		return nil
	}
	return n.Lineage()
}

// succeed makes this process the node that those were.
func (n *node) succeed(lineage []string) {
	if n != nil {
		n.Succeed(lineage)
	}
}

// takeParts gives this process what the one before it held of shared limits.
func (n *node) takeParts(p *fleet.Parts) {
	if n != nil {
		n.TakeParts(p)
	}
}
