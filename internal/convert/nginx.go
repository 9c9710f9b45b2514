package convert

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Nginx converts the stream block of a configuration of nginx, or a file that is
// included in one; name stands for the file in errors. Each server block becomes a
// service, and the upstreams that it passes to become groups. An error has FILE:LINE
// for each mistake of the source.
func Nginx(name string, text []byte) (*Result, error) {
	return nginx(newConverter(name), text)
}

func nginx(c *converter, text []byte) (*Result, error) {
	n := &ngFile{
		converter: c, upstreams: map[string]*ngLine{}, variables: map[string]*ngLine{}, matches: map[string]*ngLine{},
		zones: map[string]string{}, names: map[string]bool{},
	}
	p := ngParser{c: c, text: string(text), line: 1}
	all := p.block(0)
	if len(c.problems) == 0 {
		n.file(all)
	}
	return c.finish("nginx")
}

// ngFile is a configuration of nginx that was read.
type ngFile struct {
	*converter
	upstreams map[string]*ngLine
	variables map[string]*ngLine // map, geo and split_clients, by what they set
	matches   map[string]*ngLine // of health checks
	zones     map[string]string  // keys of limit_conn_zone
	names     map[string]bool    // of services
}

// ngScope is what directives have said, in the stream block or in a server.
type ngScope struct {
	n      *ngFile
	node   *node              // where comments go
	values map[string]setting // attributes, by "element attribute"
	access []accessRule
	// The rest is of a server.
	server  bool
	listens []*ngLine
	pass    *ngLine
	refused string // why it has no equivalent
	health  *ngLine
	logged  setting
}

func (s *ngScope) note(l *ngLine, format string, args ...any) {
	s.n.note(s.node, l.place, format, args...)
}

// ngDo is what a directive does.
type ngDo func(s *ngScope, l *ngLine)

// file reads the outermost block.
func (n *ngFile) file(all ngBlock) {
	inside := slices.ContainsFunc(all, func(l *ngLine) bool { return l.name == "stream" && l.open })
	if !inside { // an included file
		n.stream(all)
		return
	}
	var events *ngLine
	for _, l := range all {
		r, _ := lookUp(ngMain, []string{l.name})
		switch {
		case l.name == "stream":
			n.stream(l.block)
		case l.name == "events":
			events = l
		case l.name == "worker_processes" && len(l.args) == 1:
			n.set(n.root.child("engine", l.place), "loops", l.args[0], l.place)
		case r != nil:
			n.note(n.root, l.place, "%s", strings.ReplaceAll(r.say, "`", ""))
		default:
			n.note(n.root, l.place, unknown)
		}
	}
	if events != nil {
		n.note(n.root, events.place, "no equivalent: txlb takes what the limit of open files allows; see <engine maxSessions>")
	}
}

// ngMain is what stands outside of stream.
var ngMain = []row[ngDo]{
	{name: "worker_processes", to: "engine loops"},
	{name: "events", say: "no equivalent: txlb takes what the limit of open files allows; see `<engine maxSessions>`"},
	{name: "http", say: "no equivalent: txlb passes bytes on and reads no HTTP"},
	{name: "mail", say: "no equivalent"},
	{name: "user", say: "no equivalent: the systemd unit says who runs txlb"},
	{name: "pid", say: "no equivalent: the service manager knows the process"},
	{name: "daemon", say: "no equivalent: txlb stays in the foreground"},
	{name: "include", say: "not followed: convert the file that it names by itself, or put its text here"},
	{name: "load_module", say: "no equivalent"},
	{name: "error_log", say: "no equivalent: `<logging file level>` is txlb's own log"},
	{name: "worker_rlimit_nofile", say: "no equivalent: txlb raises its limit of open files itself, or set LimitNOFILE in the systemd unit"},
	{name: "worker_cpu_affinity", say: "no equivalent: CPUAffinity in the systemd unit limits the loops"},
	{name: "worker_shutdown_timeout", say: "no equivalent: `<engine drain>` bounds SIGTERM; a reload touches no session"},
}

