//go:build linux

package main

import (
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
	w := wrkLoad("short18k", "Short connections", "18k", true, closing)
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
	r := made()
	text := report(r)
	for _, want := range []string{
		"`go run ./bench -quick`",
		"| short18k | proxy CPU, µs per connection | 100 | 150 haproxy | 0.70 (0.60–0.80) | 0.70 (0.60–0.80) |",
		"at most 1.30 of haproxy: 0.70 (0.60–0.80), met.",
		"| nginx | 300 (200–400) | 2.00 | 2.00 | 1,000 (1,000–1,000) |",
		"| direct | – | – | – | 1,000 (1,000–1,000) |",
		"server backend 127.0.0.1:BACKEND",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(text, "Not as it should be") {
		t.Error("the report complains of nothing")
	}
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "| short18k") && strings.Count(line, "|") != 7 {
			t.Errorf("line %d has a wrong number of cells: %s", i+1, line)
		}
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
	text := report(r)
	for _, want := range []string{
		"**3 of 1,003 failed** in round 1 of short18k with haproxy",
		"**could not be measured**: round 1, keep, nginx: nginx has ended",
		"peer go is left out: no compiler",
		"| 2 | **3** |",
		"2.80 (2.40–3.20), **missed**",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if r.failed() != 3 {
		t.Errorf("%d failures, want 3", r.failed())
	}
}
