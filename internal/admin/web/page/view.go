package page

import (
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/status"
)

// Source is what a View is made of. The Reading is of one moment; nothing here is
// waited for, and nothing is changed.
type Source struct {
	*status.Reading
	Boot string // tells one process from the next

	User      string        // who looks
	CanChange bool          // the role full; without it there are no controls
	Refresh   time.Duration // of a page without JavaScript; 0: not at all

	LastEvent uint64 // counts what has happened since the start; Events may have a newer one

	Events  []Event  // what happened lately, the oldest first
	Query   Query    // which hosts to show, from the address of the page
	Message *Message // the answer to what was just done; nil: nothing was
	Part    bool     // only what changes, for a page that is there already (header HX-Request: true)

	Verbs []admin.Verb // what can be done; nil: all that the table has
}

// Query says which hosts a page shows. It is read from the page's address by
// [ParseQuery], so that it works without JavaScript and can be kept as a
// bookmark.
type Query struct {
	Filter string // words that name, address, reason, group or service must have
	Only   string // "", "problems", "ready", "drain", "maint", "up", "down"
	Sort   string // "" (problems first), name, sessions, rate, failures, weight, address; "-" in front reverses
	More   string // the ID of the group that is shown from From on
	From   int    // how many of its hosts are passed over
}

// View is what the running page shows: everything is worked out, so that the
// templates only write it down.
type View struct {
	Source
	Generation uint64
	Revision   string // changes with whatever a page shows that is no figure; see Figures
	Overall    Level
	Summary    string    // the overall state in words
	Problems   []Problem // the worst first; those alike are one
	Services   []ServiceView
	Hosts      int // all there are
	Matching   int // of them, that the query asks for
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
	Remedy  string   // what would help, "" if that is plain
	Details []string // such as the hosts that are meant, a bounded number
	More    int      // how many further details there are
	Anchor  string   // ID of the element on the page that it is about, "" for none
	Fixes   []link   // what would help at once
}

// ServiceView is one service.
type ServiceView struct {
	ID        string // of its element, and its key in Figures.Services
	Name      string
	Level     Level
	Listeners []ListenerView
	Groups    []GroupView // the enabled one first
	Figures   ServiceFigures
}

// ListenerView is an address that a service listens on.
type ListenerView struct {
	Listen string // as configured
	Bound  string // as bound, if that differs
}

// GroupView is one group of a service.
type GroupView struct {
	ID        string
	Name      string
	Service   string
	Enabled   bool
	Scheduler string
	Level     Level
	Check     string // how its hosts are probed, in words
	Up, Total int    // hosts
	Matching  int    // hosts that the query asks for
	Rows      []HostRow
	From      int // the rows begin behind so many
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
	Level    Level
	Health   string // up, down, part (some addresses), maint (not probed), none (no address)
	Reason   string // why it is not up, or what is wrong with its name
	Since    time.Time
	Check    CheckView // the last probe
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

// CheckView is the last probe of a host.
type CheckView struct {
	Code     string // HAProxy's word, "" before the first
	Text     string
	Took     time.Duration
	At       time.Time
	Progress string // such as "2 of 3 failed" on the way down, "" when nothing is on its way
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

// Message is the answer to something that was done.
type Message struct {
	Level Level  // Fine: done; Warning: done, and worth a second look; Critical: refused
	Text  string // lines
	Undo  *Action
}

// Action is a verb with its parameters, as a form that posts them. The names of
// the parameters are the verb's own.
type Action struct {
	Label  string // of the button
	Verb   string // the last part of the path, such as setHost
	Params []Param
}

// Param is one parameter of an Action.
type Param struct{ Name, Value string }

// Where is a service, a group of it or a host of that, as far as the names are
// not empty.
type Where struct{ Service, Group, Name string }

// Configs are the running and the stored configuration, hashes masked for
// those who may not see them.
type Configs struct {
	Running string   // XML
	Stored  string   // XML, "" without a file
	Path    string   // of the file
	Verbs   []string // what makes the stored one into the running one
}

// Event is something that happened.
type Event struct {
	Time       time.Time
	Kind       string // change, down, up, and whatever else whoever serves the page knows of
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
