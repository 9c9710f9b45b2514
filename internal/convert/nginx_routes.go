package convert

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ngRoute is one line of map, geo or split_clients.
type ngRoute struct {
	match attr
	to    string
	at    place
	bits  int
}

// passTo writes the groups and routes of proxy_pass, and returns a name for the
// service.
func (s *ngScope) passTo(service *node, used map[string]bool) string {
	to := s.pass.args[0]
	if !strings.Contains(to, "$") {
		s.group(service, to, true, s.pass.place, used)
		if s.n.upstreams[to] != nil {
			return to
		}
		return s.portName(service)
	}
	variable := s.n.variables[to]
	if variable == nil {
		variable = s.n.variables["$"+strings.Trim(to, "${}")]
	}
	if variable == nil {
		s.note(s.pass, "no equivalent: no map, geo or split_clients of this file sets %s", to)
		s.none(service)
		return s.portName(service)
	}
	used[variable.args[len(variable.args)-1]] = true
	fallback := s.routes(service, variable, used)
	if fallback.value == "" {
		s.none(service)
	} else {
		s.group(service, fallback.value, true, fallback.at, used)
	}
	return s.portName(service)
}

// portName names a service after the port that it listens on.
func (s *ngScope) portName(service *node) string {
	for _, k := range service.kids {
		if k.tag == "listen" {
			if _, port, err := net.SplitHostPort(k.get("ip")); err == nil {
				return "port-" + port
			}
		}
	}
	return "service"
}

// none adds the group of clients that go nowhere.
func (s *ngScope) none(service *node) {
	g := service.add("group", s.pass.place)
	g.attr("name", "none", s.pass.place)
	g.attr("enable", "true", s.pass.place)
	s.n.note(g, place{}, "There is no default: whom no route leads elsewhere is rejected.")
}

// routes writes the lines of a map, geo or split_clients. It returns the default.
func (s *ngScope) routes(service *node, variable *ngLine, used map[string]bool) (fallback setting) {
	source := firstOf(variable.args)
	names := slices.ContainsFunc(variable.block, func(l *ngLine) bool { return l.name == "hostnames" })
	var routes []ngRoute
	for _, l := range variable.block {
		to := firstOf(l.args)
		switch {
		case l.name == "hostnames" || l.name == "volatile":
			continue
		case l.name == "include":
			s.note(l, notFollowed)
			continue
		case l.name == "default" || variable.name == "split_clients" && l.name == "*":
			fallback = setting{to, l.place}
			continue
		case len(l.args) != 1 || strings.Contains(to, "$"):
			s.note(l, unknown)
			continue
		}
		r := ngRoute{to: to, at: l.place}
		why := ""
		switch {
		case variable.name == "map" && (source == "$ssl_preread_server_name" || source == "$ssl_preread_alpn_protocols"):
			why = r.name(l.name, source == "$ssl_preread_alpn_protocols", names)
		case variable.name == "map" && (source == "$remote_addr" || source == "$proxy_protocol_addr"), variable.name == "geo" && (len(variable.args) == 1 || source == "$remote_addr" || source == "$proxy_protocol_addr"):
			why = r.network(l.name)
		case variable.name == "split_clients":
			percent, ok := strings.CutSuffix(l.name, "%")
			r.match = attr{name: "percent", value: percent}
			if !ok || len(routes) > 0 {
				why = "one percentage, and * for the others, has one"
			}
		default:
			why = source + " is not known before the session is passed on"
		}
		if why != "" {
			s.note(l, "no equivalent: %s", why)
			continue
		}
		routes = append(routes, r)
	}
	if variable.name == "geo" { // the longest network decides there
		slices.SortStableFunc(routes, func(a, b ngRoute) int { return cmp.Compare(b.bits, a.bits) })
	}
	if fallback.value != "" && strings.Contains(fallback.value, "$") {
		s.n.note(service, fallback.at, unknown)
		fallback = setting{}
	}
	for _, r := range routes {
		if r.to != fallback.value {
			s.group(service, r.to, false, r.at, used)
		}
		s.n.route(service, route{[]attr{r.match}, s.groupName(r.to), r.at})
	}
	return fallback
}

// name reads a server name, or what stands for ALPN.
func (r *ngRoute) name(text string, alpn, wildcards bool) (why string) {
	switch {
	case strings.HasPrefix(text, "~"):
		return "a regular expression"
	case alpn && (text == "" || strings.Contains(text, ",")):
		return "a list of ALPN as a whole"
	case alpn:
		r.match = attr{name: "alpn", value: text}
	case text == "":
		return "clients without a server name get the default"
	case strings.HasPrefix(text, "*.") && wildcards:
		r.match = attr{name: "sni", value: strings.ToLower(text)}
	case strings.HasPrefix(text, ".") && wildcards:
		r.match = attr{name: "sni", value: strings.ToLower(text[1:] + " *" + text)}
	case strings.Contains(text, "*"):
		return "a server name is exact, or *. and a domain, which needs hostnames"
	default:
		r.match = attr{name: "sni", value: strings.ToLower(text)}
	}
	return ""
}

func (r *ngRoute) network(text string) (why string) {
	n, ok := network(text)
	if !ok || n == "*" {
		return fmt.Sprintf("%q is not a network", text)
	}
	if p, err := netip.ParsePrefix(n); err == nil {
		r.bits = p.Bits()
	} else {
		r.bits = 128
	}
	r.match = attr{name: "net", value: n}
	return ""
}

// groupName names the group of an upstream or an address.
func (s *ngScope) groupName(to string) string {
	if s.n.upstreams[to] != nil {
		return plainName(to)
	}
	return plainName(strings.NewReplacer("[", "", "]", "", "/", "-").Replace(to))
}
