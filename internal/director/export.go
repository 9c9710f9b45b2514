package director

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// The state of a director outlives its process: [Director.Export] writes it, [ReadState]
// reads it, and New begins with it ([Options].Inherited). While the other process starts,
// this one goes on: [Director.ExportChanges] writes what has changed since, and
// [Director.TakeIn] takes that in. See docs/design/hand-over-state.md.

// stateFormat is the number of the format. It changes only if a reader of the old one would
// misunderstand the new one: unknown fields are ignored, and fields that are missing have
// their zero values.
const stateFormat = 1

// exported is the state as it is written, in JSON. Times are those of the wall clock.
type exported struct {
	Format  int       `json:"format"`
	At      time.Time `json:"at"`
	Partial bool      `json:"partial,omitempty"` // by ExportChanges: the configuration and its history are missing

	Generation   uint64            `json:"generation"`
	Config       string            `json:"config,omitempty"` // that runs, as a document
	File         *exportedFile     `json:"file,omitempty"`
	ReloadFailed bool              `json:"reload_failed,omitempty"`
	Closed       []Closed          `json:"closed,omitempty"`  // listeners that could not be opened
	Events       uint64            `json:"events"`            // Seq of the newest
	Changes      []exportedEvent   `json:"changes,omitempty"` // the oldest first
	Pending      []exportedPending `json:"pending,omitempty"` // changes that wait to be confirmed, the oldest first
	Undone       uint64            `json:"undone,omitempty"`  // changes that were undone
	Notes        []Event           `json:"notes,omitempty"`   // all other events, the oldest first

	Services  []exportedService   `json:"services,omitempty"`
	Loops     []engine.LoopStats  `json:"loops,omitempty"`
	Names     []exportedName      `json:"names,omitempty"`
	Leavers   []exportedLeaver    `json:"leavers,omitempty"`
	Usability []exportedUsability `json:"usability,omitempty"`
	Ended     []exportedEnded     `json:"ended,omitempty"` // holds of all nodes
}

// exportedEnded is a hold of all nodes that has ended on this one.
type exportedEnded struct {
	Service string `json:"service"`
	Group   string `json:"group"`
	ID      string `json:"id"`
}

// exportedFile is the configuration file as it was last read or written.
type exportedFile struct {
	Path  string   `json:"path"`
	Data  []byte   `json:"data"`
	Notes []string `json:"notes,omitempty"`
}

// exportedEvent is a change of the configuration with its way back.
type exportedEvent struct {
	Event
	Undo []changes.Edit
}

// exportedPending is a [Pending].
type exportedPending struct {
	Generation uint64          `json:"generation"`
	Made       time.Time       `json:"made"`
	Until      time.Time       `json:"until"`
	By         string          `json:"by,omitempty"`
	From       string          `json:"from,omitempty"`
	Verb       string          `json:"verb"`
	Trouble    string          `json:"trouble,omitempty"`
	Shared     bool            `json:"shared,omitempty"`
	File       *exportedFile   `json:"file,omitempty"` // that a reload has read
	Groups     []exportedWatch `json:"groups,omitempty"`
	// Then are the edits from the configuration that runs to the one that the change has
	// made, and Undo those from there to the one before.
	Then []changes.Edit `json:"then,omitempty"`
	Undo []changes.Edit `json:"undo,omitempty"`
}

// exportedWatch is a group that a change has enabled.
type exportedWatch struct {
	Service string `json:"service"`
	Group   string `json:"group"`
	Usable  bool   `json:"usable,omitempty"` // it has had a host that is up
}

type exportedService struct {
	Name   string              `json:"name"`
	Stats  engine.ServiceStats `json:"stats"`
	Routes []exportedRoute     `json:"routes,omitempty"`
	Groups []exportedGroup     `json:"groups,omitempty"`
}

// exportedRoute is how many clients a route has had.
type exportedRoute struct {
	SNI     string `json:"sni,omitempty"`
	ALPN    string `json:"alpn,omitempty"`
	Nets    string `json:"net,omitempty"`
	N       int    `json:"n,omitempty"` // of several with the same conditions
	Group   string `json:"group"`
	Clients uint64 `json:"clients"`
}

