package convert

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
	{name: "source", args: 1, to: "host source", say: "without a port; `usesrc clientip` is `client`; `interface` is `<host interface>`", do: func(b *haBackend, host *node, o haOption) {
		address := firstOf(o.args)
		if a, err := netip.ParseAddr(address); err != nil || !a.IsValid() {
			address, _ = hostPort(address)
		}
		if len(o.args) == 3 && o.args[1] == "interface" {
			b.set(host, "interface", o.args[2], o.at)
		} else if len(o.args) == 3 {
			if o.args[1] != "usesrc" || o.args[2] != "clientip" && o.args[2] != "client" {
				b.note(host, o.at, "no equivalent: %s %s", o.args[1], o.args[2])
				return
			}
			address = "client"
		}
		if a, err := netip.ParseAddr(address); err == nil && a.IsUnspecified() || address == "*" {
			return
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
	{name: "check-ssl", to: "check type", say: "`tls`", do: func(b *haBackend, host *node, _ haOption) { b.tls = b.tls || host.get("tls") == "" }},
	{name: "check-sni", args: 1, to: "check host", say: "with `ssl`, checks ask for `<host sni>`", do: func(b *haBackend, host *node, o haOption) {
		if host.get("tls") == "" {
			checkValue("host", false)(b, host, o)
		}
	}},
	{name: "observe", args: 1, to: "group maxFails", say: "`layer4` with `on-error mark-down`: `error-limit`", do: noServerDo},
	{name: "error-limit", args: 1, to: "group maxFails", say: "see `observe`", do: noServerDo},
	{name: "on-error", args: 1, to: "group maxFails", say: "see `observe`", do: noServerDo},
	{name: "on-marked-down", args: 1, to: "group onMarkedDown", say: "`shutdown-sessions`: `shutdown`, for all hosts of the group", do: func(b *haBackend, _ *node, o haOption) {
		if firstOf(o.args) == "shutdown-sessions" {
			b.set(b.group, "onMarkedDown", "shutdown", o.at)
		}
	}},
	{name: "on-marked-up", args: 1, to: "group onMarkedUp", say: "`shutdown-backup-sessions`: `shutdown`, for all hosts of the group", do: func(b *haBackend, _ *node, o haOption) {
		if firstOf(o.args) == "shutdown-backup-sessions" {
			b.set(b.group, "onMarkedUp", "shutdown", o.at)
		}
	}},
	{name: "tcp-ut", args: 1, to: "timeouts unacked", say: "of `bind` alone"},
	{name: "addr", args: 1, say: "no equivalent: checks go to the address of the host"},
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
	{name: "ssl", to: "host tls", say: "`yes`; with `verify none`, `unverified`", do: noServerDo},
	{name: "verify", args: 1, to: "host tls", say: "see `ssl`; with `check-ssl` alone `<check verify>`", do: noServerDo},
	{name: "verifyhost", args: 1, to: "host sni", say: "txlb asks for the name that it verifies", do: noServerDo},
	{name: "ca-file", args: 1, to: "host ca", say: "with `check-ssl verify required` alone `<check ca>`", do: noServerDo},
	{name: "sni", args: 1, to: "host sni", say: "`str(NAME)`", do: noServerDo},
	{name: "crt", args: 1, say: "no equivalent: txlb shows hosts no certificate"},
	{name: "alpn", args: 1, say: "no equivalent: the host is offered what the client has agreed on"},
	{name: "check-alpn", args: 1, say: "no equivalent"},
	{name: "ssl-min-ver", args: 1, say: onlyTLS},
	{name: "ssl-max-ver", args: 1, say: onlyTLS},
	{name: "ciphers", args: 1, say: onlyTLS},
	{name: "ciphersuites", args: 1, say: onlyTLS},
}

// host makes a host of a server.
func (b *haBackend) host(s haServer) {
	address, why := b.target(s.address)
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
	b.encrypt(host, s)
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

// encrypt writes the TLS of a server.
func (b *haBackend) encrypt(host *node, s haServer) {
	ssl, ok := s.options["ssl"]
	if !ok {
		return
	}
	name := firstOf(s.options["verifyhost"].args)
	if sni := s.options["sni"]; len(sni.args) > 0 {
		if constant, ok := strings.CutPrefix(sni.args[0], "str("); ok {
			name = strings.TrimSuffix(constant, ")")
		} else {
			b.note(host, sni.at, "no equivalent: sni %s: the name of a host is always the same", sni.args[0])
		}
	}
	if firstOf(s.options["verify"].args) == "none" {
		b.set(host, "tls", "unverified", ssl.at)
	} else {
		b.set(host, "tls", "yes", ssl.at)
		if ca := firstOf(s.options["ca-file"].args); ca != "" && !strings.HasPrefix(ca, "@") {
			b.set(host, "ca", within(b.caBase, ca), s.options["ca-file"].at)
		}
		if name == "" {
			b.note(host, ssl.at, "its certificate must be for the name or address in ip; HAProxy does not look without verifyhost or sni")
		}
	}
	if name != "" {
		b.set(host, "sni", name, ssl.at)
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
