package convert

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// haDo is what a line of a proxy does; args are the words behind the name of its row.
type haDo func(h *haFile, p *haProxy, l haLine, args []string)

const (
	httpOnly   = "no equivalent: txlb passes bytes on and reads no HTTP"
	sameAsOurs = "the same without saying so"
)

// haDirectives is every line of a proxy that we know.
var haDirectives = []row[haDo]{
	{name: "mode", say: "`tcp` alone: a section in another mode is left out", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		p.mode = setting{firstOf(args), l.place}
	}},
	{name: "bind", to: "listen ip", say: "one `<listen>` for each address and port; HAProxy's `*:80` is IPv4 alone, so it becomes `0.0.0.0:80`", do: (*haFile).bindLine},
	{name: "server", to: "host ip", do: (*haFile).serverLine},
	{name: "server-template", to: "host ip", say: "one host: a name stands for all its addresses", do: (*haFile).templateLine},
	{name: "default-server", say: "its options go to each host", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		h.serverOptions(p, p.preset, l, args)
	}},
	{name: "balance", to: "group scheduler", say: "see the table of schedulers", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.balance, p.balanceAt = setting{firstOf(args), l.place}, args
	}},
	{name: "hash-type", say: "`maglev` is always consistent", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.hashType = setting{strings.Join(args, " "), l.place}
	}},

	{name: "timeout connect", to: "timeouts connect", do: timeLine("connect")},
	{name: "timeout client", to: "timeouts idle", say: "the longer one of `client` and `server`, for both directions", do: timeLine("client")},
	{name: "timeout server", to: "timeouts idle", say: "see `timeout client`", do: timeLine("server")},
	{name: "timeout tunnel", to: "timeouts idle", say: "instead of `client` and `server`", do: timeLine("tunnel")},
	{name: "timeout client-fin", to: "timeouts halfClosed", say: "the longer one of `client-fin` and `server-fin`", do: timeLine("client-fin")},
	{name: "timeout server-fin", to: "timeouts halfClosed", say: "see `timeout client-fin`", do: timeLine("server-fin")},
	{name: "timeout queue", to: "timeouts queue", do: timeLine("queue")},
	{name: "timeout check", to: "check timeout", say: "without it, `inter`", do: timeLine("check")},
	{name: "timeout http-request", say: httpOnly},
	{name: "timeout http-keep-alive", say: httpOnly},
	{name: "timeout tarpit", say: httpOnly},
	{name: "retries", to: "limits tries", say: "one more than `retries`: tries count the first. Each goes to another host", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		n, err := strconv.Atoi(firstOf(args))
		if err != nil || n < 0 || n > 1_000_000 {
			h.fail(l.line, "retries needs a number")
			return
		}
		p.values["limits tries"] = setting{strconv.Itoa(n + 1), l.place}
	}},
	{name: "option redispatch", say: sameAsOurs + ": each try goes to another host", do: func(_ *haFile, p *haProxy, l haLine, _ []string) {
		if l.words[0] == "no" {
			p.note(l.place, "no equivalent: each try goes to another host")
		}
	}},

	{name: "option tcp-check", to: "check type", say: "`tcp`, or `expect` with what `tcp-check send` and `expect` say", do: func(_ *haFile, p *haProxy, l haLine, _ []string) {
		p.check = haCheck{kind: "tcp", at: l.place}
	}},
	{name: "tcp-check connect", to: "check port", say: "`ssl` makes it `type=\"tls\"`", do: (*haFile).checkConnect},
	{name: "tcp-check send", to: "check send", do: checkStep("send", plainText)},
	{name: "tcp-check send-binary", to: "check send", do: checkStep("send", hexText)},
	{name: "tcp-check expect string", to: "check expect", say: "the last one of several", do: checkStep("expect", plainText)},
	{name: "tcp-check expect binary", to: "check expect", say: "the last one of several", do: checkStep("expect", hexText)},
	{name: "tcp-check expect comment", say: "no equivalent: name the match before the comment"},
	{name: "tcp-check comment", say: sameAsOurs, do: func(*haFile, *haProxy, haLine, []string) {}},
	{name: "option httpchk", to: "check path", say: "`type=\"http\"`; txlb sends GET", do: (*haFile).httpCheck},
	{name: "http-check send", to: "check host", say: "also `path`", do: (*haFile).httpSend},
	{name: "http-check expect status", to: "check status", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.values["check status"] = setting{strings.ReplaceAll(strings.Join(args, ","), ",,", ","), l.place}
	}},
	{name: "http-check expect rstatus", to: "check status", say: "patterns such as `2..` and `(2|3)[0-9][0-9]`", do: (*haFile).httpStatus},
	{name: "option ssl-hello-chk", to: "check type", say: "`tls`", do: kindOfCheck(haCheck{kind: "tls"})},
	{name: "option redis-check", to: "check expect", say: "PING, +PONG", do: kindOfCheck(haCheck{kind: "expect", send: "*1\r\n$4\r\nPING\r\n", expect: "+PONG\r\n"})},
	{name: "option smtpchk", to: "check expect", say: "the greeting, 220", do: kindOfCheck(haCheck{kind: "expect", expect: "220"})},
	{name: "option mysql-check", to: "check expect", say: "the greeting of protocol 10; no login", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.check = haCheck{kind: "expect", expect: "\x00\x00\x0a", at: l.place}
		if len(args) > 0 {
			p.note(l.place, "the check reads the greeting of the server and does not log in as user")
		}
	}},
	{name: "option pgsql-check", to: "check expect", say: "a StartupMessage, and a question for authentication as the answer", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		if len(args) < 2 || args[0] != "user" || len(args[1]) > 63 {
			h.fail(l.line, "option pgsql-check needs user and a name")
			return
		}
		body := "\x00\x03\x00\x00user\x00" + args[1] + "\x00\x00"
		p.check = haCheck{kind: "expect", send: string([]byte{0, 0, 0, byte(len(body) + 4)}) + body, expect: "R\x00\x00\x00", at: l.place}
	}},
	{name: "option ldap-check", say: "no equivalent: hosts are checked by TCP", do: weakCheck},
	{name: "option external-check", say: "no equivalent: hosts are checked by TCP", do: weakCheck},
	{name: "option spop-check", say: "no equivalent: hosts are checked by TCP", do: weakCheck},

	{name: "maxconn", to: "limits sessions", say: "of a frontend", do: valueLine("limits sessions")},
	{name: "rate-limit sessions", to: "limits rate", do: valueLine("limits rate")},
	{name: "fullconn", say: "no equivalent: the limit of a host does not change with the load"},
	{name: "backlog", to: "engine backlog", do: func(h *haFile, _ *haProxy, l haLine, args []string) {
		h.set(h.root.child("engine", l.place), "backlog", firstOf(args), l.place)
	}},
	{name: "source", to: "host source", say: "of every host", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.preset["source"] = haOption{args, l.place}
	}},

	{name: "default_backend", to: "group enable", say: "the group that takes the clients", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.fallback = setting{firstOf(args), l.place}
	}},
	{name: "use_backend", to: "route group", say: "conditions over the server name, ALPN and the client's address", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		p.uses = append(p.uses, haRule{args, l.place})
	}},
	{name: "acl", to: "route sni", say: "`req_ssl_sni`, `req.ssl_alpn`, `ssl_fc_sni`, `ssl_fc_alpn` and `src`, in the conditions that use it", do: (*haFile).aclLine},
	{name: "tcp-request connection", to: "deny net", say: "`accept` and `reject` by `src`; also limits by `src_conn_cur` and `src_conn_rate`, and `expect-proxy layer4 if { src … }`", do: func(_ *haFile, p *haProxy, l haLine, args []string) {
		p.rules = append(p.rules, haRule{args, l.place})
	}},
	{name: "tcp-request content accept", say: "no equivalent: `<timeouts hello>` bounds the wait for a ClientHello", do: contentRule},
	{name: "tcp-request content reject", to: "deny net", say: "by `src`", do: contentRule},
	{name: "tcp-request content", say: unknown},
	{name: "tcp-request session", say: unknown},
	{name: "tcp-request inspect-delay", to: "timeouts hello", do: func(h *haFile, p *haProxy, l haLine, args []string) {
		if d, ok := h.time(l, args); ok {
			p.values["timeouts hello"] = setting{d, l.place}
		}
	}},
	{name: "stick-table", to: "group stickySize", say: "of type ip or ipv6; also `stickyFor`. Only with `stick on src`", do: (*haFile).stickTable},
	{name: "stick on src", to: "group scheduler", say: "`,sticky` behind the scheduler", do: stickOn},
	{name: "stick store-request src", to: "group scheduler", say: "as `stick on src`", do: stickOn},
	{name: "stick match src", say: "part of `,sticky`, see `stick store-request src`", do: nothingToDo},

	{name: "log", to: "logging access", say: "of global if it says `log global`", do: func(_ *haFile, p *haProxy, l haLine, _ []string) {
		if l.words[0] == "no" {
			p.logged = nil
			return
		}
		p.logged = append(p.logged, l)
	}},
	{name: "option tcplog", to: "logging accessFormat", say: "`tcplog`", do: func(*haFile, *haProxy, haLine, []string) {}},
	{name: "option log-health-checks", say: sameAsOurs, do: nothingToDo},
	{name: "option dontlognull", say: "no equivalent: the access log has every session"},
	{name: "option dontlog-normal", say: "no equivalent: the access log has every session"},
	{name: "option logasap", say: "no equivalent: a session is logged when it ends"},
	{name: "log-format", say: "no equivalent: the formats are tcplog and json"},
	{name: "option httplog", say: httpOnly},

	{name: "option tcpka", to: "timeouts keepAlive", say: sameAsOurs, do: nothingToDo},
	{name: "option clitcpka", to: "timeouts keepAlive", say: sameAsOurs, do: nothingToDo},
	{name: "option srvtcpka", to: "timeouts keepAlive", say: sameAsOurs, do: nothingToDo},
	{name: "clitcpka-idle", to: "timeouts keepAlive", say: "for both sides", do: keepAliveLine},
	{name: "srvtcpka-idle", to: "timeouts keepAlive", say: "for both sides", do: keepAliveLine},
	{name: "option splice-auto", to: "engine splice", say: sameAsOurs, do: nothingToDo},
	{name: "option splice-request", to: "engine splice", say: sameAsOurs, do: nothingToDo},
	{name: "option splice-response", to: "engine splice", say: sameAsOurs, do: nothingToDo},
	{name: "option tcp-smart-accept", say: sameAsOurs, do: nothingToDo},
	{name: "option tcp-smart-connect", say: sameAsOurs, do: nothingToDo},
	{name: "option allbackups", say: sameAsOurs + ": all backups take clients once no other host is left", do: func(_ *haFile, p *haProxy, _ haLine, _ []string) {
		p.allBackups = true
	}},
	{name: "option nolinger", say: "no equivalent: ends and resets are passed on as what they are"},
	{name: "option abortonclose", say: "no equivalent: a reset of the client ends its session at once"},
	{name: "disabled", say: "the section is left out", do: func(_ *haFile, p *haProxy, _ haLine, _ []string) { p.disabled = true }},
	{name: "enabled", say: sameAsOurs, do: func(_ *haFile, p *haProxy, _ haLine, _ []string) { p.disabled = false }},
	{name: "description", say: "no equivalent: write a <note>"},
	{name: "id", say: "no equivalent"},
	{name: "monitor-net", say: "no equivalent: leave the checker's connections; /readyz answers monitors"},
	{name: "use-server", say: "no equivalent: a route leads to a group"},
	{name: "errorfile", say: httpOnly},
	{name: "cookie", say: httpOnly},
	{name: "capture", say: httpOnly},
	{name: "redirect", say: httpOnly},
	{name: "compression", say: httpOnly},
	{name: "monitor-uri", say: httpOnly},
	{name: "option forwardfor", say: httpOnly},
	{name: "option httpclose", say: httpOnly},
	{name: "option http-server-close", say: httpOnly},
	{name: "option http-keep-alive", say: httpOnly},
	{name: "http-request use-service prometheus-exporter", to: "metrics listen", say: "the section becomes `<metrics>`", do: func(_ *haFile, p *haProxy, _ haLine, _ []string) {
		p.exporter = true
	}},
	{name: "stats auth", say: "no equivalent: write `<admin><web/><user name=… password=… access=\"full\"/></admin>`; txlb passwd makes the hash", do: func(_ *haFile, p *haProxy, l haLine, _ []string) {
		l.text = "stats auth …" // the password stays out of the document
		p.note(l.place, "no equivalent: write <admin><web/><user …/></admin>; txlb passwd makes the hash")
	}},
}

