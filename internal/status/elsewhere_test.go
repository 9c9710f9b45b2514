package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
)

// elsewhere is a source that knows 12 sessions of each host but a.
func elsewhere(_, _ string, h *director.Host) (int64, bool) { return 12, h.Config.Name != "a" }

// A host has the sessions of other nodes only if they are known. A node that is not heard makes
// the number a lower bound, and is named.
func TestSessionsElsewhere(t *testing.T) {
	for _, test := range []struct {
		name          string
		fleet         *fleet.Status
		b, drain, why string
	}{
		{"no fleet", nil, "", "Draining: 1 host of web / main", ""},
		{"a fleet that shares nothing", &fleet.Status{}, "", "Draining: 1 host of web / main", ""},
		{"all are heard", &fleet.Status{Shares: &fleet.Shares{Complete: true}}, "12", "Draining: 1 host of web / main: 0 sessions here, 12 sessions on other nodes", ""},
		{"one is not", &fleet.Status{Shares: &fleet.Shares{Missing: []string{"lb3"}}}, ">=12", "Draining: 1 host of web / main: 0 sessions here, at least 12 sessions on other nodes", "node lb3 is not heard"},
		{"two are not", &fleet.Status{Shares: &fleet.Shares{Missing: []string{"lb2", "lb3"}}}, ">=12", "", "nodes lb2, lb3 are not heard"},
		{"without the store", &fleet.Status{Shares: &fleet.Shares{}}, ">=12", "", "this node has not joined, and may not know all nodes"},
	} {
		r := Read(Facts{State: state(t, web), Fleet: test.fleet, Elsewhere: elsewhere})
		hosts := r.Services[0].Groups[0].Hosts
		if hosts[0].Elsewhere != nil {
			t.Errorf("%s: host a has %v", test.name, hosts[0].Elsewhere)
		}
		switch e := hosts[1].Elsewhere; {
		case (e == nil) != (test.b == ""):
			t.Errorf("%s: host b has %v", test.name, e)
		case e != nil && e.String() != test.b:
			t.Errorf("%s: host b has %v; want %s", test.name, e, test.b)
		}
		if got := r.WhyIncomplete(); got != test.why {
			t.Errorf("%s: %q; want %q", test.name, got, test.why)
		}
		if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Kind == HostsDraining && strings.HasPrefix(p.Text, test.drain) }) {
			t.Errorf("%s: no %q among %v", test.name, test.drain, r.Problems)
		}
	}
}

// An upgrade of the fleet that has stopped is a problem of every node, until it is cancelled or
// another one begins.
func TestStoppedUpgradeIsAProblem(t *testing.T) {
	order := fleet.Order{
		ID: "1", Verb: fleet.Upgrade, By: "boss", Node: "lb1", Ended: time.Now(), Problem: "node lb3 is not ready",
		Steps: []fleet.Step{{Node: "lb2", State: fleet.Done}, {Node: "lb3", State: fleet.Failed}, {Node: "lb1", State: fleet.Waiting}},
	}
	problem := func(change func(o *fleet.Order)) string {
		o := order
		change(&o)
		r := Read(Facts{State: state(t, web), Fleet: &fleet.Status{Fleet: "edge", Joined: true, Order: &o}})
		for _, p := range r.Problems {
			if p.Kind == FleetUpgrade {
				return p.Text + " " + p.Remedy
			}
		}
		return ""
	}
	const want = "The fleet edge is upgraded in part: upgrade by boss on lb1: stopped after 1 of 3 nodes: node lb3 is not ready; done: lb2; not done: lb3, lb1" +
		" fix that node, then give upgrade --fleet again; upgrade --cancel forgets it"
	if got := problem(func(*fleet.Order) {}); got != want {
		t.Errorf("%q; want %q", got, want)
	}
	for name, change := range map[string]func(o *fleet.Order){
		"cancelled": func(o *fleet.Order) { o.Cancelled = true }, "it goes on": func(o *fleet.Order) { o.Problem, o.Ended = "", time.Time{} },
		"done": func(o *fleet.Order) { o.Problem = "" }, "a node is shut down": func(o *fleet.Order) { o.Verb = fleet.Shutdown },
	} {
		if got := problem(change); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
