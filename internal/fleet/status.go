package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// Member is what a node tells the others of itself.
type Member struct {
	Name       string    `json:"name"`
	ID         string    `json:"id"`       // of the node, for ever
	Instance   string    `json:"instance"` // of its process
	Version    string    `json:"version"`  // of its txlb
	Started    time.Time `json:"started"`
	Ready      bool      `json:"ready"`             // it takes new clients
	Unready    string    `json:"unready,omitempty"` // why it does not
	Generation uint64    `json:"generation"`
	Sessions   int64     `json:"sessions"`
	Problem    string    `json:"problem,omitempty"` // why it does not run what the fleet has, or not all of it
	Peer       string    `json:"peer,omitempty"`    // where other nodes follow it; "": it shares no checks

	place place // of its process
}

// Status is how a node sees its fleet.
type Status struct {
	Fleet      string    `json:"fleet"`
	Node       string    `json:"node"`              // this one
	Joined     bool      `json:"joined"`            // and so takes changes
	Why        string    `json:"why,omitempty"`     // it has not joined, or what has come instead of answers
	Since      time.Time `json:"since"`             // of Joined
	Heard      time.Time `json:"heard,omitzero"`    // when the store has last said something
	Silent     float64   `json:"silent,omitempty"`  // for how many seconds the store has not answered, though this node counts as joined until its lease ends; 0: it answers
	Refused    string    `json:"refused,omitempty"` // why the store, which answers, does not do what this node asks, so that it makes no changes; "": it does
	Generation uint64    `json:"generation"`        // of the fleet, as last heard; 0: not known
	Accepted   time.Time `json:"accepted,omitzero"` // when that was
	Running    uint64    `json:"running"`           // the generation that this node runs; 0: none of the fleet
	Problem    string    `json:"problem,omitempty"` // why this node does not run what the fleet has, or not all of it
	Waits      string    `json:"waits,omitempty"`   // a change of <fleet> that this process has not taken up
	Apart      string    `json:"apart,omitempty"`   // what keeps this node and others from sharing checks for apartAfter
	Older      string    `json:"older,omitempty"`   // the end of Problem: why what this node would start with without the store is older than what it runs
	Nodes      []Info    `json:"nodes"`             // by name
	Shares     *Shares   `json:"shares,omitempty"`  // nil: this node shares no checks
	Order      *Order    `json:"order,omitempty"`   // that nodes carry out, or have carried out last
	// OrderProblem is why what the store has as an order cannot be used: a newer version wrote it.
	OrderProblem string `json:"order_problem,omitempty"`
	// OrderProblemID is what Cancel takes for it as the id.
	OrderProblemID string `json:"order_problem_id,omitempty"`
	// Limits are those that nodes share, in the order of the configuration.
	Limits []SharedLimit `json:"limits,omitempty"`

	Unconfirmed []Unconfirmed `json:"unconfirmed,omitempty"` // changes that wait to be confirmed, the oldest first
	Holds       []Held        `json:"holds,omitempty"`       // groups that all nodes hold, by name
}

// Unconfirmed is a change of the fleet that is undone at its time, unless it is confirmed.
type Unconfirmed struct {
	Generation uint64    `json:"generation"`
	Node       string    `json:"node"` // that made it
	By         string    `json:"by"`
	Verb       string    `json:"verb"`
	Until      time.Time `json:"until"` // by the clock of that node; the store counts for itself
	Over       bool      `json:"over"`  // its time is over
}

// Held is a group that all nodes hold.
type Held struct {
	Service   string    `json:"service"`
	Group     string    `json:"group"`
	Node      string    `json:"node"` // that was given the order
	By        string    `json:"by"`
	Until     time.Time `json:"until"` // by the clock of that node
	Releasing bool      `json:"releasing"`
}

// Info is a node in a Status.
type Info struct {
	Member
	// Behind is how many generations it lacks, and Lag for how many seconds, by this node's
	// clock, it has lacked the newest.
	Behind uint64  `json:"behind"`
	Lag    float64 `json:"lag"`
	// Unheard is why this node does not hear what that one tells of checks and sessions; "": it
	// does, or this node shares none.
	Unheard string `json:"unheard,omitempty"`
}

