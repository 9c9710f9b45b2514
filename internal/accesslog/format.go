package accesslog

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/txlb/txlb/engine"
)

// Format is how a session becomes a line.
type Format uint8

const (
	TCPLog Format = iota // as HAProxy's option tcplog writes it
	JSON                 // one object
)

// FormatNamed returns the format that the configuration names; "" is tcplog.
func FormatNamed(name string) (f Format, known bool) {
	switch name {
	case "", "tcplog":
		return TCPLog, true
	case "json":
		return JSON, true
	}
	return 0, false
}

// writer appends lines. It belongs to one goroutine.
type writer struct {
	format  Format
	prefix  bool   // tcplog lines begin with what syslog puts before them in a file
	process string // " HOST txlb[PID]: "
	zone    *time.Location

	accepted, written stamp
}

// line appends the line of a record, with its end. now is the present, accepted when the
// client was accepted. groupSessions are those that the hosts of its group have now.
func (w *writer) line(b []byte, r *engine.Record, now, accepted time.Time, groupSessions int64) []byte {
	if w.format == JSON {
		return append(w.json(b, r, accepted, groupSessions), '\n')
	}
	if w.prefix {
		b = append(b, w.written.at(now.In(w.zone), time.Stamp)...)
		b = append(b, w.process...)
	}
	return append(w.tcplog(b, r, accepted, groupSessions), '\n')
}

// noHost stands where a session had no host.
const noHost = "<NOSRV>"

// tcplog appends %ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq,
// see "TCP log format" in HAProxy's manual.
func (w *writer) tcplog(b []byte, r *engine.Record, accepted time.Time, groupSessions int64) []byte {
	b = appendClient(b, r.Client)
	b = append(b, " ["...)
	b = append(b, w.accepted.at(accepted.In(w.zone), "02/Jan/2006:15:04:05")...)
	b = append(b, '.')
	b = appendMillis(b, accepted.Nanosecond()/1e6)
	b = append(b, "] "...)
	b = appendName(b, r.Service)
	b = append(b, ' ')
	b = appendName(b, r.Service)
	if group(r) != "" {
		b = append(b, '.')
		b = appendName(b, group(r))
	}
	b = append(b, '/')
	if r.Host != nil {
		b = appendName(b, r.Host.Name())
	} else {
		b = append(b, noHost...)
	}
	queue, connect, total := stages(r)
	b = appendInt(b, ' ', wholeMillis(queue))
	b = appendInt(b, '/', wholeMillis(connect))
	b = appendInt(b, '/', wholeMillis(total))
	b = appendInt(b, ' ', int64(r.Out))
	b = append(b, ' ')
	b = append(b, r.How...)
	b = appendInt(b, ' ', r.Sessions)
	b = appendInt(b, '/', r.OnService())
	b = appendInt(b, '/', groupSessions)
	b = appendInt(b, '/', r.OnHost)
	b = append(b, '/')
	if r.Retries > 0 { // each of them goes to another host
		b = append(b, '+')
	}
	b = strconv.AppendInt(b, int64(r.Retries), 10)
	b = append(b, " 0"...) // a host has no queue of its own
	return appendInt(b, '/', int64(r.Before))
}

// group returns the name of the group, "" without one.
func group(r *engine.Record) string {
	if r.Table == nil {
		return ""
	}
	return r.Table.Group()
}

// stages returns how long a session waited for a host, how long this took to answer, and
// how long it lived, in ns; -1 for what did not happen.
func stages(r *engine.Record) (queue, connect, total int64) {
	queue, connect, total = -1, -1, r.Ended-r.Accepted
	if r.Picked > 0 {
		queue = r.Picked - r.Accepted
	}
	if r.Connected > 0 {
		connect = r.Connected - r.Picked
	}
	return queue, connect, total
}

func wholeMillis(ns int64) int64 {
	if ns < 0 {
		return -1
	}
	return ns / 1e6
}

func appendInt(b []byte, before byte, n int64) []byte {
	return strconv.AppendInt(append(b, before), n, 10)
}

func appendMillis(b []byte, ms int) []byte {
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
}

