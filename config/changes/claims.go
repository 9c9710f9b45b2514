package changes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/address"
	"github.com/txlb/txlb/config/internal/tree"
	"github.com/txlb/txlb/internal/words"
)

// claim is what an edit does to listen addresses: it opens one, closes one, or
// both.
type claim struct {
	edit        Edit
	takes       []string
	gives       []string
	service     string // of a listener
	fresh, gone bool   // a service comes or goes
}

// addresses orders the edits that open or close addresses, so that none is opened
// before it is free. Edits that wait for each other in a circle cannot be done one
// by one, so they become one edit.
func (d *differ) addresses(a, b *tree.Node, fresh []*tree.Node, others []Edit) {
	var open, shut []claim
	for _, s := range fresh {
		seed := serviceSeed(s)
		listens := seed.Kids
		first := listens[0].Get("ip")
		seed.Kids = []*tree.Node{bornAs(listens[0])}
		open = append(open, claim{
			edit: Edit{
				text: fmt.Sprintf("addService %s %s%s", words.QuoteName(s.Key), words.Quote(first), options(listens[0], "ip")), live: true,
				ops: []op{{kind: opAdd, kids: []*tree.Node{seed}}},
			}, takes: []string{first}, service: s.Key, fresh: true,
		})
		open = append(open, d.opened(seed, &tree.Node{Tag: "service", Key: s.Key, Kids: listens})...)
	}
	for _, s := range b.Of("service") {
		if was := a.Kid(s.Step()); was != nil {
			open = append(open, d.opened(was, s)...)
			shut = append(shut, d.closed(was, s)...)
		}
	}
	for _, s := range a.Of("service") {
		if b.Kid(s.Step()) != nil {
			continue
		}
		c := claim{
			edit:    Edit{text: "delService " + words.QuoteName(s.Key), live: true, ops: []op{{kind: opDelete, gone: []tree.Step{s.Step()}}}},
			service: s.Key, gone: true,
		}
		for _, l := range s.Of("listen") {
			c.gives = append(c.gives, l.Get("ip"))
		}
		shut = append(shut, c)
	}
	for _, e := range others {
		open = append(open, claim{edit: e})
	}
	otherClaims(open, d.old, d.new)
	d.inTurn(append(open, shut...))
}

// opened makes the edits of listeners that are new or have changed.
func (d *differ) opened(a, b *tree.Node) []claim {
	var list []claim
	at := []tree.Step{b.Step()}
	for _, l := range b.Of("listen") {
		if was := a.Kid(l.Step()); was != nil {
			list = append(list, d.changedListener(at, was, l)...)
			continue
		}
		address := l.Get("ip")
		begin := len(d.edits)
		d.verb(fmt.Sprintf("addListen %s %s%s", words.QuoteName(b.Key), words.Quote(address), options(l, "ip")),
			op{path: at, kind: opAdd, kids: []*tree.Node{l}})
		list = append(list, claim{edit: d.edits[begin], takes: []string{address}, service: b.Key})
		d.edits = d.edits[:begin]
	}
	return list
}

// changedListener makes the edits of a listener that keeps its address.
func (d *differ) changedListener(at []tree.Step, a, b *tree.Node) (list []claim) {
	begin := len(d.edits)
	d.rest(append(slices.Clone(at), b.Step()), a, b)
	for _, e := range d.edits[begin:] {
		list = append(list, claim{edit: e, service: at[0].Key})
	}
	d.edits = d.edits[:begin]
	return list
}

func (d *differ) closed(a, b *tree.Node) []claim {
	var list []claim
	at := []tree.Step{b.Step()}
	// Of several listeners with the same address, the last one goes first: they are
	// counted.
	for _, l := range slices.Backward(a.Of("listen")) {
		if b.Kid(l.Step()) != nil {
			continue
		}
		list = append(list, claim{
			edit: Edit{
				text: fmt.Sprintf("delListen %s %s", words.QuoteName(b.Key), words.Quote(l.Get("ip"))), live: true,
				ops: []op{{path: at, kind: opDelete, gone: []tree.Step{l.Step()}}},
			}, gives: []string{l.Get("ip")}, service: b.Key,
		})
	}
	return list
}

// others are the listeners that belong to no service, each with the path of its
// element and its address, "" if it is off.
func others() []other {
	at := func(tags ...string) (path []tree.Step) {
		for _, t := range tags {
			path = append(path, tree.Step{Tag: t})
		}
		return path
	}
	return []other{
		{at("admin", "metrics"), func(c *config.Config) string { return c.Admin.Metrics }},
		{at("admin", "web"), func(c *config.Config) string { return served(c.Admin.Web) }},
		{at("admin", "ssh"), func(c *config.Config) string { return served(c.Admin.SSH) }},
		{at("admin", "socket"), func(c *config.Config) string {
			if c.Admin.Socket == nil {
				return ""
			}
			return unixAddress(c.Admin.Socket.Path)
		}},
		{at("control"), func(c *config.Config) string { return unixAddress(c.Control.Socket) }},
	}
}

