package changes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/tree"
	"github.com/txlb/txlb/internal/words"
)

// serviceParts are the elements of a service that setService sets as well.
var serviceParts = []string{"timeouts", "limits"}

// differ gathers the edits between two models.
type differ struct {
	old, new *config.Config // whole
	edits    []Edit
}

// serviceSeed is what addService makes.
func serviceSeed(s *tree.Node) *tree.Node {
	seed := &tree.Node{Tag: "service", Key: s.Key, Attrs: []tree.Attr{{Name: "name", Value: s.Key}}}
	seed.Kids = s.Of("listen")
	return seed
}

// service makes the edits within a service, but for its listeners.
func (d *differ) service(a, b *tree.Node) {
	at := []tree.Step{b.Step()}
	name := b.Key
	for _, tag := range serviceParts {
		part := tree.Step{Tag: tag}
		d.set("setService "+words.QuoteName(name), append(slices.Clone(at), part), a.Kid(part), b.Kid(part))
	}
	d.rest(at, a, b)
	d.access(at, a, b)
	enabled := a.Get("enable")
	groups := b.Of("group")
	if enabled == "" {
		// The first group of a service is enabled, so it comes first.
		slices.SortStableFunc(groups, func(x, y *tree.Node) int { return order(x.Key != b.Get("enable"), y.Key != b.Get("enable")) })
	}
	for _, g := range groups {
		was := a.Kid(g.Step())
		if was == nil {
			was = d.addGroup(at, g, enabled == "")
			if enabled == "" {
				enabled = g.Key
			}
		}
		d.group(at, was, g, enabled)
	}
	if want := b.Get("enable"); want != enabled && want != "" {
		force := ""
		if !slices.ContainsFunc(d.hostsOf(d.new, name, want), func(h *config.Host) bool { return h.State == "ready" && h.Weight > 0 }) {
			force = " --force"
		}
		d.verb(fmt.Sprintf("enableGroup %s %s%s", words.QuoteName(name), words.QuoteName(want), force), op{path: at, kind: opSet, name: "enable", text: want})
		enabled = want
	}
	d.routes(at, a, b)
	for _, g := range b.Of("group") {
		if was := a.Kid(g.Step()); was != nil {
			d.deleteHosts(at, was, g, enabled == g.Key)
		}
	}
	for _, last := range []bool{false, true} {
		for _, g := range a.Of("group") {
			if b.Kid(g.Step()) != nil || (g.Key == enabled) != last {
				continue
			}
			gone := op{path: at, kind: opDelete, gone: []tree.Step{g.Step()}}
			if last { // the enabled group, which delGroup refuses
				d.note(fmt.Sprintf("%s<group name=%q> deleted", where(at, b), g.Key), gone, op{path: at, kind: opUnset, name: "enable"})
			} else {
				d.verb(fmt.Sprintf("delGroup %s %s", words.QuoteName(name), words.QuoteName(g.Key)), gone)
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
func (d *differ) addGroup(at []tree.Step, g *tree.Node, first bool) *tree.Node {
	seed := bornAs(g)
	ops := []op{{path: at, kind: opAdd, kids: []*tree.Node{seed}}}
	if first {
		ops = append(ops, op{path: at, kind: opSet, name: "enable", text: g.Key})
	}
	d.verb(fmt.Sprintf("addGroup %s %s %s%s", words.QuoteName(at[0].Key), words.QuoteName(g.Key), words.Quote(g.Get("scheduler")), options(g, "scheduler")), ops...)
	return seed
}

// bornAs is the element as the verb that adds it creates it, before its options.
func bornAs(n *tree.Node) *tree.Node {
	born := n.Bare()
	born.Attrs = slices.DeleteFunc(born.Attrs, func(a tree.Attr) bool {
		return !tree.IsKey(n.Tag, a.Name) && !config.Find(n.Tag, a.Name).Runtime
	})
	return born
}

// options writes the attributes of a new element that differ from their
// defaults as options of the verb that adds it.
func options(n *tree.Node, except ...string) string {
	var text strings.Builder
	for _, a := range n.Attrs {
		row := config.Find(n.Tag, a.Name)
		if row.Runtime && a.Value != row.Default && !slices.Contains(except, a.Name) {
			fmt.Fprintf(&text, " %s=%s", a.Name, words.Quote(a.Value))
		}
	}
	return text.String()
}

// set makes the edit of the attributes that a verb sets, and returns their
// names. command is the verb with the names of what it is about.
func (d *differ) set(command string, at []tree.Step, a, b *tree.Node, except ...string) (said []string) {
	var text strings.Builder
	var ops []op
	for _, name := range tree.Changed(a, b) {
		row := config.Find(at[len(at)-1].Tag, name)
		if row == nil || !row.Runtime || slices.Contains(except, name) {
			continue
		}
		value, there := b.Lookup(name)
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

// group makes the edits within a group, except deletions.
func (d *differ) group(service []tree.Step, a, b *tree.Node, enabled string) {
	at := append(slices.Clone(service), b.Step())
	s, g := words.QuoteName(service[0].Key), words.QuoteName(b.Key)
	if to := b.Get("scheduler"); to != a.Get("scheduler") {
		d.verb(fmt.Sprintf("changeScheduler %s %s %s", s, g, words.Quote(to)), op{path: at, kind: opSet, name: "scheduler", text: to})
	}
	said := d.set(fmt.Sprintf("setGroup %s %s", s, g), at, a, b, "scheduler")
	d.rest(at, a, b, append(said, "scheduler")...)
	d.mirrors(at, a, b)
	for _, h := range b.Of("host") {
		if was := a.Kid(h.Step()); was != nil {
			d.host(at, was, h)
		} else {
			d.addHost(at, h)
		}
	}
}

func (d *differ) deleteHosts(service []tree.Step, a, b *tree.Node, enabled bool) {
	at := append(slices.Clone(service), b.Step())
	var gone []*tree.Node
	for _, h := range a.Of("host") {
		if b.Kid(h.Step()) == nil {
			gone = append(gone, h)
		}
	}
	empty := enabled && len(d.hostsOf(d.new, service[0].Key, b.Key)) == 0
	for i, h := range gone {
		d.delHost(at, h, empty && i == len(gone)-1)
	}
}

func (d *differ) delHost(at []tree.Step, h *tree.Node, force bool) {
	text := fmt.Sprintf("delHost %s %s %s", words.QuoteName(at[0].Key), words.QuoteName(at[1].Key), words.QuoteName(h.Key))
	if force {
		text += " --force"
	}
	d.verb(text, op{path: at, kind: opDelete, gone: []tree.Step{h.Step()}})
}

func (d *differ) addHost(at []tree.Step, h *tree.Node) {
	born := bornAs(h)
	d.verb(fmt.Sprintf("addHost %s %s %s %s%s", words.QuoteName(at[0].Key), words.QuoteName(at[1].Key), words.QuoteName(h.Key), words.Quote(h.Get("ip")), options(h, "ip")),
		op{path: at, kind: opAdd, kids: []*tree.Node{born}})
	d.rest(append(slices.Clone(at), h.Step()), born, h)
}

// host makes the edits of a host that stays.
func (d *differ) host(at []tree.Step, a, b *tree.Node) {
	command := fmt.Sprintf("setHost %s %s %s", words.QuoteName(at[0].Key), words.QuoteName(at[1].Key), words.QuoteName(b.Key))
	at = append(slices.Clone(at), b.Step())
	d.rest(at, a, b, d.set(command, at, a, b)...)
}

// users makes the edits of <user>. New users are added before others are deleted,
// so that somebody can log in at any time.
func (d *differ) users(a, b *tree.Node) {
	at := []tree.Step{{Tag: "admin"}}
	// How many users have full access at this step, if all edits are made, and if only
	// the verbs are.
	full, fullByVerbs := 0, 0
	for _, u := range d.old.Admin.Users {
		full += count(u.Access == "full")
		fullByVerbs += count(u.Access == "full")
	}
	var demoted []*tree.Node
	for _, u := range b.Of("user") {
		was := a.Kid(u.Step())
		isFull := u.Get("access") == "full"
		switch {
		case was == nil:
			full += count(isFull)
			bare := u.Bare()
			d.addUser(at, bare)
			if d.edits[len(d.edits)-1].live {
				fullByVerbs += count(isFull)
			}
			d.rest(append(slices.Clone(at), u.Step()), bare, u)
		case was.Get("access") == "full" && !isFull:
			demoted = append(demoted, u)
		default:
			gains := count(isFull) - count(was.Get("access") == "full")
			full += gains
			if d.setUser(at, was, u) {
				fullByVerbs += gains
			}
		}
	}
	for _, u := range demoted {
		was := a.Kid(u.Step())
		full--
		if full == 0 || fullByVerbs == 1 {
			d.rest(append(slices.Clone(at), u.Step()), was, u)
		} else if d.setUser(at, was, u) {
			fullByVerbs--
		}
	}
	for _, u := range a.Of("user") {
		if b.Kid(u.Step()) != nil {
			continue
		}
		gone := op{path: at, kind: opDelete, gone: []tree.Step{u.Step()}}
		full -= count(u.Get("access") == "full")
		if u.Get("access") == "full" && (full == 0 || fullByVerbs == 1) {
			d.note(fmt.Sprintf("<admin><user name=%q> deleted, the last with full access", u.Key), gone)
			continue
		}
		fullByVerbs -= count(u.Get("access") == "full")
		d.verb("delUser "+words.QuoteName(u.Key), gone)
	}
}

// addUser makes the edit of a user who is new, without keys.
func (d *differ) addUser(at []tree.Step, u *tree.Node) {
	command := func(password string) string {
		return fmt.Sprintf("addUser %s %s %s", words.QuoteName(u.Key), password, u.Get("access"))
	}
	d.verb(command(words.Quote(u.Get("password"))), op{path: at, kind: opAdd, kids: []*tree.Node{u}})
	e := &d.edits[len(d.edits)-1]
	e.shown = command(masked)
	if !config.IsHash(u.Get("password")) { // which the verb refuses
		*e = e.noted()
	}
}

// setUser makes the edits of a user who stays. It tells whether verbs make all of
// them except those of keys.
func (d *differ) setUser(at []tree.Step, a, b *tree.Node) bool {
	at = append(slices.Clone(at), b.Step())
	text := "setUser " + words.QuoteName(b.Key)
	shown := text
	var ops []op
	for _, name := range tree.Changed(a, b) {
		value := b.Get(name)
		switch {
		case name == "password" && config.IsHash(value):
			text += " hash=" + words.Quote(value)
			shown += " hash=" + masked
		case name == "access":
			text += " access=" + value
			shown += " access=" + value
		default:
			d.rest(at, a, b)
			return false
		}
		ops = append(ops, change(at, b, name))
	}
	if len(ops) > 0 {
		d.verb(text, ops...)
		d.edits[len(d.edits)-1].shown = shown
	}
	d.rest(at, a, b, "password", "access")
	return true
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hostsOf returns the hosts of a group.
func (d *differ) hostsOf(c *config.Config, service, group string) []*config.Host {
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
func (d *differ) rest(at []tree.Step, a, b *tree.Node, except ...string) {
	var names []string
	for _, name := range tree.Changed(a, b) {
		isKey := b != nil && tree.IsKey(b.Tag, name)
		if !isKey && !slices.Contains(except, name) && (name != "enable" || b.Tag != "service") {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		d.attributes(at, a, b, names)
	}
	if b != nil && a != nil && a.Text != b.Text {
		d.note(fmt.Sprintf("%s text %s -> %s", where(at, b), told(a.Text), told(b.Text)), op{path: at, kind: opText, text: b.Text})
	}
	was, ordered := a.List()
	is, alsoOrdered := b.List()
	if ordered || alsoOrdered {
		if !slices.EqualFunc(was, is, (*tree.Node).Same) {
			d.note(fmt.Sprintf("%s %s -> %s", where(at, b), inline(was), inline(is)), op{path: at, kind: opReplace, kids: is})
		}
		return
	}
	for _, k := range is {
		d.element(at, a.Kid(k.Step()), k)
	}
	for _, k := range was {
		if b.Kid(k.Step()) == nil {
			d.element(at, k, nil)
		}
	}
}

// element makes the edits of a child without a key, of which one side may be
// missing.
func (d *differ) element(at []tree.Step, a, b *tree.Node) {
	tag := b
	if b == nil {
		tag = a
	}
	path := append(slices.Clone(at), tag.Step())
	switch {
	case slices.Contains(serviceParts, tag.Tag): // setService has it
	case tag.Tag == "access": // addAccess and delAccess have it
	case tree.EverThere(tag.Tag):
		empty := &tree.Node{Tag: tag.Tag}
		if a == nil {
			a = empty
		}
		if b == nil {
			b = empty
		}
		d.rest(path, a, b)
	case a == nil:
		d.note(fmt.Sprintf("%s%s added", where(at, nil), inline([]*tree.Node{b})), op{path: at, kind: opAdd, kids: []*tree.Node{b}})
		d.mark(path)
	case b == nil:
		d.note(fmt.Sprintf("%s%s deleted", where(at, nil), inline([]*tree.Node{a})), op{path: at, kind: opDelete, gone: []tree.Step{a.Step()}})
		d.mark(path)
	default:
		d.rest(path, a, b)
	}
}

// attributes makes one edit of all changed attributes of an element, because some
// are valid only together.
func (d *differ) attributes(at []tree.Step, a, b *tree.Node, names []string) {
	var texts, shown []string
	var ops []op
	for _, name := range names {
		from, to := d.value(a, name), d.value(b, name)
		texts = append(texts, fmt.Sprintf("%s %s -> %s", name, from, to))
		if isSecret(at[len(at)-1].Tag, name) {
			from, to = masks(a, name, from), masks(b, name, to)
		}
		shown = append(shown, fmt.Sprintf("%s %s -> %s", name, from, to))
		ops = append(ops, change(at, b, name))
	}
	head := where(at, b) + " "
	d.note(head+strings.Join(texts, ", "), ops...)
	d.edits[len(d.edits)-1].shown = comment(head+strings.Join(shown, ", "), "")
	d.mark(at)
}

// change is the op that gives an attribute its value in b.
func change(at []tree.Step, b *tree.Node, name string) op {
	if v, there := b.Lookup(name); there {
		return op{path: at, kind: opSet, name: name, text: v}
	}
	return op{path: at, kind: opUnset, name: name}
}

// value shows an attribute.
func (d *differ) value(n *tree.Node, name string) string {
	if v, there := n.Lookup(name); there {
		return told(v)
	}
	if row := config.Find(n.Tag, name); row != nil && row.Default != "" {
		return told(row.Default)
	}
	return "default"
}

// masks is value for those who may not see a secret: whether there is one they may know.
func masks(n *tree.Node, name, value string) string {
	if n.Get(name) == "" {
		return value
	}
	return masked
}

func told(s string) string {
	if !config.Printable(s) || s == "default" {
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

// mark completes the last edit with the path of its element.
func (d *differ) mark(path []tree.Step) {
	e := &d.edits[len(d.edits)-1]
	end := needsReload
	if needsNewProcess(path) {
		end = needsRestart
	}
	e.text = strings.TrimSuffix(e.text, needsReload) + end
	e.shown = strings.TrimSuffix(e.shown, needsReload) + end
}

// needsNewProcess tells whether an element is fixed while the process runs.
func needsNewProcess(path []tree.Step) bool {
	return len(path) > 0 && (path[0].Tag == "engine" || path[0].Tag == "fleet")
}

// where writes the path of an element as tags. n is the element itself; for the
// root, its name is shown.
func where(at []tree.Step, n *tree.Node) string {
	var b strings.Builder
	for _, s := range at {
		if name := tree.KeyOf(s.Tag); name != "" {
			key, _, _ := strings.Cut(s.Key, "\x00")
			fmt.Fprintf(&b, "<%s %s=%q>", s.Tag, name, key)
		} else {
			fmt.Fprintf(&b, "<%s>", s.Tag)
		}
	}
	if len(at) == 0 && n != nil {
		fmt.Fprintf(&b, "<%s>", n.Tag)
	}
	return b.String()
}

// inline writes elements on one line.
func inline(list []*tree.Node) string {
	if len(list) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, n := range list {
		b.WriteString("<" + n.Tag)
		for _, a := range n.Attrs {
			value := a.Value
			if isSecret(n.Tag, a.Name) {
				value = masked
			}
			fmt.Fprintf(&b, " %s=%q", a.Name, value)
		}
		switch {
		case len(n.Kids) > 0:
			b.WriteString(">" + inline(n.Kids) + "</" + n.Tag + ">")
		case n.Text != "":
			b.WriteString(">" + n.Text + "</" + n.Tag + ">")
		default:
			b.WriteString("/>")
		}
	}
	return b.String()
}
