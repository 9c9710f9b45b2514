//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// failure is an error that a client has seen, with what it knew then.
type failure struct {
	start, end time.Time // of the connection, or of what a program did if that is all that is known
	host       string    // who had answered; "": nobody
	sent       bool      // the client had sent something
	err        error
}

// errWrong says that what a client got is not what it should have got. No
// death of a server explains that.
var errWrong = errors.New("wrong bytes")

// kill is one death of a server.
type kill struct {
	service, host string
	begun, dead   time.Time // the signal; the kernel has closed all sockets. Zero while it goes on
	drained       bool      // it had no session left: nothing may be lost
	held          int       // sessions that it may have had in its hands
	lost          int       // failures that it explains
}

// notice is how long after a death its sessions may still learn of it: txlb
// passes on what was on the way first.
const notice = 5 * time.Second

// explains tells whether f may be what the death did to a session that the
// server had in its hands, so that no balancer could have saved it. A balancer
// can save a session from which the server has taken nothing and to which it
// has given nothing. So the death explains f only if
//
//   - the server still had sessions: it was not drained before;
//   - the session was there: it began before the last socket was closed, for
//     later connects are refused and go to another host;
//   - it was this server that had answered, if one had;
//   - if none had, the client had sent something, which the server may have
//     taken, or the connection came to an orderly end, which is an answer, as a
//     server might give it that wants no client now. A reset of a connection
//     on which nothing has moved could have been saved, and so could a connect
//     to txlb itself.
func (k *kill) explains(service string, f failure) bool {
	switch {
	case k.service != service || k.drained || errors.Is(f.err, errWrong):
		return false
	case f.end.Before(k.begun), !k.dead.IsZero() && (f.start.After(k.dead) || f.end.After(k.dead.Add(notice))):
		return false
	case f.host != "":
		return f.host == k.host
	}
	return f.sent || errors.Is(f.err, io.EOF)
}

// record is what has happened. All methods may be called from any goroutine.
type record struct {
	begun time.Time

	mu      sync.Mutex
	kills   []*kill
	errors  map[string]int // by service, all that clients saw
	saved   map[string]int // those that no death explains
	told    []string       // the first of those, and what the soak could not do
	broken  int            // what the soak could not do
	changes map[string]int // by verb
	last    string         // change
}

func newRecord() *record {
	return &record{begun: time.Now(), errors: map[string]int{}, saved: map[string]int{}, changes: map[string]int{}}
}

// failed takes in what a client has seen.
func (r *record) failed(service string, f failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors[service]++
	for _, k := range r.kills {
		// One that has its fill explains no more.
		if k.explains(service, f) && (k.dead.IsZero() || k.lost < k.held) {
			k.lost++
			return
		}
	}
	r.saved[service]++
	host := f.host
	if host == "" {
		host = "nobody"
	}
	r.tell("%s: after %v, answered by %s: %v", service, f.end.Sub(f.start).Round(time.Millisecond), host, f.err)
}

// broke notes something that should have happened and did not.
func (r *record) broke(service string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken++
	r.tell("%s: %v", service, err)
}

// tell keeps a line for the report. mu must be held.
func (r *record) tell(format string, args ...any) {
	const most = 20
	if len(r.told) < most {
		r.told = append(r.told, fmt.Sprintf("%7.1fs  ", time.Since(r.begun).Seconds())+fmt.Sprintf(format, args...))
	}
}

// dying notes that a server is about to be killed.
func (r *record) dying(k *kill) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.begun = time.Now()
	r.kills = append(r.kills, k)
}

// died notes that it is dead, and how many sessions it may have held. What was
// blamed on it beyond that could have been saved.
func (r *record) died(k *kill, held int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.dead, k.held = time.Now(), held
	if more := k.lost - held; more > 0 {
		k.lost = held
		r.saved[k.service] += more
		r.tell("%s: %d sessions failed when %s was killed, which had %d", k.service, held+more, k.host, held)
	}
}

// changed counts a change.
func (r *record) changed(verb, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes[verb]++
	r.last = what
}

// failures returns what was seen by all clients, and what of it could have been
// saved, and the last change.
func (r *record) failures() (seen, saved int, last string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.errors {
		seen += n
	}
	for _, n := range r.saved {
		saved += n
	}
	return seen, saved, r.last
}

// leaks are what should be 0 once all clients have gone, or be as it was.
type leaks struct {
	fds, pipes, sessions, goroutines, counters int
}

func (l leaks) any() bool { return l != leaks{} }

// plus adds up what was found at two moments.
func (l leaks) plus(m leaks) leaks {
	return leaks{l.fds + m.fds, l.pipes + m.pipes, l.sessions + m.sessions, l.goroutines + m.goroutines, l.counters + m.counters}
}

// row is one kind of client in the report.
type row struct {
	name     string
	leftOut  string // why it did not run; the rest is empty then
	sessions uint64
	bytes    uint64
	moved    uint64 // connects to another host than the first
	errors   int
	saved    int // those of them that could have been saved
}

// report is what a soak has found.
type report struct {
	seed    uint64
	length  time.Duration
	rows    []row
	leaks   leaks
	kills   []*kill
	changes map[string]int
	told    []string
	broken  int
	early   bool // interrupted
}

// bad tells whether something is not 0 that must be.
func (r *report) bad() bool {
	return r.leaks.any() || r.broken > 0 || r.early ||
		slices.ContainsFunc(r.rows, func(w row) bool { return w.saved > 0 || w.leftOut == "" && w.sessions == 0 })
}

// write prints the report.
func (r *report) write(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nsoak of %v, seed %d\n\n", r.length.Round(time.Second), r.seed)
	tab := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "clients\tsessions\tMB\tfailed over\terrors\tlost with the server\tcould have been saved\t")
	for _, w := range r.rows {
		if w.leftOut != "" {
			continue
		}
		fmt.Fprintf(tab, "%s\t%d\t%.1f\t%d\t%d\t%d\t%d\t\n", w.name, w.sessions, float64(w.bytes)/1e6, w.moved, w.errors, w.errors-w.saved, w.saved)
	}
	_ = tab.Flush() // into memory
	for _, w := range r.rows {
		if w.leftOut != "" {
			fmt.Fprintf(&b, "\n%s was left out: %s\n", w.name, w.leftOut)
		}
	}
	l := r.leaks
	fmt.Fprintf(&b, "\nleaks: %d descriptors, %d pipes, %d sessions, %d goroutines, %d on the hosts' counters\n",
		l.fds, l.pipes, l.sessions, l.goroutines, l.counters)
	drained, held := 0, 0
	for _, k := range r.kills {
		held += k.held
		if k.drained {
			drained++
		}
	}
	fmt.Fprintf(&b, "kills: %d, %d of them of a host without sessions after a drain; the others had %d sessions in their hands at most\n",
		len(r.kills), drained, held)
	b.WriteString("changes:")
	for i, verb := range slices.Sorted(maps.Keys(r.changes)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %d", verb, r.changes[verb])
	}
	b.WriteByte('\n')
	if len(r.told) > 0 {
		b.WriteString("\nwhat should not have been, the first of it:\n")
		for _, line := range r.told {
			fmt.Fprintln(&b, line)
		}
	}
	switch {
	case r.early:
		b.WriteString("\nINTERRUPTED before the end\n")
	case r.bad():
		b.WriteString("\nFAILED: something above is not 0 that must be, or a client never had a session\n")
	default:
		b.WriteString("\nok\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
