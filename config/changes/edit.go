package changes

import (
	"fmt"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/tree"
)

// Edit is one step from a configuration to another, made by [Diff].
type Edit struct {
	text, shown string
	ops         []op
	live        bool
	restart     bool
}

// Command returns the edit as the runtime verb that makes it. What no verb can
// make is a comment that tells what differs and where:
//
//	# <service name="web"><timeouts> idle 1h -> 5m: needs reload
//
// It may contain password hashes; see String.
func (e Edit) Command() string { return e.text }

// String is Command with *** in place of password hashes, fit for a log.
func (e Edit) String() string {
	if e.shown != "" {
		return e.shown
	}
	return e.text
}

// Done is String for an edit that has been made, whether by a verb or not: a
// reload is needed no more.
func (e Edit) Done() string { return strings.TrimSuffix(e.String(), needsReload) }

// Live tells whether a runtime verb can make the edit.
func (e Edit) Live() bool { return e.live }

// Restart tells whether the edit is about something that a running process
// cannot change: <engine>.
func (e Edit) Restart() bool { return e.restart }

// Apply returns the configuration that edits make of c, one after the other. c
// stays as it is. The error tells that they do not fit: what an edit is about
// has gone, or the result is not right.
func Apply(c *config.Config, edits []Edit) (*config.Config, error) {
	root := c.Tree()
	for _, e := range edits {
		for _, o := range e.ops {
			if err := o.apply(root); err != nil {
				return nil, fmt.Errorf("%s: %w", e, err)
			}
		}
	}
	next, err := config.FromTree(root)
	if err != nil {
		return nil, err
	}
	position(next, c)
	return next, nil
}

// op is one change of a tree.
type op struct {
	path []tree.Step
	kind opKind
	name string // of an attribute, or the root's new tag
	text string // its value, or the element's new text
	kids []*tree.Node
	gone []tree.Step
}

type opKind uint8

const (
	opSet     opKind = iota // an attribute
	opUnset                 // an attribute
	opText                  // the text of an element
	opAdd                   // kids
	opDelete                // gone
	opReplace               // all kids without a key, by kids
	opRename                // the element
)

func (o op) apply(root *tree.Node) error {
	n := root
	for _, s := range o.path {
		next := n.Kid(s)
		if next == nil {
			if s.Key != "" {
				return fmt.Errorf("unknown %s %q", s.Tag, s.Key)
			}
			next = &tree.Node{Tag: s.Tag}
			n.Add(next)
		}
		n = next
	}
	switch o.kind {
	case opSet:
		n.Set(o.name, o.text)
	case opUnset:
		n.Remove(o.name)
	case opText:
		n.Text = o.text
	case opRename:
		n.Tag = o.name
	case opAdd:
		for _, k := range o.kids {
			if n.Kid(k.Step()) != nil {
				return fmt.Errorf("%s %q already exists", k.Tag, k.Key)
			}
			n.Add(k.Clone())
		}
	case opDelete:
		for _, s := range o.gone {
			if n.Kid(s) == nil {
				return fmt.Errorf("unknown %s %q", s.Tag, s.Key)
			}
			n.Drop(s)
		}
	case opReplace:
		n.ReplaceList(o.kids)
	}
	return nil
}
