package admin

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/sched"
)

// endSessions ends the sessions of hosts.
func (a *Admin) endSessions(hosts map[*sched.Host]bool) int {
	if len(hosts) == 0 {
		return 0
	}
	return a.opt.Engine.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return hosts[c.Host] })
}

func (k *call) shutdownSessions() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	hosts := map[*sched.Host]bool{}
	active := 0
	for _, t := range targets {
		hosts[t.Host] = true
		active += int(t.Host.Stats().Active)
	}
	whole := !k.args.given("group")
	if whole {
		active = int(k.admin.opt.Engine.Snapshot().Services[service].Active)
	}
	if k.args.set("dry-run") {
		return Result{Text: "would close " + count(active, "session"), Data: ended{active}}, nil
	}
	var n int
	if whole {
		n = k.admin.opt.Engine.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Service == service })
	} else {
		n = k.admin.endSessions(hosts)
	}
	return Result{Text: count(n, "session") + " closed", Data: ended{n}}, nil
}

// moveSessions ends a part of a host's sessions. Which ones is drawn by lot, so that they
// carry about that part of the load, and a client that is hit once is hit again no sooner
// than others.
func (k *call) moveSessions() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	name := k.args.text("name")
	if !k.args.set("force") && !otherHost(k.state(), service, k.args.text("group"), name) {
		return Result{}, fmt.Errorf("no other host that takes these clients of service %s is up and ready, so they would find none or come back to host %s; use --force to close the sessions anyway", show(service), show(name))
	}
	hosts := map[*sched.Host]bool{}
	for _, t := range targets {
		hosts[t.Host] = true
	}
	var mu sync.Mutex
	var ids []uint64
	k.admin.opt.Engine.EndSessions(engine.ByOperator, func(c engine.Candidate) bool {
		if c.Connected && hosts[c.Host] {
			mu.Lock() // seldom waits: a loop looks at a hundred sessions and turns to its clients
			defer mu.Unlock()
			ids = append(ids, c.ID)
		}
		return false
	})
	all := len(ids)
	percent, _ := k.args.number("percent")
	n := (all*int(percent) + 99) / 100
	did := fmt.Sprintf("%d of %s of host %s", n, count(all, "session"), show(name))
	if k.args.set("dry-run") {
		return Result{Text: "would close " + did, Data: ended{n}}, nil
	}
	rand.Shuffle(all, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	chosen := make(map[uint64]bool, n)
	for _, id := range ids[:n] {
		chosen[id] = true
	}
	closed := 0
	if n > 0 {
		closed = k.admin.opt.Engine.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return chosen[c.ID] && hosts[c.Host] })
	}
	text := did + " closed"
	if g := edits.StateGroup(k.state(), service, k.args.text("group")); g.Sticky != nil && n > 0 {
		text += fmt.Sprintf("\nwarning: the clients of group %s come back to their host; run forgetClients for host %s first, then moveSessions", show(g.Config.Name), show(name))
	}
	if closed < n {
		text += fmt.Sprintf("; %d of them had just ended", n-closed)
	}
	return Result{Text: text, Data: ended{closed}}, nil
}

// otherHost tells whether the clients of a host find another one when they connect again:
// in its group if that takes clients, else in the active one.
func otherHost(state *director.State, service, group, host string) bool {
	own := edits.StateGroup(state, service, group)
	for _, s := range state.Services {
		for _, g := range s.Groups {
			if s.Config.Name != service || g != own && (own.Takes || !g.Config.Enabled) {
				continue
			}
			if own.Takes || g != own {
				return slices.ContainsFunc(g.Hosts, func(h *director.Host) bool {
					return (g != own || h.Config.Name != host) && h.Config.State == "ready" && h.Config.Weight > 0 && h.Up()
				})
			}
		}
	}
	return false
}

// usualSessions is how many sessions show sessions shows if it is not told, and
// mostSessions how many it shows at most: an answer is made in memory, about a
// kilobyte for each.
const (
	usualSessions = 1000
	mostSessions  = 20_000
)

