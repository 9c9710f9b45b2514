package page

import (
	"time"

	"github.com/txlb/txlb/internal/admin"
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
	Generation uint64
	Revision   string // changes with everything a page shows except numbers; see Figures
	Overall    Level
	Summary    string    // the overall state in words
	Problems   []Problem // the worst first
	Services   []ServiceView
	Hosts      int // all there are
	Matching   int // of them, that match the query
	Shown      int // of those, on this page
	Sessions   int64
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
	Matching  int           // hosts that match the query
	Rows      []HostRow
	From      int // how many hosts come before the rows
	Previous  int // where the page before begins, -1 if this is the first
	Next      int // where the next page begins, -1 if this is the last
}

// HostRow is one host. Its counters are those of all its addresses.
type HostRow struct {
	ID       string // of its element, and its key in Figures.Hosts
	Service  string
	Group    string
	Name     string
	Address  string // as configured
	State    string // ready, drain, maint
	Weight   int
	Backup   bool
	Zone     string // "": near every node
	Level    Level
	Health   string // up, down, part (some addresses), maint (not checked), none (no address)
	Reason   string // why it is not up, or what is wrong with its name
	Since    time.Time
	Check    CheckView // the last check
	Targets  []TargetView
	Figures  HostFigures
	Counters []CounterView // on its own page
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
	Verbs   []string // that turn the stored one into the running one
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
