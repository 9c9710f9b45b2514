//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// report writes the results as Markdown, with pictures.
func report(r *results, images []image) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Made by %s (%s). Everything runs on one machine over loopback: the load, the backend and one proxy at a time,
started afresh and warmed up for each measurement of %v (of rates twice, of mixed work three times that). Rounds: %d, each in another order;
two where no goal hangs on it, unless the command says otherwise.

**Ratios are what counts**: absolute times change with the machine and the day. A ratio is formed within each round, and the median of
the rounds is shown; behind a median stand the least and the greatest in parentheses. *Best* is the best of HAProxy in all settings and of nginx.
CPU time is that of all threads of all processes of the proxy, to the nanosecond: the sum of /proc/PID/task/*/schedstat, and what threads
that ended had used. *Whole machine* is the busy time of all cores, the load's and the backend's included: work can move there without
being saved. *TCP segments* are OutSegs of /proc/net/snmp, of all programs. *System calls* are counted by the kernel's tracepoint
raw_syscalls:sys_enter in a short pass of its own, *context switches* are those of /proc/PID/task/*/status. Latencies run from the moment
when a request was to be sent, whether or not it could be (open loop), so that a proxy that stops is charged for all that had to wait.

`, "`"+strings.Join(append([]string{"go run ./bench"}, r.args...), " ")+"`", now(r), r.length, r.most())
	b.WriteString(troubles(r))
	b.WriteString(goalsMet(r))
	b.WriteString(summary(r))
	for _, i := range images {
		fmt.Fprintf(&b, "![%s](%s)\n\n", i.title, i.path)
	}
	for _, w := range r.workloads {
		b.WriteString(section(r, w))
	}
	b.WriteString(settings(r))
	b.WriteString(history)
	return b.String()
}

func now(r *results) string {
	return fmt.Sprintf("%s, in %v", r.began.UTC().Format("2006-01-02 15:04 UTC"), r.took.Round(time.Second))
}

// history is what the program's ancestor was measured with.
const history = `
## History

The original's own figures, on machines of their day: 155 and 350 connections a second through it in 2002 and 2003; in a comparison of
frameworks asyncore answered 107.72 requests a second, Twisted 197.90. The 18 KB page here is the one of its notes.
`

// troubles lists what has gone wrong or is missing, "" for nothing.
func troubles(r *results) string {
	lines := trouble(r)
	if len(lines) == 0 {
		return ""
	}
	return "## Not as it should be\n\n- " + strings.Join(lines, "\n- ") + "\n\n"
}

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
func goalsMet(r *results) string {
	rows := verdictRows(r.verdicts(), "met", "**not met**")
	if rows == nil {
		return ""
	}
	return "## Goals\n\nRatios of txlb as it starts by itself; bare figures where there is nothing to compare with. What one choice of a host\n" +
		"may take is measured by `make micro`.\n\n" + table(rows)
}

// summary compares txlb with the best rival and with plain HAProxy, "" if it
// was not measured.
func summary(r *results) string {
	rows := [][]string{{"work", "figure", "txlb", "best", "txlb / best", "txlb / HAProxy"}}
	for _, w := range r.workloads {
		for _, f := range w.figures {
			mine, best := r.spread(w, f, ours), r.best(w, f)
			if !f.compared || mine.rounds == 0 || best == "" {
				continue
			}
			rows = append(rows, []string{
				w.name, f.title, short(mine.median), short(r.spread(w, f, best).median) + " " + best,
				r.ratio(w, f, ours, best).String(), r.ratio(w, f, ours, plain).String(),
			})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return "## txlb against the others\n\n" + table(rows)
}

// section is the table of one workload.
func section(r *results, w workload) string {
	header := []string{"peer"}
	for _, f := range w.figures {
		header = append(header, f.title)
		if f.compared {
			header = append(header, "/ best", "/ HAProxy")
		}
	}
	rows := [][]string{append(header, "rounds", "failed")}
	var elsewhere []float64
	for _, p := range r.peers {
		rounds, failed := 0, 0
		for _, s := range r.samples {
			if s.workload == w.name && s.peer == p.name {
				rounds++
				failed += s.failed
				elsewhere = append(elsewhere, 100*s.elsewhere())
			}
		}
		if rounds == 0 {
			continue
		}
		row := []string{p.name}
		for _, f := range w.figures {
			if f.proxy && p.argv == nil {
				row = append(row, "–")
				if f.compared {
					row = append(row, "–", "–")
				}
				continue
			}
			row = append(row, r.spread(w, f, p.name).String())
			if f.compared {
				row = append(row, median(r.ratio(w, f, p.name, r.best(w, f))), median(r.ratio(w, f, p.name, plain)))
			}
		}
		loud := fmt.Sprint(failed)
		if failed > 0 {
			loud = "**" + loud + "**"
		}
		rows = append(rows, append(row, fmt.Sprint(rounds), loud))
	}
	others := spreadOf(elsewhere)
	return fmt.Sprintf("## %s\n\n`%s`: %s. Other programs took %s %% of the machine.\n\n%s", w.title, w.name, w.how, others, table(rows))
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
	b.WriteString("## Machine, versions and settings\n\n")
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
	return strings.TrimSuffix(b.String(), "\n")
}
