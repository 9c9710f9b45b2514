package fleet

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/fleet/quota"
)

// header is what a node says of itself.
type header struct {
	Life   string     `json:"life"`
	Joined bool       `json:"joined,omitempty"` // it hears the store, and so may propose views
	View   quota.View `json:"view"`
	// Hears are the nodes that it hears itself, with their addresses. One of them that has lost
	// the store may be unknown to a node that has just started.
	Hears map[string]string `json:"hears,omitempty"`
}

// heardNode is what another node has said of limits.
type heardNode struct {
	version uint64
	text    string // of head
	head    header
	rows    map[string]*heardRow // by key
}

type heardRow struct {
	text string
	row  quota.Row
}

// heardRows is what others have said of one limit.
type heardRows struct {
	by    map[string]*quota.Row
	moved uint64 // another one whenever by has changed
}

// hear takes in what others say. It returns how many of them say nothing of limits.
func (l *limits) hear(fleet *fleetNow) (silent int) {
	live, first := map[string]string{}, true
	mute := map[string]bool{}
	hears, relayed := map[string]string{}, map[string]string{}
	l.exchange.Read(func(h *peers.Heard) {
		h.Limits(func(p peers.NodeLimits) {
			node := p.Node
			hears[node] = p.Addr
			head := &l.hearNode(p).head
			if head.Life == "" {
				silent++
				mute[node] = true
			} else {
				live[node] = head.Life
				first = first && (l.n.name < node || !head.Joined)
				l.quota.Hear(head.View)
				maps.Copy(relayed, head.Hears)
			}
		})
	})
	l.hears = hears
	for node, known := range l.heard {
		if hears[node] == "" {
			l.hearRows(node, known, nil)
			delete(l.heard, node)
		}
	}
	delete(relayed, l.n.name)
	maps.DeleteFunc(relayed, func(name, _ string) bool { return hears[name] != "" || slices.Contains(fleet.there, name) })
	l.n.relay(relayed)
	for name := range hears {
		if !slices.Contains(fleet.there, name) {
			fleet.nodes++ // it has lost the store alone
		}
	}
	fleet.nodes += len(relayed)
	fleet.there = append(fleet.there, slices.Collect(maps.Keys(relayed))...)
	if fleet.joined && first {
		there := slices.DeleteFunc(slices.Clone(fleet.there), func(name string) bool { return mute[name] })
		l.quota.Propose(live, there)
	}
	return silent
}

// hearNode takes in what a node says, if that is new.
func (l *limits) hearNode(p peers.NodeLimits) *heardNode {
	known := l.heard[p.Node]
	if known == nil {
		known = &heardNode{rows: map[string]*heardRow{}}
		l.heard[p.Node] = known
	} else if known.version == p.Version {
		return known
	}
	known.version = p.Version
	if text := p.Says[theNode]; text != known.text { // it has all nodes, and rows change often
		known.text, known.head = text, header{}
		_ = json.Unmarshal([]byte(text), &known.head)
	}
	l.hearRows(p.Node, known, p.Says)
	return known
}

// hearRows takes in all that a node says of limits by key.
func (l *limits) hearRows(node string, known *heardNode, said map[string]string) {
	for key := range known.rows {
		if _, still := said[key]; !still {
			delete(known.rows, key)
			if all := l.rows[key]; len(all.by) > 1 {
				delete(all.by, node)
				all.moved = l.move()
			} else {
				delete(l.rows, key)
			}
		}
	}
	for key, text := range said {
		if one := known.rows[key]; key == theNode || one != nil && one.text == text {
			continue
		}
		one := &heardRow{text: text}
		if json.Unmarshal([]byte(text), &one.row) != nil || !one.row.Plausible() {
			one.row = quota.Row{} // it is in no view
		}
		known.rows[key] = one
		all := l.rows[key]
		if all == nil {
			all = &heardRows{by: map[string]*quota.Row{}}
			l.rows[key] = all
		}
		all.by[node], all.moved = &one.row, l.move()
	}
}

// move returns a number that no change of rows has had.
func (l *limits) move() uint64 {
	l.moves++
	return l.moves
}

// noRows is what is heard of a limit of which no other node says anything.
var noRows = new(heardRows)