// Why is what is wrong with the node, "" if nothing is.
func (m *Member) Why() string {
	why := m.Problem
	if !m.Ready && m.Unready != "" {
		why = m.Unready
		if m.Problem != "" {
			why += "; " + m.Problem
		}
	}
	return why
}

// trouble is why this node does not run what the fleet has, "" if it does. n.mu is held.
func (n *Node) trouble() string {
	var all []string
	if n.problem != nil {
		all = append(all, oneLine(n.problem))
	}
	if n.dir != nil {
		for _, c := range n.dir.Closed() {
			all = append(all, fmt.Sprintf("service %q does not listen on %s: %s", c.Service, c.Listen, c.Err))
		}
	}
	if text := n.lacking(); text != "" {
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// lacking is why what this node would start with is older than what it runs, "" if it is not.
// n.mu is held.
func (n *Node) lacking() string {
	var all []string
	if n.unkept != nil {
		all = append(all, oneLine(n.unkept))
	}
	if n.copied != nil {
		all = append(all, "its file has an older configuration: "+oneLine(n.copied))
	}
	return strings.Join(all, "; ")
}

// Behind is what of Problem keeps this node from running all that the fleet has: without Older.
func (s *Status) Behind() string {
	return strings.TrimSuffix(strings.TrimSuffix(s.Problem, s.Older), "; ")
}

// Status returns how this node sees the fleet now.
func (n *Node) Status() *Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &Status{
		Fleet: n.opt.Config.Name, Node: n.name, Joined: n.store != nil, Since: n.since, Heard: n.heard,
		Running: n.memory.Generation, Problem: n.trouble(), Older: n.lacking(), Nodes: []Info{}, Shares: n.shares(), Limits: n.sharedLimits,
	}
	s.Waits, s.Apart = n.pending(), s.Shares.apart(time.Now())
	if n.why != nil {
		s.Why = oneLine(n.why)
	}
	if last := n.silence.last(); last.After(s.Heard) {
		s.Heard = last
	}
	if since, why := n.silence.since(); s.Joined && since > 0 {
		s.Silent = since.Seconds()
		if why != nil {
			s.Why = oneLine(why)
		}
	}
	if err := n.refused(); err != nil && s.Silent == 0 {
		s.Refused = oneLine(err)
	}
	if n.newest != nil {
		s.Generation, s.Accepted = n.newest.Generation, n.newest.last().Time
	}
	for _, m := range n.members {
		i := Info{Member: m}
		if s.Generation > m.Generation {
			i.Behind, i.Lag = s.Generation-m.Generation, time.Since(n.newestAt).Seconds()
		}
		if m.Name == n.name && s.Refused != "" { // which its key cannot say
			i.Problem = strings.TrimPrefix(i.Problem+"; "+s.Refused, "; ")
		}
		i.Unheard = s.Shares.unheard(n.name, &m)
		s.Nodes = append(s.Nodes, i)
	}
	if n.plan.Shown() {
		s.Order = n.plan
	}
	if n.orderBad != nil {
		s.OrderProblem, s.OrderProblemID = oneLine(n.orderBad), unreadable(n.orderAt)
	}
	slices.SortFunc(s.Nodes, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	n.statusOfOrders(s, time.Now())
	return s
}

// statusOfOrders adds what waits to be confirmed and what is held. n.mu is held.
func (n *Node) statusOfOrders(s *Status, now time.Time) {
	if n.newest != nil {
		for _, u := range n.newest.Unconfirmed {
			until := u.Time.Add(u.For)
			s.Unconfirmed = append(s.Unconfirmed, Unconfirmed{u.Generation, u.Node, u.By, u.Verb, until, n.running[u.Generation] == 0 || now.After(until)})
		}
	}
	for _, h := range n.holds {
		one := Held{h.Service, h.Group, h.Node, h.By, n.holdShown(h, now), h.Released != nil}
		if r := h.Released; r != nil {
			one.Node, one.By, one.Until = r.Node, r.By, r.Time.Add(time.Duration(r.Over))
		}
		if !one.Until.After(now) { // the store has not deleted it yet
			continue
		}
		s.Holds = append(s.Holds, one)
	}
	slices.SortFunc(s.Holds, func(a, b Held) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Group, b.Group))
	})
}

