package changes

import (
	"reflect"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/tree"
)

var posType = reflect.TypeFor[config.Pos]()

// equal tells whether two parts of a model are the same except for positions. It is
// quick. It may say false where only the order differs.
func equal[T any](a, b T) bool { return equalValues(reflect.ValueOf(a), reflect.ValueOf(b)) }

func equalValues(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() || a.Pointer() == b.Pointer() {
			return a.IsNil() == b.IsNil()
		}
		return equalValues(a.Elem(), b.Elem())
	case reflect.Struct:
		if a.Type() == posType {
			return true
		}
		for i := range a.NumField() {
			if !equalValues(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		if a.Kind() == reflect.Slice && a.Pointer() == b.Pointer() {
			return true
		}
		// The longest lists, of which most is shared (Share).
		if hosts, ok := longList(a); ok {
			others, _ := b.Interface().([]*config.Host)
			for i, h := range hosts {
				if h != others[i] && !equalValues(a.Index(i), b.Index(i)) {
					return false
				}
			}
			return true
		}
		for i := range a.Len() {
			if !equalValues(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.String:
		return a.String() == b.String()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	case reflect.Int, reflect.Int64:
		return a.Int() == b.Int()
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// longList returns a list of hosts that is long enough to be compared without
// reflection.
func longList(v reflect.Value) ([]*config.Host, bool) {
	if v.Len() < 64 {
		return nil, false
	}
	hosts, ok := v.Interface().([]*config.Host)
	return hosts, ok
}

// lessTrees returns the trees of the parts that differ.
func lessTrees(a, b *config.Config) (x, y *tree.Node) {
	lessA, lessB := differing(a, b)
	return treeLike(lessA, a), treeLike(lessB, b)
}

// treeLike is the tree of less, which lacks groups of whole. Only whole says which
// group is enabled.
func treeLike(less, whole *config.Config) *tree.Node {
	enabled := make(map[string]string, len(less.Services))
	for _, s := range less.Services {
		enabled[s.Name] = ""
	}
	for _, s := range whole.Services {
		if _, some := enabled[s.Name]; !some {
			continue
		}
		if g := s.Enabled(); g != nil {
			enabled[s.Name] = g.Name
		}
	}
	root := less.Tree()
	for _, s := range root.Of("service") {
		name := enabled[s.Key]
		s.Put("enable", name, name != "")
	}
	return root
}

// differing returns two models without the services, groups and hosts that are
// the same in both, so that what is left is small where models are large.
func differing(a, b *config.Config) (*config.Config, *config.Config) {
	ca, cb := *a, *b
	name := func(s *config.Service) string { return s.Name }
	ca.Services, cb.Services = unequal(a.Services, b.Services, name, func(s, t *config.Service) (*config.Service, *config.Service) {
		cs, ct := *s, *t
		if equal(s.Routes, t.Routes) { // there may be many
			cs.Routes, ct.Routes = nil, nil
		}
		name := func(g *config.Group) string { return g.Name }
		cs.Groups, ct.Groups = unequal(s.Groups, t.Groups, name, func(g, h *config.Group) (*config.Group, *config.Group) {
			cg, ch := *g, *h
			name := func(h *config.Host) string { return h.Name }
			cg.Hosts, ch.Hosts = unequal(g.Hosts, h.Hosts, name, func(x, y *config.Host) (*config.Host, *config.Host) { return x, y })
			return &cg, &ch
		})
		return &cs, &ct
	})
	return &ca, &cb
}

// unequal returns the elements that are in only one list, and those that differ,
// from which less has removed what is equal.
func unequal[T any](a, b []*T, name func(*T) string, less func(x, y *T) (*T, *T)) (ua, ub []*T) {
	byName := map[string]*T{}
	aligned := len(a) == len(b)
	for i := 0; aligned && i < len(a); i++ {
		aligned = name(a[i]) == name(b[i])
	}
	if !aligned {
		for _, x := range a {
			byName[name(x)] = x
		}
	}
	common := map[string]bool{}
	for i, y := range b {
		var x *T
		if aligned {
			x = a[i]
		} else {
			x = byName[name(y)]
		}
		if x == nil {
			ub = append(ub, y)
			continue
		}
		if !aligned {
			common[name(y)] = true
		}
		if x != y && !equal(x, y) {
			x, y = less(x, y)
			ua, ub = append(ua, x), append(ub, y)
		}
	}
	if !aligned {
		for _, x := range a {
			if !common[name(x)] {
				ua = append(ua, x)
			}
		}
	}
	return ua, ub
}
