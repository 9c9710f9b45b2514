//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rowsFit wants as many cells in each row of a table.
func rowsFit(t *testing.T, text string) {
	t.Helper()
	cells := 0
	for i, line := range strings.Split(text, "\n") {
		switch n := strings.Count(line, "|"); {
		case n == 0:
			cells = 0
		case cells == 0:
			cells = n
		case n != cells:
			t.Errorf("line %d has a wrong number of cells: %s", i+1, line)
		}
	}
}

// made returns results of eight turns of one workload, each on a machine that was
// slower than in the one before; txlb took 0.6 of what HAProxy took, and 0.3 of what
// nginx took.
func made() *results {
	w := pick(nil, workloads(), "short18k")[0]
	r := &results{options: options{workloads: []workload{w}, rounds: 8, length: time.Second, args: []string{"-quick"}}}
	for round := range 8 {
		for peer, part := range map[string]time.Duration{ours: 60, plain: 100, "nginx": 200} {
			const units = 1000
			r.samples = append(r.samples, sample{
				setting: setting{w.name, 2, usualControl}, peer: peer, round: round, units: units,
				usage: usage{
					time: time.Second, cpu: time.Duration(round+1) * units * part * time.Microsecond, wait: units * time.Microsecond,
					busy: time.Second, segments: 19_000, switches: 500,
				},
			})
		}
	}
	slices.SortFunc(r.samples, func(a, b sample) int { return strings.Compare(a.peer, b.peer) })
	for _, p := range peers() {
		if r.has(r.comparisons()[0], p.name) {
			r.options.peers = append(r.options.peers, p)
		}
	}
	r.facts = []fact{{factCommand, "go run ./bench -quick"}, {"Kernel", "6.18: x"}}
	return r
}

func TestRatiosAreFormedTurnByTurn(t *testing.T) {
	r := made()
	c := r.comparisons()[0]
	f, _ := c.figureOf(cpu)
	if got := r.ratio(c, f, ours, plain); got.String() != "0.60" || got.n != 8 {
		t.Errorf("ratio %+v, want 0.60 in each of 8 turns", got)
	}
	r.samples[len(r.samples)-1].round = 99 // a turn in which the other had no slice
	if got := r.ratio(c, f, ours, plain); got.n != 7 {
		t.Errorf("%d pairs, want 7", got.n)
	}
}

// What a program adds is what it has more than no proxy in the same turn.
func TestAddedLatency(t *testing.T) {
	w := pick(nil, workloads(), "rate5k")[0]
	rec := &record{}
	c := comparison{w, setting{w.name, 1, usualControl}}
	for round := range 8 {
		floor := float64(1000 * round)
		for peer, more := range map[string]float64{direct: 0, ours: 50, plain: 100} {
			s := sample{setting: c.setting, peer: peer, round: round, units: 1000, usage: usage{wait: 10 * time.Millisecond}}
			s.note(p99, floor+more)
			s.note("mean", floor+more)
			rec.samples = append(rec.samples, s)
		}
	}
	added, _ := c.figureOf(added99)
	inside, _ := c.figureOf("inside")
	if got := rec.interval(c, added, ours); got.String() != "50.0" {
		t.Errorf("added %v, want 50", got)
	}
	if got := rec.ratio(c, added, ours, plain); got.String() != "0.50" {
		t.Errorf("ratio %v, want 0.50", got)
	}
	// Each unit waited 10 µs for a core, without a proxy as well: there is none to
	// wait then.
	for i := range rec.samples {
		if rec.samples[i].peer == direct {
			rec.samples[i].wait = 0
		}
	}
	if got := rec.interval(c, inside, ours); got.String() != "40.0" {
		t.Errorf("in the program %v, want 40", got)
	}
}

