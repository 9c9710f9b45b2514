//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Counts are what does not depend on how fast the machine is just now: what a
// program asks of the kernel for one unit of work, and what it sends.
//
// To make them repeatable everything runs on one core, in an order that does not
// depend on time: the load and the backend have real-time priority, so they always
// do their part at once, and the proxy runs when both wait for it. The load works
// in steps ([steps]). Busy programs beside only make it longer.

// counted is one kind of work that is counted.
type counted struct {
	name, title, unit string
	backend           string
	do                steps // without the address
	idle              bool  // as many idle sessions as fit instead, for their memory
	sides             secured
	suite             string // usual or tlsWork
}

func (w counted) key() string { return w.name }

func countedWork() []counted {
	short := func(name, page, what string, lanes, count int) counted {
		do := steps{Lanes: lanes, Page: page, Closing: true, Warm: 1 + count/10, Count: count}
		return counted{name: name, title: "Short connections, " + what, unit: "connection", backend: web, do: do}
	}
	keep := func(name, page, what string, lanes, count int) counted {
		do := steps{Lanes: lanes, Page: page, Warm: 1 + count/10, Count: count}
		return counted{name: name, title: "Kept-alive, " + what, unit: "request", backend: web, do: do}
	}
	over := func(name, title string, sides secured, w counted) counted {
		w.name, w.title, w.sides, w.suite = name, title, sides, tlsWork
		w.do.TLS = sides.front != noKey
		if sides.back {
			w.backend = secureWeb
		}
		return w
	}
	resumed := short("", "empty", "", 1, 500)
	resumed.do.Resume = true
	bulk := counted{
		name: "bulk", title: "Bulk, 4 streams that the backend writes", unit: "MiB", backend: streams, do: steps{Lanes: 4, Warm: 8, Count: 16},
	}
	idle := counted{name: "idle", title: "Idle sessions, silent after one small message", unit: "session", backend: streams, idle: true}
	front := secured{front: ecdsaKey}
	return []counted{
		short("short0", "empty", "no body, 64 at once", lanes, 40),
		short("short18k", "18k", "18 KB, 64 at once", lanes, 30),
		short("short0-1", "empty", "no body, one at a time", 1, 1000),
		short("short18k-1", "18k", "18 KB, one at a time", 1, 1000),
		keep("keep64", "small", "100 bytes, 64 at once", lanes, 100),
		keep("keep18k", "18k", "18 KB, 64 at once", lanes, 50),
		keep("keep1", "small", "100 bytes, one at a time", 1, 3000),
		keep("keep18k-1", "18k", "18 KB, one at a time", 1, 2000),
		bulk,
		{
			name: "bulk-file", title: "Bulk, 4 downloads at once that nginx sends by sendfile", unit: "MiB", backend: web,
			do: steps{Lanes: 4, Page: bigPage, Warm: 1, Count: 2},
		},
		idle,
		over("tls-ecdsa", "Full handshakes, ECDSA P-256, one at a time", front, short("", "empty", "", 1, 500)),
		over("tls-resumed", "Resumed handshakes, one at a time", front, resumed),
		over("tls-keep64", "Kept-alive over TLS, 100 bytes, 64 at once", front, keep("", "small", "", lanes, 100)),
		over("tls-keep1", "Kept-alive over TLS, 100 bytes, one at a time", front, keep("", "small", "", 1, 3000)),
		over("tls-bulk", "Bulk over TLS, 4 streams that the backend writes", front, bulk),
		over("tls-host", "To a TLS host for each plain connection, one at a time", secured{back: true}, short("", "empty", "", 1, 500)),
		over("tls-idle", "Idle sessions over TLS", front, idle),
	}
}

// countedAgain are the works of the usual suite that are counted of txlb in other
// shapes too.
func countedAgain() []string {
	return []string{"short0", "short0-1", "keep64", "keep1", "bulk", "bulk-file", "idle"}
}

// countedOf returns the works of a suite, and programsOf who does them.
func countedOf(suite string) []counted {
	return slices.DeleteFunc(countedWork(), func(w counted) bool {
		return w.suite != suite && !(suite == tlsWork && slices.Contains(countedAgain(), w.name))
	})
}

func programsOf(suite string) []peer {
	return slices.DeleteFunc(countedPeers(), func(p peer) bool {
		if suite == usual {
			return p.role == shape
		}
		return p.role != shape && !slices.Contains([]string{plain, "nginx", "txlb-2"}, p.name)
	})
}

