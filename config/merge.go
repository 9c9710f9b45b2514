package config

import (
	"reflect"
	"slices"
)

// Merged is what came of a file that was changed and of changes made at run
// time.
type Merged struct {
	Config *Config
	Kept   []Edit // changes made at run time that stay; the file does not have them
	Lost   []Edit // changes made at run time that the file overrules
}

// Merge brings together what has become of base in the file and in the running
// configuration. What the file changed wins, attribute by attribute; what was
// changed at run time alone stays. Where the two together make no sense (no
// listener left, or no group that could be enabled) the file's are taken, and a
// listener opened at run time gives way to one of the file.
//
// All three must be free of errors. The error tells what is wrong with the
// result, which can be when both have changed things that exclude each other.
func Merge(base, file, running *Config) (Merged, error) {
	m := Merged{Config: file}
	switch {
	case equal(base, running):
		m.Config = file.Clone()
		return m, nil
	case equal(base, file):
		m.Config = running.Clone()
		m.Config.position(file)
		m.Kept = Diff(file, m.Config)
		return m, nil
	}
	f := file.fullTree()
	root := merge(base.fullTree(), f, running.fullTree())
	mend(root, f)
	merged, err := root.model()
	if merged != nil {
		merged.position(file)
		merged.position(running)
	}
	if err != nil {
		if again := merged.Check("configuration").Err(); again != nil {
			err = again // with positions
		}
		return m, err
	}
	m.Config = merged
	m.Kept = Diff(file, merged)
	has := map[string]bool{}
	for _, e := range append(Diff(base, file), m.Kept...) {
		has[e.text] = true
	}
	for _, e := range Diff(base, running) {
		if !has[e.text] {
			m.Lost = append(m.Lost, e)
		}
	}
	return m, nil
}

// merge merges elements that file and running have both. Without a base, they
// were added in both, and what the file says is new.
func merge(base, file, running *node) *node {
	n := &node{tag: file.tag, key: file.key, text: file.text}
	if base != nil && base.text == file.text {
		n.text = running.text
	}
	n.attrs = append(n.attrs, file.attrs...)
	if base != nil {
		if base.tag == file.tag {
			n.tag = running.tag
		}
		for _, name := range attrChanges(file, running) {
			was, had := base.lookup(name)
			if is, has := file.lookup(name); was == is && had == has {
				value, there := running.lookup(name)
				n.put(name, value, there)
			}
		}
	}
	// Kids that are there once come one by one, unless their order counts.
	baseList, o1 := base.list()
	fileList, o2 := file.list()
	runningList, o3 := running.list()
	ordered := o1 || o2 || o3
	if ordered {
		list := fileList
		if slices.EqualFunc(baseList, fileList, (*node).same) {
			list = runningList
		}
		for _, k := range list {
			n.kids = append(n.kids, k.clone())
		}
	}
	single := func(k *node) bool { return keys[k.tag] == "" }
	for _, k := range file.kids {
		if ordered && single(k) {
			continue
		}
		if kid := mergeKid(base.kid(k.step()), k, running.kid(k.step())); kid != nil {
			n.add(kid)
		}
	}
	for _, k := range running.kids {
		if ordered && single(k) || file.kid(k.step()) != nil {
			continue
		}
		if kid := mergeKid(base.kid(k.step()), nil, k); kid != nil {
			n.add(kid)
		}
	}
	return n
}

// mergeKid merges an element of which any side may be missing.
func mergeKid(base, file, running *node) *node {
	tag := file
	if tag == nil {
		tag = running
	}
	if everThere[tag.tag] {
		empty := &node{tag: tag.tag}
		if base == nil {
			base = empty
		}
		if file == nil {
			file = empty
		}
		if running == nil {
			running = empty
		}
	}
	switch {
	case file != nil && running != nil:
		return merge(base, file, running)
	case file != nil: // deleted at run time, unless it is new
		if base != nil && base.same(file) {
			return nil
		}
		return file.clone()
	case base == nil: // added at run time
		return running.clone()
	}
	return nil // deleted in the file
}

// mend makes sense of what each side has left.
func mend(root, file *node) {
	if len(root.of("service")) == 0 {
		for _, s := range file.of("service") {
			root.add(s.clone())
		}
	}
	taken := addresses{} // by listeners that the file has
	for _, s := range root.of("service") {
		for _, l := range s.of("listen") {
			if file.kid(s.step()).kid(l.step()) != nil {
				taken.add(l.get("ip"))
			}
		}
	}
	for _, s := range root.of("service") {
		was := file.kid(s.step())
		for _, l := range s.of("listen") {
			if was.kid(l.step()) == nil && taken.overlaps(l.get("ip")) {
				s.drop(l.step())
			}
		}
		if len(s.of("listen")) == 0 {
			for _, l := range was.of("listen") {
				s.add(l.clone())
			}
		}
		if len(s.of("listen")) == 0 {
			root.drop(s.step())
			continue
		}
		mendEnabled(s, was)
	}
}

// mendEnabled sees to it that the enabled group is there.
func mendEnabled(s, file *node) {
	enabled := step{"group", s.get("enable")}
	if s.kid(enabled) != nil {
		return
	}
	groups := s.of("group")
	said := step{"group", file.get("enable")}
	switch g := file.kid(said); {
	case g != nil:
		if s.kid(said) == nil {
			s.add(g.clone())
		}
		s.set("enable", said.key)
	case len(groups) > 0:
		s.set("enable", groups[0].key)
	default:
		s.remove("enable")
	}
}

// position takes over where things stand from another model, for what has no
// position yet.
func (c *Config) position(from *Config) {
	copyPositions(reflect.ValueOf(c).Elem(), reflect.ValueOf(from).Elem())
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

// nameOf returns what tells an element of a list apart.
func nameOf(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	for _, field := range []string{"Name", "Address"} {
		if f := v.FieldByName(field); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
	}
	return ""
}
