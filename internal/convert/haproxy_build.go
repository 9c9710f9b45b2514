package convert

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// build makes the document of what was read.
func (h *haFile) build() {
	used := map[*haProxy]bool{}
	for _, p := range h.order {
		switch {
		case p.kind == "backend":
		case p.exporter:
			h.metrics(p)
		case p.disabled:
			h.note(h.root, p.at, "left out: it is disabled")
		case !tcp(p):
			h.note(h.root, p.at, "left out: it is in mode %s, which reads what passes; txlb passes bytes on", p.mode.value)
		default:
			h.service(p, used)
		}
	}
	for _, p := range h.order {
		if p.kind != "backend" || used[p] {
			continue
		}
		why := "left out: no frontend that was converted uses it"
		if !tcp(p) {
			why = fmt.Sprintf("left out: it is in mode %s, which reads what passes; txlb passes bytes on", p.mode.value)
		}
		h.note(h.root, p.at, "%s", why)
	}
}

func tcp(p *haProxy) bool { return p.mode.value == "" || p.mode.value == "tcp" }

// metrics makes <metrics> of the section that serves them.
func (h *haFile) metrics(p *haProxy) {
	if len(p.binds) > 0 && len(p.binds[0].addresses) > 0 {
		if all, why := h.bindAddresses(p.binds[0].addresses[0], nil); why == "" && len(all) > 0 {
			h.set(h.root.child("admin", p.at).child("metrics", p.at), "listen", all[0], p.at)
			h.note(h.root, p.at, "<metrics> alone is left of it")
			return
		}
	}
	h.note(h.root, p.at, "left out: <metrics> serves Prometheus")
}

// service makes a service of a frontend or listen section and its backends.
func (h *haFile) service(p *haProxy, used map[*haProxy]bool) {
	service := h.root.add("service", p.at)
	service.attr("name", plainName(p.name), p.at)
	h.tell(service, p)
	port := h.listeners(service, p)
	joinFamilies(service)
	groups, fallback := h.routes(service, p)
	if fallback.value == "" {
		fallback = p.fallback
	}
	main := p
	switch {
	case fallback.value != "":
		main = h.backend(fallback)
	case p.kind == "frontend" || len(p.servers) == 0 && len(groups) > 0:
		main = nil
	}
	h.values(service, p, main)
	h.connectionRules(service, p)
	switch {
	case main != nil:
		h.group(service, main, true, port, used)
	case len(groups) > 0 && fallback.value == "":
		g := service.add("group", p.at)
		g.attr("name", "none", p.at)
		g.attr("enable", "true", p.at)
		h.note(g, place{}, "There is no default_backend: whom no route leads elsewhere is rejected.")
	}
	for _, one := range groups {
		b := h.backend(one)
		if b == nil || slices.ContainsFunc(service.kids, func(k *node) bool { return k.tag == "group" && k.get("name") == plainName(b.name) }) {
			continue
		}
		h.group(service, b, false, port, used)
	}
	h.logging(p)
}

// backend finds the backend that a line names.
func (h *haFile) backend(name setting) *haProxy {
	b := h.find("backend", name.value)
	if b == nil {
		h.fail(name.at.line, "there is no backend %q", name.value)
	}
	return b
}

// listeners writes <listen> and returns the port of all of them, 0 if they differ.
func (h *haFile) listeners(service *node, p *haProxy) (port int) {
	ports := map[string]bool{}
	for _, b := range p.binds {
		if slices.Contains(b.options, "ssl") {
			h.note(service, b.at, "no equivalent: it ends TLS; txlb passes TLS on as it is")
			continue
		}
		for _, address := range b.addresses {
			all, why := h.bindAddresses(address, b.options)
			if why != "" {
				h.note(service, b.at, "no equivalent: %s", why)
				continue
			}
			for _, a := range all {
				l := service.add("listen", b.at)
				l.attr("ip", a, b.at)
				h.bindOptions(service, l, address, b)
				_, number, _ := net.SplitHostPort(a)
				ports[number] = true
			}
		}
	}
	if len(ports) == 1 {
		for number := range ports {
			port, _ = strconv.Atoi(number)
		}
	}
	return port
}

