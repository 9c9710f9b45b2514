package page

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// ErrNotFound is returned for a page about what is not there, or not any more.
var ErrNotFound = errors.New("not found: it may have been deleted")

// ErrReadonly is returned for a question that its asker may not answer.
var ErrReadonly = errors.New("changes need the role full")

// Form is what a verb is done with: its parameters that are known, and fields
// for the others.
type Form struct {
	Action
	Fields []Field
	Danger bool
	Note   string // what it does, in a line
	Cancel string // where to go instead, "" where that is no question
	Back   string // the text of that link
}

// Field is one parameter to fill in.
type Field struct {
	Name, Label string
	Kind        string // text, number, choice, flag, password
	Value       string
	Choices     []Choice // of a choice
	Hint        string   // an example, or what an empty field means
	Required    bool
	Max         int64 // of a number
}

// link is a way to a page that asks or shows.
type link struct {
	Text, Address string
	Danger        bool
	Note          string
}

// question is what is asked before something is done that clients may notice.
type question struct {
	admin.Question
	Form Form
}

// managed is a service, a group or a host with all that can be done with it.
type managed struct {
	Title   string
	Kind    string
	Service *ServiceView
	Group   *GroupView
	Host    *HostRow
	Forms   []Form
	Links   []link
	Back    string
}

// found is a place in a reading.
type found struct {
	service *status.Service
	group   *status.Group
	host    *status.Host
}

func find(r *status.Reading, at Where) (f found, err error) {
	f.service, f.group, f.host = r.Find(at.Service, at.Group, at.Name)
	if f.service == nil || at.Group != "" && f.group == nil || at.Name != "" && f.host == nil {
		return found{}, ErrNotFound
	}
	return f, nil
}