// SessionInfo is one session in the Data of show sessions.
type SessionInfo struct {
	ID      string    `json:"id"` // for shutdownSession
	Service string    `json:"service"`
	Group   string    `json:"group,omitempty"`   // "" without a host, or when the host is configured no more
	Host    string    `json:"host,omitempty"`    // "" while it has none
	Address string    `json:"address,omitempty"` // of the host
	Client  string    `json:"client,omitempty"`  // "" for a UNIX socket
	To      string    `json:"to,omitempty"`      // the address of ours that the client has connected to
	Local   string    `json:"local,omitempty"`   // our own address toward the host; "" for a UNIX socket
	Started time.Time `json:"started"`
	Age     float64   `json:"age_seconds"`
	Idle    float64   `json:"idle_seconds"` // since the last byte
	Held    float64   `json:"held_seconds"` // that it has waited because its group holds its clients; later, only sessions for the access log say so
	In      uint64    `json:"bytes_in"`
	Out     uint64    `json:"bytes_out"`

	Turns      uint32  `json:"turnarounds"`               // how many there were
	Turnaround float64 `json:"turnaround_seconds"`        // median, within 27 %
	Worst      float64 `json:"turnaround_worst_seconds"`  // of all
	Waiting    float64 `json:"waiting_seconds,omitempty"` // what the client sent last has had no answer for so long

	// Of one that has ended, whose Age is how long it lasted.
	Ended       *time.Time `json:"ended,omitempty"`
	Termination string     `json:"termination,omitempty"`
}

// FormatSessionID writes the ID of a session as ParseSessionID reads it.
func FormatSessionID(id uint64) string { return strconv.FormatUint(id, 16) }

// ParseSessionID reads the ID of a session, hexadecimal with or without 0x
// before it.
func ParseSessionID(s string) (uint64, error) {
	digits := strings.ToLower(s)
	id, err := strconv.ParseUint(strings.TrimPrefix(digits, "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a session ID; show sessions lists them, such as %s", show(s), FormatSessionID(0x1e00400003))
	}
	return id, nil
}

// SessionInfos describes sessions to people and programs.
func SessionInfos(state *director.State, list []engine.SessionInfo) []SessionInfo {
	groups := groupsOf(state, func(yield func(*sched.Host)) {
		for i := range list {
			yield(list[i].Host)
		}
	})
	now := time.Now()
	infos := make([]SessionInfo, 0, len(list))
	for _, s := range list {
		i := SessionInfo{
			ID: FormatSessionID(s.ID), Service: s.Service, Client: address(s.Client), To: s.Listener, Local: address(s.Local),
			Started: s.Started, Age: now.Sub(s.Started).Seconds(), Idle: s.Idle.Seconds(), Held: s.Held.Seconds(), In: s.In, Out: s.Out,
			Turns: s.Turns.Count, Turnaround: s.Turns.Median.Seconds(), Worst: s.Turns.Worst.Seconds(), Waiting: s.Waiting.Seconds(),
		}
		if s.Host != nil {
			i.Group, i.Host, i.Address = groups[s.Host], s.Host.Name(), s.Host.Addr().String()
		}
		infos = append(infos, i)
	}
	return infos
}

// groupsOf names the groups of those hosts that are in the configuration.
func groupsOf(state *director.State, hosts func(yield func(*sched.Host))) map[*sched.Host]string {
	groups := map[*sched.Host]string{}
	hosts(func(h *sched.Host) {
		if h != nil {
			groups[h] = ""
		}
	})
	if len(groups) > 0 {
		for _, s := range state.Services {
			for _, g := range s.Groups {
				for _, h := range g.Hosts {
					for t := range h.All() {
						if _, asked := groups[t.Host]; asked {
							groups[t.Host] = g.Config.Name
						}
					}
				}
			}
		}
	}
	return groups
}

// EndedInfos describes sessions that have ended.
func EndedInfos(state *director.State, list []engine.Story) []SessionInfo {
	groups := groupsOf(state, func(yield func(*sched.Host)) {
		for i := range list {
			yield(list[i].Host)
		}
	})
	infos := make([]SessionInfo, 0, len(list))
	for i := range list {
		s := &list[i]
		ended := s.Accepted.Add(s.Age)
		i := SessionInfo{
			ID: FormatSessionID(s.ID), Service: s.Service, Group: s.Group, Client: address(s.Client), Started: s.Accepted, Age: s.Age.Seconds(),
			In: s.In, Out: s.Out, Ended: &ended, Termination: s.Termination,
			Turns: s.Turns.Count, Turnaround: s.Turns.Median.Seconds(), Worst: s.Turns.Worst.Seconds(),
		}
		if s.Host != nil {
			i.Host, i.Address = s.Host.Name(), s.Host.Addr().String()
			i.Group = cmp.Or(i.Group, groups[s.Host])
		}
		infos = append(infos, i)
	}
	return infos
}

