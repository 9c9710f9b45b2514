package quota

import "maps"

// State is all that a node has, for the process that takes its place. It is plain data.
type State struct {
	Life    string           `json:"life"`
	Top     View             `json:"top"`
	Mine    View             `json:"mine"`
	Ledgers map[string]*Held `json:"ledgers,omitempty"` // by key
}

// Held is what a node has of one limit, in a State.
type Held struct {
	Row     Row   `json:"row"`
	Others  int64 `json:"others,omitempty"`
	Settled bool  `json:"settled,omitempty"`
	Lost    bool  `json:"lost,omitempty"`
	Most    int64 `json:"most"` // -1: all that it has
	// Even are the nodes that take a share.
	Even map[string]bool `json:"even,omitempty"`
}

// State returns all that the node has, as it is now: nothing changes what it has returned. The node
// must not be used any more, unless the other process has not taken it.
func (n *Node) State() *State {
	s := &State{n.life, n.top, n.mine, map[string]*Held{}}
	for key, l := range n.ledgers {
		s.Ledgers[key] = &Held{l.row, l.others, l.settled, l.lost, l.most, maps.Clone(l.even)}
	}
	return s
}

// Take makes the node the one that had a state.
func (n *Node) Take(s *State) {
	n.life, n.top, n.mine, n.ledgers = s.Life, s.Top, s.Mine, map[string]*ledger{}
	for key, h := range s.Ledgers {
		n.ledgers[key] = &ledger{
			in: h.Row.In, carried: h.Row.Carried, kept: h.Row.Kept, others: h.Others, given: maps.Clone(h.Row.Given), taken: maps.Clone(h.Row.Taken),
			settled: h.Settled, lost: h.Lost, limit: h.Row.Limit, most: h.Most, even: maps.Clone(h.Even), active: true, row: h.Row,
		}
	}
	n.others = n.names()
}