const notFollowed = "not followed: convert the file that it names by itself, or put its text here"

// stream reads the stream block.
func (n *ngFile) stream(block ngBlock) {
	scope := &ngScope{n: n, node: n.root, values: map[string]setting{}}
	var servers ngBlock
	for _, l := range block {
		switch {
		case l.name == "server" && l.open:
			servers = append(servers, l)
		case l.name == "upstream" && l.open && len(l.args) == 1:
			if n.upstreams[l.args[0]] != nil {
				n.fail(l.line, "a second upstream %q; names are unique", l.args[0])
			}
			n.upstreams[l.args[0]] = l
		case (l.name == "map" || l.name == "geo" || l.name == "split_clients") && l.open && len(l.args) > 0:
			n.variables[l.args[len(l.args)-1]] = l
		case l.name == "match" && l.open && len(l.args) == 1:
			n.matches[l.args[0]] = l
		case l.name == "limit_conn_zone" && len(l.args) == 2:
			name, _, _ := strings.Cut(strings.TrimPrefix(l.args[1], "zone="), ":")
			n.zones[name] = l.args[0]
		default:
			scope.directive(l)
		}
	}
	used := map[string]bool{}
	for _, l := range servers {
		n.server(l, scope, used)
	}
	for _, name := range slices.Sorted(maps.Keys(n.upstreams)) {
		if !used[name] {
			n.note(n.root, n.upstreams[name].place, "left out: no server that was converted passes to it")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.variables)) {
		if !used[name] {
			n.note(n.root, n.variables[name].place, "left out: no server that was converted uses it")
		}
	}
}

// directive reads a line that may stand in stream and in server.
func (s *ngScope) directive(l *ngLine) {
	r, _ := lookUp(ngDirectives, []string{l.name})
	switch {
	case r == nil && strings.HasPrefix(l.name, "ssl_"), r == nil && strings.HasPrefix(l.name, "proxy_ssl_"):
		s.note(l, onlyTLS)
	case r == nil && strings.HasPrefix(l.name, "js_"):
		s.note(l, "no equivalent: txlb runs no scripts")
	case r == nil:
		s.note(l, unknown)
	case r.do == nil:
		say := strings.ReplaceAll(r.say, "`", "")
		if say == "" {
			say = unknown
		}
		s.note(l, "%s", say)
	case len(l.args) == 0 && r.args > 0:
		s.n.fail(l.line, "%s needs a value", l.name)
	default:
		r.do(s, l)
	}
}

// ngTime makes an ngDo of a directive with a time.
func ngTime(to string) ngDo {
	return func(s *ngScope, l *ngLine) {
		d, err := parseTimes(l.args[0], time.Second)
		if err != nil {
			s.n.fail(l.line, "%s: %v", l.name, err)
			return
		}
		s.values[to] = setting{spell(d), l.place}
	}
}

// ngSwitch makes an ngDo of a directive that is on or off. An empty text says that
// txlb does so by itself.
func ngSwitch(on, off string) ngDo {
	return func(s *ngScope, l *ngLine) {
		say := off
		switch l.args[0] {
		case "on":
			say = on
		case "off":
		default:
			s.n.fail(l.line, "%s is on or off, not %q", l.name, l.args[0])
			return
		}
		if say != "" {
			s.note(l, "%s", say)
		}
	}
}

func ngRefuse(why string) ngDo {
	return func(s *ngScope, _ *ngLine) { s.refused = why }
}