func TestReport(t *testing.T) {
	text := report(&made().record, nil, "bench/data", "")
	for _, want := range []string{
		" by `go run ./bench -quick`.\n",
		"[Every slice](bench/data/slices.tsv)",
		"| work | threads | CPU, µs | / haproxy | / nginx | per s | / haproxy | / nginx |",
		"| Short connections, 18 KB reply | 2 | 270 | 0.60 ✓ | 0.30 ✓ | 1,000 | 1.00 ✗ | 1.00 ✗ |",
		"| requests: cpu ≤ 0.70 of as installed | 2 | 0 | 0 |",
		"| requests: rate ≥ 1.05 of each | 0 | 2 | 0 |",
		"| all | 2 | 3 | 0 |",
		"| Short connections, 18 KB reply: TCP segments per connection | 2 | 19.0 | 1.00 ✗ | 1.00 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Problems") {
		t.Error("the report complains of nothing")
	}
	for _, want := range []string{"server backend 127.0.0.1:BACKEND", "- Kernel: 6.18", "nbthread 1", `loops="1"`, "worker_processes 1"} {
		if text := settings(made()); !strings.Contains(text, want) {
			t.Errorf("the settings lack %q:\n%s", want, text)
		}
	}
}

// A goal that the bare relays miss too is out of reach, if txlb has not reached it.
func TestOutOfReach(t *testing.T) {
	// Each slice takes so much CPU: of HAProxy 100, of txlb and each bare relay as said.
	for name, test := range map[string]struct {
		ours time.Duration
		bare map[string]time.Duration
		want string
	}{
		"behind, and one relay reaches the goal": {80, map[string]time.Duration{"bare": 90, "bare-splice": 60}, "behind"},
		"behind, and no relay reaches it":        {80, map[string]time.Duration{"bare": 78, "bare-splice": 74}, "out of reach: the bare relay has 0.74"},
		"behind, and no relay was measured":      {80, nil, "behind"},
		"behind, and ahead of all relays":        {72, map[string]time.Duration{"bare": 78, "bare-splice": 74}, "behind"},
		"ahead":                                  {60, map[string]time.Duration{"bare": 78}, "ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			r := made()
			c := r.comparisons()[0]
			for i := range r.samples {
				if s := &r.samples[i]; s.peer == ours {
					s.cpu = s.cpu / 60 * test.ours
				}
			}
			for peer, part := range test.bare {
				for _, s := range r.samples[:8] { // of HAProxy
					s.peer, s.cpu = peer, s.cpu/100*part
					r.samples = append(r.samples, s)
				}
			}
			if r.samples[0].peer != plain {
				t.Fatalf("the first slices are of %s", r.samples[0].peer)
			}
			for _, j := range r.verdicts(c) {
				if j.figure.name == cpu && j.against == plain && j.says() != test.want {
					t.Errorf("%s, want %s", j.says(), test.want)
				}
			}
			text := report(&r.record, nil, "", "")
			if outOfReach, says := test.want[0] == 'o', strings.Contains(text, "| 0.80 ○ bare 0.74 |"); outOfReach && !says {
				t.Errorf("the report does not say it:\n%s", text)
			}
			if test.want == string(behind) && (test.bare != nil) != strings.Contains(text, " (bare 0.") {
				t.Errorf("what the relay has is not in the report, or there is none:\n%s", text)
			}
			if is, named := test.want == string(behind), strings.Contains(text, fmt.Sprintf("cpu/haproxy 0.%d", test.ours)); is != named {
				t.Errorf("named as behind: %v, want %v:\n%s", named, is, text)
			}
		})
	}
}

