package changes

import (
	"cmp"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/address"
	"github.com/txlb/txlb/config/internal/tree"
)

// Merged is the result of a Merge.
type Merged struct {
	Config *config.Config
	Kept   []Edit // changes made at run time that stay; the file does not have them
	Lost   []Edit // changes made at run time that the file overrules
}

// Merge merges the changes that file and running have made since base. For each
// attribute, a change in the file wins; what was changed only at run time stays. If
// the two together are not valid (no listener is left, or no group can be enabled),
// the file's version is used. A listener opened at run time gives way to one of the
// file.
//
// All three must be free of errors. The error says what is wrong with the result,
// for example because the two changes exclude each other.
func Merge(base, file, running *config.Config) (Merged, error) {
	return mergeWith(base, file, running, mend)
}

// mergeWith is Merge with a way to repair the tree that the two sides together make.
func mergeWith(base, file, running *config.Config, repair func(root, file, running *tree.Node)) (Merged, error) {
	m := Merged{Config: file}
	switch {
	case equal(base, running):
		m.Config = file.Clone()
		return m, nil
	case equal(base, file):
		m.Config = running.Clone()
		position(m.Config, file)
		m.Kept = Diff(file, m.Config)
		return m, nil
	}
	f, r := file.Tree(), running.Tree()
	root := merge(base.Tree(), f, r)
	repair(root, f, r)
	merged, err := modelOf(root, file)
	if merged != nil {
		position(merged, file)
		position(merged, running)
	}
	if err != nil {
		if again := merged.Check("configuration").Err(); again != nil {
			err = again // with positions
		}
		return m, err
	}
	m.Config = merged
	m.Kept = Diff(file, merged)
	has := map[string]bool{}
	for _, e := range append(Diff(base, file), m.Kept...) {
		has[e.text] = true
	}
	for _, e := range Diff(base, running) {
		if !has[e.text] {
			m.Lost = append(m.Lost, e)
		}
	}
	return m, nil
}

// Undo takes one change back, which made after of before, and leaves everything that was
// changed since as it is in now. It is a [Merge] in which later changes win, as those of a
// file do: what they have set again, or have built on, stays.
//
// Of the result, Kept are the edits that take the change back, and Lost those that later
// changes do not allow. None of both: nothing of the change is left.
//
// Clients that had hosts before the change and have some now keep some: if later changes have
// removed all others, the last ones stay. A reload does not do this: a host that was removed at
// run time would come back.
//
// Undo a change once. Routes for the same clients, and listeners with port 0, are told apart by their
// order alone: what is left of several counts from the first one again. And routes that later
// changes have put in another order may then look as if this change had done so.
func Undo(before, after, now *config.Config) (Merged, error) {
	return mergeWith(after, now, before, func(root, now, before *tree.Node) {
		mend(root, now, before)
		for _, s := range root.Of("service") {
			keepHosts(s, now.Kid(s.Step()), before.Kid(s.Step()))
		}
	})
}

// merge merges an element that both file and running have. Without a base it was
// added in both, and everything in the file is new.
func merge(base, file, running *tree.Node) *tree.Node {
	n := &tree.Node{Tag: file.Tag, Key: file.Key, Text: file.Text}
	if base != nil && base.Text == file.Text {
		n.Text = running.Text
	}
	n.Attrs = append(n.Attrs, file.Attrs...)
	if base != nil {
		if base.Tag == file.Tag {
			n.Tag = running.Tag
		}
		for _, name := range tree.Changed(file, running) {
			was, had := base.Lookup(name)
			if is, has := file.Lookup(name); was == is && had == has {
				value, there := running.Lookup(name)
				n.Put(name, value, there)
			}
		}
	}
	// Kids that occur once are merged one by one, unless their order matters.
	baseList, o1 := base.List()
	fileList, o2 := file.List()
	runningList, o3 := running.List()
	ordered := o1 || o2 || o3
	if ordered {
		list := fileList
		if slices.EqualFunc(baseList, fileList, (*tree.Node).Same) {
			list = runningList
		}
		for _, k := range list {
			n.Kids = append(n.Kids, k.Clone())
		}
	}
	single := func(k *tree.Node) bool { return !tree.Keyed(k.Tag) }
	for _, k := range file.Kids {
		if ordered && single(k) {
			continue
		}
		if kid := mergeKid(base.Kid(k.Step()), k, running.Kid(k.Step())); kid != nil {
			n.Add(kid)
		}
	}
	for _, k := range running.Kids {
		if ordered && single(k) || file.Kid(k.Step()) != nil {
			continue
		}
		if kid := mergeKid(base.Kid(k.Step()), nil, k); kid != nil {
			n.Add(kid)
		}
	}
	orderRoutes(n, base, file, running)
	return n
}

// orderRoutes brings the routes of a merged service in order. That of the file counts
// if the file has changed it, else that of running. Each route that only the other side
// has stands behind the one that it follows there.
func orderRoutes(n, base, file, running *tree.Node) {
	routes := n.Of("route")
	if len(routes) < 2 {
		return
	}
	order, other := steps(running), steps(file)
	if !slices.Equal(common(steps(base), other), common(other, steps(base))) {
		order, other = other, order
	}
	known := map[tree.Step]bool{}
	for _, s := range order {
		known[s] = true
	}
	behind := map[tree.Step][]tree.Step{} // what only the other side has, by what it follows
	var last tree.Step
	for _, s := range other {
		if !known[s] {
			behind[last] = append(behind[last], s)
		} else {
			last = s
		}
	}
	place := map[tree.Step]int{}
	put := func(s tree.Step) { place[s] = len(place) }
	for _, s := range behind[tree.Step{}] {
		put(s)
	}
	for _, s := range order {
		put(s)
		for _, o := range behind[s] {
			put(o)
		}
	}
	slices.SortStableFunc(routes, func(a, b *tree.Node) int { return cmp.Compare(place[a.Step()], place[b.Step()]) })
	i := 0
	for j, k := range n.Kids {
		if k.Tag == "route" {
			n.Kids[j] = routes[i]
			i++
		}
	}
}

