package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/fleet"
)

// inFleet makes the process of a rig a node of this fleet.
func inFleet(s *atomic.Pointer[fleet.Status]) func(*Options) {
	return func(o *Options) { o.Status.Fleet = s.Load }
}

// threeNodes is a fleet of which lb1 is this process, lb2 lags, and lb3 is not ready.
func threeNodes() *fleet.Status {
	node := func(name string, ready bool, unready, problem string, generation uint64) fleet.Info {
		return fleet.Info{Member: fleet.Member{
			Name: name, Version: "0.6.0", Ready: ready, Unready: unready, Problem: problem, Generation: generation, Sessions: 1204,
		}, Behind: 7 - generation, Lag: 4}
	}
	return &fleet.Status{
		Fleet: "edge", Node: "lb1", Joined: true, Since: time.Now(), Generation: 7, Running: 7,
		Nodes: []fleet.Info{
			node("lb1", true, "", "", 7), node("lb2", true, "", "generation 7 cannot run here: no file <ca.pem>", 6), node("lb3", false, "2 of 2 services without a usable host", "", 7),
		},
		Order: &fleet.Order{
			ID: "1", Verb: "upgrade", By: "boss", Node: "lb1", Begun: time.Now(), Ended: time.Now(), Problem: "node lb3 is not ready",
			Steps: []fleet.Step{{Node: "lb2", State: fleet.Done, Before: "0.5.0", After: "0.6.0"}, {Node: "lb3", State: fleet.Failed}, {Node: "lb1", State: fleet.Waiting}},
		},
	}
}

// The page of any node shows all, problems first, this one marked, and offers what can be done
// with each to those who may. The running page says where changes go.
func TestFleetPage(t *testing.T) {
	var s atomic.Pointer[fleet.Status]
	s.Store(threeNodes())
	r := newRig(t, twoHosts, inFleet(&s))
	body := r.get("/fleet")
	last := 0
	for _, want := range []string{
		"<h1>Fleet edge</h1>", "Generation 7. Changes that you make here go to 3 nodes.",
		"▲</span> upgrade by boss on lb1: stopped after 1 of 3 nodes: node lb3 is not ready; done: lb2; not done: lb3, lb1",
		"lb2: done, 0.5.0 to 0.6.0", `<tr class="critical"><th scope="row">lb3</th>`, "not ready", "2 of 2 services without a usable host",
		`<tr class="warning"><th scope="row">lb2</th>`, "no file &lt;ca.pem&gt;", "1, 4 s", "1,204", `lb1 <span class="tag">this node</span>`, "upgrade&amp;fleet=yes",
	} {
		at := strings.Index(body[last:], want)
		if at < 0 {
			t.Fatalf("no %q behind the %d first letters of\n%s", want, last, body)
		}
		last += at
	}
	if text := r.get("/"); !strings.Contains(text, `<a href="fleet">Fleet edge</a>: changes go to 3 nodes; 2 nodes with a problem`) {
		t.Errorf("the running page says\n%s", text)
	}
	for path, want := range map[string]string{
		"/ask?verb=upgrade&fleet=yes": "Upgrade all nodes of the fleet, one after the other?",
		"/ask?verb=upgrade&node=lb2":  "Hand over to the installed program on node lb2?",
		"/ask?verb=shutdown&node=lb3": "Shut down node lb3?",
	} {
		if body := r.get(path); !strings.Contains(body, want) || strings.Contains(path, "node=") && !strings.Contains(body, `name="node" value="`+path[len(path)-3:]) {
			t.Errorf("%s:\n%s", path, body)
		}
	}
	if a := r.do("guest", "GET", "/fleet", ""); a.StatusCode != http.StatusOK || strings.Contains(a.body, "ask?verb") {
		t.Errorf("a readonly user: %s\n%s", a.Status, a.body)
	}
	gone := threeNodes()
	gone.Joined, gone.Why, gone.Order = false, "no quorum", nil
	s.Store(gone)
	if text := r.get("/fleet"); !strings.Contains(text, "<b>Changes are refused</b>: this node has not joined. no quorum") {
		t.Errorf("without the store:\n%s", text)
	}
}

// Without a fleet there is no page of it, and no link to one.
func TestNoFleetPage(t *testing.T) {
	r := newRig(t, twoHosts)
	if a := r.do("boss", "GET", "/fleet", ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("%s\n%s", a.Status, a.body)
	}
	if text := r.get("/"); strings.Contains(text, "leet") {
		t.Errorf("the running page speaks of a fleet:\n%s", text)
	}
}

// withFleet is an admin that reports threeNodes.
func withFleet(o *Options) *admin.Admin {
	return admin.New(admin.Options{
		Director: o.Director, Engine: o.Engine, Status: o.Status, Process: process{}, Log: o.Log,
		Reports: map[string]admin.Report{"show fleet": func(context.Context) (string, any, error) { return "", threeNodes(), nil }},
	})
}

// The OpenAPI document says what /api/v1/fleet has.
func TestFleetInOpenAPI(t *testing.T) {
	r := newRig(t, twoHosts, func(o *Options) { o.Admin = withFleet(o) })
	var doc struct {
		Paths map[string]any
	}
	if err := json.Unmarshal([]byte(r.get("/api/v1/openapi.json")), &doc); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc.Paths["/api/v1/fleet"])
	if err != nil || !strings.Contains(string(text), "#/components/schemas/") && !strings.Contains(string(text), "generation") {
		t.Errorf("%s, %v", text, err)
	}
	var answer struct{ Data fleet.Status }
	if err := json.Unmarshal([]byte(r.get("/api/v1/fleet")), &answer); err != nil || len(answer.Data.Nodes) != 3 || answer.Data.Nodes[2].Unready == "" {
		t.Errorf("%+v, %v", answer, err)
	}
}
