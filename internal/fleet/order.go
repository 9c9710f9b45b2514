package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/words"
)

// What nodes can be told to do.
const (
	Upgrade  = "upgrade"  // hand over to the program that is installed on the node
	Shutdown = "shutdown" // drain and shut down
)

// Order is something that nodes do one after the other, each when the one before is ready
// again. The store has it, so it outlives every process, and there is one at a time. No node
// leads: the one whose turn it is writes that it begins, and another judges what came of it.
type Order struct {
	ID      string    `json:"id"`
	Verb    string    `json:"verb"` // Upgrade or Shutdown
	By      string    `json:"by"`   // the user
	From    string    `json:"from,omitempty"`
	Node    string    `json:"node"` // that was asked; it is the last
	Begun   time.Time `json:"begun"`
	Steps   []Step    `json:"steps"`
	Ended   time.Time `json:"ended,omitzero"`
	Problem string    `json:"problem,omitempty"` // why it has stopped before its end, and what to do
	// Cancelled tells that somebody has ended it: Problem says who.
	Cancelled bool `json:"cancelled,omitempty"`
	// Answer is what came of it in the process that was asked, which has done its part and is
	// the node no more. Only [Node.Order] returns it.
	Answer string `json:"answer,omitempty"`
}

// Step is what an order has for one node.
type Step struct {
	Node     string    `json:"node"`
	State    string    `json:"state"`           // one of the states
	Since    time.Time `json:"since,omitzero"`  // of State, by the clock of who wrote it
	Instance string    `json:"instance"`        // of the process that has to do it
	Before   string    `json:"before"`          // its version
	After    string    `json:"after,omitempty"` // version of the process that has taken over
	// Grace is how long the process needs to end, beside what each may take. It says so when it
	// begins.
	Grace time.Duration `json:"grace,omitempty"`
}

// The states of a Step.
const (
	Waiting = "waiting" // it is not the node's turn
	Asked   = "asked"
	Begun   = "begun"
	Done    = "done"
	Failed  = "failed"
)

const (
	// beginWithin is how long a node may take until it writes that it begins.
	beginWithin = 30 * time.Second
	// changeWithin is how long it may take until another process is the node, or until it has
	// gone, beside two times its lease and its grace.
	changeWithin = time.Minute
	// maxGrace is the longest grace that an order may have. One that says more is damaged.
	maxGrace = 7 * 24 * time.Hour
	// readyWithin is how long a node may take to be ready, beside its lease.
	readyWithin = 15 * time.Second
)

func readOrder(value []byte) (*Order, error) {
	o := new(Order)
	if err := json.Unmarshal(value, o); err != nil {
		return nil, err
	}
	if o.ID == "" || len(o.Steps) == 0 || o.Verb != Upgrade && o.Verb != Shutdown {
		return nil, errors.New("it is not an order that this version of txlb knows")
	}
	if len(o.Steps) > maxNodes {
		return nil, fmt.Errorf("it is for %d nodes, and a fleet has at most %d", len(o.Steps), maxNodes)
	}
	for i := range o.Steps {
		s := &o.Steps[i]
		if !words.Plain(s.Node) || !slices.Contains([]string{Waiting, Asked, Begun, Done, Failed}, s.State) {
			return nil, fmt.Errorf("its step %d is not one that this version of txlb knows", i+1)
		}
		s.Before, s.After = note(s.Before), note(s.After)
		s.Grace = min(max(s.Grace, 0), maxGrace)
	}
	if o.current() == len(o.Steps) && o.Ended.IsZero() {
		return nil, errors.New("all its steps are done, and it has not ended")
	}
	o.ID, o.By, o.From, o.Node, o.Problem, o.Answer = note(o.ID), note(o.By), note(o.From), note(o.Node), note(o.Problem), ""
	return o, nil
}

// newOrder returns the order of these nodes in turn: asked is the last of them. The error says
// which of them cannot be told.
func newOrder(verb string, nodes []string, members map[string]Member, asked string) (*Order, error) {
	if len(nodes) == 0 {
		nodes = slices.Collect(maps.Keys(members))
	}
	nodes = slices.Compact(slices.Sorted(slices.Values(nodes)))
	if i := slices.Index(nodes, asked); i >= 0 {
		nodes = append(slices.Delete(nodes, i, i+1), asked)
	}
	o := &Order{ID: newID(), Verb: verb, Node: asked, Begun: time.Now()}
	for _, name := range nodes {
		m, there := members[name]
		if !there {
			return nil, fmt.Errorf("the fleet has no node %q now; it has %s", name, strings.Join(slices.Sorted(maps.Keys(members)), ", "))
		}
		o.Steps = append(o.Steps, Step{Node: name, State: Waiting, Instance: m.Instance, Before: m.Version})
	}
	return o, nil
}

