// Package changes compares and merges models of package config: [Diff] finds the
// edits between two models, [Apply] applies edits, and [Merge] merges the changes
// of a file with those of the running configuration.
//
// It knows no field of the model, only trees of elements and attributes. Only the
// runtime verbs and their order are written out.
//
// Compatibility: this package may change in a minor version; package txlb does not.
package changes

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/tree"
)

// Diff returns the edits that turn old into new, in an order in which they work one
// by one: after each edit the configuration is valid as far as possible, and no
// rule forbids the next verb. No edits means that both have the same meaning. The
// order of services, listeners, groups, hosts and users does not matter, and
// neither do positions. Both must be free of errors.
func Diff(old, new *config.Config) []Edit {
	if equal(old, new) {
		return nil
	}
	d := &differ{old: old, new: new}
	d.root(lessTrees(old, new))
	return d.edits
}

// Same tells whether two models have the same meaning: whether Diff finds no edits.
func Same(a, b *config.Config) bool {
	if equal(a, b) {
		return true
	}
	x, y := lessTrees(a, b)
	return x.Same(y)
}

func (d *differ) root(a, b *tree.Node) {
	if a.Tag != b.Tag {
		d.note(fmt.Sprintf("<%s> -> <%s>", a.Tag, b.Tag), op{kind: opRename, name: b.Tag})
		b = b.Clone()
		b.Tag = a.Tag
	}
	var fresh []*tree.Node // services of b that a lacks
	for _, s := range b.Of("service") {
		if was := a.Kid(s.Step()); was != nil {
			d.service(was, s)
		} else {
			fresh = append(fresh, s)
		}
	}
	d.users(a.Kid(tree.Step{Tag: "admin"}), b.Kid(tree.Step{Tag: "admin"}))
	begin := len(d.edits)
	d.rest(nil, a, b)
	others := slices.Clone(d.edits[begin:])
	d.edits = d.edits[:begin]
	d.addresses(a, b, fresh, others)
	for _, s := range fresh {
		begin := len(d.edits)
		d.service(serviceSeed(s), s)
		made := slices.ContainsFunc(d.edits[:begin], func(e Edit) bool { return e.live && e.touches(s.Step()) })
		if !made { // it comes with a reload, and what is in it too
			d.noted(begin)
		}
	}
}

// noted turns all edits from an index on into notes, which need a reload.
func (d *differ) noted(begin int) {
	for i, e := range d.edits[begin:] {
		if e.live {
			d.edits[begin+i] = e.noted()
		}
	}
}
