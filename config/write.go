package config

import (
	"fmt"
	"slices"

	"github.com/beevik/etree"

	"github.com/txlb/txlb/config/internal/tree"
)

// Marshal writes the model as a new document, with every value that differs
// from its default. Reading it gives the same model.
func (c *Config) Marshal() ([]byte, error) {
	doc := etree.NewDocument()
	doc.WriteSettings.CanonicalAttrVal = true
	doc.AddChild(element(c.elements()))
	doc.Indent(2)
	data, err := doc.WriteToBytes()
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return data, nil
}

func element(n *tree.Node) *etree.Element {
	e := etree.NewElement(n.Tag)
	for _, a := range n.Attrs {
		e.CreateAttr(a.Name, a.Value)
	}
	if n.Text != "" {
		e.SetText(n.Text)
	}
	for _, kid := range n.Kids {
		e.AddChild(element(kid))
	}
	return e
}

// elements is the model as the elements of a document.
func (c *Config) elements() *tree.Node {
	root := &tree.Node{Tag: c.Root}
	addUnlessDefault(root, "engine", &c.Engine)
	if says("fleet", &c.Fleet) {
		add(root, "fleet", &c.Fleet)
	}
	for _, s := range c.Services {
		s.write(root)
	}
	c.Admin.write(root)
	m := addEmpty(root, "manager")
	for _, task := range []string{"hostCheck", "configCheck", "heartbeat"} {
		add(m, task, &c.Manager)
	}
	addUnlessDefault(root, "dns", &c.DNS)
	addUnlessDefault(root, "control", &c.Control)
	addUnlessDefault(root, "logging", &c.Logging)
	return root
}

func (s *Service) write(root *tree.Node) {
	e := add(root, "service", s)
	for i := range s.Listen {
		add(e, "listen", &s.Listen[i])
	}
	addUnlessDefault(e, "timeouts", &s.Timeouts)
	addUnlessDefault(e, "limits", &s.Limits)
	if len(s.Access) > 0 {
		access := addEmpty(e, "access")
		for i := range s.Access {
			add(access, s.Access[i].tag(), &s.Access[i])
		}
	}
	for i := range s.Routes {
		add(e, "route", &s.Routes[i])
	}
	for _, g := range s.Groups {
		group := add(e, "group", g)
		if g.Check != nil {
			add(group, "check", g.Check)
		}
		for _, h := range g.Hosts {
			add(group, "host", h)
		}
		for i := range g.Mirrors {
			add(group, "mirror", &g.Mirrors[i])
		}
	}
}

func (a *Admin) write(root *tree.Node) {
	e := add(root, "admin", a)
	if a.Web != nil {
		add(e, "web", a.Web)
	}
	if a.SSH != nil {
		add(e, "ssh", a.SSH)
	}
	if a.Socket != nil {
		add(e, "socket", a.Socket)
	}
	if a.Metrics != "" {
		add(e, "metrics", a)
	}
	for _, u := range a.Users {
		user := add(e, "user", u)
		for _, k := range u.Keys {
			addEmpty(user, "key").Text = k
		}
	}
	if len(e.Attrs) == 0 && len(e.Kids) == 0 {
		root.Kids = root.Kids[:len(root.Kids)-1]
	}
}

func addEmpty(to *tree.Node, tag string) *tree.Node {
	n := &tree.Node{Tag: tag}
	to.Kids = append(to.Kids, n)
	return n
}

// add writes an element with the attributes that p, its struct, has.
func add(to *tree.Node, tag string, p any) *tree.Node {
	n := addEmpty(to, tag)
	rows := schema[tag]
	for i := range rows {
		if a := &rows[i]; a.always || !a.isDefault(p) {
			n.Attrs = append(n.Attrs, tree.Attr{Name: a.Name, Value: a.write(p)})
		}
	}
	return n
}

// says tells whether an element has an attribute that is not its default.
func says(tag string, p any) bool {
	return slices.ContainsFunc(schema[tag], func(a Attribute) bool { return !a.isDefault(p) })
}

// addUnlessDefault is add for an element that says nothing without attributes.
func addUnlessDefault(to *tree.Node, tag string, p any) {
	if n := add(to, tag, p); len(n.Attrs) == 0 {
		to.Kids = to.Kids[:len(to.Kids)-1]
	}
}
