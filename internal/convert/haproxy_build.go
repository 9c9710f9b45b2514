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

const listenerName = "no equivalent: listeners have no names"
const onlyTLS = "no equivalent: TLS is 1.2 or newer, with ciphers that are safe"

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
