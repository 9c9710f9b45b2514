package convert

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listeners writes <listen> and returns the port of all of them, 0 if they differ.
func (h *haFile) listeners(service *node, p *haProxy) (port int) {
	ports := map[string]bool{}
	for _, b := range p.binds {
		if slices.Contains(b.options, "ssl") && h.certificates(b.options) == "" {
			h.note(service, b.at, "no equivalent: it ends TLS without the file of a certificate; write <listen tls=\"CERTIFICATE KEY\">")
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
	list, why := portsOf(ports)
	if why != "" {
		return nil, why
	}
	for _, port := range list {
		all = append(all, host+":"+port)
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
	{name: "ssl", to: "listen tls", say: "with `crt`", do: func(*haFile, *node, *node, string, place) {}},
	{name: "crt", args: 1, to: "listen tls", say: "a file that has the key too; folders have no equivalent", do: func(h *haFile, _, listen *node, value string, at place) {
		if strings.HasSuffix(value, "/") {
			h.note(listen, at, "no equivalent: crt %s: name each file", value)
		}
	}},
	{name: "ca-file", args: 1, to: "listen clientCA", say: "with `verify required`", do: func(*haFile, *node, *node, string, place) {}},
	{name: "verify", args: 1, to: "listen clientCA", say: "`required`; `optional` has no equivalent", do: func(h *haFile, _, listen *node, value string, at place) {
		if value == "optional" {
			h.note(listen, at, "no equivalent: verify optional: with clientCA, each client needs a certificate")
		}
	}},
	{name: "alpn", args: 1, to: "listen alpn", do: func(h *haFile, _, listen *node, value string, at place) {
		h.set(listen, "alpn", strings.ReplaceAll(value, ",", " "), at)
	}},
	{name: "ssl-min-ver", args: 1, say: onlyTLS},
	{name: "ssl-max-ver", args: 1, say: onlyTLS},
	{name: "ciphers", args: 1, say: onlyTLS},
	{name: "ciphersuites", args: 1, say: onlyTLS},
	{name: "curves", args: 1, say: onlyTLS},
	{name: "ecdhe", args: 1, say: onlyTLS},
	{name: "no-sslv3", say: onlyTLS},
	{name: "no-tlsv10", say: onlyTLS},
	{name: "no-tlsv11", say: onlyTLS},
	{name: "no-tls-tickets", say: "no equivalent: txlb makes new keys for tickets every eight hours"},
	{name: "strict-sni", say: "no equivalent: the first certificate is for other names"},
	{name: "crt-list", args: 1, say: "no equivalent: name the files in `<listen tls>`"},
	{name: "crl-file", args: 1, say: "no equivalent"},
	{name: "accept-netscaler-cip", args: 1, say: "no equivalent"},
}

// valueOf returns what follows an option, "" without it.
func valueOf(options []string, name string) string {
	if i := slices.Index(options, name); i >= 0 && i+1 < len(options) {
		return options[i+1]
	}
	return ""
}

// within returns a file below a folder, unless it has a folder of its own.
func within(base, file string) string {
	if base == "" || strings.HasPrefix(file, "/") {
		return file
	}
	return strings.TrimSuffix(base, "/") + "/" + file
}

// certificates returns the files of crt as pairs: each has the key too.
func (h *haFile) certificates(options []string) string {
	var pairs []string
	for i, o := range options {
		if o == "crt" && i+1 < len(options) && !strings.HasSuffix(options[i+1], "/") {
			file := within(h.crtBase, options[i+1])
			pairs = append(pairs, file, file)
		}
	}
	return strings.Join(pairs, " ")
}

// bindTLS writes the certificates of a listener.
func (h *haFile) bindTLS(listen *node, b haBind) {
	if !slices.Contains(b.options, "ssl") {
		return
	}
	h.set(listen, "tls", h.certificates(b.options), b.at)
	if ca := valueOf(b.options, "ca-file"); ca != "" && valueOf(b.options, "verify") == "required" {
		h.set(listen, "clientCA", within(h.caBase, ca), b.at)
	}
}

func (h *haFile) bindOptions(service, listen *node, address string, b haBind) {
	if family, _, ok := strings.Cut(address, "@"); ok && strings.HasPrefix(family, "mptcp") {
		h.set(listen, "mptcp", "yes", b.at)
	}
	h.bindTLS(listen, b)
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
