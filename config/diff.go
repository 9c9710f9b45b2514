package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/internal/words"
)

// Diff returns the edits that make old into new, in an order in which they work
// one by one: after each the configuration is right, as far as that can be,
// and no verb meets a rule that forbids it. No edit means that both say the
// same; the order of services, listeners, groups, hosts and users says
// nothing, and neither do positions. Both must be free of errors.
func Diff(old, new *Config) []Edit {
	if equal(old, new) {
		return nil
	}
	d := &differ{old: old, new: new}
	lessOld, lessNew := differing(old, new)
	d.root(lessOld.tree(old.enabledGroups()), lessNew.tree(new.enabledGroups()))
	return d.edits
}

// Same tells whether two models say the same: whether Diff has no edits.
func Same(a, b *Config) bool {
	if equal(a, b) {
		return true
	}
	lessA, lessB := differing(a, b)
	return lessA.tree(a.enabledGroups()).same(lessB.tree(b.enabledGroups()))
}

// serviceParts are the elements of a service that setService sets as well.
var serviceParts = []string{"timeouts", "limits"}

type differ struct {
	old, new *Config // whole
	edits    []Edit
}

func (d *differ) root(a, b *node) {
	if a.tag != b.tag {
		d.note(fmt.Sprintf("<%s> -> <%s>", a.tag, b.tag), op{kind: opRename, name: b.tag})
		b = b.clone()
		b.tag = a.tag
	}
	var fresh []*node // services of b that a lacks
	for _, s := range b.of("service") {
		if was := a.kid(s.step()); was != nil {
			d.service(was, s)
		} else {
			fresh = append(fresh, s)
		}
	}
	d.users(a.kid(step{tag: "admin"}), b.kid(step{tag: "admin"}))
	begin := len(d.edits)
	d.rest(nil, a, b)
	others := slices.Clone(d.edits[begin:])
	d.edits = d.edits[:begin]
	d.addresses(a, b, fresh, others)
	for _, s := range fresh {
		begin := len(d.edits)
		d.service(serviceSeed(s), s)
		made := slices.ContainsFunc(d.edits[:begin], func(e Edit) bool { return e.live && e.touches(s.step()) })
		if !made { // it comes with a reload, and what is in it too
			d.noted(begin)
		}
	}
}

// noted makes edits from one on into such that need a reload.
func (d *differ) noted(begin int) {
	for i, e := range d.edits[begin:] {
		if e.live {
			d.edits[begin+i] = e.noted()
		}
	}
}

// noted is the edit of a verb for whoever has to wait for a reload with it.
func (e Edit) noted() Edit {
	e.live = false
	e.shown = comment(e.String(), needsReload)
	e.text = comment(e.text, needsReload)
	return e
}

// serviceSeed is what addService makes.
func serviceSeed(s *node) *node {
	seed := &node{tag: "service", key: s.key, attrs: []attribute{{"name", s.key}}}
	seed.kids = s.of("listen")
	return seed
}

// service makes the edits within a service, but for its listeners.
func (d *differ) service(a, b *node) {
	at := []step{b.step()}
	name := b.key
	for _, tag := range serviceParts {
		part := step{tag: tag}
		d.set("setService "+words.QuoteName(name), append(slices.Clone(at), part), a.kid(part), b.kid(part))
	}
	d.rest(at, a, b)
	enabled := a.get("enable")
	groups := b.of("group")
	if enabled == "" {
		// The first group of a service is enabled, so it comes first.
		slices.SortStableFunc(groups, func(x, y *node) int { return order(x.key != b.get("enable"), y.key != b.get("enable")) })
	}
	for _, g := range groups {
		was := a.kid(g.step())
		if was == nil {
			was = d.addGroup(at, g, enabled == "")
			if enabled == "" {
				enabled = g.key
			}
		}
		d.group(at, was, g, enabled)
	}
	if want := b.get("enable"); want != enabled && want != "" {
		force := ""
		if !slices.ContainsFunc(d.hostsOf(d.new, name, want), func(h *Host) bool { return h.State == "ready" && h.Weight > 0 }) {
			force = " --force"
		}
		d.verb(fmt.Sprintf("enableGroup %s %s%s", words.QuoteName(name), words.QuoteName(want), force), op{path: at, kind: opSet, name: "enable", text: want})
		enabled = want
	}
	for _, g := range b.of("group") {
		if was := a.kid(g.step()); was != nil {
			d.deleteHosts(at, was, g, enabled == g.key)
		}
	}
	for _, last := range []bool{false, true} {
		for _, g := range a.of("group") {
			if b.kid(g.step()) != nil || (g.key == enabled) != last {
				continue
			}
			gone := op{path: at, kind: opDelete, gone: []step{g.step()}}
			if last { // the enabled group, which delGroup refuses
				d.note(fmt.Sprintf("%s<group name=%q> deleted", where(at, b), g.key), gone, op{path: at, kind: opUnset, name: "enable"})
			} else {
				d.verb(fmt.Sprintf("delGroup %s %s", words.QuoteName(name), words.QuoteName(g.key)), gone)
			}
		}
	}
}

