package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ngUpstream is an upstream while its group is made.
type ngUpstream struct {
	*ngScope
	group  *node
	method setting
	fails  [2]setting // max_fails, fail_timeout
}

// group makes a group of an upstream or of an address.
func (s *ngScope) group(service *node, to string, enable bool, at place, used map[string]bool) {
	name := s.groupName(to)
	if slices.ContainsFunc(service.kids, func(k *node) bool { return k.tag == "group" && k.get("name") == name }) {
		return
	}
	upstream := s.n.upstreams[to]
	if upstream == nil {
		if enable {
			name = "main"
		}
		upstream = &ngLine{place: at, block: ngBlock{{place: at, name: "server", args: []string{to}}}}
	} else {
		used[to] = true
		at = upstream.place
	}
	g := service.add("group", at)
	g.attr("name", name, at)
	g.attr("enable", strconv.FormatBool(enable), at)
	u := ngUpstream{ngScope: s, group: g}
	for _, l := range upstream.block {
		r, _ := lookUp(ngUpstreamRows, []string{l.name})
		switch {
		case r == nil:
			s.n.note(g, l.place, unknown)
		case r.do == nil:
			s.n.note(g, l.place, "%s", strings.ReplaceAll(r.say, "`", ""))
		default:
			r.do(&u, l)
		}
	}
	plain := scheduler(g, "roundr")
	switch u.method.value {
	case "":
		u.method = setting{plain, at}
	case "leastc":
		u.method.value = scheduler(g, "leastc")
	case "rand":
		u.method.value = scheduler(g, "rand")
	}
	instead := scheduler(g, "leastc")
	s.n.choose(g, u.method.at, u.method.value, instead)
	if s.health != nil {
		u.healthCheck()
	}
}

func ngMethod(scheduler string) func(*ngUpstream, *ngLine) {
	return func(u *ngUpstream, l *ngLine) { u.method = setting{scheduler, l.place} }
}

// ngUpstreamRows is what may stand in upstream.
var ngUpstreamRows = []row[func(*ngUpstream, *ngLine)]{
	{name: "server", to: "host ip", do: (*ngUpstream).host},
	{name: "least_conn", to: "group scheduler", say: "`leastc`, without a method `roundr`; with weights their weighted forms", do: ngMethod("leastc")},
	{name: "random", to: "group scheduler", say: "`rand`, with weights `weightr`; `random two`: `p2c`", do: func(u *ngUpstream, l *ngLine) {
		u.method = setting{"rand", l.place}
		if firstOf(l.args) == "two" {
			u.method.value = "p2c"
		}
	}},
	{name: "hash", to: "group scheduler", say: "`$remote_addr`: `maglev`, which is consistent", do: func(u *ngUpstream, l *ngLine) {
		switch firstOf(l.args) {
		case "$remote_addr", "$binary_remote_addr":
			u.method = setting{"maglev", l.place}
		default:
			u.n.note(u.group, l.place, "no equivalent: a hash of the client's address alone has one")
		}
	}},
	{name: "least_time", to: "group scheduler", say: "`ewma`", do: ngMethod("ewma")},
	{name: "zone", say: sameAsOurs + ": all loops share one state", do: func(*ngUpstream, *ngLine) {}},
	{name: "resolver", to: "dns servers", say: "of `stream`", do: func(u *ngUpstream, l *ngLine) { u.directive(l) }},
	{name: "resolver_timeout", say: "no equivalent: a look-up takes at most five seconds"},
	{name: "state", say: "no equivalent: saveConfig writes changes into the file"},
	{name: "sticky", say: "no equivalent"},
	{name: "include", say: notFollowed},
}

// ngServerOptions are the options of a server in an upstream.
var ngServerOptions = []row[func(u *ngUpstream, host *node, l *ngLine, value string)]{
	{name: "weight", to: "host weight", do: ngHost("weight")},
	{name: "max_conns", to: "host maxSessions", do: ngHost("maxSessions")},
	{name: "max_fails", to: "group maxFails", say: "of the first server", do: func(u *ngUpstream, host *node, l *ngLine, value string) {
		u.failing(0, "maxFails", host, l, value)
	}},
	{name: "fail_timeout", to: "group failWindow", say: "of the first server; a check brings a host back", do: func(u *ngUpstream, host *node, l *ngLine, value string) {
		d, err := parseTimes(value, time.Second)
		if err != nil {
			u.n.fail(l.line, "fail_timeout: %v", err)
			return
		}
		u.failing(1, "failWindow", host, l, spell(d))
	}},
	{name: "slow_start", to: "host slowStart", do: func(u *ngUpstream, host *node, l *ngLine, value string) {
		if d, err := parseTimes(value, time.Second); err != nil {
			u.n.fail(l.line, "slow_start: %v", err)
		} else {
			u.n.set(host, "slowStart", spell(d), l.place)
		}
	}},
	{name: "backup", to: "host backup", do: func(u *ngUpstream, host *node, l *ngLine, _ string) { u.n.set(host, "backup", "yes", l.place) }},
	{name: "down", to: "host state", say: "`maint`", do: func(u *ngUpstream, host *node, l *ngLine, _ string) { u.n.set(host, "state", "maint", l.place) }},
	{name: "resolve", to: "host resolve", say: "30s; without it `0`", do: func(*ngUpstream, *node, *ngLine, string) {}},
	{name: "service", to: "host ip", say: "the name of SRV records", do: func(*ngUpstream, *node, *ngLine, string) {}},
}

