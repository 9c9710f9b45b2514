package convert

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// haACL is one test of a connection.
type haACL struct {
	kind   string // net, sni, alpn, hello, sessions, rate, true, false
	values []string
	file   string // of networks, instead of values
	limit  int    // of sessions and rate: the most that passes
}

// haFactor is a test that holds if one of several does, or none if it is negated.
type haFactor struct {
	not  bool
	acls []haACL
}

// haCondition holds if all factors of one of its terms do. Without terms it always
// holds.
type haCondition [][]haFactor

// only tells whether a condition is about one kind alone, and not negated.
func (c haCondition) only(kind string) bool {
	for _, term := range c {
		if len(term) != 1 || term[0].not || slices.ContainsFunc(term[0].acls, func(a haACL) bool { return a.kind != kind }) {
			return false
		}
	}
	return len(c) > 0
}

// acls returns the tests of a condition of single factors.
func (c haCondition) acls() (all []haACL) {
	for _, term := range c {
		for _, f := range term {
			all = append(all, f.acls...)
		}
	}
	return all
}

// aclLine reads acl NAME TEST.
func (h *haFile) aclLine(p *haProxy, l haLine, args []string) {
	if len(args) < 2 {
		h.fail(l.line, "acl needs a name and a test")
		return
	}
	a, err := haTest(args[1:])
	if err != nil {
		p.note(l.place, "no equivalent: %v", err)
		a.kind = "unknown"
	}
	p.acls[args[0]] = append(slices.Clip(p.acls[args[0]]), a)
}

var errUnknown = errors.New("the condition is not about the server name, ALPN or the client's address alone")

// condition reads if … and unless ….
func (h *haFile) condition(p *haProxy, words []string) (haCondition, error) {
	if len(words) == 0 {
		return nil, nil
	}
	if words[0] != "if" && words[0] != "unless" {
		return nil, fmt.Errorf("%q stands where if or unless should", words[0])
	}
	all := haCondition{nil}
	for i := 1; i < len(words); i++ {
		w := words[i]
		not := strings.HasPrefix(w, "!")
		w = strings.TrimPrefix(w, "!")
		switch {
		case w == "" && not && i+1 < len(words): // "! name"
			words[i+1] = "!" + words[i+1]
		case w == "||" || w == "or":
			all = append(all, nil)
		case w == "{":
			end := slices.Index(words[i:], "}")
			if end < 0 {
				return nil, errors.New("{ without }")
			}
			a, err := haTest(words[i+1 : i+end])
			if err != nil {
				return nil, err
			}
			all[len(all)-1] = append(all[len(all)-1], haFactor{not, []haACL{a}})
			i += end
		default:
			acls := p.acls[w]
			switch w {
			case "TRUE":
				acls = []haACL{{kind: "true"}}
			case "FALSE":
				acls = []haACL{{kind: "false"}}
			}
			if acls == nil {
				return nil, fmt.Errorf("there is no acl %q", w)
			}
			if slices.ContainsFunc(acls, func(a haACL) bool { return a.kind == "unknown" }) {
				return nil, errUnknown
			}
			all[len(all)-1] = append(all[len(all)-1], haFactor{not, acls})
		}
	}
	if slices.ContainsFunc(all, func(t []haFactor) bool { return len(t) == 0 }) {
		return nil, errors.New("a condition is missing")
	}
	if words[0] == "unless" {
		if len(all) != 1 || len(all[0]) != 1 {
			return nil, errors.New("unless with several conditions")
		}
		all[0][0].not = !all[0][0].not
	}
	return all, nil
}