type exportedGroup struct {
	Name     string           `json:"name"`
	Connects *sched.Histogram `json:"connects,omitempty"`
	Sessions *sched.Histogram `json:"sessions,omitempty"`
	Waits    *sched.Histogram `json:"waits,omitempty"`
	Turns    *sched.Histogram `json:"turnarounds,omitempty"`
	Longest  int              `json:"longest,omitempty"` // queue
	Hosts    []exportedHost   `json:"hosts,omitempty"`
	Clients  clientList       `json:"clients,omitempty"` // that come back
	Mirrors  []exportedMirror `json:"mirrors,omitempty"`
	Hold     *exportedHold    `json:"hold,omitempty"`
	Command  *exportedCommand `json:"command,omitempty"`
}

// exportedCommand is <group onHold> that has been run.
type exportedCommand struct {
	Began time.Time `json:"began"`
	Runs  bool      `json:"runs,omitempty"` // and ends with this process
}

// exportedHold is a [Hold].
type exportedHold struct {
	By       string        `json:"by,omitempty"`
	From     string        `json:"from,omitempty"`
	Since    time.Time     `json:"since"`
	Until    time.Time     `json:"until"`
	Most     int           `json:"max"`
	Released time.Time     `json:"released,omitzero"`
	Over     time.Duration `json:"over,omitempty"`
	Waited   int           `json:"waited,omitempty"`
	ID       string        `json:"id,omitempty"`
	Release  string        `json:"release_id,omitempty"`
}

type exportedHost struct {
	Name    string            `json:"name"`
	Stats   sched.HostStats   `json:"stats"`
	Checks  map[string]uint64 `json:"checks,omitempty"`
	Targets []exportedTarget  `json:"targets,omitempty"`
	Gone    []exportedTarget  `json:"gone,omitempty"` // addresses that it no longer has, the oldest first
}

