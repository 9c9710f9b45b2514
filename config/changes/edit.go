package changes

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/tree"
)

// Edit is one step from a configuration to another, made by [Diff].
type Edit struct {
	text, shown string
	ops         []op
	live        bool
}

// Command returns the edit as a runtime verb. If no verb can make it, it is a
// comment that says what differs and where:
//
//	# <service name="web"><timeouts> idle 1h -> 5m: needs reload
//
// It may contain password hashes; see String.
func (e Edit) Command() string { return e.text }

// String is Command with *** in place of password hashes and what checks send, fit
// for a log.
func (e Edit) String() string {
	if e.shown != "" {
		return e.shown
	}
	return e.text
}

// Done is String for an edit that has been made, by a verb or a reload: it does not
// ask for a reload any more.
func (e Edit) Done() string { return strings.TrimSuffix(e.String(), needsReload) }

// Live tells whether a runtime verb can make the edit.
func (e Edit) Live() bool { return e.live }

// Apply returns c with the edits applied in order. c itself is not changed. It is
// an error if they do not fit: the object of an edit no longer exists, or the
// result is not valid.
func Apply(c *config.Config, edits []Edit) (*config.Config, error) {
	root := c.Tree()
	for _, e := range edits {
		for _, o := range e.ops {
			if err := o.apply(root); err != nil {
				return nil, fmt.Errorf("%s: %w", e, err)
			}
		}
	}
	next, err := modelOf(root, c)
	if err != nil {
		return nil, err
	}
	position(next, c)
	return next, nil
}

// modelOf turns a tree back into a model, for a program if like is.
func modelOf(root *tree.Node, like *config.Config) (*config.Config, error) {
	if like.Program {
		return config.ProgramFromTree(root)
	}
	return config.FromTree(root)
}

// op is one change of a tree.
type op struct {
	path []tree.Step
	kind opKind
	name string // of an attribute, or the root's new tag
	text string // its value, or the element's new text
	kids []*tree.Node
	gone []tree.Step
	at   int
}

type opKind uint8

const (
	opSet     opKind = iota // an attribute
	opUnset                 // an attribute
	opText                  // the text of an element
	opAdd                   // kids
	opInsert                // kids, before the at-th of their tag
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
	case opInsert:
		for _, k := range o.kids {
			if n.Kid(k.Step()) != nil {
				return fmt.Errorf("the %s is there already", k.Tag)
			}
			n.Insert(k.Clone(), o.at)
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

// Place makes the positions of elements those that they have in another model, where they
// are in both; others have none.
func Place(to, from *config.Config) {
	clearPositions(reflect.ValueOf(to).Elem())
	position(to, from)
}

func clearPositions(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			clearPositions(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == posType {
			v.SetZero()
			return
		}
		for i := range v.NumField() {
			clearPositions(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			if k := v.Index(i).Kind(); k == reflect.Pointer || k == reflect.Struct {
				clearPositions(v.Index(i))
			}
		}
	}
}

// position copies positions from another model to elements that have none yet.
func position(to, from *config.Config) {
	copyPositions(reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem())
}

func copyPositions(to, from reflect.Value) {
	switch to.Kind() {
	case reflect.Pointer:
		if !to.IsNil() && !from.IsNil() {
			copyPositions(to.Elem(), from.Elem())
		}
	case reflect.Struct:
		if to.Type() == posType {
			if to.IsZero() {
				to.Set(from)
			}
			return
		}
		for i := range to.NumField() {
			copyPositions(to.Field(i), from.Field(i))
		}
	case reflect.Slice:
		if t := to.Type().Elem(); t.Kind() != reflect.Pointer && t.Kind() != reflect.Struct {
			return
		}
		byName := make(map[string]reflect.Value, from.Len())
		for i := range from.Len() {
			byName[nameOf(from.Index(i))] = from.Index(i)
		}
		for i := range to.Len() {
			if other, ok := byName[nameOf(to.Index(i))]; ok {
				copyPositions(to.Index(i), other)
			}
		}
	}
}

// nameOf returns what identifies an element of a list.
func nameOf(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if r, ok := v.Interface().(config.Route); ok {
		return r.Conditions()
	}
	for _, field := range []string{"Name", "Address"} {
		if f := v.FieldByName(field); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
	}
	return ""
}

const (
	needsReload  = ": needs reload"
	needsRestart = ": needs restart"
	// masked replaces what only full users may see.
	masked = "***"
)

// isSecret tells whether only full users may see an attribute.
func isSecret(element, name string) bool {
	row := config.Find(element, name)
	return row != nil && row.Secret
}

// touches tells whether an edit is about an element.
func (e Edit) touches(path ...tree.Step) bool {
	for _, o := range e.ops {
		at := slices.Clone(o.path)
		for _, k := range o.kids {
			at = append(at, k.Step())
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

// noted is an edit that a verb could make, as a note: it has to wait for a reload.
func (e Edit) noted() Edit {
	e.live = false
	e.shown = comment(e.String(), needsReload)
	e.text = comment(e.text, needsReload)
	return e
}

func comment(text, end string) string {
	return "# " + strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, text)) + end
}
