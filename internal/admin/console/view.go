package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// view is a live view without a terminal: it takes snapshots and keys, and returns
// lines.
type view struct {
	style Style
	size  size
	now   Snapshot
	err   error // of the last look

	sort    order
	reverse bool
	hidden  bool // the hosts are
	paused  bool
	help    bool
	filter  string
	typing  bool // the filter is being written
	was     string
	scroll  int
}

func newView(style Style) *view { return &view{style: style} }

// rate is what happens in a second.
type rate struct{ sessions, in, out float64 }

// order is what rows are sorted by.
type order struct {
	key  key
	name string // in the line of keys, and of the column
	by   func(a, b *row) int
}

// orders lists them. The first is the order of the configuration.
func orders() []order {
	return []order{
		{'c', "config", nil},
		{'n', "name", func(a, b *row) int { return cmp.Compare(a.name, b.name) }},
		{'h', "health", func(a, b *row) int { return cmp.Compare(b.trouble, a.trouble) }},
		{'s', "sess", func(a, b *row) int { return b.more(a, "sessions") }},
		{'r', "new/s", func(a, b *row) int { return cmp.Compare(b.rate.sessions, a.rate.sessions) }},
		{'i', "in/s", func(a, b *row) int { return cmp.Compare(b.rate.in, a.rate.in) }},
		{'o', "out/s", func(a, b *row) int { return cmp.Compare(b.rate.out, a.rate.out) }},
		{'a', "turn", func(a, b *row) int { return cmp.Compare(b.turns.Mean, a.turns.Mean) }},
		{'t', "total", func(a, b *row) int { return b.more(a, "sessions_total") }},
		{'f', "fail", func(a, b *row) int { return b.more(a, "connect_failures") }},
		{'b', "bytes", func(a, b *row) int { return cmp.Compare(b.bytes(), a.bytes()) }},
		{'w', "weight", func(a, b *row) int { return cmp.Compare(b.weight, a.weight) }},
	}
}

// row is one line of the table: a service, or a host under it.
type row struct {
	key      string // the same in every snapshot
	name     string
	match    string // what the filter looks at
	host     bool
	state    string
	health   string
	colour   colour
	trouble  int // 0 none, 1 some, 2 down
	weight   int
	counters admin.Counters
	rate     rate
	turns    admin.Turnarounds
	queue    *admin.QueueInfo // of a service whose groups have queues, together
	detail   string           // address, or what is wrong
	under    []*row
}

func (r *row) more(other *row, key string) int {
	return cmp.Compare(r.counters[key], other.counters[key])
}

func (r *row) bytes() uint64 { return r.counters["bytes_in"] + r.counters["bytes_out"] }

// take takes a new snapshot. While paused, it drops it.
func (v *view) take(s Snapshot, err error) {
	v.err = err
	if err != nil || v.paused {
		return
	}
	v.now = s
}

func hostKey(h admin.HostInfo) string { return h.Service + "\n" + h.Group + "\n" + h.Name }

// rows makes the table of a snapshot: services in order, each with its hosts.
func (v *view) rows() []*row {
	byService := map[string]*row{}
	var list []*row
	for _, s := range v.now.Services {
		r := &row{
			key: s.Name, name: serviceName(s), match: s.Name, rate: rate{s.Rate, s.InRate, s.OutRate}, weight: -1,
			turns: s.Turnarounds,
			// The failures of a service are its rejected clients.
			counters: admin.Counters{
				"sessions": uint64(s.Sessions), "sessions_total": s.SessionsTotal, "connect_failures": s.Refused, "bytes_in": s.In, "bytes_out": s.Out,
			},
			health: fmt.Sprintf("%d/%d up", s.HostsUp, s.Hosts), colour: serviceColour(s),
			detail: strings.TrimSpace(s.Listens() + " " + s.Scheduler),
		}
		switch {
		case s.HostsUp == 0:
			r.trouble = 2
		case s.HostsUp < s.Hosts:
			r.trouble = 1
		}
		if q, ok := s.Queue(); ok {
			r.queue = &q
		}
		byService[s.Name] = r
		list = append(list, r)
	}
	for _, h := range v.now.Hosts {
		s := byService[h.Service]
		if s == nil {
			continue // it came between the two looks
		}
		r := &row{
			key: hostKey(h), name: h.Group + "/" + h.Name, host: true, counters: h.Counters,
			rate: rate{h.Rate, h.InRate, h.OutRate}, turns: h.Turnarounds, state: h.State, weight: h.Weight,
			health: "up", colour: hostColour(h), detail: h.Address,
		}
		if h.Backup {
			r.state += ",backup"
		}
		if h.TLS != "" {
			r.state += ",tls"
		}
		if h.Zone != "" {
			r.state += "," + h.Zone
		}
		if !h.Takes {
			r.state += ",off"
		}
		if h.State != "ready" {
			r.health, r.colour = h.State, yellow
		}
		if h.Ejected != nil {
			r.health, r.detail, r.trouble = "ejected", r.detail+" "+h.Ejection(), 1
		}
		if !h.Up {
			r.health, r.detail, r.trouble = "DOWN", r.detail+" "+h.Reason, 2
			if h.State == "maint" {
				r.health, r.trouble = "maint", 0
			}
		}
		r.match = h.Service + " " + r.name + " " + h.Address + " " + r.state + " " + r.health
		s.under = append(s.under, r)
	}
	return list
}

