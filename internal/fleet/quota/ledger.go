package quota

import (
	"maps"
	"math/bits"
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
	Even    bool             `json:"even,omitempty"`    // it does not know its part, and takes a share
	Limit   int64            `json:"limit,omitempty"`   // of all, as it knows it
	Short   bool             `json:"short,omitempty"`   // it is the keeper, and others hold what is above the limit
	Given   map[string]int64 `json:"given,omitempty"`   // to each other node in the view, ever
	Taken   map[string]int64 `json:"taken,omitempty"`   // from each, ever
}

// maxCount is above all numbers of a row that a node can come to, by far: the gifts of a million
// places a second for eight years. Sums of those of all nodes do not overflow.
const maxCount = 1 << 48

// Plausible tells whether a node can have come to the numbers of a row. A part may be less than
// nothing.
func (r *Row) Plausible() bool {
	for _, n := range []int64{r.Carried, r.Part, r.Used, r.Wants, r.Limit} {
		if n < -maxCount || n > maxCount {
			return false
		}
	}
	for _, counts := range []map[string]int64{r.Given, r.Taken} {
		for _, n := range counts {
			if n < 0 || n > maxCount {
				return false
			}
		}
	}
	return r.Used >= 0 && r.Wants >= 0 && r.Limit >= 0
}

// Same tells whether two rows say the same.
func (r *Row) Same(as *Row) bool {
	return r.SameHolding(as) && r.Part == as.Part && r.Used == as.Used && r.Wants == as.Wants
}

// SameHolding tells whether two rows say the same but of what is used, and wanted, of the part.
func (r *Row) SameHolding(as *Row) bool {
	return r.In == as.In && r.Carried == as.Carried && r.Kept == as.Kept && r.Leaves == as.Leaves && r.Even == as.Even && r.Limit == as.Limit && r.Short == as.Short &&
		maps.Equal(r.Given, as.Given) && maps.Equal(r.Taken, as.Taken)
}

// ledger is what the node has of one limit.
type ledger struct {
	in           ID
	carried      int64 // what it has brought into the view
	kept         bool
	others       int64 // kept: what the others have brought
	given, taken map[string]int64
	even         map[string]bool  // these nodes take a share, as last heard
	gifts        map[string]int64 // of the last look: nobody has been told
	settled      bool             // its part counts: the keeper of a view has known of it
	lost         bool             // others may have what it had: it takes no share
	limit        int64            // as last looked
	// most bounds what the node uses once the limit is lower, until the keeper has filled up what
	// its part is short of. -1: it does not.
	most   int64
	active bool  // there is such a limit
	row    Row   // as last looked
	last   Limit // what it looked at, without rows
	still  bool  // that look has changed nothing
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
	*l = ledger{in: id, carried: carried, settled: l.settled, lost: lost && (l.lost || l.row.In.Number > 0), limit: l.limit, most: l.most, active: l.active}
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
		l = &ledger{in: n.mine.ID, most: -1}
		n.ledgers[key] = l
	}
	l.active, l.gifts = true, nil
	l.lower(in.Limit)
	if n.mine.Number > 0 {
		l.take(n, in)
		l.give(n, in)
	}
	return l.close(n, in)
}

// Reclaim is for a node that uses more than when it looked: it takes back what it has just given
// and needs itself. Nobody may have been told its Row since Look. It returns what Look does.
func (n *Node) Reclaim(key string, in *Limit) (allowed int64, settled bool) {
	l := n.ledgers[key]
	for name, gift := range l.gifts {
		if l.kept && l.even[name] { // it may use its share in any case
			gift = min(gift, l.given[name]-n.share(name, in))
		}
		back := max(0, min(gift, in.Used-l.part(in.Limit)+l.reserve(n, in)))
		l.gifts[name] -= back
		l.given[name] -= back
	}
	return l.close(n, in)
}

// close ends a look.
func (l *ledger) close(n *Node, in *Limit) (allowed int64, settled bool) {
	part := l.part(in.Limit)
	even := !l.settled && !l.lost
	before := l.row
	l.row = Row{l.in, l.carried, l.kept, part, in.Used, in.Wants, in.Leaves, even, in.Limit, part < l.reserve(n, in), maps.Clone(l.given), maps.Clone(l.taken)}
	if keeper := l.here(in, n.mine.Node); l.kept || keeper != nil && keeper.Kept && keeper.Limit <= in.Limit && !keeper.Short {
		l.most = -1
	}
	l.still, l.last = l.row.Same(&before), *in
	l.last.Rows = nil
	part -= l.reserve(n, in)
	if l.most >= 0 {
		part = min(part, l.most)
	}
	if even {
		part = max(part, n.share(n.name, in))
	}
	return min(max(part, 0), in.Limit), l.settled
}

