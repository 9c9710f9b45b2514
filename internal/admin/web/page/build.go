package page

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
)

const (
	// maxRows is how many hosts one page shows, so that neither the server nor a
	// browser suffers from large ones. Where there are more, each group has its
	// share of them, fairShare at least; the rest is a click away.
	maxRows, fairShare = 200, 10
	// maxFilter bounds a filter, in bytes.
	maxFilter = 200
)

// NewView works out what the running page shows.
func NewView(src Source) *View {
	r := src.Reading
	v := &View{Source: src, Generation: src.State.Generation, Revision: revision(&src), Sessions: r.Sessions}
	bound := map[string][]string{}
	for _, l := range src.Listeners {
		key := l.Service + "\x00" + l.Listen
		if !slices.Contains(bound[key], l.Addr) {
			bound[key] = append(bound[key], l.Addr)
		}
	}
	for i := range r.Services {
		v.Services = append(v.Services, v.service(&r.Services[i], bound))
	}
	v.cut()
	fixed := map[string]bool{} // services whose fixes are offered
	for _, p := range src.State.Pending() {
		v.Unconfirmed = append(v.Unconfirmed, UnconfirmedView{
			p.Generation, p.Verb, p.By, p.Until, p.Trouble, p.Overdue(r.At), Action{"Confirm", "confirm", []Param{{"change", strconv.FormatUint(p.Generation, 10)}}},
		})
	}
	for _, p := range r.Problems {
		if p.Kind == status.Unconfirmed { // it stands at the top, with its button
			continue
		}
		one := v.problem(&p)
		if p.Level == Critical && p.Service != "" && !fixed[p.Service] { // once is enough
			fixed[p.Service] = true
			one.Fixes = v.fixes(r, p.Service)
		}
		v.Problems = append(v.Problems, one)
		v.Overall = max(v.Overall, p.Level)
	}
	v.Summary = v.summary()
	return v
}

// problem writes a problem for the page.
func (v *View) problem(p *status.Problem) Problem {
	one := Problem{Level: p.Level, Text: p.Text, Remedy: p.Remedy, More: p.More}
	switch {
	case p.Host != "":
		one.Anchor = hostID(p.Service, p.Group, p.Host)
	case p.Group != "":
		one.Anchor = groupID(p.Service, p.Group)
	case p.Service != "":
		one.Anchor = serviceID(p.Service)
	}
	for _, h := range p.Hosts {
		text := short(h.Config.Name)
		if p.Why {
			text += ": " + clip(cmp.Or(h.Reason, "unknown reason"), 200)
			if !h.Since.IsZero() {
				text += ", for " + since(h.Since, v.At)
			}
		}
		one.Details = append(one.Details, text)
	}
	return one
}

// Count tells how many problems there are that are more than a notice.
func (v *View) Count() (n int) {
	for _, p := range v.Problems {
		if p.Level > Notice {
			n++
		}
	}
	return n
}

// Notices are the problems that do no harm now, and Troubles the others.
func (v *View) Notices() []Problem  { return v.Problems[v.Count():] }
func (v *View) Troubles() []Problem { return v.Problems[:v.Count()] }

func (v *View) summary() string {
	n := v.Count()
	switch {
	case v.Overall == Critical:
		return plural(n, "problem") + ": " + v.Fate().String()
	case n > 0:
		return plural(n, "problem") + "; clients are served"
	case len(v.Services) == 0:
		return "No services configured"
	}
	return "Healthy"
}

// shownRoutes is how many routes of a service the page has.
const shownRoutes = 50

