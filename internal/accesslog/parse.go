package accesslog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Entry is what a line of an access log says. Numbers are -1, and texts "", where it says
// nothing.
type Entry struct {
	Accepted time.Time
	ID       string // of the session, see admin.FormatSessionID
	Client   string
	Proxied  bool
	Name     string // that the client's TLS asked for
	Service  string
	Group    string
	Host     string
	Address  string // of the host

	Wait, Connect, Total time.Duration
	In, Out              int64 // bytes
	Termination          string
	Rejected             string // the reason
	Retries              int64
	Redispatched         bool

	Sessions, ServiceSessions, GroupSessions, HostSessions int64
	HostQueue, GroupQueue                                  int64
}

// longest bounds the numbers of a line: three hundred years in ms are the most that a
// [time.Duration] holds.
const longest = 9e12

// ParseLine reads a line in either format, with what syslog writes before it or without.
// Lines of HAProxy's tcplog are read as well.
func ParseLine(line string) (*Entry, error) {
	line = strings.TrimSpace(line)
	if i := strings.IndexByte(line, '{'); i >= 0 && (i == 0 || line[i-1] == ' ') && strings.HasSuffix(line, "}") {
		return parseJSON(line[i:])
	}
	return parseTCPLog(line)
}

var errNoEntry = errors.New("is not a line of an access log in format tcplog or json")

// acceptedForm is how tcplog writes when the client was accepted.
const acceptedForm = "02/Jan/2006:15:04:05.000"

func parseTCPLog(line string) (*Entry, error) {
	open := strings.Index(line, " [")
	for open >= 0 { // before it may be the process, as in txlb[7]:
		end := strings.IndexByte(line[open:], ']')
		if end == 2+len(acceptedForm) {
			break
		}
		next := strings.Index(line[open+2:], " [")
		if next < 0 {
			return nil, errNoEntry
		}
		open += 2 + next
	}
	if open < 0 {
		return nil, errNoEntry
	}
	e := &Entry{In: -1}
	var err error
	if e.Accepted, err = time.ParseInLocation(acceptedForm, line[open+2:open+2+len(acceptedForm)], time.Local); err != nil {
		return nil, fmt.Errorf("the time %q is not as tcplog writes it", line[open+2:open+2+len(acceptedForm)])
	}
	e.Client = line[strings.LastIndexByte(line[:open], ' ')+1 : open]
	f := strings.Fields(line[open+len(" []")+len(acceptedForm):])
	if len(f) != 7 {
		return nil, fmt.Errorf("has %d fields after the time, want 7", len(f))
	}
	backend, host, found := strings.Cut(f[1], "/")
	if e.Client == "" || !found {
		return nil, errNoEntry
	}
	// HAProxy marks a frontend with TLS.
	if e.Service, err = unescaped(strings.TrimSuffix(f[0], "~")); err != nil {
		return nil, err
	}
	if backend, err = unescaped(backend); err != nil {
		return nil, err
	}
	if group, ours := strings.CutPrefix(backend, e.Service+"."); ours {
		e.Group = group
	} else if backend != e.Service {
		e.Group = backend
	}
	if host != noHost {
		if e.Host, err = unescaped(host); err != nil {
			return nil, err
		}
	}
	times, err := numbers(f[2], "times", 3)
	if err != nil {
		return nil, err
	}
	for i, to := range []*time.Duration{&e.Wait, &e.Connect, &e.Total} {
		*to = -1
		if times[i] >= 0 {
			*to = time.Duration(times[i]) * time.Millisecond
		}
	}
	bytes, err := numbers(f[3], "number of bytes", 1)
	if err != nil {
		return nil, err
	}
	if e.Out, e.Termination = bytes[0], f[4]; !isCode(e.Termination) {
		return nil, fmt.Errorf("%q is not a termination code", f[4])
	}
	e.Redispatched = strings.Contains(f[5], "/+")
	counts, err := numbers(f[5], "counts", 5)
	if err != nil {
		return nil, err
	}
	e.Sessions, e.ServiceSessions, e.GroupSessions, e.HostSessions, e.Retries = counts[0], counts[1], counts[2], counts[3], counts[4]
	queues, err := numbers(f[6], "queues", 2)
	if err != nil {
		return nil, err
	}
	e.HostQueue, e.GroupQueue = queues[0], queues[1]
	return e, nil
}