// ngDirectives are what may stand in stream and in server.
var ngDirectives = []row[ngDo]{
	{name: "listen", args: 1, to: "listen ip", say: "`*:80` is IPv4 alone there, so it becomes `0.0.0.0:80`; together with `[::]:80` it is `*:80`", do: func(s *ngScope, l *ngLine) {
		s.listens = append(s.listens, l)
	}},
	{name: "proxy_pass", args: 1, to: "group enable", say: "the group of the upstream takes the clients; a variable of `map`, `geo` or `split_clients` becomes routes", do: func(s *ngScope, l *ngLine) { s.pass = l }},
	{name: "proxy_timeout", args: 1, to: "timeouts idle", say: "10m without it", do: ngTime("timeouts idle")},
	{name: "proxy_connect_timeout", args: 1, to: "timeouts connect", say: "60s without it", do: ngTime("timeouts connect")},
	{name: "proxy_next_upstream_timeout", args: 1, to: "timeouts total", say: "0 without it", do: ngTime("timeouts total")},
	{name: "proxy_next_upstream", args: 1, to: "limits tries", say: "`off`: 1", do: func(s *ngScope, l *ngLine) {
		if l.args[0] == "off" {
			s.values["limits tries"] = setting{"1", l.place}
		}
	}},
	{name: "proxy_next_upstream_tries", args: 1, to: "limits tries", do: func(s *ngScope, l *ngLine) {
		if s.values["limits tries"].value != "1" {
			s.values["limits tries"] = setting{l.args[0], l.place}
		}
	}},
	{name: "proxy_protocol", args: 1, to: "host proxyProtocol", say: "`v1`", do: func(s *ngScope, l *ngLine) {
		delete(s.values, "host proxyProtocol")
		if l.args[0] == "on" {
			s.values["host proxyProtocol"] = setting{"v1", l.place}
		}
	}},
	{name: "proxy_protocol_timeout", args: 1, to: "timeouts hello", do: ngTime("timeouts hello")},
	{name: "preread_timeout", args: 1, to: "timeouts hello", do: ngTime("timeouts hello")},
	{name: "proxy_bind", args: 1, to: "host source", say: "`$remote_addr transparent` is `client`", do: func(s *ngScope, l *ngLine) {
		v := l.args[0]
		switch {
		case v == "off":
			delete(s.values, "host source")
			return
		case v == "$remote_addr" && slices.Contains(l.args, "transparent"):
			v = "client"
		case strings.Contains(v, "$"):
			s.note(l, "no equivalent: an address that depends on the client")
			return
		}
		s.values["host source"] = setting{v, l.place}
	}},
	{name: "proxy_socket_keepalive", args: 1, to: "timeouts keepAlive", say: sameAsOurs, do: ngSwitch("", "no equivalent: `<timeouts keepAlive=\"0\">` is for both sides")},
	{name: "proxy_half_close", args: 1, to: "timeouts halfClosed", say: "half-closed sessions stay half open", do: ngSwitch("", "no equivalent: half-closed sessions stay half open, at most for <timeouts halfClosed>")},
	{name: "tcp_nodelay", args: 1, say: sameAsOurs, do: ngSwitch("", "no equivalent: it is always on")},
	{name: "ssl_preread", args: 1, to: "route sni", say: "with `map $ssl_preread_server_name`", do: ngSwitch("", "")},
	{name: "allow", args: 1, to: "allow net", do: func(s *ngScope, l *ngLine) { s.permit(l, false) }},
	{name: "deny", args: 1, to: "deny net", do: func(s *ngScope, l *ngLine) { s.permit(l, true) }},
	{name: "limit_conn", args: 1, to: "limits perClient", say: "of a zone whose key is the client's address", do: func(s *ngScope, l *ngLine) {
		key := s.n.zones[l.args[0]]
		if len(l.args) != 2 || key != "$binary_remote_addr" && key != "$remote_addr" {
			s.note(l, "no equivalent: the zone is not one by the client's address")
			return
		}
		s.values["limits perClient"] = setting{l.args[1], l.place}
	}},
	{name: "limit_conn_zone", args: 1, to: "limits perClient", say: "see `limit_conn`", do: func(*ngScope, *ngLine) {}},
	{name: "access_log", args: 1, to: "logging access", say: "syslog; one for all services", do: func(s *ngScope, l *ngLine) {
		s.logged = setting{l.args[0], l.place}
		if len(l.args) > 1 {
			s.note(l, "the formats are tcplog and json: %s has no equivalent", strings.Join(l.args[1:], " "))
		}
	}},
	{name: "log_format", say: "no equivalent: the formats are tcplog and json"},
	{name: "open_log_file_cache", say: "no equivalent: the log stays open"},
	{name: "error_log", say: "no equivalent: `<logging file level>` is txlb's own log"},
	{name: "resolver", args: 1, to: "dns servers", do: func(s *ngScope, l *ngLine) {
		var servers []string
		for _, a := range l.args {
			if _, isOption, _ := strings.Cut(a, "="); isOption != "" || strings.Contains(a, "=") {
				s.note(l, "no equivalent: %s", a)
				continue
			}
			servers = append(servers, a)
		}
		s.n.set(s.n.root.child("dns", l.place), "servers", strings.Join(servers, " "), l.place)
	}},
	{name: "resolver_timeout", say: "no equivalent: a look-up takes at most five seconds"},
	{name: "health_check", to: "check type", say: "`interval`, `passes`, `fails`, `port`, and `match` with `send` and `expect`", do: func(s *ngScope, l *ngLine) { s.health = l }},
	{name: "health_check_timeout", args: 1, to: "check timeout", do: ngTime("check timeout")},
	{name: "set_real_ip_from", say: "no equivalent: a listener with `proxyProtocol=\"require\"` takes the address from the header of everybody"},
	{name: "proxy_ssl", args: 1, say: "the server is left out: txlb encrypts nothing", do: func(s *ngScope, l *ngLine) {
		if l.args[0] == "on" {
			s.refused = "it encrypts to its hosts (proxy_ssl); txlb passes TLS on as it is and encrypts nothing"
		}
	}},
	{name: "return", say: "the server is left out: it answers by itself", do: ngRefuse("it answers clients by itself (return)")},
	{name: "proxy_buffer_size", say: "no equivalent: streams go through pipes, see `<engine pipeSize>`"},
	{name: "preread_buffer_size", say: "no equivalent: a ClientHello has at most 16 KB"},
	{name: "proxy_download_rate", say: "no equivalent"},
	{name: "proxy_upload_rate", say: "no equivalent"},
	{name: "proxy_requests", say: "no equivalent: txlb balances no UDP"},
	{name: "proxy_responses", say: "no equivalent: txlb balances no UDP"},
	{name: "proxy_session_drop", say: "no equivalent"},
	{name: "limit_conn_log_level", say: "no equivalent: the access log has the reason"},
	{name: "limit_conn_dry_run", say: "no equivalent"},
	{name: "status_zone", say: "no equivalent: the metrics have every service"},
	{name: "variables_hash_max_size", say: "no equivalent"},
	{name: "variables_hash_bucket_size", say: "no equivalent"},
	{name: "map_hash_max_size", say: "no equivalent"},
	{name: "map_hash_bucket_size", say: "no equivalent"},
	{name: "include", say: notFollowed},
	{name: "location", say: "the server is left out: it is one of HTTP", do: ngRefuse("it is a server of HTTP")},
	{name: "server_name", say: "no equivalent: see `ssl_preread`"},
}

