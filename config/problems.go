package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a document, or that its author
// should know.
type Problem struct {
	File    string
	Line    int // 0: the file as a whole
	Text    string
	Warning bool // the document is usable all the same
}

// String gives FILE:LINE: text, as compilers do.
func (p Problem) String() string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Warning {
		return at + ": warning: " + p.Text
	}
	return at + ": " + p.Text
}

// Problems are all that was found in a document, sorted by line.
type Problems []Problem

// Err returns the problems as an error, nil if there are only warnings.
func (p Problems) Err() error {
	for _, one := range p {
		if !one.Warning {
			return p
		}
	}
	return nil
}

// Error gives a line for each problem, warnings included.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}

// nearest returns the name that word was most likely meant to be, "" if none
// comes close.
func nearest(word string, names []string) string {
	best, bestDistance := "", len(word)/2+1
	for _, name := range names {
		if strings.EqualFold(name, word) {
			return name
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// longestWord bounds the work of distance.
const longestWord = 64

// distance is the number of letters to insert, delete or change (Levenshtein).
func distance(a, b string) int {
	if len(a) > longestWord {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// suggest ends a message with what was probably meant.
func suggest(word string, names []string) string {
	if name := nearest(word, names); name != "" {
		return fmt.Sprintf("; did you mean %q?", name)
	}
	return "; there is " + strings.Join(names, ", ")
}
