//go:build linux

package main

import (
	"strconv"
	"strings"
)

// goal is a bound that txlb, as it starts by itself, has to keep to.
type goal struct {
	workload, figure string
	against          string // peer, or bestRival; "" for the figure itself
	bound            float64
}

// bestRival stands for the best of nginx and of HAProxy in all settings: what
// a sceptic would choose.
const bestRival = "best"

// goals returns them as ratios of medians on two cores. Figures of which more
// is better have to reach their bound, the others may not exceed it. What one
// Pick may take is measured by "make micro".
func goals() []goal {
	return []goal{
		{"short18k", cpu, bestRival, 0.70},
		{"short18k", rate, bestRival, 1.15},
		{"short18k", busy, bestRival, 0.85},
		{"short18k", segs, plain, 0.88},
		{"keep64", cpu, bestRival, 0.70},
		{"keep64", rate, bestRival, 1.08},
		{"keep64", busy, bestRival, 0.90},
		{"keep1000", cpu, bestRival, 0.70},
		{"keep1000", rate, bestRival, 1.08},
		{"keep18k-64", cpu, bestRival, 0.75},
		{"keep18k-64", rate, bestRival, 1.15},
		{"bulk4", cpu, spliced, 0.45},
		{"bulk4", cpu, plain, 0.25},
		{"bulk4", rate, bestRival, 1.00},
		{"bulk64", cpu, spliced, 0.45},
		{"bulk64", cpu, plain, 0.25},
		{"bulk64", rate, bestRival, 1.00},
		{"rate5k", cpu, bestRival, 1.00},
		{"rate5k", p99, bestRival, 1.00},
		{"rate10k", cpu, bestRival, 0.90},
		{"rate10k", p99, bestRival, 1.00},
		{"rate16k", cpu, bestRival, 0.80},
		{"rate16k", p99, bestRival, 1.00},
		{"mixed", p99, plain, 1.00},
		{"stalled", p99, plain, 1.00},
		{"idle", grown, "", 1.00},
		{"short18k-idle", "beside", "", 1.05},
		{"attacked-keys", attackFigure, "", 2},
		{"attacked-requests", attackFigure, "", 2},
		{"attacked-metrics", attackFigure, "", 2},
		{"attacked-idle", attackFigure, "", 2},
	}
}

// verdict is how far a goal is reached.
type verdict struct {
	goal
	figure figure
	got    spread // none if it was not measured
	met    bool
}

// verdicts judges the goals that can be judged.
func verdicts(m measured, of []workload) []verdict {
	var all []verdict
	for _, g := range goals() {
		for _, w := range of {
			for _, f := range w.figures {
				if w.name != g.workload || f.name != g.figure {
					continue
				}
				v := verdict{goal: g, figure: f}
				switch against := g.against; against {
				case "":
					v.got = m.spread(w, f, ours)
				case bestRival:
					v.got = m.ratio(w, f, ours, m.best(w, f))
				default:
					v.got = m.ratio(w, f, ours, against)
				}
				v.met = v.got.median <= g.bound
				if f.more {
					v.met = v.got.median >= g.bound
				}
				if v.got.rounds > 0 {
					all = append(all, v)
				}
			}
		}
	}
	return all
}

// verdictRows returns a table of verdicts, its header first; nil if there are none.
func verdictRows(all []verdict, met, missed string) [][]string {
	if len(all) == 0 {
		return nil
	}
	rows := [][]string{{"work", "figure", "against", "goal", "txlb", "rounds", ""}}
	for _, v := range all {
		sign, word := "≤ ", met
		if v.figure.more {
			sign = "≥ "
		}
		if !v.met {
			word = missed
		}
		name, _, _ := strings.Cut(v.figure.title, ", µs")
		rows = append(rows, []string{v.workload, name, orElse(v.against, "–"), sign + short(v.bound), v.got.String(), strconv.Itoa(v.got.rounds), word})
	}
	return rows
}