func ngHost(attribute string) func(*ngUpstream, *node, *ngLine, string) {
	return func(u *ngUpstream, host *node, l *ngLine, value string) { u.n.set(host, attribute, value, l.place) }
}

// failing takes when a host goes down, which a group has once.
func (u *ngUpstream) failing(i int, attribute string, host *node, l *ngLine, value string) {
	switch was := u.fails[i]; {
	case was.value == "":
		u.fails[i] = setting{value, l.place}
		u.n.set(u.group, attribute, value, l.place)
	case was.value != value:
		u.n.note(host, l.place, "%s is of the group: %s", attribute, was.value)
	}
}

// host makes a host of a server.
func (u *ngUpstream) host(l *ngLine) {
	if len(l.args) == 0 {
		u.n.fail(l.line, "server needs an address")
		return
	}
	address := l.args[0]
	if strings.Contains(address, "$") {
		u.n.note(u.group, l.place, "no equivalent: an address that depends on the client")
		return
	}
	every := "0"
	for _, o := range l.args[1:] {
		if o == "resolve" {
			every = "30s"
		}
	}
	for _, o := range l.args[1:] {
		if service, ok := strings.CutPrefix(o, "service="); ok {
			name, _ := hostPort(address)
			if !strings.HasPrefix(service, "_") {
				service = "_" + service + "._tcp"
			}
			address = service + "." + name
		}
	}
	host := u.group.add("host", l.place)
	host.attr("name", plainName(strings.NewReplacer("[", "", "]", "", "unix:/", "", "/", "-").Replace(address)), l.place)
	host.attr("ip", address, l.place)
	if name, _ := hostPort(address); !strings.HasPrefix(address, "unix:") {
		if _, err := netip.ParseAddr(name); err != nil {
			u.n.set(host, "resolve", every, l.place)
		}
	}
	for _, o := range l.args[1:] {
		name, value, _ := strings.Cut(o, "=")
		r, _ := lookUp(ngServerOptions, []string{name})
		if r == nil {
			u.n.note(host, l.place, "no equivalent: %s", o)
			continue
		}
		r.do(u, host, l, value)
	}
	u.hostTLS(host)
	for _, to := range []string{"proxyProtocol", "source"} {
		if v, ok := u.values["host "+to]; ok {
			u.n.set(host, to, v.value, v.at)
		}
	}
}

// healthCheck makes <check> of health_check.
func (u *ngUpstream) healthCheck() {
	l := u.health
	check := u.group.add("check", l.place)
	u.n.set(check, "interval", "5s", l.place)
	u.n.set(check, "rise", "1", l.place)
	u.n.set(check, "fall", "1", l.place)
	timeout := setting{"5s", l.place}
	if t, ok := u.values["check timeout"]; ok {
		timeout = t
	}
	u.n.set(check, "timeout", timeout.value, timeout.at)
	for _, o := range l.args {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "interval":
			d, err := parseTimes(value, time.Second)
			if err != nil {
				u.n.fail(l.line, "health_check interval: %v", err)
				return
			}
			u.n.set(check, "interval", spell(d), l.place)
		case "passes":
			u.n.set(check, "rise", value, l.place)
		case "fails":
			u.n.set(check, "fall", value, l.place)
		case "port":
			u.n.set(check, "port", value, l.place)
		case "match":
			u.match(check, l, value)
		default:
			u.n.note(check, l.place, "no equivalent: %s", o)
		}
	}
}

// match makes a check of what it says and expects.
func (u *ngUpstream) match(check *node, l *ngLine, name string) {
	m := u.n.matches[name]
	if m == nil {
		u.n.fail(l.line, "there is no match %q", name)
		return
	}
	for _, d := range m.block {
		switch text := firstOf(d.args); {
		case d.name == "send" && len(d.args) == 1:
			u.n.set(check, "send", escapeBytes(unhex(text)), d.place)
		case d.name == "expect" && len(d.args) == 1:
			u.n.set(check, "type", "expect", d.place)
			u.n.set(check, "expect", escapeBytes(unhex(text)), d.place)
		default:
			u.n.note(check, d.place, "no equivalent: bytes alone are expected")
		}
	}
	if check.get("expect") == "" {
		check.attrs = slices.DeleteFunc(check.attrs, func(a attr) bool { return a.name == "send" || a.name == "type" })
	}
}

// unhex reads the \xNN of a match.
func unhex(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
