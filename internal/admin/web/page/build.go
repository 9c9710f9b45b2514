package page

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
)

const (
	// maxRows is how many hosts one page shows, so that neither the server nor a
	// browser suffers from large ones. Where there are more, each group has its
	// share of them, fairShare at least; the rest is a click away.
	maxRows, fairShare = 200, 10
	// maxDetails is how many hosts a problem names.
	maxDetails = 8
	// maxFilter bounds a filter, in bytes.
	maxFilter = 200
)

// NewView works out what the running page shows.
func NewView(src Source) *View {
	if src.Now.IsZero() {
		src.Now = time.Now()
	}
	v := &View{Source: src, Generation: src.State.Generation, Revision: revision(&src)}
	bound := map[string][]string{}
	for _, l := range src.Listeners {
		key := l.Service + "\x00" + l.Listen
		if !slices.Contains(bound[key], l.Addr) {
			bound[key] = append(bound[key], l.Addr)
		}
	}
	for _, s := range src.State.Services {
		v.Services = append(v.Services, v.service(s, bound))
	}
	v.cut()
	if src.ReloadFailed {
		v.Problems = append(v.Problems, Problem{Level: Warning, Text: "The configuration file is wrong and was not loaded: what ran before runs on. txlb check says what is wrong."})
	}
	slices.SortStableFunc(v.Problems, func(a, b Problem) int { return cmp.Compare(b.Level, a.Level) })
	for _, p := range v.Problems {
		v.Overall = max(v.Overall, p.Level)
	}
	v.Summary = v.summary()
	return v
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
		return plural(n, "problem") + ": clients are turned away"
	case n > 0:
		return plural(n, "problem") + "; clients are served"
	case len(v.Services) == 0:
		return "Nothing is served: there is no service"
	}
	return "All is well"
}

// service works one service out, with its problems.
func (v *View) service(s *director.Service, bound map[string][]string) ServiceView {
	c := s.Config
	one := ServiceView{ID: serviceID(c.Name), Name: c.Name}
	if v.Figures != nil {
		one.Figures = v.Figures.Services[one.ID]
	} else {
		stats := v.Snapshot.Services[c.Name]
		one.Figures = ServiceFigures{Sessions: stats.Active, Total: stats.Sessions, In: stats.In, Out: stats.Out}
	}
	v.Sessions += one.Figures.Sessions
	for _, l := range c.Listen {
		lv := ListenerView{Listen: l.Address}
		if b := strings.Join(bound[c.Name+"\x00"+l.Address], " "); b != "" && b != l.Address {
			lv.Bound = b
		}
		one.Listeners = append(one.Listeners, lv)
	}
	before := len(v.Problems)
	problem := func(p Problem) { v.Problems = append(v.Problems, p) }
	if c.Enabled() == nil {
		problem(Problem{Level: Critical, Anchor: one.ID,
			Text: fmt.Sprintf("Service %s has no group: its clients are closed", short(c.Name))})
	}
	groups := slices.Clone(s.Groups)
	slices.SortStableFunc(groups, func(a, b *director.Group) int {
		switch {
		case a.Config.Enabled == b.Config.Enabled:
			return 0
		case a.Config.Enabled:
			return -1
		}
		return 1
	})
	for _, g := range groups {
		one.Groups = append(one.Groups, v.group(s, g))
	}
	if n := one.Figures.RefusedNow; n > 0 {
		problem(Problem{Level: Critical, Anchor: one.ID, Text: fmt.Sprintf("Service %s has no host for clients: some were closed in the last seconds", short(c.Name))})
	}
	for i := range v.Problems[before:] {
		p := &v.Problems[before+i]
		if p.Level == Critical && one.Level < Critical { // once is enough
			p.Fixes = v.fixes(s)
		}
		one.Level = max(one.Level, p.Level)
	}
	return one
}

// fixes are the switches to another group that would help the clients of a
// service.
func (v *View) fixes(s *director.Service) (list []link) {
	for _, g := range s.Groups {
		if n := serving(g); !g.Config.Enabled && n > 0 && v.CanChange && len(list) < 3 {
			at := Where{Service: s.Config.Name, Group: g.Config.Name}
			list = append(list, link{Text: fmt.Sprintf("Switch clients to %s (%d of %d up)…", short(g.Config.Name), n, len(g.Hosts)), Address: at.asks("enableGroup")})
		}
	}
	return list
}

