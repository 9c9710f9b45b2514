package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/fleet/peers"
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
	s := &fleet.Status{
		Fleet: "edge", Node: "lb1", Joined: true, Since: time.Now(), Generation: 7, Running: 7,
		Nodes: []fleet.Info{
			node("lb1", true, "", "", 7), node("lb2", true, "", "generation 7 cannot run here: no file <ca.pem>", 6), node("lb3", false, "2 of 2 services without a usable host", "", 7),
		},
		Order: &fleet.Order{
			ID: "1", Verb: "upgrade", By: "boss", Node: "lb1", Begun: time.Now(), Ended: time.Now(), Problem: "node lb3 is not ready",
			Steps: []fleet.Step{{Node: "lb2", State: fleet.Done, Before: "0.5.0", After: "0.6.0"}, {Node: "lb3", State: fleet.Failed}, {Node: "lb1", State: fleet.Waiting}},
		},
		Shares: &fleet.Shares{
			Checks: fleet.Checks{Nodes: 2, Mine: 134, Learned: 66}, Listen: "10.0.0.11:7946", Missing: []string{"lb3"},
			Peers: []peers.Peer{{Name: "lb2", Addr: "10.0.0.12:7946", Live: true, Counted: true, Checks: 66}, {Name: "lb3", Addr: "10.0.0.13:7946", Why: "dial: connection refused"}},
		},
		Unconfirmed: []fleet.Unconfirmed{{Generation: 7, Node: "lb2", By: "ann", Verb: "enableGroup web spare", Until: time.Now().Add(5 * time.Minute)}},
		Holds:       []fleet.Held{{Service: "db", Group: "main", Node: "lb1", By: "ann", Until: time.Now().Add(25 * time.Second)}},
	}
	s.Nodes[1].Peer, s.Nodes[2].Peer, s.Nodes[2].Unheard = "10.0.0.12:7946", "10.0.0.13:7946", "dial: connection refused"
	return s
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
		"<h1>Fleet edge</h1>", "Generation 7. Changes that you make here go to 3 nodes. You are on <b>lb1</b>.",
		"▲</span> upgrade by boss on lb1: stopped after 1 of 3 nodes: node lb3 is not ready; done: lb2; not done: lb3, lb1",
		"fix that node, then give the order again", "lb2: done, 0.5.0 to 0.6.0", `href="ask?verb=upgrade&amp;cancel=yes" data-dialog>Forget it…`,
		"<code>enableGroup web spare</code> by ann on lb2. Undone on all nodes in", `name="change" value="7"`, "Group main of db is held</b> on all nodes, by ann on lb1", "Release",
		`<tr class="critical"><th scope="row">lb3</th>`, "not ready", "2 of 2 services without a usable host", "look there: txlb ctl status",
		"not heard by this node: dial: connection refused", "see whether 10.0.0.13:7946 can be reached",
		`<tr class="warning"><th scope="row">lb2</th>`, "no file &lt;ca.pem&gt;", "fix the cause on lb2", "1, 4 s", "1,204", `lb1 <span class="tag">this node</span>`,
		"Checks, shared by 2 nodes: 134 hosts by this node, 66 by others alone.", "upgrade&amp;fleet=yes",
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
		"/ask?verb=upgrade&fleet=yes":  "Upgrade all nodes of the fleet, one after the other?",
		"/ask?verb=upgrade&node=lb2":   "Hand over to the installed program on node lb2?",
		"/ask?verb=shutdown&node=lb3":  "Shut down node lb3?",
		"/ask?verb=upgrade&cancel=yes": "upgrade by boss on lb1: stopped after 1 of 3 nodes: node lb3 is not ready; done: lb2; not done: lb3, lb1.",
	} {
		if body := r.get(path); !strings.Contains(body, want) || strings.Contains(path, "node=") && !strings.Contains(body, `name="node" value="`+path[len(path)-3:]) {
			t.Errorf("%s:\n%s", path, body)
		}
	}
	if a := r.do("guest", "GET", "/fleet", ""); a.StatusCode != http.StatusOK || strings.Contains(a.body, "ask?verb") || strings.Contains(a.body, "<form") {
		t.Errorf("a readonly user: %s\n%s", a.Status, a.body)
	}
	if body := r.get("/ask?verb=upgrade&cancel=yes"); !strings.Contains(body, `name="order" value="1"`) || !strings.Contains(body, `name="cancel" value="yes"`) || !strings.Contains(body, `href="fleet"`) {
		t.Errorf("the question does not say which order:\n%s", body)
	}
	going := threeNodes()
	going.Order.Ended, going.Order.Problem, going.Order.Steps[1].State = time.Time{}, "", fleet.Begun
	s.Store(going)
	if text := r.get("/fleet"); !strings.Contains(text, ">Cancel…</a>") {
		t.Errorf("while it goes on:\n%s", text)
	}
	going = threeNodes()
	going.Order, going.OrderProblem, going.OrderProblemID = nil, "what the store has cannot be used", "revision-7"
	s.Store(going)
	if text := r.get("/fleet"); !strings.Contains(text, ">Delete it…</a>") {
		t.Errorf("with an order that cannot be read:\n%s", text)
	}
	if body := r.get("/ask?verb=upgrade&cancel=yes"); !strings.Contains(body, `name="order" value="revision-7"`) {
		t.Errorf("the question does not say which order that cannot be read:\n%s", body)
	}
	silent := threeNodes()
	silent.Silent = 6
	s.Store(silent)
	if text := r.get("/fleet"); !strings.Contains(text, "<b>The store has not answered</b> for 6 s.") {
		t.Errorf("with a store that says nothing:\n%s", text)
	}
	full := threeNodes()
	full.Refused = "it cannot write to the store: no space"
	s.Store(full)
	if text := r.get("/fleet"); !strings.Contains(text, "<b>Changes are refused</b>: this node is in the fleet, but it cannot write to the store: no space") {
		t.Errorf("with a store that takes no writes:\n%s", text)
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

// nodesOf is what verbs do to a fleet in tests.
type nodesOf struct {
	cancelled func(id, by string) error
}

func (nodesOf) Order(context.Context, string, []string, string, string) (string, any, error) {
	return "done", nil, nil
}

func (n nodesOf) Cancel(_ context.Context, id, by string) (string, any, error) {
	if err := n.cancelled(id, by); err != nil {
		return "", nil, err
	}
	return "cancelled", &fleet.Order{ID: id}, nil
}

// withFleet is an admin that reports threeNodes.
func withFleet(o *Options) *admin.Admin {
	return admin.New(admin.Options{
		Director: o.Director, Engine: o.Engine, Status: o.Status, Process: process{}, Log: o.Log,
		Fleet: nodesOf{func(id, _ string) error {
			if id == "" || id == "1" {
				return nil
			}
			return errors.New("the order that was meant is not there any more")
		}},
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
	var done struct {
		Text string
		Data fleet.Order
	}
	a := r.do("boss", "POST", "/api/v1/upgrade", `{"cancel": true, "order": "1"}`, "Content-Type", "application/json")
	if err := json.Unmarshal([]byte(a.body), &done); err != nil || a.StatusCode != http.StatusOK || done.Text != "cancelled" || done.Data.ID != "1" {
		t.Errorf("%s: %s", a.Status, a.body)
	}
	if a := r.do("boss", "POST", "/api/v1/upgrade", `{"cancel": true, "order": "7"}`, "Content-Type", "application/json"); a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.body, "the order that was meant is not there any more") {
		t.Errorf("%s: %s", a.Status, a.body)
	}
	if a := r.do("guest", "POST", "/api/v1/upgrade", `{"cancel": true}`, "Content-Type", "application/json"); a.StatusCode != http.StatusForbidden {
		t.Errorf("a readonly user: %s: %s", a.Status, a.body)
	}
}

// Host rows have the sessions on other nodes, and questions what becomes of those; the API has
// them too. Without a fleet there are none.
func TestSessionsElsewhere(t *testing.T) {
	var s atomic.Pointer[fleet.Status]
	s.Store(threeNodes())
	r := newRig(t, twoHosts, inFleet(&s), func(o *Options) {
		o.Status.Elsewhere = func(_, _ string, h *director.Host) (int64, bool) { return 12, h.Config.Name == "a" }
	})
	for path, want := range map[string]string{
		"/": `title="Sessions on other nodes of the fleet">≥12 elsewhere</small>`,
		"/ask?verb=setHost&state=drain&service=web&group=main&name=a": "Other nodes of the fleet have at least 12 sessions, and do the same.",
		"/ask?verb=shutdownSessions&service=web&group=main&name=a":    "Other nodes of the fleet have at least 12 sessions, which go on.",
		"/api/v1/hosts": `"elsewhere":{"sessions":12,"complete":false}`,
	} {
		if body := r.get(path); strings.Count(body, want) != 1 {
			t.Errorf("%s has no %q, or more than one:\n%s", path, want, body)
		}
	}
	all := threeNodes()
	all.Shares.Missing, all.Shares.Complete = nil, true
	s.Store(all)
	if body := r.get("/"); !strings.Contains(body, ">+12 elsewhere</small>") {
		t.Errorf("with all nodes heard:\n%s", body)
	}
	r.post("/setHost", "service", "web", "group", "main", "name", "a", "state", "drain")
	if body := r.get("/status.txt"); !strings.Contains(body, "Draining: 1 host of web / main: 0 sessions here, 12 sessions on other nodes") {
		t.Error(body)
	}
	for _, path := range []string{"/", "/api/v1/hosts"} {
		if body := newRig(t, twoHosts).get(path); strings.Contains(body, "elsewhere") {
			t.Errorf("without a fleet, %s:\n%s", path, body)
		}
	}
}