// appendClient appends an address as HAProxy does: without brackets, and unix:1 for the
// client of a UNIX socket.
func appendClient(b []byte, client netip.AddrPort) []byte {
	if !client.IsValid() {
		return append(b, "unix:1"...)
	}
	b = client.Addr().AppendTo(b)
	return strconv.AppendUint(append(b, ':'), uint64(client.Port()), 10)
}

// appendName appends a name. What would end a field of a line is written as HAProxy
// writes it: # and two hexadecimal digits.
func appendName(b []byte, name string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ', c == 0x7f, c == '/', c == '#', c == '[', c == ']', c == '<', c == '"':
			b = append(b, '#', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// json appends one object. docs/logs.md has its names.
func (w *writer) json(b []byte, r *engine.Record, accepted time.Time, groupSessions int64) []byte {
	b = append(b, `{"accepted":"`...)
	b = append(b, w.accepted.at(accepted.In(w.zone), "2006-01-02T15:04:05")...)
	b = append(b, '.')
	b = appendMillis(b, accepted.Nanosecond()/1e6)
	b = append(b, w.accepted.offset...)
	b = append(b, `","id":"`...)
	b = strconv.AppendUint(b, r.ID, 16) // as the admin writes it
	b = append(b, `","client":`...)
	b = appendAddress(b, r.Client)
	b = append(b, `,"proxied":`...)
	b = strconv.AppendBool(b, r.Proxied)
	b = append(b, `,"server_name":`...)
	if name := r.ServerName.Bytes(); len(name) > 0 {
		b = appendText(b, string(name))
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"service":`...)
	b = appendText(b, r.Service)
	b = append(b, `,"group":`...)
	if name := group(r); name != "" {
		b = appendText(b, name)
	} else {
		b = append(b, "null"...)
	}
	if r.Host != nil {
		b = append(b, `,"host":`...)
		b = appendText(b, r.Host.Name())
		b = append(b, `,"address":`...)
		if path := r.Host.Addr().Path(); path != "" {
			b = appendText(b, "unix:"+path)
		} else {
			b = appendAddress(b, r.Host.Addr().IP())
		}
	} else {
		b = append(b, `,"host":null,"address":null`...)
	}
	queue, connect, total := stages(r)
	b = appendStage(b, `,"wait_ms":`, queue)
	b = appendStage(b, `,"held_ms":`, int64(r.Held))
	b = appendStage(b, `,"connect_ms":`, connect)
	b = appendStage(b, `,"total_ms":`, total)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendUint(b, r.In, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendUint(b, r.Out, 10)
	b = append(b, `,"termination":"`...)
	b = append(b, r.How...)
	b = append(b, `","rejected":`...)
	if r.Why != "" {
		b = appendText(b, r.Why)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"retries":`...)
	b = strconv.AppendInt(b, int64(r.Retries), 10)
	b = append(b, `,"sessions":`...)
	b = strconv.AppendInt(b, r.Sessions, 10)
	b = append(b, `,"service_sessions":`...)
	b = strconv.AppendInt(b, r.OnService(), 10)
	b = append(b, `,"group_sessions":`...)
	b = strconv.AppendInt(b, groupSessions, 10)
	b = append(b, `,"host_sessions":`...)
	b = strconv.AppendInt(b, r.OnHost, 10)
	b = append(b, `,"host_queue":0,"group_queue":`...)
	return append(strconv.AppendInt(b, int64(r.Before), 10), '}')
}

// appendStage appends a time in ms to the µs, null for what did not happen.
func appendStage(b []byte, name string, ns int64) []byte {
	b = append(b, name...)
	if ns < 0 {
		return append(b, "null"...)
	}
	us := ns / 1e3
	b = strconv.AppendInt(b, us/1e3, 10)
	if us%1e3 == 0 {
		return b
	}
	return appendMillis(append(b, '.'), int(us%1e3))
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	return append(a.AppendTo(append(b, '"')), '"')
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // of a string it does not fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// stamp has the text of a second: most sessions share theirs with the one before.
type stamp struct {
	second int64
	layout string
	text   []byte
	offset string // of the time zone
}

func (s *stamp) at(t time.Time, layout string) []byte {
	if second := t.Unix(); s.text == nil || second != s.second || layout != s.layout {
		s.second, s.layout = second, layout
		s.text = t.AppendFormat(s.text[:0], layout)
		s.offset = t.Format("Z07:00")
	}
	return s.text
}
