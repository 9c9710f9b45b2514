package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// attr is one attribute that an element may have.
type attr struct {
	name string
	set  func(value string) error
}

// attributes reads the attributes of e: each that is there goes to its set,
// and one that is not in the list is a mistake.
func (r *reader) attributes(e *etree.Element, known ...attr) {
	seen := map[string]bool{}
	for _, a := range e.Attr {
		if a.Space == "xmlns" || a.Key == "xmlns" {
			continue
		}
		i := slices.IndexFunc(known, func(k attr) bool { return k.name == a.Key })
		switch {
		case i < 0:
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = k.name
			}
			r.fail(r.lines[e], "<%s> has no attribute %q%s", e.Tag, a.Key, suggest(a.Key, names))
			r.misspelt = e
		case seen[a.Key]:
			r.fail(r.lines[e], "<%s> has the attribute %s twice", e.Tag, a.Key)
		default:
			if err := known[i].set(a.Value); err != nil {
				r.fail(r.lines[e], "<%s %s>: %v", e.Tag, a.Key, err)
			}
		}
		seen[a.Key] = true
	}
}

// need reports attributes without which the element makes no sense. One that is
// misspelt has been reported already.
func (r *reader) need(e *etree.Element, names ...string) {
	if r.misspelt == e {
		return
	}
	for _, name := range names {
		if e.SelectAttrValue(name, "") == "" {
			r.fail(r.lines[e], "<%s> needs the attribute %s", e.Tag, name)
		}
	}
}

// child is one element that another may contain.
type child struct {
	name string
	read func(*etree.Element)
	once bool // more than one is a mistake
}

// children reads the elements within e. <note> is for people, anywhere.
func (r *reader) children(e *etree.Element, known ...child) {
	seen := map[string]bool{}
	for _, c := range e.ChildElements() {
		if c.Tag == "note" {
			continue
		}
		i := slices.IndexFunc(known, func(k child) bool { return k.name == c.Tag })
		switch {
		case i < 0:
			if len(known) == 0 {
				r.fail(r.lines[c], "<%s> contains nothing, and no <%s>", e.Tag, c.Tag)
				continue
			}
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = k.name
			}
			r.fail(r.lines[c], "there is no <%s> in <%s>%s", c.Tag, e.Tag, suggest(c.Tag, names))
		case known[i].once && seen[c.Tag]:
			r.fail(r.lines[c], "a second <%s> in <%s>; one is allowed", c.Tag, e.Tag)
		default:
			known[i].read(c)
		}
		seen[c.Tag] = true
	}
}

// What follows makes attrs of a name and the place for the value.

func text(name string, to *string) attr {
	return attr{name, func(s string) error { *to = s; return nil }}
}

func oneOf(name string, to *string, allowed ...string) attr {
	return attr{name, func(s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(allowed, ", "))
		}
		*to = s
		return nil
	}}
}

func parsed[T any](name string, to *T, parse func(string) (T, error)) attr {
	return attr{name, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}}
}

func number32(name string, to *int, low, high int) attr {
	return parsed(name, to, func(s string) (int, error) { return parseInt(s, low, high) })
}

func auto(a attr) attr {
	return attr{a.name, func(s string) error {
		if s == "auto" {
			return nil
		}
		if err := a.set(s); err != nil {
			return fmt.Errorf("%w, nor auto", err)
		}
		return nil
	}}
}

// later is an attribute whose issue has not come yet: it may say what happens
// anyhow.
func later(name string, defaults ...string) attr {
	return attr{name, func(s string) error {
		if slices.Contains(defaults, s) {
			return nil
		}
		if len(defaults) == 0 {
			return fmt.Errorf("is not supported by this version yet; leave it out")
		}
		return fmt.Errorf("is not supported by this version yet; leave it out or say %s", strings.Join(defaults, " or "))
	}}
}

