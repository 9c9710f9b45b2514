//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// expectation is a count of txlb that was measured once. The counters say by how
// much a later one may exceed it ([counter]).
type expectation struct {
	work, program, counter string
	value                  float64
}

// checkedPrograms are those whose counts a check compares.
func checkedPrograms() []string { return []string{"txlb-1", "txlb-2"} }

// judgeCounts compares counts with the file of what is expected, or writes it. It
// returns an error if something has grown.
func judgeCounts(path string, update bool, all []*count, w io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil && !(update && errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("%w: -update writes it", err)
	}
	expected, err := parseExpected(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if update {
		if err := replace(path, expectedText(updated(expected, all))); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "wrote", path)
		return err
	}
	rows, grown := compare(expected, all)
	if len(rows) == 1 {
		return fmt.Errorf("%s expects nothing of what was counted", path)
	}
	if _, err := fmt.Fprintf(w, "txlb against %s\n\n%s\n", path, aligned(rows)); err != nil {
		return err
	}
	if len(grown) > 0 {
		return fmt.Errorf("more than expected: %s", strings.Join(grown, ", "))
	}
	return nil
}

// compare returns a table with its header first, and what has grown. The CPU time
// is shown and decides nothing. What was not to be counted is not mentioned.
func compare(expected []expectation, all []*count) (rows [][]string, grown []string) {
	rows = [][]string{{"work", "program", "counter", "expected", "at most", "counted", ""}}
	for _, c := range all {
		for _, of := range countedThings() {
			values := known(c.values[of.name])
			i := slices.IndexFunc(expected, func(e expectation) bool { return e.is(c, of) })
			switch {
			case of.name == cpuCounter && len(values) > 0:
				rows = append(rows, []string{c.work, c.program, of.title, "", "", shown(values), "not judged"})
				continue
			case !of.checked() || i < 0:
				continue
			}
			e, word, got := expected[i], "as expected", "–"
			most := of.most(c.work, e.value)
			switch {
			case len(values) == 0:
				word = "NOT COUNTED"
			case medianOf(values) > most:
				word = "MORE"
			case medianOf(values) < 2*e.value-most:
				word = "less: -update keeps it so"
			}
			if len(values) > 0 {
				got = shown(values)
			}
			if word == "MORE" || word == "NOT COUNTED" {
				grown = append(grown, fmt.Sprintf("%s of %s with %s", of.name, c.work, c.program))
			}
			rows = append(rows, []string{c.work, c.program, of.title, short(e.value), short(most), got, word})
		}
	}
	return rows, grown
}

func (e expectation) is(c *count, of counter) bool {
	return e.work == c.work && e.program == c.program && e.counter == of.name
}

// checked reports whether a check compares it.
func (x counter) checked() bool { return x.part+x.play > 0 }

// most is what a count may be where value is expected.
func (x counter) most(work string, value float64) float64 {
	play := x.play
	if i := slices.IndexFunc(countedWork(), func(w counted) bool { return w.name == work }); i >= 0 && countedWork()[i].unit == "MiB" {
		play = x.bulk
	}
	return value*(1+x.part) + play
}

// updated returns the expectations with what was counted. Those that were not
// counted stay.
func updated(old []expectation, all []*count) []expectation {
	list := slices.Clone(old)
	for _, c := range all {
		for _, of := range countedThings() {
			values := known(c.values[of.name])
			if !of.checked() || len(values) == 0 || !slices.Contains(checkedPrograms(), c.program) {
				continue
			}
			i := slices.IndexFunc(list, func(e expectation) bool { return e.is(c, of) })
			if i < 0 {
				i, list = len(list), append(list, expectation{c.work, c.program, of.name, 0})
			}
			list[i].value = medianOf(values)
		}
	}
	return list
}

const expectedHeader = `# What txlb may ask of the kernel per unit of work. Written by "make bench-check UPDATE=1".
# work	program	counter	value
`

func expectedText(list []expectation) string {
	var b strings.Builder
	b.WriteString(expectedHeader)
	for _, e := range list {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%.3f\n", e.work, e.program, e.counter, e.value)
	}
	return b.String()
}

// parseExpected reads what expectedText writes.
func parseExpected(text string) ([]expectation, error) {
	var list []expectation
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("line %d: want four columns with a tab between them, got %q", n, line)
		}
		value, err := strconv.ParseFloat(f[3], 64)
		if err != nil || value < 0 {
			return nil, fmt.Errorf("line %d: %q is not a number of 0 or more", n, f[3])
		}
		list = append(list, expectation{f[0], f[1], f[2], value})
	}
	return list, nil
}