// clone returns a copy to be changed.
func (o *Order) clone() *Order {
	c := *o
	c.Steps = slices.Clone(o.Steps)
	return &c
}

// over tells whether nothing is to be done any more.
func (o *Order) over() bool { return !o.Ended.IsZero() }

// current is the number of the step that is to be done, or is being done; len(Steps): all are.
func (o *Order) current() int {
	if i := slices.IndexFunc(o.Steps, func(s Step) bool { return s.State != Done }); i >= 0 {
		return i
	}
	return len(o.Steps)
}

// at returns a copy with a step in a state.
func (o *Order) at(i int, state string) *Order {
	c := o.clone()
	c.Steps[i].State, c.Steps[i].Since = state, time.Now()
	if i == len(c.Steps)-1 && state == Done {
		c.Ended = time.Now()
	}
	return c
}

// stopped returns a copy that has ended with a step.
func (o *Order) stopped(i int, format string, args ...any) *Order {
	c := o.at(i, Failed)
	c.Ended, c.Problem = time.Now(), fmt.Sprintf(format, args...)
	return c
}

// sight is what a node that judges an order sees.
type sight struct {
	members    map[string]Member
	generation uint64        // of the fleet when the step has come into its state
	waited     time.Duration // since then
	lease      time.Duration
}

// unfit tells why the order must not go on with a node as it is; nil: it may.
func (v *sight) unfit(name string) error {
	m, there := v.members[name]
	switch {
	case !there:
		return errors.New("is not in the fleet: its process has ended, or does not reach the store")
	case !m.Ready && m.Unready != "":
		return fmt.Errorf("is not ready: %s", m.Unready)
	case !m.Ready:
		return errors.New("is not ready")
	case m.Problem != "":
		return fmt.Errorf("has a problem: %s", m.Problem)
	case m.Generation < v.generation:
		return fmt.Errorf("runs generation %d, and the fleet has %d", m.Generation, v.generation)
	}
	return nil
}

// stage tells apart what a step waits for; each has a limit of its own.
func (o *Order) stage(v map[string]Member) string {
	i := o.current()
	if i == len(o.Steps) || o.over() {
		return ""
	}
	s := &o.Steps[i]
	stage := fmt.Sprint(o.ID, " ", i, " ", s.State)
	if m, there := v[s.Node]; s.State == Begun && there && m.Instance != s.Instance {
		stage += " " + m.Instance
	}
	return stage
}

// next is the order after the next thing that has to be written, as a judge sees it; nil:
// nothing has, before after is over or something changes.
func (o *Order) next(v sight) (to *Order, after time.Duration) {
	i := o.current()
	if o.over() || i == len(o.Steps) {
		return nil, 0
	}
	s := &o.Steps[i]
	m, there := v.members[s.Node]
	changed := there && m.Instance != s.Instance
	late := func(limit time.Duration, stopped func() *Order) (*Order, time.Duration) {
		if v.waited >= limit {
			return stopped(), 0
		}
		return nil, limit - v.waited
	}
	switch {
	case s.State == Waiting:
		return o.nextTurn(i, &v)
	case o.Verb == Shutdown && !there:
		return o.at(i, Done), 0
	case s.State == Asked && !changed:
		return late(beginWithin, func() *Order {
			return o.stopped(i, "node %s has not begun within %v: is it there, and reaches the store? See its log", s.Node, beginWithin)
		})
	case !changed:
		limit := changeWithin + 2*v.lease + s.Grace
		return late(limit, func() *Order {
			return o.stopped(i, "node %s has begun, and is not done after %v: see its log", s.Node, limit)
		})
	case o.Verb == Shutdown:
		return o.stopped(i, "node %s was started again before the others had seen it end", s.Node), 0
	}
	if err := v.unfit(s.Node); err != nil {
		limit := readyWithin + v.lease
		return late(limit, func() *Order {
			return o.stopped(i, "node %s has been upgraded to txlb %s, and %v after that %v: see its log", s.Node, m.Version, limit, err)
		})
	}
	if i > 0 && o.Steps[0].After != m.Version {
		return o.stopped(i, "node %s runs txlb %s after its upgrade, and %s runs %s: install the same version on all nodes", s.Node, m.Version, o.Steps[0].Node, o.Steps[0].After), 0
	}
	to = o.at(i, Done)
	to.Steps[i].After = m.Version
	return to, 0
}

