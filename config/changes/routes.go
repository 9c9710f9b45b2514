package changes

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config/internal/tree"
	"github.com/txlb/txlb/internal/words"
)

// routes makes the edits of the routes of a service, each by its number at that step:
// first it deletes, the last one first; then it goes through the new list, so that
// every route before the one in hand is in its place.
func (d *differ) routes(at []tree.Step, a, b *tree.Node) {
	was, is := a.Of("route"), b.Of("route")
	name := words.QuoteName(at[0].Key)
	stays := tree.Staying(was, is)
	left := len(was)
	for i, r := range slices.Backward(was) {
		if !stays[r.Step()] {
			left--
			d.verb(fmt.Sprintf("delRoute %s %d", name, i+1), op{path: at, kind: opDelete, gone: []tree.Step{r.Step()}})
		}
	}
	for i, r := range is {
		if stays[r.Step()] {
			d.set(fmt.Sprintf("setRoute %s %d", name, i+1), append(slices.Clone(at), r.Step()), a.Kid(r.Step()), r)
			continue
		}
		place := ""
		if i < left {
			place = fmt.Sprintf(" at=%d", i+1)
		}
		left++
		d.verb(fmt.Sprintf("addRoute %s %s%s%s", name, words.QuoteName(r.Get("group")), options(r, "group"), place),
			op{path: at, kind: opInsert, kids: []*tree.Node{r}, at: i})
	}
}