func nothingToDo(*haFile, *haProxy, haLine, []string) {}

func firstOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func timeLine(name string) haDo {
	return func(h *haFile, p *haProxy, l haLine, args []string) {
		if d, ok := h.time(l, args); ok {
			p.times[name] = setting{d, l.place}
		}
	}
}

func keepAliveLine(h *haFile, p *haProxy, l haLine, args []string) {
	d, err := parseTime(firstOf(args), time.Second)
	if err != nil {
		h.fail(l.line, "%s: %v", l.words[0], err)
		return
	}
	p.values["timeouts keepAlive"] = setting{spell(d), l.place}
}

func valueLine(to string) haDo {
	return func(h *haFile, p *haProxy, l haLine, args []string) {
		if _, err := strconv.ParseUint(firstOf(args), 10, 31); err != nil {
			h.fail(l.line, "%s needs a number", strings.Join(l.words[:len(l.words)-len(args)], " "))
			return
		}
		p.values[to] = setting{args[0], l.place}
	}
}

// haCheck is how a proxy checks its servers.
type haCheck struct {
	kind         string // "" until an option says it
	at           place
	send, expect string
	steps        []haStep // of tcp-check
}

// haStep is a line tcp-check send or expect.
type haStep struct {
	verb, text string
	at         place
}

