//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// record is what a run found, in the form in which it is kept: every slice. Report
// and charts are made from a record alone, so they can be written again without
// measuring (-from).
type record struct {
	facts   []fact // in order; names may repeat
	samples []sample
}

// Names of facts that the report speaks of.
const (
	factCommand = "Command"
	factBegan   = "Began"
	factTook    = "Took"
	factSlice   = "Length of a slice"
	factTrouble = "Trouble"
)

// The files of a folder of data.
const (
	recordFile   = "slices.tsv"
	settingsFile = "settings.md"
)

// comparisons returns those that the record is about, in the order of the report.
func (rec *record) comparisons() []comparison {
	var all []comparison
	for _, w := range workloads() {
		var found []setting
		for _, s := range rec.samples {
			if s.workload == w.name && !slices.Contains(found, s.setting) {
				found = append(found, s.setting)
			}
		}
		slices.SortFunc(found, func(a, b setting) int {
			usual := map[string]int{usualControl: -1}
			return cmp.Or(cmp.Compare(usual[a.control], usual[b.control]), cmp.Compare(a.control, b.control), cmp.Compare(a.threads, b.threads))
		})
		for _, s := range found {
			all = append(all, comparison{w, s})
		}
	}
	return all
}

// peers returns those that the record is about.
func (rec *record) peers() []peer {
	return slices.DeleteFunc(peers(), func(p peer) bool {
		return !slices.ContainsFunc(rec.samples, func(s sample) bool { return s.peer == p.name })
	})
}

func (rec *record) has(c comparison, peer string) bool {
	return slices.ContainsFunc(rec.samples, func(s sample) bool { return s.setting == c.setting && s.peer == peer })
}

// turn is a round of a visit. Slices of one turn lie next to each other in time.
type turn struct{ visit, round int }

// values returns a figure of a peer by turn.
func (rec *record) values(c comparison, f figure, peer string) map[turn]float64 {
	v, without := map[turn]float64{}, map[turn]float64{}
	for _, s := range rec.samples {
		if s.setting != c.setting {
			continue
		}
		at := turn{s.visit, s.round}
		if s.peer == direct {
			without[at] = f.of(s)
		}
		if s.peer == peer {
			v[at] = f.of(s)
		}
	}
	for at, x := range v {
		if f.above {
			below, ok := without[at]
			if x -= below; !ok {
				delete(v, at)
				continue
			}
			v[at] = x
		}
		if x != x {
			delete(v, at)
		}
	}
	return v
}

// turnsOf returns the turns of values in order: what is drawn by chance from a
// sample depends on its order.
func turnsOf(v map[turn]float64) []turn {
	var all []turn
	for at := range v {
		all = append(all, at)
	}
	slices.SortFunc(all, func(a, b turn) int { return cmp.Or(cmp.Compare(a.visit, b.visit), cmp.Compare(a.round, b.round)) })
	return all
}

// interval estimates a figure of a peer.
func (rec *record) interval(c comparison, f figure, peer string) interval {
	v := rec.values(c, f, peer)
	var list []float64
	for _, at := range turnsOf(v) {
		list = append(list, v[at])
	}
	if f.exact {
		return extremes(list)
	}
	return bootstrap(list, median)
}

// middle is the estimate alone.
func (rec *record) middle(c comparison, f figure, peer string) float64 {
	var list []float64
	for _, x := range rec.values(c, f, peer) {
		list = append(list, x)
	}
	return median(list)
}

// ratio estimates a figure of one peer as a part of another's, turn by turn, so that
// a machine that is slower for a while does not blur it.
func (rec *record) ratio(c comparison, f figure, peer, reference string) interval {
	v, base := rec.values(c, f, peer), rec.values(c, f, reference)
	var pairs []pair
	for _, at := range turnsOf(v) {
		if b, ok := base[at]; ok {
			pairs = append(pairs, pair{v[at], b})
		}
	}
	switch {
	case f.exact:
		var list []float64
		for _, p := range pairs {
			list = append(list, p.ours/p.other)
		}
		return extremes(list)
	case f.above:
		return ratioOfMedians(pairs)
	}
	return medianOfRatios(pairs)
}

// failed adds up the failures of all slices.
func (rec *record) failed() int {
	n := 0
	for _, s := range rec.samples {
		n += s.failed
	}
	return n
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

const recordHeader = `# Every slice of every program. Times are in seconds (length) and microseconds of CPU: of the program, waiting for a
# core in its threads, busy of the whole machine. "others" is the share of the machine that other programs took.
# Written by "make bench".
`

// columns of a record's file.
const columns = "workload\tthreads\tcontrol\tpeer\tvisit\tround\tunits\tfailed\tlength\tcpu\twait\tbusy\tswitches\tsegments\tothers\tnotes"

// text is the record as a file: facts as comments, then a table with tabs.
func (rec *record) text() string {
	var b strings.Builder
	b.WriteString(recordHeader)
	for _, f := range rec.facts {
		fmt.Fprintf(&b, "# %s: %s\n", f.name, f.value)
	}
	b.WriteString(columns + "\n")
	for _, s := range rec.samples {
		fmt.Fprintf(&b, "%s\t%d\t%s\t%s\t%d\t%d\t%g\t%d\t%.6f\t%.3f\t%.3f\t%.0f\t%d\t%d\t%.3f\t", s.workload, s.threads, s.control, s.peer, s.visit, s.round,
			s.units, s.failed, s.time.Seconds(), micros(s.cpu), micros(s.wait), micros(s.busy), s.switches, s.segments, s.others)
		var names []string
		for name := range s.noted {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%s=%.6g", name, s.noted[name])
		}
		b.WriteByte('\n')
	}
	return b.String()
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
		s, err := parseSlice(strings.Split(line, "\t"))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		rec.samples = append(rec.samples, s)
	}
	if len(rec.samples) == 0 {
		return nil, errors.New("there are no slices")
	}
	return rec, nil
}

func parseSlice(cells []string) (sample, error) {
	if want := strings.Count(columns, "\t") + 1; len(cells) != want {
		return sample{}, fmt.Errorf("want %d columns with a tab between them, got %d", want, len(cells))
	}
	var failed error
	value := func(i int) float64 {
		x, err := strconv.ParseFloat(cells[i], 64)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("column %d: %q is not a number", i+1, cells[i]))
		}
		return x
	}
	of := func(i int, unit time.Duration) time.Duration { return time.Duration(value(i) * float64(unit)) }
	s := sample{
		setting: setting{cells[0], int(value(1)), cells[2]}, peer: cells[3], visit: int(value(4)), round: int(value(5)), units: value(6), failed: int(value(7)),
		usage: usage{
			time: of(8, time.Second), cpu: of(9, time.Microsecond), wait: of(10, time.Microsecond), busy: of(11, time.Microsecond),
			switches: uint64(value(12)), segments: uint64(value(13)), others: value(14),
		},
	}
	for _, note := range strings.Fields(cells[15]) {
		name, text, _ := strings.Cut(note, "=")
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return s, fmt.Errorf("note %q: want NAME=NUMBER", note)
		}
		s.note(name, x)
	}
	return s, failed
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