// service works one service out.
func (v *View) service(s *status.Service, bound map[string][]string) ServiceView {
	c := s.Config
	one := ServiceView{ID: serviceID(c.Name), Name: c.Name, Level: s.Level, Figures: serviceFigures(s)}
	for _, l := range c.Listen {
		lv := ListenerView{Listen: l.Address}
		if b := strings.Join(bound[c.Name+"\x00"+l.Address], " "); b != "" && b != l.Address {
			lv.Bound = b
		}
		if l.Interface != "" {
			lv.Tags = append(lv.Tags, l.Interface)
		}
		if l.MPTCP {
			lv.Tags = append(lv.Tags, "MPTCP")
		}
		if l.TLS != "" {
			lv.Tags = append(lv.Tags, "TLS")
		}
		if slices.ContainsFunc(v.Movable, func(m status.Movable) bool { return m.Standby && m.Service == c.Name && m.Listen == l.Address }) {
			lv.Tags = append(lv.Tags, "standby")
		}
		one.Listeners = append(one.Listeners, lv)
	}
	for i := range c.Routes[:min(len(c.Routes), shownRoutes)] {
		one.Routes = append(one.Routes, RouteView{i + 1, admin.DescribeRoute(&c.Routes[i])})
	}
	one.MoreRoutes = len(c.Routes) - len(one.Routes)
	for _, t := range engine.Terminations() {
		if n := s.Stats.Ended[t.Code]; n > 0 && t.Advice != "" {
			one.Endings = append(one.Endings, EndingView{t.Code, n, t.Meaning})
		}
	}
	for _, enabled := range []bool{true, false} { // the enabled one first
		for i := range s.Groups {
			if s.Groups[i].Config.Enabled == enabled {
				one.Groups = append(one.Groups, v.group(s, &s.Groups[i]))
			}
		}
	}
	return one
}

// fixes are the switches to another group that would help the clients of a
// service.
func (v *View) fixes(r *status.Reading, service string) (list []link) {
	for i := range r.Services {
		for j := range r.Services[i].Groups {
			g := &r.Services[i].Groups[j]
			if r.Services[i].Config.Name == service && !g.Config.Enabled && g.Serving > 0 && v.CanChange && len(list) < 3 {
				at := Where{Service: service, Group: g.Config.Name}
				list = append(list, link{Text: fmt.Sprintf("Make %s active (%d of %d up)…", short(g.Config.Name), g.Serving, len(g.Hosts)), Address: at.asks("enableGroup")})
			}
		}
	}
	return list
}

// group works one group out, with all rows that the query asks for.
func (v *View) group(s *status.Service, g *status.Group) GroupView {
	c := g.Config
	one := GroupView{
		ID: groupID(s.Config.Name, c.Name), Name: c.Name, Service: s.Config.Name, Enabled: c.Enabled, Routed: g.Takes && !c.Enabled,
		Scheduler: c.Scheduler, Check: v.checked(c), Total: len(g.Hosts), Up: g.Up, Level: g.Level, Previous: -1, Next: -1,
	}
	if g.Queues() {
		q := queueFigures(g)
		one.Queue = &q
	}
	if g.Hold != nil {
		one.Hold = holdView(s, g)
	}
	for _, m := range g.Mirrors {
		one.Mirrors = append(one.Mirrors, mirrorView(s, g, m))
	}
	rows := make([]HostRow, len(g.Hosts))
	for i := range g.Hosts {
		rows[i] = row(s, g, &g.Hosts[i])
	}
	v.Hosts += len(rows)
	words := strings.Fields(strings.ToLower(v.Query.Filter))
	rows = slices.DeleteFunc(rows, func(r HostRow) bool { return !v.Query.wants(&r, words) })
	one.Matching = len(rows)
	order := orders[strings.TrimPrefix(v.Query.Sort, "-")]
	if strings.HasPrefix(v.Query.Sort, "-") {
		slices.SortStableFunc(rows, func(a, b HostRow) int { return order(&b, &a) })
	} else {
		slices.SortStableFunc(rows, func(a, b HostRow) int { return order(&a, &b) })
	}
	one.Rows = rows
	v.Matching += one.Matching
	return one
}

// holdView says how a group holds its clients.
func holdView(s *status.Service, g *status.Group) *HoldView {
	h := g.Hold
	one := &HoldView{Words: "held", Operator: h.Why == "operator"}
	switch {
	case !one.Operator:
		one.Words = "held until a host is up"
	case h.Released != nil:
		one.Words = "being let out"
	case h.By != "":
		one.Words = "held by " + short(h.By)
	}
	if h.Until != nil {
		one.Until = *h.Until
	}
	// Without the generation: whatever has changed since, the clients wait.
	one.Release = Action{"Release", "release", Where{Service: s.Config.Name, Group: g.Config.Name}.params()}
	return one
}

func mirrorView(s *status.Service, g *status.Group, m *director.Mirror) MirrorView {
	one := MirrorView{
		ID: mirrorID(s.Config.Name, g.Config.Name, m.Config.Address), Address: m.Config.Address, Percent: fmt.Sprint(m.Config.Percent),
		Health: "up", Reason: m.Problem, Figures: mirrorFigures(m),
	}
	switch t := m.Trouble(); {
	case t != nil:
		one.Health, one.Reason = "down", t.Reason
	case m.Addr() == "":
		one.Health = "down"
	}
	return one
}

