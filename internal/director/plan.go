package director

import (
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/certs"
	"github.com/txlb/txlb/sched"
)

// route is what the engine was last given for a service.
type route struct {
	of     *Service
	who    *access // who may connect; nil: everybody
	tables map[engine.GroupID]*sched.Table
	plan   *engine.Route
	dirty  bool

	planned engine.Service // with plan
}

// plan builds the plan for the engine. It builds new routes for services whose
// health has changed and, if it looks at all services, for those whose
// configuration has.
func (d *Director) plan(state *State, all bool) (routes []*route, _ engine.Plan, _ error) {
	routes = make([]*route, 0, len(state.Services))
	plan := engine.Plan{Services: make([]engine.Service, 0, len(state.Services))}
	for _, s := range state.Services {
		r := s.route
		if r == nil { // it is new, or another of that name was changed
			r = d.routes[s.Config.Name]
		}
		var who *access
		if r != nil {
			who = r.who
		}
		if r == nil || all {
			who = accessOf(s.Config, d.lists, who)
		}
		if r == nil || r.dirty || all && (r.of != s || r.who != who) {
			var err error
			if r, err = newRoute(s, d.started.Engine.Zone, d.hooks(s.Config.Name), who, r, d.tls); err != nil {
				return nil, plan, fmt.Errorf("service %q: %w", s.Config.Name, err)
			}
			d.shareLimits(r.plan.Limits)
		}
		routes = append(routes, r)
		plan.Services = append(plan.Services, d.closed.without(r.planned))
	}
	return routes, plan, nil
}

// sources returns a host to which connections come from the client's address, and one to
// which they go out by an interface; "" for none.
func sources(s *config.Service) (client, device string) {
	for _, g := range s.Groups {
		for _, h := range g.Hosts {
			if h.Source == config.ClientSource {
				client = h.Name
			}
			if h.Interface != "" {
				device = h.Name
			}
		}
	}
	return client, device
}

// routed notes the routes that the engine has taken for the services of a state.
func (d *Director) routed(state *State, routes []*route) {
	for i, s := range state.Services {
		if r := routes[i]; s.route != r {
			s.route = r
			d.routes[s.Config.Name] = r
		}
	}
	if len(d.routes) > len(state.Services) { // some have gone
		there := make(map[string]bool, len(state.Services))
		for _, s := range state.Services {
			there[s.Config.Name] = true
		}
		maps.DeleteFunc(d.routes, func(name string, _ *route) bool { return !there[name] })
	}
}

// planOf returns what the engine needs to know about a service and its route.
func planOf(c *config.Service, r *engine.Route, tls *certs.Set) engine.Service {
	p := engine.Service{Name: c.Name, Route: r}
	p.ClientSource, p.HostInterface = sources(c)
	for i := range c.Listen {
		l := &c.Listen[i]
		p.Listen = append(p.Listen, l.Address)
		if o, some := ListenOptions(l); some {
			if p.ListenOptions == nil {
				p.ListenOptions = map[string]engine.ListenOptions{}
			}
			o.TLS = tls.Server(serverKey(c.Name, l.Address))
			p.ListenOptions[l.Address] = o
		}
	}
	return p
}

// ListenOptions returns those of a listener without its TLS, and whether it has some.
func ListenOptions(l *config.Listen) (o engine.ListenOptions, some bool) {
	return engine.ListenOptions{
		FreeBind: l.FreeBind, Interface: l.Interface, DeferAccept: l.DeferAccept, FastOpen: l.FastOpen, MPTCP: l.MPTCP,
		StartTLS: startTLS[l.StartTLS],
		Proxy:    proxyHeaders[l.ProxyProtocol], ProxyFrom: l.ProxyFrom.Prefixes(),
	}, *l != config.Listen{Address: l.Address, Pos: l.Pos}
}

// startTLS is what <listen startTLS> may say.
var startTLS = map[string]engine.StartTLS{"postgres": engine.StartTLSPostgres, "smtp": engine.StartTLSSMTP}

// proxyHeaders are what <listen proxyProtocol> may say.
var proxyHeaders = map[string]engine.ProxyHeaders{"accept": engine.ProxyAccept, "require": engine.ProxyRequire}

