//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// record is what a run found, in the form in which it is kept. The report and
// the charts are made from a record alone, so they can be written again without
// measuring (-from).
type record struct {
	facts []fact // in order; names may repeat
	rows  []row
}

// row is a figure of a peer or, with against, its ratio to another peer or to
// the best rival.
type row struct {
	workload, peer, figure, against string
	spread
}

// Names of facts that the report speaks of.
const (
	factCommand = "Command"
	factBegan   = "Began"
	factTook    = "Took"
	factLength  = "Length of one measurement"
	factTrouble = "Trouble"
)

// Figures of a record that no workload has: what failed, and the share of the
// machine that other programs took, in percent.
const (
	failures  = "failed"
	elsewhere = "elsewhere"
)

// The files of a folder of data.
const (
	recordFile   = "figures.tsv"
	settingsFile = "settings.md"
)

// measured is what can be asked of results and of a record.
type measured interface {
	spread(w workload, f figure, peer string) spread
	ratio(w workload, f figure, peer, reference string) spread
	best(w workload, f figure) string
}

// record returns what is kept of results.
func (r *results) record() *record {
	rec := &record{facts: append([]fact{
		{factCommand, strings.Join(append([]string{"go run ./bench"}, r.args...), " ")},
		{factBegan, r.began.UTC().Format("2006-01-02 15:04 UTC")},
		{factTook, r.took.Round(time.Second).String()},
		{factLength, r.length.String()},
	}, r.facts...)}
	for _, line := range trouble(r) {
		rec.facts = append(rec.facts, fact{factTrouble, line})
	}
	for _, w := range r.workloads {
		var others []float64
		for _, p := range r.peers {
			var failed []float64
			for _, s := range r.samples {
				if s.workload == w.name && s.peer == p.name {
					failed = append(failed, float64(s.failed))
					others = append(others, 100*s.elsewhere())
				}
			}
			if len(failed) == 0 {
				continue
			}
			for _, f := range w.figures {
				if f.proxy && p.argv == nil {
					continue
				}
				rec.add(row{w.name, p.name, f.name, "", r.spread(w, f, p.name)})
				for _, against := range r.references(w, f, p) {
					rec.add(row{w.name, p.name, f.name, against, r.ratio(w, f, p.name, orElse(strings.TrimPrefix(against, bestRival), r.best(w, f)))})
				}
			}
			rec.add(row{w.name, p.name, failures, "", spreadOf(failed)})
		}
		rec.add(row{w.name, "", elsewhere, "", spreadOf(others)})
	}
	return rec
}

// references returns what a figure of a peer is compared with.
func (r *results) references(w workload, f figure, p peer) []string {
	var all []string
	if f.compared {
		all = append(all, bestRival, plain)
	}
	for _, g := range goals() {
		if p.name == ours && g.workload == w.name && g.figure == f.name && g.against != "" && !slices.Contains(all, g.against) {
			all = append(all, g.against)
		}
	}
	return all
}

func (rec *record) add(r row) {
	if r.rounds > 0 {
		rec.rows = append(rec.rows, r)
	}
}

// fact returns the values of a fact.
func (rec *record) fact(name string) []string {
	var values []string
	for _, f := range rec.facts {
		if f.name == name {
			values = append(values, f.value)
		}
	}
	return values
}

func (rec *record) find(workload, peer, figure, against string) spread {
	for _, r := range rec.rows {
		if r.workload == workload && r.peer == peer && r.figure == figure && r.against == against {
			return r.spread
		}
	}
	return spread{}
}

func (rec *record) spread(w workload, f figure, peer string) spread {
	return rec.find(w.name, peer, f.name, "")
}

// ratio returns a ratio that was kept.
func (rec *record) ratio(w workload, f figure, peer, reference string) spread {
	s := rec.find(w.name, peer, f.name, reference)
	if s.rounds == 0 && reference == rec.best(w, f) {
		s = rec.find(w.name, peer, f.name, bestRival)
	}
	return s
}

