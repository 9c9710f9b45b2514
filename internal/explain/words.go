package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/words"
)

// What is said of sessions: of those that an engine knows, and of lines of the access log.

// When is how the time of an accept is written.
const When = "2 January 2006 at 15:04:05.000"

// Came is the first sentence. client is "" for one of a UNIX socket.
func Came(client string, proxied bool, service string, at time.Time, to string) string {
	who := "A client of a UNIX socket"
	if client != "" {
		who = "Client " + client
	}
	if proxied {
		who += ", as its PROXY header says,"
	}
	if to != "" {
		to = ", to " + to
	}
	return fmt.Sprintf("%s came to service %s on %s%s.", who, service, at.Format(When), to)
}

// AskedFor tells which server the client's TLS asked for.
func AskedFor(name string) string { return fmt.Sprintf("Its TLS asked for %s.", name) }

// Named names a host with its address, if that is known.
func Named(host, address string) string {
	if address != "" {
		return host + " (" + address + ")"
	}
	return host
}

// OfGroup names a group behind a host, if it is known.
func OfGroup(group string) string {
	if group == "" {
		return ""
	}
	return " of group " + group
}

// Moved tells how many bytes a session has moved.
func Moved(in, out uint64) string {
	return fmt.Sprintf("%s from the client and %s to it", words.Count(int(in), "byte"), words.Count(int(out), "byte"))
}

// Meaning tells what a termination code and the reason of a rejection mean, and what helps. ok
// is false for a code that is not txlb's.
func Meaning(code, rejected string) (sentences []string, ok bool) {
	end, ok := engine.TerminationOf(code)
	if !ok {
		return nil, false
	}
	sentences = append(sentences, fmt.Sprintf("%s: the session %s.", code, end.Meaning))
	return append(sentences, because(rejected, end.Advice)...), true
}

// because tells why a client was rejected, and what helps; advice is for all that end so.
func because(rejected, advice string) (sentences []string) {
	if why, known := engine.RejectionOf(rejected); known {
		sentences = append(sentences, fmt.Sprintf("The reason of the rejection is %s, which says of clients: %s.", rejected, why.Meaning))
		if advice = ""; why.Remedy != "" {
			advice = "What helps: " + why.Remedy + "."
		}
	} else if rejected != "" {
		sentences = append(sentences, fmt.Sprintf("The reason of the rejection is %s.", rejected))
	}
	if advice != "" {
		sentences = append(sentences, advice)
	}
	return sentences
}

// Span writes a time for people.
func Span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%g ms", float64(d.Round(time.Microsecond))/float64(time.Millisecond))
	case d < time.Hour:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// tell writes the timeline and the facts.
