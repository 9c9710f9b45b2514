package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HAProxy converts haproxy.cfg; name stands for the file in errors. Proxies in TCP
// mode become services, each with the backends that its clients can reach as groups.
// An error has FILE:LINE for each mistake of the source.
func HAProxy(name string, text []byte) (*Result, error) {
	return haproxy(newConverter(name), text)
}

func haproxy(c *converter, text []byte) (*Result, error) {
	h := &haFile{converter: c, proxies: map[string]*haProxy{}, defaults: map[string]*haProxy{}, holds: map[string]setting{}}
	lexer := haLexer{c: c, text: string(text)}
	h.read(lexer.lines())
	if len(c.problems) == 0 {
		h.build()
	}
	return c.finish("haproxy")
}

// haFile is a haproxy.cfg that was read.
type haFile struct {
	*converter
	order    []*haProxy
	proxies  map[string]*haProxy // frontend, backend and listen, by kind and name
	defaults map[string]*haProxy // those with a name
	latest   *haProxy            // the last defaults
	holds    map[string]setting  // how long resolvers keep a name, by their name
	logs     []haLine            // of global
	crtBase  string              // the folder of certificates, and below of authorities; "": none
	caBase   string
}

// setting is a value and where it stands.
type setting struct {
	value string
	at    place
}

// haProxy is a defaults, frontend, backend or listen section. A new one begins as a
// copy of its defaults.
type haProxy struct {
	kind, name string
	at         place
	notes      []note // as converter.note takes them
	quotes     []place
	mode       setting
	disabled   bool
	times      map[string]setting // timeouts
	values     map[string]setting // attributes, by "element attribute"
	balance    setting
	balanceAt  []string // its words
	hashType   setting
	check      haCheck
	logged     []haLine
	binds      []haBind
	servers    []haServer
	preset     map[string]haOption // default-server
	acls       map[string][]haACL
	rules      []haRule // tcp-request connection
	uses       []haRule // use_backend
	fallback   setting  // default_backend
	stick      haStick
	allBackups bool
	exporter   bool // serves Prometheus
}

// note keeps a comment until there is an element that it belongs to.
func (p *haProxy) note(at place, format string, args ...any) {
	p.notes = append(p.notes, note{text: fmt.Sprintf(format, args...)})
	p.quotes = append(p.quotes, at)
}

// heir returns a new section that starts from the values of its defaults.
func (p *haProxy) heir() *haProxy {
	n := *p
	n.notes, n.quotes = nil, nil
	n.times, n.values, n.preset, n.acls = maps.Clone(p.times), maps.Clone(p.values), maps.Clone(p.preset), maps.Clone(p.acls)
	n.logged, n.check.steps, n.rules = slices.Clone(p.logged), slices.Clone(p.check.steps), slices.Clone(p.rules)
	return &n
}

func newHAProxy() *haProxy {
	return &haProxy{times: map[string]setting{}, values: map[string]setting{}, preset: map[string]haOption{}, acls: map[string][]haACL{}}
}

// read takes the sections in.
func (h *haFile) read(lines []haLine) {
	for i := 0; i < len(lines); {
		n := i + 1
		for n < len(lines) && !haSections[lines[n].words[0]] {
			n++
		}
		h.section(lines[i], lines[i+1:n])
		i = n
	}
}

// haSections are the words that begin a section.
var haSections = map[string]bool{
	"global": true, "defaults": true, "frontend": true, "backend": true, "listen": true, "peers": true, "resolvers": true,
	"mailers": true, "userlist": true, "cache": true, "program": true, "ring": true, "http-errors": true, "fcgi-app": true,
	"crt-store": true, "log-forward": true, "log-profile": true, "traces": true, "acme": true, "crt-list": true,
}

func (h *haFile) section(head haLine, body []haLine) {
	kind := head.words[0]
	whole := head.place
	if len(body) > 0 {
		whole.last = body[len(body)-1].line
	}
	switch kind {
	case "global":
		for _, l := range body {
			h.global(l)
		}
	case "resolvers":
		h.resolvers(head, body)
	case "defaults", "frontend", "backend", "listen":
		h.proxy(head, body, whole)
	default:
		if !haSections[kind] {
			for _, l := range append([]haLine{head}, body...) {
				if strings.HasPrefix(l.words[0], ".") {
					h.conditional(l)
					continue
				}
				h.fail(l.line, "%q is outside of a section; a file begins with global, defaults, frontend, backend or listen", l.words[0])
				return
			}
			return
		}
		why := haOtherSections[kind]
		if why == "" {
			why = unknown
		}
		h.note(h.root, whole, "%s", why)
	}
}

// haOtherSections says why a section has no equivalent.
var haOtherSections = map[string]string{
	"peers":    "no equivalent: txlb shares no tables with other nodes",
	"mailers":  "no equivalent: events are in the log, the metrics and /api/v1/events",
	"userlist": "no equivalent: users of txlb are <admin><user>; make their hashes with txlb passwd",
	"program":  "no equivalent: the service manager starts programs",
	"ring":     "no equivalent: txlb logs to a file or to standard error",
}

