package fleet

import (
	"strings"
	"testing"
	"time"
)

// What people read says how old it is, and knows nothing that the node does not.
func TestStatusInWords(t *testing.T) {
	now := time.Now()
	nodes := []Info{{Member: Member{Name: "a", Version: "1.2.3", Ready: true, Generation: 7}}}
	order := &Order{ID: "x", Verb: Upgrade, By: "ann", Node: "a", Begun: now, Steps: []Step{{Node: "a", State: Waiting}}}
	const table = "NODE  VERSION  READY  GENERATION  LAG  SESSIONS  PROBLEM\n"
	for _, c := range []struct {
		what string
		is   Status
		want string
	}{
		{"in step", Status{Joined: true, Generation: 7, Running: 7, Nodes: nodes}, "fleet edge, generation 7; this node is a, joined 0s ago\n" + table},
		{"without the store", Status{Why: "dead", Generation: 7, Running: 7, Nodes: nodes, Heard: now.Add(-6 * time.Second)},
			"not joined for 0s, changes are refused: dead\nthe nodes as the store has last told of them, 6s ago:\n" + table},
		{"with a silent store", Status{Joined: true, Silent: 6, Generation: 7, Running: 7, Nodes: nodes, Heard: now.Add(-6 * time.Second)},
			"but the store has not answered for 6s\nthe nodes as the store has last told of them, 6s ago:\n" + table},
		{"that has never joined", Status{Why: "dead", Running: 7},
			"fleet edge, its generation is not known and this node runs 7; this node is a, not joined for 0s, changes are refused: dead\nthe nodes are not known, as the store has told nothing yet"},
		{"that is new", Status{Why: "dead"}, "fleet edge, its generation is not known; this node is a, "},
		{"with an order", Status{Joined: true, Generation: 7, Running: 7, Nodes: nodes, Shares: &Shares{Checks: Checks{Nodes: 2}}, Order: order},
			"\nchecks, shared by 2 nodes: 0 hosts by this node, 0 by others alone\n\nupgrade by ann on a, "},
		{"alone", Status{Joined: true, Nodes: nodes, Shares: &Shares{Checks: Checks{Nodes: 1, Mine: 2}}}, "\nchecks, shared with no other node: 2 hosts by this node, "},
	} {
		c.is.Fleet, c.is.Node, c.is.Since = "edge", "a", now
		if text := c.is.String(); !strings.Contains(text, c.want) || strings.HasSuffix(text, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, text, c.want)
		}
	}
}