// numbers reads n numbers with slashes between. HAProxy writes + before those that are
// not the last word.
func numbers(s, what string, n int) ([]int64, error) {
	parts := strings.Split(s, "/")
	if len(parts) != n {
		return nil, fmt.Errorf("the %s %q: want %d with slashes between", what, s, n)
	}
	list := make([]int64, n)
	for i, part := range parts {
		v, err := strconv.ParseInt(strings.TrimPrefix(part, "+"), 10, 64)
		if err != nil || v < -1 || v > longest && what == "times" {
			return nil, fmt.Errorf("the %s %q: %q is not a number", what, s, part)
		}
		list[i] = v
	}
	return list, nil
}

// isCode tells whether s is two letters of a termination.
func isCode(s string) bool {
	return len(s) == 2 && strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

// unescaped reads a name as appendName has written it.
func unescaped(s string) (string, error) {
	if !strings.Contains(s, "#") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '#' {
			b.WriteByte(s[i])
			continue
		}
		if len(s) < i+3 {
			return "", fmt.Errorf("the name %q ends in the middle of a character", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("the name %q: # stands before two hexadecimal digits", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

// object is an entry as JSON has it. docs/logs.md has its names.
type object struct {
	Accepted    time.Time `json:"accepted"`
	ID          string    `json:"id"`
	Client      *string   `json:"client"`
	Proxied     bool      `json:"proxied"`
	Name        *string   `json:"server_name"`
	Service     string    `json:"service"`
	Group       *string   `json:"group"`
	Host        *string   `json:"host"`
	Address     *string   `json:"address"`
	Wait        *float64  `json:"wait_ms"`
	Connect     *float64  `json:"connect_ms"`
	Total       *float64  `json:"total_ms"`
	In          int64     `json:"bytes_in"`
	Out         int64     `json:"bytes_out"`
	Termination string    `json:"termination"`
	Rejected    *string   `json:"rejected"`
	Retries     int64     `json:"retries"`

	Sessions        int64 `json:"sessions"`
	ServiceSessions int64 `json:"service_sessions"`
	GroupSessions   int64 `json:"group_sessions"`
	HostSessions    int64 `json:"host_sessions"`
	HostQueue       int64 `json:"host_queue"`
	GroupQueue      int64 `json:"group_queue"`
}

func parseJSON(text string) (*Entry, error) {
	var o object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, fmt.Errorf("is not an object of an access log: %w", err)
	}
	if o.Service == "" || o.Accepted.IsZero() || !isCode(o.Termination) {
		return nil, errors.New("is an object without accepted, service or termination, which an access log has")
	}
	orNone := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	e := &Entry{
		Accepted: o.Accepted, ID: o.ID, Client: orNone(o.Client), Proxied: o.Proxied, Name: orNone(o.Name), Service: o.Service, Group: orNone(o.Group),
		Host: orNone(o.Host), Address: orNone(o.Address), In: o.In, Out: o.Out, Termination: o.Termination,
		Rejected: orNone(o.Rejected), Retries: o.Retries, Redispatched: o.Retries > 0,
		Sessions: o.Sessions, ServiceSessions: o.ServiceSessions, GroupSessions: o.GroupSessions, HostSessions: o.HostSessions,
		HostQueue: o.HostQueue, GroupQueue: o.GroupQueue,
	}
	for i, ms := range []*float64{o.Wait, o.Connect, o.Total} {
		to := []*time.Duration{&e.Wait, &e.Connect, &e.Total}[i]
		switch {
		case ms == nil:
			*to = -1
		case *ms < 0 || *ms > longest:
			return nil, fmt.Errorf("%v is not a time in milliseconds", *ms)
		default:
			*to = time.Duration(*ms * float64(time.Millisecond))
		}
	}
	return e, nil
}