func kindOfCheck(check haCheck) haDo {
	return func(_ *haFile, p *haProxy, l haLine, _ []string) {
		check.at = l.place
		p.check = check
	}
}

func weakCheck(_ *haFile, p *haProxy, l haLine, _ []string) {
	p.check = haCheck{kind: "tcp", at: l.place}
	p.note(l.place, "no equivalent: hosts are checked by TCP")
}

func plainText(s string) (string, error) { return s, nil }

func hexText(s string) (string, error) {
	b, err := hex.DecodeString(s)
	return string(b), err
}

func checkStep(verb string, read func(string) (string, error)) haDo {
	return func(h *haFile, p *haProxy, l haLine, args []string) {
		text, err := read(firstOf(args))
		if err != nil || text == "" {
			h.fail(l.line, "%s: want what to %s", strings.Join(l.words[:len(l.words)-len(args)], " "), verb)
			return
		}
		if len(args) > 1 && args[1] != "comment" {
			p.note(l.place, "no equivalent: %s", strings.Join(args[1:], " "))
		}
		p.check.steps = append(p.check.steps, haStep{verb, text, l.place})
	}
}

func (h *haFile) checkConnect(p *haProxy, l haLine, args []string) {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "port" && i+1 < len(args):
			i++
			p.values["check port"] = setting{args[i], l.place}
		case arg == "ssl":
			p.check.kind = "tls"
		case arg == "sni" && i+1 < len(args):
			i++
			p.values["check host"] = setting{args[i], l.place}
		case arg == "comment" && i+1 < len(args):
			i++
		default:
			p.note(l.place, "no equivalent: %s", arg)
		}
	}
}