// visible is the table as it is to be shown.
func (v *view) visible() []*row {
	services := v.rows()
	v.arrange(services)
	var list []*row
	for _, s := range services {
		var hosts []*row
		for _, h := range s.under {
			if v.matches(h) {
				hosts = append(hosts, h)
			}
		}
		if len(hosts) == 0 && !v.matches(s) {
			continue
		}
		list = append(list, s)
		if !v.hidden {
			v.arrange(hosts)
			list = append(list, hosts...)
		}
	}
	return list
}

func (v *view) matches(r *row) bool {
	return strings.Contains(strings.ToLower(r.match), strings.ToLower(v.filter))
}

func (v *view) arrange(rows []*row) {
	if v.sort.by != nil {
		slices.SortStableFunc(rows, v.sort.by)
	}
	if v.reverse {
		slices.Reverse(rows)
	}
}

// press handles a key, and tells whether the user leaves.
func (v *view) press(k key) (leave bool) {
	if v.typing {
		v.write(k)
		return false
	}
	page := max(1, v.room()-1)
	switch k {
	case 'q', 'Q', keyCtrlD:
		return true
	case '?':
		v.help = !v.help
		return false
	case keyEscape:
		v.filter = ""
	case ' ', 'p':
		v.paused = !v.paused
	case '/':
		v.typing, v.was = true, v.filter
	case keyTab:
		v.hidden = !v.hidden
	case keyUp, 'k':
		v.scroll--
	case keyDown, 'j':
		v.scroll++
	case keyPageUp:
		v.scroll -= page
	case keyPageDown:
		v.scroll += page
	case keyHome, 'g':
		v.scroll = 0
	case keyEnd, 'G':
		v.scroll = len(v.now.Services) + len(v.now.Hosts)
	default:
		for _, o := range orders() {
			if o.key == k {
				v.reverse = v.sort.key == k && !v.reverse
				v.sort, v.scroll = o, 0
			}
		}
	}
	v.help = false
	return false
}

// write edits the filter.
func (v *view) write(k key) {
	switch {
	case k == keyEnter:
		v.typing = false
	case k == keyEscape:
		v.typing, v.filter = false, v.was
	case k == keyBackspace:
		_, size := utf8.DecodeLastRuneInString(v.filter)
		v.filter = v.filter[:len(v.filter)-size]
	case k == 21: // Ctrl-U
		v.filter = ""
	case k >= ' ' && k < keyUp && utf8.RuneCountInString(v.filter) < 64:
		v.filter += string(rune(k))
	}
	v.scroll = 0
}

// room is how many rows of the table fit: three lines are for title, heads and keys.
func (v *view) room() int { return max(0, v.size.height-3) }

// draw makes the lines of the screen.
func (v *view) draw() []string {
	if v.help {
		return v.drawHelp()
	}
	rows := v.visible()
	v.scroll = max(0, min(v.scroll, len(rows)-v.room()))
	columns := v.columns(rows)
	lines := []string{v.title(len(rows)), v.heads(columns)}
	for _, r := range rows[v.scroll:min(len(rows), v.scroll+v.room())] {
		lines = append(lines, v.line(columns, r))
	}
	for len(lines) < v.size.height-1 {
		lines = append(lines, "")
	}
	return append(lines, v.keys())[:min(len(lines)+1, v.size.height)]
}

