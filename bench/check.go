//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// expectation is a ratio of txlb to a peer that was measured once, and by what
// part of it a later one may exceed it.
type expectation struct {
	workload, figure, against string
	ratio, tolerance          float64
}

// usualTolerance is what rounds of three differ by on a machine that does
// nothing else, with room to spare.
const usualTolerance = 0.15

// checked returns the workloads that a check measures.
func checked() []string {
	return []string{"short18k", "keep64", "keep1000", "keep18k-64", "bulk4", "bulk64", "rate10k", "attacked-keys", "attacked-requests", "attacked-metrics", "attacked-idle"}
}

// checkPeers returns the peers of a check: txlb and what it is held against.
func checkPeers() []string { return append(checkAgainst(), ours) }

func checkAgainst() []string { return []string{plain, "nginx"} }

// judge compares the results with the file of expected ratios, or writes it.
// It returns an error if something has become worse.
func judge(opt options, w io.Writer, res *results) error {
	text, err := os.ReadFile(opt.check)
	if err != nil && !(opt.update && errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("%w: -update writes it", err)
	}
	expected, err := parseExpected(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", opt.check, err)
	}
	if opt.update {
		if err := replace(opt.check, expectedText(updated(expected, res))); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "wrote", opt.check)
		return err
	}
	rows, fallen := compare(expected, res)
	if len(rows) == 1 {
		return fmt.Errorf("%s expects nothing of what was measured", opt.check)
	}
	if _, err := fmt.Fprintf(w, "txlb against %s\n\n%s", opt.check, aligned(rows)); err != nil {
		return err
	}
	if len(fallen) > 0 {
		return fmt.Errorf("worse than expected: %s", strings.Join(fallen, ", "))
	}
	return nil
}

// compare returns a table with its header first, and what has become worse.
// What was not to be measured is not mentioned.
func compare(expected []expectation, res *results) (rows [][]string, fallen []string) {
	rows = [][]string{{"work", "figure", "against", "expected", "measured", ""}}
	for _, e := range expected {
		i := slices.IndexFunc(res.workloads, func(w workload) bool { return w.name == e.workload })
		if i < 0 || !slices.ContainsFunc(res.peers, func(p peer) bool { return p.name == e.against }) {
			continue
		}
		word := "as expected"
		got := res.ratioOf(e)
		switch {
		case got.rounds == 0:
			word = "NOT MEASURED"
		case got.median > e.ratio*(1+e.tolerance):
			word = "WORSE"
		case got.median < e.ratio*(1-e.tolerance):
			word = "better: -update keeps it so"
		}
		if word == "WORSE" || word == "NOT MEASURED" {
			fallen = append(fallen, fmt.Sprintf("%s of %s against %s", e.figure, e.workload, e.against))
		}
		rows = append(rows, []string{e.workload, e.figure, e.against, fmt.Sprintf("%s ±%.0f %%", short(e.ratio), 100*e.tolerance), got.String(), word})
	}
	for _, v := range verdicts(res, res.workloads) {
		if v.against != "" { // that is what the file is for
			continue
		}
		word := "as it should be"
		if !v.met {
			word = "WORSE"
			fallen = append(fallen, v.workload+" "+v.figure.name)
		}
		rows = append(rows, []string{v.workload, v.figure.name, "", fmt.Sprintf("%.2f", v.bound), fmt.Sprintf("%.2f", v.got.median), word})
	}
	return rows, fallen
}

// ratioOf returns what was measured of an expectation.
func (r *results) ratioOf(e expectation) spread {
	for _, w := range r.workloads {
		for _, f := range w.figures {
			if w.name == e.workload && f.name == e.figure {
				return r.ratio(w, f, ours, e.against)
			}
		}
	}
	return spread{}
}

// updated returns the expectations with the ratios that were measured. Those
// that were not measured stay, and so does every tolerance.
func updated(old []expectation, res *results) []expectation {
	list := slices.Clone(old)
	for _, w := range res.workloads {
		for _, against := range checkAgainst() {
			e := expectation{workload: w.name, figure: cpu, against: against, tolerance: usualTolerance}
			got := res.ratioOf(e)
			if got.rounds == 0 {
				continue
			}
			i := slices.IndexFunc(list, func(x expectation) bool {
				return x.workload == e.workload && x.figure == e.figure && x.against == e.against
			})
			if i < 0 {
				i, list = len(list), append(list, e)
			}
			list[i].ratio = got.median
		}
	}
	order := checked()
	slices.SortStableFunc(list, func(a, b expectation) int {
		return cmp.Compare(slices.Index(order, a.workload), slices.Index(order, b.workload))
	})
	return list
}

const expectedHeader = `# What txlb may take, as a ratio to a peer in the same run, and by what part of it more before "make bench-check" fails.
# Written by "make bench-check UPDATE=1"; the tolerances are kept.
# workload	figure	against	ratio	tolerance
`

func expectedText(list []expectation) string {
	var b strings.Builder
	b.WriteString(expectedHeader)
	for _, e := range list {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%.2f\t%.2f\n", e.workload, e.figure, e.against, e.ratio, e.tolerance)
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
		if len(f) != 5 {
			return nil, fmt.Errorf("line %d: want five columns with a tab between them, got %q", n, line)
		}
		e := expectation{workload: f[0], figure: f[1], against: f[2]}
		for i, to := range []*float64{&e.ratio, &e.tolerance} {
			v, err := strconv.ParseFloat(f[3+i], 64)
			if err != nil || v <= 0 {
				return nil, fmt.Errorf("line %d: %q is not a number above 0", n, f[3+i])
			}
			*to = v
		}
		list = append(list, e)
	}
	return list, nil
}
