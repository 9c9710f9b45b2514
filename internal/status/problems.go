package status

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/words"
)

// Level is how bad something is.
type Level uint8

const (
	Fine     Level = iota // nothing is wrong
	Notice                // worth knowing: it does not harm clients now
	Warning               // something does not work, but clients are served
	Critical              // clients are rejected or wait
)

// String gives the level as one word.
func (l Level) String() string { return [...]string{"fine", "notice", "warning", "critical"}[l] }

// Kind says what a problem is about, in one word that does not change: the label kind of
// the metric txlb_problems.
type Kind string

const (
	Stopping           Kind = "stopping"
	Draining           Kind = "draining"
	FormerProcess      Kind = "former_process"
	SessionsLimit      Kind = "sessions_limit"
	InterfaceOff       Kind = "interface_off"
	ReloadFailed       Kind = "reload_failed"
	LogNotWritten      Kind = "log_not_written"
	LogGaps            Kind = "log_gaps"
	Authorities        Kind = "authorities"
	InterfaceBusy      Kind = "interface_busy"
	Leaving            Kind = "leaving"
	Unsaved            Kind = "unsaved"
	Unconfirmed        Kind = "unconfirmed"
	UndoFailed         Kind = "undo_failed"
	NoGroup            Kind = "no_group"
	ServiceLimit       Kind = "service_limit"
	CertificateExpired Kind = "certificate_expired"
	CertificateExpires Kind = "certificate_expires"
	CertificateEarly   Kind = "certificate_early"
	CertificateFiles   Kind = "certificate_files"
	Rejecting          Kind = "rejecting"
	QueueWaits         Kind = "queue"
	Held               Kind = "held"
	GroupEmpty         Kind = "group_empty"
	GroupIdle          Kind = "group_idle"
	GroupDown          Kind = "group_down"
	HostsDown          Kind = "hosts_down"
	HostsPartlyDown    Kind = "hosts_partly_down"
	HostsEjected       Kind = "hosts_ejected"
	NamesFailing       Kind = "names_failing"
	InMaintenance      Kind = "maintenance"
	HostsDraining      Kind = "hosts_draining"
	WeightZero         Kind = "weight_0"
	FleetStore         Kind = "fleet_store"
	FleetBehind        Kind = "fleet_behind"
	FleetUpgrade       Kind = "fleet_upgrade"
	FleetApart         Kind = "fleet_apart"
	FleetWaits         Kind = "fleet_waits"
)

// Kinds has every kind with the alert of etc/prometheus that watches over it. Those without
// one are what somebody has ordered and nobody needs to be told.
var Kinds = map[Kind]string{
	Stopping: "TxlbDraining", Draining: "TxlbDraining",
	SessionsLimit: "TxlbSessionsNearLimit", ServiceLimit: "TxlbServiceNearLimit",
	InterfaceOff: "TxlbAdminInterfaceOff", InterfaceBusy: "TxlbAdminUnderPressure",
	ReloadFailed: "TxlbReloadFailed", Unsaved: "TxlbUnsavedChanges", UndoFailed: "TxlbUndoFailed",
	LogNotWritten: "TxlbLogNotWritten", LogGaps: "TxlbLogDropped",
	CertificateExpired: "TxlbCertificateExpires", CertificateExpires: "TxlbCertificateExpires",
	CertificateEarly: "TxlbCertificateUnusable", CertificateFiles: "TxlbCertificateUnusable", Authorities: "TxlbCertificateUnusable",
	Rejecting: "TxlbClientsRefused", QueueWaits: "TxlbQueueWaits",
	NoGroup: "TxlbServiceWithoutGroup", GroupEmpty: "TxlbServiceWithoutHost", GroupIdle: "TxlbServiceWithoutHost", GroupDown: "TxlbServiceWithoutHost",
	HostsDown: "TxlbHostDown", HostsPartlyDown: "TxlbHostPartlyDown", HostsEjected: "TxlbHostEjected", NamesFailing: "TxlbNameFailing",
	FleetStore: "TxlbFleetNode", FleetBehind: "TxlbFleetNode", FleetUpgrade: "TxlbFleetUpgrade", FleetApart: "TxlbFleetNode", FleetWaits: "",
	Held: "", FormerProcess: "", Unconfirmed: "", Leaving: "", InMaintenance: "", HostsDraining: "", WeightZero: "",
}

