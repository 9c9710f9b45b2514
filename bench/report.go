//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// report writes a record as Markdown of at most 120 lines, with charts. data is
// where all slices are, as a path from the report; "" if they are not kept. counts
// is the part about what is counted.
func report(rec *record, images []image, data, counts string) string {
	var b strings.Builder
	first := func(name string) string { return orElse(strings.Join(rec.fact(name), ", "), "unknown") }
	fmt.Fprintf(&b, `# Benchmarks

Measured on %s, in %s, by `+"`%s`"+`.
%s on kernel %s. Network: %s.
`, first(factBegan), first(factTook), first(factCommand), first("txlb"), first("Kernel"), first("Network"))
	if data != "" {
		fmt.Fprintf(&b, "[Every slice](%[1]s/%[2]s); [machine, versions, configurations](%[1]s/%[3]s); [method](docs/design/measuring.md); [TLS and package txlb](docs/benchmarks-tls.md).\n", data, recordFile, settingsFile)
	}
	b.WriteString(`
- **Equal conditions.** In a row all programs have as many threads and the same congestion control: cubic, or bbr
  where the row says so. HAProxy and nginx are as installed. *64k* is HAProxy with ` + "`tune.bufsize 65536`" + `,
  *splice* HAProxy with ` + "`option splice-request` and `splice-response`" + `.
- **Ratios with intervals.** The programs of a row take turns, each for a slice of ` + first(factSlice) + `. A cell is the ratio txlb / peer:
  the interval of its median over pairs of slices, by bootstrap. A row's first line is one thread, the second two.
- **Verdicts.** ✓ ahead: the whole interval reaches the goal. ✗ behind: none of it does. ? undecided, after up to 5
  looks, each with an interval of 99 %: a verdict is wrong in at most 5 % of cases. ○ out of reach: *bare*, the best
  of two relays that do no more than they have to (bench/internal/floor), misses it too, by the ratio behind the mark.
- *CPU* is the time of all threads of the proxy for a unit of work. Latency counts from when a request was due
  (open loop). *Added* is what is left without that of no proxy in the same turn.

`)
	if lines := rec.fact(factTrouble); len(lines) > 0 {
		b.WriteString("## Problems of this run\n\n- " + strings.Join(lines[:min(len(lines), mostTroubles)], "\n- ") + "\n")
		if more := len(lines) - mostTroubles; more > 0 {
			fmt.Fprintf(&b, "- and %d more\n", more)
		}
		b.WriteString("\n")
	}
	var all []judged
	var lost []string
	for _, c := range rec.comparisons() {
		of := rec.verdicts(c)
		all, lost = append(all, of...), append(lost, behindLines(c, of)...)
	}
	section := func(title string, rows [][]string) {
		if len(rows) > 1 {
			b.WriteString("## " + title + "\n\n" + table(rows))
		}
	}
	section("Goals", goalRows(all))
	if len(lost) > 0 {
		b.WriteString("**Behind**: " + strings.Join(lost, "; ") + ".\n\n")
	}
	b.WriteString(counts)
	section("Work", rec.workRows(all))
	section("Added latency", rec.latencyRows(all))
	section("More", rec.otherRows(all))
	for _, i := range images {
		fmt.Fprintf(&b, "![%s](%s)\n", i.title, i.path)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// mostTroubles bounds the list of problems in a report.
const mostTroubles = 3

// trouble says it in lines.
func trouble(r *results) []string {
	var lines []string
	for _, c := range r.comparisons() {
		failed := map[string]int{}
		for _, s := range r.samples {
			if s.setting == c.setting {
				failed[s.peer] += s.failed
			}
		}
		for _, p := range r.record.peers() {
			if n := failed[p.name]; n > 0 {
				lines = append(lines, fmt.Sprintf("**%d failed** in %s with %s", n, c.label(), p.name))
			}
		}
		if share := r.others(c); share >= 2*disturbing {
			lines = append(lines, fmt.Sprintf("other programs took %.0f %% of the machine during %s", 100*share, c.label()))
		}
	}
	for _, line := range r.broken {
		lines = append(lines, "**could not be measured**: "+line)
	}
	return append(lines, r.leftOut...)
}

// goalRows counts the verdicts of each goal.
func goalRows(all []judged) [][]string {
	rows := [][]string{{"goal", string(ahead), string(behind), string(undecided), string(outOfReach)}}
	total := map[verdict]int{}
	for _, g := range goals() {
		count, n := map[verdict]int{}, 0
		for _, j := range all {
			if j.goal == g {
				count[j.verdict]++
				total[j.verdict]++
				n++
			}
		}
		if n > 0 {
			rows = append(rows, []string{g.String(), strconv.Itoa(count[ahead]), strconv.Itoa(count[behind]), strconv.Itoa(count[undecided]), strconv.Itoa(count[outOfReach])})
		}
	}
	return append(rows, []string{"all", strconv.Itoa(total[ahead]), strconv.Itoa(total[behind]), strconv.Itoa(total[undecided]), strconv.Itoa(total[outOfReach])})
}

// behindLines names the goals of a comparison that txlb alone misses.
func behindLines(c comparison, all []judged) []string {
	var lines []string
	for _, j := range all {
		if j.verdict == behind {
			line := fmt.Sprintf("%s: %s%s %s", c.label(), j.figure.name, strings.TrimSuffix("/"+j.against, "/"), j.got)
			if j.floor.n > 0 {
				line += fmt.Sprintf(" (bare %s)", j.floor)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// marks are how the report writes verdicts.
var marks = map[verdict]string{ahead: " ✓", behind: " ✗", undecided: " ?", outOfReach: " ○"}

// rivals returns the peers that have a column.
func (rec *record) rivals() []peer {
	return slices.DeleteFunc(rec.peers(), func(p peer) bool { return !p.rival() })
}

// bareCell is the ratio of txlb to the bare relay that is best in a figure.
func (rec *record) bareCell(c comparison, name string) string {
	f, ok := c.figureOf(name)
	if !ok || !f.compared {
		return "–"
	}
	best, at := math.NaN(), ""
	for _, p := range rec.peers() {
		if p.role == bare && rec.has(c, p.name) {
			if m := rec.middle(c, f, p.name); at == "" || better(m, best, f.more) {
				best, at = m, p.name
			}
		}
	}
	if at == "" {
		return "–"
	}
	return rec.ratio(c, f, ours, at).String()
}

// short names of peers, for columns.
func column(p peer) string { return strings.TrimPrefix(p.name, plain+"-") }

// figureOf returns a figure of a workload.
func (w workload) figureOf(name string) (figure, bool) {
	for _, f := range w.figures {
		if f.name == name {
			return f, true
		}
	}
	return figure{}, false
}

// ratioCell is the ratio to a peer with the mark of its verdict.
func (rec *record) ratioCell(all []judged, c comparison, name, peer string) string {
	for _, j := range all {
		if j.setting == c.setting && j.figure.name == name && j.against == peer {
			cell := j.got.String() + marks[j.verdict]
			if j.verdict == outOfReach {
				cell += " bare " + j.floor.String()
			}
			return cell
		}
	}
	if f, ok := c.figureOf(name); ok && f.compared && rec.has(c, peer) {
		return rec.ratio(c, f, ours, peer).String()
	}
	return "–"
}

// middleCell is the median of a figure of a peer.
func (rec *record) middleCell(c comparison, name, peer string) string {
	if f, ok := c.figureOf(name); ok {
		return short(rec.middle(c, f, peer))
	}
	return "–"
}

// workRows has a row for each comparison of work that flows or has a rate: CPU time
// and throughput of txlb, and their ratios to each peer.
func (rec *record) workRows(all []judged) [][]string {
	peers := rec.rivals()
	header := []string{"work", "threads", "CPU, µs"}
	for _, p := range peers {
		header = append(header, "/ "+column(p))
	}
	floor := slices.ContainsFunc(rec.peers(), func(p peer) bool { return p.role == bare })
	if floor {
		header = append(header, "/ bare")
	}
	header = append(header, "per s")
	for _, p := range peers {
		header = append(header, "/ "+column(p))
	}
	rows := [][]string{header}
	for _, c := range rec.comparisons() {
		if !slices.Contains([]group{flows, bulks, files, rates}, c.group) || !rec.has(c, ours) {
			continue
		}
		row := []string{c.rowTitle(), strconv.Itoa(c.threads), rec.middleCell(c, cpu, ours)}
		for _, p := range peers {
			row = append(row, rec.ratioCell(all, c, cpu, p.name))
		}
		if floor {
			row = append(row, rec.bareCell(c, cpu))
		}
		row = append(row, rec.middleCell(c, rate, ours))
		for _, p := range peers {
			row = append(row, rec.ratioCell(all, c, rate, p.name))
		}
		rows = append(rows, row)
	}
	return joined(rows)
}

// joined puts rows with the same first cell into one, whose cells have a line for
// each.
func joined(rows [][]string) [][]string {
	var all [][]string
	for _, row := range rows {
		if last := len(all) - 1; last >= 0 && all[last][0] == row[0] {
			for i := 1; i < len(row); i++ {
				all[last][i] += "<br>" + row[i]
			}
			continue
		}
		all = append(all, row)
	}
	return all
}

func (c comparison) rowTitle() string {
	if c.control == usualControl {
		return c.title
	}
	return c.title + ", " + c.control
}

// latencyRows has what each program adds to the latency of requests at a fixed rate.
func (rec *record) latencyRows(all []judged) [][]string {
	peers := rec.rivals()
	header := []string{"added p99, µs (mean: waiting for a core + in the program)", "threads", "p99 without proxy", ours}
	for _, p := range peers {
		header = append(header, column(p), "txlb / it")
	}
	rows := [][]string{header}
	for _, c := range rec.comparisons() {
		if _, ok := c.figureOf(added99); !ok || !rec.has(c, ours) {
			continue
		}
		cell := func(peer string) string {
			if !rec.has(c, peer) {
				return "–"
			}
			return fmt.Sprintf("%s (%s + %s)", rec.middleCell(c, added99, peer), rec.middleCell(c, "wait", peer), rec.middleCell(c, "inside", peer))
		}
		row := []string{c.rowTitle(), strconv.Itoa(c.threads), rec.middleCell(c, p99, direct), cell(ours)}
		for _, p := range peers {
			row = append(row, cell(p.name), rec.ratioCell(all, c, added99, p.name))
		}
		rows = append(rows, row)
	}
	return joined(rows)
}

// otherRows has the goals that the other tables do not show.
func (rec *record) otherRows(all []judged) [][]string {
	peers := rec.rivals()
	header := []string{"work", "threads", ours}
	for _, p := range peers {
		header = append(header, "/ "+column(p))
	}
	rows := [][]string{header}
	for _, c := range rec.comparisons() {
		for _, f := range c.figures {
			goal := slices.ContainsFunc(all, func(j judged) bool { return j.setting == c.setting && j.figure.name == f.name })
			shown := f.name == beside || goal && !slices.Contains([]string{cpu, rate, added99}, f.name)
			if !shown || !rec.has(c, ours) {
				continue
			}
			mine := short(rec.middle(c, f, ours))
			for _, j := range all {
				if j.setting == c.setting && j.figure.name == f.name && j.against == "" {
					mine += marks[j.verdict]
				}
			}
			row := []string{c.rowTitle() + ": " + f.title, strconv.Itoa(c.threads), mine}
			for _, p := range peers {
				row = append(row, rec.ratioCell(all, c, f.name, p.name))
			}
			rows = append(rows, row)
		}
	}
	return joined(rows)
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
	made := "make bench"
	if r.suite == tlsWork {
		made = "make bench-tls"
	}
	b.WriteString("# Machine, versions and settings of the benchmarks\n\nWritten by `" + made + "`.\n\n")
	for _, f := range r.facts {
		b.WriteString(item(f.name, f.value))
	}
	b.WriteString("\nLoad: programs of the bench, pgbench and redis-benchmark. Backends:\n\n")
	for _, k := range kinds() {
		if slices.ContainsFunc(r.workloads, func(w workload) bool { return slices.Contains(w.kinds(), k.name) }) {
			b.WriteString(item(k.name, k.about))
		}
	}
	b.WriteString("\nWorkloads:\n\n")
	for _, w := range r.workloads {
		b.WriteString(item(w.name, w.title+"; "+w.how))
	}
	example := place{
		programs: map[string]string{"nginx-stream": "ngx_stream_module.so"}, files: r.files, threads: 1,
		routes: []route{{"127.0.0.1:LISTEN", "127.0.0.1:BACKEND"}},
	}
	shown := "with one thread"
	if r.suite == tlsWork { // a workload has one of the sides
		shown, example.threads = "with two threads, and with TLS on both sides", 2
		example.front, example.back = &certificate{"CERT.pem", "KEY.pem", "CERT-AND-KEY.pem"}, &certificate{cert: "CA.pem"}
	}
	fmt.Fprintf(&b, "\nThe peers listen and connect on 127.0.0.1. They are shown %s.\nWhat their configurations do not say is at its default:\n\n", shown)
	for _, p := range r.options.peers {
		fmt.Fprintf(&b, "**%s**: %s.\n\n", p.name, p.about)
		if p.config != nil {
			fmt.Fprintf(&b, "```\n%s```\n\n", p.config(example))
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
