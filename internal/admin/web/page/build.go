package page

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/url"
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

// ParseQuery reads which hosts to show from the parameters of a page: q, only,
// sort, more, from. What makes no sense is left out, as an old bookmark may say
// anything.
func ParseQuery(v url.Values) Query {
	q := Query{Filter: strings.TrimSpace(v.Get("q")), Only: v.Get("only"), Sort: v.Get("sort"), More: v.Get("more")}
	if len(q.Filter) > maxFilter {
		q.Filter = strings.ToValidUTF8(q.Filter[:maxFilter], "")
	}
	if !slices.ContainsFunc(onlyChoices, func(c Choice) bool { return c.Value == q.Only }) {
		q.Only = ""
	}
	if _, ok := orders[strings.TrimPrefix(q.Sort, "-")]; !ok {
		q.Sort = ""
	}
	if n, err := strconv.Atoi(v.Get("from")); err == nil && n > 0 && q.More != "" {
		q.From = n
	}
	return q
}

// With returns the address of a page with another value of one parameter: sort,
// more or from.
func (q Query) With(name, value string) string {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			v.Set(name, value)
		}
	}
	set("q", q.Filter)
	set("only", q.Only)
	set("sort", q.Sort)
	if name == "more" {
		group, from, _ := strings.Cut(value, " ")
		set("more", group)
		set("from", from)
	} else if name != "" {
		v.Del(name)
		set(name, value)
	} else {
		set("more", q.More)
		set("from", strconv.Itoa(q.From))
	}
	if len(v) == 0 {
		return "/"
	}
	return "/?" + v.Encode()
}

// Address returns the address of the page that the query is from.
func (q Query) Address() string { return q.With("", "") }

// Choice is one entry of a list to choose from.
type Choice struct{ Value, Text string }

var onlyChoices = []Choice{
	{"", "all hosts"}, {"problems", "with problems"}, {"up", "up"}, {"down", "down"},
	{"ready", "ready"}, {"drain", "draining"}, {"maint", "in maintenance"},
}

// Choices lists what Only can be.
func (q Query) Choices() []Choice { return onlyChoices }

// orders are how hosts can be sorted; the greatest figures come first.
var orders = map[string]func(a, b *HostRow) int{
	"":     func(a, b *HostRow) int { return cmp.Compare(b.Level, a.Level) },
	"name": func(a, b *HostRow) int { return natural(a.Name, b.Name) },
	"health": func(a, b *HostRow) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Health, b.Health), cmp.Compare(a.State, b.State))
	},
	"weight":   func(a, b *HostRow) int { return cmp.Compare(b.Weight, a.Weight) },
	"sessions": func(a, b *HostRow) int { return cmp.Compare(b.Figures.Sessions, a.Figures.Sessions) },
	"rate":     func(a, b *HostRow) int { return cmp.Compare(b.Figures.Rate, a.Figures.Rate) },
	"failures": func(a, b *HostRow) int { return cmp.Compare(b.Figures.Failures, a.Figures.Failures) },
	"in":       func(a, b *HostRow) int { return cmp.Compare(b.Figures.InRate, a.Figures.InRate) },
	"out":      func(a, b *HostRow) int { return cmp.Compare(b.Figures.OutRate, a.Figures.OutRate) },
	"check": func(a, b *HostRow) int {
		took := func(r *HostRow) float64 {
			if r.Figures.CheckMS == nil {
				return -1
			}
			return *r.Figures.CheckMS
		}
		return cmp.Compare(took(b), took(a))
	},
}