// Problem is something that is wrong now.
type Problem struct {
	Kind   Kind
	Level  Level
	Text   string // one line, without a full stop
	Remedy string // what would help, "" if that is plain
	// Service, Group and Host name what it is about, as far as they are not "".
	Service, Group, Host string
	Hosts                []*Host // that are meant, at most maxDetails
	Why                  bool    // Hosts have a Reason and a Since that matter
	Clients              Fate    // what becomes of new clients, of a Critical one
	More                 int     // further hosts
}

// Fate is what becomes of the new clients of a service, the worst last.
type Fate uint8

const (
	Served   Fate = iota
	Tried         // on hosts that are down, as a last resort
	Waiting       // for sessions to end, or for a group that is held
	Rejected      //
)

// String says it of clients.
func (f Fate) String() string {
	return [...]string{"clients are served", "clients are tried on hosts that are down", "new clients wait", "clients are being rejected"}[f]
}

// Fate returns the worst that the problems do to clients.
func (r *Reading) Fate() (worst Fate) {
	for i := range r.Problems {
		worst = max(worst, r.Problems[i].Clients)
	}
	return worst
}

// maxDetails is how many hosts a problem names.
const maxDetails = 8

// judge fills in the problems and the levels.
func (r *Reading) judge() {
	for i := range r.Services {
		r.judgeService(&r.Services[i])
	}
	r.judgeProcess()
	for i := range r.Problems {
		if p := &r.Problems[i]; p.Level == Critical && p.Clients == Served {
			p.Clients = Rejected // but for those that say otherwise
		}
	}
	slices.SortStableFunc(r.Problems, func(a, b Problem) int { return cmp.Compare(b.Level, a.Level) })
}

func (r *Reading) judgeProcess() {
	add := func(kind Kind, level Level, text, remedy string) {
		r.Problems = append(r.Problems, Problem{Kind: kind, Level: level, Text: text, Remedy: remedy})
	}
	switch {
	case r.Draining && !r.Accepting.IsZero():
		add(Stopping, Warning, fmt.Sprintf("txlb is going to stop: it accepts new clients until %s, and then drains", r.Accepting.Format("15:04:05")), "")
	case r.Draining:
		add(Draining, Critical, "txlb is draining: no new clients are accepted; it exits when all sessions have ended", "")
	}
	if r.SessionsLimit > 0 && r.Sessions >= int64(r.SessionsLimit) {
		add(SessionsLimit, Critical, fmt.Sprintf("The limit of %d sessions is reached: new clients wait", r.SessionsLimit),
			"raise <engine maxSessions> and the limit of open files, or close sessions")
		r.Problems[len(r.Problems)-1].Clients = Waiting
	}
	if f := r.Former; f != nil && f.Sessions > 0 {
		add(FormerProcess, Notice, fmt.Sprintf("Process %d, from which this one has taken over, still has %s, which could not move", f.PID, words.Count(int(f.Sessions), "session")), "")
	}
	for _, off := range r.Off {
		add(InterfaceOff, Warning, fmt.Sprintf("The admin interface <%s> is off: %s", off.Interface, off.Err), "fix the cause; it is tried again every minute at least")
	}
	if r.ReloadFailed {
		add(ReloadFailed, Warning, "The last reload failed: the previous configuration is still running", "run txlb check to see the errors")
	}
	for _, l := range r.Logs {
		r.judgeLog(l)
	}
	for _, why := range r.State.Distrusted() {
		add(Authorities, Warning, "A file of certificate authorities cannot be used as it is now; those that it had stay in use: "+why, "put a right one there; it is taken up within a second")
	}
	for _, i := range r.Interfaces {
		if i.Busy() {
			add(InterfaceBusy, Notice, fmt.Sprintf("The admin interface %s is under pressure: %d of %d connections, %d rejected or evicted in the last minute",
				i.Kind, i.Open, i.Limit, i.Recent), "see txlb_admin_rejected_total for the reasons; allow= keeps other networks out")
		}
	}
	for _, p := range r.State.Pending() {
		name := fmt.Sprintf("Generation %d (%s) by %s", p.Generation, p.Verb, quoted(p.By))
		if p.Trouble != "" {
			add(UndoFailed, Warning, fmt.Sprintf("%s is not confirmed, and its undo failed: %s", name, p.Trouble),
				fmt.Sprintf("mend the reason, it is tried again every minute at least; or keep the change: confirm %d", p.Generation))
			continue
		}
		if p.Overdue(r.At) {
			add(Unconfirmed, Notice, name+" is not confirmed, its time is over, and it is undone when the store of the fleet says so", fmt.Sprintf("to keep it: confirm %d", p.Generation))
			continue
		}
		add(Unconfirmed, Notice, fmt.Sprintf("%s is undone at %s, in %v, unless it is confirmed", name, p.Until.Format("15:04:05"), max(0, p.Until.Sub(r.At)).Round(time.Second)),
			fmt.Sprintf("to keep it: confirm %d", p.Generation))
	}
	r.judgeLeavers()
	if f := r.Fleet; f != nil {
		r.judgeFleet(f, add)
	}
	if n := len(r.Unsaved); r.HasFile && n > 0 {
		add(Unsaved, Notice, fmt.Sprintf("%s not saved: a restart would lose %s", counted(n, "change is", "changes are"), them(n)), "run saveConfig")
	}
}