// httpCheck reads option httpchk [[METHOD] PATH [VERSION]].
func (h *haFile) httpCheck(p *haProxy, l haLine, args []string) {
	p.check = haCheck{kind: "http", at: l.place}
	delete(p.values, "check path")
	method := ""
	if len(args) == 1 && strings.HasPrefix(args[0], "/") {
		p.values["check path"] = setting{args[0], l.place}
	}
	if len(args) >= 2 {
		method = args[0]
		p.values["check path"] = setting{args[1], l.place}
	}
	if method != "" && method != "GET" && method != "OPTIONS" {
		p.note(l.place, "the check sends GET, not %s", method)
	}
	if len(args) < 3 {
		return
	}
	// Older files have the headers behind the version: HTTP/1.1\r\nHost:\ name
	for _, header := range strings.Split(strings.Join(args[2:], " "), "\r\n")[1:] {
		if name, value, _ := strings.Cut(header, ":"); strings.EqualFold(strings.TrimSpace(name), "host") {
			p.values["check host"] = setting{strings.TrimSpace(value), l.place}
		} else if header != "" {
			p.note(l.place, "no equivalent: the header %s", name)
		}
	}
}

// httpSend reads http-check send meth M uri U ver V hdr NAME VALUE body B.
func (h *haFile) httpSend(p *haProxy, l haLine, args []string) {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "meth":
			if args[i+1] != "GET" && args[i+1] != "OPTIONS" {
				p.note(l.place, "the check sends GET, not %s", args[i+1])
			}
		case "uri":
			p.values["check path"] = setting{args[i+1], l.place}
		case "ver", "comment":
		case "hdr":
			if i+2 < len(args) && strings.EqualFold(args[i+1], "host") {
				p.values["check host"] = setting{args[i+2], l.place}
			} else {
				p.note(l.place, "no equivalent: the header %s", args[i+1])
			}
			i++
		default:
			p.note(l.place, "no equivalent: %s", args[i])
		}
	}
}