// counts tells whether a work is counted of p in a suite.
func (p peer) counts(suite string, w counted) bool {
	overTLS := w.sides != secured{}
	switch {
	case p.role == bare:
		return slices.Contains(p.of, bulks) == (w.unit == "MiB") && !overTLS
	case p.role == shape:
		return !overTLS
	case p.rival():
		return suite == usual || overTLS
	}
	return true
}

// bigPage is a file of 64 MiB.
const bigPage = "64m"

// counter is a figure that is counted. A check fails if it grows by more than a
// part of what is expected and, beyond that, by more than some of its unit: clocks
// and the order of two loops leave some play.
type counter struct {
	name, title string
	part, play  float64 // 0 for both: it is shown only
	bulk        float64 // play per MiB, instead
}

func countedThings() []counter {
	return []counter{
		{name: askedCounter, title: "calls", part: 0.02, play: 0.05, bulk: 1},
		{name: timedCounter, title: "by clock"},
		{name: againCounter, title: "EAGAIN"},
		{name: ringCounter, title: "in ring"},
		{name: segmentsCounter, title: "segments", part: 0.02, play: 0.1, bulk: 2},
		{name: waitsCounter, title: "waits", part: 0.25, play: 0.5, bulk: 1},
		{name: wakeupsCounter, title: "wake-ups", part: 0.25, play: 0.5, bulk: 1},
		{name: preemptedCounter, title: "preempted"},
		{name: copiedCounter, title: "KiB copied", part: 0.01, play: 0.05, bulk: 20},
		{name: splicedCounter, title: "KiB spliced"},
		{name: allocationsCounter, title: "allocations", play: 0.3, bulk: 1},
		{name: residentCounter, title: "KiB resident", part: 0.1, play: 0.03},
		{name: cpuCounter, title: "CPU µs"},
	}
}

// The names of what is counted.
const (
	askedCounter       = "calls"       // system calls but those of timedCounter
	timedCounter       = "timed"       // those that a clock decides on
	againCounter       = "again"       // system calls that returned EAGAIN
	ringCounter        = "ring"        // operations of io_uring
	segmentsCounter    = "segments"    // TCP segments of all three programs
	waitsCounter       = "waits"       // voluntary context switches
	preemptedCounter   = "preempted"   // involuntary ones
	wakeupsCounter     = "wakeups"     // of threads of the program
	copiedCounter      = "copied"      // KiB through the memory of the program, each way
	splicedCounter     = "spliced"     // KiB through pipes, each way
	allocationsCounter = "allocations" // objects on Go's heap
	residentCounter    = "resident"    // KiB
	cpuCounter         = "cpu"         // µs, including what counting costs: never judged
)

const countsAbout = `A program asks the kernel for so much per unit of work. Everything runs on one core, the load works in
steps, and the load and the backend have priority: see docs/design/measuring.md.

- calls: system calls; "by clock" are futex, nanosleep, sched_yield and signals of Go's scheduler
- EAGAIN: calls that found nothing; in ring: operations of io_uring, which are no calls
- segments: TCP segments that load, program and backend send
- waits and preempted: voluntary and involuntary context switches; wake-ups of the program's threads
- copied, spliced: KiB in and out, through the program's memory or through pipes
- allocations: objects on the heap of a Go program; CPU is with what counting costs and decides nothing
`

// count is what one work took of one program.
type count struct {
	work, program string
	values        map[string][]float64 // by counter, one a round
	names         map[string][]float64 // by system call or operation of the ring
}

