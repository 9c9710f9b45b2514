package config

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// config reads the root element.
func (r *reader) config(e *etree.Element) *Config {
	c := New()
	r.part(c, func() {
		if !slices.Contains(roots(), e.FullTag()) {
			r.fail(r.lines[e], "the root element is <%s>; it must be <config>, or <pdconfig> in a PythonDirector configuration", e.FullTag())
			return
		}
		c.Root = e.Tag
		r.attributes(e)
		before := r.errors
		r.children(e,
			child{"engine", func(e *etree.Element) { r.engine(e, &c.Engine) }, true},
			child{"service", func(e *etree.Element) { c.Services = append(c.Services, r.service(e)) }, false},
			child{"admin", func(e *etree.Element) { r.admin(e, &c.Admin) }, true},
			child{"manager", func(e *etree.Element) { r.manager(e, &c.Manager) }, true},
			child{"dns", func(e *etree.Element) {
				c.DNS.Pos = Pos{r.lines[e]}
				r.attributes(e, attr{"servers", func(s string) error { c.DNS.Servers = strings.Fields(s); return nil }})
				r.children(e)
			}, true},
			child{"logging", func(e *etree.Element) { r.logging(e, &c.Logging) }, true},
			child{"checktime", func(e *etree.Element) {
				r.attributes(e, parsed("time", &c.Manager.HostCheck.Interval, parseSeconds))
				r.children(e)
			}, true},
			child{"control", func(e *etree.Element) { r.control(e, &c.Control) }, true},
		)
		if len(c.Services) == 0 && r.errors == before {
			r.fail(r.lines[e], noService)
		}
	})
	return c
}

// control reads what answers Apple's Calendar Server in txLoadBalancer, which
// saved socket="None" where there was none.
func (r *reader) control(e *etree.Element, to *Control) {
	to.Pos = Pos{r.lines[e]}
	r.attributes(e, text("socket", &to.Socket))
	r.children(e)
	if to.Socket == "None" {
		to.Socket = ""
	}
}

func (r *reader) engine(e *etree.Element, to *Engine) {
	r.attributes(e,
		auto(integer("loops", &to.Loops, 1, maxLoops)),
		oneOf("ring", &to.Ring, ringModes()),
		oneOf("splice", &to.Splice, spliceModes()),
		parsed("pipeSize", &to.PipeSize, func(s string) (int64, error) {
			n, err := parseSize(s)
			if err == nil && (n < minPipeSize || n > maxPipeSize) {
				err = fmt.Errorf("%q is not between %s and %s", s, formatSize(minPipeSize), formatSize(maxPipeSize))
			}
			return n, err
		}),
		parsed("pipeMemory", &to.PipeMemory, parseSize),
		auto(integer("maxSessions", &to.MaxSessions, 1, maxMaxSessions)),
		integer("backlog", &to.Backlog, 1, maxBacklog),
		parsed("drain", &to.Drain, parseDuration),
	)
	r.children(e)
}

func (r *reader) service(e *etree.Element) *Service {
	s := NewService("")
	s.Pos = Pos{r.lines[e]}
	r.part(s, func() {
		r.attributes(e, text("name", &s.Name))
		r.need(e, "name")
		var enable []*etree.Element
		said := map[*Group]bool{} // groups that say enable themselves
		r.children(e,
			child{"listen", func(e *etree.Element) {
				l := Listen{Pos: Pos{r.lines[e]}}
				r.attributes(e, text("ip", &l.Address))
				r.need(e, "ip")
				r.children(e)
				s.Listen = append(s.Listen, l)
			}, false},
			child{"timeouts", func(e *etree.Element) {
				r.attributes(e,
					parsed("connect", &s.Timeouts.Connect, parseDuration),
					parsed("total", &s.Timeouts.Total, parseDuration),
					parsed("idle", &s.Timeouts.Idle, parseDuration),
					parsed("halfClosed", &s.Timeouts.HalfClosed, parseDuration))
				r.children(e)
			}, true},
			child{"limits", func(e *etree.Element) {
				r.attributes(e, integer("tries", &s.Limits.Tries, 0, maxTries))
				r.children(e)
			}, true},
			child{"group", func(e *etree.Element) {
				g := r.group(e)
				s.Groups = append(s.Groups, g)
				said[g] = e.SelectAttr("enable") != nil
			}, false},
			child{"enable", func(e *etree.Element) {
				var ignored string
				r.attributes(e, text("group", &ignored))
				r.need(e, "group")
				r.children(e)
				enable = append(enable, e)
			}, false},
		)
		r.enable(s, enable, said)
	})
	return s
}