// httpStatus reads patterns of statuses that are ranges.
func (h *haFile) httpStatus(p *haProxy, l haLine, args []string) {
	pattern := strings.NewReplacer("^", "", "$", "", "[0-9]", ".", `\d`, ".", ".*", "..").Replace(firstOf(args))
	var firsts string
	if first, ok := strings.CutSuffix(pattern, ".."); ok {
		firsts = strings.Trim(first, "()[]|")
	}
	var ranges []string
	for _, f := range strings.ReplaceAll(firsts, "|", "") {
		if f < '1' || f > '5' {
			ranges = nil
			break
		}
		ranges = append(ranges, fmt.Sprintf("%c00-%c99", f, f))
	}
	if len(ranges) == 0 {
		p.note(l.place, "no equivalent: write the statuses into <check status>")
		return
	}
	p.values["check status"] = setting{strings.Join(ranges, ","), l.place}
}

// haStick is a stick-table and what it is used for.
type haStick struct {
	kind         string
	size, expire string
	rate         time.Duration // the period of conn_rate
	at, on       place
}

func stickOn(_ *haFile, p *haProxy, l haLine, args []string) {
	p.stick.on = l.place
	if len(args) > 0 {
		p.note(l.place, "the table is that of the group itself: %s has no equivalent", strings.Join(args, " "))
	}
}