// countsCommand is "bench counts": it counts, and prints, keeps or judges that.
func countsCommand(ctx context.Context, args []string, stdout, progress io.Writer) int {
	flags := flag.NewFlagSet("bench counts", flag.ContinueOnError)
	flags.SetOutput(progress)
	only := flags.String("only", "", "work `NAMES`, separated by commas: "+names(countedWork()))
	secure := flags.Bool("tls", false, "what is over TLS, and txlb in other shapes: a part of a program, and sessions on goroutines")
	with := flags.String("peers", "", "program `NAMES`, separated by commas: "+names(countedPeers()))
	rounds := flags.Int("rounds", 0, "how often each program is counted (default 2, and 3 for a check)")
	data := flags.String("data", "", "`FOLDER` to write counts.tsv and counts.md to (default: a table on standard output)")
	check := flags.String("check", "", "compare txlb with what `FILE` expects, and fail if something has grown")
	update := flags.Bool("update", false, "write the file of -check instead")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	fail := func(status int, err error) int {
		fmt.Fprintln(progress, "bench:", err)
		return status
	}
	if flags.NArg() > 0 {
		return fail(2, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if *update && *check == "" {
		return fail(2, errors.New("-update needs the file of -check"))
	}
	if *check != "" && *with == "" {
		*with = strings.Join(checkedPrograms(), ",")
	}
	suite := usual
	if *secure {
		suite = tlsWork
	}
	works, err := choose("-only", *only, countedWork())
	if err != nil {
		return fail(2, err)
	}
	if *only == "" {
		works = countedOf(suite)
	}
	programs, err := choose("-peers", *with, countedPeers())
	if err != nil {
		return fail(2, err)
	}
	if *with == "" {
		programs = programsOf(suite)
	}
	if *rounds <= 0 {
		*rounds = 2
		if *check != "" {
			*rounds = 3
		}
	}
	if !inNetwork() {
		// What is missing is installed here: there is no way out of that network.
		installed := slices.DeleteFunc(countedNeeds(programs), func(name string) bool { return name == "txlb" })
		if _, _, err := provide(ctx, installed, "", progress); err != nil {
			return fail(1, err)
		}
		return fail(1, enterNetwork(append([]string{"counts"}, args...)))
	}
	all, err := countAll(ctx, suite, works, programs, *rounds, progress)
	if err != nil {
		return fail(1, err)
	}
	switch {
	case *check != "":
		err = judgeCounts(*check, *update, all, stdout)
	case *data != "":
		err = writeCounts(*data, all)
	default:
		_, err = io.WriteString(stdout, countsText(all))
	}
	if err != nil {
		return fail(1, err)
	}
	return 0
}

// remember adds what one round gave.
func remember(all []*count, work, program string, values, names map[string]float64) []*count {
	c := countOf(all, work, program)
	if c == nil {
		c = &count{work, program, map[string][]float64{}, map[string][]float64{}}
		all = append(all, c)
	}
	for name, v := range values {
		c.values[name] = append(c.values[name], v)
	}
	for name, v := range names {
		c.names[name] = append(c.names[name], v)
	}
	return all
}

// countsFile has the counts in the folder of the data, countsPage as tables.
const countsFile, countsPage = "counts.tsv", "counts.md"

// writeCounts keeps counts in a folder.
func writeCounts(folder string, all []*count) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("# What each program asks of the kernel per unit of work: median, least and greatest of the rounds.\n# Written by \"go run ./bench counts -data FOLDER\".\n" + countsColumns + "\n")
	for _, c := range all {
		for _, of := range countedThings() {
			if v := known(c.values[of.name]); len(v) > 0 {
				fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\t%s\n", c.work, c.program, of.name, exact(medianOf(v)), exact(slices.Min(v)), exact(slices.Max(v)))
			}
		}
		for _, name := range sortedKeys(c.names) {
			v := c.names[name]
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\t%s\n", c.work, c.program, callPrefix+name, exact(medianOf(v)), exact(slices.Min(v)), exact(slices.Max(v)))
		}
	}
	if err := replace(filepath.Join(folder, countsFile), b.String()); err != nil {
		return err
	}
	return replace(filepath.Join(folder, countsPage), "# Counts\n\n"+countsAbout+"\nWritten by `make counts`.\n\n"+countsTables(all, table))
}

const (
	countsColumns = "work\tprogram\tcounter\tmedian\tleast\tgreatest"
	callPrefix    = "call "
)

// readCounts reads what writeCounts wrote, the medians; none without the file.
func readCounts(folder string) ([]*count, error) {
	text, err := os.ReadFile(filepath.Join(folder, countsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*count
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || strings.Join(cells, "\t") == countsColumns {
			continue
		}
		if len(cells) != 6 {
			return nil, fmt.Errorf("%s: want six columns with a tab between them, got %q", countsFile, line)
		}
		value, err := strconv.ParseFloat(cells[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", countsFile, err)
		}
		if name, ok := strings.CutPrefix(cells[2], callPrefix); ok {
			all = remember(all, cells[0], cells[1], nil, map[string]float64{name: value})
		} else {
			all = remember(all, cells[0], cells[1], map[string]float64{cells[2]: value}, nil)
		}
	}
	return all, nil
}

// countsReport is the part of the report about the counts that a folder has, with
// near as the way to that folder; "" if it has none.
func countsReport(suite, folder, near string) (string, error) {
	all, err := readCounts(folder)
	if err != nil || len(all) == 0 {
		return "", err
	}
	programs := []string{}
	for _, c := range all {
		if !slices.Contains(programs, c.program) {
			programs = append(programs, c.program)
		}
	}
	rows := [][]string{append([]string{"work", "per"}, programs...)}
	for _, w := range countedOf(suite) {
		row, any := []string{w.title + " (`" + w.name + "`)", w.unit}, false
		for _, p := range programs {
			cell := "–"
			if c := countOf(all, w.name, p); c != nil {
				any = true
				cell = shown(c.values[askedCounter]) + " · " + shown(c.values[segmentsCounter])
				if objects := known(c.values[allocationsCounter]); suite == tlsWork && len(objects) > 0 {
					cell += " · " + shown(objects)
				}
				if w.idle {
					cell = shown(c.values[residentCounter]) + " KiB"
				}
			}
			row = append(row, cell)
		}
		if any {
			rows = append(rows, row)
		}
	}
	words := "System calls · TCP segments per unit of work. Noise does not change them; `make bench-check` fails on them.\nSwitches, wake-ups, bytes copied, allocations and the calls by name"
	if suite == tlsWork {
		words = "System calls · TCP segments · objects allocated (of Go programs) per unit of work. Noise does not change them.\nSwitches, wake-ups, bytes copied and the calls by name"
	}
	return fmt.Sprintf("## Counts\n\n%s: [%s](%s/%[2]s).\n\n%[4]s", words, countsPage, near, table(rows)), nil
}

// countOf returns the count of a work and a program, nil if there is none.
func countOf(all []*count, work, program string) *count {
	for _, c := range all {
		if c.work == work && c.program == program {
			return c
		}
	}
	return nil
}

// countsText is countsTables for a terminal.
func countsText(all []*count) string { return countsAbout + "\n" + countsTables(all, aligned) }

// countsTables has a table for each work, and the system calls by name. Columns
// without a number are left out.
func countsTables(all []*count, draw func([][]string) string) string {
	var b strings.Builder
	for _, w := range countedWork() {
		of := slices.DeleteFunc(slices.Clone(all), func(c *count) bool { return c.work != w.name })
		if len(of) == 0 {
			continue
		}
		columns := slices.DeleteFunc(countedThings(), func(x counter) bool {
			return !slices.ContainsFunc(of, func(c *count) bool { return len(known(c.values[x.name])) > 0 })
		})
		rows, calls := [][]string{{"program"}}, ""
		for _, x := range columns {
			rows[0] = append(rows[0], x.title)
		}
		for _, c := range of {
			row := []string{c.program}
			for _, x := range columns {
				row = append(row, shown(c.values[x.name]))
			}
			rows = append(rows, row)
			if len(c.names) > 0 {
				calls += item(c.program, c.byName())
			}
		}
		fmt.Fprintf(&b, "## %s: %s, per %s\n\n%s\n%s\n", w.name, w.title, w.unit, strings.TrimRight(draw(rows), "\n")+"\n", calls)
	}
	return b.String()
}

// shown is the median, and how far the extremes are from their middle if that is a
// hundredth or more.
func shown(values []float64) string {
	v := known(values)
	if len(v) == 0 {
		return "–"
	}
	middle := medianOf(v)
	wide := 50 * (slices.Max(v) - slices.Min(v)) / middle
	if middle < 0.05 || wide < 1 {
		return short(middle)
	}
	return fmt.Sprintf("%s ±%.0f%%", short(middle), wide)
}

// known are the values that are numbers.
func known(values []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(values), math.IsNaN)
}

func medianOf(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func exact(x float64) string { return strconv.FormatFloat(x, 'f', 4, 64) }

func sortedKeys(m map[string][]float64) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// byName lists the system calls, the most frequent first.
func (c *count) byName() string {
	type call struct {
		name string
		n    float64
	}
	var calls []call
	for name, values := range c.names {
		if n := medianOf(values); n >= 0.005 {
			calls = append(calls, call{name, n})
		}
	}
	slices.SortFunc(calls, func(a, b call) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	var parts []string
	for _, x := range calls {
		parts = append(parts, x.name+" "+short(x.n))
	}
	return strings.Join(parts, ", ")
}