// title is the first line: sums, and what is unusual.
func (v *view) title(rows int) string {
	if v.err != nil {
		return v.style.paint(red, cut("error: "+strings.ReplaceAll(clean(v.err.Error()), "\n", "; "), v.size.width))
	}
	sum := &v.now.Status
	text := fmt.Sprintf("txlb %s  sess %s  new/s %s  in/s %s  out/s %s  generation %d",
		v.now.At.Format(time.TimeOnly), short(float64(sum.Sessions)), short(sum.Rate), short(sum.InRate), short(sum.OutRate), v.now.Generation)
	mark := admin.Reminder(sum.Pending)
	if mark != "" {
		mark = " [" + mark + "]"
	}
	if v.paused {
		mark += " [paused]"
	}
	if v.filter != "" && !v.typing {
		mark += " [/" + v.filter + "]"
	}
	if v.scroll > 0 || rows > v.room() {
		mark += fmt.Sprintf(" [%d-%d of %d]", min(v.scroll+1, rows), min(v.scroll+v.room(), rows), rows)
	}
	mark = cut(mark, v.size.width)
	text = cut(text, v.size.width-utf8.RuneCountInString(mark))
	return text + v.style.paint(yellow, mark)
}

// keys is the last line.
func (v *view) keys() string {
	if v.typing {
		return cut("filter: "+clean(v.filter)+"_", v.size.width)
	}
	text := "q quit  ? help  / filter  p pause  Tab hosts  sort:"
	if v.size.width < 60 {
		text = "q quit ? help / filter p pause"
	}
	for _, o := range orders() {
		mark := " "
		if o.key == v.sort.key {
			mark = "*"
		}
		text += mark + string(rune(o.key)) + " " + o.name
	}
	return v.style.paint(faint, cut(text, v.size.width))
}

func (v *view) drawHelp() []string {
	lines := []string{
		"txlb top: services as SERVICE > ACTIVE GROUP, and under each its hosts as GROUP/NAME", "",
		"q        leave            /  filter (Enter keeps, Esc drops)",
		"p Space  pause            Tab  with or without hosts",
		"arrows, PgUp, PgDn, Home, End   scroll",
		"", "sort by (again: the other way round)",
	}
	for _, o := range orders() {
		lines = append(lines, "   "+string(rune(o.key))+"  "+o.name)
	}
	lines = append(lines, "", "? back")
	for i := range lines {
		lines[i] = cut(lines[i], v.size.width)
	}
	return lines
}

// column is one column of the table.
type column struct {
	name  string
	order key // the key that sorts by it
	left  bool
	width int
	cell  func(*row) string
}

// counterColumn is the column of a counter.
func counterColumn(c *status.Counter[sched.HostStats]) column {
	order := map[string]key{"sessions": 's', "sessions_total": 't', "connect_failures": 'f', "bytes_in": 'b', "bytes_out": 'b'}[c.Key]
	return column{name: c.Short, order: order, cell: func(r *row) string {
		if _, counted := r.counters[c.Key]; !counted {
			return ""
		}
		return short(float64(r.counters[c.Key]))
	}}
}

// queueColumns are of services with queues.
var queueColumns = []column{
	queueColumn("queue", func(q *admin.QueueInfo) string { return short(float64(q.Waiting)) }),
	queueColumn("most", func(q *admin.QueueInfo) string { return short(float64(q.Most)) }),
	queueColumn("wait", func(q *admin.QueueInfo) string { return q.MeanWait().String() }),
}

func queueColumn(name string, cell func(*admin.QueueInfo) string) column {
	return column{name: name, cell: func(r *row) string {
		if r.queue == nil {
			return ""
		}
		return cell(r.queue)
	}}
}

// turnColumn is a column of turnarounds. Who has had none shows none.
func turnColumn(name string, order key, which func(mean, worst string) string) column {
	return column{name: name, order: order, cell: func(r *row) string {
		if r.turns == (admin.Turnarounds{}) {
			return ""
		}
		return which(r.turns.Texts())
	}}
}

// serviceName is a service with its active group, which must be seen however narrow
// the terminal is.
func serviceName(s admin.ServiceInfo) string {
	if s.Group == "" {
		return s.Name
	}
	return s.Name + " > " + s.Group
}

