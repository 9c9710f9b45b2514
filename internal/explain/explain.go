// Package explain puts what is known of a session into words: of one that runs or has just ended
// ([Of]), and of one that an access log tells of. It is the one place that says these things, so
// that they sound the same wherever they are read.
package explain

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// Session is what is known of a session, for programs, with its timeline in words. Times in
// milliseconds count from Accepted unless their names say otherwise; nil is what has not
// happened, or is not known.
type Session struct {
	ID      string    `json:"id"`
	Service string    `json:"service"`
	Group   string    `json:"group,omitempty"`
	Host    string    `json:"host,omitempty"`    // that it has, or the last that was asked
	Address string    `json:"address,omitempty"` // of the host
	Stage   string    `json:"stage"`             // ended, or how far one is that runs
	Carrier string    `json:"carrier"`           // loop, or goroutine
	Moved   bool      `json:"moved,omitempty"`   // it came from the process before
	At      time.Time `json:"accepted"`

	Age  float64 `json:"age_ms"`            // until now, or until it ended
	Idle float64 `json:"idle_ms,omitempty"` // since the last byte, of one that runs

	Client     string `json:"client,omitempty"` // "" for a UNIX socket
	Proxied    bool   `json:"proxied,omitempty"`
	To         string `json:"to,omitempty"` // what the client has connected to
	Local      string `json:"local,omitempty"`
	ServerName string `json:"server_name,omitempty"`

	Heard *float64 `json:"heard_ms,omitempty"` // its PROXY header, ClientHello or TLS handshake was whole
	Queue *Queue   `json:"queue,omitempty"`
	Tries []Try    `json:"tries,omitempty"` // hosts that did not take it

	Asked     *float64 `json:"asked_ms,omitempty"`
	Connected *float64 `json:"connected_ms,omitempty"`
	FirstIn   *float64 `json:"first_in_ms,omitempty"`
	FirstOut  *float64 `json:"first_out_ms,omitempty"`
	In        uint64   `json:"bytes_in"`
	Out       uint64   `json:"bytes_out"`

	Turns   *Turns  `json:"turnarounds,omitempty"`
	Waiting float64 `json:"waiting_ms,omitempty"` // the client's last bytes have had no answer for so long

	// How long there were bytes that a side did not take.
	ClientStalled float64 `json:"client_stalled_ms,omitempty"`
	HostStalled   float64 `json:"host_stalled_ms,omitempty"`

	First  string   `json:"first,omitempty"` // who ended first: client, host, or txlb
	Closed *float64 `json:"closed_ms,omitempty"`
	Reset  bool     `json:"reset,omitempty"` // and it was a reset

	ClientTCP *TCP `json:"client_tcp,omitempty"`
	HostTCP   *TCP `json:"host_tcp,omitempty"`

	Termination string `json:"termination,omitempty"`
	Rejected    string `json:"rejected,omitempty"`

	Timeline []Moment `json:"timeline"`
	Facts    []string `json:"facts"` // what has no moment
}

// Moment is something that has happened.
type Moment struct {
	At   float64 `json:"at_ms"`
	Text string  `json:"text"`
}

// Queue is a session's time in the queue of its group.
type Queue struct {
	At     float64 `json:"at_ms"`
	For    float64 `json:"for_ms"`
	Held   float64 `json:"held_ms,omitempty"` // of that, because the group held its clients
	Before int     `json:"before"`            // clients that waited when it came
}

// Try is a host that was asked and did not take the session.
type Try struct {
	Host    string  `json:"host"`
	Address string  `json:"address"`
	At      float64 `json:"at_ms"`
	Took    float64 `json:"took_ms"`
	Result  string  `json:"result"`
	Why     string  `json:"why,omitempty"`
	Times   int     `json:"times"`
}

// Turns sums up turnarounds: the times from the client's last byte to the first of the host's.
type Turns struct {
	Count  uint32  `json:"count"`
	Median float64 `json:"median_ms"`
	Worst  float64 `json:"worst_ms"`
	Total  float64 `json:"total_ms"`
}