// permit takes allow and deny.
func (s *ngScope) permit(l *ngLine, deny bool) {
	net, ok := network(l.args[0])
	if !ok {
		s.note(l, "no equivalent: it is not a network")
		return
	}
	s.access = append(s.access, accessRule{deny: deny, net: net, at: l.place})
}

// server makes a service of a server block.
func (n *ngFile) server(l *ngLine, stream *ngScope, used map[string]bool) {
	service := &node{tag: "service", from: l.place}
	s := &ngScope{n: n, node: service, values: maps.Clone(stream.values), server: true, logged: stream.logged, health: stream.health}
	for _, d := range l.block {
		s.directive(d)
	}
	if s.refused == "" {
		s.refused = stream.refused
	}
	if len(s.access) == 0 {
		s.access = stream.access
	}
	if s.refused != "" || s.pass == nil {
		why := s.refused
		if why == "" {
			why = "it has no proxy_pass"
		}
		n.note(n.root, l.place, "left out: %s", why)
		return
	}
	for _, listen := range s.listens {
		s.listen(listen)
	}
	joinFamilies(service)
	if !slices.ContainsFunc(service.kids, func(k *node) bool { return k.tag == "listen" }) {
		n.root.notes = append(n.root.notes, service.notes...)
		n.note(n.root, l.place, "left out: there is no address of TCP to listen on")
		return
	}
	n.root.kids = append(n.root.kids, service)
	s.attributes(service)
	n.access(service, s.access)
	name := s.passTo(service, used)
	service.attr("name", uniqueName(name, n.names), l.place)
	s.logging()
}