// laterElement is an element whose issue has not come yet.
func (r *reader) laterElement(name string) child {
	return child{name, func(e *etree.Element) {
		r.fail(r.lines[e], "<%s> is not supported by this version yet; leave it out", name)
	}, false}
}

// config reads the root element.
func (r *reader) config(e *etree.Element) *Config {
	c := New()
	if e.Tag != "config" && e.Tag != "pdconfig" {
		r.fail(r.lines[e], "the root element is <%s>; it must be <config>, or <pdconfig> in a PythonDirector configuration", e.Tag)
		return c
	}
	c.Root = e.Tag
	r.attributes(e)
	r.children(e,
		child{"engine", func(e *etree.Element) { r.engine(e, &c.Engine) }, true},
		child{"service", func(e *etree.Element) { c.Services = append(c.Services, r.service(e)) }, false},
		child{"admin", func(e *etree.Element) { r.admin(e, &c.Admin) }, true},
		child{"manager", func(e *etree.Element) { r.manager(e, &c.Manager) }, true},
		child{"logging", func(e *etree.Element) { r.logging(e, &c.Logging) }, true},
		child{"checktime", func(e *etree.Element) {
			r.attributes(e, parsed("time", &c.Manager.HostCheck.Interval, parseSeconds))
			r.children(e)
		}, true},
		child{"control", func(e *etree.Element) {
			var socket string
			r.attributes(e, text("socket", &socket))
			r.children(e)
			r.warn(r.lines[e], "<control> is not served by this version yet")
		}, true},
		r.laterElement("dns"),
	)
	return c
}

func (r *reader) engine(e *etree.Element, to *Engine) {
	r.attributes(e,
		auto(number32("loops", &to.Loops, 1, 1024)),
		later("ring", "off", "auto"),
		oneOf("splice", &to.Splice, "auto", "always", "never"),
		parsed("pipeSize", &to.PipeSize, func(s string) (int64, error) {
			n, err := parseSize(s)
			if err == nil && (n < 64<<10 || n > 64<<20) {
				err = fmt.Errorf("%q is not between 64KiB and 64MiB", s)
			}
			return n, err
		}),
		parsed("pipeMemory", &to.PipeMemory, parseSize),
		auto(number32("maxSessions", &to.MaxSessions, 1, 10_000_000)),
		number32("backlog", &to.Backlog, 1, 65535),
		parsed("drain", &to.Drain, parseDuration),
	)
	r.children(e)
}

func (r *reader) service(e *etree.Element) *Service {
	s := NewService("")
	s.Pos = Pos{r.lines[e]}
	r.attributes(e, text("name", &s.Name))
	var enabled []*etree.Element
	var said []*etree.Element // groups that say enable themselves
	r.children(e,
		child{"listen", func(e *etree.Element) {
			l := Listen{Pos: Pos{r.lines[e]}}
			r.attributes(e, text("ip", &l.Address), later("proxyProtocol", "off"), later("proxyFrom", ""))
			r.need(e, "ip")
			r.children(e)
			s.Listen = append(s.Listen, l)
		}, false},
		child{"timeouts", func(e *etree.Element) {
			r.attributes(e,
				parsed("connect", &s.Timeouts.Connect, parseDuration),
				parsed("total", &s.Timeouts.Total, parseDuration),
				parsed("idle", &s.Timeouts.Idle, parseDuration),
				parsed("halfClosed", &s.Timeouts.HalfClosed, parseDuration),
				later("queue", "5s"))
			r.children(e)
		}, true},
		child{"limits", func(e *etree.Element) {
			r.attributes(e, number32("tries", &s.Limits.Tries, 0, 10_000),
				later("sessions", "0"), later("perClient", "0"), later("rate", "0"))
			r.children(e)
		}, true},
		child{"group", func(e *etree.Element) {
			s.Groups = append(s.Groups, r.group(e))
			if e.SelectAttr("enable") != nil {
				said = append(said, e)
			}
		}, false},
		child{"enable", func(e *etree.Element) {
			var ignored string
			r.attributes(e, text("group", &ignored))
			r.need(e, "group")
			r.children(e)
			enabled = append(enabled, e)
		}, false},
		r.laterElement("access"),
	)
	r.enable(s, enabled, said)
	return s
}

