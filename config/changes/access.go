package changes

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config/internal/tree"
	"github.com/txlb/txlb/internal/words"
)

// access makes the edits of the access rules of a service, each by its number at that
// step. New rules come first, so that at no step a client is let in, or kept out, only
// because an old rule has gone and its successor has not come.
func (d *differ) access(at []tree.Step, a, b *tree.Node) {
	part := tree.Step{Tag: "access"}
	was, _ := a.Kid(part).List()
	is, _ := b.Kid(part).List()
	same := 0 // at the beginning
	for same < min(len(was), len(is)) && was[same].Same(is[same]) {
		same++
	}
	end := 0 // same at the end
	for end < min(len(was), len(is))-same && was[len(was)-1-end].Same(is[len(is)-1-end]) {
		end++
	}
	name, path, list := words.QuoteName(at[0].Key), append(slices.Clone(at), part), slices.Clone(was)
	step := func(text string) { d.verb(text, op{path: path, kind: opReplace, kids: slices.Clone(list)}) }
	for i := same; i < len(is)-end; i++ {
		place := ""
		if i < len(list) {
			place = fmt.Sprintf(" at=%d", i+1)
		}
		list = slices.Insert(list, i, is[i])
		step(fmt.Sprintf("addAccess %s %s%s%s", name, is[i].Tag, rule(is[i]), place))
	}
	for i := len(list) - 1 - end; i >= len(is)-end; i-- {
		list = slices.Delete(slices.Clone(list), i, i+1)
		step(fmt.Sprintf("delAccess %s %d", name, i+1))
	}
}

// rule writes the attributes of a rule as options.
func rule(n *tree.Node) (text string) {
	for _, name := range []string{"net", "file"} {
		if value := n.Get(name); value != "" {
			text += " " + name + "=" + words.Quote(value)
		}
	}
	return text
}
