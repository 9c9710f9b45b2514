package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What nodes say to each other: server-sent events over HTTP, each with one JSON document.
//
//	event: hello     who it is, first of all
//	event: checks    what its checks have found; also sessions, limits
//	event: ready     all has been said that there is
//	event: beat      nothing new; whether the sessions of all hosts have been told
//
// What is not known is passed over, so that a newer version may say more. If it says something
// else, it says so by least.

// protocol is the version of what this node says, and the newest that it understands.
const protocol = 1

// hello says who a node is.
type hello struct {
	Protocol int           `json:"protocol"`
	Least    int           `json:"least"` // protocol that who follows must understand
	Fleet    string        `json:"fleet"`
	Node     string        `json:"node"`
	Instance string        `json:"instance"` // of its process
	Version  string        `json:"version"`  // of its txlb
	Beat     time.Duration `json:"beat"`     // how often it says something at least
}

// check refuses a node that is not the one that is expected, or cannot be understood.
func (h *hello) check(fleet, node string) error {
	switch {
	case h.Least > protocol || h.Protocol < 1:
		return fmt.Errorf("it has version %q, whose protocol (%d) this node does not know (%d): upgrade the older one", printable(h.Version), h.Protocol, protocol)
	case h.Fleet != fleet:
		return fmt.Errorf("it is of the fleet %q", printable(h.Fleet))
	case h.Node != node:
		return fmt.Errorf("it is the node %q: does its <fleet advertise> name another machine?", printable(h.Node))
	case h.Instance == "" || len(h.Instance) > maxName || h.Beat < minBeat || h.Beat > maxBeat:
		return errors.New("it does not say who it is")
	}
	return nil
}

// minBeat and maxBeat are what a node may promise.
const minBeat, maxBeat = 10 * time.Millisecond, 5 * time.Second

// beatEvent is what a node says at least so often.
type beatEvent struct {
	Counted bool `json:"counted,omitempty"` // the sessions of all hosts have been told
}

// change is what an event has of a table.
type change[R any] struct {
	Set  []R `json:"set,omitempty"`
	Gone []R `json:"gone,omitempty"` // their keys
}

// checkRow is a row of checks; sessionRow one of sessions.
type (
	checkRow struct {
		Host
		Up     bool   `json:"up,omitempty"`
		Reason string `json:"why,omitempty"`
		Ago    int64  `json:"ago,omitempty"` // ms since it has been so
	}
	sessionRow struct {
		Host
		Sessions int64 `json:"n"`
	}
)

// The bounds of what a node takes from another.
const (
	maxEvent = 1 << 20 // bytes of a line
	maxRows  = 1 << 18 // of one table
	maxText  = 1 << 26 // bytes of all names
	// maxSessions is how many sessions a host may have: sums of them do not overflow.
	maxSessions = 1 << 40
	maxName     = 512 // bytes of a name
	maxReason   = 200 // bytes
	perEvent    = 256 // rows that this node puts into one
)

// Valid tells whether other nodes take what this one tells of the host.
func (h *Host) Valid() bool {
	return h.Service != "" && len(h.Service) <= maxName && len(h.Group) <= maxName && len(h.Name) <= maxName && len(h.Addr) <= maxName
}

// event is one event.
type event struct {
	name string
	data []byte // only until the next one is read
}

// writeEvent writes one event.
func writeEvent(w io.Writer, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
	return err
}

// reader reads events.
type reader struct{ lines *bufio.Scanner }

func newReader(r io.Reader) *reader {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxEvent)
	return &reader{s}
}

// next returns the next event. The error is io.EOF at the end.
func (r *reader) next() (e event, err error) {
	for r.lines.Scan() {
		line := r.lines.Bytes()
		switch {
		case len(line) == 0:
			if e.name != "" {
				return e, nil
			}
		case bytes.HasPrefix(line, []byte("event: ")):
			e.name = string(line[len("event: "):])
		case bytes.HasPrefix(line, []byte("data: ")):
			e.data = append(e.data[:0], line[len("data: "):]...)
		case line[0] == ':': // a comment
		default:
			return event{}, errors.New("it says what is no event")
		}
	}
	if err := r.lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return event{}, fmt.Errorf("it says more than %d bytes in one line", maxEvent)
		}
		return event{}, err
	}
	return event{}, io.EOF
}

// errData is that an event cannot be read.
type dataError struct {
	event string
	err   error
}

func (e *dataError) Error() string {
	return fmt.Sprintf("its %s cannot be read: %v", printable(e.event), e.err)
}

// printable keeps what another node says from filling or changing a log.
func printable(s string) string {
	s = clip(s, 64)
	return strings.Map(visible, s)
}

// visible replaces what could change a terminal or a log.
func visible(c rune) rune {
	if c == utf8.RuneError || !unicode.IsPrint(c) {
		return ' '
	}
	return c
}

// clip shortens a text.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
