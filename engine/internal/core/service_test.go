package core

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// A plan with other routes alone is told from one that asks for more: every field of a
// service and of its listeners counts.
func TestOnlyRoutes(t *testing.T) {
	plan := func(change func(p *engine.Plan)) engine.Plan {
		p := engine.Plan{Services: []engine.Service{
			{Name: "a", Listen: []string{"127.0.0.1:1"}, Route: &engine.Route{}},
			{Name: "b", Listen: []string{"127.0.0.1:2"}, Route: &engine.Route{}, ListenOptions: map[string]engine.ListenOptions{
				"127.0.0.1:2": {Proxy: engine.ProxyRequire, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			}},
		}}
		change(&p)
		return p
	}
	was := (&Serving[int]{}).Next(plan(func(*engine.Plan) {}), 1)
	if !was.OnlyRoutes(plan(func(*engine.Plan) {})) {
		t.Error("the same plan with other routes asks for more than routes")
	}
	for name, change := range map[string]func(*engine.Plan){
		"Name":   func(p *engine.Plan) { p.Services[0].Name = "c" },
		"Listen": func(p *engine.Plan) { p.Services[0].Listen = []string{"127.0.0.1:3"} },
		"Route":  func(p *engine.Plan) { p.Services[0].Route = nil },
		"ListenOptions": func(p *engine.Plan) {
			p.Services[0].ListenOptions = map[string]engine.ListenOptions{"127.0.0.1:1": {FreeBind: true}}
		},
		"ClientSource":  func(p *engine.Plan) { p.Services[0].ClientSource = "h" },
		"HostInterface": func(p *engine.Plan) { p.Services[0].HostInterface = "h" },
		"fewer":         func(p *engine.Plan) { p.Services = p.Services[:1] },
		"another order": func(p *engine.Plan) { p.Services[0], p.Services[1] = p.Services[1], p.Services[0] },
		"options":       func(p *engine.Plan) { p.Services[1].ListenOptions["127.0.0.1:2"] = engine.ListenOptions{} },
	} {
		if was.OnlyRoutes(plan(change)) {
			t.Errorf("%s: taken for a plan with other routes", name)
		}
	}
	if n := reflect.TypeFor[engine.Service]().NumField(); n != 6 {
		t.Errorf("engine.Service has %d fields, and OnlyRoutes compares 6", n)
	}
}

// Nobody opens the gate of a service that was removed: who is held there does not wait for ever.
func TestWhoIsHeldInAServiceThatGoesIsLetGo(t *testing.T) {
	table, err := sched.NewTable(sched.Policy{Gate: sched.NewGate()}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/h")), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	plan := engine.Plan{Services: []engine.Service{{Name: "a", Route: &engine.Route{Table: table}}, {Name: "b", Route: &engine.Route{Table: table}}}}
	was := (&Serving[int]{}).Next(plan, 1)
	was.Reroute(plan)
	var free Attempts
	var a Admission
	a.Begin(&Gate{Report: func(engine.Failure) {}}, Bare(was.Services["a"]), free.Get(), sched.Addr{}, 1)
	if step := a.Next(1); step.Do != Queue {
		t.Fatalf("%+v, and its group is held", step)
	}
	called := 0
	if step := a.Join(1, func() { called++ }); step.Do != Queued || step.Until != Never {
		t.Fatalf("%+v, and its group is held", step)
	}
	plan.Services = plan.Services[1:]
	next := was.Next(plan, 1)
	next.Reroute(plan)
	was.Dismiss(next)
	if called != 1 {
		t.Fatalf("called %d times", called)
	}
	step := a.Called(2)
	if step.Do != Refuse || step.Why != noGroup {
		t.Errorf("%+v, and its service has gone", step)
	}
	a.End(2, step.Why.Termination(), Last{})
	if n := table.Queue().Len(); n != 0 {
		t.Errorf("%d sessions wait", n)
	}
	if r := next.Services["b"].Route.Load(); r != plan.Services[0].Route {
		t.Error("a service that stays has another route")
	}
}

// The counts by reason are those of now, and maps that somebody has got never change.
func TestReasonsAreShared(t *testing.T) {
	svc := newService("a", 2)
	before := svc.stats()
	if again := svc.stats(); reflect.ValueOf(again.Ended).Pointer() != reflect.ValueOf(before.Ended).Pointer() {
		t.Error("the maps of a service whose counts have not moved are made again")
	}
	svc.Counts[1].ended[ClientAborted].Add(3)
	svc.Counts[0].refused[noHost].Add(2)
	svc.Counts[1].refused[noHost].Add(2)
	after := svc.stats()
	if after.Ended["CD"] != 3 || after.Refused["no_host"] != 4 || before.Ended["CD"] != 0 || before.Refused["no_host"] != 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, said := after.Refused["proxy_end"]; said {
		t.Error("reasons of PROXY headers are told where none are asked for")
	}
	svc.proxies.Store(true)
	if n, said := svc.stats().Refused["proxy_end"]; n != 0 || !said {
		t.Error("reasons of PROXY headers are not told")
	}
}