// orders are the lines of a status about what waits to be confirmed and what is held.
func (s *Status) orders(b *strings.Builder) {
	for _, u := range s.Unconfirmed {
		fate := fmt.Sprintf("undone at %s unless confirmed", u.Until.Local().Format("15:04:05"))
		switch {
		case u.Over && !s.Joined:
			fate = "its time is over, but without the store nothing is undone"
		case u.Over:
			fate = "its time is over, and a node undoes it"
		}
		fmt.Fprintf(b, "not confirmed: generation %d (%s) by %s on node %s: %s\n", u.Generation, printable(u.Verb), printable(u.By), printable(u.Node), fate)
	}
	for _, h := range s.Holds {
		did := "held"
		if h.Releasing {
			did = "being released"
		}
		fmt.Fprintf(b, "%s: group %s of service %s, by %s on node %s, until %s at most\n", did, printable(h.Group), printable(h.Service), printable(h.By), printable(h.Node), h.Until.Local().Format("15:04:05"))
	}
}

// Silence says that the store does not answer a node that has joined, "" if it does.
func (s *Status) Silence() string {
	if s.Silent == 0 || !s.Joined {
		return ""
	}
	text := fmt.Sprintf("the store has not answered for %v", (time.Duration(s.Silent * float64(time.Second))).Round(time.Second))
	if s.Why != "" {
		text += " (" + s.Why + ")"
	}
	return text
}

// String is the status for people, in lines.
func (s *Status) String() string {
	var b strings.Builder
	state := fmt.Sprintf("joined %v ago", time.Since(s.Since).Round(time.Second))
	if text := s.Silence(); text != "" {
		state += ", but " + text
	}
	if s.Refused != "" {
		state += ", but " + s.Refused
	}
	if !s.Joined {
		state = fmt.Sprintf("not joined for %v, changes are refused: %s", time.Since(s.Since).Round(time.Second), s.Why)
	}
	generation := fmt.Sprintf("generation %d", s.Generation)
	if s.Generation == 0 {
		generation = "its generation is not known"
		if s.Running != 0 {
			generation += fmt.Sprintf(" and this node runs %d", s.Running)
		}
	}
	fmt.Fprintf(&b, "fleet %s, %s; this node is %s, %s\n", s.Fleet, generation, s.Node, state)
	if s.Problem != "" {
		fmt.Fprintf(&b, "this node: %s\n", s.Problem)
	}
	if s.Waits != "" {
		fmt.Fprintf(&b, "this node: %s\n", s.Waits)
	}
	s.orders(&b)
	if len(s.Nodes) == 0 && s.Heard.IsZero() {
		b.WriteString("the nodes are not known, as the store has told nothing yet\n")
	} else {
		s.table(&b)
	}
	if s.Shares != nil {
		fmt.Fprintf(&b, "%v\n", s.Shares)
	}
	s.limitLines(&b)
	if s.Order != nil {
		fmt.Fprintf(&b, "\n%v\n", s.Order)
	}
	if s.OrderProblem != "" {
		fmt.Fprintf(&b, "\n%s; upgrade --cancel deletes it\n", printable(s.OrderProblem))
	}
	return strings.TrimRight(b.String(), "\n")
}

// table has the nodes, and how old what is known of them is.
func (s *Status) table(b *strings.Builder) {
	if !s.Joined || s.Silent > 0 {
		fmt.Fprintf(b, "the nodes as the store has last told of them, %v ago:\n", time.Since(s.Heard).Round(time.Second))
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NODE\tVERSION\tREADY\tGENERATION\tLAG\tSESSIONS\tPROBLEM")
	for _, n := range s.Nodes {
		ready, lag, problem := "yes", "-", "-"
		if !n.Ready {
			ready = "no"
		}
		if n.Behind > 0 {
			lag = fmt.Sprintf("%d, %v", n.Behind, (time.Duration(n.Lag * float64(time.Second))).Round(time.Second))
		}
		why := n.Why()
		if n.Name == s.Node && s.Apart != "" {
			why = strings.TrimPrefix(why+"; checks are not shared with all, see below", "; ")
		}
		if why != "" {
			problem = why
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%s\n", printable(n.Name), printable(n.Version), ready, n.Generation, lag, n.Sessions, printable(problem))
	}
	_ = w.Flush()
}

// printable keeps what another node says from changing the terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
}