// nextTurn asks the node of a step. Nothing is upgraded while a node of the order is unfit; one
// that is to shut down may be.
func (o *Order) nextTurn(i int, v *sight) (*Order, time.Duration) {
	turn := o.Steps[i].Node
	for _, s := range o.Steps {
		err := v.unfit(s.Node)
		if _, there := v.members[s.Node]; o.Verb == Shutdown && (there || s.Node != turn) {
			err = nil
		}
		if limit := readyWithin + v.lease; err != nil && v.waited < limit {
			return nil, limit - v.waited
		}
		if err != nil {
			return o.stopped(i, "node %s %v", s.Node, err), 0
		}
	}
	to := o.at(i, Asked)
	to.Steps[i].Instance, to.Steps[i].Before = v.members[turn].Instance, v.members[turn].Version
	return to, 0
}

// judge is the node that decides about a step: the first that is alive, but for the one whose
// turn it is, unless that is alone.
func (o *Order) judge(members map[string]Member) string {
	turn := o.Steps[o.current()].Node
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name != turn {
			return name
		}
	}
	return turn
}

// which lists the nodes of steps, those that are done or the others.
func (o *Order) which(done bool) string {
	var names []string
	for _, s := range o.Steps {
		if (s.State == Done) == done {
			names = append(names, s.Node)
		}
	}
	return strings.Join(names, ", ")
}

// Err is why the order has stopped before its end, and what is done; nil: it has not.
func (o *Order) Err() error {
	if o.Problem == "" {
		return nil
	}
	text := fmt.Sprintf("stopped after %d of %s: %s", o.current(), words.Count(len(o.Steps), "node"), o.Problem)
	if len(o.Steps) > 1 {
		if done := o.which(true); done != "" {
			text += "; done: " + done
		}
		switch names := o.notBegun(); {
		case !o.Cancelled:
			text += "; not done: " + o.which(false)
		case names != "":
			text += "; not begun: " + names
		}
	}
	return errors.New(text)
}

// Summary tells in one line how far the order is.
func (o *Order) Summary() string {
	n := words.Count(len(o.Steps), "node")
	switch {
	case o.Problem != "":
		return o.Err().Error()
	case o.over():
		return "done on " + n
	}
	s := &o.Steps[o.current()]
	if o.Answer != "" {
		return fmt.Sprintf("%d of %s done, then %s: %s; show fleet says whether it is ready", o.current(), n, s.Node, o.Answer)
	}
	return fmt.Sprintf("%d of %s done, %s is %s", o.current(), n, s.Node, s.State)
}

// shownFor is how long an order that is done or cancelled is shown.
const shownFor = time.Hour

// Shown tells whether people want to see the order: it is under way, has stopped, or was done or
// cancelled lately.
func (o *Order) Shown() bool {
	return o != nil && (!o.over() || o.Stopped() || time.Since(o.Ended) < shownFor)
}

// String is the order for people, in lines.
func (o *Order) String() string {
	var b strings.Builder
	when := "begun " + ago(o.Begun)
	if o.over() {
		when = "ended " + ago(o.Ended)
	}
	fmt.Fprintf(&b, "%s by %s on %s, %s: %s", o.Verb, printable(o.By), printable(o.Node), when, printable(o.Summary()))
	if o.Stopped() {
		fmt.Fprintf(&b, "\n  fix that, then give %s again; upgrade --cancel forgets it", o.Verb)
	}
	for _, s := range o.Steps {
		fmt.Fprintf(&b, "\n  %s: %s", printable(s.Node), s.State)
		if s.After != "" {
			fmt.Fprintf(&b, ", %s to %s", printable(s.Before), printable(s.After))
		}
		if !s.Since.IsZero() {
			fmt.Fprintf(&b, ", %s", ago(s.Since))
		}
	}
	return b.String()
}

func ago(t time.Time) string {
	return fmt.Sprintf("%v ago", max(0, time.Since(t)).Round(time.Second))
}
