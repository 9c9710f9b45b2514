package convert

import (
	"fmt"
	"slices"
	"strings"
)

// row is a directive of another load balancer and what becomes of it. A row without
// do makes a comment of its lines.
type row[T any] struct {
	name string // its words
	args int    // of an option of a line: how many words follow it
	to   string // the attribute that it becomes, as in <timeouts idle>
	say  string // how, or why there is no equivalent
	do   T
}

// lookUp finds the row of a line's first words: the longest name that fits.
func lookUp[T any](rows []row[T], words []string) (found *row[T], rest []string) {
	length := 0
	for i := range rows {
		name := strings.Fields(rows[i].name)
		if len(name) > length && len(name) <= len(words) && slices.Equal(name, words[:len(name)]) {
			found, length = &rows[i], len(name)
		}
	}
	return found, words[length:]
}

// The comment of a line that no row knows.
const unknown = "no equivalent"

// accessRule is one line of <access>.
type accessRule struct {
	deny bool
	net  string // or
	file string
	at   place
}

// access writes rules into a service. In txlb as in theirs the first match decides,
// and a client that matches none is served.
func (c *converter) access(service *node, rules []accessRule) {
	if len(rules) == 0 {
		return
	}
	lacking := slices.ContainsFunc(rules, func(r accessRule) bool {
		tag, name := r.element()
		return c.lacks(tag, name, r.net+r.file)
	})
	e := &node{tag: "access", from: rules[0].at}
	for _, r := range rules {
		tag, name := r.element()
		value := r.net + r.file
		if lacking { // a part of a list would let in or reject others
			c.note(service, r.at, "no equivalent yet: <access><%s %s=%q/></access>", tag, name, value)
			continue
		}
		c.set(e.add(tag, r.at), name, value, r.at)
	}
	if len(e.kids) > 0 {
		service.kids = append(service.kids, e)
	}
}

// element returns the element and the attribute of a rule.
func (r accessRule) element() (tag, name string) {
	tag, name = "allow", "net"
	if r.deny {
		tag = "deny"
	}
	if r.file != "" {
		name = "file"
	}
	return tag, name
}

// route is what one <route> says.
type route struct {
	match []attr // sni, alpn, net, percent
	group string
	at    place
}

// route writes a route into a service.
func (c *converter) route(service *node, r route) bool {
	r.match = append(r.match, attr{name: "group", value: r.group})
	var text []string
	lacking := false
	for _, a := range r.match {
		text = append(text, fmt.Sprintf("%s=%q", a.name, a.value))
		lacking = lacking || c.lacks("route", a.name, a.value)
	}
	if lacking {
		c.note(service, r.at, "no equivalent yet: <route %s>", strings.Join(text, " "))
		return false
	}
	e := &node{tag: "route", from: r.at}
	for _, a := range r.match {
		if !c.set(e, a.name, a.value, r.at) {
			service.notes = append(service.notes, e.notes...)
			return false
		}
	}
	service.kids = append(service.kids, e)
	return true
}