// newRoute builds the route of a service for a node of a zone. A table continues where
// its predecessor was.
func newRoute(s *Service, zone string, hooks Hooks, who *access, before *route, tls *certs.Set) (*route, error) {
	c := s.Config
	r := &route{of: s, who: who, plan: &engine.Route{
		Timeouts: engine.Timeouts{
			Connect: c.Timeouts.Connect, Total: c.Timeouts.Total,
			Idle: c.Timeouts.Idle, HalfClosed: c.Timeouts.WhenHalfClosed(), MaxAge: c.Timeouts.MaxAge,
			Unacked: c.Timeouts.Unacked, KeepAlive: c.Timeouts.KeepAlive, Hello: c.Timeouts.Hello,
			Queue: c.Timeouts.Queue,
		},
		Tries:    c.Limits.Tries,
		Limits:   limitsOf(&c.Limits),
		Fallback: hooks.Fallback,
	}}
	r.planned = planOf(c, r.plan, tls)
	if who != nil {
		r.plan.Denied = who.list.Denied
	}
	r.tables = make(map[engine.GroupID]*sched.Table, 1)
	for _, g := range s.Groups {
		if !g.Takes {
			continue
		}
		var was *sched.Table
		if before != nil {
			was = before.tables[g.id]
		}
		table, err := g.table(zone, was)
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", g.Config.Name, err)
		}
		r.tables[g.id] = table
		r.plan.Goroutines = r.plan.Goroutines || g.encrypts()
		if g.Config.Enabled {
			r.plan.Table = table
		}
	}
	if s.rules != nil {
		r.plan.Choose, r.plan.Groups, r.plan.ByHello = s.rules.choose, r.tables, s.rules.hello
	}
	return r, nil
}

// limitsOf returns the limits of a service, nil if it has none.
func limitsOf(c *config.Limits) *engine.Limits {
	l := engine.Limits{Sessions: c.Sessions, PerClient: c.PerClient, Rate: c.Rate, PerClientRate: c.PerClientRate, Shared: c.Shared()}
	if l == (engine.Limits{}) {
		return nil
	}
	return &l
}

// shareLimits says how much of limits that nodes share the engine may use at first. A node of no
// fleet has them alone. The route is not published yet.
func (d *Director) shareLimits(l *engine.Limits) {
	switch {
	case l == nil || !l.Shared:
	case d.opt.Fleet == nil:
		l.Shared = false
	default:
		l.Share = engine.Allotment{Sessions: d.opt.Fleet.Share(l.Sessions), Rate: d.opt.Fleet.Share(l.Rate)}
	}
}

// table builds the table of a group. It continues where the one before was, if there
// was one.
func (g *Group) table(zone string, before *sched.Table) (*sched.Table, error) {
	scheduler, weights := g.shares()
	policy := sched.Policy{
		Group: g.Config.Name, Scheduler: scheduler, Refuse: g.Config.AllDown == "refuse", Seed: rand.Uint64(),
		Before: before, Sticky: g.Sticky, Custom: g.custom, Mirrors: g.mirrorShares(),
		Gate: g.holding.gate, Await: g.Awaits(), MostHeld: g.MostHeld(), Times: g.Times,
	}
	if before != nil {
		policy.Start = before.Next()
	}
	members, spares := make([]sched.Member, 0, len(g.Hosts)), g.spares()
	for _, h := range g.Hosts {
		if h.Config.State != "ready" {
			continue
		}
		for i, t := range h.Targets {
			if t.waiting && g.Config.StartDown {
				continue // not even as a last resort
			}
			if t.grey.ejection.out() && spares {
				continue
			}
			weight, full := weights(h.Shares[i], t)
			members = append(members, sched.Member{
				Host: t.Host, Weight: weight, Full: full, Backup: h.Shares[i].Backup, Far: h.Config.Far(zone),
			})
		}
	}
	return sched.NewTable(policy, members)
}

// publishPlan gives the engine new tables if health has changed.
func (d *Director) publishPlan() {
	if !d.dirty {
		return
	}
	d.dirty = false
	routes, plan, err := d.plan(d.State(), false)
	if err == nil {
		err = d.eng.Apply(plan)
	}
	if err != nil {
		// Listeners stay as they are and tables were accepted before, so this
		// is an engine that is closing. Hosts that are down are passed over
		// without a new table as well.
		d.log.Warn("engine rejected new tables", "err", err)
		return
	}
	d.routed(d.State(), routes)
}

// changed notes that a service needs a new table.
func (d *Director) changed(service string) {
	if r := d.routes[service]; r != nil {
		r.dirty = true
		d.dirty = true
	}
}
