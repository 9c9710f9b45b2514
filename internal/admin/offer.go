package admin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

// Offer is a way in which people are offered a verb: as a form, or as a question
// that is asked before. The page is made of offers; ctl and SSH ask the same
// questions.
//
// Title and Lines may have words in braces. {service}, {name} and so on are the
// words of the command; for the others see [Scene.text].
type Offer struct {
	Label string   // of the button, such as "Delete host"
	Note  string   // next to the button: what follows, in one line
	Title string   // the question; "": the verb is done without one
	Lines []string // of the question: what follows now
	// Set are words that the offer gives. An offer with Set has the Fields alone.
	Set []words.Word
	// About is an option that the question is about: it is asked if the command has that.
	About string
	// Fields are the options to fill in; nil: all that no other offer of the verb
	// has.
	Fields []string
	Preset []words.Word // what fields say at first
	// Pin gives words that keep the answer about what the question was about; nil: none.
	Pin  func(*Scene) []words.Word
	When func(*Scene) bool // whether to offer it now; nil: always
	// Warn tells what is bad about it now, and whether the verb needs --force.
	Warn func(*Scene) (warnings []string, force bool)
}

// offer adds a way in which the verb is offered.
func (v Verb) offer(o Offer) Verb {
	v.Offers = append(slices.Clip(v.Offers), o)
	return v
}

// undoneBy says how the verb is undone; see [Verb.Undo].
func (v Verb) undoneBy(inverse func(*Scene) (c words.Command, to string)) Verb {
	v.Inverse = inverse
	return v
}

// Question is what is asked before something is done that clients may notice.
type Question struct {
	Title    string
	Lines    []string // what follows
	Warnings []string // what is bad about it now
	Force    bool     // it is refused without --force
}

// String gives the question as one line.
func (q Question) String() string {
	return strings.Join(slices.Concat([]string{q.Title}, q.Lines, q.Warnings), " ")
}

// Question works out what is asked in a scene.
func (o *Offer) Question(s *Scene) (q Question) {
	q.Title = s.text(o.Title)
	for _, line := range o.Lines {
		if line = s.text(line); line != "" {
			q.Lines = append(q.Lines, line)
		}
	}
	if line := s.elsewhere(); line != "" {
		q.Lines = append(q.Lines, line)
	}
	if o.Warn != nil {
		q.Warnings, q.Force = o.Warn(s)
	}
	return q
}

// Asked returns the offer that asks before the verb is done with these words,
// nil if none does.
func (v *Verb) Asked(s *Scene) *Offer {
	for i := range v.Offers {
		o := &v.Offers[i]
		differs := func(w words.Word) bool { return s.Word(w.Key) != w.Value }
		if o.Title != "" && (o.About == "" || s.Word(o.About) != "") && !slices.ContainsFunc(o.Set, differs) {
			return o
		}
	}
	return nil
}

// Options are the parameters that an offer of the verb has a field for.
func (v *Verb) Options(o *Offer, force bool) (list []*Param) {
	elsewhere := func(name string) bool {
		return slices.ContainsFunc(v.Offers, func(other Offer) bool {
			return slices.Contains(other.Fields, name) || slices.ContainsFunc(other.Set, func(w words.Word) bool { return w.Key == name })
		})
	}
	for i := range v.Params {
		p := &v.Params[i]
		switch {
		case p.everywhere() && p.Name != "confirm", p.Name == "force" && !force, p.Kind.place():
		case p.Name == "confirm": // last
			if o.Title != "" || len(list) > 0 { // else one click is enough
				list = append(list, p)
			}
		case len(o.Set) > 0 && o.Fields == nil, o.Fields != nil && !slices.Contains(o.Fields, p.Name), o.Fields == nil && elsewhere(p.Name):
		case o.Title != "" && !p.Option: // the question is about it, or does not ask
		default:
			list = append(list, p)
		}
	}
	return list
}

// Depth tells of how many names the place is that the verb is about, at least and
// at most: none, a service, a group of it, a host of that.
func (v *Verb) Depth() (least, most int) {
	for i := range v.Params {
		if p := &v.Params[i]; p.Kind.place() {
			most++
			if p.Required {
				least++
			}
		}
	}
	return least, most
}

// Takes tells whether the verb has such a parameter.
func (v *Verb) Takes(name string) bool {
	return slices.ContainsFunc(v.Params, func(p Param) bool { return p.Name == name })
}

// place tells whether a parameter names a place.
func (k Kind) place() bool { return k == Service || k == Group || k == Host }