// haAddress takes the family off an address. why tells one that has no equivalent.
func haAddress(s string) (rest, family, why string) {
	family, rest, ok := strings.Cut(s, "@")
	if !ok {
		if strings.HasPrefix(s, "/") {
			return "unix:" + s, "unix", ""
		}
		return s, "", ""
	}
	switch family {
	case "ipv4", "ipv6", "tcp", "tcp4", "tcp6", "stream+ipv4", "stream+ipv6":
		return rest, family, ""
	case "unix", "uxst":
		return "unix:" + rest, "unix", ""
	case "mptcp", "mptcp4", "mptcp6":
		return rest, family, ""
	}
	return "", "", "there are no addresses of the kind " + family + "@"
}

// hostPort splits an address at its last colon, as HAProxy does.
func hostPort(s string) (host, port string) {
	if strings.HasPrefix(s, "[") {
		if h, p, ok := strings.Cut(s[1:], "]"); ok {
			return h, strings.TrimPrefix(p, ":")
		}
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// maxPorts bounds a range of ports.
const maxPorts = 1024

// bindAddresses returns what to listen on.
func (h *haFile) bindAddresses(s string, options []string) (all []string, why string) {
	rest, family, why := haAddress(s)
	if why != "" || family == "unix" {
		return []string{rest}, why
	}
	host, ports := hostPort(rest)
	switch {
	case (host == "" || host == "*") && strings.HasSuffix(family, "6"):
		host = "*"
	case host == "" || host == "*":
		host = "0.0.0.0"
	case host == "::":
		host = "*"
		if slices.Contains(options, "v6only") {
			host = "[::]"
		}
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	a, errA := strconv.Atoi(low)
	b, errB := strconv.Atoi(high)
	switch {
	case errA != nil || errB != nil || a < 1 || b > 65535 || a > b:
		return nil, fmt.Sprintf("%q is not a port to listen on", ports)
	case b-a >= maxPorts:
		return nil, fmt.Sprintf("more than %d ports", maxPorts)
	}
	for ; a <= b; a++ {
		all = append(all, host+":"+strconv.Itoa(a))
	}
	return all, ""
}

// haBindDo sets what an option of bind means.
type haBindDo func(h *haFile, service, listen *node, value string, at place)

// listenValue makes a haBindDo that sets an attribute; without a value it is that of
// the option.
func listenValue(attribute, value string) haBindDo {
	return func(h *haFile, _, listen *node, given string, at place) {
		if value != "" {
			given = value
		}
		h.set(listen, attribute, given, at)
	}
}

const listenerName = "no equivalent: listeners have no names"
const onlyTLS = "no equivalent: txlb passes TLS on as it is"

// haBindOptions are the options of bind.
var haBindOptions = []row[haBindDo]{
	{name: "accept-proxy", to: "listen proxyProtocol", say: "`require`", do: listenValue("proxyProtocol", "require")},
	{name: "defer-accept", to: "listen deferAccept", do: listenValue("deferAccept", "yes")},
	{name: "tfo", to: "listen fastOpen", do: listenValue("fastOpen", "yes")},
	{name: "transparent", to: "listen freeBind", do: listenValue("freeBind", "yes")},
	{name: "interface", args: 1, to: "listen interface", do: listenValue("interface", "")},
	{name: "tcp-ut", args: 1, to: "timeouts unacked", say: "for both sides", do: func(h *haFile, service, _ *node, value string, at place) {
		if d, err := parseTime(value, time.Millisecond); err != nil {
			h.fail(at.line, "tcp-ut: %v", err)
		} else {
			h.set(service.child("timeouts", at), "unacked", spell(d), at)
		}
	}},
	{name: "backlog", args: 1, to: "engine backlog", do: func(h *haFile, _, _ *node, value string, at place) {
		h.set(h.root.child("engine", at), "backlog", value, at)
	}},
	{name: "maxconn", args: 1, to: "limits sessions", say: "of the service", do: func(h *haFile, service, _ *node, value string, at place) {
		h.set(service.child("limits", at), "sessions", value, at)
	}},
	{name: "v4v6", say: sameAsOurs, do: func(*haFile, *node, *node, string, place) {}},
	{name: "v6only", say: "no equivalent: [::] takes IPv4 as well"},
	{name: "name", args: 1, say: listenerName},
	{name: "id", args: 1, say: listenerName},
	{name: "level", args: 1, say: "no equivalent"},
	{name: "mode", args: 1, say: "no equivalent: the directory of the socket says who may connect"},
	{name: "user", args: 1, say: "no equivalent: the directory of the socket says who may connect"},
	{name: "group", args: 1, say: "no equivalent: the directory of the socket says who may connect"},
	{name: "uid", args: 1, say: "no equivalent: the directory of the socket says who may connect"},
	{name: "gid", args: 1, say: "no equivalent: the directory of the socket says who may connect"},
	{name: "mss", args: 1, say: "no equivalent"},
	{name: "nice", args: 1, say: "no equivalent: each loop serves all in turn"},
	{name: "process", args: 1, say: "no equivalent: every loop has a listener"},
	{name: "thread", args: 1, say: "no equivalent: every loop has a listener"},
	{name: "shards", args: 1, say: "no equivalent: every loop has a listener"},
	{name: "namespace", args: 1, say: "no equivalent"},
	{name: "proto", args: 1, say: "no equivalent: txlb reads no HTTP"},
	{name: "alpn", args: 1, say: onlyTLS},
	{name: "crt", args: 1, say: onlyTLS},
	{name: "accept-netscaler-cip", args: 1, say: "no equivalent"},
}

func (h *haFile) bindOptions(service, listen *node, address string, b haBind) {
	if family, _, ok := strings.Cut(address, "@"); ok && strings.HasPrefix(family, "mptcp") {
		h.set(listen, "mptcp", "yes", b.at)
	}
	for i := 0; i < len(b.options); i++ {
		r, _ := lookUp(haBindOptions, b.options[i:i+1])
		if r == nil {
			h.note(listen, b.at, "no equivalent: %s", strings.Join(b.options[i:], " "))
			return
		}
		value := ""
		if r.args > 0 {
			if i+1 == len(b.options) {
				h.fail(b.at.line, "bind option %s needs a value", r.name)
				return
			}
			i++
			value = b.options[i]
		}
		if r.do == nil {
			h.note(listen, b.at, "%s: %s", strings.TrimSpace(r.name+" "+value), strings.ReplaceAll(r.say, "`", ""))
			continue
		}
		r.do(h, service, listen, value, b.at)
	}
}

// values writes timeouts and limits: those of the clients are the frontend's, those
// of the hosts the backend's.
func (h *haFile) values(service *node, front, back *haProxy) {
	if back == nil {
		back = front
	}
	timeouts := service.child("timeouts", front.at)
	if t, ok := back.times["connect"]; ok {
		h.set(timeouts, "connect", t.value, t.at)
	}
	client, server := front.times["client"], back.times["server"]
	h.longer(timeouts, "idle", client, server, back.times["tunnel"])
	h.longer(timeouts, "halfClosed", front.times["client-fin"], back.times["server-fin"], setting{})
	if t, ok := back.times["queue"]; ok {
		h.set(timeouts, "queue", t.value, t.at)
	}
	limits := service.child("limits", front.at)
	for _, to := range []string{"timeouts hello", "timeouts keepAlive", "limits sessions", "limits rate"} {
		if v, ok := front.values[to]; ok && (to != "timeouts hello" || h.element("route")) {
			_, name, _ := strings.Cut(to, " ")
			n := timeouts
			if strings.HasPrefix(to, "limits") {
				n = limits
			}
			h.set(n, name, v.value, v.at)
		} else if ok {
			h.note(timeouts, v.at, "no equivalent yet: <timeouts hello=%q>", v.value)
		}
	}
	if v, ok := back.values["limits tries"]; ok {
		h.set(limits, "tries", v.value, v.at)
	}
}

// longer sets the longer one of two times, 0 being the longest, or instead of them a
// third one.
func (h *haFile) longer(n *node, attribute string, a, b, instead setting) {
	switch {
	case instead.value != "":
		h.set(n, attribute, instead.value, instead.at)
		return
	case a.value == "" && b.value == "":
		return
	case a.value == "":
		a = b
	case b.value == "":
		b = a
	}
	x, _ := time.ParseDuration(a.value)
	y, _ := time.ParseDuration(b.value)
	if x != y {
		if y == 0 || x != 0 && y > x {
			a, b = b, a
		}
		h.note(n, b.at, "the longer time of both sides counts: %s", a.value)
	}
	h.set(n, attribute, a.value, a.at)
}

// schedulers says what the words of balance become where weights are equal. Where they
// are not, it is the weighted form (sched.Weighted).
var schedulers = []struct{ theirs, ours, say string }{
	{"roundrobin", "roundr", "also without `balance`"},
	{"static-rr", "roundr", ""},
	{"leastconn", "leastc", ""},
	{"random", "p2c", "`random(1)`: weightr"},
	{"source", "maglev", "a consistent hash of the client's address"},
	{"hash src", "maglev", "the same"},
	{"first", "leastc", "no equivalent: hosts are not filled one after the other"},
}

// group makes a group of a backend.
func (h *haFile) group(service *node, p *haProxy, enable bool, port int, used map[*haProxy]bool) {
	used[p] = true
	g := service.add("group", p.at)
	g.attr("name", plainName(p.name), p.at)
	g.attr("enable", strconv.FormatBool(enable), p.at)
	h.tell(g, p)
	if !tcp(p) {
		h.note(g, p.at, "it is in mode %s, which reads what passes; txlb passes bytes on. Its servers are left out", p.mode.value)
		return
	}
	b := haBackend{haFile: h, proxy: p, group: g, port: port, check: map[string]setting{}}
	for _, s := range p.servers {
		b.host(s)
	}
	b.scheduler()
	b.checks()
	backups := 0
	for _, k := range g.kids {
		if k.get("backup") == "true" {
			backups++
		}
	}
	if backups > 1 && !p.allBackups {
		h.note(g, place{}, "All backups take clients once no other host is left; in HAProxy the first one alone.")
	}
	if b.maxFails == "" {
		b.maxFails = "0" // checks alone decide
	}
	h.set(g, "maxFails", b.maxFails, p.at)
	h.set(g, "allDown", "refuse", p.at) // a check may tell who is the primary
}

// haBackend is a backend while its group is made.
type haBackend struct {
	*haFile
	proxy    *haProxy
	group    *node
	port     int // that clients connect to
	check    map[string]setting
	checked  []haServer
	tls      bool // checks speak TLS
	maxFails string
}

// haServerDo sets what an option of server means.
type haServerDo func(b *haBackend, host *node, o haOption)

// hostValue makes a haServerDo that sets an attribute; without a value it is that of
// the option.
func hostValue(attribute, value string) haServerDo {
	return func(b *haBackend, host *node, o haOption) {
		v := value
		if v == "" {
			v = firstOf(o.args)
		}
		b.set(host, attribute, v, o.at)
	}
}

// checkValue is hostValue for an attribute of the group's <check>.
func checkValue(attribute string, isTime bool) haServerDo {
	return func(b *haBackend, host *node, o haOption) {
		v := firstOf(o.args)
		if isTime {
			d, err := parseTime(v, time.Millisecond)
			if err != nil {
				b.fail(o.at.line, "%v", err)
				return
			}
			v = spell(d)
		}
		if was, there := b.check[attribute]; there && was.value != v {
			b.note(host, o.at, "one <check> is for all hosts of the group: %s is %s", attribute, was.value)
			return
		}
		b.check[attribute] = setting{v, o.at}
	}
}

func noServerDo(*haBackend, *node, haOption) {}

// haServerOptions are the options of server, default-server and server-template.
var haServerOptions = []row[haServerDo]{
	{name: "weight", args: 1, to: "host weight", do: hostValue("weight", "")},
	{name: "backup", to: "host backup", do: hostValue("backup", "yes")},
	{name: "disabled", to: "host state", say: "`maint`", do: hostValue("state", "maint")},
	{name: "maxconn", args: 1, to: "host maxSessions", do: hostValue("maxSessions", "")},
	{name: "slowstart", args: 1, to: "host slowStart", do: func(b *haBackend, host *node, o haOption) {
		if d, err := parseTime(firstOf(o.args), time.Millisecond); err != nil {
			b.fail(o.at.line, "slowstart: %v", err)
		} else {
			b.set(host, "slowStart", spell(d), o.at)
		}
	}},
	{name: "send-proxy", to: "host proxyProtocol", say: "`v1`", do: hostValue("proxyProtocol", "v1")},
	{name: "send-proxy-v2", to: "host proxyProtocol", say: "`v2`", do: hostValue("proxyProtocol", "v2")},
	{name: "source", args: 1, to: "host source", say: "without a port; `usesrc clientip` is `client`", do: func(b *haBackend, host *node, o haOption) {
		address := firstOf(o.args)
		if a, err := netip.ParseAddr(address); err != nil || !a.IsValid() {
			address, _ = hostPort(address)
		}
		if len(o.args) == 3 {
			if o.args[1] != "usesrc" || o.args[2] != "clientip" && o.args[2] != "client" {
				b.note(host, o.at, "no equivalent: %s %s", o.args[1], o.args[2])
				return
			}
			address = "client"
		}
		b.set(host, "source", address, o.at)
	}},
	{name: "resolvers", args: 1, to: "host resolve", say: "`hold valid` of the section; without resolvers `0`", do: noServerDo},
	{name: "check", to: "check type", say: "a `<check>` for all hosts of the group", do: noServerDo},
	{name: "inter", args: 1, to: "check interval", do: checkValue("interval", true)},
	{name: "fastinter", args: 1, to: "check fastInterval", do: checkValue("fastInterval", true)},
	{name: "downinter", args: 1, to: "check downInterval", do: checkValue("downInterval", true)},
	{name: "rise", args: 1, to: "check rise", do: checkValue("rise", false)},
	{name: "fall", args: 1, to: "check fall", do: checkValue("fall", false)},
	{name: "port", args: 1, to: "check port", do: checkValue("port", false)},
	{name: "check-ssl", to: "check type", say: "`tls`", do: func(b *haBackend, _ *node, _ haOption) { b.tls = true }},
	{name: "check-sni", args: 1, to: "check host", do: checkValue("host", false)},
	{name: "observe", args: 1, to: "group maxFails", say: "`layer4` with `on-error mark-down`: `error-limit`", do: noServerDo},
	{name: "error-limit", args: 1, to: "group maxFails", say: "see `observe`", do: noServerDo},
	{name: "on-error", args: 1, to: "group maxFails", say: "see `observe`", do: noServerDo},
	{name: "on-marked-down", args: 1, to: "group onMarkedDown", say: "`shutdown-sessions`: `shutdown`, for all hosts of the group", do: func(b *haBackend, _ *node, o haOption) {
		if firstOf(o.args) == "shutdown-sessions" {
			b.set(b.group, "onMarkedDown", "shutdown", o.at)
		}
	}},
	{name: "tcp-ut", args: 1, to: "timeouts unacked", say: "of `bind` alone"},
	{name: "addr", args: 1, say: "no equivalent: checks go to the address of the host"},
	{name: "on-marked-up", args: 1, say: "no equivalent: sessions on backups go on"},
	{name: "agent-check", say: "no equivalent: set weights by commands"},
	{name: "agent-port", args: 1, say: "no equivalent: set weights by commands"},
	{name: "agent-addr", args: 1, say: "no equivalent: set weights by commands"},
	{name: "agent-inter", args: 1, say: "no equivalent: set weights by commands"},
	{name: "agent-send", args: 1, say: "no equivalent: set weights by commands"},
	{name: "track", args: 1, say: "no equivalent: each host is checked by itself"},
	{name: "minconn", args: 1, say: "no equivalent: the limit of a host does not change with the load"},
	{name: "maxqueue", args: 1, say: "no equivalent: the queue is that of the group"},
	{name: "init-addr", args: 1, say: "not needed: a host whose name does not resolve yet takes no clients"},
	{name: "resolve-prefer", args: 1, say: "no equivalent: IPv4 addresses, or IPv6 ones if there are no others"},
	{name: "resolve-opts", args: 1, say: "no equivalent"},
	{name: "resolve-net", args: 1, say: "no equivalent"},
	{name: "send-proxy-v2-ssl", say: "no equivalent"},
	{name: "send-proxy-v2-ssl-cn", say: "no equivalent"},
	{name: "proxy-v2-options", args: 1, say: "no equivalent"},
	{name: "check-send-proxy", say: "checks of a host with a PROXY header send one", do: noServerDo},
	{name: "cookie", args: 1, say: httpOnly},
	{name: "redir", args: 1, say: httpOnly},
	{name: "proto", args: 1, say: httpOnly},
	{name: "check-proto", args: 1, say: httpOnly},
	{name: "id", args: 1, say: "no equivalent"},
	{name: "namespace", args: 1, say: "no equivalent"},
	{name: "tfo", say: "no equivalent"},
	{name: "non-stick", say: "no equivalent"},
	{name: "ssl", say: "the server is left out: txlb passes TLS on as it is and encrypts nothing", do: noServerDo},
	{name: "verify", args: 1, to: "check verify", say: "`required`, with `check-ssl`", do: noServerDo},
	{name: "verifyhost", args: 1, say: onlyTLS},
	{name: "ca-file", args: 1, to: "check ca", say: "with `check-ssl verify required`", do: noServerDo},
	{name: "crt", args: 1, say: onlyTLS},
	{name: "sni", args: 1, say: onlyTLS},
	{name: "alpn", args: 1, say: onlyTLS},
	{name: "check-alpn", args: 1, say: onlyTLS},
	{name: "ssl-min-ver", args: 1, say: onlyTLS},
	{name: "ssl-max-ver", args: 1, say: onlyTLS},
	{name: "ciphers", args: 1, say: onlyTLS},
	{name: "ciphersuites", args: 1, say: onlyTLS},
}

// host makes a host of a server.
func (b *haBackend) host(s haServer) {
	address, why := b.target(s.address)
	if _, encrypted := s.options["ssl"]; encrypted {
		why = "it gets TLS from HAProxy; txlb passes TLS on as it is and encrypts nothing"
	}
	if why != "" {
		b.note(b.group, s.at, "left out: %s", why)
		return
	}
	host := b.group.add("host", s.at)
	host.attr("name", plainName(s.name), s.at)
	host.attr("ip", address, s.at)
	if name, _ := hostPort(address); !strings.HasPrefix(address, "unix:") {
		if _, err := netip.ParseAddr(name); err != nil {
			every := setting{"0", s.at}
			if o, ok := s.options["resolvers"]; ok {
				hold, known := b.holds[firstOf(o.args)]
				if !known && firstOf(o.args) != "default" {
					b.fail(o.at.line, "there is no resolvers section %q", firstOf(o.args))
					return
				}
				if every = hold; !known {
					every = setting{"10s", o.at}
				}
			}
			b.set(host, "resolve", every.value, every.at)
		}
	}
	for i := range haServerOptions {
		r := &haServerOptions[i]
		o, ok := s.options[r.name]
		switch {
		case !ok:
		case r.do == nil:
			b.note(host, o.at, "%s: %s", strings.TrimSpace(r.name+" "+strings.Join(o.args, " ")), strings.ReplaceAll(r.say, "`", ""))
		default:
			r.do(b, host, o)
		}
	}
	b.observe(host, s)
	if _, ok := s.options["check"]; ok {
		b.checked = append(b.checked, s)
	}
}

// observe reads whether failed connects of clients take a server out.
func (b *haBackend) observe(host *node, s haServer) {
	o, ok := s.options["observe"]
	if !ok {
		return
	}
	then := firstOf(s.options["on-error"].args)
	if firstOf(o.args) != "layer4" || then != "mark-down" {
		b.note(host, o.at, "no equivalent: observe has one with layer4 and on-error mark-down")
		return
	}
	if b.maxFails = firstOf(s.options["error-limit"].args); b.maxFails == "" {
		b.maxFails = "10"
	}
}

// target returns the address of a server.
func (b *haBackend) target(s string) (address, why string) {
	rest, family, why := haAddress(s)
	if why != "" || family == "unix" {
		return rest, why
	}
	if strings.HasPrefix(rest, "_") && !strings.Contains(rest, ":") {
		return rest, "" // SRV records have the port
	}
	host, port := hostPort(rest)
	if port == "" || port[0] == '+' || port[0] == '-' {
		offset, err := strconv.Atoi("0" + strings.TrimLeft(port, "+-"))
		if err != nil || b.port == 0 {
			return "", "its port is that of the client's connection, which can be one of several"
		}
		if strings.HasPrefix(port, "-") {
			offset = -offset
		}
		port = strconv.Itoa(b.port + offset)
	}
	if host == "" || host == "*" || host == "0.0.0.0" || host == "::" {
		return "", "its address is that of the client's connection"
	}
	return net.JoinHostPort(host, port), ""
}

// scheduler writes how hosts are chosen.
func (b *haBackend) scheduler() {
	p := b.proxy
	words := strings.Join(p.balanceAt, " ")
	at := p.balance.at
	name, _, _ := strings.Cut(p.balance.value, "(")
	if words == "" {
		name, at = "roundrobin", p.at
	}
	if name == "hash" && len(p.balanceAt) > 1 && p.balanceAt[1] == "src" {
		name = "hash src"
	}
	wanted, instead := "", scheduler(b.group, "leastc")
	for _, s := range schedulers {
		if s.theirs == name {
			wanted = scheduler(b.group, s.ours)
		}
	}
	if p.balance.value == "random(1)" {
		wanted = scheduler(b.group, "rand")
	}
	if wanted == "" || name == "first" {
		b.note(b.group, at, "no equivalent; %s instead", instead)
		wanted = instead
	}
	if p.stick.on.line > 0 {
		b.sticky(&wanted)
	} else if p.stick.at.line > 0 && p.stick.rate == 0 && len(p.rules) == 0 {
		b.note(b.group, p.stick.at, "no equivalent without stick on src")
	}
	if strings.HasSuffix(wanted, ",sticky") {
		instead = strings.TrimSuffix(wanted, ",sticky")
		if !b.has("group", "scheduler", instead) {
			instead = scheduler(b.group, "leastc")
		}
		at = p.stick.on
	}
	b.choose(b.group, at, wanted, instead)
}

// sticky makes a scheduler remember clients.
func (b *haBackend) sticky(wanted *string) {
	stick := b.proxy.stick
	if stick.kind != "ip" && stick.kind != "ipv6" {
		b.note(b.group, stick.on, "no equivalent: the table of the section is not of type ip")
		return
	}
	*wanted += ",sticky"
	if stick.size != "" {
		b.set(b.group, "stickySize", stick.size, stick.at)
	}
	if stick.expire != "" {
		b.set(b.group, "stickyFor", stick.expire, stick.at)
	}
}

// checks writes <check>, if a server has one.
func (b *haBackend) checks() {
	p := b.proxy
	if len(b.checked) == 0 {
		if p.check.kind != "" {
			b.note(b.group, p.check.at, "no server has the option check")
		}
		return
	}
	for _, k := range b.group.kids {
		if k.tag == "host" && !slices.ContainsFunc(b.checked, func(s haServer) bool { return plainName(s.name) == k.get("name") }) {
			b.note(k, k.from, "it is checked as well: a <check> is for all hosts of the group")
		}
	}
	at := p.check.at
	if at.line == 0 {
		at = b.checked[0].at
	}
	check := b.group.add("check", at)
	kind := p.check.kind
	send, expect := p.check.send, p.check.expect
	if kind == "tcp" && len(p.check.steps) > 0 || kind == "tls" && len(p.check.steps) > 0 {
		if send, expect = b.dialogue(check, p.check.steps); expect != "" && kind == "tcp" {
			kind = "expect"
		}
	}
	if b.tls && kind != "tls" {
		if kind != "" && kind != "tcp" {
			b.note(check, at, "no equivalent over TLS: the check is a handshake")
		}
		kind = "tls"
	}
	if kind == "" {
		kind = "tcp"
	}
	b.set(check, "type", kind, at)
	if kind == "expect" {
		if send != "" {
			b.set(check, "send", escapeBytes(send), at)
		}
		b.set(check, "expect", escapeBytes(expect), at)
	}
	for _, name := range []string{"interval", "fastInterval", "downInterval", "rise", "fall", "port", "host"} {
		if v, ok := b.check[name]; ok {
			b.set(check, name, v.value, v.at)
		}
	}
	for _, name := range []string{"port", "path", "host", "status"} {
		v, ok := p.values["check "+name]
		if ok && (name == "port" || kind == "http" || name == "host" && kind == "tls") {
			b.set(check, name, v.value, v.at)
		}
	}
	if t, ok := p.times["check"]; ok {
		b.set(check, "timeout", t.value, t.at)
	} else if v, ok := b.check["interval"]; ok {
		b.set(check, "timeout", v.value, v.at)
	}
	if first := b.checked[0]; kind == "tls" && firstOf(first.options["verify"].args) == "required" {
		b.set(check, "verify", "yes", first.options["verify"].at)
		if ca := firstOf(first.options["ca-file"].args); ca != "" && !strings.HasPrefix(ca, "@") {
			b.set(check, "ca", ca, first.options["ca-file"].at)
		}
	}
}

// dialogue turns the steps of tcp-check into what is sent at once, and the last thing
// that must come. A QUIT at the end is left out: txlb ends checks with a reset.
func (b *haBackend) dialogue(check *node, steps []haStep) (send, expect string) {
	if n := len(steps); n >= 3 && steps[n-1].verb == "expect" && strings.HasPrefix(strings.ToUpper(steps[n-2].text), "QUIT") {
		steps = steps[:n-2]
	} else if n >= 2 && steps[n-1].verb == "send" && strings.HasPrefix(strings.ToUpper(steps[n-1].text), "QUIT") {
		steps = steps[:n-1]
	}
	last := -1
	for i, s := range steps {
		if s.verb == "expect" {
			last = i
		}
	}
	for i, s := range steps {
		switch {
		case s.verb == "send" && i < last:
			send += s.text
		case s.verb == "send":
			b.note(check, s.at, "no equivalent: nothing is expected behind it")
		case i == last:
			expect = s.text
		default:
			b.note(check, s.at, "no equivalent: all is sent at once, and the last expect alone counts")
		}
	}
	return send, expect
}

// logging writes where sessions are logged.
func (h *haFile) logging(p *haProxy) {
	for _, l := range p.logged {
		lines := []haLine{l}
		if len(l.words) > 1 && l.words[1] == "global" {
			lines = h.logs
		}
		for _, target := range lines {
			to, why := logTarget(firstOf(target.words[1:]))
			logging := h.root.child("logging", target.place)
			switch was := logging.get("access"); {
			case why != "":
				h.note(logging, target.place, "no equivalent: %s", why)
			case was == "":
				if h.set(logging, "access", to, target.place) {
					h.set(logging, "accessFormat", "tcplog", target.place)
				}
			case was != to:
				h.note(logging, target.place, "no equivalent: the access log has one target")
			}
		}
	}
}

// logTarget returns where a target of HAProxy's log is for txlb.
func logTarget(s string) (to, why string) {
	rest, ok := strings.CutPrefix(s, "tcp@")
	protocol := "tcp"
	if !ok {
		rest, protocol = strings.TrimPrefix(s, "udp@"), "udp"
	}
	switch {
	case s == "stdout" || s == "stderr" || s == "fd@1" || s == "fd@2":
		return "stderr", ""
	case strings.HasPrefix(rest, "/"):
		return "syslog:unix:" + rest, ""
	case strings.Contains(rest, "@") || rest == "":
		return "", "txlb logs to syslog, a file or standard error"
	}
	if a, err := netip.ParseAddr(rest); err == nil {
		return "syslog:" + protocol + ":" + net.JoinHostPort(a.String(), "514"), ""
	}
	host, port := hostPort(rest)
	if port == "" {
		port = "514"
	}
	return "syslog:" + protocol + ":" + net.JoinHostPort(host, port), ""
}