type other struct {
	path    []tree.Step
	address func(*config.Config) string
}

// unixAddress returns a path as a listen address, "" for a relative path, whose
// folder is not known yet.
func unixAddress(path string) string {
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	return "unix:" + path
}

// otherClaims fills in which addresses the edits of others open and close.
func otherClaims(list []claim, old, new *config.Config) {
	for _, o := range others() {
		from, to := o.address(old), o.address(new)
		if from == to {
			continue
		}
		for i := range list {
			if !list[i].edit.touches(o.path...) {
				continue
			}
			if from != "" {
				list[i].gives = []string{from}
			}
			if to != "" {
				list[i].takes = []string{to}
			}
			break
		}
	}
}

// served returns the address that is listened on, "" if none is.
func served(a *config.AdminListen) string {
	if a == nil || !a.Enable {
		return ""
	}
	return a.Listen
}

// inTurn adds edits in an order in which each is possible.
func (d *differ) inTurn(list []claim) {
	if !slices.ContainsFunc(list, func(c claim) bool { return len(c.takes)+len(c.gives) > 0 }) {
		for _, c := range list {
			d.edits = append(d.edits, c.edit)
		}
		return
	}
	used := listened(d.old)
	listeners := map[string]int{}
	for _, s := range d.old.Services {
		listeners[s.Name] = len(s.Listen)
	}
	services := len(d.old.Services)
	verbs := newByVerbs(d.old)
	for progress := true; progress && len(list) > 0; {
		progress = false
		waiting := list[:0]
		for _, c := range list {
			possible := true
			switch {
			case c.gone:
				possible = services > 1
			case c.service != "" && !c.fresh && len(c.gives) > 0:
				possible = listeners[c.service] > 1
			case c.service != "" && !c.fresh:
				possible = listeners[c.service] > 0
			}
			for _, address := range c.gives {
				used.Remove(address)
			}
			possible = possible && !slices.ContainsFunc(c.takes, used.Overlaps)
			if !possible {
				for _, address := range c.gives {
					used.Add(address)
				}
				waiting = append(waiting, c)
				continue
			}
			for _, address := range c.takes {
				used.Add(address)
			}
			switch {
			case c.gone:
				services--
				delete(listeners, c.service)
			case c.fresh:
				services++
				listeners[c.service] = 1
			case c.service != "":
				listeners[c.service] += len(c.takes) - len(c.gives)
			}
			d.edits = append(d.edits, verbs.take(c))
			progress = true
		}
		list = waiting
	}
	if len(list) == 0 {
		return
	}
	var texts []string
	all := Edit{}
	for _, giving := range []bool{true, false} {
		for _, c := range list {
			if giving == (len(c.gives) > 0 && len(c.takes) == 0) {
				texts = append(texts, strings.TrimPrefix(c.edit.text, "# "))
				all.ops = append(all.ops, c.edit.ops...)
			}
		}
	}
	all.text = comment("at once: "+strings.Join(texts, "; "), needsReload)
	all.shown = all.text
	d.edits = append(d.edits, all)
}

// byVerbs tracks the open addresses if only the verbs are run and the notes are
// left to a reload.
type byVerbs struct {
	services  int
	listeners map[string]int // of each service
	kept      address.Set    // that a note gives up
}

func newByVerbs(c *config.Config) *byVerbs {
	v := &byVerbs{services: len(c.Services), listeners: map[string]int{}, kept: address.Set{}}
	for _, s := range c.Services {
		v.listeners[s.Name] = len(s.Listen)
	}
	return v
}

// take returns the edit of the next claim. It is a note if its verb would have to
// wait for a note.
func (v *byVerbs) take(c claim) Edit {
	e := c.edit
	if e.live {
		waits := slices.ContainsFunc(c.takes, v.kept.Overlaps)
		switch {
		case c.gone:
			waits = v.services == 1
		case c.fresh:
		case len(c.gives) > 0:
			waits = v.listeners[c.service] == 1
		default:
			waits = waits || v.listeners[c.service] == 0
		}
		if waits {
			e = e.noted()
		}
	}
	if !e.live {
		for _, address := range c.gives {
			v.kept.Add(address)
		}
		return e
	}
	switch {
	case c.gone:
		v.services--
		delete(v.listeners, c.service)
	case c.fresh:
		v.services++
		v.listeners[c.service] = 1
	default:
		v.listeners[c.service] += len(c.takes) - len(c.gives)
	}
	return e
}

// listened returns the addresses that a model listens on.
func listened(c *config.Config) address.Set {
	used := address.Set{}
	for _, s := range c.Services {
		for _, l := range s.Listen {
			used.Add(l.Address)
		}
	}
	for _, o := range others() {
		if a := o.address(c); a != "" {
			used.Add(a)
		}
	}
	return used
}