// Scene is what a command is about: its words, and what runs.
type Scene struct {
	*status.Reading
	Service *status.Service // as far as the command names them
	Group   *status.Group
	Host    *status.Host
	Last    string // what the last change was, "" if that is not known

	verb  *Verb
	words map[string]string // by the name of the parameter
}

// NewScene finds what the words of a verb are about. Words without a key are
// given to parameters in their order; unknown ones are left out. The error is
// ErrUnknownName if something named is not there.
func NewScene(r *status.Reading, v *Verb, given ...words.Word) (*Scene, error) {
	s := &Scene{Reading: r, verb: v, words: map[string]string{}}
	var positional []string
	for _, w := range given {
		if w.Key == "" {
			positional = append(positional, w.Value)
			continue
		}
		for i := range v.Params {
			if v.Params[i].named(w.Key) {
				s.words[v.Params[i].Name] = w.Value
			}
		}
	}
	names := map[Kind]string{}
	for i := range v.Params {
		p := &v.Params[i]
		if _, given := s.words[p.Name]; !given && !p.Option && len(positional) > 0 {
			s.words[p.Name], positional = positional[0], positional[1:]
		}
		if p.Kind.place() {
			names[p.Kind] = s.words[p.Name]
		}
	}
	service, group, host := names[Service], names[Group], names[Host]
	s.Service, s.Group, s.Host = r.Find(service, group, host)
	if service != "" && s.Service == nil || group != "" && s.Group == nil || host != "" && s.Host == nil {
		return nil, refuse(ErrUnknownName, "there is nothing of that name")
	}
	return s, nil
}

// Word returns the value that the command has for a parameter, "" for none.
func (s *Scene) Word(name string) string { return s.words[name] }

// Lacks tells whether a required parameter has no value, options apart, which are asked for.
func (s *Scene) Lacks() bool {
	return slices.ContainsFunc(s.verb.Params, func(p Param) bool { return p.Required && !p.Option && s.words[p.Name] == "" })
}

// Place returns the words that name the place.
func (s *Scene) Place() (list []words.Word) {
	for i := range s.verb.Params {
		if p := &s.verb.Params[i]; p.Kind.place() && s.words[p.Name] != "" {
			list = append(list, words.Word{Key: p.Name, Value: s.words[p.Name]})
		}
	}
	return list
}

// Value returns the value that a parameter sets, as it is now or, of something
// new, by default. It is not known for parameters that set no attribute.
func (s *Scene) Value(p *Param) (value string, known bool) {
	a := p.attribute
	if a == nil {
		return "", false
	}
	if element := s.element(a.Element); element != nil {
		return a.Get(element), true
	}
	if s.verb.Takes("number") { // something that is there, and not known which
		return "", false
	}
	return a.Default, true
}

// mostChoices is how many numbers there are to choose from.
const mostChoices = 50

// Choices returns what a parameter has to be one of, if that is so now.
func (s *Scene) Choices(p *Param) (list []string) {
	switch {
	case p.Kind == Listener && s.Service != nil:
		for _, l := range s.Service.Config.Listen {
			list = append(list, l.Address)
		}
	case s.verb.Name == "delAccess" && p.Name == "number" && s.Service != nil:
		for i := range min(len(s.Service.Config.Access), mostChoices) {
			list = append(list, strconv.Itoa(i+1))
		}
	case p.Kind == Mirror && s.Group != nil:
		for _, m := range mirrors(s.Group.Config) {
			list = append(list, m.Address)
		}
	case p.Kind == Node && s.Fleet != nil:
		for i := range s.Fleet.Nodes {
			list = append(list, s.Fleet.Nodes[i].Name)
		}
	case p.Kind == User:
		for _, u := range s.State.Config.Admin.Users {
			list = append(list, u.Name)
		}
	}
	return list
}

// element returns the struct of an element of the place, nil if it has none.
func (s *Scene) element(name string) any {
	switch {
	case name == "host" && s.Host != nil:
		return s.Host.Config
	case name == "mirror" && s.Group != nil:
		for _, m := range mirrors(s.Group.Config) {
			if edits.SameAddress(m.Address, s.words["ip"]) {
				return m
			}
		}
	case name == "group" && s.Group != nil:
		return s.Group.Config
	case name == "timeouts" && s.Service != nil:
		return &s.Service.Config.Timeouts
	case name == "route" && s.Service != nil:
		if n, _ := strconv.Atoi(s.words["number"]); n > 0 && n <= len(s.Service.Config.Routes) {
			return &s.Service.Config.Routes[n-1]
		}
	case name == "limits" && s.Service != nil:
		return &s.Service.Config.Limits
	}
	return nil
}

