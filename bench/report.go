//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// figure is one quantity that is reported of a workload.
type figure struct {
	name     string
	title    string // column, for the unit of work
	more     bool   // more is better
	compared bool   // shown as a ratio too
	proxy    bool   // of the proxy alone: direct has none
	of       func(sample) float64
}

// figures returns those of work that flows, counted in a unit with this plural.
func figures(unit, units string) []figure {
	return []figure{
		{
			name: cpu, title: "proxy CPU, µs per " + unit, compared: true, proxy: true,
			of: func(s sample) float64 { return micros(s.cpu) / s.units },
		},
		{
			name: "rate", title: units + " per second", more: true, compared: true,
			of: func(s sample) float64 { return s.units / s.time.Seconds() },
		},
		{
			name: "busy", title: "whole machine, µs per " + unit, compared: true,
			of: func(s sample) float64 { return micros(s.busy) / s.units },
		},
		{
			name: "segments", title: "TCP segments per " + unit,
			of: func(s sample) float64 { return float64(s.segments) / s.units },
		},
		{
			name: "switches", title: "context switches per " + unit, proxy: true,
			of: func(s sample) float64 { return float64(s.switches) / s.units },
		},
	}
}

const cpu = "cpu"

// memory returns the figure of idle sessions.
func memory() []figure {
	return []figure{
		{
			name: "memory", title: "resident KiB per session", compared: true, proxy: true,
			of: func(s sample) float64 { return s.memory / 1024 / s.units },
		},
		{name: "sessions", title: "sessions", more: true, of: func(s sample) float64 { return s.units }},
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// goal is a ratio that txlb has to keep to.
type goal struct {
	workload, figure string
	against          string  // peer
	most             float64 // the ratio's median
}

func goals() []goal {
	return []goal{{workload: "short18k", figure: cpu, against: plain, most: 1.3}}
}

// progressLine says in one line what a measurement gave.
func progressLine(w workload, p peer, s sample, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %-12s %-15s", s.round+1, rounds, w.name, p.name)
	for _, f := range w.figures {
		if f.compared && !(f.proxy && p.argv == nil) {
			fmt.Fprintf(&b, " %s %s", f.name, short(f.of(s)))
		}
	}
	fmt.Fprintf(&b, ", units %s", short(s.units))
	if share := s.elsewhere(); share >= disturbing {
		fmt.Fprintf(&b, ", other programs took %.0f %% of the machine", 100*share)
	}
	if s.failed > 0 {
		fmt.Fprintf(&b, ", FAILED: %d", s.failed)
	}
	return b.String()
}

// disturbing is from what share of the machine on others are mentioned while
// the bench runs.
const disturbing = 0.05

// report writes the results as Markdown.
func report(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Made by %s (%s). Everything runs on one machine over loopback: the load, the backend and one proxy at a time,
started afresh and warmed up for each measurement of %v. Rounds: %d, each in another order.

**Ratios are what counts**: absolute times change with the machine and the day. A ratio is formed within each round, and the median of
the rounds is shown; behind a median stand the least and the greatest in parentheses. *Best* is the best of HAProxy in all settings and of nginx.
CPU time is that of all threads of all processes of the proxy, from /proc/PID/task/*/schedstat. *Whole machine* is the busy time of all
cores, the load's and the backend's included: work can move there without being saved.

`, "`"+strings.Join(append([]string{"go run ./bench"}, r.args...), " ")+"`", now(r), r.length, r.rounds)
	b.WriteString(troubles(r))
	b.WriteString(summary(r))
	for _, w := range r.workloads {
		b.WriteString(section(r, w))
	}
	b.WriteString(settings(r))
	return b.String()
}

func now(r *results) string {
	return fmt.Sprintf("%s, in %v", r.began.UTC().Format("2006-01-02 15:04 UTC"), r.took.Round(time.Second))
}

// troubles lists what has gone wrong or is missing, "" for nothing.
func troubles(r *results) string {
	var lines []string
	for _, s := range r.samples {
		if s.failed > 0 {
			lines = append(lines, fmt.Sprintf("**%d of %s failed** in round %d of %s with %s", s.failed, short(s.units+float64(s.failed)), s.round+1, s.workload, s.peer))
		}
	}
	for _, line := range r.broken {
		lines = append(lines, "**could not be measured**: "+line)
	}
	lines = append(lines, r.leftOut...)
	if len(lines) == 0 {
		return ""
	}
	return "## Not as it should be\n\n- " + strings.Join(lines, "\n- ") + "\n\n"
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
	var b strings.Builder
	b.WriteString("## txlb against the others\n\n")
	b.WriteString(table(rows))
	for _, w := range r.workloads {
		for _, f := range w.figures {
			b.WriteString(verdict(r, w, f))
		}
	}
	return b.String()
}

// verdict says whether the goals for a figure are met, "" where there is none.
func verdict(r *results, w workload, f figure) string {
	var b strings.Builder
	for _, g := range goals() {
		got := r.ratio(w, f, ours, g.against)
		if g.workload != w.name || g.figure != f.name || got.rounds == 0 {
			continue
		}
		word := "met"
		if got.median > g.most {
			word = "**missed**"
		}
		fmt.Fprintf(&b, "Goal: %s of %s at most %s of %s: %s, %s.\n\n", f.name, w.name, short(g.most), g.against, got, word)
	}
	return b.String()
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
	b.WriteString("\nLoad: wrk with 2 threads, ab and wrk with 64 connections; the web backend is nginx with static files, the one for streams and\n" +
		"idle sessions a program of the bench. The peers listen and connect on 127.0.0.1; what their configurations do not say is at its default:\n\n")
	example := place{
		programs: map[string]string{"nginx-stream": "ngx_stream_module.so"}, files: r.files,
		listen: "127.0.0.1:LISTEN", target: "127.0.0.1:BACKEND",
	}
	for _, p := range r.peers {
		fmt.Fprintf(&b, "**%s**: %s.\n\n", p.name, p.about)
		if p.config != nil {
			fmt.Fprintf(&b, "```\n%s```\n\n", p.config(example))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
