package page

import (
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/status"
)

// Source is what a View is made of.
type Source struct {
	*status.Reading
	Boot string // tells one process from the next

	User      string        // the user
	CanChange bool          // the user has the role full; otherwise there are no controls
	Refresh   time.Duration // of a page without JavaScript; 0: never

	LastEvent uint64 // the number of the last event; Events may have newer ones

	Events  []Event  // the oldest first
	Query   Query    // which hosts to show, from the address of the page
	Message *Message // the answer to a verb, or nil
	Root    string   // the folder of the pages, seen from this one; "": "./"
	Part    bool     // write only the changing part, for a page that is loaded (header HX-Request: true)

	Verbs []admin.Verb // that can be executed; nil: all of the table
}

// Query says which hosts a page shows. [ParseQuery] reads it from the page's
// address, so it works without JavaScript and as a bookmark.
type Query struct {
	Filter string // words that name, address, reason, group or service must have
	Only   string // "", "problems", "ready", "drain", "maint", "up", "down"
	Sort   string // "" (problems first), name, sessions, rate, failures, weight, address; "-" in front reverses
	More   string // the ID of the group that is shown from From on
	From   int    // how many of its hosts are skipped
}

// View is what the running page shows. Templates only write it.
type View struct {
	Source
	Generation  uint64
	Revision    string // changes with everything a page shows except numbers; see Figures
	Overall     Level
	Summary     string            // the overall state in words
	Problems    []Problem         // the worst first
	Unconfirmed []UnconfirmedView // changes that wait to be confirmed, the oldest first
	Services    []ServiceView
	Hosts       int // all there are
	Matching    int // of them, that match the query
	Shown       int // of those, on this page
	Sessions    int64
}

// Level is how bad something is. Its String is a CSS class too.
type Level = status.Level

const (
	Fine     = status.Fine
	Notice   = status.Notice
	Warning  = status.Warning
	Critical = status.Critical
)

// Problem is something that is wrong now.
type Problem struct {
	Level   Level
	Text    string   // one line
	Remedy  string   // what would help, "" if that is obvious
	Details []string // such as the hosts; a bounded number
	More    int      // how many further details there are
	Anchor  string   // ID of the element that it is about, or ""
	Fixes   []link   // verbs that would help
}

// UnconfirmedView is a change that is undone unless it is confirmed.
type UnconfirmedView struct {
	Generation uint64
	What, By   string
	Until      time.Time
	Trouble    string // why its undo failed, "" if it has not
	Overdue    bool   // its time is over, and the store of the fleet has not said so yet
	Confirm    Action
}

// ServiceView is one service.
type ServiceView struct {
	ID         string // of its element, and its key in Figures.Services
	Name       string
	Level      Level
	Listeners  []ListenerView
	Routes     []RouteView // the first of them
	MoreRoutes int         // how many more there are
	Groups     []GroupView // the enabled one first
	Endings    []EndingView
	Figures    ServiceFigures
}

// EndingView is how sessions have ended that did not end normally.
type EndingView struct {
	Code     string // the two letters of the access log
	Sessions uint64
	Meaning  string
}

// RouteView is a route of a service, by its number.
type RouteView struct {
	Number int
	Text   string
}

// ListenerView is an address that a service listens on.
type ListenerView struct {
	Listen string // as configured
	Bound  string // as bound, if that differs
	Tags   []string
}

// GroupView is one group of a service.
type GroupView struct {
	ID        string
	Name      string
	Service   string
	Enabled   bool
	Routed    bool // not enabled, and a route leads to it
	Scheduler string
	Level     Level
	Check     string        // how its hosts are checked, in words
	Up, Total int           // hosts
	Queue     *QueueFigures // nil: clients never have to wait
	Hold      *HoldView     // how its new clients are held; nil: they are not
	Mirrors   []MirrorView
	Matching  int // hosts that match the query
	Rows      []HostRow
	From      int // how many hosts come before the rows
	Previous  int // where the page before begins, -1 if this is the first
	Next      int // where the next page begins, -1 if this is the last
}

