//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// tlsReport writes the record of "bench tls" as Markdown: TLS beside HAProxy and nginx,
// and what txlb costs in other shapes. data and counts are as for report.
func tlsReport(rec *record, data, counts string) string {
	var b strings.Builder
	first := func(name string) string { return orElse(strings.Join(rec.fact(name), ", "), "unknown") }
	fmt.Fprintf(&b, `# Benchmarks of TLS and of package txlb

Measured on %s, in %s, by `+"`%s`"+`.
%s on kernel %s, %s; HAProxy: %s; nginx: %s. Network: %s.
`, first(factBegan), first(factTook), first(factCommand), first("txlb"), first("Kernel"), first("Go"), first("haproxy"), first("nginx"), first("Network"))
	if data != "" {
		fmt.Fprintf(&b, "[Every slice](%[1]s/%[2]s); [machine, versions, configurations](%[1]s/%[3]s); [method](design/measuring.md).\n", data, recordFile, settingsFile)
	}
	b.WriteString(`
- **Equal conditions.** Every program has the same certificates and speaks TLS 1.3 with X25519 and AES-128-GCM; the
  load ends with an error where it does not. Everything else is as installed. All have two threads: txlb does TLS on
  goroutines, which use every core, however many loops there are.
- **The load** is Go's crypto/tls in a process of its own. What it takes is in a column and in no other figure.
- **Ratios with intervals.** The programs of a row take turns, each for a slice of ` + first(factSlice) + `. A cell is the ratio txlb / peer:
  the interval of its median over pairs of slices, by bootstrap.
- **Verdicts.** ✓ ahead: the whole interval is at 1 or on the better side of it. ✗ behind: all of it is on the other
  side. ? undecided, after up to 5 looks, each with an interval of 99 %.

`)
	if lines := rec.fact(factTrouble); len(lines) > 0 {
		b.WriteString("## Problems of this run\n\n- " + strings.Join(lines[:min(len(lines), mostTroubles)], "\n- ") + "\n")
		if more := len(lines) - mostTroubles; more > 0 {
			fmt.Fprintf(&b, "- and %d more\n", more)
		}
		b.WriteString("\n")
	}
	var all []judged
	for _, c := range rec.comparisons() {
		all = append(all, rec.verdicts(c)...)
	}
	section := func(title, words string, rows [][]string) {
		if len(rows) > 1 {
			b.WriteString("## " + title + "\n\n" + words + table(rows))
		}
	}
	section("TLS beside HAProxy and nginx", "CPU is that of all threads of the proxy. Latency is from the connect, or from the request where connections are kept.\n\n", rec.tlsRows(all))
	section("A part of a program, and sessions on goroutines",
		"*embedded* is package txlb in a Go program with the GOMAXPROCS that Go gives it, *embedded-spare* with one more\nthan loops, as the daemon has. *own-tcp* is a program that accepts itself, whose connections move onto loops;\n*own-conns* one whose connections are no `*net.TCPConn`, so that goroutines serve them; *goroutines* the daemon\nwith sessions on goroutines. Cells are ratios to the daemon.\n\n", rec.shapeRows())
	b.WriteString(counts)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// tlsRows has a row for each figure that TLS is judged by.
func (rec *record) tlsRows(all []judged) [][]string {
	peers := rec.rivals()
	header := []string{"work", "figure", ours}
	for _, p := range peers {
		header = append(header, p.name, "txlb / it")
	}
	rows := [][]string{append(header, "CPU of the load, µs")}
	for _, c := range rec.comparisons() {
		if c.suite != tlsWork || c.own || !rec.has(c, ours) {
			continue
		}
		for _, f := range c.figures {
			if !slices.ContainsFunc(goals(), func(g goal) bool { return g.holds(c.workload) && g.figure == f.name }) {
				continue
			}
			row := []string{c.title, f.title, rec.middleCell(c, f.name, ours)}
			for _, p := range peers {
				row = append(row, rec.middleCell(c, f.name, p.name), rec.ratioCell(all, c, f.name, p.name))
			}
			load := "–"
			if f.name == cpu {
				load = rec.middleCell(c, loadCPU, ours)
			}
			rows = append(rows, append(row, load))
		}
	}
	return joined(rows)
}

// shapeRows has a row for each figure of txlb in other shapes.
func (rec *record) shapeRows() [][]string {
	header := []string{"work", "figure", ours}
	for _, p := range shapes() {
		header = append(header, p.name)
	}
	rows := [][]string{header}
	for _, c := range rec.comparisons() {
		if !c.own || !rec.has(c, ours) {
			continue
		}
		for _, f := range c.figures {
			if !f.compared || f.name == "machine" {
				continue
			}
			row := []string{c.title, f.title, rec.middleCell(c, f.name, ours)}
			for _, p := range shapes() {
				cell := "–"
				if rec.has(c, p.name) {
					cell = rec.ratio(c, f, p.name, ours).String()
				}
				row = append(row, cell)
			}
			rows = append(rows, row)
		}
	}
	return joined(rows)
}
