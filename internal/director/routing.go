package director

import (
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/routing"
)

// rules are the <route>s of a service, ready for clients. They are immutable but for
// their counters.
type rules struct {
	routes []config.Route
	groups []engine.GroupID // of the routes
	table  *routing.Table
	hello  bool // what a client's TLS asks for matters to one of them
}

// rulesOf returns the rules of a service, nil without any: what before was, if nothing
// has changed. A route that stays keeps its counters.
func rulesOf(s *Service, before *rules) *rules {
	list := s.Config.Routes
	if len(list) == 0 {
		return nil
	}
	ids := make(map[string]engine.GroupID, len(s.Groups))
	for _, g := range s.Groups {
		ids[g.Config.Name] = g.id
	}
	r := &rules{routes: list, groups: make([]engine.GroupID, len(list))}
	for i := range list {
		r.groups[i] = ids[list[i].Group]
		r.hello = r.hello || list[i].ByHello() && list[i].Percent > 0
	}
	if before != nil && slices.Equal(before.groups, r.groups) && slices.EqualFunc(before.routes, list, sameRoute) {
		return before
	}
	compiled := make([]routing.Rule, len(list))
	for i := range list {
		compiled[i] = ruleOf(&list[i])
	}
	if before == nil {
		r.table = routing.New(compiled, nil, nil)
		return r
	}
	places := make(map[routeKey]int, len(before.routes)) // of routes before
	for i, key := range routeKeys(before.routes) {
		places[key] = i
	}
	keys := routeKeys(list)
	r.table = routing.New(compiled, before.table, func(i int) int {
		if place, ok := places[keys[i]]; ok && before.routes[place].Group == list[i].Group {
			return place
		}
		return routing.None
	})
	return r
}

// routeKey is what makes a route the same one across changes. Several may have the same
// conditions, when each takes a part of the clients.
type routeKey struct {
	sni, alpn, nets string
	n               int
}

func routeKeys(list []config.Route) []routeKey {
	keys, seen := make([]routeKey, len(list)), make(map[routeKey]int, len(list))
	for i := range list {
		key := routeKey{list[i].SNI, list[i].ALPN, string(list[i].Nets), 0}
		keys[i] = key
		keys[i].n = seen[key]
		seen[key]++
	}
	return keys
}

func sameRoute(a, b config.Route) bool {
	a.Pos, b.Pos = config.Pos{}, config.Pos{}
	return a == b
}

func ruleOf(r *config.Route) routing.Rule {
	rule := routing.Rule{ALPN: strings.Fields(r.ALPN), Nets: r.Nets.Prefixes(), Percent: r.Percent}
	for _, name := range strings.Fields(r.SNI) {
		rule.Names = append(rule.Names, routing.Parse(name))
	}
	return rule
}

// choose is engine.Route.Choose.
func (r *rules) choose(a engine.Asking) engine.GroupID {
	if i := r.table.Choose(routing.Client{Addr: a.Client, Name: a.Name, ALPN: a.ALPN}); i != routing.None {
		return r.groups[i]
	}
	return engine.Default
}

// Routed returns how many clients each route of the service has had, in their order,
// since the route is there.
func (s *Service) Routed() []uint64 {
	if s.rules == nil {
		return nil
	}
	list := make([]uint64, len(s.rules.routes))
	for i := range list {
		list[i] = s.rules.table.Taken(i)
	}
	return list
}