func (e *Session) tell(s *engine.Story) {
	e.Timeline, e.Facts = []Moment{}, []string{}
	if e.Moved {
		e.fact("It came from the process before, at a hand-over. That process had it under another ID.")
	}
	e.arrival(s)
	e.hosts(s)
	e.bytes(s)
	e.end(s)
	// What happened at the same moment stays in its order.
	slices.SortStableFunc(e.Timeline, func(a, b Moment) int { return compare(a.At, b.At) })
	e.sides(s)
	e.kernel("client", e.ClientTCP)
	e.kernel("host", e.HostTCP)
	if s.Stage == engine.StageEnded {
		end, _ := engine.TerminationOf(s.Termination)
		e.Facts = append(e.Facts, because(s.Rejected, end.Advice)...)
	}
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (e *Session) at(d time.Duration, format string, args ...any) {
	e.Timeline = append(e.Timeline, Moment{millis(max(d, 0)), fmt.Sprintf(format, args...)})
}

func (e *Session) fact(format string, args ...any) {
	e.Facts = append(e.Facts, fmt.Sprintf(format, args...))
}

// Head is the session in one line.
func (e *Session) Head() string {
	with := ""
	if e.Host != "" {
		with = fmt.Sprintf(", host %s%s", Named(e.Host, e.Address), OfGroup(e.Group))
	}
	state := "runs"
	if e.Stage == string(engine.StageEnded) {
		state = "ended " + e.Termination
	}
	return fmt.Sprintf("session %s of service %s%s: %s", e.ID, e.Service, with, state)
}

// arrival tells who came, what was to be heard of the client, and how it waited.
func (e *Session) arrival(s *engine.Story) {
	if s.Dialed {
		who := ""
		if e.Client != "" {
			who = ", for client " + s.Client.Addr().String()
		}
		e.at(0, "The program itself asked service %s for a connection on %s%s.", s.Service, s.Accepted.Format(When), who)
	} else {
		e.at(0, "%s", Came(e.Client, s.Proxied, s.Service, s.Accepted, e.To))
	}
	switch {
	case s.Heard < 0:
	case s.ServerName != "" && s.Proxied:
		e.at(s.Heard, "Its PROXY header had come, and its TLS asked for %s.", s.ServerName)
	case s.ServerName != "":
		e.at(s.Heard, "%s", AskedFor(s.ServerName))
	case s.Proxied:
		e.at(s.Heard, "Its PROXY header was whole.")
	default:
		e.at(s.Heard, "What it had to say first was whole: a PROXY header without a client, or TLS that names no server.")
	}
	if s.Queued >= 0 {
		so := "It waited in the queue%s for %s"
		if s.Stage == engine.StageQueued {
			so = "It came into the queue%s, and has waited for %s"
		}
		before := ""
		if s.Before > 0 {
			before = fmt.Sprintf(", behind %s", words.Count(s.Before, "other client"))
		}
		e.at(s.Queued, so+"%s: %s.", OfGroup(e.Group), Span(s.Waited), before, kept(s.Waited, s.Held))
	}
}

// kept tells why a client waited so long in the queue, of that for a time because its group held its clients.
func kept(waited, held time.Duration) string {
	const full = "every host had as many sessions as it may"
	switch {
	case held <= 0:
		return full
	case held < waited:
		return fmt.Sprintf("the group held its clients for %s of that, and else %s", Span(held), full)
	}
	return "the group held its clients"
}

// hosts tells which hosts were asked, and with what result.
func (e *Session) hosts(s *engine.Story) {
	for i, t := range s.Tries {
		host, addr := nameOf(t.Host)
		name := "Host " + Named(host, addr)
		if i == len(s.Tries)-1 && s.Untold > 0 {
			e.at(t.At, "%s followed, which are left out here.", words.Count(s.Untold, "more failed connect"))
		}
		e.at(t.At, "%s %s.", name, fate(&t, s))
	}
	if s.Host == nil || s.Connected < 0 && s.Stage != engine.StageConnecting && s.Stage != engine.StageSecuring {
		return
	}
	name := "Host " + Named(e.Host, e.Address) + OfGroup(e.Group)
	switch {
	case s.Connected >= 0 && s.Asked >= 0:
		e.at(s.Connected, "%s answered, %s after it was asked.", name, Span(s.Connected-s.Asked))
	case s.Connected >= 0:
		e.at(s.Connected, "%s answered.", name)
	default:
		e.at(s.Asked, "%s was asked, and has not answered yet.", name)
	}
}

// fate tells what became of a connect.
func fate(t *engine.Try, s *engine.Story) string {
	why := ""
	if t.Why != "" {
		why = ": " + t.Why
	}
	again := ""
	if t.Times > 1 {
		again = fmt.Sprintf(", %d times in a row", t.Times)
	}
	took := Span(t.Took) + again + why
	switch t.Result {
	case engine.TryRefused:
		return "refused the connection, after " + took
	case engine.TryTimeout:
		return "did not answer within " + took
	case engine.TryUnreachable:
		return "could not be reached, after " + took
	case engine.TryDropped:
		return "accepted the connection and reset it before the first byte, after " + took
	case engine.TryLocal:
		return "could not be asked: this machine had no descriptor, memory, local port or address for that, after " + took
	case engine.TryForbidden:
		return "could not be asked: the connect was forbidden, after " + took
	case engine.TryTLS:
		return "accepted the connection, and the TLS handshake failed, after " + took
	case engine.TryNoTLS:
		return "accepted the connection and did not agree to TLS, after " + took
	case engine.TryAbandoned:
		when := "the session gave up"
		if strings.HasPrefix(s.Termination, "C") {
			when = "the client left"
		}
		if strings.HasPrefix(s.Termination, "K") {
			when = "the session was closed"
		}
		return fmt.Sprintf("was asked, and had not answered when %s, %s later", when, took)
	}
	return "could not be connected to, after " + took
}

// bytes tells what moved.
func (e *Session) bytes(s *engine.Story) {
	spoke := ""
	if s.FirstOut >= 0 && s.FirstIn > s.FirstOut {
		spoke = ": it spoke first"
	}
	if s.FirstOut >= 0 {
		e.at(s.FirstOut, "The first byte from the host was sent to the client%s.", spoke)
	}
	if s.FirstIn >= 0 {
		e.at(s.FirstIn, "The first byte from the client was sent to the host.")
	}
}

// end tells who ended first, and how the session ended or how far it is.
func (e *Session) end(s *engine.Story) {
	if s.First != engine.Nobody {
		who, did := "The client", "closed its side"
		if s.First == engine.OfHost {
			who = "The host"
		}
		if s.Reset {
			did = "reset the connection"
		}
		e.at(s.Closed, "%s %s first.", who, did)
	}
	if s.Stage == engine.StageEnded {
		if end, known := engine.TerminationOf(s.Termination); known {
			e.at(s.Age, "%s: the session %s.", s.Termination, end.Meaning)
		}
		return
	}
	e.at(s.Age, "%s", now(s))
}

// now tells what a session that runs does.
func now(s *engine.Story) string {
	switch s.Stage {
	case engine.StageHeader:
		return "Now: its PROXY header is awaited."
	case engine.StageHello:
		return "Now: its ClientHello is awaited, or what its protocol says before that."
	case engine.StageHandshake:
		return "Now: its TLS handshake is under way."
	case engine.StageQueued:
		return "Now: it waits until a host has room."
	case engine.StageConnecting:
		return "Now: its host is asked."
	case engine.StageSecuring:
		return "Now: TLS with its host is being agreed on."
	case engine.StageRejected:
		return "Now: it was told that there is no host, and its end is awaited."
	case engine.StageClosing:
		return "Now: one side has reset the connection; the other gets its last bytes, and then a reset."
	case engine.StageConnected:
		return fmt.Sprintf("Now: it is connected; the last byte moved %s ago.", Span(s.Idle))
	}
	return "Now: it looks for a host, or waits for a descriptor."
}

// noticed is how long a side has to keep the other waiting to be mentioned.
const noticed = 10 * time.Millisecond

// sides tells how the two sides got on with each other.
func (e *Session) sides(s *engine.Story) {
	if s.Connected >= 0 || s.In+s.Out > 0 {
		e.fact("It moved %s.", Moved(s.In, s.Out))
	}
	if s.Connected >= 0 && s.In > 0 && s.Out == 0 && s.Turns.Count == 0 {
		e.fact("The host has not answered what the client sent.")
	}
	switch t := s.Turns; {
	case t.Count == 1:
		e.fact("The host answered once, after %s.", Span(t.Total))
	case t.Count > 1:
		e.fact("The host answered %d times: half of the answers came within %s, the slowest after %s; the client waited for %s in all.",
			t.Count, Span(t.Median), Span(t.Worst), Span(t.Total))
	}
	if s.Waiting >= noticed {
		e.fact("What the client sent last has had no answer for %s.", Span(s.Waiting))
	}
	if s.Stalled[0] >= noticed {
		e.fact("The client kept the host waiting: for %s it did not take what there was for it.", Span(s.Stalled[0]))
	}
	if s.Stalled[1] >= noticed {
		e.fact("The host kept the client waiting: for %s it did not take what there was for it.", Span(s.Stalled[1]))
	}
	if s.First == engine.Nobody && e.First == "txlb" {
		e.fact("txlb ended it, neither of the two sides.")
	}
}

// kernel tells what the kernel knows of a side's socket.
func (e *Session) kernel(side string, t *TCP) {
	if t == nil {
		return
	}
	ms := func(f float64) string { return Span(time.Duration(f * float64(time.Millisecond))) }
	text := fmt.Sprintf("TCP with the %s: round trip %s, %s sent again, %s not acknowledged", side, ms(t.RTT),
		words.Count(int(t.Retransmits), "segment"), words.Count(int(t.Unacked), "segment"))
	if t.NotSent > 0 {
		text += fmt.Sprintf(", %s not sent yet", words.Count(int(t.NotSent), "byte"))
	}
	e.fact("%s.", text)
}
