package page

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/status"
)

// FleetView is the fleet that this process is a node of.
type FleetView struct {
	Name       string
	Node       string // this one
	Generation uint64
	Joined     bool   // this node, which so takes changes
	Why        string // it has not joined
	Silent     string // for how long the store has not answered; "": it does
	Refused    string // why the store does not do what this node asks; "": it does
	Nodes      []NodeView
	Order      *OrderView // what nodes are told to do, or were told lately

	Unconfirmed []FleetChange // changes that wait to be confirmed, the oldest first
	Holds       []FleetHold   // groups that all nodes hold
	Checks      string        // how the nodes share checks, in a line; "": they share none
	Closed      string        // why other nodes cannot follow this one
	Remedy      string        // for that
}

// NodeView is one node of a fleet.
type NodeView struct {
	Name, Version string
	Here          bool // it is this process
	Level         Level
	State         string // in words
	Generation    uint64
	Lag           string // "": none
	Sessions      int64
	Problems      []NodeProblem
}

// NodeProblem is what is wrong with a node.
type NodeProblem struct{ Text, Remedy string }

// OrderView is what nodes do one after the other.
type OrderView struct {
	Level       Level
	Text        string // in one line
	Remedy      string // what would help, "" if nothing has to
	Running     bool
	Steps       []string
	Cancellable string // the label of the button, "" without one
}

// FleetChange is a change that is undone on all nodes unless it is confirmed.
type FleetChange struct {
	What, By, Node string
	Until          time.Time
	Fate           string // what becomes of it, if its time is over
	Confirm        Action
}

// FleetHold is a group that all nodes hold.
type FleetHold struct {
	Group, Service, By, Node string
	Words                    string // what becomes of its clients
	Until                    time.Time
	Release                  Action
}

// Fleet is the fleet, nil if the process is in none. Nodes with problems come first.
func (v *View) Fleet() *FleetView {
	f := v.Reading.Fleet
	if f == nil {
		return nil
	}
	one := &FleetView{Name: f.Fleet, Node: f.Node, Generation: f.Generation, Joined: f.Joined, Why: f.Why, Refused: f.Refused, Order: orderView(f)}
	if f.Joined && f.Silent > 0 {
		one.Silent = span(time.Duration(f.Silent * float64(time.Second)))
	}
	if f.Shares != nil {
		one.Closed, one.Remedy = f.Shares.Closed, f.Shares.Remedy()
		one.Remedy = strings.ToUpper(one.Remedy[:1]) + one.Remedy[1:]
		one.Checks, _, _ = strings.Cut(f.Shares.String(), "\n")
		one.Checks = strings.ToUpper(one.Checks[:1]) + one.Checks[1:]
	}
	for i := range f.Nodes {
		one.Nodes = append(one.Nodes, nodeView(f, &f.Nodes[i]))
	}
	slices.SortStableFunc(one.Nodes, func(a, b NodeView) int { return cmp.Or(cmp.Compare(b.Level, a.Level), strings.Compare(a.Name, b.Name)) })
	for _, u := range f.Unconfirmed {
		c := FleetChange{
			What: u.Verb, By: u.By, Node: u.Node, Until: u.Until,
			Confirm: Action{"Confirm", "confirm", []Param{{"change", strconv.FormatUint(u.Generation, 10)}}},
		}
		switch {
		case u.Over && !f.Joined:
			c.Fate = "without the store nothing is undone"
		case u.Over:
			c.Fate = "a node undoes it"
		}
		one.Unconfirmed = append(one.Unconfirmed, c)
	}
	for _, h := range f.Holds {
		words := "held"
		if h.Releasing {
			words = "being let out"
		}
		one.Holds = append(one.Holds, FleetHold{
			h.Group, h.Service, h.By, h.Node, words, h.Until, Action{"Release", "release", Where{Service: h.Service, Group: h.Group}.params()},
		})
	}
	return one
}

// nodeView is a node as this one sees it.
func nodeView(f *fleet.Status, n *fleet.Info) NodeView {
	row := NodeView{
		Name: n.Name, Version: n.Version, Here: n.Name == f.Node, State: "ready", Generation: n.Generation, Sessions: n.Sessions,
	}
	add := func(level Level, text, remedy string) {
		row.Level = max(row.Level, level)
		if text != "" {
			row.Problems = append(row.Problems, NodeProblem{text, remedy})
		}
	}
	if n.Behind > 0 {
		row.Lag = fmt.Sprintf("%d, %s", n.Behind, span(time.Duration(n.Lag*float64(time.Second))))
		row.State = "ready, follows"
		add(Notice, "", "")
	}
	if !n.Ready {
		add(Critical, n.Unready, "it gets no clients that a health check directs; look there: txlb ctl status")
	}
	if n.Problem != "" {
		add(Warning, n.Problem, "fix the cause on "+n.Name+"; it is tried again every few seconds")
	}
	if n.Unheard != "" {
		remedy := "its checks and sessions do not count here; see whether " + n.Peer + " can be reached from this node"
		if n.Peer == "" {
			remedy = "give it a <fleet listen>, as the others have"
		}
		add(Warning, "not heard by this node: "+n.Unheard, remedy)
	}
	switch row.Level {
	case Warning:
		row.State = "ready, with a problem"
	case Critical:
		row.State = "not ready"
	}
	return row
}

func orderView(f *fleet.Status) *OrderView {
	o := f.Order
	if o == nil && f.OrderProblem == "" {
		return nil
	}
	if o == nil {
		return &OrderView{Level: Warning, Text: f.OrderProblem, Remedy: "look at the page of a node with the newest version", Cancellable: "Delete it…"}
	}
	one := &OrderView{Text: o.Headline(), Running: o.Ended.IsZero()}
	switch {
	case o.Stopped():
		one.Level, one.Cancellable = Warning, "Forget it…"
		one.Remedy = "fix that node, then give the order again"
	case one.Running:
		one.Level, one.Cancellable = Notice, "Cancel…"
	}
	for _, s := range o.Steps {
		text := s.Node + ": " + s.State
		if s.After != "" {
			text += ", " + s.Before + " to " + s.After
		}
		one.Steps = append(one.Steps, text)
	}
	return one
}

// elsewhere is how many sessions other nodes have, short.
func elsewhere(s *status.Sessions) string {
	if !s.Complete {
		return "≥" + count(s.Sessions) + " elsewhere"
	}
	return "+" + count(s.Sessions) + " elsewhere"
}

// Count is how many nodes changes go to.
func (f *FleetView) Count() string { return plural(len(f.Nodes), "node") }

// Troubled is how many nodes have a problem.
func (f *FleetView) Troubled() (n int) {
	for i := range f.Nodes {
		if f.Nodes[i].Level > Notice {
			n++
		}
	}
	return n
}

// Asks is the address of the question before a verb is done on the node.
func (n *NodeView) Asks(verb string) string {
	return query("ask", []Param{{"verb", verb}, {"node", n.Name}})
}
