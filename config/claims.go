package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/internal/words"
)

// claim is what an edit does to addresses that are listened on.
type claim struct {
	edit        Edit
	takes       []string
	gives       []string
	service     string // of a listener
	fresh, gone bool   // a service comes or goes
}

// addresses orders the edits that take or give up addresses, so that none is
// taken before it is free. Where they wait for each other in a circle, which
// verbs cannot break, they are one edit.
func (d *differ) addresses(a, b *node, fresh []*node, others []Edit) {
	var open, shut []claim
	for _, s := range fresh {
		seed := serviceSeed(s)
		listens := seed.kids
		first := listens[0].get("ip")
		seed.kids = []*node{bornAs(listens[0])}
		open = append(open, claim{
			edit: Edit{
				text: fmt.Sprintf("addService %s %s%s", words.QuoteName(s.key), words.Quote(first), options(listens[0], "ip")), live: true,
				ops: []op{{kind: opAdd, kids: []*node{seed}}},
			}, takes: []string{first}, service: s.key, fresh: true,
		})
		open = append(open, d.opened(seed, &node{tag: "service", key: s.key, kids: listens})...)
	}
	for _, s := range b.of("service") {
		if was := a.kid(s.step()); was != nil {
			open = append(open, d.opened(was, s)...)
			shut = append(shut, d.closed(was, s)...)
		}
	}
	for _, s := range a.of("service") {
		if b.kid(s.step()) != nil {
			continue
		}
		c := claim{
			edit:    Edit{text: "delService " + words.QuoteName(s.key), live: true, ops: []op{{kind: opDelete, gone: []step{s.step()}}}},
			service: s.key, gone: true,
		}
		for _, l := range s.of("listen") {
			c.gives = append(c.gives, l.get("ip"))
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
func (d *differ) opened(a, b *node) []claim {
	var list []claim
	at := []step{b.step()}
	for _, l := range b.of("listen") {
		if was := a.kid(l.step()); was != nil {
			list = append(list, d.changedListener(at, was, l)...)
			continue
		}
		address := l.get("ip")
		begin := len(d.edits)
		d.verb(fmt.Sprintf("addListen %s %s%s", words.QuoteName(b.key), words.Quote(address), options(l, "ip")),
			op{path: at, kind: opAdd, kids: []*node{l}})
		list = append(list, claim{edit: d.edits[begin], takes: []string{address}, service: b.key})
		d.edits = d.edits[:begin]
	}
	return list
}

// changedListener makes the edits of a listener that keeps its address.
func (d *differ) changedListener(at []step, a, b *node) (list []claim) {
	begin := len(d.edits)
	d.rest(append(slices.Clone(at), b.step()), a, b)
	for _, e := range d.edits[begin:] {
		list = append(list, claim{edit: e, service: at[0].key})
	}
	d.edits = d.edits[:begin]
	return list
}

func (d *differ) closed(a, b *node) []claim {
	var list []claim
	at := []step{b.step()}
	// Of several with one address the last is the first to go: they are counted.
	for _, l := range slices.Backward(a.of("listen")) {
		if b.kid(l.step()) != nil {
			continue
		}
		list = append(list, claim{
			edit: Edit{
				text: fmt.Sprintf("delListen %s %s", words.QuoteName(b.key), words.Quote(l.get("ip"))), live: true,
				ops: []op{{path: at, kind: opDelete, gone: []step{l.step()}}},
			}, gives: []string{l.get("ip")}, service: b.key,
		})
	}
	return list
}

// others are what else than services listens, each with the way to its element
// and its address, "" if it does not.
func others() []other {
	at := func(tags ...string) (path []step) {
		for _, t := range tags {
			path = append(path, step{tag: t})
		}
		return path
	}
	return []other{
		{at("admin", "metrics"), func(c *Config) string { return c.Admin.Metrics }},
		{at("admin", "web"), func(c *Config) string { return c.Admin.Web.served() }},
		{at("admin", "ssh"), func(c *Config) string { return c.Admin.SSH.served() }},
		{at("admin", "socket"), func(c *Config) string {
			if c.Admin.Socket == nil {
				return ""
			}
			return unixAddress(c.Admin.Socket.Path)
		}},
		{at("control"), func(c *Config) string { return unixAddress(c.Control.Socket) }},
	}
}

type other struct {
	path    []step
	address func(*Config) string
}

// unixAddress returns a path as an address to listen on, "" for one that is
// relative: where that is, nobody knows yet.
func unixAddress(path string) string {
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	return "unix:" + path
}

// otherClaims fills in which addresses edits of others take and give up.
func otherClaims(list []claim, old, new *Config) {
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
func (a *AdminListen) served() string {
	if a == nil || !a.Enable {
		return ""
	}
	return a.Listen
}

// touches tells whether an edit is about an element.
func (e Edit) touches(path ...step) bool {
	for _, o := range e.ops {
		at := slices.Clone(o.path)
		for _, k := range o.kids {
			at = append(at, k.step())
			break
		}
		for _, s := range o.gone {
			at = append(at, s)
			break
		}
		if len(at) >= len(path) && slices.Equal(at[:len(path)], path) {
			return true
		}
	}
	return false
}

// inTurn adds edits in an order in which each can be made.
func (d *differ) inTurn(list []claim) {
	if !slices.ContainsFunc(list, func(c claim) bool { return len(c.takes)+len(c.gives) > 0 }) {
		for _, c := range list {
			d.edits = append(d.edits, c.edit)
		}
		return
	}
	used := newAddresses(d.old)
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
				used.remove(address)
			}
			possible = possible && !slices.ContainsFunc(c.takes, used.overlaps)
			if !possible {
				for _, address := range c.gives {
					used.add(address)
				}
				waiting = append(waiting, c)
				continue
			}
			for _, address := range c.takes {
				used.add(address)
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
				all.restart = all.restart || c.edit.restart
			}
		}
	}
	all.text = comment("at once: "+strings.Join(texts, "; "), needsReload)
	all.shown = all.text
	d.edits = append(d.edits, all)
}

// byVerbs follows what there is when only the verbs are done and the notes are
// left to a reload.
type byVerbs struct {
	services  int
	listeners map[string]int // of each service
	kept      addresses      // that a note gives up
}

func newByVerbs(c *Config) *byVerbs {
	v := &byVerbs{services: len(c.Services), listeners: map[string]int{}, kept: addresses{}}
	for _, s := range c.Services {
		v.listeners[s.Name] = len(s.Listen)
	}
	return v
}

// take returns the edit of a claim whose turn it is: as a note, if its verb would
// have to wait for one.
func (v *byVerbs) take(c claim) Edit {
	e := c.edit
	if e.live {
		waits := slices.ContainsFunc(c.takes, v.kept.overlaps)
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
			v.kept.add(address)
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

// addresses is a set of addresses that are listened on, by port.
type addresses map[string][]string

func newAddresses(c *Config) addresses {
	used := addresses{}
	for _, s := range c.Services {
		for _, l := range s.Listen {
			used.add(l.Address)
		}
	}
	for _, o := range others() {
		if a := o.address(c); a != "" {
			used.add(a)
		}
	}
	return used
}

func (u addresses) add(address string) {
	host, port := splitListen(address)
	u[port] = append(u[port], host)
}

func (u addresses) remove(address string) {
	host, port := splitListen(address)
	if i := slices.Index(u[port], host); i >= 0 {
		u[port] = slices.Delete(u[port], i, i+1)
	}
}

// overlaps tells whether an address cannot be listened on beside the others,
// by the rules of listenTable.
func (u addresses) overlaps(address string) bool {
	host, port := splitListen(address)
	if port == "0" {
		return false
	}
	is4 := func(h string) bool { return !strings.Contains(h, ":") }
	for _, other := range u[port] {
		switch {
		case other == host, other == "", host == "":
			return true
		case other == "0.0.0.0" && is4(host), host == "0.0.0.0" && is4(other):
			return true
		}
	}
	return false
}