// Still tells whether a Look would change nothing and return the same as the last one, as long as
// the Rows are those that it had.
func (n *Node) Still(key string, in *Limit) bool {
	l := n.ledgers[key]
	if l == nil || !l.still {
		return false
	}
	was := &l.last
	return l.active && was.Limit == in.Limit && was.Share == in.Share && was.Used == in.Used && was.Wants == in.Wants && was.Leaves == in.Leaves
}

// lower takes in the limit. When it is lower, only the part of the keeper is, which may be less
// than nothing then. So others use their parts in proportion until it is not.
func (l *ledger) lower(limit int64) {
	if l.limit > limit && !l.kept {
		part := max(0, l.part(l.limit))
		if l.most >= 0 {
			part = min(part, l.most)
		}
		high, low := bits.Mul64(uint64(part), uint64(max(limit, 0)))
		most, _ := bits.Div64(high, low, uint64(l.limit)) // limit < l.limit, so it is less than part
		l.most = int64(most)
	}
	l.limit = limit
}

// share is what a member of the view may use for as long as it does not know its part: shares of
// all members together are not more than the limit.
func (n *Node) share(name string, in *Limit) int64 {
	if n.mine.Number == 0 {
		return in.Share
	}
	of := int64(len(n.others) + 1)
	each, rest := in.Limit/of, in.Limit%of
	if before := slices.IndexFunc(n.others, func(other string) bool { return other >= name }); each == 0 && (before < 0 || int64(before) >= rest) {
		return 0
	}
	return min(in.Share, max(each, 1))
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
		if taken := r.Taken[n.name]; taken > l.given[name] {
			// The process before this one has given that, and has died before it could say so here.
			if l.given == nil {
				l.given = map[string]int64{}
			}
			l.given[name] = taken
		}
		l.settled = l.settled || r.Kept
		if r.Even {
			if l.even == nil {
				l.even = map[string]bool{}
			}
			l.even[name] = true
		} else {
			delete(l.even, name)
		}
	}
	if keeper := n.mine.Node == n.name && n.mine.Life == n.life; keeper && all && !l.kept {
		l.kept, l.others, l.settled = true, carried, true
		l.begin(n, in)
	}
}

// begin gives others what they may use without having it, and what they use already.
func (l *ledger) begin(n *Node, in *Limit) {
	need := func(name string, each func(*Row) int64, keeps int64) {
		r := l.here(in, name)
		l.gift(name, max(0, min(each(r)-r.Part-l.given[name], l.part(in.Limit)-in.Used-keeps)))
	}
	for _, name := range n.others {
		need(name, func(r *Row) int64 {
			if !r.Even {
				return 0
			}
			return n.share(name, in)
		}, 0)
	}
	for _, name := range n.others {
		need(name, func(r *Row) int64 { return r.Used }, l.reserve(n, in))
	}
}

// reserve is what the keeper must not use, nor give to others: nodes that take a share, and do not
// know yet of what it has given them, may use that.
func (l *ledger) reserve(n *Node, in *Limit) (much int64) {
	if !l.kept {
		return 0
	}
	for _, name := range n.others {
		if l.even[name] {
			much += max(0, n.share(name, in)-l.given[name])
		}
	}
	return much
}

// gift gives another node that much.
func (l *ledger) gift(to string, much int64) {
	if much == 0 {
		return
	}
	if l.given == nil {
		l.given = map[string]int64{}
	}
	if l.gifts == nil {
		l.gifts = map[string]int64{}
	}
	l.given[to] += much
	l.gifts[to] += much
	if l.most >= 0 && to != l.in.Node {
		l.most = max(0, l.most-much)
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
	spare := l.part(in.Limit) - l.reserve(n, in) - in.Used
	all := []holder{{n.name, spare - in.Wants, spare, !in.Leaves}}
	underWay := map[string]int64{} // to each
	note := func(from string, given map[string]int64) {
		for to, much := range given {
			if r := l.here(in, to); r != nil {
				underWay[to] += max(0, much-r.Taken[from])
			}
		}
	}
	note(n.name, l.given)
	for _, name := range n.others {
		if r := l.here(in, name); r != nil {
			note(name, r.Given)
		}
	}
	for _, name := range n.others {
		if r := l.here(in, name); r != nil {
			all = append(all, holder{name, r.Part + underWay[name] - r.Used - r.Wants, r.Part - r.Used, !r.Leaves})
		}
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
			l.gift(to.name, gift)
		}
	}
}