// group works one group out, with all rows that the query asks for and what is
// wrong with it.
func (v *View) group(s *director.Service, g *director.Group) GroupView {
	c := g.Config
	one := GroupView{
		ID: groupID(s.Config.Name, c.Name), Name: c.Name, Service: s.Config.Name, Enabled: c.Enabled,
		Scheduler: c.Scheduler, Check: v.checked(c), Total: len(g.Hosts), Previous: -1, Next: -1,
	}
	before := len(v.Problems)
	rows := v.rows(s, g)
	v.Hosts += len(rows)
	for i := range rows {
		if h := rows[i].Health; h == "up" || h == "part" {
			one.Up++
		}
	}
	v.troubles(&one, g, rows)
	for _, p := range v.Problems[before:] {
		one.Level = max(one.Level, p.Level)
	}

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

// troubles adds what is wrong with a group.
func (v *View) troubles(one *GroupView, g *director.Group, rows []HostRow) {
	where := fmt.Sprintf("of %s / %s", short(one.Service), short(one.Name))
	var down, part, named, maint, drain, idle []*HostRow
	serving := 0
	for i := range rows {
		r := &rows[i]
		switch {
		case r.State == "maint":
			maint = append(maint, r)
		case r.Health == "down" || r.Health == "none":
			down = append(down, r)
		case r.State == "drain":
			drain = append(drain, r)
		case r.Weight == 0:
			idle = append(idle, r)
		default:
			serving++
			if r.Health == "part" {
				part = append(part, r)
			} else if g.Hosts[i].Problem != "" {
				named = append(named, r)
			}
		}
	}
	harm := Notice
	if one.Enabled {
		harm = Warning
	}
	list := func(rows []*HostRow, level Level, text string, say func(*HostRow) string) {
		p := Problem{Level: level, Anchor: one.ID, Text: text}
		if len(rows) == 1 {
			p.Anchor = rows[0].ID
		}
		for _, r := range rows[:min(len(rows), maxDetails)] {
			p.Details = append(p.Details, say(r))
		}
		p.More = len(rows) - len(p.Details)
		v.Problems = append(v.Problems, p)
	}
	why := func(r *HostRow) string {
		text := short(r.Name) + ": " + clip(cmp.Or(r.Reason, "no reason is known"), 200)
		if !r.Since.IsZero() {
			text += ", since " + clock(r.Since, v.Now)
		}
		return text
	}
	name := func(r *HostRow) string { return short(r.Name) }
	switch {
	case !one.Enabled:
	case len(rows) == 0:
		v.Problems = append(v.Problems, Problem{Level: Critical, Anchor: one.ID,
			Text: fmt.Sprintf("Group %s of service %s is empty: its clients are closed", short(one.Name), short(one.Service))})
	case serving == 0 && len(down) == 0:
		v.Problems = append(v.Problems, Problem{Level: Critical, Anchor: one.ID,
			Text: fmt.Sprintf("No host %s takes clients: all are in drain, maintenance or have weight 0", where)})
	}
	switch {
	case len(down) == 0:
	case one.Enabled && serving == 0:
		last := "clients are tried on them as a last resort"
		if g.Config.AllDown == "refuse" {
			last = "clients are closed"
		}
		which := "Every host " + where
		if len(down) < len(rows) {
			which += " that should take clients"
		}
		list(down, Critical, fmt.Sprintf("%s is down: %s", which, last), why)
	case len(down) == 1:
		list(down, harm, fmt.Sprintf("1 of %s %s is down", plural(len(rows), "host"), where), why)
	default:
		list(down, harm, fmt.Sprintf("%d of %s %s are down", len(down), plural(len(rows), "host"), where), why)
	}
	if len(part) > 0 {
		list(part, harm, fmt.Sprintf("Some addresses of %s %s are down", plural(len(part), "host"), where), why)
	}
	if len(named) > 0 {
		list(named, harm, fmt.Sprintf("The names of %s %s do not resolve", plural(len(named), "host"), where), why)
	}
	if len(maint) > 0 {
		list(maint, Notice, fmt.Sprintf("In maintenance: %s %s", plural(len(maint), "host"), where), name)
	}
	if len(drain) > 0 {
		list(drain, Notice, fmt.Sprintf("Draining: %s %s", plural(len(drain), "host"), where), name)
	}
	if len(idle) > 0 {
		list(idle, Notice, fmt.Sprintf("Weight 0, no new clients: %s %s", plural(len(idle), "host"), where), name)
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
	for _, s := range src.State.Services {
		if src.Figures != nil && src.Figures.Services[serviceID(s.Config.Name)].RefusedNow > 0 {
			word("refused")
		}
		for _, g := range s.Groups {
			for _, t := range g.Hosts {
				word(t.Problem)
				number(uint64(len(t.Leaving())))
				for _, t := range t.Targets {
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

// Rate, InRate and OutRate are those of all services together.
func (v *View) Rate() float64    { return v.sum(func(f *ServiceFigures) float64 { return f.Rate }) }
func (v *View) InRate() float64  { return v.sum(func(f *ServiceFigures) float64 { return f.InRate }) }
func (v *View) OutRate() float64 { return v.sum(func(f *ServiceFigures) float64 { return f.OutRate }) }

func (v *View) sum(of func(*ServiceFigures) float64) (sum float64) {
	for i := range v.Services {
		sum += of(&v.Services[i].Figures)
	}
	return sum
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