func order(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// addGroup makes the edits of a group that is new.
func (d *differ) addGroup(at []step, g *node, first bool) *node {
	seed := bornAs(g)
	ops := []op{{path: at, kind: opAdd, kids: []*node{seed}}}
	if first {
		ops = append(ops, op{path: at, kind: opSet, name: "enable", text: g.key})
	}
	d.verb(fmt.Sprintf("addGroup %s %s %s%s", words.QuoteName(at[0].key), words.QuoteName(g.key), words.Quote(g.get("scheduler")), options(g, "scheduler")), ops...)
	return seed
}

// bornAs is what the verb that adds an element makes of it at once.
func bornAs(n *node) *node {
	born := n.bare()
	born.attrs = slices.DeleteFunc(born.attrs, func(a attribute) bool {
		return a.name != keys[n.tag] && !Find(n.tag, a.name).Runtime
	})
	return born
}

// options writes the attributes of a new element that differ from their
// defaults as options of the verb that adds it.
func options(n *node, except ...string) string {
	var text strings.Builder
	for _, a := range n.attrs {
		row := Find(n.tag, a.name)
		if row.Runtime && a.value != row.Default && !slices.Contains(except, a.name) {
			fmt.Fprintf(&text, " %s=%s", a.name, words.Quote(a.value))
		}
	}
	return text.String()
}

// set makes the edit of the attributes that a verb sets, and returns their
// names. command is the verb with the names of what it is about.
func (d *differ) set(command string, at []step, a, b *node, except ...string) (said []string) {
	var text strings.Builder
	var ops []op
	for _, name := range attrChanges(a, b) {
		row := Find(at[len(at)-1].tag, name)
		if row == nil || !row.Runtime || slices.Contains(except, name) {
			continue
		}
		value, there := b.lookup(name)
		if !there {
			value = row.Default
		}
		fmt.Fprintf(&text, " %s=%s", name, words.Quote(value))
		ops = append(ops, change(at, b, name))
		said = append(said, name)
	}
	if len(ops) > 0 {
		d.verb(command+text.String(), ops...)
	}
	return said
}

// group makes the edits within a group that delete nothing.
func (d *differ) group(service []step, a, b *node, enabled string) {
	at := append(slices.Clone(service), b.step())
	s, g := words.QuoteName(service[0].key), words.QuoteName(b.key)
	if to := b.get("scheduler"); to != a.get("scheduler") {
		d.verb(fmt.Sprintf("changeScheduler %s %s %s", s, g, words.Quote(to)), op{path: at, kind: opSet, name: "scheduler", text: to})
	}
	said := d.set(fmt.Sprintf("setGroup %s %s", s, g), at, a, b, "scheduler")
	d.rest(at, a, b, append(said, "scheduler")...)
	for _, h := range b.of("host") {
		if was := a.kid(h.step()); was != nil {
			d.host(at, was, h)
		} else {
			d.addHost(at, h)
		}
	}
}

func (d *differ) deleteHosts(service []step, a, b *node, enabled bool) {
	at := append(slices.Clone(service), b.step())
	var gone []*node
	for _, h := range a.of("host") {
		if b.kid(h.step()) == nil {
			gone = append(gone, h)
		}
	}
	empty := enabled && len(d.hostsOf(d.new, service[0].key, b.key)) == 0
	for i, h := range gone {
		d.delHost(at, h, empty && i == len(gone)-1)
	}
}

func (d *differ) delHost(at []step, h *node, force bool) {
	text := fmt.Sprintf("delHost %s %s %s", words.QuoteName(at[0].key), words.QuoteName(at[1].key), words.QuoteName(h.key))
	if force {
		text += " --force"
	}
	d.verb(text, op{path: at, kind: opDelete, gone: []step{h.step()}})
}

func (d *differ) addHost(at []step, h *node) {
	born := bornAs(h)
	d.verb(fmt.Sprintf("addHost %s %s %s %s%s", words.QuoteName(at[0].key), words.QuoteName(at[1].key), words.QuoteName(h.key), words.Quote(h.get("ip")), options(h, "ip")),
		op{path: at, kind: opAdd, kids: []*node{born}})
	d.rest(append(slices.Clone(at), h.step()), born, h)
}

// host makes the edits of a host that stays.
func (d *differ) host(at []step, a, b *node) {
	command := fmt.Sprintf("setHost %s %s %s", words.QuoteName(at[0].key), words.QuoteName(at[1].key), words.QuoteName(b.key))
	at = append(slices.Clone(at), b.step())
	d.rest(at, a, b, d.set(command, at, a, b)...)
}

// users makes the edits of <user>. Those who come are there before others go,
// so that somebody can log in at any time.
func (d *differ) users(a, b *node) {
	at := []step{{tag: "admin"}}
	// Those with full access at this step: when all edits are made, and when only
	// the verbs are.
	full, fullByVerbs := 0, 0
	for _, u := range d.old.Admin.Users {
		full += count(u.Access == "full")
		fullByVerbs += count(u.Access == "full")
	}
	for _, u := range b.of("user") {
		was := a.kid(u.step())
		if was != nil {
			d.rest(append(slices.Clone(at), u.step()), was, u)
			full += count(u.get("access") == "full") - count(was.get("access") == "full")
			continue
		}
		full += count(u.get("access") == "full")
		fullByVerbs += count(u.get("access") == "full")
		access := u.get("access")
		bare := u.bare()
		d.verb(fmt.Sprintf("addUser %s %s %s", words.QuoteName(u.key), words.Quote(u.get("password")), access), op{path: at, kind: opAdd, kids: []*node{bare}})
		d.edits[len(d.edits)-1].shown = fmt.Sprintf("addUser %s %s %s", words.QuoteName(u.key), masked, access)
		d.rest(append(slices.Clone(at), u.step()), bare, u)
	}
	for _, u := range a.of("user") {
		if b.kid(u.step()) != nil {
			continue
		}
		gone := op{path: at, kind: opDelete, gone: []step{u.step()}}
		full -= count(u.get("access") == "full")
		if u.get("access") == "full" && (full == 0 || fullByVerbs == 1) {
			d.note(fmt.Sprintf("<admin><user name=%q> deleted, the last with full access", u.key), gone)
			continue
		}
		fullByVerbs -= count(u.get("access") == "full")
		d.verb("delUser "+words.QuoteName(u.key), gone)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hostsOf returns the hosts of a group.
func (d *differ) hostsOf(c *Config, service, group string) []*Host {
	for _, s := range c.Services {
		if s.Name != service {
			continue
		}
		for _, g := range s.Groups {
			if g.Name == group {
				return g.Hosts
			}
		}
	}
	return nil
}

// rest makes the edits that no verb makes: of an element's attributes and of
// what it contains, except for children with keys, which have verbs.
func (d *differ) rest(at []step, a, b *node, except ...string) {
	var names []string
	for _, name := range attrChanges(a, b) {
		isKey := b != nil && name == keys[b.tag]
		if !isKey && !slices.Contains(except, name) && (name != "enable" || b.tag != "service") {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		d.attributes(at, a, b, names)
	}
	if b != nil && a != nil && a.text != b.text {
		d.note(fmt.Sprintf("%s text %s -> %s", where(at, b), told(a.text), told(b.text)), op{path: at, kind: opText, text: b.text})
	}
	was, ordered := a.list()
	is, alsoOrdered := b.list()
	if ordered || alsoOrdered {
		if !slices.EqualFunc(was, is, (*node).same) {
			d.note(fmt.Sprintf("%s %s -> %s", where(at, b), inline(was), inline(is)), op{path: at, kind: opReplace, kids: is})
		}
		return
	}
	for _, k := range is {
		d.element(at, a.kid(k.step()), k)
	}
	for _, k := range was {
		if b.kid(k.step()) == nil {
			d.element(at, k, nil)
		}
	}
}

// element makes the edits of a child without a key, of which one side may be
// missing.
func (d *differ) element(at []step, a, b *node) {
	tag := b
	if b == nil {
		tag = a
	}
	path := append(slices.Clone(at), tag.step())
	switch {
	case slices.Contains(serviceParts, tag.tag): // setService has it
	case everThere[tag.tag]:
		empty := &node{tag: tag.tag}
		if a == nil {
			a = empty
		}
		if b == nil {
			b = empty
		}
		d.rest(path, a, b)
	case a == nil:
		d.note(fmt.Sprintf("%s%s added", where(at, nil), inline([]*node{b})), op{path: at, kind: opAdd, kids: []*node{b}})
		d.mark(path)
	case b == nil:
		d.note(fmt.Sprintf("%s%s deleted", where(at, nil), inline([]*node{a})), op{path: at, kind: opDelete, gone: []step{a.step()}})
		d.mark(path)
	default:
		d.rest(path, a, b)
	}
}

// attributes makes one edit of the changed attributes of an element, for some
// may make sense together only.
func (d *differ) attributes(at []step, a, b *node, names []string) {
	var texts, shown []string
	var ops []op
	for _, name := range names {
		from, to := d.value(a, name), d.value(b, name)
		texts = append(texts, fmt.Sprintf("%s %s -> %s", name, from, to))
		if name == "password" {
			from, to = masked, masked
		}
		shown = append(shown, fmt.Sprintf("%s %s -> %s", name, from, to))
		ops = append(ops, change(at, b, name))
	}
	head := where(at, b) + " "
	d.note(head+strings.Join(texts, ", "), ops...)
	d.edits[len(d.edits)-1].shown = comment(head+strings.Join(shown, ", "), "")
	d.mark(at)
}

// change is the op that makes an attribute what it is in b.
func change(at []step, b *node, name string) op {
	if v, there := b.lookup(name); there {
		return op{path: at, kind: opSet, name: name, text: v}
	}
	return op{path: at, kind: opUnset, name: name}
}

// value shows an attribute.
func (d *differ) value(n *node, name string) string {
	if v, there := n.lookup(name); there {
		return told(v)
	}
	if row := Find(n.tag, name); row != nil && row.Default != "" {
		return told(row.Default)
	}
	return "default"
}

func told(s string) string {
	if !printable(s) || s == "default" {
		return fmt.Sprintf("%q", s)
	}
	return words.Quote(s)
}

// verb adds an edit that a runtime verb makes.
func (d *differ) verb(text string, ops ...op) {
	d.edits = append(d.edits, Edit{text: text, ops: ops, live: true})
}

// note adds an edit that needs a reload.
func (d *differ) note(text string, ops ...op) {
	d.edits = append(d.edits, Edit{text: comment(text, needsReload), shown: comment(text, needsReload), ops: ops})
}

const (
	needsReload  = ": needs reload"
	needsRestart = ": needs restart"
	// masked stands for a password hash.
	masked = "***"
)

func comment(text, end string) string {
	return "# " + strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, text)) + end
}

// mark completes the last edit, which is about the element at a path.
func (d *differ) mark(path []step) {
	e := &d.edits[len(d.edits)-1]
	end := needsReload
	if needsNewProcess(path) {
		e.restart, end = true, needsRestart
	}
	e.text = strings.TrimSuffix(e.text, needsReload) + end
	e.shown = strings.TrimSuffix(e.shown, needsReload) + end
}

// needsNewProcess tells what is fixed while a process runs.
func needsNewProcess(path []step) bool { return len(path) > 0 && path[0].tag == "engine" }

// where writes the way to an element as its tags. n is the element itself, of
// which the root shows its name.
func where(at []step, n *node) string {
	var b strings.Builder
	for _, s := range at {
		if name := keys[s.tag]; name != "" {
			key, _, _ := strings.Cut(s.key, "\x00")
			fmt.Fprintf(&b, "<%s %s=%q>", s.tag, name, key)
		} else {
			fmt.Fprintf(&b, "<%s>", s.tag)
		}
	}
	if len(at) == 0 && n != nil {
		fmt.Fprintf(&b, "<%s>", n.tag)
	}
	return b.String()
}

// inline writes elements on one line.
func inline(list []*node) string {
	if len(list) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, n := range list {
		b.WriteString("<" + n.tag)
		for _, a := range n.attrs {
			value := a.value
			if a.name == "password" {
				value = masked
			}
			fmt.Fprintf(&b, " %s=%q", a.name, value)
		}
		switch {
		case len(n.kids) > 0:
			b.WriteString(">" + inline(n.kids) + "</" + n.tag + ">")
		case n.text != "":
			b.WriteString(">" + n.text + "</" + n.tag + ">")
		default:
			b.WriteString("/>")
		}
	}
	return b.String()
}