// judgeLeavers tells of sessions on what was removed, and of those that have a deadline:
// one problem for each group, and one for each listener.
func (r *Reading) judgeLeavers() {
	type key struct {
		service, group, listener string
		removed                  bool
		until                    time.Time
	}
	sessions, names, order := map[key]int64{}, map[key][]string{}, []key(nil)
	for i := range r.Leavers {
		l := &r.Leavers[i]
		k := key{l.Service, l.Group, "", l.Removed, l.Until}
		if l.Host == "" {
			k.listener = l.Address
		}
		if sessions[k] == 0 && len(names[k]) == 0 {
			order = append(order, k)
		}
		sessions[k] += l.Sessions()
		if name := cmp.Or(l.Host, l.Address); !slices.Contains(names[k], name) && len(names[k]) <= maxDetails {
			names[k] = append(names[k], name)
		}
	}
	for _, k := range order {
		list := strings.Join(names[k][:min(len(names[k]), maxDetails)], ", ")
		if len(names[k]) > maxDetails {
			list += ", …"
		}
		text, how := fmt.Sprintf("Draining in %s / %s: %s; ", k.service, k.group, list), ","
		switch {
		case k.listener != "":
			text = fmt.Sprintf("Removed from %s: the listener %s; sessions that came by it", k.service, k.listener)
			how = " are"
		case k.removed:
			text = fmt.Sprintf("Removed from %s / %s: %s; ", k.service, k.group, list)
			fallthrough
		default:
			text += counted(int(sessions[k]), "session is", "sessions are") + " still open"
		}
		switch left := k.until.Sub(r.At); {
		case k.until.IsZero():
		case left > 0:
			text += fmt.Sprintf("%s closed at %s, in %v", how, k.until.Format("15:04:05"), left.Round(time.Second))
		default:
			text += how + " being closed"
		}
		r.Problems = append(r.Problems, Problem{Kind: Leaving, Level: Notice, Text: text})
	}
}

// lostFor is for how long lost lines are a problem.
const lostFor = time.Hour

// judgeLog tells whether a log is written, and whether lines of it were lost.
func (r *Reading) judgeLog(l logs.Stats) {
	name, lost := "The log", ""
	switch l.Name {
	case "audit":
		name = "The audit file"
	case "access":
		name = "The access log"
	}
	if l.Dropped > 0 {
		lost = counted(int(l.Dropped), "line was dropped", "lines were dropped")
	}
	switch {
	case !l.Since.IsZero():
		text := fmt.Sprintf("%s has not been written for %v: %s", name, r.At.Sub(l.Since).Round(time.Second), l.Reason)
		if lost != "" {
			text += "; " + lost
		}
		r.Problems = append(r.Problems, Problem{Kind: LogNotWritten, Level: Warning, Text: text, Remedy: "free the disk, or start what reads it"})
	case lost != "" && r.At.Sub(l.Last) < lostFor:
		r.Problems = append(r.Problems, Problem{Kind: LogGaps, Level: Notice, Text: fmt.Sprintf("%s has gaps: %s, the last %v ago", name, lost, r.At.Sub(l.Last).Round(time.Second))})
	}
}

