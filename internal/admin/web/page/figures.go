package page

import "time"

// The live events of /api/v1/events, as the server-sent events (SSE) named
// hello, figures, change and health carry them, each as one line of JSON. web
// makes them; the page's script and programs read them.
//
// A stream begins with one hello and one figures event that is full. Then comes
// a figures event about once a second, a change event for each change of the
// configuration and a health event for each host that has gone down or come
// back, within a second. Only change and health events have an id: a client
// that reconnects sends it as Last-Event-ID and gets those it has missed, as
// far as they are remembered; hello.Resync tells that some may be missing.

// Hello is the data of the event hello.
type Hello struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"` // of the process: another one means a restart
	// Generation is that of the configuration now. A page that was made of
	// another one shows what was.
	Generation uint64 `json:"generation"`
	Resync     bool   `json:"resync"` // events may be missing since Last-Event-ID: load the page again
}

// Figures is the data of the event figures: one sample of all counters, the
// same one for all who watch. Rates are over Seconds; they are 0 in the first
// sample after nobody has watched.
type Figures struct {
	Time       time.Time `json:"time"`
	Seconds    float64   `json:"seconds"` // since the sample before; 0: there was none
	Generation uint64    `json:"generation"`
	Unsaved    int       `json:"unsaved"` // changes made at run time that the file does not have; -1: there is no file
	// Full tells that all hosts are here. Otherwise they are those that look
	// other than in the figures before, a thousand at most; the next figures have
	// those that were left.
	Full     bool             `json:"full"`
	Total    Counts           `json:"total"` // of all services
	Services []ServiceFigures `json:"services"`
	Hosts    []HostFigures    `json:"hosts"`
}

// Counts are what is counted of clients.
type Counts struct {
	Sessions int64   `json:"sessions"`  // open now
	Total    uint64  `json:"total"`     // ever
	Rate     float64 `json:"rate"`      // new ones a second
	In       uint64  `json:"in"`        // bytes from clients, ever
	Out      uint64  `json:"out"`       // bytes to clients, ever
	InRate   float64 `json:"in_rate"`   // bytes a second
	OutRate  float64 `json:"out_rate"`  // bytes a second
	Failures uint64  `json:"failures"`  // connects to a host that failed, ever
	FailRate float64 `json:"fail_rate"` // a second
	Refused  uint64  `json:"refused"`   // clients closed without a host, ever; of services only
}

// ServiceFigures is one service.
type ServiceFigures struct {
	Service string   `json:"service"`
	Group   string   `json:"group"` // the enabled one, "" without
	Up      int      `json:"up"`    // hosts of it that are up
	Hosts   int      `json:"hosts"` // hosts of it
	CheckMS *float64 `json:"check_ms"`
	Counts
}

// HostFigures is one host, the counters of all its addresses together.
type HostFigures struct {
	Service string `json:"service"`
	Group   string `json:"group"`
	Host    string `json:"host"`
	State   string `json:"state"`  // ready, drain, maint
	Health  string `json:"health"` // up; down; part: only some of its addresses are up
	// Reason says why it is down, or what the last probes said while it is on
	// its way down or up; "" if nothing is wrong.
	Reason string `json:"reason"`
	Weight int    `json:"weight"`
	// CheckMS is how long the last probe that passed took, in milliseconds: for
	// a TCP probe the time to connect. null: there was none. Of a service it is the
	// mean over the hosts of the enabled group that have one.
	CheckMS *float64 `json:"check_ms"`
	Counts
}

// Change is the data of the event change: the configuration has been changed.
type Change struct {
	Time       time.Time `json:"time"`
	Generation uint64    `json:"generation"` // that came of it
	By         string    `json:"by"`
	From       string    `json:"from"`
	Verb       string    `json:"verb"`  // what was asked for, without secrets
	Edits      []string  `json:"edits"` // what it did, as verbs; at most twenty, without secrets
}

// Health is the data of the event health: a host has gone down or come back.
type Health struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	Group   string    `json:"group"`
	Host    string    `json:"host"`
	Address string    `json:"address"`
	Up      bool      `json:"up"`
	Reason  string    `json:"reason"`
}
