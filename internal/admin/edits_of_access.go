package admin

import (
	"fmt"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/words"
)

// ruleNumber is the place of an access rule among those of its service, from 1 on.
func ruleNumber(name string) Param {
	return Param{Name: name, Kind: Number, Low: 1, High: 1_000_000, Help: "place of the rule, as show access has it"}
}

func addAccess(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	r := config.AccessRule{Deny: e.args.text("action") == "deny"}
	if e.args.given("net") == e.args.given("file") {
		return fmt.Errorf("give either net=NETWORKS, as net=\"10.0.0.0/8 192.0.2.7\", or file=PATH")
	}
	for _, name := range []string{"net", "file"} {
		if e.args.given(name) {
			edits.Assign(config.Find("allow", name), &r, e.args.text(name))
		}
	}
	at := len(s.Access)
	if n, given := e.args.number("at"); given {
		if at = int(n) - 1; at > len(s.Access) {
			return fmt.Errorf("at: service %s has %s, so the new one is at most number %d", show(s.Name), count(len(s.Access), "access rule"), len(s.Access)+1)
		}
	}
	if i := slices.IndexFunc(s.Access[:at], func(r config.AccessRule) bool { return r.Nets == "*" }); i >= 0 {
		e.Warn("the rule is never reached: rule %d matches every client; at=%d puts the new one before it", i+1, i+1)
	}
	s.Access = slices.Insert(s.Access, at, r)
	return e.Do("add access rule %d to service %s: %s", at+1, show(s.Name), DescribeRule(&r))
}

func delAccess(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	n, _ := e.args.number("number")
	switch {
	case len(s.Access) == 0:
		return refuse(ErrUnknownName, "service %s has no access rules", show(s.Name))
	case int(n) > len(s.Access):
		return refuse(ErrUnknownName, "service %s has no access rule %d; the last is number %d", show(s.Name), n, len(s.Access))
	}
	gone := s.Access[n-1]
	s.Access = slices.Delete(s.Access, int(n)-1, int(n))
	return e.Do("delete access rule %d of service %s: %s", n, show(s.Name), DescribeRule(&gone))
}

// DescribeRule tells whom a rule is about.
func DescribeRule(r *config.AccessRule) string {
	text := "allow "
	if r.Deny {
		text = "deny "
	}
	switch {
	case r.File != "":
		return text + "the networks in " + words.Quote(r.File)
	case r.Nets == "*":
		return text + "every address"
	}
	return text + r.Nets
}

// RuleInfo is one rule in the Data of show access.
type RuleInfo struct {
	Service string `json:"service"`
	Number  int    `json:"number"` // its place, from 1 on
	Action  string `json:"action"` // allow, deny
	Net     string `json:"net"`    // "": see File
	File    string `json:"file,omitempty"`
}

func (k *call) showAccess() (Result, error) {
	state, want := k.state(), k.args.text("service")
	if want != "" {
		if _, err := edits.Service(state.Config, want); err != nil {
			return Result{}, err
		}
	}
	infos := []RuleInfo{}
	t := table{head: []string{"service", "rule", "action", "net", "file"}, right: 5}
	for _, s := range state.Config.Services {
		if want != "" && s.Name != want {
			continue
		}
		for i, r := range s.Access {
			one := RuleInfo{Service: s.Name, Number: i + 1, Action: "allow", Net: r.Nets, File: r.File}
			if r.Deny {
				one.Action = "deny"
			}
			infos = append(infos, one)
			t.row(one.Service, one.Number, one.Action, one.Net, one.File)
		}
	}
	return Result{Text: t.String(), Data: infos, Generation: state.Generation}, nil
}
