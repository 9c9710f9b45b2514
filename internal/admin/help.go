package admin

import (
	"fmt"
	"strings"

	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
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
}

func (v *Verb) info(served bool) VerbInfo {
	return VerbInfo{v.Name, v.Aliases, v.Syntax(), v.Help, v.Role.String(), v.Changes, v.Destructive, served}
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
		if k.args.given("word") {
			c.Words = []words.Word{{Value: k.args.text("word")}}
		}
		v, rest, err := k.admin.resolve(c)
		switch {
		case err != nil:
			return Result{}, err
		case len(rest) > 0:
			return Result{}, fmt.Errorf("unexpected argument %s; write help %s", show(rest[0].Value), v.Name)
		}
		return Result{Text: k.admin.manual(v), Data: v.info(k.admin.Served(v))}, nil
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
		say("not served here: it comes with %s", v.Part)
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
