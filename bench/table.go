//go:build linux

package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// compact is the report for a terminal: one table for each workload, with the
// ratio to the best rival behind each median, and what has become of the
// goals.
func compact(r *results) string {
	var b strings.Builder
	for _, w := range r.workloads {
		rows := compactRows(r, w)
		if len(rows) < 2 {
			continue
		}
		fmt.Fprintf(&b, "%s: %s; per %s\n\n%s\n", w.name, w.how, w.unit, aligned(rows))
	}
	b.WriteString("× is the ratio to the best of HAProxy and nginx. Medians; ±% is half the distance of the extremes, of the first figure.\n\n")
	if rows := verdictRows(verdicts(r, r.workloads), "met", "MISSED"); rows != nil {
		b.WriteString(aligned(rows) + "\n")
	}
	for _, line := range trouble(r) {
		b.WriteString(strings.ReplaceAll(line, "**", "") + "\n")
	}
	return b.String()
}

// compactRows is the table of one workload, its header first.
func compactRows(r *results, w workload) [][]string {
	header := []string{"peer"}
	for _, f := range w.figures {
		header = append(header, f.name)
		if f.compared {
			header = append(header, "×")
		}
	}
	rows := [][]string{append(header, "±%", "n")}
	for _, p := range r.peers {
		row, rounds, wide := []string{p.name}, 0, 0.0
		for _, f := range w.figures {
			s := r.spread(w, f, p.name)
			if f.proxy && p.argv == nil {
				s = spread{}
			}
			row = append(row, median(s))
			if f.compared {
				times := "–"
				if s.rounds > 0 {
					times = median(r.ratio(w, f, p.name, r.best(w, f)))
				}
				row = append(row, times)
			}
			// The first figure is what the workload is about.
			if rounds == 0 && s.rounds > 0 {
				rounds, wide = s.rounds, 50*(s.high-s.low)/max(s.median, 1e-9)
			}
		}
		if rounds > 0 {
			rows = append(rows, append(row, fmt.Sprintf("%.0f", wide), fmt.Sprint(rounds)))
		}
	}
	return rows
}

// aligned writes rows in columns, all but the first to the right; a last
// column of words stays on the left.
func aligned(rows [][]string) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i == 0:
				line.WriteString(cell + gap)
			case rows[0][i] == "":
				line.WriteString("  " + cell)
			default:
				line.WriteString("  " + gap + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
