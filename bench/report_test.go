//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for want, values := range map[string][]float64{
		"–": nil, "3.00": {3}, "2.00 (1.00–9.00)": {9, 1, 2}, "2.50 (1.00–4.00)": {4, 1, 2, 3},
	} {
		if got := spreadOf(values).String(); got != want {
			t.Errorf("%v gives %s, want %s", values, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for want, x := range map[string]float64{
		"0.00": 0, "0.65": 0.654, "9.99": 9.99, "10.0": 9.997, "66.1": 66.14, "100": 99.96, "9,843": 9843.4, "1,234,567": 1234567, "-1,200": -1200,
	} {
		if got := short(x); got != want {
			t.Errorf("%v gives %s, want %s", x, got, want)
		}
	}
}

// made returns results of two rounds of one workload. The machine was half as
// fast in the second; txlb took 0.8 and 0.6 of what HAProxy took.
func made() *results {
	w := wrkLoad("short18k", "Short connections", "18k", lanes, closing)
	r := &results{options: options{workloads: []workload{w}, rounds: 2, length: time.Second, args: []string{"-quick"}}}
	for _, p := range peers() {
		if p.name == plain || p.name == "nginx" || p.name == ours || p.name == "direct" {
			r.peers = append(r.peers, p)
		}
	}
	add := func(peer string, round int, micros time.Duration) {
		const units = 1000
		r.samples = append(r.samples, sample{
			workload: w.name, peer: peer, round: round, units: units,
			usage: usage{time: time.Second, cpu: units * micros * time.Microsecond, busy: time.Second, known: time.Second, segments: 19_000, switches: 500},
		})
	}
	for round, micros := range []time.Duration{100, 200} {
		add("direct", round, 0)
		add(plain, round, micros)
		add("nginx", round, micros*2)
	}
	add(ours, 0, 80)
	add(ours, 1, 120)
	return r
}

func TestRatiosAreFormedWithinARound(t *testing.T) {
	r := made()
	w, f := r.workloads[0], r.workloads[0].figures[0]
	if got := r.ratio(w, f, ours, plain).String(); got != "0.70 (0.60–0.80)" {
		t.Errorf("ratio %s, want 0.70 (0.60–0.80)", got)
	}
	if got := r.best(w, f); got != plain {
		t.Errorf("the best rival is %q, want %s: direct and txlb are none", got, plain)
	}
}

func TestReport(t *testing.T) {
	text := report(made().record(), nil, "bench/data")
	for _, want := range []string{
		"\n    go run ./bench -quick\n",
		"[figures.tsv](bench/data/figures.tsv)",
		"| Short connections, 18 KB reply (`short18k`) | connection | 100 | 0.70 (0.60–0.80) | 1,000 | 1.00 (1.00–1.00) | – | – | 1,000 | 1.00 (1.00–1.00) |",
		"| short18k | proxy CPU | best | ≤ 0.70 | 0.70 (0.60–0.80) | 2 | met |",
		"| short18k | TCP segments per connection | haproxy | ≤ 0.88 | 1.00 (1.00–1.00) | 2 | **not met** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Problems") {
		t.Error("the report complains of nothing")
	}
	for _, want := range []string{"server backend 127.0.0.1:BACKEND", "- Kernel: 6.18"} {
		r := made()
		r.facts = []fact{{"Kernel", "6.18"}}
		if text := settings(r); !strings.Contains(text, want) {
			t.Errorf("the settings lack %q:\n%s", want, text)
		}
	}
}

// A report of everything, with all that can go wrong, is one that is read.
func TestReportIsShort(t *testing.T) {
	rec := &record{}
	for _, w := range workloads() {
		for _, p := range peers() {
			for _, f := range w.figures {
				for _, against := range []string{"", bestRival, plain, spliced} {
					rec.add(row{w.name, p.name, f.name, against, spreadOf([]float64{1, 2, 3})})
				}
			}
		}
	}
	for range 20 {
		rec.facts = append(rec.facts, fact{factTrouble, "no luck"})
	}
	dir := t.TempDir()
	images, err := writeCharts(options{out: filepath.Join(dir, "B.md"), charts: filepath.Join(dir, "charts")}, rec)
	if err != nil || len(images) != len(charts()) {
		t.Fatalf("charts %v, %v", images, err)
	}
	text := report(rec, images, "bench/data")
	if n := strings.Count(text, "\n"); n > 120 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	rows := 0
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "| ") {
			if rows++; strings.Count(line, "|") != 11 && strings.Count(line, "|") != 8 {
				t.Errorf("line %d has a wrong number of cells: %s", i+1, line)
			}
		}
	}
	if rows < len(goals())+len(workloads()) {
		t.Errorf("%d rows", rows)
	}
}