// conditional refuses what would have to be decided before the file is read.
func (h *haFile) conditional(l haLine) {
	switch l.words[0] {
	case ".if", ".elif", ".else", ".endif":
		h.fail(l.line, "%s: conditional blocks are not evaluated; keep the lines that apply and remove the others", l.words[0])
	default:
		h.note(h.root, l.place, unknown)
	}
}

// expanded refuses lines with variables of the environment, which we do not know.
func (h *haFile) expanded(l haLine) (why string) {
	if l.env != "" {
		return fmt.Sprintf("the variable %s is not known here; write its value, then convert again", l.env)
	}
	return ""
}

// globalRow is what a line of global does.
type globalRow = row[func(*haFile, haLine, []string)]

// engineValue makes a do that sets an attribute of <engine>.
func engineValue(attribute string) func(*haFile, haLine, []string) {
	return func(h *haFile, l haLine, args []string) {
		if len(args) == 0 {
			h.fail(l.line, "%s needs a value", l.words[0])
			return
		}
		h.set(h.root.child("engine", l.place), attribute, args[0], l.place)
	}
}

// engineTime is engineValue for a time.
func engineTime(attribute string) func(*haFile, haLine, []string) {
	return func(h *haFile, l haLine, args []string) {
		if d, ok := h.time(l, args); ok {
			h.set(h.root.child("engine", l.place), attribute, d, l.place)
		}
	}
}

var noSandbox = "no equivalent: the systemd unit confines txlb and says who runs it"

var haGlobal = []globalRow{
	{name: "maxconn", to: "engine maxSessions", do: engineValue("maxSessions")},
	{name: "nbthread", to: "engine loops", say: "as it is", do: engineValue("loops")},
	{name: "hard-stop-after", to: "engine drain", do: engineTime("drain")},
	{name: "grace", to: "engine grace", do: engineTime("grace")},
	{name: "nosplice", to: "engine splice", say: "`never`", do: func(h *haFile, l haLine, _ []string) {
		h.set(h.root.child("engine", l.place), "splice", "never", l.place)
	}},
	{name: "log", to: "logging access", say: "the first target that a proxy uses", do: func(h *haFile, l haLine, _ []string) { h.logs = append(h.logs, l) }},
	{name: "stats socket", say: "write `<admin><socket path=\"/run/txlb/admin.sock\" mode=\"0660\"/></admin>`: it takes HAProxy's commands too"},
	{name: "stats timeout", say: "no equivalent: idle connections of the socket are closed when others need their place"},
	{name: "daemon", say: "no equivalent: txlb stays in the foreground, the service manager starts it"},
	{name: "master-worker", say: "no equivalent: there is one process"},
	{name: "pidfile", say: "no equivalent: the service manager knows the process"},
	{name: "user", say: noSandbox},
	{name: "group", say: noSandbox},
	{name: "uid", say: noSandbox},
	{name: "gid", say: noSandbox},
	{name: "chroot", say: noSandbox},
	{name: "ulimit-n", say: "no equivalent: txlb raises its limit of open files itself, or set LimitNOFILE in the systemd unit"},
	{name: "nbproc", say: "no equivalent: there is one process; see <engine loops>"},
	{name: "cpu-map", say: "no equivalent: the kernel places the loops; CPUAffinity in the systemd unit limits them"},
	{name: "spread-checks", say: "no equivalent: checks are always spread by up to a fifth of the interval"},
	{name: "crt-base", to: "listen tls", say: "the folder becomes part of each file's name", do: func(h *haFile, _ haLine, args []string) { h.crtBase = firstOf(args) }},
	{name: "ca-base", to: "listen clientCA", say: "the folder becomes part of each file's name", do: func(h *haFile, _ haLine, args []string) { h.caBase = firstOf(args) }},
	{name: "log-tag", say: "no equivalent"},
	{name: "description", say: "no equivalent: write a <note>"},
	{name: "node", say: "no equivalent"},
}

func (h *haFile) global(l haLine) {
	if strings.HasPrefix(l.words[0], ".") {
		h.conditional(l)
		return
	}
	if why := h.expanded(l); why != "" {
		h.note(h.root, l.place, "%s", why)
		return
	}
	r, args := lookUp(haGlobal, l.words)
	switch {
	case r == nil && strings.HasPrefix(l.words[0], "tune."):
		h.note(h.root, l.place, "no equivalent: txlb measures what it needs by itself")
	case r == nil && strings.HasPrefix(l.words[0], "ssl-"):
		h.note(h.root, l.place, onlyTLS)
	case r == nil:
		h.note(h.root, l.place, unknown)
	case r.do == nil:
		h.note(h.root, l.place, "%s", strings.ReplaceAll(r.say, "`", ""))
	default:
		r.do(h, l, args)
	}
}