func (r *Reading) judgeService(s *Service) {
	name := s.Config.Name
	add := func(p Problem) {
		p.Service = name
		s.Level = max(s.Level, p.Level)
		r.Problems = append(r.Problems, p)
	}
	if s.Config.Enabled() == nil {
		add(Problem{Kind: NoGroup, Level: Critical, Text: fmt.Sprintf("Service %s has no group: clients are rejected", quoted(name)), Remedy: "addGroup and addHost"})
	}
	if n := s.Config.Limits.Sessions; n > 0 && s.Stats.Active >= int64(n) {
		add(Problem{Kind: ServiceLimit, Level: Warning, Text: fmt.Sprintf("Service %s has %d sessions, as many as <limits sessions> allows", quoted(name), s.Stats.Active),
			Remedy: "setService sessions=N, or close sessions"})
	}
	for i := range s.Certificates {
		if p, wrong := judgeCertificate(&s.Certificates[i], r.At); wrong {
			add(p)
		}
	}
	for _, rejection := range r.Rejections {
		if rejection.Service == name {
			level := Critical
			switch {
			case rejection.Reason == "tls_plain", rejection.Reason == "tls_end": // scanners, and health checks of others
				level = Notice
			case strings.HasPrefix(rejection.Reason, "proxy_"), strings.HasPrefix(rejection.Reason, "tls_"): // who knocks at the wrong door is no trouble of the service
				level = Warning
			case rejection.Reason == "starttls_client", strings.HasPrefix(rejection.Reason, "limit_client"): // as the configuration wants it
				level = Notice
			}
			why, _ := engine.RejectionOf(rejection.Reason)
			add(Problem{
				Kind: Rejecting, Level: level, Remedy: why.Remedy,
				Text: fmt.Sprintf("Service %s rejected %s in the last seconds: %s", quoted(name), counted(int(rejection.Clients), "client", "clients"), why.Meaning),
			})
		}
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		for _, p := range g.judge(name, r.At) {
			p.Group = g.Config.Name
			g.Level = max(g.Level, p.Level)
			add(p)
		}
	}
}

// expiresSoon is how long before its end a certificate is a problem.
const expiresSoon = 14 * 24 * time.Hour

// judgeCertificate tells what is wrong with a certificate, if anything is.
func judgeCertificate(c *director.Certificate, now time.Time) (p Problem, wrong bool) {
	const replace = "replace the files of certificate and key; they are taken up within a second"
	name := fmt.Sprintf("The certificate for %s of service %s (%s)", c.Names[0], quoted(c.Service), c.File)
	if len(c.Names) > 1 {
		name = fmt.Sprintf("The certificate for %s and %s of service %s (%s)", c.Names[0], counted(len(c.Names)-1, "other name", "other names"), quoted(c.Service), c.File)
	}
	left := c.To.Sub(now)
	switch {
	case left < 0:
		return Problem{Kind: CertificateExpired, Level: Warning, Remedy: replace, Text: fmt.Sprintf("%s expired %s ago: clients that verify it do not connect", name, days(-left))}, true
	case now.Before(c.From):
		return Problem{Kind: CertificateEarly, Level: Warning, Remedy: "set the clock, or " + replace, Text: fmt.Sprintf("%s is not valid for another %s: clients that verify it do not connect", name, days(c.From.Sub(now)))}, true
	case c.Trouble != "":
		return Problem{Kind: CertificateFiles, Level: Warning, Remedy: replace, Text: fmt.Sprintf("%s stays in use, as the files are wrong now: %s", name, c.Trouble)}, true
	case left < expiresSoon:
		return Problem{Kind: CertificateExpires, Level: Notice, Remedy: replace, Text: fmt.Sprintf("%s expires in %s", name, days(left))}, true
	}
	return p, false
}