// params are those that name a place.
func (at Where) params(more ...string) []Param {
	var list []Param
	for _, p := range []Param{{"service", at.Service}, {"group", at.Group}, {"name", at.Name}} {
		if p.Value != "" {
			list = append(list, p)
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		list = append(list, Param{more[i], more[i+1]})
	}
	return list
}

// query writes parameters into an address.
func query(path string, list []Param) string {
	v := url.Values{}
	for _, p := range list {
		v.Set(p.Name, p.Value)
	}
	return path + "?" + v.Encode()
}

// asks is the address of a question about a place.
func (at Where) asks(verb string, more ...string) string {
	return query("ask", append([]Param{{"verb", verb}}, at.params(more...)...))
}

// Manage is the address of the page about the place.
func (at Where) Manage() string { return query("manage", at.params()) }

// words are those that name a place.
func (at Where) words() (list []words.Word) {
	for _, p := range at.params() {
		list = append(list, words.Word{Key: p.Name, Value: p.Value})
	}
	return list
}

// depth is of how many names a place is.
func (at Where) depth() int { return len(at.params()) }

// scene is what a verb is about, with the words of a place or of a form.
func (v *View) scene(verb *admin.Verb, given ...words.Word) (*admin.Scene, error) {
	s, err := admin.NewScene(v.Reading, verb, given...)
	if err != nil {
		return nil, ErrNotFound
	}
	s.Last = v.lastChange()
	return s, nil
}

// verbs are those of Source, all of the table unless a test has others.
func (v *View) verbs() []admin.Verb {
	if v.Verbs != nil {
		return v.Verbs
	}
	return admin.Verbs()
}

// offer adds to what can be done with a place everything that the table of
// verbs offers for it.
func (v *View) offer(m *managed, at Where) error {
	verbs := v.verbs()
	for i := range verbs {
		verb := &verbs[i]
		if least, most := verb.Depth(); !verb.Changes || at.depth() < least || at.depth() > most {
			continue
		}
		s, err := v.scene(verb, at.words()...)
		if err != nil {
			return err
		}
		for j := range verb.Offers {
			o := &verb.Offers[j]
			switch {
			case o.When != nil && !o.When(s):
			case o.Title == "":
				m.Forms = append(m.Forms, v.form(verb, o, s, admin.Question{}))
			default:
				m.Links = append(m.Links, links(verb, o, s)...)
			}
		}
	}
	// What takes one click comes first.
	slices.SortStableFunc(m.Forms, func(a, b Form) int { return min(len(a.Fields), 1) - min(len(b.Fields), 1) })
	return nil
}

// links lead to the question that an offer asks: one link, or one for each that
// the verb can be about.
func links(verb *admin.Verb, o *admin.Offer, s *admin.Scene) (list []link) {
	params := append([]Param{{"verb", verb.Name}}, paramsOf(s.Place(), o.Set)...)
	text := o.Label
	for i := range verb.Params {
		p := &verb.Params[i]
		if !p.Required || p.Option || s.Word(p.Name) != "" {
			continue
		}
		for _, c := range s.Choices(p) {
			address := query("ask", append(params[:len(params):len(params)], Param{p.Name, c}))
			list = append(list, link{text + " " + clip(short(c), 80) + "…", address, verb.Destructive, o.Note})
		}
		return list // no link to what has to be typed in: another page has it
	}
	return append(list, link{text + "…", query("ask", params), verb.Destructive, o.Note})
}

// form is what an offer is taken up with.
func (v *View) form(verb *admin.Verb, o *admin.Offer, s *admin.Scene, q admin.Question) Form {
	f := Form{Action: Action{o.Label, verb.Name, paramsOf(s.Place(), o.Set)}, Danger: verb.Destructive}
	if o.About != "" {
		f.Params = append(f.Params, Param{o.About, s.Word(o.About)})
	}
	if o.Pin != nil {
		f.Params = append(f.Params, paramsOf(o.Pin(s))...)
	}
	if o.Title == "" {
		f.Note = o.Note
	} else {
		for i := range verb.Params { // what the question is about
			if p := &verb.Params[i]; p.Required && !p.Option && !slices.ContainsFunc(f.Params, func(o Param) bool { return o.Name == p.Name }) {
				f.Params = append(f.Params, Param{p.Name, s.Word(p.Name)})
			}
		}
	}
	if verb.Takes("generation") {
		f.Params = append(f.Params, v.generation())
	}
	for _, p := range verb.Options(o, q.Force) {
		one := field(p, s)
		for _, preset := range o.Preset {
			if preset.Key == p.Name {
				one.Value = preset.Value
			}
		}
		f.Fields = append(f.Fields, one)
	}
	return f
}

func paramsOf(words ...[]words.Word) (list []Param) {
	for _, w := range slices.Concat(words...) {
		list = append(list, Param{w.Key, w.Value})
	}
	return list
}

// field is the field of a parameter.
func field(p *admin.Param, s *admin.Scene) Field {
	value, known := s.Value(p)
	f := Field{Name: p.Name, Label: p.Label, Kind: "text", Value: value, Hint: p.Explain(), Required: p.Required || known && value != ""}
	if f.Label == "" {
		f.Label = label(p.Name)
	}
	switch p.Kind {
	case admin.Number:
		f.Kind, f.Max = "number", p.High
	case admin.Bool:
		f.Kind, f.Choices = "choice", []Choice{{"false", "no"}, {"true", "yes"}}
	case admin.Flag:
		f.Kind = "flag"
	case admin.Choice:
		f.Kind, f.Choices = "choice", choices(p.Choices)
		if !p.Required && !known {
			f.Choices = append([]Choice{{"", "as it is"}}, f.Choices...)
		}
	case admin.Hash:
		f.Kind, f.Name, f.Hint = "password", "password", "twice; a crypt(3) hash is taken as it is"
	case admin.Scheduler:
		f.Kind, f.Choices = "choice", choices(sched.Choices())
	}
	if list := s.Choices(p); list != nil {
		f.Kind, f.Choices = "choice", choices(list)
	}
	return f
}

func (v *View) generation() Param {
	return Param{"generation", strconv.FormatUint(v.Generation, 10)}
}

func choices(words []string) (list []Choice) {
	for _, w := range words {
		list = append(list, Choice{w, w})
	}
	return list
}

// label writes the name of an attribute as words: maxFails is "Max fails".
func label(name string) string {
	var b strings.Builder
	for i, c := range name {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(c))
		case unicode.IsUpper(c):
			b.WriteString(" " + string(unicode.ToLower(c)))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// manage works out what can be done with a place.
func (v *View) manage(at Where) (*managed, error) {
	m := &managed{Title: "txlb " + v.Version, Kind: "Global", Back: "./"}
	if at != (Where{}) {
		f, err := find(v.Reading, at)
		if err != nil {
			return nil, err
		}
		v.show(m, at, f)
	}
	return m, v.offer(m, at)
}

// show works out what is shown of a place.
func (v *View) show(m *managed, at Where, f found) {
	for i := range v.Services {
		if v.Services[i].Name == at.Service {
			m.Service = &v.Services[i]
		}
	}
	m.Title, m.Kind, m.Back = at.Service, "Service", "./#"+m.Service.ID
	if f.group == nil {
		return
	}
	for i := range m.Service.Groups {
		if m.Service.Groups[i].Name == at.Group {
			m.Group = &m.Service.Groups[i]
		}
	}
	m.Title, m.Kind, m.Back = at.Group, "Group of service "+short(at.Service), "./#"+m.Group.ID
	if f.host == nil {
		return
	}
	one := row(f.service, f.group, f.host)
	one.Targets = targets(f.host.Host)
	for i := range status.HostCounters {
		c := &status.HostCounters[i]
		one.Counters = append(one.Counters, CounterView{c.Label, c.Help, c.Value(&f.host.Stats), c.Bytes})
	}
	m.Host = &one
	m.Title, m.Kind, m.Back = at.Name, "Host of "+short(at.Service)+" / "+short(at.Group), "./#"+one.ID
}

func targets(h *director.Host) (list []TargetView) {
	for i, t := range append(slices.Clone(h.Targets), h.Leaving()...) {
		status, c := t.Status(), t.Host.Stats()
		one := TargetView{
			Address: t.Host.Addr().String(), Up: c.Up, Leaving: i >= len(h.Targets), Reason: status.Reason, Since: status.Since,
			Sessions: c.Active, Total: c.Picks, Failures: c.Failures, Check: checkView(status),
		}
		if i < len(h.Shares) {
			one.Weight, one.Backup = h.Shares[i].Weight, h.Shares[i].Backup
		}
		list = append(list, one)
	}
	return list
}

// ask works out the question before a verb is done, with what it would mean now.
// params are the verb's, as the address of the question has them.
func (v *View) ask(name string, params url.Values) (*question, error) {
	verb := verbOf(v.verbs(), name)
	if verb == nil {
		return nil, ErrNotFound
	}
	s, err := v.scene(verb, wordsOf(params)...)
	if err != nil {
		return nil, err
	}
	o := verb.Asked(s)
	if o == nil || s.Lacks() {
		return nil, ErrNotFound
	}
	q := &question{Question: o.Question(s)}
	q.Form = v.form(verb, o, s, q.Question)
	q.Form.Cancel, q.Form.Back = back(verb, s), "Cancel"
	if s.Word("cancel") != "" { // which has another meaning then
		q.Form.Back = "Go back"
	}
	return q, nil
}

func verbOf(verbs []admin.Verb, name string) *admin.Verb {
	i := slices.IndexFunc(verbs, func(v admin.Verb) bool { return strings.EqualFold(v.Name, name) })
	if i < 0 {
		return nil
	}
	return &verbs[i]
}

func wordsOf(params url.Values) (list []words.Word) {
	for key, values := range params {
		if key != "" && len(values) > 0 {
			list = append(list, words.Word{Key: key, Value: values[0]})
		}
	}
	return list
}

// back is the page that a question came from.
func back(verb *admin.Verb, s *admin.Scene) string {
	switch {
	case slices.ContainsFunc(verb.Params, func(p admin.Param) bool { return p.Kind == admin.Session }):
		return "sessions"
	case s.Fleet != nil && (s.Word("node") != "" || s.Word("fleet") != "" || s.Word("cancel") != ""):
		return "fleet"
	case s.Host != nil:
		return "./#" + hostID(s.Service.Config.Name, s.Group.Config.Name, s.Host.Config.Name)
	case s.Group != nil:
		return "./#" + groupID(s.Service.Config.Name, s.Group.Config.Name)
	case s.Service != nil:
		return "./#" + serviceID(s.Service.Config.Name)
	}
	return "./"
}

// lastChange tells what a rollback would undo.
func (v *View) lastChange() string {
	for _, e := range slices.Backward(v.Source.Events) {
		if e.Kind != "change" {
			continue
		}
		by := e.By
		if e.From != "" {
			by += " from " + e.From
		}
		return fmt.Sprintf("%s, %s ran: %s", ago(e.Time, v.At), clip(by, 80), clip(e.What, 300))
	}
	return "Restores the configuration as it was before the last change."
}

// Answer makes the message about a verb that was executed. before is the state
// before that; params are what the form said, err what came of it.
func Answer(before *director.State, verb *admin.Verb, params url.Values, r admin.Result, err error) *Message {
	if err != nil {
		return &Message{Level: Critical, Text: "Rejected: " + err.Error()}
	}
	m := &Message{Text: r.Text, Undo: undo(before, verb, params, r.Generation)}
	if strings.Contains(r.Text, "\nwarning: ") {
		m.Level = Warning
	}
	if strings.Contains(r.Text, "nothing to change") {
		m.Undo = nil
	}
	return m
}

// undo is the way back from a change, nil if there is none.
func undo(before *director.State, verb *admin.Verb, params url.Values, generation uint64) *Action {
	if before == nil || generation <= before.Generation {
		return nil
	}
	s, err := admin.NewScene(status.Read(status.Facts{State: before}), verb, wordsOf(params)...)
	if err != nil {
		return nil
	}
	c, label := verb.Undo(s, generation)
	if label == "" {
		return nil
	}
	return &Action{label, c.Verb, paramsOf(c.Words)}
}
