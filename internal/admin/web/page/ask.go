package page

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// ErrNotFound is returned for a page about what is not there, or not any more.
var ErrNotFound = errors.New("not found: it may have been deleted")

// ErrReadonly is returned for a question that its asker may not answer.
var ErrReadonly = errors.New("changes need the role full")

// Form is what a verb is done with: its parameters that are known, and fields
// for the others.
type Form struct {
	Action
	Fields []Field
	Danger bool
	Note   string // what it does, in a line
	Cancel string // where to go instead, "" where that is no question
}

// Field is one parameter to fill in.
type Field struct {
	Name, Label string
	Kind        string // text, number, choice, flag
	Value       string
	Choices     []Choice // of a choice
	Hint        string   // an example, or what an empty field means
	Required    bool
	Max         int // of a number
}

// link is a way to a page that asks or shows.
type link struct {
	Text, Address string
	Danger        bool
	Note          string
}

// question is what is asked before something is done that clients may notice.
type question struct {
	Title  string
	Lines  []string
	Beware []string // what is bad about it now
	Form   Form
}

// managed is a service, a group or a host with all that can be done with it.
type managed struct {
	Title   string
	Kind    string
	Service *ServiceView
	Group   *GroupView
	Host    *HostRow
	Forms   []Form
	Links   []link
	Back    string
}

// found is a place in a reading.
type found struct {
	service *status.Service
	group   *status.Group
	host    *status.Host
}

func find(r *status.Reading, at Where) (f found, err error) {
	f.service, f.group, f.host = r.Find(at.Service, at.Group, at.Name)
	if f.service == nil || at.Group != "" && f.group == nil || at.Name != "" && f.host == nil {
		return found{}, ErrNotFound
	}
	return f, nil
}

