package page

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// FleetView is the fleet that this process is a node of.
type FleetView struct {
	Name       string
	Generation uint64
	Joined     bool   // this node, which so takes changes
	Why        string // it has not joined
	Nodes      []NodeView
	Order      *OrderView // what nodes are told to do, or were told lately
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
	Problem       string
}

// OrderView is what nodes do one after the other.
type OrderView struct {
	Level   Level
	Text    string // in one line
	Running bool
	Steps   []string
}

// Fleet is the fleet, nil if the process is in none. Nodes with problems come first.
func (v *View) Fleet() *FleetView {
	f := v.Reading.Fleet
	if f == nil {
		return nil
	}
	one := &FleetView{Name: f.Fleet, Generation: f.Generation, Joined: f.Joined, Why: f.Why}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		row := NodeView{
			Name: n.Name, Version: n.Version, Here: n.Name == f.Node, State: "ready", Generation: n.Generation, Sessions: n.Sessions, Problem: n.Why(),
		}
		if n.Behind > 0 {
			row.Lag = fmt.Sprintf("%d, %s", n.Behind, span(time.Duration(n.Lag*float64(time.Second))))
			row.Level, row.State = Notice, "ready, follows"
		}
		if row.Problem != "" {
			row.Level, row.State = Warning, "ready, with a problem"
		}
		if !n.Ready {
			row.Level, row.State = Critical, "not ready"
		}
		one.Nodes = append(one.Nodes, row)
	}
	slices.SortStableFunc(one.Nodes, func(a, b NodeView) int { return cmp.Compare(b.Level, a.Level) })
	if o := f.Order; o != nil {
		order := &OrderView{Text: fmt.Sprintf("%s by %s on %s: %s", o.Verb, o.By, o.Node, o.Summary()), Running: o.Ended.IsZero()}
		if o.Problem != "" {
			order.Level = Warning
		} else if order.Running {
			order.Level = Notice
		}
		for _, s := range o.Steps {
			text := s.Node + ": " + s.State
			if s.After != "" {
				text += ", " + s.Before + " to " + s.After
			}
			order.Steps = append(order.Steps, text)
		}
		one.Order = order
	}
	return one
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