// time reads the time of a line in milliseconds, as a document has it.
func (h *haFile) time(l haLine, args []string) (string, bool) {
	if len(args) == 0 {
		h.fail(l.line, "%s needs a time", strings.Join(l.words, " "))
		return "", false
	}
	d, err := parseTime(args[0], time.Millisecond)
	if err != nil {
		h.fail(l.line, "%s: %v", strings.Join(l.words[:len(l.words)-len(args)], " "), err)
		return "", false
	}
	return spell(d), true
}

// resolvers reads who is asked for names, and how often.
func (h *haFile) resolvers(head haLine, body []haLine) {
	if len(head.words) > 1 {
		h.holds[head.words[1]] = setting{"10s", head.place}
	}
	for _, l := range body {
		switch {
		case h.expanded(l) != "":
			h.note(h.root, l.place, "%s", h.expanded(l))
		case l.words[0] == "nameserver" && len(l.words) >= 3:
			address := strings.TrimPrefix(l.words[2], "udp@")
			dns := h.root.child("dns", head.place)
			if _, err := netip.ParseAddrPort(address); err != nil {
				if _, err := netip.ParseAddr(address); err != nil {
					h.note(h.root, l.place, "no equivalent: a name server is an address")
					continue
				}
			}
			if all := strings.Fields(dns.get("servers")); !slices.Contains(all, address) {
				h.set(dns, "servers", strings.Join(append(all, address), " "), l.place)
			}
		case l.words[0] == "hold" && len(l.words) >= 3 && l.words[1] == "valid" && len(head.words) > 1:
			if d, ok := h.time(l, l.words[2:]); ok {
				h.holds[head.words[1]] = setting{d, l.place}
			}
		case l.words[0] == "parse-resolv-conf":
			h.note(h.root, l.place, "not needed: without <dns>, the system's resolver is asked")
		default:
			h.note(h.root, l.place, "no equivalent: a name that stops resolving keeps its last addresses; see <host resolve>")
		}
	}
}

// proxy reads a section of a proxy.
func (h *haFile) proxy(head haLine, body []haLine, whole place) {
	kind := head.words[0]
	from := h.latest
	words := head.words[1:]
	if n := len(words); n >= 2 && words[n-2] == "from" {
		if from = h.defaults[words[n-1]]; from == nil {
			h.fail(head.line, "%s: there is no defaults section %q before it", head.text, words[n-1])
			return
		}
		words = words[:n-2]
	} else if kind == "defaults" {
		from = nil
	}
	p := newHAProxy()
	if from != nil {
		p = from.heir()
	}
	p.kind, p.at = kind, whole
	p.at.text = head.text
	if len(words) > 0 {
		p.name = words[0]
	}
	switch {
	case kind != "defaults" && p.name == "":
		h.fail(head.line, "%s needs a name", kind)
		return
	case kind == "defaults":
		h.latest = p
		if p.name != "" {
			h.defaults[p.name] = p
		}
	case h.find(kind, p.name) != nil:
		h.fail(head.line, "a second %s %q; names are unique", kind, p.name)
		return
	default:
		h.proxies[kind+" "+p.name] = p
		h.order = append(h.order, p)
	}
	for _, l := range body {
		h.directive(p, l)
	}
	if kind == "defaults" {
		h.tell(h.root, p)
	}
}

// find returns a proxy; a listen section is both a frontend and a backend.
func (h *haFile) find(kind, name string) *haProxy {
	if kind == "listen" {
		for _, k := range []string{"listen", "frontend", "backend"} {
			if p := h.proxies[k+" "+name]; p != nil {
				return p
			}
		}
		return nil
	}
	if p := h.proxies[kind+" "+name]; p != nil {
		return p
	}
	return h.proxies["listen "+name]
}

// tell writes the comments of a proxy into an element.
func (h *haFile) tell(n *node, p *haProxy) {
	for i, one := range p.notes {
		h.note(n, p.quotes[i], "%s", one.text)
	}
}

// directive reads one line of a proxy.
func (h *haFile) directive(p *haProxy, l haLine) {
	if strings.HasPrefix(l.words[0], ".") {
		h.conditional(l)
		return
	}
	if why := h.expanded(l); why != "" {
		p.note(l.place, "%s", why)
		return
	}
	words := l.words
	no := words[0] == "no" && len(words) > 1
	if no {
		words = words[1:]
	}
	r, args := lookUp(haDirectives, words)
	switch {
	case r == nil && strings.HasPrefix(words[0], "http-"):
		p.note(l.place, "no equivalent: txlb passes bytes on and reads no HTTP")
	case r == nil && words[0] == "stats":
		p.note(l.place, "no equivalent: the page of txlb is <admin><web/></admin>")
	case r == nil:
		p.note(l.place, unknown)
	case r.do == nil || no && r.name != "option redispatch" && r.name != "log":
		say := strings.ReplaceAll(r.say, "`", "")
		if say == "" {
			say = unknown
		}
		if no {
			say = unknown
		}
		p.note(l.place, "%s", say)
	default:
		r.do(h, p, l, args)
	}
}