// days is a time for people, in days or hours or, at the end, minutes.
func days(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}

// judge tells what is wrong with a group, and sets the levels of its hosts.
func (g *Group) judge(service string, now time.Time) (list []Problem) {
	where := fmt.Sprintf("of %s / %s", quoted(service), quoted(g.Config.Name))
	var down, part, ejected, named, maint, drain, idle []*Host
	harm := Notice
	if g.Takes {
		harm = Warning
	}
	for i := range g.Hosts {
		h := &g.Hosts[i]
		switch {
		case h.Health == Maintenance:
			maint = append(maint, h)
			h.Level = Notice
		case !h.Health.Works():
			down = append(down, h)
			h.Level = harm
		case h.Config.State == "drain":
			drain = append(drain, h)
			h.Level = Notice
		case h.Config.Weight == 0:
			idle = append(idle, h)
			h.Level = Notice
		case h.Health == Part:
			part = append(part, h)
			h.Level = harm
		case h.Ejected != nil:
			ejected = append(ejected, h)
			h.Level = harm
		case h.Problem != "":
			named = append(named, h)
			h.Level = harm
		}
	}
	add := func(kind Kind, hosts []*Host, level Level, why bool, text, remedy string) {
		p := Problem{Kind: kind, Level: level, Text: text, Remedy: remedy, Why: why}
		if len(hosts) == 1 {
			p.Host = hosts[0].Config.Name
		}
		p.Hosts = hosts[:min(len(hosts), maxDetails)]
		p.More = len(hosts) - len(p.Hosts)
		list = append(list, p)
	}
	if g.WaitsLong(now) {
		full := g.full()
		add(QueueWaits, full, Critical, false, fmt.Sprintf("%s for a host %s: %d of %d that take clients are full (maxSessions)",
			counted(g.Waiting, "client waits", "clients wait"), where, len(full), g.Serving), "add hosts, or setHost maxSessions=N")
		list[len(list)-1].Clients = Waiting
	}
	last, fate, bad := "clients are tried on them as a last resort", Tried, Critical
	switch h := g.Hold; {
	case h != nil && h.Why == "operator":
		last, fate, bad = "clients wait, as the group is held", Waiting, Warning
	case h != nil:
		last, fate = "clients wait, at most <timeouts queue>", Waiting
	case g.Config.AllDown != "try":
		last, fate = "clients are rejected", Rejected
	}
	g.judgeHold(where, add)
	switch {
	case !g.Takes:
	case len(g.Hosts) == 0:
		add(GroupEmpty, nil, Critical, false, fmt.Sprintf("Group %s of service %s is empty: clients are rejected", quoted(g.Config.Name), quoted(service)), "addHost")
	case g.Serving == 0 && len(down) == 0:
		add(GroupIdle, nil, bad, false, fmt.Sprintf("No host %s takes clients: all are in drain, maintenance or have weight 0", where), "hostAdminUp or setHost")
		if g.Hold != nil {
			list[len(list)-1].Clients = Waiting
		}
	}
	switch {
	case len(down) == 0:
	case g.Takes && g.Serving == 0:
		which := "Every host " + where
		if len(down) < len(g.Hosts) {
			which += " that should take clients"
		}
		add(GroupDown, down, bad, true, fmt.Sprintf("%s is down: %s", which, last), "")
		list[len(list)-1].Clients = fate
	case len(down) == 1:
		add(HostsDown, down, harm, true, fmt.Sprintf("1 of %s %s is down", counted(len(g.Hosts), "host", "hosts"), where), "")
	default:
		add(HostsDown, down, harm, true, fmt.Sprintf("%d of %s %s are down", len(down), counted(len(g.Hosts), "host", "hosts"), where), "")
	}
	if len(part) > 0 {
		add(HostsPartlyDown, part, harm, true, fmt.Sprintf("Some addresses of %s %s are down", counted(len(part), "host", "hosts"), where), "")
	}
	if len(ejected) > 0 {
		first := ejected[0]
		for _, h := range ejected {
			if h.Ejected.Until.Before(first.Ejected.Until) {
				first = h
			}
		}
		add(HostsEjected, ejected, harm, true, fmt.Sprintf("Up, but ejected: %d of %s %s; until %s at least",
			len(ejected), counted(len(g.Hosts), "host", "hosts"), where, first.Ejected.Until.Format("15:04:05")), "find out what is wrong there; setHost eject=never keeps a host in")
	}
	if len(named) > 0 {
		add(NamesFailing, named, harm, true, fmt.Sprintf("The names of %s %s do not resolve", counted(len(named), "host", "hosts"), where), "")
	}
	if len(maint) > 0 {
		add(InMaintenance, maint, Notice, false, fmt.Sprintf("In maintenance: %s %s%s", counted(len(maint), "host", "hosts"), where, stillOpen(maint)), "")
	}
	if len(drain) > 0 {
		add(HostsDraining, drain, Notice, false, fmt.Sprintf("Draining: %s %s%s", counted(len(drain), "host", "hosts"), where, stillOpen(drain)), "")
	}
	if len(idle) > 0 {
		add(WeightZero, idle, Notice, false, fmt.Sprintf("Weight 0, no new clients: %s %s", counted(len(idle), "host", "hosts"), where), "")
	}
	return list
}