// haTest reads what is tested, flags and values.
func haTest(words []string) (haACL, error) {
	if len(words) == 0 {
		return haACL{}, errors.New("an empty condition")
	}
	fetch, _, converted := strings.Cut(words[0], ",")
	if converted && words[0] != fetch+",lower" {
		return haACL{}, fmt.Errorf("%s is not known here", words[0])
	}
	var a haACL
	match := ""
	values := words[1:]
flags:
	for len(values) > 0 && strings.HasPrefix(values[0], "-") {
		flag := values[0]
		values = values[1:]
		switch flag {
		case "-i", "-n":
		case "--":
			break flags
		case "-m", "-f":
			if len(values) == 0 {
				return a, fmt.Errorf("%s needs a value", flag)
			}
			if flag == "-m" {
				match = values[0]
			} else {
				a.file = values[0]
			}
			values = values[1:]
		default:
			return a, fmt.Errorf("the flag %s is not known here", flag)
		}
	}
	name, argument, _ := strings.Cut(fetch, "(")
	switch name {
	case "always_true":
		a.kind = "true"
		return a, nil
	case "always_false":
		a.kind = "false"
		return a, nil
	case "src":
		return a.networks(values, match)
	case "req_ssl_sni", "req.ssl_sni", "ssl_fc_sni":
		return a.names(values, match)
	case "req_ssl_alpn", "req.ssl_alpn", "ssl_fc_alpn":
		a.kind, a.values = "alpn", values
		if match != "" && match != "str" || a.file != "" || len(values) == 0 {
			return a, errors.New("ALPN is compared with names alone")
		}
		return a, nil
	case "req_ssl_hello_type", "req.ssl_hello_type":
		a.kind = "hello"
		if !slices.Equal(values, []string{"1"}) {
			return a, errors.New("a ClientHello has type 1")
		}
		return a, nil
	case "src_conn_cur", "sc_conn_cur", "sc0_conn_cur", "src_conn_rate", "sc_conn_rate", "sc0_conn_rate":
		a.kind = "sessions"
		if strings.HasSuffix(name, "rate") {
			a.kind = "rate"
		}
		if table := strings.TrimSuffix(argument, ")"); table != "" && table != "0" {
			return a, errors.New("the table of another section")
		}
		return a.above(values)
	}
	return a, fmt.Errorf("%s is not known here", name)
}

func (a haACL) networks(values []string, match string) (haACL, error) {
	a.kind = "net"
	if match != "" && match != "ip" {
		return a, errors.New("addresses are compared with networks alone")
	}
	if a.file != "" && len(values) > 0 {
		return a, errors.New("a file and networks in one test")
	}
	if a.file == "" && len(values) == 0 {
		return a, errors.New("src without a network")
	}
	for _, v := range values {
		n, ok := network(v)
		if !ok {
			return a, fmt.Errorf("%q is not a network", v)
		}
		a.values = append(a.values, n)
	}
	return a, nil
}

func (a haACL) names(values []string, match string) (haACL, error) {
	a.kind = "sni"
	if a.file != "" {
		return a, errors.New("server names from a file")
	}
	if len(values) == 0 {
		return a, errors.New("a test for any server name")
	}
	for _, v := range values {
		switch {
		case match == "" || match == "str":
			a.values = append(a.values, strings.ToLower(v))
		case match == "end" && strings.HasPrefix(v, ".") && len(v) > 1:
			a.values = append(a.values, "*"+strings.ToLower(v))
		default:
			return a, fmt.Errorf("-m %s %s: server names are exact, or end in a domain as in -m end .example", match, v)
		}
	}
	return a, nil
}

// above reads gt N and ge N.
func (a haACL) above(values []string) (haACL, error) {
	if len(values) == 2 {
		if n, err := strconv.Atoi(values[1]); err == nil && n > 0 && n < 1<<30 {
			switch values[0] {
			case "gt":
				a.limit = n
				return a, nil
			case "ge":
				a.limit = n - 1
				return a, nil
			}
		}
	}
	return a, errors.New("a limit is gt or ge and a number")
}