// TCP is what the kernel knows of a socket.
type TCP struct {
	RTT         float64 `json:"rtt_ms"`
	RTTVar      float64 `json:"rtt_var_ms"`
	Retransmits uint32  `json:"retransmits"`
	Unacked     uint32  `json:"unacked"`
	NotSent     uint32  `json:"not_sent_bytes"`
	Window      uint32  `json:"window_bytes"`
}

// Of returns what a story tells. id is how the session is called, and group the group of its
// host, if the story does not know it.
func Of(s *engine.Story, id, group string) *Session {
	if s.Group != "" {
		group = s.Group
	}
	e := &Session{
		ID: id, Service: s.Service, Group: group, Stage: string(s.Stage), Carrier: "loop", Moved: s.Moved,
		At: s.Accepted, Age: millis(s.Age), Idle: millis(s.Idle), Client: address(s.Client), Proxied: s.Proxied, To: s.Listener,
		Local: address(s.Local), ServerName: s.ServerName, Heard: moment(s.Heard), Asked: moment(s.Asked), Connected: moment(s.Connected),
		FirstIn: moment(s.FirstIn), FirstOut: moment(s.FirstOut), In: s.In, Out: s.Out, Waiting: millis(s.Waiting),
		ClientStalled: millis(s.Stalled[0]), HostStalled: millis(s.Stalled[1]),
		Closed: moment(s.Closed), Reset: s.Reset, ClientTCP: tcp(s.TCP[0]), HostTCP: tcp(s.TCP[1]),
		Termination: s.Termination, Rejected: s.Rejected,
	}
	if s.Goroutine {
		e.Carrier = "goroutine"
	}
	if s.Host != nil {
		e.Host, e.Address = nameOf(s.Host)
	}
	if to := address(s.To); to != "" {
		e.To = to
	}
	if s.Turns.Count > 0 {
		e.Turns = &Turns{s.Turns.Count, millis(s.Turns.Median), millis(s.Turns.Worst), millis(s.Turns.Total)}
	}
	if s.Queued >= 0 {
		e.Queue = &Queue{millis(s.Queued), millis(s.Waited), millis(s.Held), s.Before}
	}
	for _, t := range s.Tries {
		host, addr := nameOf(t.Host)
		e.Tries = append(e.Tries, Try{host, addr, millis(t.At), millis(t.Took), string(t.Result), t.Why, t.Times})
	}
	switch s.First {
	case engine.OfClient:
		e.First = "client"
	case engine.OfHost:
		e.First = "host"
	default:
		e.First = firstOf(s.Termination)
	}
	e.tell(s)
	return e
}

// firstOf tells from the code who has ended a session of which no side was seen to end.
func firstOf(code string) string {
	if code == "" || code == "--" || code == "LR" {
		return ""
	}
	switch code[0] {
	case 'C':
		return "client"
	case 'S':
		return "host"
	}
	return "txlb"
}

func nameOf(h *sched.Host) (name, addr string) {
	if h == nil {
		return "", ""
	}
	return h.Name(), h.Addr().String()
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func tcp(i engine.TCPInfo) *TCP {
	if !i.Known {
		return nil
	}
	return &TCP{millis(i.RTT), millis(i.RTTVar), i.Retransmits, i.Unacked, i.NotSent, i.Window}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func moment(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	ms := millis(d)
	return &ms
}

// Lines is the session for people: the head, the timeline, and what has no moment.
func (s *Session) Lines() []string {
	lines := []string{s.Head()}
	width := 0
	for _, m := range s.Timeline {
		width = max(width, len(m.Offset()))
	}
	for _, m := range s.Timeline {
		lines = append(lines, fmt.Sprintf("  %*s  %s", width, m.Offset(), m.Text))
	}
	for _, f := range s.Facts {
		lines = append(lines, "  "+f)
	}
	return lines
}

// Offset is when the moment was, since the accept.
func (m Moment) Offset() string {
	return "+" + Span(time.Duration(m.At*float64(time.Millisecond)))
}
