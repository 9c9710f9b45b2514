// Package quota shares limits out among nodes, so that their parts together are never more than
// the limit. It is arithmetic alone: it makes no system call, has no clock and no goroutine.
//
// A node holds places. It gives others what it does not use, and each gift is a number that only
// grows: how much it has given that node, ever. Who is given notes how much it has taken, ever. So
// a message that is lost, late, or comes twice changes nothing, and what is under way belongs to
// nobody. (The bounded counter of Balegas et al., 2015, is this ledger.)
//
// Who the nodes are is a [View]. With a new one each node closes its accounts and says what it
// carries over. When all have said so, one of them, the keeper, takes what is left of the limit:
// what dead nodes had, and what was under way. So nothing leaks for longer than a view lasts, and
// nothing is there twice.
package quota

import (
	"cmp"
	"maps"
	"slices"
)

// ID names a view. No two views have the same.
type ID struct {
	Number uint64 `json:"n"`
	Node   string `json:"by"`   // who has made it, its keeper
	Life   string `json:"life"` // of that node
}

// compare orders views: nodes go on to later ones only.
func (a ID) compare(b ID) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Life, b.Life))
}

// View is who shares limits.
type View struct {
	ID
	Members map[string]Member `json:"members"` // by name
	// Past are the views that led to this one, the last of them. Two nodes may make a view from
	// the same one: what a node had in a view that is not here, others may have.
	Past []ID `json:"past,omitempty"`
}

// maxPast is how many views a node may miss without losing what it has.
const maxPast = 16

// Member is a node in a View.
type Member struct {
	Life string `json:"life"` // of its parts: a node that has lost them has another one
	// Since is the number of the view from which on it was in each. What it had before, others
	// may have.
	Since uint64 `json:"since"`
}

// Node is this node. Its methods are for one caller at a time.
type Node struct {
	name, life string
	top        View     // the latest that it has heard of
	mine       View     // the one that it is in
	others     []string // the other members of mine, in order
	ledgers    map[string]*ledger
}

// NewNode returns a node without parts. No other has its life.
func NewNode(name, life string) *Node {
	return &Node{name: name, life: life, ledgers: map[string]*ledger{}}
}

// Life returns the life of the node.
func (n *Node) Life() string { return n.life }

// View returns the latest view that the node has heard of. Others have to hear of it.
func (n *Node) View() View { return n.top }

// maxNumber is above all numbers of views that nodes make.
const maxNumber = 1 << 62

// Hear takes in a view that another node has told of.
func (n *Node) Hear(v View) {
	if v.compare(n.top.ID) <= 0 || v.Number >= maxNumber {
		return
	}
	n.top = v
	me, in := v.Members[n.name]
	if !in || me.Life != n.life {
		return
	}
	lost := me.Since > n.mine.Number || !slices.Contains(v.Past, n.mine.ID)
	for key, l := range n.ledgers {
		if !l.active {
			delete(n.ledgers, key)
			continue
		}
		l.enter(v.ID, lost)
	}
	n.mine = v
	n.others = n.names()
}

// Propose makes a view of the nodes that are there, if the latest is of others. heard are those
// that this node hears, with their lives, and there all that the fleet has: those in the store, and
// those that another node hears. It does nothing while one is there of which nothing is known, for
// that may hold parts. The caller has to make sure that what it says of there is so, and that mostly
// one node proposes: the first by name.
func (n *Node) Propose(heard map[string]string, there []string) {
	v := View{ID: ID{n.top.Number + 1, n.name, n.life}, Members: map[string]Member{}, Past: append(slices.Clone(n.top.Past), n.top.ID)}
	v.Past = v.Past[max(0, len(v.Past)-maxPast):]
	add := func(name, life string) {
		is := Member{life, v.Number}
		if was := n.top.Members[name]; was.Life == life {
			is = was
		}
		v.Members[name] = is
	}
	for _, name := range there {
		if was, known := n.top.Members[name]; known {
			add(name, was.Life)
		} else if heard[name] == "" && name != n.name {
			return
		}
	}
	for name, life := range heard {
		add(name, life)
	}
	add(n.name, n.life)
	if !maps.Equal(v.Members, n.top.Members) || n.idle() > maxIdle {
		n.Hear(v)
	}
}

// maxIdle is how many limits that are no more a node keeps the accounts of: a view ends them.
const maxIdle = 1 << 10

// idle is how many there are.
func (n *Node) idle() (count int) {
	for _, l := range n.ledgers {
		if !l.active {
			count++
		}
	}
	return count
}

// names returns the other members of the view of the node, in order.
func (n *Node) names() []string {
	list := make([]string, 0, len(n.mine.Members))
	for name := range n.mine.Members {
		if name != n.name {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