// judgeHold tells of a group that an operator holds.
func (g *Group) judgeHold(where string, add func(kind Kind, hosts []*Host, level Level, why bool, text, remedy string)) {
	h := g.Hold
	if h == nil || h.Why != "operator" {
		return
	}
	level := Notice
	if h.Held > 0 {
		level = Warning
	}
	text := fmt.Sprintf("New clients %s are held until %s: %s", where, h.Until.Format("15:04:05"), counted(h.Held, "waits", "wait"))
	if h.Released != nil {
		text = fmt.Sprintf("Held clients %s are let out until %s: %s", where, h.Until.Format("15:04:05"), counted(h.Held, "still waits", "still wait"))
	}
	add(Held, nil, level, false, text, "release when the hosts are ready")
}

// waitingFor is for how long samples have to find clients waiting until that is a
// problem: a short wait is what the queue is for. It is less than the default of
// <timeouts queue>, after which clients are rejected.
const waitingFor = 3 * time.Second

// WaitsLong tells whether clients have been waiting for hosts that are full for so long
// that it is a problem.
func (g *Group) WaitsLong(now time.Time) bool {
	since := g.Traffic.WaitingSince
	return g.Waiting > 0 && g.Serving > 0 && g.Hold == nil && !since.IsZero() && now.Sub(since) >= waitingFor
}

// full returns the hosts that take clients, but have no room for one.
func (g *Group) full() (list []*Host) {
	for i := range g.Hosts {
		h := &g.Hosts[i]
		room := func(t *director.Target) bool {
			limit := t.Host.MaxSessions()
			return t.Host.Up() && (limit == 0 || t.Host.Sessions() < int64(limit))
		}
		if h.Serves() && !slices.ContainsFunc(h.Targets, room) {
			list = append(list, h)
		}
	}
	return list
}

// quoted writes a name so that it cannot be taken for text, and fits into a line.
func quoted(name string) string {
	if words.Plain(name) {
		return name
	}
	if r := []rune(name); len(r) > longestName {
		name = string(r[:longestName]) + "…"
	}
	return strconv.Quote(name)
}

const longestName = 64 // letters

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// ejectedFor says why the host is ejected, "" if it is not.
func (h *Host) ejectedFor() string {
	if h.Ejected == nil {
		return ""
	}
	return h.Ejected.Why
}

// String is the problem in one line, with the hosts that are meant.
func (p Problem) String() string {
	var hosts []string
	for _, h := range p.Hosts {
		text := quoted(h.Config.Name)
		if p.Why {
			text += " (" + cmp.Or(h.Reason, h.ejectedFor(), "unknown reason") + ")"
		}
		hosts = append(hosts, text)
	}
	if p.More > 0 {
		hosts = append(hosts, fmt.Sprintf("%d more", p.More))
	}
	if len(hosts) == 0 {
		return p.Text
	}
	return p.Text + ": " + strings.Join(hosts, ", ")
}
