package director

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/acl"
)

// lists are the files of networks that access rules name, by path. A list is
// immutable: what was read again and says the same stays the same pointer.
type lists map[string]*list

type list struct{ networks []netip.Prefix }

// CheckLists reads the files of networks that a configuration names, and tells what is
// wrong with them.
func CheckLists(c *config.Config) error {
	_, err := readLists(c, nil)
	return err
}

// readLists reads the files that a configuration names, but for those in known.
func readLists(c *config.Config, known lists) (lists, error) {
	all := lists{}
	var wrong config.Problems
	for _, s := range c.Services {
		for i := range s.Access {
			path := s.Access[i].File
			if path == "" || all[path] != nil {
				continue
			}
			if l := known[path]; l != nil {
				all[path] = l
				continue
			}
			networks, problems := readList(path, s.Name)
			wrong = append(wrong, problems...)
			all[path] = &list{networks}
		}
	}
	return all, wrong.Err()
}

// readList reads one file, which has to be a regular one: a FIFO could make us wait.
func readList(path, service string) ([]netip.Prefix, config.Problems) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		if whole, ok := errors.AsType[*fs.PathError](err); ok {
			err = whole.Err
		}
		return nil, config.Problems{{File: path, Text: fmt.Sprintf("cannot read the networks for <access> of service %q: %v", service, err)}}
	}
	return config.ParseNetworkList(path, text)
}

// settled returns what was read, with the lists of was where they say the same, and
// the paths of those that do not.
func (l lists) settled(was lists) (all lists, changed []string) {
	all = lists{}
	for path, now := range l {
		before := was[path]
		if before != nil && (before == now || slices.Equal(before.networks, now.networks)) {
			all[path] = before
			continue
		}
		all[path] = now
		if before != nil {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	return all, changed
}

// access is who may connect to a service. It is immutable.
type access struct {
	rules []config.AccessRule
	files []*list // of the rules; nil where a rule has none
	list  *acl.List
}

// accessOf returns who may connect to a service, nil for everybody: what before was,
// if the rules and their files are the same.
func accessOf(s *config.Service, files lists, before *access) *access {
	if len(s.Access) == 0 {
		return nil
	}
	if before != nil && before.same(s.Access, files) {
		return before
	}
	a := &access{rules: s.Access}
	var rules []acl.Rule
	for _, r := range s.Access {
		a.files = append(a.files, files[r.File])
		rules = append(rules, acl.Rule{Deny: r.Deny, Nets: networksOf(r, files)})
	}
	a.list = acl.New(rules)
	return a
}

func networksOf(r config.AccessRule, files lists) []netip.Prefix {
	switch {
	case r.File != "" && files[r.File] != nil:
		return files[r.File].networks
	case r.Nets == "*":
		return acl.Every()
	}
	return config.Networks(r.Nets).Prefixes()
}

func (a *access) same(rules []config.AccessRule, files lists) bool {
	if len(rules) != len(a.rules) {
		return false
	}
	for i, r := range rules {
		was := a.rules[i]
		if r.Deny != was.Deny || r.Nets != was.Nets || r.File != was.File || files[r.File] != a.files[i] {
			return false
		}
	}
	return true
}
