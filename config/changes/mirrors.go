package changes

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config/internal/tree"
	"github.com/txlb/txlb/internal/words"
)

// mirrors makes the edits of the mirrors of a group, which are told apart by their addresses.
func (d *differ) mirrors(at []tree.Step, a, b *tree.Node) {
	names := words.QuoteName(at[0].Key) + " " + words.QuoteName(at[1].Key) + " "
	for _, m := range a.Of("mirror") {
		if b.Kid(m.Step()) == nil {
			d.verb("delMirror "+names+words.Quote(m.Key), op{path: at, kind: opDelete, gone: []tree.Step{m.Step()}})
		}
	}
	for _, m := range b.Of("mirror") {
		if was := a.Kid(m.Step()); was != nil {
			d.set("setMirror "+names+words.Quote(m.Key), append(slices.Clone(at), m.Step()), was, m)
			continue
		}
		d.verb(fmt.Sprintf("addMirror %s%s%s", names, words.Quote(m.Key), options(m, "ip")),
			op{path: at, kind: opAdd, kids: []*tree.Node{m}})
	}
}
