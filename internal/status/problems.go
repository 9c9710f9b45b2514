package status

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Problem is something that is wrong now.
type Problem struct {
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
	Waiting       // for sessions to end
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
	add := func(level Level, text, remedy string) {
		r.Problems = append(r.Problems, Problem{Level: level, Text: text, Remedy: remedy})
	}
	if r.Draining {
		add(Critical, "txlb is draining: new clients are refused; it exits when all sessions have ended", "")
	}
	if r.SessionsLimit > 0 && r.Sessions >= int64(r.SessionsLimit) {
		add(Critical, fmt.Sprintf("The limit of %d sessions is reached: new clients wait", r.SessionsLimit),
			"raise <engine maxSessions> and the limit of open files, or close sessions")
		r.Problems[len(r.Problems)-1].Clients = Waiting
	}
	for _, off := range r.Off {
		add(Warning, fmt.Sprintf("The admin interface <%s> is off: %s", off.Interface, off.Err), "fix the cause; it is tried again every minute at least")
	}
	if r.ReloadFailed {
		add(Warning, "The last reload failed: the previous configuration is still running", "run txlb check to see the errors")
	}
	for _, l := range r.Logs {
		r.judgeLog(l)
	}
	for _, i := range r.Interfaces {
		if i.Busy() {
			add(Notice, fmt.Sprintf("The admin interface %s is under pressure: %d of %d connections, %d rejected or evicted in the last minute",
				i.Kind, i.Open, i.Limit, i.Recent), "see txlb_admin_rejected_total for the reasons; allow= keeps other networks out")
		}
	}
	r.judgeLeavers()
	if n := len(r.Unsaved); r.HasFile && n > 0 {
		add(Notice, fmt.Sprintf("%s not saved: a restart would lose %s", counted(n, "change is", "changes are"), them(n)), "run saveConfig")
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
		r.Problems = append(r.Problems, Problem{Level: Notice, Text: text})
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
		r.Problems = append(r.Problems, Problem{Level: Warning, Text: text, Remedy: "free the disk, or start what reads it"})
	case lost != "" && r.At.Sub(l.Last) < lostFor:
		r.Problems = append(r.Problems, Problem{Level: Notice, Text: fmt.Sprintf("%s has gaps: %s, the last %v ago", name, lost, r.At.Sub(l.Last).Round(time.Second))})
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
		add(Problem{Level: Critical, Text: fmt.Sprintf("Service %s has no group: clients are rejected", quoted(name)), Remedy: "addGroup and addHost"})
	}
	if n := s.Config.Limits.Sessions; n > 0 && s.Stats.Active >= int64(n) {
		add(Problem{Level: Warning, Text: fmt.Sprintf("Service %s has %d sessions, as many as <limits sessions> allows", quoted(name), s.Stats.Active),
			Remedy: "setService sessions=N, or close sessions"})
	}
	for _, rejection := range r.Rejections {
		if rejection.Service == name {
			level := Critical
			switch {
			case strings.HasPrefix(rejection.Reason, "proxy_"): // who knocks at the wrong door is no trouble of the service
				level = Warning
			case rejection.Reason == "starttls_client", strings.HasPrefix(rejection.Reason, "limit_client"): // as the configuration wants it
				level = Notice
			}
			add(Problem{
				Level: level, Remedy: remedies[rejection.Reason],
				Text: fmt.Sprintf("Service %s rejected %s in the last seconds: %s", quoted(name), counted(int(rejection.Clients), "client", "clients"),
					cmp.Or(reasons[rejection.Reason], rejection.Reason)),
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

// reasons are the engine's words for why clients are rejected, for people, and
// remedies what helps.
var reasons = map[string]string{
	"no_group": "it has no group", "no_host": "no host answered",
	"resource": "no descriptor, memory or local port was free", "timeout": "the total connect timeout was reached",
	"queue":             "every host had as many sessions as its maxSessions, for longer than <timeouts queue>",
	"limit_sessions":    "it has as many sessions as <limits sessions> allows",
	"limit_rate":        "more came in a second than <limits rate> allows",
	"limit_client":      "they have as many sessions as <limits perClient> allows",
	"limit_client_rate": "they came more often than <limits perClientRate> allows",
	"clients_full":      "more clients have sessions than can be counted",
	"source":            "their address cannot be the source of a connection to a host (source=\"client\")",
	"starttls":          "the host did not agree to TLS (<listen startTLS>)",
	"starttls_client":   "they did not ask for TLS by STARTTLS, or not as they should",
	"proxy_source":      "they came from elsewhere than the proxies of proxyFrom",
	"proxy_timeout":     "they sent no PROXY header in time",
	"proxy_end":         "they ended before their PROXY header was whole",
	"proxy_signature":   "they sent no PROXY header",
	"proxy_version":     "their PROXY header was malformed (version)",
	"proxy_family":      "their PROXY header was malformed (family)",
	"proxy_address":     "their PROXY header was malformed (address)",
	"proxy_length":      "their PROXY header was malformed (length)",
	"proxy_tlv":         "their PROXY header was malformed (TLV)",
	"proxy_checksum":    "their PROXY header was malformed (checksum)",
}

var remedies = map[string]string{
	"resource":          "raise the limit of open files (LimitNOFILE) or net.ipv4.ip_local_port_range",
	"queue":             "add hosts, setHost maxSessions=N, or setService queue=DUR",
	"limit_sessions":    "setService sessions=N, or close sessions",
	"limit_rate":        "setService rate=N",
	"limit_client":      "if they are right, such as many people behind one address: setService perClient=N",
	"limit_client_rate": "if they are right: setService perClientRate=N",
	"clients_full":      "setService sessions=N below 1048576, or perClient=0 perClientRate=0",
	"source":            "give the process CAP_NET_ADMIN, and the group hosts of the clients' address family",
	"starttls":          "switch TLS on at the host (PostgreSQL: ssl = on; SMTP: STARTTLS)",
	"proxy_source":      "add the proxy to <listen proxyFrom>",
	"proxy_timeout":     proxyRemedy,
	"proxy_signature":   proxyRemedy,
}

const proxyRemedy = "switch the PROXY protocol on at the proxy (send-proxy, proxy_protocol on), or off at <listen>"

// judge tells what is wrong with a group, and sets the levels of its hosts.
func (g *Group) judge(service string, now time.Time) (list []Problem) {
	where := fmt.Sprintf("of %s / %s", quoted(service), quoted(g.Config.Name))
	var down, part, named, maint, drain, idle []*Host
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
		case h.Problem != "":
			named = append(named, h)
			h.Level = harm
		}
	}
	add := func(hosts []*Host, level Level, why bool, text, remedy string) {
		p := Problem{Level: level, Text: text, Remedy: remedy, Why: why}
		if len(hosts) == 1 {
			p.Host = hosts[0].Config.Name
		}
		p.Hosts = hosts[:min(len(hosts), maxDetails)]
		p.More = len(hosts) - len(p.Hosts)
		list = append(list, p)
	}
	if g.WaitsLong(now) {
		full := g.full()
		add(full, Critical, false, fmt.Sprintf("%s for a host %s: %d of %d that take clients are full (maxSessions)",
			counted(g.Waiting, "client waits", "clients wait"), where, len(full), g.Serving), "add hosts, or setHost maxSessions=N")
		list[len(list)-1].Clients = Waiting
	}
	last := "clients are tried on them as a last resort"
	if g.Config.AllDown == "refuse" {
		last = "clients are rejected"
	}
	switch {
	case !g.Takes:
	case len(g.Hosts) == 0:
		add(nil, Critical, false, fmt.Sprintf("Group %s of service %s is empty: clients are rejected", quoted(g.Config.Name), quoted(service)), "addHost")
	case g.Serving == 0 && len(down) == 0:
		add(nil, Critical, false, fmt.Sprintf("No host %s takes clients: all are in drain, maintenance or have weight 0", where), "hostAdminUp or setHost")
	}
	switch {
	case len(down) == 0:
	case g.Takes && g.Serving == 0:
		which := "Every host " + where
		if len(down) < len(g.Hosts) {
			which += " that should take clients"
		}
		add(down, Critical, true, fmt.Sprintf("%s is down: %s", which, last), "")
		if g.Config.AllDown != "refuse" {
			list[len(list)-1].Clients = Tried
		}
	case len(down) == 1:
		add(down, harm, true, fmt.Sprintf("1 of %s %s is down", counted(len(g.Hosts), "host", "hosts"), where), "")
	default:
		add(down, harm, true, fmt.Sprintf("%d of %s %s are down", len(down), counted(len(g.Hosts), "host", "hosts"), where), "")
	}
	if len(part) > 0 {
		add(part, harm, true, fmt.Sprintf("Some addresses of %s %s are down", counted(len(part), "host", "hosts"), where), "")
	}
	if len(named) > 0 {
		add(named, harm, true, fmt.Sprintf("The names of %s %s do not resolve", counted(len(named), "host", "hosts"), where), "")
	}
	if len(maint) > 0 {
		add(maint, Notice, false, fmt.Sprintf("In maintenance: %s %s", counted(len(maint), "host", "hosts"), where), "")
	}
	if len(drain) > 0 {
		add(drain, Notice, false, fmt.Sprintf("Draining: %s %s", counted(len(drain), "host", "hosts"), where), "")
	}
	if len(idle) > 0 {
		add(idle, Notice, false, fmt.Sprintf("Weight 0, no new clients: %s %s", counted(len(idle), "host", "hosts"), where), "")
	}
	return list
}

// waitingFor is for how long samples have to find clients waiting until that is a
// problem: a short wait is what the queue is for. It is less than the default of
// <timeouts queue>, after which clients are rejected.
const waitingFor = 3 * time.Second

// WaitsLong tells whether clients have been waiting for hosts that are full for so long
// that it is a problem.
func (g *Group) WaitsLong(now time.Time) bool {
	since := g.Traffic.WaitingSince
	return g.Waiting > 0 && g.Serving > 0 && !since.IsZero() && now.Sub(since) >= waitingFor
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

// String is the problem in one line, with the hosts that are meant.
func (p Problem) String() string {
	var hosts []string
	for _, h := range p.Hosts {
		text := quoted(h.Config.Name)
		if p.Why {
			text += " (" + cmp.Or(h.Reason, "unknown reason") + ")"
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