// cut leaves of the rows as many as a page shows.
func (v *View) cut() {
	groups := 0
	for _, s := range v.Services {
		for _, g := range s.Groups {
			groups += min(g.Matching, 1)
		}
	}
	share, room := maxRows, maxRows
	if v.Matching > maxRows {
		share = max(fairShare, maxRows/groups)
	}
	for i := range v.Services {
		for j := range v.Services[i].Groups {
			g := &v.Services[i].Groups[j]
			n := min(g.Matching, share, room)
			if v.Query.More == g.ID {
				g.From = min(v.Query.From, max(0, g.Matching-1))
				n = min(g.Matching-g.From, maxRows)
			} else {
				room -= n
			}
			g.Rows = g.Rows[g.From : g.From+n]
			if g.From > 0 {
				g.Previous = max(0, g.From-maxRows)
			}
			if g.From+n < g.Matching {
				g.Next = g.From + n
			}
			v.Shown += n
		}
	}
}

// checked says how the hosts of a group are probed.
func (v *View) checked(g *config.Group) string {
	if c := g.Check; c != nil {
		return fmt.Sprintf("%s check every %v", c.Type, c.Interval)
	}
	m := &v.State.Config.Manager
	switch {
	case m.HostCheck.Enable && m.Heartbeat.Enable:
		return fmt.Sprintf("tcp check every %v, every %v while down", m.Heartbeat.Interval, m.HostCheck.Interval)
	case m.HostCheck.Enable:
		return fmt.Sprintf("checked every %v while down", m.HostCheck.Interval)
	case m.Heartbeat.Enable:
		return fmt.Sprintf("tcp check every %v", m.Heartbeat.Interval)
	}
	return "not checked"
}

// revision tells pages that show the same from others. It covers what a page
// shows that is no figure: what is configured, unsaved, up, and why not, and what
// has happened.
func revision(src *Source) string {
	h := fnv.New64a()
	word := func(s string) {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	number := func(n uint64) { word(strconv.FormatUint(n, 36)) }
	number(src.State.Generation)
	number(src.LastEvent)
	number(uint64(len(src.Unsaved)))
	word(fmt.Sprint(src.HasFile, src.ReloadFailed))
	for _, m := range src.Movable {
		word(fmt.Sprint(m.Standby))
	}
	if f := src.Fleet; f != nil {
		word(fmt.Sprint(f.Joined, f.Why, f.Refused, f.Problem))
		if f.Order != nil {
			word(f.Order.Headline())
		}
		for i := range f.Nodes {
			n := &f.Nodes[i]
			word(fmt.Sprint(n.Name, n.Ready, n.Why(), n.Unheard))
		}
	}
	for i := range src.Services {
		s := &src.Services[i]
		if s.Traffic.RefusedNow > 0 {
			word("refused")
		}
		for j := range s.Groups {
			if s.Groups[j].WaitsLong(src.At) {
				word("waits")
			}
			if h := s.Groups[j].Hold; h != nil {
				word(h.Why + h.By)
				if h.Until != nil {
					number(uint64(h.Until.UnixNano()))
				}
			}
			for _, m := range s.Groups[j].Mirrors {
				one := mirrorView(s, &s.Groups[j], m)
				word(one.Health)
				word(one.Reason)
			}
			for k := range s.Groups[j].Hosts {
				h := &s.Groups[j].Hosts[k]
				word(h.Problem)
				if h.Ejected != nil {
					word(h.Ejected.Why)
					number(uint64(h.Ejected.Until.UnixNano()))
				}
				number(uint64(len(h.Leaving())))
				for _, t := range h.Targets {
					if t.Host.Up() {
						word("up")
						continue
					}
					s := t.Status()
					word(s.Reason)
					number(uint64(s.Since.UnixNano()))
				}
			}
		}
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// Filtered tells whether the page shows only some of the hosts.
func (v *View) Filtered() bool {
	return v.Query.Filter != "" || v.Query.Only != "" || v.Query.More != ""
}

// Save is the button that saves.
func (v *View) Save() Action {
	return Action{"Save", "saveConfig", []Param{v.generation()}}
}

// First and Last number the rows that are shown.
func (g GroupView) First() int { return g.From + 1 }
func (g GroupView) Last() int  { return g.From + len(g.Rows) }

// Asks is the address of a question about the place.
func (at Where) Asks(verb string) string { return at.asks(verb) }
