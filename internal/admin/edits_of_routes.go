package admin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
)

// routeNumber is the place of a route among those of its service, from 1 on.
func routeNumber(name string) Param {
	return Param{Name: name, Kind: Number, Low: 1, High: 1_000_000, Help: "place of the route, as show routes has it"}
}

func addRoute(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	r := config.NewRoute(g.Name)
	e.assign("route", r)
	at := len(s.Routes)
	if n, given := e.args.number("at"); given {
		if at = int(n) - 1; at > len(s.Routes) {
			return fmt.Errorf("at: service %s has %s, so the new one is at most number %d", show(s.Name), count(len(s.Routes), "route"), len(s.Routes)+1)
		}
	}
	if slices.ContainsFunc(s.Routes[:at], takesEvery) {
		e.Warn("the route is never reached: one before it matches every client")
	}
	s.Routes = slices.Insert(s.Routes, at, *r)
	return e.Do("add route %d to service %s: %s", at+1, show(s.Name), DescribeRoute(r))
}

func takesEvery(r config.Route) bool { return r.Conditions() == "" && r.Percent == 100 }

// DescribeRoute tells in words who goes where.
func DescribeRoute(r *config.Route) string {
	text := r.Conditions()
	switch {
	case r.Percent < 100 && text != "":
		text = fmt.Sprintf("%d %% of clients with %s", r.Percent, text)
	case r.Percent < 100:
		text = fmt.Sprintf("%d %% of clients", r.Percent)
	case text == "":
		text = "every client"
	default:
		text = "clients with " + text
	}
	return text + " to group " + show(r.Group)
}

// route finds a route of the service by its number.
func (e *edit) route() (*config.Service, int, error) {
	s, err := e.service()
	if err != nil {
		return nil, 0, err
	}
	n, _ := e.args.number("number")
	switch {
	case len(s.Routes) == 0:
		return nil, 0, refuse(ErrUnknownName, "service %s has no routes", show(s.Name))
	case int(n) > len(s.Routes):
		return nil, 0, refuse(ErrUnknownName, "service %s has no route %d; the last is number %d", show(s.Name), n, len(s.Routes))
	}
	return s, int(n) - 1, nil
}

func delRoute(e *edit) error {
	s, i, err := e.route()
	if err != nil {
		return err
	}
	gone := s.Routes[i]
	s.Routes = slices.Delete(s.Routes, i, i+1)
	return e.Do("delete route %d of service %s: %s", i+1, show(s.Name), DescribeRoute(&gone))
}

func setRoute(e *edit) error {
	if err := e.some("route"); err != nil {
		return err
	}
	s, i, err := e.route()
	if err != nil {
		return err
	}
	if e.args.given("group") {
		if _, err := edits.Group(s, e.args.text("group")); err != nil {
			return err
		}
	}
	return e.Told(fmt.Sprintf("route %d of service %s", i+1, show(s.Name)), e.assign("route", &s.Routes[i]))
}

// RouteInfo is one route in the Data of show routes.
type RouteInfo struct {
	Service  string `json:"service"`
	Number   int    `json:"number"` // its place, from 1 on
	SNI      string `json:"sni"`    // "": any
	ALPN     string `json:"alpn"`   // "": any
	Net      string `json:"net"`    // "": any
	Percent  int    `json:"percent"`
	Group    string `json:"group"`
	Sessions uint64 `json:"sessions_total"` // that it has sent there
}

func (k *call) showRoutes() (Result, error) {
	state, want := k.state(), k.args.text("service")
	if want != "" {
		if _, err := edits.Service(state.Config, want); err != nil {
			return Result{}, err
		}
	}
	infos := []RouteInfo{}
	t := table{head: []string{"service", "group", "route", "percent", "total", "conditions"}, right: 2}
	for _, s := range state.Services {
		if want != "" && s.Config.Name != want {
			continue
		}
		taken := s.Routed()
		for i := range s.Config.Routes {
			r := &s.Config.Routes[i]
			infos = append(infos, RouteInfo{
				Service: s.Config.Name, Number: i + 1, SNI: r.SNI, ALPN: r.ALPN, Net: string(r.Nets), Percent: r.Percent, Group: r.Group, Sessions: taken[i],
			})
			t.row(s.Config.Name, r.Group, i+1, r.Percent, taken[i], strings.ReplaceAll(r.Conditions(), `"`, ""))
		}
	}
	t.moved = true
	return Result{Text: t.String(), Data: infos, Generation: state.Generation}, nil
}