// params are those that name a place.
func (at Where) params(more ...string) []Param {
	var list []Param
	for _, p := range []Param{{"service", at.Service}, {"group", at.Group}, {"name", at.Name}} {
		if p.Value != "" {
			list = append(list, p)
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		list = append(list, Param{more[i], more[i+1]})
	}
	return list
}

// query writes parameters into an address.
func query(path string, list []Param) string {
	v := url.Values{}
	for _, p := range list {
		v.Set(p.Name, p.Value)
	}
	return path + "?" + v.Encode()
}

// asks is the address of a question about a place.
func (at Where) asks(verb string, more ...string) string {
	return query("/ask", append([]Param{{"verb", verb}}, at.params(more...)...))
}

// Manage is the address of the page about the place.
func (at Where) Manage() string { return query("/manage", at.params()) }

// form fills in what is the same for all.
func (v *View) form(label, verb string, at Where, note string, fields ...Field) Form {
	return Form{Action: Action{label, verb, append(at.params(), v.generation())}, Fields: fields, Note: note}
}

func (v *View) generation() Param {
	return Param{"generation", strconv.FormatUint(v.Generation, 10)}
}

var (
	drainField = Field{Name: "drain", Label: "Close its sessions after", Kind: "text", Hint: "such as 30s or 5m; empty: let them finish"}
	forceField = Field{Name: "force", Label: "Do it anyway", Kind: "flag"}
)

func schedulers(chosen string) Field {
	return Field{Name: "scheduler", Label: "Scheduler", Kind: "choice", Value: chosen, Choices: choices(sched.Names())}
}

func hostFields() []Field {
	return append([]Field{
		{Name: "name", Label: "Name", Kind: "text", Required: true},
		{Name: "ip", Label: "Address", Kind: "text", Required: true, Hint: "host:port, [v6]:port or unix:/path"},
	}, settings("host", config.NewHost("", ""), "weight", "state")...)
}

// settings are fields for the attributes of an element that verbs can change,
// with the values that p, its struct, has: for those named only, or for all.
func settings(element string, p any, only ...string) (fields []Field) {
	rows := config.Attributes(element)
	for i := range rows {
		a := &rows[i]
		if !a.Runtime || len(only) > 0 && !slices.Contains(only, a.Name) {
			continue
		}
		f := Field{Name: a.Name, Label: label(a.Name), Kind: "text", Value: a.Get(p), Hint: a.Explain(), Required: true}
		switch a.Type {
		case config.TypeNumber:
			f.Kind, f.Max = "number", int(a.High)
		case config.TypeBool:
			f.Kind, f.Choices = "choice", []Choice{{"false", "no"}, {"true", "yes"}}
		case config.TypeChoice:
			f.Kind, f.Choices = "choice", choices(a.Choices)
		case config.TypeScheduler:
			f.Kind, f.Choices = "choice", choices(sched.Names())
		}
		fields = append(fields, f)
	}
	return fields
}

func choices(words []string) (list []Choice) {
	for _, w := range words {
		list = append(list, Choice{w, w})
	}
	return list
}

// label writes the name of an attribute as words: slowStart is "Slow start".
func label(name string) string {
	var b strings.Builder
	for i, c := range name {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(c))
		case unicode.IsUpper(c):
			b.WriteString(" " + string(unicode.ToLower(c)))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// manage works out what can be done with a place.
func (v *View) manage(at Where) (*managed, error) {
	if at == (Where{}) {
		return v.manageAll(), nil
	}
	f, err := find(v.reading, at)
	if err != nil {
		return nil, err
	}
	m := &managed{Back: "/"}
	var service *ServiceView
	for i := range v.Services {
		if v.Services[i].Name == at.Service {
			service = &v.Services[i]
		}
	}
	m.Service = service
	if f.group == nil {
		v.manageService(m, at, f)
		return m, nil
	}
	for i := range service.Groups {
		if service.Groups[i].Name == at.Group {
			m.Group = &service.Groups[i]
		}
	}
	m.Back = "/#" + m.Group.ID
	if f.host == nil {
		v.manageGroup(m, at, f)
		return m, nil
	}
	row := v.row(f.service, f.group, f.host)
	row.Targets = targets(f.host.Host)
	for i := range status.HostCounters {
		c := &status.HostCounters[i]
		row.Counters = append(row.Counters, CounterView{c.Label, c.Help, c.Value(&f.host.Stats), c.Bytes})
	}
	m.Host = &row
	v.manageHost(m, at, f)
	return m, nil
}

func targets(h *director.Host) (list []TargetView) {
	for i, t := range append(slices.Clone(h.Targets), h.Leaving()...) {
		status, c := t.Status(), t.Host.Stats()
		one := TargetView{
			Address: t.Host.Addr().String(), Up: c.Up, Leaving: i >= len(h.Targets), Reason: status.Reason, Since: status.Since,
			Sessions: c.Active, Total: c.Picks, Failures: c.Failures, Check: checkView(status),
		}
		if i < len(h.Shares) {
			one.Weight, one.Backup = h.Shares[i].Weight, h.Shares[i].Backup
		}
		list = append(list, one)
	}
	return list
}

// manageAll is what can be done with txlb as a whole.
func (v *View) manageAll() *managed {
	m := &managed{Title: "txlb " + v.Version, Kind: "Global", Back: "/"}
	text := func(name, label, hint string) Field {
		return Field{Name: name, Label: label, Kind: "text", Required: true, Hint: hint}
	}
	m.Forms = []Form{
		v.form("Add service", "addService", Where{}, "Then add a group and a host.",
			text("name", "Name", ""), text("address", "Listens on", "host:port, *:port or unix:/path")),
		v.form("Add user", "addUser", Where{}, "", text("name", "Name", ""), text("hash", "Password hash", "as txlb passwd prints it"),
			Field{Name: "access", Label: "Access", Kind: "choice", Value: "readonly", Choices: []Choice{{"readonly", "readonly"}, {"full", "full"}}}),
		{Action: Action{"Reopen log files", "closeLog", nil}, Note: "After log rotation."},
	}
	for _, u := range v.State.Config.Admin.Users {
		m.Links = append(m.Links, link{"Delete user " + short(u.Name) + "…", query("/ask", []Param{{"verb", "delUser"}, {"name", u.Name}}), true, "Access " + u.Access + "."})
	}
	m.Links = append(m.Links, link{"Shut down…", "/ask?verb=shutdown", true, "Drain and shut down."})
	return m
}

// askAll works out the questions that are about no service.
func (v *View) askAll(q *question, verb string, p url.Values) bool {
	switch verb {
	case "rollback":
		q.Title, q.Lines = "Undo the last change?", v.lastChange()
		q.Form.Label, q.Form.Params = "Undo", []Param{{"n", "1"}, v.generation()}
	case "reload":
		q.Title = "Reload the configuration file?"
		q.Lines = []string{"The changes in the file take effect. Run-time changes stay, unless you discard them."}
		if n := len(v.Unsaved); n > 0 {
			q.Beware = []string{plural(n, "change") + " made at run time " + is(n) + " not in the file. Discarding loses " + them(n) + "."}
		}
		q.Form.Danger, q.Form.Label, q.Form.Params = false, "Reload", []Param{v.generation()}
		q.Form.Fields = []Field{{Name: "discard", Label: "Discard run-time changes", Kind: "flag"}}
	case "delUser":
		q.Title = "Delete user " + short(p.Get("name")) + "?"
		q.Lines = []string{"Anyone logged in as this user loses access with the next command."}
		q.Form.Label, q.Form.Params = "Delete user", []Param{{"name", p.Get("name")}, v.generation()}
	case "shutdown":
		q.Title = "Shut down txlb?"
		q.Lines = []string{"New clients are refused at once. " + open(v.Sessions) + ". Sessions still open at the drain timeout are closed. Then the process ends, and so does this page."}
		q.Beware = []string{"All services on this txlb stop, unless another one takes over."}
		if n := len(v.Unsaved); n > 0 {
			q.Beware = append(q.Beware, plural(n, "change")+" made at run time "+is(n)+" not saved.")
		}
		q.Form.Label = "Shut down"
	case "shutdownSession":
		q.Title = "Close session " + clip(p.Get("id"), 40) + "?"
		q.Lines = []string{"The connection is closed now. The client may reconnect at once."}
		q.Form.Label, q.Form.Params, q.Form.Cancel = "Close session", []Param{{"id", p.Get("id")}}, "/sessions"
	default:
		return false
	}
	return true
}

func (v *View) manageService(m *managed, at Where, f found) {
	m.Title, m.Kind, m.Back = at.Service, "Service", "/#"+m.Service.ID
	m.Forms = []Form{
		v.form("Add listener", "addListen", at, "Clients can connect here too.",
			Field{Name: "address", Label: "Address", Kind: "text", Required: true, Hint: "host:port, *:port or unix:/path"}),
		v.form("Add group", "addGroup", at, "The first group of a service is active at once; further groups are standby.",
			Field{Name: "name", Label: "Name", Kind: "text", Required: true}, schedulers("leastc")),
	}
	move := v.form("Move listener", "switchPort", at, "New clients connect to the new address; sessions continue.",
		Field{Name: "old", Label: "From", Kind: "choice"},
		Field{Name: "address", Label: "To", Kind: "text", Required: true, Hint: "an address, or only a port"})
	for _, l := range f.service.Config.Listen {
		move.Fields[0].Choices = append(move.Fields[0].Choices, Choice{l.Address, clip(l.Address, 80)})
	}
	m.Forms = append(m.Forms, move, v.form("Change settings", "setService", at, "",
		append(settings("timeouts", &f.service.Config.Timeouts), settings("limits", &f.service.Config.Limits)...)...))
	if len(f.service.Config.Listen) > 1 {
		for _, l := range f.service.Config.Listen {
			m.Links = append(m.Links, link{"Close listener " + l.Address + "…", at.asks("delListen", "address", l.Address), true, "Sessions continue."})
		}
	}
	m.Links = append(m.Links, link{"Close all its sessions…", at.asks("shutdownSessions"), true, "They are closed now."})
	if len(v.State.Services) > 1 {
		m.Links = append(m.Links, link{"Delete service…", at.asks("delService"), true, "Its listeners close; sessions finish."})
	}
}

func (v *View) manageGroup(m *managed, at Where, f found) {
	m.Title, m.Kind = at.Group, "Group of service "+short(at.Service)
	m.Forms = []Form{
		v.form("Add host", "addHost", Where{Service: at.Service, Group: at.Group}, "", hostFields()...),
		v.form("Change scheduler", "changeScheduler", at, "Sessions stay on their hosts; new ones use the new scheduler.", schedulers(f.group.Config.Scheduler)),
		v.form("Change settings", "setGroup", at, "", settings("group", f.group.Config)...),
	}
	if f.group.Config.Enabled {
		m.Links = []link{{"Close all its sessions…", at.asks("shutdownSessions"), true, "They are closed now."}}
		return
	}
	m.Links = []link{
		{"Make active…", at.asks("enableGroup"), false, "All new clients of the service go to this group at once."},
		{"Close all its sessions…", at.asks("shutdownSessions"), true, "They are closed now."},
		{"Delete all its hosts…", at.asks("delAllHosts"), true, "The group stays, empty."},
		{"Delete group…", at.asks("delGroup"), true, "With its hosts."},
	}
}

func (v *View) manageHost(m *managed, at Where, f found) {
	m.Title, m.Kind = at.Name, "Host of "+short(at.Service)+" / "+short(at.Group)
	m.Back = "/#" + m.Host.ID
	ready := v.form("Set ready", "setHost", at, "")
	ready.Params = append(ready.Params, Param{"state", "ready"})
	if m.Host.State != "ready" {
		m.Forms = append(m.Forms, ready)
	}
	m.Forms = append(m.Forms, v.form("Set weight", "setHost", at, "Its share of new clients, relative to the other hosts; 0: none.",
		settings("host", f.host.Config, "weight")...))
	if h := m.Host.Health; h == "down" || h == "part" {
		m.Forms = append(m.Forms, v.form("Mark up now", "retryHost", at, "Mark it up without waiting for a check; the next failure marks it down again."))
	}
	if m.Host.State != "drain" {
		m.Links = append(m.Links, link{"Drain…", at.asks("setHost", "state", "drain"), false, "No new clients; its sessions finish."})
	}
	if m.Host.State != "maint" {
		m.Links = append(m.Links, link{"Maintenance…", at.asks("setHost", "state", "maint"), false, "No new clients, no health checks; its sessions finish."})
	}
	var rest []Field
	for _, field := range settings("host", f.host.Config) {
		if field.Name != "weight" && field.Name != "state" { // those have a form or a question of their own
			rest = append(rest, field)
		}
	}
	m.Forms = append(m.Forms, v.form("Change settings", "setHost", at, "", rest...))
	m.Links = append(m.Links,
		link{"Close its sessions…", at.asks("shutdownSessions"), true, "They are closed now."},
		link{"Delete host…", at.asks("delHost"), true, "Removes it from the configuration."})
}

// ask works out the question before a verb is done, with what it would mean now.
func (v *View) ask(verb string, p url.Values) (*question, error) {
	at := Where{p.Get("service"), p.Get("group"), p.Get("name")}
	q := &question{Form: Form{Action: Action{Verb: verb}, Danger: true, Cancel: "/"}}
	if v.askAll(q, verb, p) {
		return q, nil
	}
	f, err := find(v.reading, at)
	if err != nil {
		return nil, err
	}
	m, err := v.manage(at)
	if err != nil {
		return nil, err
	}
	q.Form.Cancel = m.Back
	q.Form.Params = append(at.params(), v.generation())
	put := func(title, label string, lines ...string) {
		q.Title, q.Form.Label, q.Lines = title, label, lines
	}
	switch {
	case verb == "setHost" && f.host != nil && (p.Get("state") == "drain" || p.Get("state") == "maint"):
		q.Form.Params = append(q.Form.Params, Param{"state", p.Get("state")})
		q.Form.Danger = false
		if p.Get("state") == "drain" {
			put(fmt.Sprintf("Drain host %s?", short(at.Name)), "Drain", "It gets no new clients. "+open(m.Host.Figures.Sessions)+" on it and can finish.")
		} else {
			put(fmt.Sprintf("Put host %s into maintenance?", short(at.Name)), "Start maintenance",
				"It gets no new clients and no health checks. "+open(m.Host.Figures.Sessions)+" on it and can finish.")
		}
		q.Beware = f.without(1)
	case verb == "delHost" && f.host != nil:
		put(fmt.Sprintf("Delete host %s?", short(at.Name)), "Delete host", "It is removed from the configuration. "+open(m.Host.Figures.Sessions)+" on it.")
		q.Form.Fields = []Field{drainField}
		if q.Beware = f.without(1); f.group.Config.Enabled && len(f.group.Hosts) == 1 {
			q.Beware = []string{"It is the last host of the active group: clients will be rejected."}
			q.Form.Fields = append(q.Form.Fields, forceField)
		}
	case verb == "shutdownSessions":
		n, of := m.Service.Figures.Sessions, "service "+short(at.Service)
		switch {
		case f.host != nil:
			n, of = m.Host.Figures.Sessions, "host "+short(at.Name)
		case f.group != nil:
			n, of = f.group.Stats.Active, "group "+short(at.Group)
		}
		put("Close the sessions of "+of+" now?", "Close sessions", open(n)+". They are closed now; clients may reconnect at once.")
	case verb == "enableGroup" && f.group != nil:
		was := f.service.Config.Enabled()
		put(fmt.Sprintf("Make group %[2]s the active group of service %[1]s?", short(at.Service), short(at.Group)), "Make active",
			"All new clients go to group "+short(at.Group)+" from now on.")
		q.Form.Danger = false
		q.Form.Fields = []Field{{Name: "drain", Label: "Close the other group's sessions after", Kind: "text", Hint: drainField.Hint}}
		if was != nil {
			q.Lines = append(q.Lines, fmt.Sprintf("%s in group %s now.", open(f.service.Enabled().Stats.Active), short(was.Name)))
		}
		up := f.group.Serving
		q.Lines = append(q.Lines, fmt.Sprintf("%d of its %s %s up and ready.", up, plural(len(f.group.Hosts), "host"), is(up)))
		if up == 0 {
			q.Beware = []string{"None of its hosts is up and ready: clients will be rejected."}
			q.Form.Fields = append(q.Form.Fields, forceField)
		}
	case verb == "delAllHosts" && f.group != nil:
		put(fmt.Sprintf("Delete all %s of group %s?", plural(len(f.group.Hosts), "host"), short(at.Group)), "Delete all hosts", "The group stays, empty.")
	case verb == "delGroup" && f.group != nil:
		put(fmt.Sprintf("Delete group %s of service %s?", short(at.Group), short(at.Service)), "Delete group",
			"Its "+plural(len(f.group.Hosts), "host")+" will be deleted too. "+open(f.group.Stats.Active)+" on them and can finish.")
	case verb == "delListen" && p.Get("address") != "":
		put(fmt.Sprintf("Close listener %s of service %s?", clip(p.Get("address"), 80), short(at.Service)), "Close listener",
			"The system refuses new connections to this address. Sessions continue.")
		q.Form.Params = append(q.Form.Params, Param{"address", p.Get("address")})
	case verb == "delService" && f.group == nil:
		put(fmt.Sprintf("Delete service %s?", short(at.Service)), "Delete service",
			"Its listeners close and new clients are refused. "+open(m.Service.Figures.Sessions)+" and can finish.")
		q.Beware = []string{"Its clients lose the service."}
	default:
		return nil, ErrNotFound
	}
	return q, nil
}

// lastChange tells in lines what a rollback would undo.
func (v *View) lastChange() []string {
	for _, e := range slices.Backward(v.Source.Events) {
		if e.Kind != "change" {
			continue
		}
		by := e.By
		if e.From != "" {
			by += " from " + e.From
		}
		return append([]string{fmt.Sprintf("At %s, %s ran: %s", clock(e.Time, v.At), clip(by, 80), clip(e.What, 300))},
			"The undo is itself a change and can be undone.")
	}
	return []string{"Restores the configuration as it was before the last change. The undo is itself a change and can be undone."}
}

// without tells what it would mean if a group lost one host that may serve.
func (f *found) without(n int) []string {
	if !f.group.Config.Enabled || f.host.Config.State != "ready" || f.host.Config.Weight == 0 || !f.host.Stats.Up {
		return nil
	}
	switch left := f.group.Serving - n; {
	case left <= 0:
		return []string{"It is the last host that is up and ready: without it, clients are rejected."}
	case left == 1:
		return []string{"Only one host is left to serve all clients of the service."}
	}
	return nil
}

func open(n int64) string {
	if n == 0 {
		return "No session is open"
	}
	return plural(int(n), "session") + " " + is(int(n)) + " open"
}

func is(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// Answer makes the message about a verb that was executed. before is the state
// before that; params are what the form said, err what came of it.
func Answer(before *director.State, verb string, params url.Values, r admin.Result, err error) *Message {
	if err != nil {
		return &Message{Level: Critical, Text: "Rejected: " + err.Error()}
	}
	m := &Message{Text: r.Text, Undo: undo(before, verb, params, r.Generation)}
	if strings.Contains(r.Text, "\nwarning: ") {
		m.Level = Warning
	}
	if strings.Contains(r.Text, "nothing to change") {
		m.Undo = nil
	}
	return m
}

// undo is the way back from a change, nil if there is none. What only sets
// something goes back by the same verb, whatever has been changed since;
// what adds or deletes goes back by rollback, which is refused if it is not the
// last change any more.
func undo(before *director.State, verb string, params url.Values, generation uint64) *Action {
	get := func(names ...string) string {
		for key, values := range params {
			for _, n := range names {
				if strings.EqualFold(key, n) && len(values) > 0 {
					return values[0]
				}
			}
		}
		return ""
	}
	if before == nil || generation <= before.Generation {
		return nil
	}
	at := Where{get("service"), get("group"), get("name", "host")}
	f, err := find(status.Read(status.Facts{State: before}), at)
	switch strings.ToLower(verb) {
	case "sethost", "hostadmindown", "hostadminup":
		if err != nil || f.host == nil {
			return nil
		}
		if !strings.EqualFold(verb, "setHost") {
			return setBack("setHost", at, get, old{"host", f.host.Config, "state"})
		}
		return setBack("setHost", at, get, old{"host", f.host.Config, ""})
	case "setgroup":
		if err != nil || f.group == nil {
			return nil
		}
		return setBack("setGroup", at, get, old{"group", f.group.Config, ""})
	case "setservice":
		if err != nil {
			return nil
		}
		return setBack("setService", at, get, old{"timeouts", &f.service.Config.Timeouts, ""}, old{"limits", &f.service.Config.Limits, ""})
	case "enablegroup":
		if err != nil {
			return nil
		}
		was := f.service.Config.Enabled()
		if was == nil {
			return nil
		}
		return &Action{"Undo: back to group " + short(was.Name), "enableGroup", Where{Service: at.Service, Group: was.Name}.params("force", "yes")}
	case "changescheduler":
		if err != nil || f.group == nil {
			return nil
		}
		was := f.group.Config.Scheduler
		return &Action{"Undo: back to " + was, "changeScheduler", at.params("scheduler", was)}
	}
	return &Action{"Undo", "rollback", []Param{{"n", "1"}, {"generation", strconv.FormatUint(generation, 10)}}}
}

// old is an element as it was before a change of its attributes: of one that is
// named, or of those that the change names.
type old struct {
	element string
	p       any
	only    string
}

// setBack is the action that gives attributes their old values.
func setBack(verb string, at Where, get func(...string) string, was ...old) *Action {
	a := &Action{Verb: verb, Params: at.params()}
	var back []string
	for _, o := range was {
		rows := config.Attributes(o.element)
		for i := range rows {
			r := &rows[i]
			set := get(r.Name)
			if r.Name == "ip" {
				set = get("ip", "address")
			}
			if text, err := r.Parse(set); err == nil {
				set = text
			}
			if !r.Runtime || r.Name != o.only && (set == "" || strings.EqualFold(set, r.Get(o.p))) {
				continue
			}
			a.Params = append(a.Params, Param{r.Name, r.Get(o.p)})
			back = append(back, r.Name+" "+r.Get(o.p))
		}
	}
	if len(back) == 0 {
		return nil
	}
	a.Label = "Undo: back to " + strings.Join(back, ", ")
	return a
}