// full returns a record of everything, as a run of the default options leaves it.
func full() *record {
	rec := &record{}
	r := rig{options: options{workloads: workloads(), peers: slices.DeleteFunc(peers(), func(p peer) bool { return p.role == extra })}}
	for _, w := range r.workloads {
		controls := w.controls
		if controls == nil {
			controls = []string{usualControl}
		}
		for _, control := range controls {
			for threads := 1; threads <= 2; threads++ {
				if w.suite != usual || w.asked || w.once && threads == 1 {
					continue
				}
				for _, p := range r.contestants(w) {
					for round := range 2 {
						s := sample{setting: setting{w.name, threads, control}, peer: p.name, round: round, units: 1, usage: usage{time: time.Second, cpu: time.Second, segments: 1}}
						for _, name := range []string{"p50", p99, "mean", grown, beside, attackFigure} {
							s.note(name, 2)
						}
						rec.samples = append(rec.samples, s)
					}
				}
			}
		}
	}
	return rec
}

// A report of everything, with all that can go wrong, is one that is read.
func TestReportIsShort(t *testing.T) {
	rec := full()
	for range 20 {
		rec.facts = append(rec.facts, fact{factTrouble, "no luck"})
	}
	dir := t.TempDir()
	images, err := writeCharts(options{out: filepath.Join(dir, "B.md"), charts: filepath.Join(dir, "charts")}, rec)
	if err != nil || len(images) != len(charts())-1 { // nothing is added to the latency of no proxy
		t.Fatalf("charts %v, %v", images, err)
	}
	text := report(rec, images, "bench/data", strings.Repeat("\n", 19))
	if n := strings.Count(text, "\n"); n > 120 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	rowsFit(t, text)
	for _, g := range goals() {
		if !slices.ContainsFunc(workloads(), func(w workload) bool { return w.suite == usual && g.holds(w) }) {
			continue // of TLS
		}
		if !strings.Contains(text, "| "+g.String()+" |") {
			t.Errorf("the report lacks the goal %s", g)
		}
	}
}