// Explain puts a story into words.
func Explain(state *director.State, s *engine.Story) *explain.Session {
	groups := groupsOf(state, func(yield func(*sched.Host)) { yield(s.Host) })
	return explain.Of(s, FormatSessionID(s.ID), groups[s.Host])
}

// explain answers what happened to a session.
func (k *call) explain() (Result, error) {
	id, err := ParseSessionID(k.args.text("id"))
	if err != nil {
		return Result{}, err
	}
	story, ok := k.admin.opt.Engine.Explain(id)
	if !ok {
		return Result{}, refuse(ErrUnknownName, "session %s is not open and not among the last that have ended; show sessions lists the open ones, and show sessions --ended the others", FormatSessionID(id))
	}
	s := Explain(k.state(), &story)
	lines := s.Lines()
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return Result{Text: strings.Join(lines, "\n"), Data: s}, nil
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (k *call) showSessions() (Result, error) {
	service, targets, err := "", []*director.Target(nil), error(nil)
	if k.args.given("service") {
		service, targets, err = k.targets()
	} else if k.args.given("group") || k.args.given("name") {
		err = fmt.Errorf("SERVICE is missing; write %s", k.verb.Syntax())
	}
	if err != nil {
		return Result{}, err
	}
	hosts := map[*sched.Host]bool{}
	for _, t := range targets {
		hosts[t.Host] = true
	}
	some := k.args.given("group")
	most, given := k.args.number("max")
	if !given {
		most = usualSessions
	}
	most = min(most, int64(k.admin.rows))
	if k.args.set("ended") {
		all := service == "" && !some
		return k.showEnded(int(most), all, func(s *engine.Story) bool {
			return all || (service == "" || s.Service == service) && (!some || hosts[s.Host])
		})
	}
	list := k.admin.opt.Engine.Sessions(int(most)+1, func(s string, h *sched.Host) bool {
		return (service == "" || s == service) && (!some || hosts[h])
	})
	more := len(list) > int(most)
	infos := SessionInfos(k.state(), list[:min(len(list), int(most))])
	t := table{head: []string{"id", "service", "group", "host", "client", "local", "age", "idle", "in", "out"}, right: 6}
	for _, i := range infos {
		t.row(i.ID, i.Service, i.Group, i.Host, i.Client, i.Local, seconds(i.Age), seconds(i.Idle), i.In, i.Out)
	}
	text := t.String()
	if more {
		how := fmt.Sprintf("max=N shows more, at most %d", k.admin.rows)
		if most == int64(k.admin.rows) {
			how = "name a service, a group or a host to see others"
		}
		text += fmt.Sprintf("\nthere are more than these %s; %s", count(len(infos), "session"), how)
	}
	return Result{Text: text, Data: infos}, nil
}

// showEnded lists the last sessions that have ended, those that which picks out. all tells that
// these are all: then no more are asked for than are shown, and one to see whether there are more.
func (k *call) showEnded(most int, all bool, which func(*engine.Story) bool) (Result, error) {
	ask := k.admin.rows
	if all {
		ask = most + 1
	}
	list := k.admin.opt.Engine.Ended(ask)
	list = slices.DeleteFunc(list, func(s engine.Story) bool { return !which(&s) })
	infos := EndedInfos(k.state(), list[:min(len(list), most)])
	t := table{head: []string{"id", "service", "group", "host", "client", "ended", "how", "lasted", "in", "out"}, right: 7}
	for _, i := range infos {
		t.row(i.ID, i.Service, i.Group, i.Host, i.Client, i.Ended.Format("15:04:05.000"), i.Termination, seconds(i.Age), i.In, i.Out)
	}
	text := t.String()
	if len(list) > len(infos) {
		text += fmt.Sprintf("\nthere are more than these %s; max=N shows more", count(len(infos), "session"))
	}
	return Result{Text: text, Data: infos}, nil
}

// seconds writes a time that has passed, short.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func (k *call) shutdownSession() (Result, error) {
	id, err := ParseSessionID(k.args.text("id"))
	if err != nil {
		return Result{}, err
	}
	if !k.admin.opt.Engine.EndSession(id) {
		return Result{}, fmt.Errorf("session %s has ended; show sessions lists the open ones", FormatSessionID(id))
	}
	return Result{Text: "1 session closed", Data: ended{1}}, nil
}

