package admin

import (
	"fmt"
	"strings"

	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
	"github.com/txlb/txlb/sched"
)

// VerbInfo is one verb in the Data of help.
type VerbInfo struct {
	Name        string   `json:"name"`
	Aliases     []string `json:"aliases,omitempty"`
	Syntax      string   `json:"syntax"`
	Help        string   `json:"help"`
	Role        string   `json:"role"`
	Changes     bool     `json:"changes"`
	Destructive bool     `json:"destructive"`
	Served      bool     `json:"served"`
	// Params are those of the one verb, or the one parameter, that was asked for.
	Params []ParamInfo `json:"params,omitempty"`
}

// ParamInfo is one parameter in the Data of help.
type ParamInfo struct {
	Name     string   `json:"name"`
	Aliases  []string `json:"aliases,omitempty"`
	Syntax   string   `json:"syntax"`
	Type     string   `json:"type"`
	Values   string   `json:"values,omitempty"` // bounds or words, for people
	Min      *int64   `json:"min,omitempty"`    // of a number
	Max      *int64   `json:"max,omitempty"`
	Choices  []string `json:"choices,omitempty"`
	Default  string   `json:"default,omitempty"` // of something new; setting verbs leave out what they do not change
	Required bool     `json:"required"`
	Help     string   `json:"help,omitempty"`
}

// kindNames are the types of parameters for people.
var kindNames = [...]string{
	Text: "text", Service: "the name of a service", Group: "the name of a group", Host: "the name of a host", User: "the name of a user",
	Address: "an address to connect to: host:port, [v6]:port or unix:/path", Listen: "an address to listen on: host:port, [v6]:port, *:port or unix:/path; port 0 takes a free one",
	Listener: "the address of a listener", Mirror: "the address of a mirror", Session: "the ID of a session", AnySession: "the ID of a session, open or ended", Scheduler: "a scheduler", Number: "a number", Duration: "a duration with a unit, such as 500ms, 30s or 5m",
	Choice: "one of the words", Bool: "yes or no", Flag: "a flag", Hash: "a crypt(3) hash; it is never shown", VerbName: "a verb", Unconfirmed: "the generation of a change that waits to be confirmed",
	Node: "the name of a node of the fleet",
}

func (p *Param) info() ParamInfo {
	i := ParamInfo{Name: p.Name, Aliases: p.Aliases, Syntax: p.syntax(), Type: kindNames[p.Kind], Choices: p.Choices, Required: p.Required, Help: p.Help}
	switch p.Kind {
	case Number, Unconfirmed:
		i.Min, i.Max = &p.Low, &p.High
		i.Values = fmt.Sprintf("%d to %d", p.Low, p.High)
	case Choice:
		i.Values = strings.Join(p.Choices, ", ")
	case Scheduler:
		i.Choices = sched.Choices()
		i.Values = strings.Join(i.Choices, ", ")
	}
	if a := p.attribute; a != nil {
		i.Default, i.Help = a.Default, strings.NewReplacer("`", "", "**", "").Replace(a.Help)
		if v := a.Values(); p.Kind != Address && p.Kind != Listen && p.Kind != Scheduler && p.Kind != Bool {
			i.Values = v
		}
	}
	return i
}

// manual says all that the table has about a parameter.
func (p *Param) manual(v *Verb) string {
	i := p.info()
	lines := []string{fmt.Sprintf("%s of %s", i.Syntax, v.Name)}
	say := func(what, value string) {
		if value != "" {
			lines = append(lines, "    "+what+value)
		}
	}
	say("", i.Help)
	say("type: ", i.Type)
	say("values: ", i.Values)
	say("default: ", i.Default)
	say("also called ", strings.Join(i.Aliases, ", "))
	if i.Required {
		say("required", " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), " ")
}

// param finds a parameter by one of its names.
func (v *Verb) param(name string) (*Param, error) {
	var names []string
	for i := range v.Params {
		p := &v.Params[i]
		if p.named(strings.TrimPrefix(name, "--")) {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s has no parameters", v.Name)
	}
	return nil, fmt.Errorf("%s has no parameter %s%s", v.Name, show(name), suggest(name, names))
}

func (v *Verb) info(served bool) VerbInfo {
	return VerbInfo{v.Name, v.Aliases, v.Syntax(), v.Help, v.Role.String(), v.Changes, v.Destructive, served, nil}
}

// Served tells whether everything is there that the verb needs.
func (a *Admin) Served(v *Verb) bool {
	switch {
	case v.Part == "":
		return true
	case v.Role == users.Full:
		return a.opt.Process != nil
	}
	return a.opt.Reports[v.Name] != nil
}

func (k *call) help() (Result, error) {
	if k.args.given("verb") {
		c := words.Command{Verb: k.args.text("verb")}
		for _, word := range []string{"word", "parameter"} {
			if k.args.given(word) {
				c.Words = append(c.Words, words.Word{Value: k.args.text(word)})
			}
		}
		v, rest, err := k.admin.resolve(c)
		if err != nil {
			return Result{}, err
		}
		info := v.info(k.admin.Served(v))
		if len(rest) == 0 {
			for i := range v.Params {
				info.Params = append(info.Params, v.Params[i].info())
			}
			return Result{Text: k.admin.manual(v), Data: info}, nil
		}
		p, err := v.param(rest[0].Value)
		if err == nil && len(rest) > 1 {
			err = fmt.Errorf("unexpected argument %s; write help %s %s", show(rest[1].Value), v.Name, p.Name)
		}
		if err != nil {
			return Result{}, err
		}
		info.Params = []ParamInfo{p.info()}
		return Result{Text: p.manual(v), Data: info}, nil
	}
	var lines []string
	infos := []VerbInfo{}
	for i := range k.admin.verbs {
		v := &k.admin.verbs[i]
		served := k.admin.Served(v)
		infos = append(infos, v.info(served))
		if served && v.Role <= k.caller.Role {
			lines = append(lines, v.Syntax(), "    "+v.Help)
		}
	}
	return Result{Text: strings.Join(lines, "\n"), Data: infos}, nil
}

// manual says all that the table has about a verb.
func (a *Admin) manual(v *Verb) string {
	lines := []string{v.Syntax(), "    " + v.Help}
	say := func(format string, args ...any) { lines = append(lines, "    "+fmt.Sprintf(format, args...)) }
	for _, p := range v.Params {
		what := p.Explain()
		if len(p.Aliases) > 0 {
			what = strings.TrimPrefix(what+"; also called "+strings.Join(p.Aliases, ", "), "; ")
		}
		if what != "" {
			say("%s: %s", p.Name, what)
		}
	}
	if len(v.Aliases) > 0 {
		say("also called %s", strings.Join(v.Aliases, ", "))
	}
	say("role %s", v.Role)
	if !a.Served(v) {
		say("not served here: it needs %s", v.Part)
	}
	return strings.Join(lines, "\n")
}

// Explain says what a value may be, "" where the name says it.
func (p *Param) Explain() string {
	if p.Help != "" {
		return p.Help
	}
	if p.attribute != nil {
		return p.attribute.Explain()
	}
	switch p.Kind {
	case Number:
		return fmt.Sprintf("a number between %d and %d", p.Low, p.High)
	case Choice:
		return strings.Join(p.Choices, ", ")
	case Address:
		return "host:port, [v6]:port or unix:/path"
	case Listen:
		return "host:port, [v6]:port, *:port or unix:/path; port 0 takes a free one"
	case Hash:
		return "a crypt(3) hash; it is never shown"
	}
	return ""
}