func (h *haFile) stickTable(p *haProxy, l haLine, args []string) {
	p.stick.at = l.place
	for i := 0; i+1 < len(args); i++ {
		switch args[i] {
		case "type":
			p.stick.kind = args[i+1]
		case "size":
			n, err := parseCount(args[i+1])
			if err != nil {
				h.fail(l.line, "stick-table size: %v", err)
				return
			}
			p.stick.size = strconv.FormatInt(n, 10)
		case "expire":
			d, err := parseTime(args[i+1], time.Millisecond)
			if err != nil {
				h.fail(l.line, "stick-table expire: %v", err)
				return
			}
			p.stick.expire = spell(d)
		case "store":
			for _, s := range strings.Split(args[i+1], ",") {
				if period, ok := strings.CutPrefix(s, "conn_rate("); ok {
					p.stick.rate, _ = parseTime(strings.TrimSuffix(period, ")"), time.Millisecond)
				}
			}
		case "peers":
			p.note(l.place, "no equivalent: peers; each txlb has a table of its own")
		}
	}
}

// haBind is a line bind.
type haBind struct {
	addresses []string
	options   []string
	at        place
}

func (h *haFile) bindLine(p *haProxy, l haLine, args []string) {
	if len(args) == 0 {
		h.fail(l.line, "bind needs an address")
		return
	}
	p.binds = append(p.binds, haBind{slices.DeleteFunc(strings.Split(args[0], ","), func(s string) bool { return s == "" }), args[1:], l.place})
}

// haServer is a line server.
type haServer struct {
	name, address string
	options       map[string]haOption
	template      bool
	at            place
}

// haOption is an option of a server, with its words.
type haOption struct {
	args []string
	at   place
}

func (h *haFile) serverLine(p *haProxy, l haLine, args []string) {
	if len(args) < 2 {
		h.fail(l.line, "server needs a name and an address")
		return
	}
	h.addServer(p, haServer{name: args[0], address: args[1], at: l.place}, l, args[2:])
}

// templateLine reads server-template PREFIX NUMBER ADDRESS.
func (h *haFile) templateLine(p *haProxy, l haLine, args []string) {
	if len(args) < 3 {
		h.fail(l.line, "server-template needs a prefix, a number and an address")
		return
	}
	h.addServer(p, haServer{name: args[0], address: args[2], template: true, at: l.place}, l, args[3:])
}

func (h *haFile) addServer(p *haProxy, s haServer, l haLine, options []string) {
	s.options = map[string]haOption{}
	for name, o := range p.preset {
		s.options[name] = o
	}
	h.serverOptions(p, s.options, l, options)
	p.servers = append(p.servers, s)
}

// serverOptions reads options of a server into a map.
func (h *haFile) serverOptions(p *haProxy, into map[string]haOption, l haLine, args []string) {
	for i := 0; i < len(args); i++ {
		name := args[i]
		if off, ok := strings.CutPrefix(name, "no-"); ok {
			delete(into, off)
			continue
		}
		if name == "enabled" {
			delete(into, "disabled")
			continue
		}
		r, _ := lookUp(haServerOptions, args[i:i+1])
		if r == nil {
			p.note(l.place, "%s is not known here; it and what follows in this line were not read", name)
			return
		}
		n := r.args
		if name == "source" && i+2 < len(args) && (args[i+2] == "usesrc" || args[i+2] == "interface") {
			n += 2
		}
		if i+n >= len(args) && n > 0 {
			h.fail(l.line, "server option %s needs a value", name)
			return
		}
		into[name] = haOption{args[i+1 : i+1+n], l.place}
		i += n
	}
}

// haRule is a rule with a condition.
type haRule struct {
	words []string
	at    place
}

// contentRule takes a rule about the content as one about the connection where it is
// about the client's address alone.
func contentRule(h *haFile, p *haProxy, l haLine, args []string) {
	words := append([]string{l.words[2]}, args...)
	if cond, err := h.condition(p, args); err == nil && cond.only("net") && l.words[2] == "reject" {
		p.rules = append(p.rules, haRule{words, l.place})
		return
	} else if err == nil && cond.only("hello") && l.words[2] == "accept" {
		return // the route waits for it
	}
	p.note(l.place, unknown)
}