// enable works out which group is enabled, from <group enable>, from
// PythonDirector's <enable group>, or because there is no other.
func (r *reader) enable(s *Service, elements []*etree.Element, said map[*Group]bool) {
	before := map[*Group]bool{} // what the groups say of themselves
	for _, g := range s.Groups {
		before[g] = g.Enabled
	}
	for _, e := range elements {
		name := e.SelectAttrValue("group", "")
		if name == "" {
			continue
		}
		i := slices.IndexFunc(s.Groups, func(g *Group) bool { return g.Name == name })
		if i < 0 {
			var names []string
			for _, g := range s.Groups {
				names = append(names, g.Name)
			}
			if slices.Contains(names, "") { // it may be that one, whose name is missing
				continue
			}
			r.fail(r.lines[e], "service %q has no group %q%s", s.Name, name, r.suggest(name, names))
			continue
		}
		other := slices.IndexFunc(s.Groups, func(g *Group) bool { return said[g] && (g == s.Groups[i]) != before[g] })
		if other >= 0 {
			g := s.Groups[other]
			r.fail(r.lines[e], "<enable group=%q> disagrees with <group name=%q enable> in line %d; keep one of them", name, g.Name, g.Pos.Line)
			continue
		}
		s.Groups[i].Enabled = true
	}
	if len(s.Groups) == 1 && len(elements) == 0 && !said[s.Groups[0]] {
		s.Groups[0].Enabled = true
	}
}

func (r *reader) group(e *etree.Element) *Group {
	g := NewGroup("")
	g.Pos = Pos{r.lines[e]}
	r.part(g, func() {
		var allDown, start string
		r.attributes(e,
			text("name", &g.Name),
			parsed("scheduler", &g.Scheduler, canonicalScheduler),
			parsed("enable", &g.Enabled, parseBool),
			oneOf("allDown", &allDown, []string{"try", "refuse"}),
			oneOf("start", &start, []string{"up", "down"}),
			integer("maxFails", &g.MaxFails, 0, maxMaxFails),
			parsed("failWindow", &g.FailWindow, parseDuration),
		)
		r.need(e, "name")
		g.Refuse, g.StartDown = allDown == "refuse", start == "down"
		r.children(e,
			child{"host", func(e *etree.Element) {
				g.Hosts = append(g.Hosts, r.host(e, len(g.Hosts)))
			}, false},
			child{"check", func(e *etree.Element) { g.Check = r.healthCheck(e) }, true},
		)
	})
	return g
}

func (r *reader) host(e *etree.Element, index int) *Host {
	h := NewHost(fmt.Sprintf("host.%d", index), "")
	h.Pos = Pos{r.lines[e]}
	r.part(h, func() {
		r.attributes(e,
			attr{"name", func(s string) error {
				if s != "" { // the ancestors count an empty name as none
					h.Name = s
				}
				return nil
			}},
			text("ip", &h.Address),
			integer("weight", &h.Weight, 0, MaxWeight),
			parsed("backup", &h.Backup, parseBool),
			oneOf("state", &h.State, hostStates()),
			parsed("slowStart", &h.SlowStart, parseDuration),
			parsed("resolve", &h.Resolve, parseResolve),
		)
		r.need(e, "ip")
		r.children(e)
	})
	return h
}

