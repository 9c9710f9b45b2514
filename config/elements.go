package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// config reads the root element.
func (r *reader) config(e *etree.Element) *Config {
	c := New()
	c.Program = r.program
	r.part(c, func() {
		if !slices.Contains(roots, e.FullTag()) {
			r.fail(r.lines[e], "the root element is <%s>; it must be <config>, or <pdconfig> in a PythonDirector configuration", e.FullTag())
			return
		}
		c.Root = e.Tag
		r.attributes(e, nil)
		before := r.errors
		r.children(e,
			child{"engine", r.leaf(&c.Engine, nil), true},
			child{"fleet", r.leaf(&c.Fleet, &c.Fleet.Pos), true},
			child{"service", func(e *etree.Element) { c.Services = append(c.Services, r.service(e)) }, false},
			child{"admin", func(e *etree.Element) { r.admin(e, &c.Admin) }, true},
			child{"manager", func(e *etree.Element) { r.manager(e, &c.Manager) }, true},
			child{"dns", r.leaf(&c.DNS, &c.DNS.Pos), true},
			child{"logging", r.leaf(&c.Logging, nil), true},
			child{"checktime", func(e *etree.Element) {
				r.attributes(e, nil, hostCheckInterval("time", &c.Manager))
				r.children(e)
			}, true},
			child{"control", r.leaf(&c.Control, &c.Control.Pos), true},
		)
		if len(c.Services) == 0 && r.errors == before && !c.Program {
			r.fail(r.lines[e], noService)
		}
	})
	return c
}

// leaf reads an element that is there once and has attributes alone.
func (r *reader) leaf(p any, pos *Pos) func(*etree.Element) {
	return func(e *etree.Element) {
		if pos != nil {
			*pos = Pos{r.lines[e]}
		}
		r.part(p, func() {
			r.attributes(e, p)
			r.children(e)
		})
	}
}

func (r *reader) service(e *etree.Element) *Service {
	s := NewService("")
	s.Pos = Pos{r.lines[e]}
	r.part(s, func() {
		r.attributes(e, s)
		var enable []*etree.Element
		said := map[*Group]bool{} // groups that say enable themselves
		r.children(e,
			child{"listen", func(e *etree.Element) {
				l := Listen{Pos: Pos{r.lines[e]}}
				r.attributes(e, &l)
				r.children(e)
				s.Listen = append(s.Listen, l)
			}, false},
			child{"timeouts", r.leaf(&s.Timeouts, nil), true},
			child{"limits", r.leaf(&s.Limits, nil), true},
			child{"access", func(e *etree.Element) { r.access(e, s) }, true},
			child{"route", func(e *etree.Element) {
				route := NewRoute("")
				route.Pos = Pos{r.lines[e]}
				before := r.errors
				r.attributes(e, route)
				r.children(e)
				if r.errors == before { // else the check would find more of the same
					s.Routes = append(s.Routes, *route)
				}
			}, false},
			child{"group", func(e *etree.Element) {
				g := r.group(e)
				s.Groups = append(s.Groups, g)
				said[g] = e.SelectAttr("enable") != nil
			}, false},
			child{"enable", func(e *etree.Element) {
				r.attributes(e, nil, attr{"group", func(string) error { return nil }})
				r.need(e, "group")
				r.children(e)
				enable = append(enable, e)
			}, false},
		)
		r.enable(s, enable, said)
	})
	return s
}

// access reads the rules of <access>, in their order.
func (r *reader) access(e *etree.Element, s *Service) {
	rule := func(deny bool) func(*etree.Element) {
		return func(e *etree.Element) {
			a := AccessRule{Deny: deny, Pos: Pos{r.lines[e]}}
			before := r.errors
			r.attributes(e, &a)
			r.children(e)
			if r.errors == before {
				s.Access = append(s.Access, a)
			}
		}
	}
	r.attributes(e, nil)
	r.children(e, child{"allow", rule(false), false}, child{"deny", rule(true), false})
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
		r.attributes(e, g)
		r.children(e,
			child{"host", func(e *etree.Element) {
				g.Hosts = append(g.Hosts, r.host(e, len(g.Hosts)))
			}, false},
			child{"check", func(e *etree.Element) {
				g.Check = NewHealthCheck()
				r.leaf(g.Check, &g.Check.Pos)(e)
			}, true},
			child{"mirror", func(e *etree.Element) {
				m := NewMirror("")
				m.Pos = Pos{r.lines[e]}
				before := r.errors
				r.attributes(e, m)
				r.children(e)
				if r.errors == before { // else the check would find more of the same
					g.Mirrors = append(g.Mirrors, *m)
				}
			}, false},
		)
	})
	return g
}

func (r *reader) host(e *etree.Element, index int) *Host {
	h := NewHost(fmt.Sprintf("host.%d", index), "")
	h.Pos = Pos{r.lines[e]}
	r.part(h, func() {
		r.attributes(e, h)
		r.children(e)
	})
	return h
}

func (r *reader) admin(e *etree.Element, to *Admin) {
	// PythonDirector put the page's address on <admin> itself.
	page := &AdminListen{Refresh: defaultRefresh, Pos: Pos{r.lines[e]}}
	r.part(page, func() {
		r.attributes(e, to,
			attr{"listen", func(s string) error { page.Listen = s; return nil }},
			attr{"secure", func(s string) error { return Find("web", "secure").read(page, s) }},
			attr{"refresh", func(s string) error { return Find("web", "refresh").read(page, s) }})
		if page.Listen == "" && (e.SelectAttr("secure") != nil || e.SelectAttr("refresh") != nil) {
			r.fail(r.lines[e], "<admin> without listen has no page to be secure or to refresh; use <web>")
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
			to.Web = r.adminListen(e)
		}, true},
		child{"ssh", func(e *etree.Element) { to.SSH = r.adminListen(e) }, true},
		child{"socket", func(e *etree.Element) {
			to.Socket = NewSocket("")
			r.leaf(to.Socket, &to.Socket.Pos)(e)
		}, true},
		child{"metrics", r.leaf(to, &to.MetricsPos), true},
		child{"user", func(e *etree.Element) {
			u := reset("user", &User{Pos: Pos{r.lines[e]}})
			r.part(u, func() {
				r.attributes(e, u)
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
	r.attributes(e, nil)
	r.children(e)
	return strings.Join(strings.Fields(line.String()), " ")
}

// adminListen reads <web> or <ssh>.
func (r *reader) adminListen(e *etree.Element) *AdminListen {
	a := reset(e.Tag, &AdminListen{Pos: Pos{r.lines[e]}})
	r.part(a, func() {
		r.attributes(e, a)
		r.children(e)
		if e.SelectAttr("enable") == nil {
			a.Enable = isLoopback(a.Listen)
			if a.Listen != "" && !a.Enable {
				r.warn(a.Pos.Line, "<%s listen=%q> is off because other machines could reach it; add enable=\"yes\" if they should, enable=\"no\" if not", e.Tag, a.Listen)
			}
		}
		if a.Listen == "" {
			a.Enable = false
		}
	})
	return a
}

func (r *reader) manager(e *etree.Element, to *Manager) {
	r.attributes(e, nil, hostCheckInterval("hostCheckInterval", to))
	r.children(e,
		child{"hostCheck", r.leaf(to, nil), true},
		child{"configCheck", r.leaf(to, nil), true},
		child{"heartbeat", r.leaf(to, nil), true},
	)
}

// hostCheckInterval is <hostCheck interval> under the name of an earlier
// version.
func hostCheckInterval(name string, to *Manager) attr {
	return attr{name, func(s string) error { return Find("hostCheck", "interval").read(to, s) }}
}
