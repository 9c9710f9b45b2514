package edits

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/words"
)

// ErrUnknownMirror is an address that no mirror of the group has.
var ErrUnknownMirror = Refuse(ErrUnknownName, "unknown mirror")

// AddMirror adds a mirror to a group. Sessions that are open stay as they are.
func (e *Edit) AddMirror(service, group string, m *config.Mirror) error {
	s, g, err := e.Group(service, group)
	if err != nil {
		return err
	}
	if mirrorAt(g, m.Address) >= 0 {
		return Refuse(ErrTaken, "group %s has a mirror %s already; change it with setMirror", Show(g.Name), Show(m.Address))
	}
	g.Mirrors = append(g.Mirrors, *m)
	return e.Do("copy what clients of group %s of service %s send to mirror %s", Show(g.Name), Show(s.Name), describeMirror(m))
}

// describeMirror tells what a mirror has that is not the default.
func describeMirror(m *config.Mirror) string {
	text := m.Address
	rows := config.Attributes("mirror")
	for i := range rows {
		if a := &rows[i]; a.Runtime && a.Get(m) != a.Default {
			text += fmt.Sprintf(", %s %s", a.Name, words.Quote(a.Get(m)))
		}
	}
	return text
}

// mirrorAt returns the place of the mirror with an address, -1 without one.
func mirrorAt(g *config.Group, address string) int {
	return slices.IndexFunc(g.Mirrors, func(m config.Mirror) bool { return SameAddress(m.Address, address) })
}

// mirror finds a mirror of a group.
func (e *Edit) mirror(service, group, address string) (*config.Service, *config.Group, int, error) {
	s, g, err := e.Group(service, group)
	if err != nil {
		return nil, nil, 0, err
	}
	i := mirrorAt(g, address)
	if i >= 0 {
		return s, g, i, nil
	}
	if len(g.Mirrors) == 0 {
		return nil, nil, 0, Refuse(ErrUnknownMirror, "group %s of service %s has no mirror", Show(g.Name), Show(s.Name))
	}
	var all []string
	for i := range g.Mirrors {
		all = append(all, g.Mirrors[i].Address)
	}
	return nil, nil, 0, Refuse(ErrUnknownMirror, "group %s has no mirror %s%s", Show(g.Name), Show(address), Suggest(address, all))
}

// DeleteMirror takes a mirror away. Copies of open sessions go on to their end.
func (e *Edit) DeleteMirror(service, group, address string) error {
	s, g, i, err := e.mirror(service, group, address)
	if err != nil {
		return err
	}
	address = g.Mirrors[i].Address
	g.Mirrors = slices.Delete(g.Mirrors, i, i+1)
	return e.Do("copy new sessions of group %s of service %s to mirror %s no more", Show(g.Name), Show(s.Name), address)
}

// SetMirror changes a mirror for new sessions. change returns what it has changed.
func (e *Edit) SetMirror(service, group, address string, change func(*config.Mirror) []string) error {
	s, g, i, err := e.mirror(service, group, address)
	if err != nil {
		return err
	}
	m := &g.Mirrors[i]
	return e.Told(fmt.Sprintf("mirror %s of group %s of service %s", m.Address, Show(g.Name), Show(s.Name)), change(m))
}