func (r *reader) admin(e *etree.Element, to *Admin) {
	// PythonDirector put the page's address on <admin> itself.
	page := &AdminListen{Refresh: defaultRefresh, Pos: Pos{r.lines[e]}}
	r.part(page, func() {
		r.attributes(e, text("listen", &page.Listen), parsed("secure", &page.Secure, parseBool), refresh(page))
		if page.Listen == "" && (e.SelectAttr("secure") != nil || e.SelectAttr("refresh") != nil) {
			r.fail(r.lines[e], "<admin> without listen has no page to be secure or to refresh; say so in <web>")
		}
	})
	if page.Listen != "" {
		page.Enable = true
		to.Web = page
	}
	r.children(e,
		child{"web", func(e *etree.Element) {
			if to.Web != nil {
				r.fail(r.lines[e], "<web> and <admin listen> both say where the page is; keep <web>")
			}
			to.Web = r.adminListen(e, "7000")
		}, true},
		child{"ssh", func(e *etree.Element) { to.SSH = r.adminListen(e, "2222") }, true},
		child{"socket", func(e *etree.Element) {
			to.Socket = NewSocket("")
			to.Socket.Pos = Pos{r.lines[e]}
			r.part(to.Socket, func() {
				r.attributes(e, text("path", &to.Socket.Path), parsed("mode", &to.Socket.Mode, parseMode), text("group", &to.Socket.Group))
				r.need(e, "path")
				r.children(e)
			})
		}, true},
		child{"metrics", func(e *etree.Element) {
			r.attributes(e, text("listen", &to.Metrics))
			r.need(e, "listen")
			r.children(e)
			to.MetricsPos = Pos{r.lines[e]}
		}, true},
		child{"user", func(e *etree.Element) {
			u := &User{Access: "readonly", Pos: Pos{r.lines[e]}}
			r.part(u, func() {
				r.attributes(e, text("name", &u.Name), text("password", &u.Password), oneOf("access", &u.Access, accesses()))
				r.need(e, "name")
				r.children(e, child{"key", func(e *etree.Element) { u.Keys = append(u.Keys, r.key(e)) }, false})
			})
			to.Users = append(to.Users, u)
		}, false},
	)
}

// key reads a public key, in which blanks and line ends say nothing, and
// comments are none of its text.
func (r *reader) key(e *etree.Element) string {
	var line strings.Builder
	for _, t := range e.Child {
		if data, ok := t.(*etree.CharData); ok {
			line.WriteString(data.Data)
		}
	}
	r.attributes(e)
	r.children(e)
	return strings.Join(strings.Fields(line.String()), " ")
}

// defaultRefresh is how often the page renews itself without JavaScript.
const defaultRefresh = 10 * time.Second

// refresh reads how often the page renews itself. txLoadBalancer took the
// number for a boolean and saved that, so those two stand for the default.
func refresh(page *AdminListen) attr {
	number := parsed("refresh", &page.Refresh, parseSeconds)
	return attr{"refresh", func(s string) error {
		if s == "True" || s == "False" {
			return nil
		}
		return number.set(s)
	}}
}

// adminListen reads <web> or <ssh>. The ancestors saved listen="None" for no
// address, and a bare port.
func (r *reader) adminListen(e *etree.Element, port string) *AdminListen {
	a := &AdminListen{Listen: net.JoinHostPort("localhost", port), Pos: Pos{r.lines[e]}}
	r.part(a, func() {
		known := []attr{
			{"listen", func(s string) error {
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
		}
		if e.Tag == "web" {
			a.Secure, a.Refresh = true, defaultRefresh
			known = append(known, parsed("secure", &a.Secure, parseBool), refresh(a), text("certificate", &a.Certificate), text("key", &a.Key))
		} else {
			known = append(known, text("hostKey", &a.HostKey))
		}
		r.attributes(e, known...)
		r.children(e)
		if e.SelectAttr("enable") == nil {
			a.Enable = isLoopback(a.Listen)
		}
		if a.Listen == "" {
			a.Enable = false
		}
	})
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
		child{"configCheck", check(&to.ConfigCheck, integer("backups", &to.Backups, 0, maxBackups)), true},
		child{"heartbeat", check(&to.Heartbeat), true},
	)
}

func (r *reader) logging(e *etree.Element, to *Logging) {
	r.attributes(e, text("file", &to.File), oneOf("level", &to.Level, logLevels()), oneOf("format", &to.Format, logFormats()))
	r.children(e)
}
