package page

// Figures is the data of the event "figures" that live pages get once a second:
// what moves by itself.
//
// A page compares Boot, Version, Generation and Revision with its own. Another Boot
// means another process; with another Version too, the page reloads itself.
// Another Revision means that rows, problems or their order have changed; the page
// fetches its changing part again.
type Figures struct {
	Time       int64  `json:"time"` // milliseconds since 1970
	Boot       string `json:"boot"`
	Version    string `json:"version"`
	Generation uint64 `json:"generation"`
	Revision   string `json:"revision"`
	// Of all services.
	Sessions int64   `json:"sessions"` // now
	Rate     float64 `json:"rate"`
	InRate   float64 `json:"in_rate"`
	OutRate  float64 `json:"out_rate"`

	Services map[string]ServiceFigures `json:"services"` // by ServiceView.ID
	// Hosts has the hosts whose figures have changed since they were last sent, and
	// each host at least every 15 seconds; at most 400 in one event, so that it
	// stays small. By HostRow.ID.
	Hosts map[string]HostFigures `json:"hosts"`
}

// ServiceFigures are of one service. Rates are a second, over the last three.
type ServiceFigures struct {
	Sessions   int64    `json:"sessions"`    // now
	Total      uint64   `json:"total"`       // ever accepted
	Rate       float64  `json:"rate"`        // new ones
	In         uint64   `json:"in"`          // bytes from clients, ever
	Out        uint64   `json:"out"`         // bytes to clients, ever
	InRate     float64  `json:"in_rate"`     // bytes
	OutRate    float64  `json:"out_rate"`    // bytes
	Refused    uint64   `json:"refused"`     // clients closed without a host, ever
	RefusedNow uint64   `json:"refused_now"` // of them in the last ten seconds
	Failures   uint64   `json:"failures"`    // failed connects, ever
	FailRate   float64  `json:"fail_rate"`
	ConnectMS  *float64 `json:"connect_ms"` // mean time of connects to its hosts; null: there was none
	// Mean turnaround: from the last byte of a client to the first one back of its host; null:
	// there was none.
	TurnaroundMS *float64 `json:"turnaround_ms"`

	// Queues has the groups with a queue, by GroupView.ID.
	Queues map[string]QueueFigures `json:"queues,omitempty"`
	// Mirrors has the mirrors of its groups, by MirrorView.ID.
	Mirrors map[string]MirrorFigures `json:"mirrors,omitempty"`
}

// MirrorFigures are of a mirror.
type MirrorFigures struct {
	Copies   int64  `json:"copies"`   // sessions that are being copied
	Sessions uint64 `json:"mirrored"` // that were to be copied, ever
	Bytes    uint64 `json:"bytes"`
	Lost     uint64 `json:"lost"` // copies that are not whole
}

// QueueFigures are of the queue of a group: clients that wait until a host has room.
type QueueFigures struct {
	Waiting int      `json:"waiting"` // now
	Most    int      `json:"most"`    // at once, ever
	WaitMS  *float64 `json:"wait_ms"` // mean of about the last 1,024 that waited; null: nobody has
}

// HostFigures are of one host, all addresses together. Rates are as for services.
type HostFigures struct {
	Sessions int64   `json:"sessions"`
	Total    uint64  `json:"total"`
	Rate     float64 `json:"rate"`
	Failures uint64  `json:"failures"`
	In       uint64  `json:"in"`
	Out      uint64  `json:"out"`
	InRate   float64 `json:"in_rate"`
	OutRate  float64 `json:"out_rate"`
	// Mean time of clients' connects in the last three seconds; null: there was
	// none.
	ConnectMS *float64 `json:"connect_ms"`
	// Mean turnaround, likewise; see ServiceFigures.
	TurnaroundMS *float64 `json:"turnaround_ms"`
	Checked      int64    `json:"checked"`  // when the last check ended, milliseconds since 1970; 0: there was none
	CheckMS      *float64 `json:"check_ms"` // how long it took, if the host passed; else null
	// Sessions on other nodes of the fleet, for people; not there: not known, or no fleet.
	Elsewhere string `json:"elsewhere,omitempty"`
}

// History is the past of services and hosts, as the charts of a page that has
// just been opened need it, the newest value last.
type History struct {
	Time   int64             `json:"time"` // of the last value, milliseconds since 1970
	Step   int               `json:"step"` // milliseconds between two
	Series map[string]Series `json:"series"`
}

// Series is the past of one service or host. All fields have the same length. A
// service has no CheckMS. Null: nothing was measured.
type Series struct {
	Rate         []float32  `json:"rate"`
	Sessions     []float32  `json:"sessions"`
	InRate       []float32  `json:"in_rate"`
	OutRate      []float32  `json:"out_rate"`
	ConnectMS    []*float32 `json:"connect_ms,omitempty"`
	CheckMS      []*float32 `json:"check_ms,omitempty"`
	TurnaroundMS []*float32 `json:"turnaround_ms,omitempty"`
}
