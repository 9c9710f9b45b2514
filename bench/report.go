//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// report writes a record as Markdown of at most 120 lines, with charts. data is
// where all figures are, as a path from the report; "" if they are not kept.
func report(rec *record, images []image, data string) string {
	var b strings.Builder
	first := func(name string) string { return orElse(strings.Join(rec.fact(name), ", "), "unknown") }
	fmt.Fprintf(&b, `# Benchmarks

Measured on %s, in %s, by this command:

    %s

Load, backend and one proxy at a time run on one machine over loopback. The proxy is started afresh
and warmed up for each measurement of %s. Each round has another order of the peers.

- Version: %s, on kernel %s.
`, first(factBegan), first(factTook), first(factCommand), first(factLength), first("txlb"), first("Kernel"))
	if data != "" {
		fmt.Fprintf(&b, `- Every figure of every peer: [%s](%[2]s/%[1]s).
- Machine, versions and the configuration of each peer: [%[3]s](%[2]s/%[3]s).
- What was tried, and what limits txlb: [docs/design](docs/design/README.md).
`, recordFile, data, settingsFile)
	}
	b.WriteString(`
How to read the tables:

- **Only ratios count.** Absolute times change with machine and day. A ratio is formed within
  each round. Tables show the median of the rounds, and in parentheses the least and the greatest.
- *Best* is the best of nginx and of HAProxy in four settings.
- *CPU* is the time of all threads of the proxy for one unit of work, named in the column *per*.
  *Machine* includes the load and the backend, so it shows work that only moved there.
- Latency counts from the moment when a request was due (open loop), so a proxy that pauses is
  charged for everything that had to wait.

`)
	if lines := rec.fact(factTrouble); len(lines) > 0 {
		b.WriteString("## Problems of this run\n\n- " + strings.Join(lines[:min(len(lines), mostTroubles)], "\n- ") + "\n")
		if more := len(lines) - mostTroubles; more > 0 {
			fmt.Fprintf(&b, "- and %d more\n", more)
		}
		b.WriteString("\n")
	}
	b.WriteString(summary(rec))
	b.WriteString(goalsMet(rec))
	for _, i := range images {
		fmt.Fprintf(&b, "![%s](%s)\n", i.title, i.path)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// mostTroubles bounds the list of problems in a report.
const mostTroubles = 5

// trouble says it in lines.
func trouble(r *results) []string {
	var lines []string
	for _, s := range r.samples {
		if s.failed > 0 {
			lines = append(lines, fmt.Sprintf("**%d of %s failed** in round %d of %s with %s", s.failed, short(s.units+float64(s.failed)), s.round+1, s.workload, s.peer))
		}
	}
	for _, line := range r.broken {
		lines = append(lines, "**could not be measured**: "+line)
	}
	return append(lines, r.leftOut...)
}

// goalsMet is the table of goals, "" if none was measured.
func goalsMet(rec *record) string {
	all := verdicts(rec, rec.workloads())
	rows := verdictRows(all, "met", "**not met**")
	if rows == nil {
		return ""
	}
	met := 0
	for _, v := range all {
		if v.met {
			met++
		}
	}
	return fmt.Sprintf("## Goals\n\n%d of %d are met. Without \"against\" the figure itself counts.\n\n%s", met, len(all), table(rows))
}

// summary has a row for each workload: txlb and its ratio to the best rival.
func summary(rec *record) string {
	kinds := []struct {
		title   string
		figures []string // the first that a workload has
	}{{"CPU, µs", []string{cpu}}, {"throughput, per s", []string{rate, "stream"}}, {"p99, µs", []string{p99}}, {"machine, µs", []string{busy}}}
	header := []string{"work", "per"}
	for _, k := range kinds {
		header = append(header, k.title, "/ best")
	}
	rows := [][]string{header}
	for _, w := range rec.workloads() {
		row, any := []string{w.title + " (`" + w.name + "`)", w.unit}, false
		for _, k := range kinds {
			value, ratio := "–", "–"
			for _, name := range k.figures {
				i := slices.IndexFunc(w.figures, func(f figure) bool { return f.name == name })
				if i < 0 || value != "–" {
					continue
				}
				mine := rec.spread(w, w.figures[i], ours)
				value, any = median(mine), any || mine.rounds > 0
				if name == "stream" {
					value += " MiB"
				}
				if w.figures[i].compared {
					ratio = rec.find(w.name, ours, name, bestRival).String()
				}
			}
			row = append(row, value, ratio)
		}
		if any {
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return "## txlb against the best\n\n" + table(rows)
}

func median(s spread) string {
	if s.rounds == 0 {
		return "–"
	}
	return short(s.median)
}

// table writes rows, the first of which is the header. All columns but the
// first are aligned to the right.
func table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---|" + strings.Repeat("---:|", len(row)-1) + "\n")
		}
	}
	return b.String() + "\n"
}

// settings says on what machine and with which programs and settings the
// figures were made.
func settings(r *results) string {
	var b strings.Builder
	b.WriteString("# Machine, versions and settings of the benchmarks\n\nWritten by `make bench`.\n\n")
	for _, f := range r.facts {
		fmt.Fprintf(&b, "- %s: %s\n", f.name, f.value)
	}
	b.WriteString("\nLoad: wrk with 2 threads, ab, pgbench, redis-benchmark, and programs of the bench for the fixed rates, bulk and idle sessions. Backends:\n")
	for _, k := range kinds() {
		if slices.ContainsFunc(r.workloads, func(w workload) bool { return slices.Contains(w.kinds(), k.name) }) {
			fmt.Fprintf(&b, "%s (%s); ", k.name, k.about)
		}
	}
	b.WriteString("the peers listen and connect on 127.0.0.1,\nwith a second listener of the same kind where two kinds of work are measured together. What their configurations do not say is at its default:\n\n")
	example := place{
		programs: map[string]string{"nginx-stream": "ngx_stream_module.so"}, files: r.files,
		routes: []route{{"127.0.0.1:LISTEN", "127.0.0.1:BACKEND"}},
	}
	for _, p := range r.peers {
		fmt.Fprintf(&b, "**%s**: %s.\n\n", p.name, p.about)
		if p.config != nil {
			fmt.Fprintf(&b, "```\n%s```\n\n", p.config(example))
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