// steps returns the steps to the routes of a service, in their order.
func steps(n *tree.Node) (list []tree.Step) {
	for _, r := range n.Of("route") {
		list = append(list, r.Step())
	}
	return list
}

// common returns what of a is in b, in the order of a.
func common(a, b []tree.Step) (list []tree.Step) {
	in := make(map[tree.Step]bool, len(b))
	for _, s := range b {
		in[s] = true
	}
	for _, s := range a {
		if in[s] {
			list = append(list, s)
		}
	}
	return list
}

// mergeKid merges an element of which any side may be missing.
func mergeKid(base, file, running *tree.Node) *tree.Node {
	tag := file
	if tag == nil {
		tag = running
	}
	if tree.EverThere(tag.Tag) {
		empty := &tree.Node{Tag: tag.Tag}
		if base == nil {
			base = empty
		}
		if file == nil {
			file = empty
		}
		if running == nil {
			running = empty
		}
	}
	switch {
	case file != nil && running != nil:
		return merge(base, file, running)
	case file != nil: // deleted at run time, unless it is new
		if base != nil && base.Same(file) {
			return nil
		}
		return file.Clone()
	case base == nil: // added at run time
		return running.Clone()
	}
	return nil // deleted in the file
}

// mend repairs a service for which the two sides together left too little.
func mend(root, file, _ *tree.Node) {
	if len(root.Of("service")) == 0 {
		for _, s := range file.Of("service") {
			root.Add(s.Clone())
		}
	}
	taken := address.Set{} // by listeners that the file has
	for _, s := range root.Of("service") {
		for _, l := range s.Of("listen") {
			if file.Kid(s.Step()).Kid(l.Step()) != nil {
				taken.Add(l.Get("ip"))
			}
		}
	}
	for _, s := range root.Of("service") {
		was := file.Kid(s.Step())
		for _, l := range s.Of("listen") {
			if was.Kid(l.Step()) == nil && taken.Overlaps(l.Get("ip")) {
				s.Drop(l.Step())
			}
		}
		if len(s.Of("listen")) == 0 {
			for _, l := range was.Of("listen") {
				s.Add(l.Clone())
			}
		}
		if len(s.Of("listen")) == 0 {
			root.Drop(s.Step())
			continue
		}
		mendEnabled(s, was)
		mendRoutes(s, was)
	}
}

// mendRoutes makes sure that the groups of routes exist: one side has deleted a group
// to which the other has a new route.
func mendRoutes(s, file *tree.Node) {
	for _, r := range s.Of("route") {
		step := tree.Step{Tag: "group", Key: r.Get("group")}
		switch g := file.Kid(step); {
		case s.Kid(step) != nil:
		case g != nil:
			s.Add(g.Clone())
		default:
			s.Drop(r.Step())
		}
	}
}

// mendEnabled makes sure that the enabled group exists.
func mendEnabled(s, file *tree.Node) {
	enabled := tree.Step{Tag: "group", Key: s.Get("enable")}
	if s.Kid(enabled) != nil {
		return
	}
	groups := s.Of("group")
	said := tree.Step{Tag: "group", Key: file.Get("enable")}
	switch g := file.Kid(said); {
	case g != nil:
		if s.Kid(said) == nil {
			s.Add(g.Clone())
		}
		s.Set("enable", said.Key)
	case len(groups) > 0:
		s.Set("enable", groups[0].Key)
	default:
		s.Remove("enable")
	}
}

// keepHosts leaves the enabled group of a service, and those of its routes, the hosts that they
// have now, if an undo would leave clients without.
func keepHosts(s, now, before *tree.Node) {
	enabled := func(s *tree.Node) *tree.Node { return s.Kid(tree.Step{Tag: "group", Key: s.Get("enable")}) }
	if g := enabled(now); takesClients(enabled(before)) && takesClients(g) && !takesClients(enabled(s)) {
		s.Set("enable", g.Key)
		keepHostsOf(s, g)
	}
	for _, r := range s.Of("route") {
		step := tree.Step{Tag: "group", Key: r.Get("group")}
		if g := now.Kid(step); takesClients(before.Kid(step)) && takesClients(g) && !takesClients(s.Kid(step)) {
			keepHostsOf(s, g)
		}
	}
}

// keepHostsOf gives a group of a service the hosts of g that take clients.
func keepHostsOf(s, g *tree.Node) {
	to := s.Kid(g.Step())
	if to == nil {
		s.Add(g.Clone())
		return
	}
	for _, h := range g.Of("host") {
		switch was := to.Kid(h.Step()); {
		case !takesClient(h):
		case was == nil:
			to.Add(h.Clone())
		default:
			for _, name := range []string{"state", "weight"} {
				value, there := h.Lookup(name)
				was.Put(name, value, there)
			}
		}
	}
}

// takesClients tells whether a host of a group does.
func takesClients(g *tree.Node) bool { return slices.ContainsFunc(g.Of("host"), takesClient) }

// takesClient tells whether a host gets clients while it is up.
func takesClient(h *tree.Node) bool {
	state, said := h.Lookup("state")
	return (!said || state == "ready") && h.Get("weight") != "0"
}