// ngDefaults are what nginx does where nothing is said, and txlb does otherwise.
var ngDefaults = []struct{ to, value string }{
	{"timeouts connect", "1m"}, {"timeouts total", "0"}, {"timeouts idle", "10m"},
}

// attributes writes timeouts and limits.
func (s *ngScope) attributes(service *node) {
	for _, d := range ngDefaults {
		if _, said := s.values[d.to]; !said {
			s.values[d.to] = setting{d.value, service.from}
		}
	}
	for _, to := range slices.Sorted(maps.Keys(s.values)) {
		element, name, _ := strings.Cut(to, " ")
		if element == "timeouts" || element == "limits" {
			v := s.values[to]
			s.n.set(service.child(element, v.at), name, v.value, v.at)
		}
	}
}

// listen writes <listen>.
func (s *ngScope) listen(l *ngLine) {
	if slices.Contains(l.args, "udp") || slices.Contains(l.args, "quic") {
		s.note(l, "no equivalent: txlb balances no UDP")
		return
	}
	if slices.Contains(l.args, "ssl") {
		s.note(l, "no equivalent: it ends TLS; txlb passes TLS on as it is")
		return
	}
	address := l.args[0]
	var all []string
	if strings.HasPrefix(address, "unix:") {
		all = []string{address}
	} else {
		host, ports := hostPort(address)
		if !strings.Contains(address, ":") {
			host, ports = "*", address
		}
		switch {
		case host == "*":
			host = "0.0.0.0"
		case host == "::" && slices.Contains(l.args, "ipv6only=off"):
			host = "*"
		case strings.Contains(host, ":"):
			host = "[" + host + "]"
		}
		low, high, isRange := strings.Cut(ports, "-")
		if !isRange {
			high = low
		}
		a, errA := strconv.Atoi(low)
		b, errB := strconv.Atoi(high)
		if errA != nil || errB != nil || a < 1 || b > 65535 || a > b || b-a >= maxPorts {
			s.note(l, "no equivalent: %q is not a port to listen on, nor a range of at most %d", ports, maxPorts)
			return
		}
		for ; a <= b; a++ {
			all = append(all, host+":"+strconv.Itoa(a))
		}
	}
	for _, a := range all {
		listen := s.node.add("listen", l.place)
		listen.attr("ip", a, l.place)
		for _, option := range l.args[1:] {
			s.listenOption(listen, l, option)
		}
	}
}

