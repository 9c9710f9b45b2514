package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/words"
)

// fakeFleet notes what it was asked for.
type fakeFleet struct {
	orders []string
	within time.Duration // until the deadline, 0: there was none
	err    error
}

func (f *fakeFleet) Order(ctx context.Context, verb string, nodes []string, by, from string) (string, any, error) {
	f.orders, f.within = append(f.orders, fmt.Sprint(verb, nodes, by, from)), 0
	if end, has := ctx.Deadline(); has {
		f.within = time.Until(end).Round(time.Second)
	}
	return "done on 2 nodes", map[string]int{"nodes": 2}, f.err
}

func (f *fakeFleet) Cancel(_ context.Context, id, by string) (string, any, error) {
	f.orders, f.within = append(f.orders, fmt.Sprintf("cancel %q by %s", id, by)), 0
	return "cancelled", map[string]int{"nodes": 2}, f.err
}

// upgrade and shutdown with --fleet or node= go to the nodes of the fleet, and not to this
// process. They wait for the end, but on the page and in the API not for long.
func TestVerbsOfTheFleet(t *testing.T) {
	op, nodes := &fakeProcess{}, &fakeFleet{}
	r := newRig(t, plainDoc(), func(o *Options) { o.Process, o.Fleet = op, nodes })
	for _, test := range []struct {
		line, want string
		via        string
		within     time.Duration
	}{
		{"upgrade --fleet", "upgrade[]boss127.0.0.1:999", "", 0},
		{"upgrade node=lb2", "upgrade[lb2]boss127.0.0.1:999", "socket", 0},
		{"upgrade --fleet", "upgrade[]boss127.0.0.1:999", "web", 10 * time.Second},
		{"upgrade --fleet wait=1m", "upgrade[]boss127.0.0.1:999", "web", time.Minute},
		{"shutdown node=lb2 wait=5s", "shutdown[lb2]boss127.0.0.1:999", "", 5 * time.Second},
		{"upgrade --cancel", `cancel "" by boss`, "", 0},
		{"upgrade --fleet --cancel order=7", `cancel "7" by boss`, "web", 0},
	} {
		nodes.orders = nil
		results, err := r.a.Run(users.WithVia(t.Context(), test.via), boss, test.line)
		if err != nil || len(results) != 1 || results[0].Text != "done on 2 nodes" && results[0].Text != "cancelled" || results[0].Data == nil {
			t.Errorf("%s: %+v, %v", test.line, results, err)
		}
		if !slices.Equal(nodes.orders, []string{test.want}) || nodes.within != test.within {
			t.Errorf("%s: %v within %v; want %s within %v", test.line, nodes.orders, nodes.within, test.want, test.within)
		}
	}
	nodes.err = errors.New("stopped after 1 of 3 nodes")
	r.refused("upgrade --fleet", "upgrade: stopped after 1 of 3 nodes")
	nodes.orders = nil
	r.refused("upgrade --fleet node=a", "either --fleet, or node=")
	r.refused("upgrade --cancel node=lb2", "leave node= and wait= out")
	r.refused("upgrade --cancel wait=5s", "leave node= and wait= out")
	r.refused("upgrade order=7", "order= says what is cancelled; write --cancel too")
	r.refused("upgrade wait=5s", "wait= is for nodes of a fleet")
	r.refused("shutdown --fleet", `unknown option "fleet"`) // not all at once
	r.refused("shutdown lb2", `unexpected argument "lb2"`)
	for _, line := range []string{"upgrade --fleet", "upgrade --cancel"} {
		if _, err := r.a.Run(t.Context(), users.Caller{Name: "guest", Role: users.Readonly}, line); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("a readonly user, %s: %v", line, err)
		}
	}
	if len(nodes.orders)+len(op.calls) > 0 {
		t.Errorf("called %v, %v", nodes.orders, op.calls)
	}
	r.a.opt.Fleet = nil
	r.refused("upgrade --fleet", "not served here: it needs the fleet")
	r.refused("upgrade --cancel", "not served here: it needs the fleet")
}

// The question before a node is shut down is about that node, and its names complete.
func TestQuestionsAboutNodes(t *testing.T) {
	r := newRig(t, plainDoc(), func(o *Options) { o.Process, o.Fleet = &fakeProcess{}, &fakeFleet{} })
	r.a.opt.Status.Fleet = func() *fleet.Status {
		return &fleet.Status{Nodes: []fleet.Info{{Member: fleet.Member{Name: "lb1"}}, {Member: fleet.Member{Name: "lb2"}}}}
	}
	ask := func(line string) string {
		commands, err := words.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		return r.a.Question(commands[0])
	}
	if got := ask("shutdown node=lb2"); got != "Shut down node lb2? Its /readyz says 503, and after <engine grace> it refuses new clients. "+
		"Sessions still open at the drain timeout are closed. Then its process ends. Another node cannot start it again." {
		t.Error(got)
	}
	if got := ask("shutdown"); got == "" || got == ask("shutdown node=lb2") {
		t.Error(got)
	}
	for line, want := range map[string][]string{
		"upgrade ":        {"--cancel", "--fleet", "node=", "order=", "wait="},
		"upgrade node=":   {"node=lb1", "node=lb2"},
		"shutdown node=l": {"node=lb1", "node=lb2"},
	} {
		if got := r.a.Complete(line); !slices.Equal(got, want) {
			t.Errorf("%q completes to %q; want %q", line, got, want)
		}
	}
}
