package changes

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/txlb/txlb/config/internal/tree"
)

// edit is an [Edit] as another process reads it.
type edit struct {
	Text  string `json:"text"`
	Shown string `json:"shown,omitempty"` // "": Text
	Ops   []step `json:"ops,omitempty"`
	Live  bool   `json:"live,omitempty"`
}

type step struct {
	Path []tree.Step  `json:"path,omitempty"`
	Kind opKind       `json:"kind,omitempty"`
	Name string       `json:"name,omitempty"`
	Text string       `json:"text,omitempty"`
	Kids []*tree.Node `json:"kids,omitempty"`
	Gone []tree.Step  `json:"gone,omitempty"`
	At   int          `json:"at,omitempty"`
}

// MarshalJSON writes the edit for another process. It may contain password hashes.
func (e Edit) MarshalJSON() ([]byte, error) {
	w := edit{e.text, e.shown, nil, e.live}
	for _, o := range e.ops {
		w.Ops = append(w.Ops, step{o.path, o.kind, o.name, o.text, o.kids, o.gone, o.at})
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *Edit) UnmarshalJSON(data []byte) error {
	var r edit
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	*e = Edit{text: r.Text, shown: r.Shown, live: r.Live}
	for _, s := range r.Ops {
		if s.Kind > opRename || s.At < 0 || !whole(s.Kids) {
			return errors.New("an edit of the configuration is not complete")
		}
		e.ops = append(e.ops, op{s.Path, s.Kind, s.Name, s.Text, s.Kids, s.Gone, s.At})
	}
	return nil
}

// whole tells whether no node is missing.
func whole(list []*tree.Node) bool {
	return !slices.ContainsFunc(list, func(n *tree.Node) bool { return n == nil || !whole(n.Kids) })
}
