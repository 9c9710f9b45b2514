package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/txlb/txlb/internal/words"
)

// Problem is one error or warning about a document.
type Problem struct {
	File    string
	Line    int // 0: the file as a whole
	Text    string
	Warning bool // the document is still usable
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

// Problems are all that was found in a document, sorted by line. Past a
// hundred errors or a hundred warnings the rest is counted, not listed.
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

const (
	maxProblems = 100 // errors, and as many warnings, that are listed
	maxText     = 600 // bytes of one problem's text
)

// report gathers problems. Errors and warnings are counted apart, so that no
// number of warnings hides an error.
type report struct {
	file             string
	problems         Problems
	errors, warnings int
}

func (r *report) fail(line int, format string, args ...any) {
	if r.errors++; r.errors <= maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Line: line, Text: clip(fmt.Sprintf(format, args...))})
	}
}

func (r *report) warn(line int, format string, args ...any) {
	if r.warnings++; r.warnings <= maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Line: line, Text: clip(fmt.Sprintf(format, args...)), Warning: true})
	}
}

// told returns the gathered problems.
func (r *report) told() Problems {
	all := slices.Clone(r.problems)
	slices.SortStableFunc(all, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if more := r.errors - maxProblems; more > 0 {
		all = append(all, Problem{File: r.file, Text: "and " + words.Count(more, "more error")})
	}
	if more := r.warnings - maxProblems; more > 0 {
		all = append(all, Problem{File: r.file, Text: "and " + words.Count(more, "more warning"), Warning: true})
	}
	return all
}

// clip prepares a text for display: on one line, in UTF-8, and without its middle
// if it is long, because the end says what would be right.
func clip(s string) string {
	if !printable(s) {
		s = strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return utf8.RuneError
			}
			return c
		}, s)
	}
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText/2], "") + "…" + strings.ToValidUTF8(s[len(s)-maxText/2:], "")
}

// suggest adds the word that was probably meant. It costs more than the rest of an
// error, so it is left out if the error will not be listed.
func (r *report) suggest(word string, names []string) string {
	if r.errors >= maxProblems {
		return ""
	}
	return suggest(word, names)
}

func suggest(word string, names []string) string {
	if len(names) == 0 {
		return "; none exists"
	}
	if name := nearest(word, names); name != "" {
		return fmt.Sprintf("; did you mean %q?", name)
	}
	return "; possible: " + strings.Join(names, ", ")
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
	if len(a) > longestWord || len(b) > longestWord {
		return max(len(a), len(b))
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

// checker gathers problems of a model.
type checker struct {
	report
	was     *Config           // what is known to be right; nil: nothing is
	checked map[*Service]bool // its services, where they are not in the same places
	broken  map[any]bool      // parts that the reader has found mistakes in
	written bool              // the model is that of a document
	program bool              // see Config.Program
}