// What is kept of a run says what the run said.
func TestRecordIsWhole(t *testing.T) {
	r := made()
	r.facts = []fact{{"Kernel", "6.18: x"}}
	r.samples[0].failed = 2
	rec := r.record()
	again, err := parseRecord(rec.text())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := report(rec, nil, "d"), report(again, nil, "d"); a != b {
		t.Errorf("the report from the file differs:\n%s\n%s", a, b)
	}
	if a, b := rec.text(), again.text(); a != b {
		t.Errorf("written again it differs:\n%s\n%s", a, b)
	}
	a, b := verdictRows(verdicts(r, r.workloads), "", ""), verdictRows(verdicts(again, again.workloads()), "", "")
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("goals %v\nwant %v", b, a)
	}
	for _, bad := range []string{
		"", "x\n", columns + "\n", columns + "\na\tb\n",
		columns + "\nw\tp\tcpu\t-\t0\t1\t1\t1\n", columns + "\nw\tp\tcpu\t-\t1\tx\t1\t1\n",
	} {
		if _, err := parseRecord(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
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
	r.broken = []string{"round 1, keep, nginx: nginx has ended"}
	r.leftOut = []string{"peer go is left out: no compiler"}
	for i := range r.samples {
		if r.samples[i].peer == ours {
			r.samples[i].cpu *= 4
		}
	}
	text := report(r.record(), nil, "")
	for _, want := range []string{
		"**3 of 1,003 failed** in round 1 of short18k with haproxy",
		"**could not be measured**: round 1, keep, nginx: nginx has ended",
		"peer go is left out: no compiler",
		"2.80 (2.40–3.20) | 2 | **not met** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if r.failed() != 3 {
		t.Errorf("%d failures, want 3", r.failed())
	}
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	for i := range 1000 {
		d = append(d, time.Duration(1000-i))
	}
	sorted := sortedDurations(d)
	for _, test := range []struct {
		p    float64
		want time.Duration
	}{{0, 1}, {0.1, 1}, {50, 500}, {99, 990}, {99.9, 999}, {99.95, 1000}, {100, 1000}} {
		if got := percentile(sorted, test.p); got != test.want {
			t.Errorf("p%v of 1 to 1000 is %d, want %d", test.p, got, test.want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("p99 of nothing is %v", got)
	}
	if got := percentile(sorted[:1], 50); got != 1 {
		t.Errorf("p50 of one value is %v", got)
	}
}

func TestCompactTable(t *testing.T) {
	text := compact(made())
	for _, want := range []string{
		"short18k: wrk -t2 -c64 -H 'Connection: close'; per connection\n",
		"peer     cpu     ×   rate     ×   busy     ×  segments  calls  switches  ±%  n\n",
		"txlb     100  0.70  1,000  1.00  1,000  1.00      19.0      –      0.50  20  2\n",
		"proxy CPU     best  ≤ 0.70  0.70 (0.60–0.80)       2  met\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

func TestCharts(t *testing.T) {
	r := made()
	dir := t.TempDir()
	images, err := writeCharts(options{out: filepath.Join(dir, "B.md"), charts: filepath.Join(dir, "a", "charts")}, r.record())
	if err != nil || len(images) != 2 || images[0].path != "a/charts/short.svg" {
		t.Fatalf("charts %v, %v", images, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "a", "charts", "short.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, new(struct{})); err != nil {
		t.Errorf("no XML: %v", err)
	}
	if n := strings.Count(string(text), "<rect class=\"ours\""); n != 1 || strings.Count(string(text), "direct") > 0 {
		t.Errorf("%d bars of txlb, or direct where it has no figure:\n%s", n, text)
	}
	if !strings.Contains(report(r.record(), images, ""), "](a/charts/short.svg)") {
		t.Error("the report does not show its charts")
	}
}

// Every chart and goal names what there is.
func TestNamesOfWorkloads(t *testing.T) {
	has := func(workload, figure string) bool {
		for _, w := range workloads() {
			for _, f := range w.figures {
				if w.name == workload && f.name == figure {
					return true
				}
			}
		}
		return false
	}
	for _, c := range charts() {
		for _, w := range c.workloads {
			if !has(w, c.figure) {
				t.Errorf("chart %s: there is no %s of %s", c.file, c.figure, w)
			}
		}
	}
	for _, g := range goals() {
		if !has(g.workload, g.figure) {
			t.Errorf("goal: there is no %s of %s", g.figure, g.workload)
		}
	}
}