// ngListenOptions are the options of listen.
var ngListenOptions = []row[func(s *ngScope, listen *node, l *ngLine, value string)]{
	{name: "proxy_protocol", to: "listen proxyProtocol", say: "`require`", do: func(s *ngScope, listen *node, l *ngLine, _ string) {
		s.n.set(listen, "proxyProtocol", "require", l.place)
	}},
	{name: "fastopen", to: "listen fastOpen", do: func(s *ngScope, listen *node, l *ngLine, _ string) {
		s.n.set(listen, "fastOpen", "yes", l.place)
	}},
	{name: "deferred", to: "listen deferAccept", do: func(s *ngScope, listen *node, l *ngLine, _ string) {
		s.n.set(listen, "deferAccept", "yes", l.place)
	}},
	{name: "backlog", to: "engine backlog", do: func(s *ngScope, _ *node, l *ngLine, value string) {
		s.n.set(s.n.root.child("engine", l.place), "backlog", value, l.place)
	}},
	{name: "so_keepalive", to: "timeouts keepAlive", say: "`off`: 0; `30m::10`: the first time", do: func(s *ngScope, _ *node, l *ngLine, value string) {
		idle, _, _ := strings.Cut(value, ":")
		switch {
		case value == "on" || idle == "":
		case value == "off":
			s.values["timeouts keepAlive"] = setting{"0", l.place}
		default:
			d, err := parseTimes(idle, time.Second)
			if err != nil {
				s.n.fail(l.line, "so_keepalive: %v", err)
				return
			}
			s.values["timeouts keepAlive"] = setting{spell(d), l.place}
		}
	}},
	{name: "reuseport", say: sameAsOurs, do: func(*ngScope, *node, *ngLine, string) {}},
	{name: "bind", say: sameAsOurs, do: func(*ngScope, *node, *ngLine, string) {}},
	{name: "ipv6only", say: "`[::]` takes IPv4 as well", do: func(s *ngScope, listen *node, l *ngLine, value string) {
		if value == "on" {
			s.n.note(listen, l.place, "no equivalent: [::] takes IPv4 as well")
		}
	}},
	{name: "udp", say: "txlb balances no UDP"},
	{name: "ssl", say: "txlb passes TLS on as it is"},
	{name: "rcvbuf", say: "no equivalent: the kernel sizes buffers"},
	{name: "sndbuf", say: "no equivalent: the kernel sizes buffers"},
}

func (s *ngScope) listenOption(listen *node, l *ngLine, option string) {
	name, value, _ := strings.Cut(option, "=")
	r, _ := lookUp(ngListenOptions, []string{name})
	switch {
	case r == nil:
		s.n.note(listen, l.place, "no equivalent: %s", option)
	case r.do == nil:
		s.n.note(listen, l.place, "%s: %s", option, strings.ReplaceAll(r.say, "`", ""))
	default:
		r.do(s, listen, l, value)
	}
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

// ngRoute is one line of map, geo or split_clients.
type ngRoute struct {
	match attr
	to    string
	at    place
	bits  int
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

// ngUpstream is an upstream while its group is made.
type ngUpstream struct {
	*ngScope
	group  *node
	method setting
	fails  [2]setting // max_fails, fail_timeout
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

// logging writes where sessions are logged.
func (s *ngScope) logging() {
	target := s.logged.value
	if target == "" || target == "off" {
		return
	}
	logging := s.n.root.child("logging", s.logged.at)
	if rest, ok := strings.CutPrefix(target, "syslog:"); ok {
		target = ""
		for o := range strings.SplitSeq(rest, ",") {
			if server, ok := strings.CutPrefix(o, "server="); ok {
				if !strings.HasPrefix(server, "unix:") {
					if host, port := hostPort(server); port == "" || host == "" {
						server = net.JoinHostPort(strings.Trim(server, "[]"), "514")
					}
					server = "udp:" + server
				}
				target = "syslog:" + server
			}
		}
	}
	if !strings.HasPrefix(target, "syslog:") {
		s.n.note(logging, s.logged.at, "the file is nginx's: give txlb one of its own, <logging access=\"FILE\">")
		return
	}
	switch was := logging.get("access"); {
	case was == "":
		s.n.set(logging, "access", target, s.logged.at)
	case was != target:
		s.n.note(logging, s.logged.at, "no equivalent: the access log has one target")
	}
}