// EjectedView is why a host that is up gets no new clients.
type EjectedView struct {
	Why   string
	Until time.Time // at least
}

// HoldView is how a group holds its new clients.
type HoldView struct {
	Words    string    // what becomes of them
	Until    time.Time // zero: not known
	Release  Action
	Operator bool // somebody holds them, and can release them
}

// MirrorView is a mirror of a group. It gets a copy of what clients send.
type MirrorView struct {
	ID      string // its key in ServiceFigures.Mirrors
	Address string // as configured
	Percent string
	Health  string // up, down
	Reason  string // why it is down, or what is wrong with its name
	Figures MirrorFigures
}

// HostRow is one host. Its counters are those of all its addresses.
type HostRow struct {
	Ejected *EjectedView // nil: it is not
	Pinned  bool         // eject="never"

	ID                          string // of its element, and its key in Figures.Hosts
	Service                     string
	Group                       string
	Name                        string
	Address                     string // as configured
	State                       string // ready, drain, maint
	Weight                      int
	Backup                      bool
	Zone                        string // "": near every node
	TLS                         string // yes, unverified; "": connections are plain
	Level                       Level
	Health                      string // up, down, part (some addresses), maint (not checked), none (no address)
	Reason                      string // why it is not up, or what is wrong with its name
	Since                       time.Time
	Turnaround, WorstTurnaround time.Duration // mean, and the longest of the last minute; 0: there was none
	Check                       CheckView     // the last check
	Targets                     []TargetView
	Figures                     HostFigures
	Counters                    []CounterView // on its own page
}

// CounterView is one counter of a host.
type CounterView struct {
	Label, Help string
	Value       uint64
	Bytes       bool
}

// CheckView is the last check of a host.
type CheckView struct {
	Code     string // HAProxy's code, "" before the first
	Text     string
	Took     time.Duration
	At       time.Time
	Progress string // such as "2 of 3 failed" on the way down, else ""
}

// TargetView is one address of a host.
type TargetView struct {
	Address  string
	Up       bool
	Leaving  bool // the host no longer has it
	Reason   string
	Since    time.Time
	Weight   int
	Backup   bool
	Sessions int64
	Total    uint64
	Failures uint64
	Check    CheckView
}

// Message is the answer to a verb.
type Message struct {
	Level Level  // Fine: done; Warning: done with a warning; Critical: refused
	Text  string // lines
	Undo  *Action
}

// Action is a form that posts a verb with its parameters.
type Action struct {
	Label  string // of the button
	Verb   string // the last part of the path, such as setHost
	Params []Param
}

// Param is one parameter of an Action.
type Param struct{ Name, Value string }

// Where names a service, a group or a host; the names below it are empty.
type Where struct{ Service, Group, Name string }

// Configs are the running and the stored configuration, with masked hashes for the
// role readonly.
type Configs struct {
	Running string   // XML
	Stored  string   // XML, "" without a file
	Path    string   // of the file
	Verbs   []string // that turn the stored one into the running one, without Pending
	Pending []string // changes that wait to be confirmed, and what becomes of them
}

// Event is something that happened.
type Event struct {
	Time       time.Time
	Kind       string // change, down, up or order
	Generation uint64 // of a change
	By, From   string // of a change
	What       string // one line: the verb; or which host, and why
	Details    []string
}

// Session is one open session.
type Session struct {
	ID                           uint64
	Service, Group, Host, Client string
	Started                      time.Time
	Idle                         time.Duration
	In, Out                      uint64
}

// EndedSession is a session that has ended, for the page of sessions.
type EndedSession struct {
	Session
	Ended       time.Time
	Lasted      time.Duration
	Termination string // two letters
}

// Meaning says what the letters of its termination mean.
func (s EndedSession) Meaning() string {
	t, _ := engine.TerminationOf(s.Termination)
	return t.Meaning
}

// Explained is what the page of a session shows.
type Explained struct {
	ID      uint64
	Session *explain.Session // nil: it is not known
}

// Open tells whether the session is open.
func (e Explained) Open() bool {
	return e.Session != nil && e.Session.Stage != string(engine.StageEnded)
}