// enable works out which group is enabled, from <group enable>, from
// PythonDirector's <enable group>, or because there is no other.
func (r *reader) enable(s *Service, elements, said []*etree.Element) {
	for _, e := range elements {
		name := e.SelectAttrValue("group", "")
		i := slices.IndexFunc(s.Groups, func(g *Group) bool { return g.Name == name })
		if i < 0 {
			var names []string
			for _, g := range s.Groups {
				names = append(names, g.Name)
			}
			r.fail(r.lines[e], "service %q has no group %q%s", s.Name, name, suggest(name, names))
			continue
		}
		for _, g := range said {
			disagrees := g.SelectAttrValue("name", "") == name != s.groupAt(r.lines[g]).Enabled
			if disagrees {
				r.fail(r.lines[e], "<enable group=%q> disagrees with <group enable> in line %d", name, r.lines[g])
			}
		}
		s.Groups[i].Enabled = true
	}
	if len(s.Groups) == 1 && len(elements) == 0 && len(said) == 0 {
		s.Groups[0].Enabled = true
	}
}

func (s *Service) groupAt(line int) *Group {
	for _, g := range s.Groups {
		if g.Pos.Line == line {
			return g
		}
	}
	return &Group{}
}

func (r *reader) group(e *etree.Element) *Group {
	g := NewGroup("")
	g.Pos = Pos{r.lines[e]}
	var allDown string
	r.attributes(e,
		text("name", &g.Name),
		attr{"scheduler", func(s string) error {
			name, err := canonicalScheduler(s)
			g.Scheduler = name
			return err
		}},
		parsed("enable", &g.Enabled, parseBool),
		oneOf("allDown", &allDown, "try", "refuse"),
		later("maxFails", "1"), later("failWindow", "10s"),
	)
	g.Refuse = allDown == "refuse"
	r.children(e,
		child{"host", func(e *etree.Element) { g.Hosts = append(g.Hosts, r.host(e, len(g.Hosts))) }, false},
		r.laterElement("check"),
	)
	return g
}

func canonicalScheduler(s string) (string, error) {
	if canonical, ok := SchedulerAliases()[s]; ok {
		return canonical, nil
	}
	if slices.Contains(SchedulerNames(), s) {
		return s, nil
	}
	if s == "maglev" || strings.HasSuffix(s, ",sticky") {
		return s, fmt.Errorf("%q is not supported by this version yet", s)
	}
	names := append(SchedulerNames(), slices.Sorted(maps.Keys(SchedulerAliases()))...)
	return s, fmt.Errorf("there is no scheduler %q%s", s, suggest(s, names))
}

func (r *reader) host(e *etree.Element, index int) *Host {
	h := &Host{Name: fmt.Sprintf("host.%d", index), Weight: 1, State: "ready", Pos: Pos{r.lines[e]}}
	r.attributes(e,
		attr{"name", func(s string) error {
			if s != "" { // the ancestors count an empty name as none
				h.Name = s
			}
			return nil
		}},
		text("ip", &h.Address),
		number32("weight", &h.Weight, 0, MaxWeight),
		parsed("backup", &h.Backup, parseBool),
		oneOf("state", &h.State, "ready", "drain", "maint"),
		later("maxSessions", "0"), later("slowStart", "0"), later("proxyProtocol", "off"), later("resolve", "30s"),
	)
	r.need(e, "ip")
	r.children(e)
	return h
}

