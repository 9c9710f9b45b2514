package page

// Figures is the data of the event "figures" that live pages get once a second:
// what moves by itself. The JSON names are short, as there may be many hosts.
//
// A page compares Boot, Version, Generation and Revision with its own: another
// Boot is another process, and if it has another Version too, the page loads
// itself anew; another Revision means that rows, problems or their order have
// changed, and the page fetches its changing part again.
type Figures struct {
	Time       int64  `json:"time"` // milliseconds since 1970
	Boot       string `json:"boot"`
	Version    string `json:"version"`
	Generation uint64 `json:"generation"`
	Revision   string `json:"revision"`
	Sessions   int64  `json:"sessions"` // now, all services

	Services map[string]ServiceFigures `json:"services"` // by ServiceView.ID
	// Hosts has those whose figures have changed since they were last sent, and
	// each at least every 15 seconds; at most 400 at once, so that the event
	// stays small however many there are. By HostRow.ID.
	Hosts map[string]HostFigures `json:"hosts"`
}

// ServiceFigures are of one service.
type ServiceFigures struct {
	Sessions int64    `json:"n"`           // now
	Total    uint64   `json:"t"`           // ever accepted
	Rate     float64  `json:"r"`           // new ones a second
	In       uint64   `json:"i"`           // bytes from clients, ever
	Out      uint64   `json:"o"`           // bytes to clients, ever
	InRate   float64  `json:"ir"`          // bytes a second
	OutRate  float64  `json:"or"`          // bytes a second
	Refused  uint64   `json:"x"`           // clients closed without a host, ever
	RefuseBy float64  `json:"xr"`          // of them a second
	Failed   float64  `json:"fr"`          // failed connects a second
	Connect  *float64 `json:"c,omitempty"` // connect time in milliseconds, as the last probes of its hosts measured it, on average; nil: none did
}

// HostFigures are of one host, all addresses together.
type HostFigures struct {
	Sessions int64    `json:"n"` // now
	Total    uint64   `json:"t"` // ever
	Rate     float64  `json:"r"` // new ones a second
	Failures uint64   `json:"f"` // failed connects, ever
	In       uint64   `json:"i"`
	Out      uint64   `json:"o"`
	InRate   float64  `json:"ir"`
	OutRate  float64  `json:"or"`
	Checked  int64    `json:"k,omitempty"` // when the last probe ended, milliseconds since 1970
	Connect  *float64 `json:"c,omitempty"` // how long it took, in milliseconds; nil: it failed, or there was none
}

// History is the past of services and hosts, as the charts of a page that has
// just been opened need it: one value for each second, the newest last.
type History struct {
	Time   int64             `json:"time"` // of the last value, milliseconds since 1970
	Step   int               `json:"step"` // milliseconds between two
	Series map[string]Series `json:"series"`
}

// Series is the past of one service or host. All have the same length.
type Series struct {
	Rate     []float32  `json:"r"`
	Sessions []float32  `json:"n"`
	InRate   []float32  `json:"ir"`
	OutRate  []float32  `json:"or"`
	Connect  []*float32 `json:"c"` // milliseconds; null: nothing was measured
}
