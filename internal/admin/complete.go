package admin

import (
	"slices"
	"strings"

	"github.com/txlb/txlb/config"

	"github.com/txlb/txlb/sched"
)

// Complete returns what the last word of a line may become, sorted: verbs,
// names of what runs, values and options. If the line ends with a blank, a new
// word begins there. The words are quoted where they have to be. In the middle
// of a quoted word there are none.
func (a *Admin) Complete(line string) []string { return Complete(a.opt.Director.State().Config, line) }

// Complete is [Admin.Complete] for whoever has no Admin: names are those of c,
// and none where c is nil.
func Complete(c *config.Config, line string) []string {
	if c == nil {
		c = &config.Config{}
	}
	return completer{Verbs(), c}.complete(line)
}

// completer knows what there is to complete with.
type completer struct {
	verbs  []Verb
	config *config.Config
}

func (a completer) complete(line string) []string {
	commands, err := Parse(line)
	if err != nil {
		return nil
	}
	// The words of the last command, without the one that is being written.
	var words []string
	var done Command
	begun := strings.ContainsAny(line[max(len(line)-1, 0):], " \t\n;") || line == ""
	if n := len(commands); n > 0 && !strings.HasSuffix(strings.TrimRight(line, " \t"), ";") && !strings.HasSuffix(line, "\n") {
		done = commands[n-1]
	}
	start := WordStart(line)
	typed := line[start:]
	if begun {
		typed = ""
	}
	switch {
	case done.Verb == "" || !begun && len(done.Words) == 0:
		return matching(a.verbWords(""), typed)
	case !begun:
		done.Words = done.Words[:len(done.Words)-1]
	}
	if second := a.verbWords(done.Verb); len(second) > 0 && len(done.Words) == 0 {
		return matching(second, typed)
	}
	v, given, err := resolve(a.verbs, done)
	if err != nil {
		return nil
	}
	if key, value, ok := strings.Cut(typed, "="); ok {
		for i := range v.Params {
			if p := &v.Params[i]; p.named(strings.TrimPrefix(key, "--")) {
				for _, w := range matching(a.values(p, nil), value) {
					words = append(words, key+"="+w)
				}
			}
		}
		return words
	}
	named, positional := map[string]string{}, []string{}
	for _, w := range given {
		if w.Key == "" {
			positional = append(positional, w.Value)
			continue
		}
		for i := range v.Params {
			if v.Params[i].named(w.Key) {
				named[v.Params[i].Name] = w.Value
			}
		}
	}
	next := true // the first positional parameter that has no value comes now
	for i := range v.Params {
		p := &v.Params[i]
		_, has := named[p.Name]
		switch {
		case has:
		case p.Kind == Flag:
			words = append(words, "--"+p.Name)
		case p.Option:
			words = append(words, p.Name+"=")
		case len(positional) > 0:
			named[p.Name] = positional[0]
			positional = positional[1:]
		case next:
			next = false
			words = append(words, a.values(p, named)...)
		}
	}
	return matching(words, typed)
}

// verbWords returns the first words of all verbs, or the second words of those
// that begin with first.
func (a completer) verbWords(first string) []string {
	var words []string
	for i := range a.verbs {
		one, two, _ := strings.Cut(a.verbs[i].Name, " ")
		switch {
		case first == "":
			words = append(words, one)
		case two != "" && strings.EqualFold(one, first):
			words = append(words, two)
		}
	}
	return words
}

// values returns what a parameter may be, as far as that can be listed. named
// are the values of those before it.
func (a completer) values(p *Param, named map[string]string) []string {
	c := a.config
	switch p.Kind {
	case Choice:
		return p.Choices
	case Bool, Flag:
		return []string{"yes", "no"}
	case Scheduler:
		return sched.Names()
	case VerbName:
		return a.verbWords("")
	case Service:
		return names(c.Services, serviceName)
	case User:
		return names(c.Admin.Users, userName)
	}
	s, err := findService(c, named["service"])
	if err != nil {
		return nil
	}
	if p.Kind == Group {
		return names(s.Groups, groupName)
	}
	if p.Kind == Listen || p.Kind == Listener {
		var all []string
		for _, l := range s.Listen {
			all = append(all, l.Address)
		}
		return all
	}
	if g, err := findGroup(s, named["group"]); err == nil && p.Kind == Host {
		return names(g.Hosts, hostName)
	}
	return nil
}

// names returns names as they have to be written.
func names[T any](list []*T, name func(*T) string) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = Quote(name(v))
	}
	return all
}

// matching returns those words that begin with prefix in any case, sorted and
// each once.
func matching(words []string, prefix string) []string {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		return len(w) < len(prefix) || !strings.EqualFold(w[:len(prefix)], prefix)
	})
	slices.Sort(words)
	return slices.Compact(words)
}
