package config

import (
	"strconv"

	"github.com/beevik/etree"

	"github.com/txlb/txlb/config/internal/tree"
)

// Tree returns the model as a tree, for packages changes and document. It has
// everything that Marshal writes and Parse reads, so these packages need not know
// any field.
func (c *Config) Tree() *tree.Node {
	root := c.elements()
	root.SetKeys()
	for i, s := range root.Of("service") {
		for _, g := range s.Of("group") {
			g.Remove("enable")
		}
		if g := c.Services[i].Enabled(); g != nil {
			s.Set("enable", g.Name)
		}
	}
	return root
}

// FromTree turns a tree back into a model. It returns the model even if it has
// errors.
func FromTree(root *tree.Node) (*Config, error) { return fromTree(root, false) }

// ProgramFromTree is FromTree for a configuration that a program runs, see Config.Program.
func ProgramFromTree(root *tree.Node) (*Config, error) { return fromTree(root, true) }

func fromTree(root *tree.Node, program bool) (*Config, error) {
	r := &reader{report: report{file: "configuration"}, broken: map[any]bool{}, program: program}
	c := r.config(chosen(root))
	k := &checker{report: r.report, broken: r.broken}
	k.config(c)
	return c, k.told().Err()
}

// chosen returns a tree as elements of a document, in which groups tell whether
// they are enabled.
func chosen(n *tree.Node) *etree.Element {
	e := etree.NewElement(n.Tag)
	for _, a := range n.Attrs {
		if n.Tag != "service" || a.Name != "enable" {
			e.CreateAttr(a.Name, a.Value)
		}
	}
	if n.Text != "" {
		e.SetText(n.Text)
	}
	for _, kid := range n.Kids {
		child := chosen(kid)
		if kid.Tag == "group" {
			child.CreateAttr("enable", strconv.FormatBool(kid.Key == n.Get("enable")))
		}
		e.AddChild(child)
	}
	return e
}