// exportedTarget is an address with its health.
type exportedTarget struct {
	Addr    string        `json:"addr"`
	Up      bool          `json:"up"`
	Era     uint32        `json:"era,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Since   time.Time     `json:"since"`
	Check   exportedCheck `json:"check,omitzero"`
	Failed  int           `json:"failed,omitempty"`
	Passed  int           `json:"passed,omitempty"`
	Waiting bool          `json:"waiting,omitempty"` // for its first check
	Last    time.Time     `json:"last"`
	Next    time.Time     `json:"next,omitzero"`
	Ramp    time.Time     `json:"ramp,omitzero"` // when the slow start began that is under way

	Ejection *exportedEjection `json:"ejection,omitempty"`

	Left    time.Time `json:"left,omitzero"` // when its host has lost it
	Returns bool      `json:"returns,omitempty"`
}

type exportedCheck struct {
	Code  string        `json:"code,omitempty"`
	Text  string        `json:"text,omitempty"`
	Took  time.Duration `json:"took,omitempty"`
	Ended time.Time     `json:"ended,omitzero"`
}

// exportedName is a DNS name with what it stands for.
type exportedName struct {
	Name  string             `json:"name"`
	Ends  []exportedEndpoint `json:"ends,omitempty"`
	Err   string             `json:"err,omitempty"`
	Since time.Time          `json:"since,omitzero"`
	Next  time.Time          `json:"next,omitzero"`
}

type exportedEndpoint struct {
	IP       string `json:"ip"`
	Target   string `json:"target,omitempty"`
	Port     uint16 `json:"port,omitempty"`
	Priority uint16 `json:"priority,omitempty"`
	Weight   uint16 `json:"weight,omitempty"`
}

// exportedLeaver is a [Leaver].
type exportedLeaver struct {
	Service string          `json:"service"`
	Group   string          `json:"group,omitempty"`
	Host    string          `json:"host,omitempty"`
	Address string          `json:"address"`
	Removed bool            `json:"removed,omitempty"`
	Until   time.Time       `json:"until,omitzero"`
	Since   time.Time       `json:"since"`
	Target  *exportedTarget `json:"target,omitempty"` // of a host that was removed
}

// exportedUsability is what was last logged about a group.
type exportedUsability struct {
	Service string    `json:"service"`
	Group   string    `json:"group,omitempty"`
	Takes   bool      `json:"takes,omitempty"`
	Usable  bool      `json:"usable,omitempty"`
	Since   time.Time `json:"since"`
	Told    bool      `json:"told,omitempty"`
}

// clientList are clients that come back, clientSize bytes each: the address, the number of
// their target among all that the group's hosts list, and for how many seconds they have
// been away.
type clientList []byte

const clientSize = 16 + 4 + 4

func (l *clientList) add(c sched.Client, target int) {
	*l = append(*l, c.Address[:]...)
	*l = binary.BigEndian.AppendUint32(*l, uint32(target))
	*l = binary.BigEndian.AppendUint32(*l, uint32(min(c.Away/time.Second, 1<<31)))
}

// each calls yield with the clients, without their hosts.
func (l clientList) each(yield func(c sched.Client, target uint32)) {
	for ; len(l) >= clientSize; l = l[clientSize:] {
		c := sched.Client{Away: time.Duration(binary.BigEndian.Uint32(l[20:])) * time.Second}
		copy(c.Address[:], l)
		yield(c, binary.BigEndian.Uint32(l[16:]))
	}
}

// Export returns the state of the director for another process: the configuration that
// runs and its history, the file as it was last read or written, counters, health, slow
// starts, what drains, addresses of names, and the clients of sticky groups. It is of one
// moment, but for clients of sticky groups. Run has to be under way, and makes decisions
// late by a few milliseconds; clients notice nothing. The error is [ErrStopped] if Run has
// returned. The state contains password hashes.
func (d *Director) Export() ([]byte, error) { return d.export(false) }

// ExportChanges returns what has changed since the last Export or ExportChanges while
// changes of the configuration were refused ([Director.Freeze]): health and counters of
// all hosts, new clients of sticky groups, and events. When Run has returned, it returns the
// counters alone, as sessions may go on. See [Director.TakeIn].
func (d *Director) ExportChanges() ([]byte, error) { return d.export(true) }

func (d *Director) export(partial bool) ([]byte, error) {
	var e *exported
	var finish func() error
	err := d.order(context.Background(), func() { e, finish = d.picture(time.Now(), partial) })
	if partial && errors.Is(err, ErrStopped) {
		e, finish, err = d.counts(), func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	if err := finish(); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// picture notes the state. What does not change any more, and what needs no single moment,
// finish does on the caller's goroutine.
func (d *Director) picture(now time.Time, partial bool) (e *exported, finish func() error) {
	state, snap := d.State(), d.eng.Snapshot()
	within := never
	if partial {
		within = now.Sub(d.exported) + 2*scanEvery // a Sticky ticks as often
	}
	e = &exported{Format: stateFormat, At: now.Round(0), Partial: partial, Generation: state.Generation}
	e.count(state, snap)
	var sticky []func()
	for i, s := range state.Services {
		for j, g := range s.Groups {
			to := &e.Services[i].Groups[j]
			for k, h := range g.Hosts {
				to.Hosts[k].health(h)
			}
			if g.Sticky != nil {
				sticky = append(sticky, func() { to.Clients = g.clients(within) })
			}
		}
	}
	e.Leavers = d.exportLeavers()
	list, notes, last := d.eventsSince(d.noted, partial)
	e.Events, e.Notes = last, notes
	pending := state.Pending()
	if !partial {
		e.Names, e.Usability = d.exportNames(), d.exportUsability()
		e.ReloadFailed = d.files.failed.Load()
		e.Closed = d.Closed()
		e.File = exportFile(d.files.doc.Load())
		e.Undone = d.undos.Load()
		for key, id := range d.ended {
			e.Ended = append(e.Ended, exportedEnded{key.service, key.group, id})
		}
		for _, p := range pending {
			e.Pending = append(e.Pending, p.export())
		}
	}
	d.exported, d.noted = now, e.Events
	return e, func() error {
		for _, f := range sticky {
			f()
		}
		if partial {
			return nil
		}
		text, err := state.Config.Marshal()
		if err != nil {
			return err
		}
		e.Config = string(text)
		for i, p := range pending {
			e.Pending[i].Then, e.Pending[i].Undo = changes.Diff(state.Config, p.after), changes.Diff(p.after, p.before)
		}
		for _, ev := range list {
			work := ev.work()
			one := exportedEvent{ev.Event, work.undo}
			one.Edits = work.done
			e.Changes = append(e.Changes, one)
		}
		return nil
	}
}

func exportFile(doc *document.File) *exportedFile {
	if doc == nil {
		return nil
	}
	return &exportedFile{Path: doc.Path, Data: doc.Data(), Notes: doc.Notes}
}

// read reads a file as it was read or written there.
func (f *exportedFile) read() (*document.File, error) {
	if f == nil {
		return nil, nil
	}
	doc, problems := document.Read(f.Path, f.Data)
	if doc == nil {
		return nil, fmt.Errorf("state: %w", problems)
	}
	doc.Notes = f.Notes
	return doc, nil
}

// export notes a change that waits to be confirmed, without its edits.
func (p *Pending) export() exportedPending {
	e := exportedPending{
		Generation: p.Generation, Made: p.Made.Round(0), Until: p.Until.Round(0), By: p.By, From: p.From, Verb: p.Verb, Trouble: p.Trouble,
		Shared: p.shared, File: exportFile(p.doc),
	}
	for key, usable := range p.watch.groups {
		e.Groups = append(e.Groups, exportedWatch{key.service, key.group, usable})
	}
	return e
}

// counts has the counters alone. Any goroutine may call it.
func (d *Director) counts() *exported {
	e := &exported{Format: stateFormat, At: time.Now().Round(0), Partial: true}
	e.count(d.State(), d.eng.Snapshot())
	return e
}

// count notes the counters of all services.
func (e *exported) count(state *State, snap engine.Snapshot) {
	e.Loops, e.Services = snap.Loops, make([]exportedService, len(state.Services))
	for i, s := range state.Services {
		one := exportedService{Name: s.Config.Name, Stats: snap.Services[s.Config.Name], Routes: s.exportRoutes()}
		for _, g := range s.Groups {
			one.Groups = append(one.Groups, g.export())
		}
		e.Services[i] = one
	}
}

// eventsSince returns changes of the configuration, without their edits, other events, and the Seq
// of the newest of all.
// If partial, only those other events that came after seq.
func (d *Director) eventsSince(seq uint64, partial bool) (list []*event, notes []Event, last uint64) {
	d.events.mu.Lock()
	defer d.events.mu.Unlock()
	if !partial {
		list = append(list, d.events.list...)
	}
	for _, n := range d.events.notes {
		if !partial || n.Seq > seq {
			notes = append(notes, n)
		}
	}
	return list, notes, d.events.seq
}

func (s *Service) exportRoutes() (list []exportedRoute) {
	clients := s.Routed()
	if clients == nil {
		return nil
	}
	for i, key := range routeKeys(s.rules.routes) {
		list = append(list, exportedRoute{key.sni, key.alpn, key.nets, key.n, s.rules.routes[i].Group, clients[i]})
	}
	return list
}

func (g *Group) export() exportedGroup {
	e := exportedGroup{Name: g.Config.Name, Longest: g.Times.Queue.Longest(), Hosts: make([]exportedHost, len(g.Hosts))}
	if h := g.Hold(); h != nil {
		e.Hold = &exportedHold{h.By, h.From, h.Since.Round(0), h.Until.Round(0), h.Most, h.Released.Round(0), h.Over, h.Waited, h.ID, h.ReleaseID}
	}
	if h := g.holding; !h.began.IsZero() {
		e.Command = &exportedCommand{h.began.Round(0), h.running.Load()}
	}
	counted := g.Times.Counted()
	some := func(h *sched.Histogram) *sched.Histogram {
		if h.Count() == 0 {
			return nil
		}
		return h
	}
	e.Mirrors = g.exportMirrors()
	e.Connects, e.Sessions, e.Waits = some(&counted.Connects), some(&counted.Sessions), some(&counted.Waits)
	e.Turns = some(&counted.Turnarounds)
	for i, h := range g.Hosts {
		one := exportedHost{Name: h.Config.Name, Stats: h.Stats()}
		for code, n := range h.Checks() {
			if one.Checks == nil {
				one.Checks = map[string]uint64{}
			}
			one.Checks[code] = n
		}
		e.Hosts[i] = one
	}
	return e
}

// health notes that of a host's addresses.
func (e *exportedHost) health(h *Host) {
	for _, t := range h.Targets {
		e.Targets = append(e.Targets, t.export())
	}
	for _, p := range h.departed {
		gone := p.target.export()
		gone.Left, gone.Returns = p.since.Round(0), p.returns
		e.Gone = append(e.Gone, gone)
	}
}

// clients returns those of the group's clients that have come or gone within a time.
func (g *Group) clients(within time.Duration) (list clientList) {
	number, n := map[*sched.Host]int{}, 0
	for _, h := range g.Hosts {
		for t := range h.All() {
			number[t.Host] = n
			n++
		}
	}
	g.Sticky.Clients(within, func(c sched.Client) bool {
		if i, there := number[c.Host]; there {
			list.add(c, i)
		}
		return true
	})
	return list
}

func (t *Target) export() exportedTarget {
	s := t.Status()
	era, up := t.Host.Standing()
	e := exportedTarget{
		Addr: t.key.addr.String(), Up: up, Era: era, Reason: s.Reason, Since: s.Since.Round(0),
		Failed: t.failed, Passed: t.passed, Waiting: t.waiting, Last: t.last.Round(0), Next: t.next.Round(0),
	}
	if s.Up && !up { // the report of the engine has not come yet
		e.Reason, e.Since, e.Failed, e.Passed = connectFailed, time.Now().Round(0), 0, 0
	}
	if s.Check.Code != health.Unknown {
		e.Check = exportedCheck{s.Check.Code.String(), s.Check.Text, s.Check.Took, s.Checked.Round(0)}
	}
	e.Ejection = t.grey.ejection.export()
	if t.step < rampSteps {
		e.Ramp = t.since.Round(0)
	}
	return e
}

func (d *Director) exportLeavers() (list []exportedLeaver) {
	each := func(l *Leaver) {
		e := exportedLeaver{
			Service: l.Service, Group: l.Group, Host: l.Host, Address: l.Address, Removed: l.Removed, Until: l.Until.Round(0), Since: l.since.Round(0),
		}
		if l.target != nil && l.Removed {
			t := l.target.export()
			e.Target = &t
		}
		list = append(list, e)
	}
	for _, l := range d.leavers.hosts {
		if l.Removed || !l.Until.IsZero() {
			each(l)
		}
	}
	for _, l := range d.leavers.listeners {
		each(l)
	}
	return list
}

func (d *Director) exportNames() (list []exportedName) {
	for host := range d.used {
		n := d.names[host]
		e := exportedName{Name: host, Since: n.since.Round(0), Next: n.next.Round(0)}
		if n.err != nil {
			e.Err = n.err.Error()
		}
		for _, end := range n.ends {
			e.Ends = append(e.Ends, exportedEndpoint{end.ip.String(), end.target, end.port, end.priority, end.weight})
		}
		list = append(list, e)
	}
	return list
}

func (d *Director) exportUsability() (list []exportedUsability) {
	for key, u := range d.usability {
		list = append(list, exportedUsability{key.service, key.group, key.takes, u.usable, u.since.Round(0), u.told})
	}
	return list
}

// Inherited is the state of a director in another process, for [Options].Inherited.
type Inherited struct {
	Config   *config.Config // that ran, with what is not saved
	Document *document.File // as it was last read or written there; nil: there was none

	state exported
}

// ReadState reads what [Director.Export] has written, in this version of txlb or another.
// An error says what this one does not understand.
func ReadState(data []byte) (*Inherited, error) {
	in := &Inherited{}
	if err := in.state.read(data); err != nil {
		return nil, err
	}
	if in.state.Partial || in.state.Config == "" {
		return nil, errors.New("state: there is no configuration in it")
	}
	const name = "configuration of the other process"
	cfg, problems := config.Parse(name, []byte(in.state.Config))
	if cfg == nil {
		return nil, fmt.Errorf("state: %w", problems)
	}
	in.Config = cfg
	doc, err := in.state.File.read()
	if err != nil {
		return nil, err
	}
	if doc != nil {
		changes.Place(cfg, doc.Config)
		in.Document = doc
	}
	return in, nil
}

// read reads a state of the right format.
func (e *exported) read(data []byte) error {
	if err := json.Unmarshal(data, e); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if e.Format != stateFormat {
		return fmt.Errorf("state: the format is %d; this version of txlb reads format %d", e.Format, stateFormat)
	}
	return nil
}
