package accesslog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/words"
)

// maxLine is the longest line that Explain reads.
const maxLine = 64 << 10

// Explain writes to w what the lines of an access log say, in sentences. A line that it
// cannot read is named to problems, as NAME:LINE, and left out; bad is how many there
// are. The error is one of reading.
func Explain(w, problems io.Writer, name string, log io.Reader) (bad int, err error) {
	lines := bufio.NewReaderSize(log, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		text := string(line)
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if long || strings.TrimSpace(text) != "" {
			e, wrong := (*Entry)(nil), fmt.Errorf("is longer than %d KiB", maxLine>>10)
			if !long {
				e, wrong = ParseLine(text)
			}
			if wrong != nil {
				bad++
				fmt.Fprintf(problems, "%s:%d: %v\n", name, n, wrong)
			} else {
				fmt.Fprintf(w, "%s:%d\n", name, n)
				for _, sentence := range e.Sentences() {
					fmt.Fprintf(w, "  %s\n", sentence)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return bad, nil
		case err != nil:
			return bad, err
		}
	}
}

// Sentences says what the entry means.
func (e *Entry) Sentences() []string {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }

	client := e.Client
	if client == "unix:1" {
		client = ""
	}
	add("%s", explain.Came(client, e.Proxied, e.Service, e.Accepted, ""))
	if e.Name != "" {
		add("%s", explain.AskedFor(e.Name))
	}
	switch {
	case e.Host == "":
		add("It was not sent to a host%s.", explain.OfGroup(e.Group))
	default:
		add("%s", e.hostSentence())
	}
	add("%s", e.endSentence())
	if meaning, known := explain.Meaning(e.Termination, e.Rejected); known {
		s = append(s, meaning...)
	} else {
		add("%s is not a code of txlb. HAProxy's manual explains it under \"Session state at disconnection\".", e.Termination)
	}
	add("Sessions open when it ended: %d in all, %d of the service; and %d others of the group, %d of the host.",
		e.Sessions, e.ServiceSessions, e.GroupSessions, e.HostSessions)
	if e.HostQueue > 0 || e.GroupQueue > 0 {
		add("Clients that waited before it: %d for the host, and %d for the group.", e.HostQueue, e.GroupQueue)
	}
	return s
}

// hostSentence tells of the host and how long it took to reach it.
func (e *Entry) hostSentence() string {
	host := explain.Named(e.Host, e.Address)
	var b strings.Builder
	if e.Connect < 0 {
		fmt.Fprintf(&b, "The last host that was asked is %s%s, ", host, explain.OfGroup(e.Group))
	} else {
		fmt.Fprintf(&b, "It was sent to host %s%s, ", host, explain.OfGroup(e.Group))
	}
	switch {
	case e.Wait < 0:
		b.WriteString("before the access log was on")
	case e.Wait == 0:
		b.WriteString("at once")
	default:
		fmt.Fprintf(&b, "after %s", explain.Span(e.Wait))
	}
	switch {
	case e.Connect >= 0:
		fmt.Fprintf(&b, ", which answered after %s", explain.Span(e.Connect))
	case e.Wait >= 0:
		b.WriteString(", which did not answer")
	}
	switch {
	case e.Retries == 1 && e.Redispatched:
		b.WriteString("; one host before it had failed")
	case e.Retries > 1 && e.Redispatched:
		fmt.Fprintf(&b, "; %d hosts before it had failed", e.Retries)
	case e.Retries > 0:
		fmt.Fprintf(&b, "; %s before had failed", words.Count(int(e.Retries), "connect"))
	}
	return b.String() + "."
}

// endSentence tells how long the session lived and what it moved.
func (e *Entry) endSentence() string {
	lived := "It ended"
	if e.Total >= 0 {
		lived = "It ended after " + explain.Span(e.Total)
	}
	if e.In >= 0 {
		return fmt.Sprintf("%s, with %s.", lived, explain.Moved(uint64(e.In), uint64(e.Out)))
	}
	return fmt.Sprintf("%s, with %s to the client.", lived, words.Count(int(e.Out), "byte"))
}
