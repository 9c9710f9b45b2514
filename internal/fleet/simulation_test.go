package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// phase is what the store has seen in a part of a simulation.
type phase struct {
	name  string
	took  time.Duration
	per   time.Duration // the sums are given for so long; 0: for all of it
	calls []call
}

// sum counts the calls of one kind.
func (p *phase) sum(what ...string) (n int) {
	for _, c := range p.calls {
		if slices.Contains(what, c.what) {
			n++
		}
	}
	return n
}

// busiest is the most calls and events of one second.
func (p *phase) busiest(what ...string) (most int) {
	var at []time.Time
	for _, c := range p.calls {
		if slices.Contains(what, c.what) {
			at = append(at, c.at)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	first := 0
	for last := range at {
		for at[last].Sub(at[first]) >= time.Second {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

func (p *phase) documents() (n int) {
	for _, c := range p.calls {
		n += c.documents
	}
	return n
}

func (p *phase) bytes() (n int) {
	for _, c := range p.calls {
		n += c.bytes
	}
	return n
}

// requests are what nodes ask; events come by watches.
var requests = []string{"read", "write", "lease", "renew", "failed"}

// A fleet of 50 nodes, and what it asks of its store: at rest, for a change, when all start at
// once, and when the store comes back to all at once. Every node has other sessions each time
// it is asked, which is the dearest case. The bytes are those of keys and values without the
// documents, which are counted: a document of 100,000 hosts has half a megabyte (see
// TestHundredThousandHosts), so nothing in here depends on the number of hosts.
func TestFleetOf50(t *testing.T) {
	testkit.Long(t)
	const nodes = 50
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		var phases []*phase
		measure := func(name string, per time.Duration, f func()) *phase {
			store.set(func() { store.calls = []call{} })
			began := time.Now()
			f()
			synctest.Wait()
			p := &phase{name: name, took: time.Since(began), per: per}
			store.set(func() { p.calls, store.calls = store.calls, nil })
			phases = append(phases, p)
			return p
		}
		var all []*member
		same := func(generation uint64, weights string) {
			t.Helper()
			for _, m := range all {
				m.runs(generation, weights)
				if s := m.Status(); !s.Joined || len(s.Nodes) != nodes {
					t.Errorf("node %s has joined: %v, and sees %d nodes", m.name, s.Joined, len(s.Nodes))
				}
			}
		}
		start := measure("all start at once", 0, func() {
			for i := range nodes {
				l := store.link()
				n := int64(0)
				l.sessions = func() int64 { n++; return n }
				all = append(all, begin(t, l, fmt.Sprintf("n%02d", i), folder(t, oneService)))
			}
		})
		same(1, "a1 b1")
		rest := measure("at rest, each second", time.Second, func() { time.Sleep(30 * lease / 3) })
		changed := measure("one change", 0, func() { must(t)(all[7].weigh("a", 2)) })
		same(2, "a2 b1")
		lost := measure("without the store, each second", time.Second, func() {
			store.set(func() { store.down = errCut })
			time.Sleep(time.Minute)
		})
		back := measure("the store is back", 0, func() {
			store.set(func() { store.down = nil })
			time.Sleep(2 * longestPause)
		})
		same(2, "a2 b1")

		t.Logf("%d nodes, lease %v\n%s", nodes, lease, table(phases))
		for _, want := range []struct {
			what       string
			is, atMost int
		}{
			{"documents for a change", changed.documents(), nodes + 1},                                   // one is written, all hear it
			{"requests for a change", changed.sum(requests...), 1 + nodes},                               // each tells that it runs it
			{"requests at rest", rest.sum(requests...), 2 * nodes * 31},                                  // renew and tell
			{"requests of the start", start.sum(requests...), 7 * nodes},                                 // join, begin the fleet or fail to, tell
			{"documents of the start", start.documents(), 3 * nodes},                                     // no node reads it again and again
			{"failed requests in one second without the store", lost.busiest("failed"), 3 * nodes},       // the watch, the first attempts, then back-off
			{"joins in one second when the store is back", back.busiest("lease"), nodes * 3 / 4},         // jitter
			{"documents when the store is back", back.documents(), nodes},                                // each reads it once
			{"requests when the store is back", back.sum("read", "write", "lease", "renew"), 12 * nodes}, // join and some renewals
		} {
			if want.is > want.atMost {
				t.Errorf("%s: %d; want at most %d", want.what, want.is, want.atMost)
			}
		}
	})
}

// table shows phases as a table of Markdown.
func table(phases []*phase) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	row := func(cells ...any) {
		for _, c := range cells {
			_, _ = fmt.Fprintf(w, "| %v\t", c)
		}
		_, _ = fmt.Fprintln(w, "|")
	}
	row("", "reads", "writes", "leases, renewals", "failed", "most in 1 s", "events to nodes", "documents", "KB beside them")
	row("---", "---", "---", "---", "---", "---", "---", "---", "---")
	for _, p := range phases {
		share := func(n int) string {
			if p.per == 0 {
				return fmt.Sprint(n)
			}
			return fmt.Sprintf("%.1f", float64(n)*p.per.Seconds()/p.took.Seconds())
		}
		row(p.name, share(p.sum("read")), share(p.sum("write")), share(p.sum("lease", "renew")), share(p.sum("failed")),
			p.busiest(requests...), share(p.sum("event")), share(p.documents()), share(p.bytes()/1000))
	}
	_ = w.Flush()
	return b.String()
}
