package quota

import (
	"maps"
	"slices"
	"strings"
)

// Row is what a node tells the others of its part of one limit.
type Row struct {
	In      ID               `json:"in"`                // the view that it is in
	Carried int64            `json:"carried,omitempty"` // what it has brought into the view
	Kept    bool             `json:"kept,omitempty"`    // it is the keeper, and has taken what was left
	Part    int64            `json:"part,omitempty"`    // what it holds
	Used    int64            `json:"used,omitempty"`    // of that
	Wants   int64            `json:"wants,omitempty"`   // beyond that, at once
	Leaves  bool             `json:"leaves,omitempty"`  // it takes no clients any more
	Given   map[string]int64 `json:"given,omitempty"`   // to each other node in the view, ever
	Taken   map[string]int64 `json:"taken,omitempty"`   // from each, ever
}

// ledger is what the node has of one limit.
type ledger struct {
	in           ID
	carried      int64 // what it has brought into the view
	kept         bool
	others       int64 // kept: what the others have brought
	given, taken map[string]int64
	settled      bool // its part counts: the keeper of a view has known of it
	active       bool // there is such a limit
	row          Row  // as last looked
}

// part is what the node holds of a limit: less than nothing if the limit was lowered and the
// others still hold what is too much.
func (l *ledger) part(limit int64) int64 {
	p := l.carried
	if l.kept {
		p = limit - l.others
	}
	for _, n := range l.given {
		p -= n
	}
	for _, n := range l.taken {
		p += n
	}
	return p
}

// enter closes the accounts of a view, and opens those of another one. lost is that others may
// have what the node has held.
func (l *ledger) enter(id ID, lost bool) {
	carried := l.row.Part
	if lost {
		carried, l.settled = 0, false
	}
	*l = ledger{in: id, carried: carried, settled: l.settled, active: l.active}
	l.row = Row{In: id, Carried: carried, Part: carried}
}

// Limit is a limit that is shared, and what this node needs of it.
type Limit struct {
	Limit int64 // of all nodes that share it together
	// Share is what the node may use for as long as it does not know what it holds.
	Share int64
	Used  int64
	Wants int64 // how much more it could use at once: what it has rejected
	// Leaves is that the node takes no clients any more: it gives away what its sessions leave.
	Leaves bool
	Rows   map[string]*Row // of the other nodes, as last heard
}

// Look takes what others have given, gives them what they need more than this node, and returns
// how much it may use. settled tells whether that is its part; else it is a share.
func (n *Node) Look(key string, in *Limit) (allowed int64, settled bool) {
	l := n.ledgers[key]
	if l == nil {
		l = &ledger{in: n.mine.ID}
		n.ledgers[key] = l
	}
	l.active = true
	if n.mine.Number > 0 {
		l.take(n, in)
		l.give(n, in)
	}
	part := l.part(in.Limit)
	l.row = Row{l.in, l.carried, l.kept, part, in.Used, in.Wants, in.Leaves, maps.Clone(l.given), maps.Clone(l.taken)}
	if !l.settled {
		part = max(part, in.Share)
	}
	return min(max(part, 0), in.Limit), l.settled
}

// Row returns what the node has to tell of a limit, as last looked. It must not be changed.
func (n *Node) Row(key string) *Row { return &n.ledgers[key].row }

// Only says which limits there are. Another one keeps its accounts until the view ends: it may
// come back.
func (n *Node) Only(keys map[string]bool) {
	for key, l := range n.ledgers {
		l.active = keys[key]
	}
}

// here returns the row of a node that is in the same view, nil if it is not known to be.
func (l *ledger) here(in *Limit, name string) *Row {
	if r := in.Rows[name]; r != nil && r.In == l.in {
		return r
	}
	return nil
}

// take takes what others have given, and, as the keeper, what is left.
func (l *ledger) take(n *Node, in *Limit) {
	all, carried := true, int64(0)
	for name := range n.mine.Members {
		if name == n.name {
			continue
		}
		r := l.here(in, name)
		if r == nil {
			all = false
			continue
		}
		carried += r.Carried
		if given := r.Given[n.name]; given > l.taken[name] {
			if l.taken == nil {
				l.taken = map[string]int64{}
			}
			l.taken[name] = given
		}
		l.settled = l.settled || r.Kept
	}
	if keeper := n.mine.Node == n.name && n.mine.Life == n.life; keeper && all && !l.kept {
		l.kept, l.others, l.settled = true, carried, true
	}
}

// holder is a node that holds a part, as far as gifts depend on it.
type holder struct {
	name  string
	free  int64 // what it does not need; less than nothing: it needs more
	spare int64 // what it does not use
	stays bool
}

// surplus is what the holder has to give when each may have so much free.
func (h *holder) surplus(each int64) int64 {
	if h.stays {
		return max(0, min(h.free-each, h.spare))
	}
	return max(0, h.spare)
}

// lacks is what it has to be given. A little is not worth a message.
func (h *holder) lacks(each int64) int64 {
	if !h.stays || h.free >= 0 && 4*h.free >= 3*each {
		return 0
	}
	return each - h.free
}

// give gives others what they need more than this node. All nodes have to have as much free as
// each other. Each computes all gifts of all, and makes its own: so several give one node
// together what it lacks, and not each of them all.
func (l *ledger) give(n *Node, in *Limit) {
	spare := l.part(in.Limit) - in.Used
	all := []holder{{n.name, spare - in.Wants, spare, !in.Leaves}}
	for _, name := range n.names() {
		r := l.here(in, name)
		if r == nil {
			continue
		}
		underWay := l.given[name] - r.Taken[n.name]
		for other := range n.mine.Members {
			if o := l.here(in, other); o != nil && other != name {
				underWay += max(0, o.Given[name]-r.Taken[other])
			}
		}
		all = append(all, holder{name, r.Part + underWay - r.Used - r.Wants, r.Part - r.Used, !r.Leaves})
	}
	slices.SortFunc(all, func(a, b holder) int { return strings.Compare(a.name, b.name) })
	var free, stay int64
	for _, h := range all {
		free += h.free
		if h.stays {
			stay++
		}
	}
	each := max(free, 0) / max(stay, 1)
	from, left := 0, all[0].surplus(each) // who gives next, and how much it still has to give
	for i := range all {
		to := &all[i]
		for need := to.lacks(each); need > 0; {
			for left == 0 {
				if from++; from == len(all) {
					return
				}
				left = all[from].surplus(each)
			}
			gift := min(need, left)
			need, left = need-gift, left-gift
			if all[from].name != n.name {
				continue
			}
			if l.given == nil {
				l.given = map[string]int64{}
			}
			l.given[to.name] += gift
		}
	}
}