// text writes a text with its words in braces replaced. {place} is the place in
// words, {sessions} how many sessions are open on it, {finish} and {reconnect} what
// becomes of those, if there are any, {hosts} how many hosts its
// group has, {serving} how many of them serve, {active} the sessions of the group
// that is active now, {last} what the last change was.
func (s *Scene) text(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	var pairs []string
	for i := range s.verb.Params {
		name := s.verb.Params[i].Name
		pairs = append(pairs, "{"+name+"}", Short(s.words[name]))
	}
	place, sessions := "txlb", s.Sessions
	switch {
	case s.Host != nil:
		place, sessions = "host "+Short(s.Host.Config.Name), s.Host.Stats.Active
	case s.Group != nil:
		place, sessions = "group "+Short(s.Group.Config.Name), s.Group.Stats.Active
	case s.Service != nil:
		place, sessions = "service "+Short(s.Service.Config.Name), s.Service.Stats.Active
	}
	finish, reconnect := "", ""
	if sessions > 0 {
		finish, reconnect = " and can finish", " All are closed now; clients may reconnect at once."
	}
	pairs = append(pairs, "{place}", place, "{sessions}", open(sessions), "{finish}", finish, "{reconnect}", reconnect, "{last}", s.Last)
	told := "They are told nothing now"
	switch {
	case s.Fleet == nil:
	case s.Fleet.Order != nil:
		told = s.Fleet.Order.Headline()
	case s.Fleet.OrderProblem != "":
		told = s.Fleet.OrderProblem
	}
	pairs = append(pairs, "{told}", told)
	if g := s.Group; g != nil {
		serving := fmt.Sprintf("%d of its %s %s up and ready", g.Serving, count(len(g.Hosts), "host"), is(g.Serving))
		pairs = append(pairs, "{hosts}", count(len(g.Hosts), "host"), "{serving}", serving)
	}
	if s.Service != nil {
		active := "No group is active"
		if g := s.Service.Enabled(); g != nil {
			active = open(g.Stats.Active) + " in group " + Short(g.Config.Name)
		}
		pairs = append(pairs, "{active}", active)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// Conditions of offers.

func standby(s *Scene) bool { return !s.Group.Config.Enabled }

func hasRules(s *Scene) bool { return len(s.Service.Config.Access) > 0 }

func inFleet(s *Scene) bool { return s.Fleet != nil }

func aboutNode(s *Scene) bool { return s.Word("node") != "" }

func hasRoutes(s *Scene) bool { return len(s.Service.Config.Routes) > 0 }

// unused is standby without a route to the group.
func unused(s *Scene) bool {
	return !s.Group.Config.Enabled && s.Service.Config.RouteTo(s.Group.Config.Name) == 0
}

func stateIsNot(state string) func(*Scene) bool {
	return func(s *Scene) bool { return s.Host.Config.State != state }
}

// Warnings of questions.

// withoutHost warns if the clients of a service would miss a host.
func withoutHost(s *Scene) ([]string, bool) {
	if !s.Group.Takes || !s.Host.Serves() {
		return nil, false
	}
	switch left := s.Group.Serving - 1; {
	case left <= 0:
		return []string{"It is the last host that is up and ready: without it, " + s.without()}, false
	case left == 1:
		return []string{"Only one host is left to serve all clients of the service."}, false
	}
	return nil, false
}

// withoutLast is withoutHost where the last host of a group may go.
func withoutLast(s *Scene) ([]string, bool) {
	if s.Group.Takes && len(s.Group.Hosts) == 1 {
		what := "It is the last host of the active group: clients will be rejected."
		if !s.Group.Config.Enabled {
			what = "It is the last host of the group: clients that routes lead there will be rejected."
		}
		return []string{what}, true
	}
	return withoutHost(s)
}

// nowhereElse warns if the clients of a host would find no other one.
func nowhereElse(s *Scene) ([]string, bool) {
	if otherHost(s.State, s.Service.Config.Name, s.Group.Config.Name, s.Host.Config.Name) {
		return nil, false
	}
	return []string{"No other host that takes these clients is up and ready: they are rejected, or come back to this one."}, true
}

func noneServing(s *Scene) ([]string, bool) {
	if s.Group.Serving > 0 {
		return nil, false
	}
	return []string{"None of its hosts is up and ready: " + s.without()}, true
}

// without says what becomes of clients without a host that is up and ready: those
// that are down and should take clients are tried, but for the host in question.
func (s *Scene) without() string {
	if s.Group.Hold != nil || s.Group.Awaits() {
		return "clients wait."
	}
	if s.Group.Config.AllDown == "try" {
		for i := range s.Group.Hosts {
			h := &s.Group.Hosts[i]
			if (s.Host == nil || h.Config.Name != s.Host.Config.Name) && h.Config.State == "ready" && h.Config.Weight > 0 {
				return "clients are tried on hosts that are down."
			}
		}
	}
	return "clients are rejected."
}

func unsaved(s *Scene) string {
	n := len(s.Unsaved)
	return fmt.Sprintf("%s made at run time %s not saved", count(n, "change"), is(n))
}

func discards(s *Scene) ([]string, bool) {
	if len(s.Unsaved) == 0 {
		return nil, false
	}
	return []string{unsaved(s) + ". Discarding loses " + them(len(s.Unsaved)) + "."}, false
}

func endsAll(s *Scene) ([]string, bool) {
	list := []string{"All services on this txlb stop, unless another one takes over."}
	if len(s.Unsaved) > 0 {
		list = append(list, unsaved(s)+".")
	}
	return list, false
}

func servesClients(*Scene) ([]string, bool) {
	return []string{"Its clients lose the service."}, false
}

// Undo returns the command that takes one back, and the label of its button, ""
// if there is none. A verb that only sets something is undone by a verb that
// sets, whatever has been changed since. Everything else is undone by a rollback,
// which is refused if generation, the one that the command made, is not the last
// any more. s is the scene before the command.
func (v *Verb) Undo(s *Scene, generation uint64) (c words.Command, label string) {
	if v.Inverse != nil {
		c, to := v.Inverse(s)
		if to == "" {
			return words.Command{}, ""
		}
		unset := func(w words.Word) bool { return w.Value == "" } // a form cannot say that
		if !slices.ContainsFunc(c.Words, unset) {
			return c, "Undo: back to " + to
		}
	}
	return words.Command{Verb: "rollback", Words: []words.Word{{Key: "n", Value: "1"}, {Key: "generation", Value: fmt.Sprint(generation)}}}, "Undo"
}

// setBack gives the attributes of elements that a command names the values that
// they had.
func setBack(verb string, elements ...string) func(*Scene) (words.Command, string) {
	return func(s *Scene) (words.Command, string) {
		return s.before(verb, elements, func(a *config.Attribute, was string) bool {
			set := s.Word(a.Name)
			if text, err := a.Parse(set); err == nil {
				set = text
			}
			return set != "" && !strings.EqualFold(set, was)
		})
	}
}

// stateBack gives a host the state that it had.
func stateBack(s *Scene) (words.Command, string) {
	return s.before("setHost", []string{"host"}, func(a *config.Attribute, _ string) bool { return a.Name == "state" })
}

// before is the command that sets those attributes to what they are in the scene.
func (s *Scene) before(verb string, elements []string, wanted func(a *config.Attribute, was string) bool) (words.Command, string) {
	c := words.Command{Verb: verb, Words: s.Place()}
	var to []string
	for _, element := range elements {
		p := s.element(element)
		if p == nil {
			continue
		}
		rows := config.Attributes(element)
		for i := range rows {
			if a := &rows[i]; a.Runtime && wanted(a, a.Get(p)) {
				c.Words = append(c.Words, words.Word{Key: a.Name, Value: a.Get(p)})
				to = append(to, a.Name+" "+a.Get(p))
			}
		}
	}
	return c, strings.Join(to, ", ")
}

// groupBack makes the group active that was.
func groupBack(s *Scene) (words.Command, string) {
	if s.Service == nil || s.Service.Enabled() == nil {
		return words.Command{}, ""
	}
	was := s.Service.Enabled().Config.Name
	return words.Command{Verb: "enableGroup", Words: []words.Word{
		{Key: "service", Value: s.Service.Config.Name}, {Key: "group", Value: was}, {Key: "force", Value: "yes"},
	}}, "group " + Short(was)
}

// open says how many sessions are open.
func open(n int64) string {
	if n == 0 {
		return "No session is open"
	}
	return count(int(n), "session") + " " + is(int(n)) + " open"
}

func is(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// shortName is how much of a name a line has room for, in letters.
const shortName = 64

// Short makes a name fit into a line of text for people.
func Short(name string) string {
	if len(name) > 4*shortName {
		name = strings.ToValidUTF8(name[:4*shortName], "") + "…"
	}
	name = strings.Map(visible, name)
	if utf8.RuneCountInString(name) <= shortName {
		return name
	}
	return string([]rune(name)[:shortName-1]) + "…"
}

// visible replaces what would break a line.
func visible(r rune) rune {
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
		return '␣'
	}
	return r
}