// What is kept of a run says what the run said.
func TestRecordIsWhole(t *testing.T) {
	r := made()
	r.samples[0].failed = 2
	r.samples[0].note(p99, 12.5)
	rec := &r.record
	again, err := parseRecord(rec.text())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := report(rec, nil, "d", ""), report(again, nil, "d", ""); a != b {
		t.Errorf("the report from the file differs:\n%s\n%s", a, b)
	}
	if a, b := rec.text(), again.text(); a != b {
		t.Errorf("written again it differs:\n%s\n%s", a, b)
	}
	if again.failed() != 2 || again.samples[0].noted[p99] != 12.5 {
		t.Errorf("%+v", again.samples[0])
	}
	good := "w\t1\tcubic\tp\t0\t0\t1\t0\t1\t1\t1\t1\t1\t1\t0\t"
	for _, bad := range []string{"", "x\n", columns + "\n", columns + "\na\tb\n", columns + "\n" + strings.Replace(good, "\t1\t", "\tx\t", 1) + "\n", columns + "\n" + good + "p99=x\n"} {
		if _, err := parseRecord(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := parseRecord(columns + "\n" + good + "\n"); err != nil {
		t.Error(err)
	}
}

// A run leaves data from which report and charts can be written again.
func TestPublishAndFrom(t *testing.T) {
	dir := t.TempDir()
	opt := options{out: filepath.Join(dir, "B.md"), charts: filepath.Join(dir, "charts"), data: filepath.Join(dir, "data")}
	if err := publish(opt, io.Discard, made()); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(opt.out)
	if err != nil || !strings.Contains(string(first), "](data/settings.md)") {
		t.Fatalf("%v\n%s", err, first)
	}
	if err := os.Remove(opt.out); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if status := run(t.Context(), []string{"-from", opt.data, "-out", opt.out, "-charts", opt.charts}, io.Discard, &said); status != 0 {
		t.Fatalf("status %d: %s", status, &said)
	}
	if again, err := os.ReadFile(opt.out); err != nil || string(again) != string(first) {
		t.Errorf("%v\n%s\nwant\n%s", err, again, first)
	}
}

func TestReportIsLoudAboutTrouble(t *testing.T) {
	r := made()
	r.samples[1].failed = 3
	r.samples[1].peer = plain
	r.broken = []string{"visit 1, keep, nginx: nginx has ended"}
	r.leftOut = []string{"peer go is left out: no compiler"}
	r.closing()
	for i := range r.samples {
		if r.samples[i].peer == ours {
			r.samples[i].cpu *= 4
		}
	}
	text := report(&r.record, nil, "", "")
	for _, want := range []string{
		"**3 failed** in short18k, 2 threads with haproxy",
		"**could not be measured**: visit 1, keep, nginx: nginx has ended",
		"peer go is left out: no compiler",
		"| 2.40 ✗ |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if r.failed() != 3 {
		t.Errorf("%d failures, want 3", r.failed())
	}
}

func TestCompactTable(t *testing.T) {
	text := compact(made())
	for _, want := range []string{
		"short18k, 2 threads: 64 connections at a time, a new one for each request; per connection\n",
		"peer     cpu     ×   rate     ×  machine     ×  segments     ×  switches  wait  n\n",
		"haproxy  450  0.60  1,000  1.00    1,000  1.00      19.0  1.00      0.50  1.00  8\n",
		"short18k, 2 threads       cpu  haproxy  ≤ 0.70  0.60  8  ahead\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

func TestCharts(t *testing.T) {
	r := made()
	dir := t.TempDir()
	images, err := writeCharts(options{out: filepath.Join(dir, "B.md"), charts: filepath.Join(dir, "a", "charts")}, &r.record)
	if err != nil || len(images) != 1 || images[0].path != "a/charts/work.svg" {
		t.Fatalf("charts %v, %v", images, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "a", "charts", "work.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, new(struct{})); err != nil {
		t.Errorf("no XML: %v", err)
	}
	if n := strings.Count(string(text), "<rect class=\"ours\""); n != 1 || strings.Count(string(text), "direct") > 0 {
		t.Errorf("%d bars of txlb, or direct where it has no figure:\n%s", n, text)
	}
	if !strings.Contains(report(&r.record, images, "", ""), "](a/charts/work.svg)") {
		t.Error("the report does not show its charts")
	}
}

// Every chart and goal names what there is.
func TestNamesOfWorkloads(t *testing.T) {
	has := func(name, figure string) bool {
		return slices.ContainsFunc(workloads(), func(w workload) bool {
			_, ok := w.figureOf(figure)
			return w.name == name && ok
		})
	}
	for _, c := range charts() {
		for _, w := range c.workloads {
			if !has(w, c.figure) {
				t.Errorf("chart %s: there is no %s of %s", c.file, c.figure, w)
			}
		}
	}
	for _, g := range goals() {
		found := false
		for _, w := range workloads() {
			if !g.holds(w) {
				continue
			}
			found = true
			if !has(w.name, g.figure) {
				t.Errorf("goal: there is no %s of %s", g.figure, w.name)
			}
		}
		if !found || g.against != "" && !slices.ContainsFunc(peers(), g.holdsAgainst) {
			t.Errorf("goal %s holds for nothing", g)
		}
	}
}

// What is visited again: txlb, the bare relays, no proxy, and those whose verdicts are open.
func TestUndecidedIsVisitedAgain(t *testing.T) {
	res := made()
	r := &rig{options: options{workloads: res.workloads, peers: peers()}}
	c := res.comparisons()[0]
	if got := names(r.open(res, c, 0)); got != "txlb, haproxy, nginx, haproxy-64k, haproxy-splice, bare" {
		t.Errorf("first: %s", got)
	}
	if got := r.open(res, c, 1); len(got) != 0 {
		t.Errorf("all is decided, but %s is visited", names(got))
	}
	for i, s := range res.samples {
		if s.peer == "nginx" && s.round%2 == 0 {
			res.samples[i].cpu /= 4
		}
	}
	if got := names(r.open(res, c, 1)); got != "txlb, nginx, bare" {
		t.Errorf("then: %s, want txlb, nginx and the bare relays: HAProxy is decided", got)
	}
}
