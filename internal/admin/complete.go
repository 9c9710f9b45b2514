package admin

import (
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// Complete returns what the last word of a line may become, sorted: verbs,
// names of what runs, values and options. If the line ends with a blank, a new
// word begins there. The words are quoted where they have to be, whether the one
// that is typed has quotes or not.
func (a *Admin) Complete(line string) []string {
	state := a.opt.Director.State()
	return complete(completer{Verbs(), state.Config, state.Pending(), a.sessionIDs, a.nodes}, line)
}

// nodes returns the names of the nodes of the fleet.
func (a *Admin) nodes() (names []string) {
	if a.opt.Status.Fleet == nil {
		return nil
	}
	for _, n := range a.opt.Status.Fleet().Nodes {
		names = append(names, n.Name)
	}
	return names
}

// completedSessions is how many IDs of open sessions are offered, and of ended ones.
const completedSessions = 100

// sessionIDs returns the IDs of open sessions, and of ended ones too if they may be meant.
func (a *Admin) sessionIDs(ended bool) (ids []string) {
	for _, s := range a.opt.Engine.Sessions(completedSessions, func(string, *sched.Host) bool { return true }) {
		ids = append(ids, FormatSessionID(s.ID))
	}
	if ended {
		for _, s := range a.opt.Engine.Ended(completedSessions) {
			ids = append(ids, FormatSessionID(s.ID))
		}
	}
	return ids
}

// Complete is [Admin.Complete] without an Admin: names are those of c, none if c is
// nil, sessions returns the IDs of open sessions, or of ended ones too, and nodes the names of
// the nodes of the fleet.
func Complete(c *config.Config, sessions func(ended bool) []string, nodes func() []string, line string) []string {
	if c == nil {
		c = &config.Config{}
	}
	return complete(completer{verbs: Verbs(), config: c, sessions: sessions, nodes: nodes}, line)
}

func complete(with completer, line string) []string {
	typed, ok := words.Typed(line)
	if !ok {
		return nil
	}
	return matching(typed, with.list(typed))
}

// completer knows what there is to complete with.
type completer struct {
	verbs    []Verb
	config   *config.Config
	pending  []*director.Pending       // changes that wait to be confirmed
	sessions func(ended bool) []string // IDs
	nodes    func() []string           // names
}

// list returns what may stand where somebody is typing, whatever has been typed
// of it.
func (a completer) list(typed words.Typing) (list []string) {
	before := typed.Command
	if before.Verb == "" {
		return a.verbWords("")
	}
	if second := a.verbWords(before.Verb); len(second) > 0 && len(before.Words) == 0 {
		return second
	}
	v, given, err := resolve(a.verbs, before)
	if err != nil {
		return nil
	}
	if typed.Key != "" {
		for i := range v.Params {
			if p := &v.Params[i]; p.named(strings.TrimPrefix(typed.Key, "--")) {
				list = append(list, a.values(p, nil)...)
			}
		}
		return list
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
		case p.Option && typed.Quoted: // a word in quotes names nothing
		case p.Kind == Flag:
			list = append(list, "--"+p.Name)
		case p.Option:
			list = append(list, p.Name+"=")
		case len(positional) > 0:
			named[p.Name] = positional[0]
			positional = positional[1:]
		case next:
			next = false
			values := a.values(p, named)
			// A name that is begun and has to come now: no option is likelier.
			if p.Required && typed.Text != "" && len(matching(typed, values)) > 0 {
				return values
			}
			list = append(list, values...)
		}
	}
	return list
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
	if verb := named["verb"]; verb != "" && (p.Name == "word" || p.Name == "parameter") { // of help
		return a.parameters(verb, named["word"])
	}
	switch p.Kind {
	case Choice:
		return p.Choices
	case Bool, Flag:
		return []string{"yes", "no"}
	case Scheduler:
		return sched.Choices()
	case VerbName:
		return a.verbWords("")
	case Unconfirmed:
		var all []string
		for _, p := range a.pending {
			all = append(all, strconv.FormatUint(p.Generation, 10))
		}
		return all
	case Service:
		return names(c.Services, func(s *config.Service) string { return s.Name })
	case User:
		return names(c.Admin.Users, userName)
	case Session, AnySession:
		return a.sessions(p.Kind == AnySession)
	case Node:
		return a.nodes()
	}
	s, err := edits.Service(c, named["service"])
	if err != nil {
		return nil
	}
	if p.Kind == Group {
		return names(s.Groups, func(g *config.Group) string { return g.Name })
	}
	if p.Kind == Listen || p.Kind == Listener {
		var all []string
		for _, l := range s.Listen {
			all = append(all, words.Quote(l.Address))
		}
		return all
	}
	g, err := edits.Group(s, named["group"])
	switch {
	case err != nil:
	case p.Kind == Host:
		return names(g.Hosts, func(h *config.Host) string { return h.Name })
	case p.Kind == Mirror:
		return names(mirrors(g), func(m *config.Mirror) string { return m.Address })
	}
	return nil
}

// mirrors returns those of a group.
func mirrors(g *config.Group) (list []*config.Mirror) {
	for i := range g.Mirrors {
		list = append(list, &g.Mirrors[i])
	}
	return list
}

// parameters returns what follows a verb in help: its second word, or the names of
// its parameters.
func (a completer) parameters(verb, word string) (list []string) {
	if second := a.verbWords(verb); len(second) > 0 && word == "" {
		return second
	}
	c := words.Command{Verb: verb}
	if word != "" {
		c.Words = []words.Word{{Value: word}}
	}
	if v, rest, err := resolve(a.verbs, c); err == nil && len(rest) == 0 {
		for i := range v.Params {
			list = append(list, v.Params[i].Name)
		}
	}
	return list
}

// names returns names as they have to be written.
func names[T any](list []*T, name func(*T) string) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = words.Quote(name(v))
	}
	return all
}

// matching returns those words that what has been typed can become, in any case,
// with the key that was typed, sorted and each once.
func matching(typed words.Typing, list []string) []string {
	var fit []string
	for _, word := range list {
		text := words.Unquote(word)
		if n := len(typed.Text); len(text) < n || !strings.EqualFold(text[:n], typed.Text) {
			continue
		}
		if typed.Key != "" {
			word = typed.Key + "=" + word
		}
		fit = append(fit, word)
	}
	slices.Sort(fit)
	return slices.Compact(fit)
}