func (r *reader) admin(e *etree.Element, to *Admin) {
	// PythonDirector put the page's address on <admin> itself.
	page := &AdminListen{Secure: true, Refresh: defaultRefresh, Pos: Pos{r.lines[e]}}
	var listen string
	r.attributes(e, text("listen", &listen), parsed("secure", &page.Secure, parseBool))
	if listen != "" {
		page.Listen, page.Enable = listen, true
		if e.SelectAttr("secure") == nil {
			page.Secure = false
		}
		to.Web = page
	}
	r.children(e,
		child{"web", func(e *etree.Element) {
			if to.Web != nil {
				r.fail(r.lines[e], "<web> and <admin listen> both say where the page is; keep <web>")
			}
			to.Web = r.adminListen(e, "7000",
				func(w *AdminListen) []attr {
					return []attr{parsed("secure", &w.Secure, parseBool), parsed("refresh", &w.Refresh, parseSeconds),
						later("certificate", ""), later("key", "")}
				})
		}, true},
		child{"ssh", func(e *etree.Element) {
			to.SSH = r.adminListen(e, "2222",
				func(*AdminListen) []attr { return []attr{later("hostKey", "")} })
		}, true},
		child{"metrics", func(e *etree.Element) {
			r.attributes(e, text("listen", &to.Metrics))
			r.need(e, "listen")
			r.children(e)
			to.MetricsPos = Pos{r.lines[e]}
		}, true},
		child{"user", func(e *etree.Element) {
			u := &User{Access: "readonly", Pos: Pos{r.lines[e]}}
			r.attributes(e, text("name", &u.Name), text("password", &u.Password), oneOf("access", &u.Access, "full", "readonly"))
			r.need(e, "name")
			r.children(e, r.laterElement("key"))
			to.Users = append(to.Users, u)
		}, false},
		r.laterElement("socket"),
	)
}

// defaultRefresh is how often the page renews itself without JavaScript.
const defaultRefresh = 10 * time.Second

// adminListen reads <web> or <ssh>. The ancestors saved listen="None" for no
// address, and a bare port.
func (r *reader) adminListen(e *etree.Element, port string, more func(*AdminListen) []attr) *AdminListen {
	a := &AdminListen{Listen: net.JoinHostPort("localhost", port), Secure: e.Tag == "web", Pos: Pos{r.lines[e]}}
	if e.Tag == "web" {
		a.Refresh = defaultRefresh
	}
	known := append([]attr{
		attr{"listen", func(s string) error {
			switch {
			case s == "None" || s == "":
				a.Listen = ""
			case strings.Trim(s, "0123456789") == "":
				a.Listen = net.JoinHostPort("localhost", s)
			default:
				a.Listen = s
			}
			return nil
		}},
		parsed("enable", &a.Enable, parseBool),
	}, more(a)...)
	r.attributes(e, known...)
	r.children(e)
	if e.SelectAttr("enable") == nil {
		a.Enable = isLoopback(a.Listen)
	}
	if a.Listen == "" {
		a.Enable = false
	}
	return a
}

func (r *reader) manager(e *etree.Element, to *Manager) {
	r.attributes(e, parsed("hostCheckInterval", &to.HostCheck.Interval, parseSeconds))
	check := func(c *Check, more ...attr) func(*etree.Element) {
		return func(e *etree.Element) {
			r.attributes(e, append([]attr{parsed("interval", &c.Interval, parseSeconds), parsed("enable", &c.Enable, parseBool)}, more...)...)
			r.children(e)
		}
	}
	r.children(e,
		child{"hostCheck", check(&to.HostCheck), true},
		child{"configCheck", check(&to.ConfigCheck, number32("backups", &to.Backups, 0, 10_000)), true},
		child{"heartbeat", check(&to.Heartbeat), true},
	)
}

func (r *reader) logging(e *etree.Element, to *Logging) {
	r.attributes(e, text("file", &to.File),
		oneOf("level", &to.Level, "debug", "info", "warn", "error"),
		oneOf("format", &to.Format, "text", "json"),
		later("access", ""), later("accessFormat", "tcplog"))
	r.children(e)
}