// natural compares names as people do: a2 comes before a10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na != "" && nb != "" {
			x, y := strings.TrimLeft(na, "0"), strings.TrimLeft(nb, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) (number, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

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

func (v *View) rows(s *director.Service, g *director.Group) []HostRow {
	rows := make([]HostRow, len(g.Hosts))
	for i, h := range g.Hosts {
		rows[i] = v.row(s, g, h)
	}
	return rows
}

func (v *View) row(s *director.Service, g *director.Group, h *director.Host) HostRow {
	c := h.Config
	r := HostRow{
		ID: hostID(s.Config.Name, g.Config.Name, c.Name), Service: s.Config.Name, Group: g.Config.Name, Name: c.Name,
		Address: c.Address, State: c.State, Weight: c.Weight, Backup: c.Backup,
	}
	f, known := HostFigures{}, false
	if v.Figures != nil {
		f, known = v.Figures.all[r.ID]
	}
	r.Figures = hostFigures(h)
	if known { // what is counted is of now, rates are of the last sample
		r.Figures.Rate, r.Figures.InRate, r.Figures.OutRate = f.Rate, f.InRate, f.OutRate
	}
	up, reason, since := health(h)
	r.Since, r.Reason = since, reason
	switch {
	case c.State == "maint":
		r.Health = "maint"
	case len(h.Targets) == 0:
		r.Health = "none"
	case up:
		r.Health = "up"
		for _, t := range h.Targets {
			if !t.Host.Up() {
				r.Health = "part"
			}
		}
	default:
		r.Health = "down"
	}
	if r.Health != "up" && r.Health != "maint" || h.Problem != "" {
		r.Level = Notice
		if g.Config.Enabled {
			r.Level = Warning
		}
	} else if c.State != "ready" || c.Weight == 0 {
		r.Level = Notice
	}
	for _, t := range h.Targets {
		status := t.Status()
		if k := checkView(status); r.Check.At.IsZero() || k.At.After(r.Check.At) || (r.Health == "part" && !status.Up) {
			r.Check = k
		}
	}
	return r
}

func checkView(s director.Status) CheckView {
	k := CheckView{At: s.Checked, Text: s.Check.Text, Took: s.Check.Took}
	if !s.Checked.IsZero() {
		k.Code = s.Check.Code.String()
	}
	switch {
	case s.Up && s.Failed > 0 && !s.Checked.IsZero():
		k.Progress = fmt.Sprintf("%d of %d failed", s.Failed, s.Fall)
	case !s.Up && s.Passed > 0:
		k.Progress = fmt.Sprintf("%d of %d passed", s.Passed, s.Rise)
	}
	return k
}

// health tells whether a host has an address that is up, what is wrong with
// those that are not or with its name, and since when it is so.
func health(h *director.Host) (up bool, reason string, since time.Time) {
	downReason, downSince := "", time.Time{}
	for _, t := range h.Targets {
		s := t.Status()
		if t.Host.Up() {
			up = true
			if since.IsZero() || s.Since.Before(since) {
				since = s.Since
			}
			continue
		}
		if s.Since.After(downSince) {
			downSince = s.Since
		}
		if downReason == "" {
			downReason = s.Reason
			if s.Up { // the engine has just marked it, the director has not seen it yet
				downReason = "a client could not be connected"
			}
		}
	}
	if downReason == "" {
		downReason = h.Problem
	}
	switch {
	case !up && len(h.Targets) == 0:
		return false, downReason, h.ProblemSince
	case !up:
		return false, downReason, downSince
	}
	return true, downReason, since
}

// wants tells whether a query asks for a host.
func (q *Query) wants(r *HostRow, words []string) bool {
	switch q.Only {
	case "problems":
		if r.Level < Warning && r.Health != "down" && r.Health != "part" && r.Health != "none" {
			return false
		}
	case "up":
		if r.Health != "up" && r.Health != "part" {
			return false
		}
	case "down":
		if r.Health != "down" && r.Health != "none" {
			return false
		}
	case "ready", "drain", "maint":
		if r.State != q.Only {
			return false
		}
	}
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{r.Name, r.Address, r.Reason, r.Health, r.State, r.Group, r.Service}, "\x00"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
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
		if g.Config.Refuse {
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
// shows that is no figure: what is configured, unsaved, up, and why not.
func revision(src *Source) string {
	h := fnv.New64a()
	word := func(s string) {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	number := func(n uint64) { word(strconv.FormatUint(n, 36)) }
	number(src.State.Generation)
	number(uint64(len(src.Unsaved)))
	word(fmt.Sprint(src.HasFile, src.ReloadFailed))
	for _, s := range src.State.Services {
		if src.Figures != nil && src.Figures.Services[serviceID(s.Config.Name)].RefusedNow > 0 {
			word("refused")
		}
		for _, g := range s.Groups {
			for _, t := range g.Hosts {
				word(t.Problem)
				number(uint64(len(t.Leaving)))
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

func (r *HostRow) where() Where { return Where{r.Service, r.Group, r.Name} }

// Place names the host in the query of an address.
func (r *HostRow) Place() template.URL {
	return template.URL("service=" + url.QueryEscape(r.Service) + "&group=" + url.QueryEscape(r.Group) + "&name=" + url.QueryEscape(r.Name))
}

// Ready is the button that gives the host clients again.
func (r *HostRow) Ready(v *View) Action {
	return Action{"Ready", "setHost", append(r.where().params("state", "ready"), v.generation())}
}

// ShortAddress and ShortReason fit into a row.
func (r *HostRow) ShortAddress() string { return clip(r.Address, 80) }
func (r *HostRow) ShortReason() string  { return clip(r.Reason, 160) }

// Age tells since when the health is what it is. Like Cells it is made of
// figures and words of this package alone, which is why it may be HTML: a
// template that escapes each on its own takes twice as long for a long page.
func (r *HostRow) Age(now time.Time) template.HTML {
	if r.Since.IsZero() || r.Health == "maint" {
		return ""
	}
	return template.HTML(fmt.Sprintf(`for <time data-at="%d">%s</time>`, r.Since.UnixMilli(), since(r.Since, now)))
}

// Cells are the columns of figures.
func (r *HostRow) Cells(now time.Time) template.HTML {
	f := &r.Figures
	b := make([]byte, 0, 1024)
	cell := func(label, name, value string, zero bool, small, smallValue string) {
		b = append(b, `<td class="num" data-label="`...)
		b = append(append(b, label...), `"><span`...)
		if name != "" {
			b = append(append(append(b, ` data-f="`...), name...), '"')
		}
		if zero {
			b = append(b, ` class="zero"`...)
		}
		b = append(append(append(b, '>'), value...), `</span>`...)
		if small != "" {
			b = append(append(b, `<small data-f="`...), small...)
			b = append(append(append(b, `">`...), smallValue...), `</small>`...)
		}
		b = append(b, `</td>`...)
	}
	check := "–"
	switch {
	case f.CheckMS != nil:
		check = took(f.CheckMS)
	case r.Check.Code != "":
		check = r.Check.Code // HAProxy's word
	}
	b = append(append(append(b, `<td data-label="Last check"><span data-f="check_ms">`...), check...), `</span><small>`...)
	if f.Checked != 0 {
		b = fmt.Appendf(b, `<time data-f="checked" data-at="%d">%s</time>`, f.Checked, since(time.UnixMilli(f.Checked), now))
	}
	if r.Check.Progress != "" {
		b = append(append(b, ", "...), r.Check.Progress...)
	}
	b = append(b, `</small></td>`...)
	cell("Weight", "", strconv.Itoa(r.Weight), r.Weight == 0, "", "")
	cell("Sessions", "sessions", count(f.Sessions), f.Sessions == 0, "total", count(f.Total))
	cell("Rate", "rate", decimal(f.Rate)+"/s", f.Rate == 0, "", "")
	cell("Failures", "failures", count(f.Failures), f.Failures == 0, "", "")
	cell("In", "in_rate", amount(f.InRate)+"/s", f.InRate == 0, "in", amount(float64(f.In)))
	cell("Out", "out_rate", amount(f.OutRate)+"/s", f.OutRate == 0, "out", amount(float64(f.Out)))
	return template.HTML(b)
}

// Asks is the address of a question about the place.
func (at Where) Asks(verb string) string { return at.asks(verb) }
