//go:build linux

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// compact is the report for a terminal: one table for each comparison, with the
// ratio of txlb to each peer, and what has become of the goals.
func compact(r *results) string {
	var b strings.Builder
	subject := ours
	if !slices.ContainsFunc(r.options.peers, func(p peer) bool { return p.name == ours }) {
		subject = r.options.peers[0].name
	}
	for _, c := range r.comparisons() {
		if rows := r.compactRows(c, subject); len(rows) > 1 {
			fmt.Fprintf(&b, "%s: %s; per %s\n\n%s\n", c.label(), c.how, c.unit, aligned(rows))
		}
	}
	fmt.Fprintf(&b, "Medians of n slices. Behind them the ratio %s / peer: its interval of %.0f %%.\n\n", subject, 100*confidence)
	rows := [][]string{{"work", "figure", "against", "goal", "txlb", "n", ""}}
	for _, c := range r.comparisons() {
		for _, j := range r.verdicts(c) {
			sign := "≤ "
			if j.figure.more {
				sign = "≥ "
			}
			rows = append(rows, []string{c.label(), j.figure.name, orElse(j.against, "–"), sign + short(j.bound), j.got.String(), strconv.Itoa(j.got.n), j.says()})
		}
	}
	if len(rows) > 1 {
		b.WriteString(aligned(rows) + "\n")
	}
	for _, line := range trouble(r) {
		b.WriteString(strings.ReplaceAll(line, "**", "") + "\n")
	}
	return b.String()
}

// compactRows is the table of one comparison, its header first.
func (rec *record) compactRows(c comparison, subject string) [][]string {
	header := []string{"peer"}
	for _, f := range c.figures {
		header = append(header, f.name)
		if f.compared {
			header = append(header, "×")
		}
	}
	rows := [][]string{append(header, "n")}
	for _, p := range rec.peers() {
		if !rec.has(c, p.name) {
			continue
		}
		row, n := []string{p.name}, 0
		for _, f := range c.figures {
			value, times := "–", "–"
			if !f.proxy || p.argv != nil {
				value = short(rec.middle(c, f, p.name))
				n = max(n, len(rec.values(c, f, p.name)))
				if p.name != subject {
					times = rec.ratio(c, f, subject, p.name).String()
				}
			}
			row = append(row, value)
			if f.compared {
				row = append(row, times)
			}
		}
		rows = append(rows, append(row, strconv.Itoa(n)))
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

// item is one of a Markdown list, in lines of at most 100 columns.
func item(name, text string) string {
	all := "- " + name + ":"
	at := utf8.RuneCountInString(all)
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if at+1+n > 100 {
			all, at = all+"\n ", 1
		}
		all, at = all+" "+word, at+1+n
	}
	return all + "\n"
}