// columns returns the columns that fit, in order of importance.
func (v *view) columns(rows []*row) []column {
	all := []column{
		{name: "name", order: 'n', left: true, cell: func(r *row) string {
			if r.host {
				return "  " + r.name
			}
			return r.name
		}},
		{name: "health", order: 'h', left: true, cell: func(r *row) string { return r.health }},
		counterColumn(&status.HostCounters[0]),
	}
	if slices.ContainsFunc(v.now.Services, func(s admin.ServiceInfo) bool { return len(s.Queues) > 0 }) {
		all = append(all, queueColumns...)
	}
	all = append(all, []column{
		{name: "new/s", order: 'r', cell: func(r *row) string { return short(r.rate.sessions) }},
		{name: "in/s", order: 'i', cell: func(r *row) string { return short(r.rate.in) }},
		{name: "out/s", order: 'o', cell: func(r *row) string { return short(r.rate.out) }},
	}...)
	if slices.ContainsFunc(rows, func(r *row) bool { return r.turns != (admin.Turnarounds{}) }) {
		all = append(all,
			turnColumn("turn", 'a', func(mean, _ string) string { return mean }),
			turnColumn("worst", 0, func(_, worst string) string { return worst }))
	}
	for i := range status.HostCounters[1:] {
		all = append(all, counterColumn(&status.HostCounters[1+i]))
	}
	all = append(all, []column{
		{name: "w", order: 'w', cell: func(r *row) string {
			if r.weight < 0 {
				return ""
			}
			return fmt.Sprint(r.weight)
		}},
		{name: "state", order: 'c', left: true, cell: func(r *row) string { return r.state }},
		{name: "address", order: 'c', left: true, cell: func(r *row) string { return r.detail }},
	}...)
	const (
		narrowName, widestName = 12, 40
		narrowLast             = 12
	)
	left, last := v.size.width, len(all)-1
	var fit []column
	for i := range all {
		c := &all[i]
		c.width = utf8.RuneCountInString(c.name) + 1 // for the mark of the order
		for _, r := range rows {
			c.width = max(c.width, utf8.RuneCountInString(c.cell(r)))
		}
		need := c.width + 2
		switch i {
		case 0:
			c.width = min(c.width, widestName)
			need = min(c.width, max(narrowName, v.size.width/4))
		case last:
			need = narrowLast + 2
		}
		if need > left {
			break
		}
		left -= need
		fit = append(fit, *c)
	}
	if len(fit) == 0 {
		return fit
	}
	// The remaining width goes to the name first, then to the last column.
	name := &fit[0]
	reserved := min(name.width, max(narrowName, v.size.width/4))
	more := min(name.width-reserved, left)
	name.width = reserved + more
	if len(fit) == len(all) {
		fit[last].width = narrowLast + left - more
	}
	return fit
}

func (v *view) heads(columns []column) string {
	var cells []string
	for _, c := range columns {
		name := c.name
		if c.order == v.sort.key && v.sort.by != nil {
			if v.reverse {
				name += "↑"
			} else {
				name += "↓"
			}
		}
		cells = append(cells, pad(name, c.width, c.left))
	}
	line := cut(strings.Join(cells, "  "), v.size.width)
	return v.style.paint(bold, line)
}

func (v *view) line(columns []column, r *row) string {
	var b strings.Builder
	used := 0
	for i, c := range columns {
		if i > 0 {
			b.WriteString("  ")
			used += 2
		}
		width := min(c.width, v.size.width-used)
		if width <= 0 {
			break
		}
		used += width
		cell := pad(clean(c.cell(r)), width, c.left)
		switch {
		case c.order == 'h':
			cell = v.style.paint(r.colour, cell)
		case c.order == 'n' && !r.host:
			cell = v.style.paint(bold, cell)
		}
		b.WriteString(cell)
	}
	if v.style.Color {
		return b.String()
	}
	return strings.TrimRight(b.String(), " ")
}

// pad makes a text exactly width letters wide.
func pad(s string, width int, left bool) string {
	s = cut(s, width)
	blank := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
	if left {
		return s + blank
	}
	return blank + s
}

// cut makes a text at most width letters wide; … shows that it was cut.
func cut(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// short writes a number in at most five letters.
func short(n float64) string {
	if n < 10 && n != float64(int64(n)) {
		if n < 0.05 {
			return "0"
		}
		return fmt.Sprintf("%.1f", n)
	}
	if n < 9999.5 {
		return fmt.Sprintf("%.0f", n)
	}
	for _, unit := range "kMGTPE" {
		n /= 1000
		switch {
		case n < 99.95:
			return fmt.Sprintf("%.1f%c", n, unit)
		case n < 999.5:
			return fmt.Sprintf("%.0f%c", n, unit)
		}
	}
	return "lots"
}
