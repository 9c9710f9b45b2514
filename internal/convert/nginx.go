package convert

import (
	"maps"
	"net"
	"slices"
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
	// certs and keys are files, by turns of one list each.
	certs, keys []string
	logged      setting
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

// ngKeep makes an ngDo of a directive whose value counts later. A variable has no
// equivalent.
func ngKeep(to string) ngDo {
	return func(s *ngScope, l *ngLine) {
		if strings.Contains(l.args[0], "$") {
			s.note(l, "no equivalent: a value that depends on the client")
			return
		}
		s.values[to] = setting{l.args[0], l.place}
	}
}

// ngFiles makes an ngDo of a directive that names one of several files.
func ngFiles(list func(*ngScope) *[]string) ngDo {
	return func(s *ngScope, l *ngLine) {
		if file := l.args[0]; strings.Contains(file, "$") || strings.HasPrefix(file, "data:") || strings.HasPrefix(file, "engine:") || strings.HasPrefix(file, "store:") {
			s.note(l, "no equivalent: txlb reads certificates and keys from files")
			return
		}
		files := list(s)
		*files = append(*files, l.args[0])
	}
}

// hostTLS writes the TLS of a host.
func (s *ngScope) hostTLS(host *node) {
	on := s.values["ssl proxy"]
	if on.value != "on" {
		return
	}
	name, named := s.values["ssl name"]
	if s.values["ssl proxy_verify"].value == "on" {
		s.n.set(host, "tls", "yes", on.at)
		if ca, ok := s.values["ssl ca"]; ok {
			s.n.set(host, "ca", ca.value, ca.at)
		}
		if !named {
			s.n.note(host, on.at, "its certificate must be for the name or address in ip; nginx verifies that of proxy_pass: give sni if they differ")
		}
	} else {
		s.n.set(host, "tls", "unverified", on.at)
	}
	if named {
		s.n.set(host, "sni", name.value, name.at)
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
	{name: "ssl_certificate", args: 1, to: "listen tls", say: "with `listen … ssl`", do: ngFiles(func(s *ngScope) *[]string { return &s.certs })},
	{name: "ssl_certificate_key", args: 1, to: "listen tls", do: ngFiles(func(s *ngScope) *[]string { return &s.keys })},
	{name: "ssl_client_certificate", args: 1, to: "listen clientCA", say: "with `ssl_verify_client on`", do: ngKeep("ssl clientCA")},
	{name: "ssl_verify_client", args: 1, to: "listen clientCA", say: "`on`", do: func(s *ngScope, l *ngLine) {
		s.values["ssl verify"] = setting{l.args[0], l.place}
		if strings.HasPrefix(l.args[0], "optional") {
			s.note(l, "no equivalent: with clientCA, each client needs a certificate")
		}
	}},
	{name: "ssl_alpn", args: 1, to: "listen alpn", do: func(s *ngScope, l *ngLine) {
		s.values["ssl alpn"] = setting{strings.Join(l.args, " "), l.place}
	}},
	{name: "ssl_handshake_timeout", args: 1, to: "timeouts hello", do: ngTime("timeouts hello")},
	{name: "ssl_session_cache", say: "no equivalent: clients keep their sessions in tickets"},
	{name: "ssl_session_tickets", say: "no equivalent: clients keep their sessions in tickets"},
	{name: "ssl_session_timeout", say: "no equivalent: a ticket is good for 16 hours at least"},
	{name: "proxy_ssl", args: 1, to: "host tls", say: "`unverified`; with `proxy_ssl_verify on`, `yes`", do: ngKeep("ssl proxy")},
	{name: "proxy_ssl_verify", args: 1, to: "host tls", say: "see `proxy_ssl`", do: ngKeep("ssl proxy_verify")},
	{name: "proxy_ssl_trusted_certificate", args: 1, to: "host ca", do: ngKeep("ssl ca")},
	{name: "proxy_ssl_name", args: 1, to: "host sni", do: ngKeep("ssl name")},
	{name: "proxy_ssl_server_name", args: 1, to: "host sni", say: "txlb always asks for the name, if there is one", do: func(*ngScope, *ngLine) {}},
	{name: "proxy_ssl_certificate", say: "no equivalent: txlb shows hosts no certificate"},
	{name: "proxy_ssl_certificate_key", say: "no equivalent: txlb shows hosts no certificate"},
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
	if len(s.certs)+len(s.keys) == 0 {
		s.certs, s.keys = stream.certs, stream.keys
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
		n.note(n.root, l.place, "left out: there is no TCP address to listen on")
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
