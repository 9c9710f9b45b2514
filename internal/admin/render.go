package admin

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table draws rows below a head, its columns aligned.
type table struct {
	head  []string
	right int // columns from this one on are numbers, and stand at the right
	rows  [][]string
	moved bool // the last column is text
}

// row adds a row of as many cells as head has. An empty cell shows as -.
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = printable(fmt.Sprint(c)); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// last moves a column of text to the end.
func (t *table) last(column int) {
	move := func(row []string) []string {
		cell := row[column]
		row = append(row[:column:column], row[column+1:]...)
		return append(row, cell)
	}
	t.head = move(t.head)
	for i := range t.rows {
		t.rows[i] = move(t.rows[i])
	}
	t.right--
	t.moved = true
}

// String gives the lines, without an end of line behind the last.
func (t *table) String() string {
	widths := make([]int, len(t.head))
	lines := append([][]string{t.head}, t.rows...)
	for _, row := range lines {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range lines {
		if n > 0 {
			b.WriteByte('\n')
		}
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i >= t.right && !(t.moved && i == len(row)-1) {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
	}
	return b.String()
}