// connectionRules writes tcp-request connection rules: who may connect and how often.
func (h *haFile) connectionRules(service *node, p *haProxy) {
	var rules []accessRule
	for i, r := range p.rules {
		action := firstOf(r.words)
		if strings.HasPrefix(action, "track-sc") && len(r.words) == 2 && r.words[1] == "src" {
			continue // what counts the limits
		}
		words := r.words[min(1, len(r.words)):]
		if action == "expect-proxy" {
			h.expectProxy(service, p, r)
			continue
		}
		cond, err := h.condition(p, slices.Clone(words))
		if action != "accept" && action != "reject" {
			err = errors.New("accept and reject alone have one")
		}
		if err != nil {
			h.note(service, r.at, "no equivalent: %v", err)
			continue
		}
		deny := action == "reject"
		later := slices.ContainsFunc(p.rules[i+1:], func(r haRule) bool { return firstOf(r.words) == "reject" || firstOf(r.words) == "accept" })
		single := len(cond) == 1 && len(cond[0]) == 1
		switch {
		case cond == nil || cond.only("true"):
			rules = append(rules, accessRule{deny: deny, net: "*", at: r.at})
		case cond.only("net"):
			rules = append(rules, accessOf(cond.acls(), deny, r.at)...)
		case single && cond[0][0].not && !slices.ContainsFunc(cond.acls(), func(a haACL) bool { return a.kind != "net" }) && !later:
			rules = append(rules, accessOf(cond.acls(), !deny, r.at)...)
			rules = append(rules, accessRule{deny: deny, net: "*", at: r.at})
		case deny && single && cond.only("sessions") && len(cond.acls()) == 1:
			h.set(service.child("limits", r.at), "perClient", strconv.Itoa(cond.acls()[0].limit), r.at)
		case deny && single && cond.only("rate") && len(cond.acls()) == 1:
			period := p.stick.rate
			if period <= 0 {
				h.note(service, r.at, "no equivalent: the table has no conn_rate")
				continue
			}
			rate := max(1, int(float64(cond.acls()[0].limit)/period.Seconds()))
			h.set(service.child("limits", r.at), "perClientRate", strconv.Itoa(rate), r.at)
		default:
			h.note(service, r.at, "no equivalent: %v", errUnknown)
		}
	}
	h.access(service, rules)
}

// accessOf turns tests of addresses into rules.
func accessOf(acls []haACL, deny bool, at place) (rules []accessRule) {
	for _, a := range acls {
		for _, n := range a.values {
			rules = append(rules, accessRule{deny: deny, net: n, at: at})
		}
		if a.file != "" {
			rules = append(rules, accessRule{deny: deny, file: a.file, at: at})
		}
	}
	return rules
}

// expectProxy reads expect-proxy layer4 [if { src NET }].
func (h *haFile) expectProxy(service *node, p *haProxy, r haRule) {
	cond, err := h.condition(p, slices.Clone(r.words[min(2, len(r.words)):]))
	mode, from := "require", ""
	switch {
	case err != nil:
	case cond == nil:
	case cond.only("net"):
		mode = "accept"
		for _, a := range cond.acls() {
			from += " " + strings.Join(a.values, " ")
			if a.file != "" {
				err = errors.New("networks from a file")
			}
		}
	default:
		err = errUnknown
	}
	if err != nil {
		h.note(service, r.at, "no equivalent: %v", err)
		return
	}
	for _, l := range service.kids {
		if l.tag == "listen" && h.set(l, "proxyProtocol", mode, r.at) && from != "" {
			h.set(l, "proxyFrom", strings.TrimSpace(from), r.at)
		}
	}
}

// routes writes use_backend rules. It returns the groups that they lead to, and the
// one that takes every client if a rule is without condition.
func (h *haFile) routes(service *node, p *haProxy) (groups []setting, fallback setting) {
	for i, r := range p.uses {
		name := firstOf(r.words)
		if strings.ContainsAny(name, "%[") {
			h.note(service, r.at, "no equivalent: the name of the backend depends on the client")
			continue
		}
		cond, err := h.condition(p, slices.Clone(r.words[min(1, len(r.words)):]))
		if err == nil && (cond == nil || cond.only("true")) {
			for _, rest := range p.uses[i+1:] {
				h.note(service, rest.at, "never reached: the rule before it has no condition")
			}
			return groups, setting{name, r.at}
		}
		groups = append(groups, setting{name, r.at})
		if err != nil {
			h.note(service, r.at, "no equivalent: %v", err)
			continue
		}
		for _, term := range cond {
			if match, ok := routeOf(term); ok {
				h.route(service, route{match, name, r.at})
			} else {
				h.note(service, r.at, "no equivalent: %v", errUnknown)
			}
		}
	}
	return groups, setting{}
}

// routeOf turns the factors of a term into attributes of a route, which must all hold.
func routeOf(term []haFactor) (match []attr, ok bool) {
	for _, f := range term {
		kind := f.acls[0].kind
		var values []string
		for _, a := range f.acls {
			if a.kind != kind || a.file != "" {
				return nil, false
			}
			values = append(values, a.values...)
		}
		switch {
		case f.not:
			return nil, false
		case kind == "hello" || kind == "true":
			continue
		case kind != "sni" && kind != "alpn" && kind != "net" || slices.ContainsFunc(match, func(a attr) bool { return a.name == kind }):
			return nil, false
		}
		match = append(match, attr{name: kind, value: strings.Join(values, " ")})
	}
	return match, len(match) > 0
}