// ended is the Data of shutdownSessions.
type ended struct {
	Sessions int `json:"sessions"`
}

// targets returns the addresses of the hosts that the command names, those that
// are leaving too; none where it names a whole service.
func (k *call) targets() (service string, targets []*director.Target, err error) {
	if k.args.given("name") && !k.args.given("group") {
		return "", nil, fmt.Errorf("GROUP is missing; write %s", k.verb.Syntax())
	}
	state := k.state()
	s, err := edits.Service(state.Config, k.args.text("service"))
	if err != nil {
		return "", nil, err
	}
	if !k.args.given("group") {
		return s.Name, nil, nil
	}
	g, err := edits.Group(s, k.args.text("group"))
	if err != nil {
		return "", nil, err
	}
	if k.args.given("name") {
		h, err := edits.Host(g, k.args.text("name"))
		if err != nil {
			return "", nil, err
		}
		return s.Name, slices.Collect(edits.StateHost(state, s.Name, g.Name, h.Name).All()), nil
	}
	for _, h := range edits.StateGroup(state, s.Name, g.Name).Hosts {
		targets = slices.AppendSeq(targets, h.All())
	}
	return s.Name, targets, nil
}

func (k *call) retryHost() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	group, name := k.args.text("group"), k.args.text("name")
	if k.args.set("dry-run") {
		down := 0
		for _, t := range targets {
			if !t.Host.Up() {
				down++
			}
		}
		return Result{Text: fmt.Sprintf("would mark host %s up; addresses down: %d of %d", show(name), down, len(targets))}, nil
	}
	n, err := k.admin.opt.Director.Retry(k.ctx, service, group, name)
	if err != nil {
		return Result{}, err
	}
	if n == 0 {
		return Result{Text: fmt.Sprintf("nothing to change: host %s is up", show(name))}, nil
	}
	return Result{Text: fmt.Sprintf("host %s is marked up", show(name))}, nil
}

// forgotten is the Data of forgetClients.
type forgotten struct {
	Clients int `json:"clients"`
}

func (k *call) forgetClients() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	g := edits.StateGroup(k.state(), service, k.args.text("group"))
	if g.Sticky == nil {
		return Result{Text: fmt.Sprintf("nothing to forget: the scheduler of group %s is %s, which is not sticky", show(g.Config.Name), g.Config.Scheduler), Data: forgotten{}}, nil
	}
	do, done := g.Sticky.Forget, "%s forgotten"
	if k.args.set("dry-run") {
		do, done = g.Sticky.Count, "would forget %s"
	}
	n := 0
	if k.args.given("name") {
		for _, t := range targets {
			n += do(t.Host)
		}
	} else {
		n = do(nil)
	}
	return Result{Text: fmt.Sprintf(done, count(n, "client")), Data: forgotten{n}}, nil
}

// process returns what a verb needs that is about the process.
func (k *call) process() (Process, error) {
	if k.admin.opt.Process == nil {
		return nil, refuse(ErrNotServed, "not served here: it needs %s", k.verb.Part)
	}
	return k.admin.opt.Process, nil
}

func (k *call) closeLog() (Result, error) {
	p, err := k.process()
	if err != nil {
		return Result{}, err
	}
	return Result{Text: "log reopened"}, p.CloseLog()
}

func (k *call) upgrade() (Result, error) {
	switch {
	case k.args.set("cancel"):
		return k.cancelFleet()
	case k.args.given("order"):
		return Result{}, refuse(ErrUsage, "order= says what is cancelled; write --cancel too")
	}
	if k.args.set("fleet") || k.args.given("node") || k.args.given("wait") {
		return k.orderFleet()
	}
	p, err := k.process()
	if err != nil {
		return Result{}, err
	}
	text, err := p.Upgrade(k.ctx, k.caller.Name, k.caller.From)
	return Result{Text: text}, err
}

func (k *call) shutdown() (Result, error) {
	if k.args.given("node") || k.args.given("wait") {
		return k.orderFleet()
	}
	p, err := k.process()
	if err != nil {
		return Result{}, err
	}
	p.Shutdown()
	return Result{Text: "draining, then shutting down"}, nil
}

func (k *call) report() (Result, error) {
	report := k.admin.opt.Reports[k.verb.Name]
	if report == nil {
		return Result{}, refuse(ErrNotServed, "not served here: it needs %s", k.verb.Part)
	}
	text, data, err := report(k.ctx)
	return Result{Text: text, Data: data}, err
}
