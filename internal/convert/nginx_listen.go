package convert

import (
	"slices"
	"strings"
	"time"
)

// pairs returns certificates and keys as <listen tls> has them, "" without.
func (s *ngScope) pairs() string {
	var all []string
	for i := range min(len(s.certs), len(s.keys)) {
		all = append(all, s.certs[i], s.keys[i])
	}
	return strings.Join(all, " ")
}

// listenTLS writes the certificates of a listener.
func (s *ngScope) listenTLS(listen *node, l *ngLine) {
	s.n.set(listen, "tls", s.pairs(), l.place)
	if ca, ok := s.values["ssl clientCA"]; ok && s.values["ssl verify"].value == "on" {
		s.n.set(listen, "clientCA", ca.value, ca.at)
	}
	if alpn, ok := s.values["ssl alpn"]; ok {
		s.n.set(listen, "alpn", alpn.value, alpn.at)
	}
}

// listen writes <listen>.
func (s *ngScope) listen(l *ngLine) {
	if slices.Contains(l.args, "udp") || slices.Contains(l.args, "quic") {
		s.note(l, "no equivalent: txlb balances no UDP")
		return
	}
	if slices.Contains(l.args, "ssl") && s.pairs() == "" {
		s.note(l, "no equivalent: it ends TLS without ssl_certificate and its key")
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
		list, why := portsOf(ports)
		if why != "" {
			s.note(l, "no equivalent: %s", why)
			return
		}
		for _, port := range list {
			all = append(all, host+":"+port)
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
	{name: "ssl", to: "listen tls", say: "with `ssl_certificate`", do: func(s *ngScope, listen *node, l *ngLine, _ string) { s.listenTLS(listen, l) }},
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