func (rec *record) best(w workload, f figure) string { return bestOf(rec, rec.peers(), w, f) }

// workloads and peers return those that the record is about.
func (rec *record) workloads() []workload {
	return slices.DeleteFunc(workloads(), func(w workload) bool {
		return !slices.ContainsFunc(rec.rows, func(r row) bool { return r.workload == w.name })
	})
}

func (rec *record) peers() []peer {
	return slices.DeleteFunc(peers(), func(p peer) bool {
		return !slices.ContainsFunc(rec.rows, func(r row) bool { return r.peer == p.name })
	})
}

const recordHeader = `# Every figure of every peer: the median of the rounds, the least and the greatest.
# With "against" it is the ratio to that peer, or to the best of HAProxy and nginx; ratios are formed
# within each round. "-" stands for what is not known. Written by "make bench".
`

// columns of a record's file.
const columns = "workload\tpeer\tfigure\tagainst\trounds\tmedian\tleast\tgreatest"

// text is the record as a file: facts as comments, then a table with tabs.
func (rec *record) text() string {
	var b strings.Builder
	b.WriteString(recordHeader)
	for _, f := range rec.facts {
		fmt.Fprintf(&b, "# %s: %s\n", f.name, f.value)
	}
	b.WriteString(columns + "\n")
	for _, r := range rec.rows {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n",
			r.workload, orElse(r.peer, "-"), r.figure, orElse(r.against, "-"), r.rounds, digits(r.median), digits(r.low), digits(r.high))
	}
	return b.String()
}

// digits writes eight of a number.
func digits(x float64) string {
	if math.IsNaN(x) {
		return "-"
	}
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 8, 64), 64) // of what was just written
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// parseRecord reads what text writes.
func parseRecord(text string) (*record, error) {
	rec := &record{}
	n, table := 0, false
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			// The words of the header have no colon behind a name.
			if name, value, ok := strings.Cut(comment, ": "); ok && !strings.Contains(recordHeader, line) {
				rec.facts = append(rec.facts, fact{name, value})
			}
			continue
		}
		if !table {
			if line != columns {
				return nil, fmt.Errorf("line %d: want the columns %q, got %q", n, columns, line)
			}
			table = true
			continue
		}
		r, err := parseRow(strings.Split(line, "\t"))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		rec.rows = append(rec.rows, r)
	}
	if len(rec.rows) == 0 {
		return nil, errors.New("there are no figures")
	}
	return rec, nil
}

func parseRow(cells []string) (row, error) {
	if want := strings.Count(columns, "\t") + 1; len(cells) != want {
		return row{}, fmt.Errorf("want %d columns with a tab between them, got %d", want, len(cells))
	}
	for i := range cells[:4] {
		if cells[i] == "-" {
			cells[i] = ""
		}
	}
	r := row{workload: cells[0], peer: cells[1], figure: cells[2], against: cells[3]}
	var err error
	if r.rounds, err = strconv.Atoi(cells[4]); err != nil || r.rounds < 1 {
		return row{}, fmt.Errorf("rounds: %q is not a number above 0", cells[4])
	}
	for i, to := range []*float64{&r.median, &r.low, &r.high} {
		if *to = math.NaN(); cells[5+i] == "-" {
			continue
		}
		if *to, err = strconv.ParseFloat(cells[5+i], 64); err != nil {
			return row{}, fmt.Errorf("%q is not a number", cells[5+i])
		}
	}
	return r, nil
}

// readRecord reads the record of a folder.
func readRecord(folder string) (*record, error) {
	path := filepath.Join(folder, recordFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rec, err := parseRecord(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rec, nil
}

// writeData writes record and settings into a folder.
func writeData(folder string, rec *record, settings string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := replace(filepath.Join(folder, recordFile), rec.text()); err != nil {
		return err
	}
	return replace(filepath.Join(folder, settingsFile), settings)
}
