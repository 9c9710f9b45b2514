//go:build linux

// Command bench measures txlb beside its peers: no proxy, HAProxy in four
// settings, nginx's stream module and a plain Go proxy. All of them run on loopback, one at a time, under the same load
// and in the same run; what counts is the CPU time of the proxy for one unit
// of work and its ratio to the others, for absolute times are not stable.
//
//	go run ./bench -only short18k,keep64                    two figures, as a table
//	go run ./bench -only keep64 -peers txlb,haproxy,txlb-1  three peers alone
//	make bench                                              everything, as a document with data
//	go run ./bench -from bench/data -out BENCHMARKS.md      that document again, without measuring
//	go run ./bench counts                                   system calls, segments, switches, bytes, memory
//	go run ./bench counts -check bench/expected.tsv         has any of them grown?
//
// A workload is an entry in workloads (workloads.go), a peer one in peers
// (peers.go), a figure one in figures (figures.go), a goal one in goals
// (goals.go).
//
// Limits: Linux only, for it reads /proc. The load, the backends and the peer
// share the machine's cores, as they do for every peer alike. What other
// programs do meanwhile disturbs the figures; its share is shown. System calls
// are counted for root alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options says what one run measures.
type options struct {
	args      []string // as typed
	workloads []workload
	peers     []peer
	asked     bool // for these peers by name: variants are measured everywhere
	rounds    int  // 0: more where a goal hangs on it than elsewhere
	length    time.Duration
	sessions  int // idle ones; 0: as many as the file limit allows
	quick     bool
	calls     bool   // count system calls
	out       string // file for the report; "": a table on standard output
	charts    string // folder for charts; "": none
	data      string // folder for all figures and settings; "": none
	from      string // folder to take the figures from instead of measuring; "": measure
}

func main() {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if len(os.Args) > 1 && os.Args[1] == "counts" {
		status := countsCommand(ctx, os.Args[2:], os.Stdout, os.Stderr)
		stop()
		os.Exit(status)
	}
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the command: it returns the exit status, 0 only if everything that
// was asked for was measured and no request failed.
func run(ctx context.Context, args []string, stdout, progress io.Writer) int {
	opt, err := parseArgs(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(progress, "bench:", err)
		return 2
	}
	if opt.from != "" {
		rec, err := readRecord(opt.from)
		if err == nil {
			err = publishRecord(opt, rec, opt.from)
		}
		if err != nil {
			fmt.Fprintln(progress, "bench:", err)
			return 1
		}
		return 0
	}
	res, err := measureAll(ctx, opt, progress)
	if err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	if err := publish(opt, stdout, res); err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	if n := res.failed(); n > 0 {
		fmt.Fprintf(progress, "bench: %d REQUESTS OR SESSIONS FAILED, see the report\n", n)
		return 1
	}
	if len(res.broken) > 0 {
		fmt.Fprintf(progress, "bench: %d measurements could not be made, see the report\n", len(res.broken))
		return 1
	}
	return 0
}

func parseArgs(args []string, usage io.Writer) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(usage)
	var only, with string
	opt := options{args: args}
	flags.BoolVar(&opt.quick, "quick", false, "fewer workloads, one round of one second each: under two minutes")
	flags.StringVar(&only, "only", "", "workload `NAMES`, separated by commas: "+names(workloads()))
	flags.StringVar(&with, "peers", "", "peer `NAMES`, separated by commas: "+names(peers()))
	flags.IntVar(&opt.rounds, "rounds", 0, "how often each peer is measured (default 3, and 2 where no goal hangs on it)")
	flags.DurationVar(&opt.length, "length", time.Second, "length of one measurement, whole seconds")
	flags.IntVar(&opt.sessions, "sessions", 0, "idle sessions (default: as many as the file limit allows)")
	flags.BoolVar(&opt.calls, "calls", true, "count system calls, in a short pass of its own")
	flags.StringVar(&opt.out, "out", "", "`FILE` for a report in Markdown (default: a table on standard output)")
	flags.StringVar(&opt.charts, "charts", "", "`FOLDER` for charts (default: none)")
	flags.StringVar(&opt.data, "data", "", "`FOLDER` for all figures and settings (default: none)")
	flags.StringVar(&opt.from, "from", "", "write report and charts from the figures in `FOLDER`, without measuring")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	switch {
	case flags.NArg() > 0:
		return opt, fmt.Errorf("%q is one word too many", flags.Arg(0))
	case opt.rounds < 0 || opt.sessions < 0:
		return opt, errors.New("-rounds and -sessions are numbers above 0")
	case opt.length < time.Second || opt.length%time.Second != 0:
		return opt, fmt.Errorf("-length %v: want whole seconds, 1s or more: wrk and ab know no others", opt.length)
	case opt.from != "" && (opt.out == "" || opt.data != ""):
		return opt, errors.New("-from needs -out, and goes with -charts alone")
	}
	if opt.quick {
		opt.calls = false
		opt.rounds = max(1, opt.rounds)
	}
	opt.asked = with != ""
	var err error
	if opt.workloads, err = choose("-only", only, workloads()); err != nil {
		return opt, err
	}
	if opt.quick && only == "" {
		opt.workloads = slices.DeleteFunc(opt.workloads, func(w workload) bool { return !w.quick })
	}
	opt.peers, err = choose("-peers", with, peers())
	return opt, err
}

func orElse(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// roundsOf returns how often a workload is measured with each peer.
func (o options) roundsOf(w workload) int {
	switch {
	case o.rounds > 0:
		return o.rounds
	case w.minor:
		return 2
	}
	return 3
}

// most returns the number of rounds.
func (o options) most() int {
	n := 0
	for _, w := range o.workloads {
		n = max(n, o.roundsOf(w))
	}
	return n
}

// lengthOf returns how long one measurement of a workload takes.
func (o options) lengthOf(w workload) time.Duration {
	return o.length * time.Duration(max(1, w.longer))
}

// counts reports whether the system calls of a workload are counted.
func (o options) counts(w workload) bool { return o.calls && w.brief > 0 }

// skips reports whether a workload leaves a peer out.
func (o options) skips(w workload, p peer) bool {
	return w.proxied && p.argv == nil || w.admin && !p.admin || p.variant && !o.asked && (o.quick || !w.wide)
}

// named is what can be chosen on the command line.
type named interface{ key() string }

func names[T named](all []T) string {
	list := make([]string, len(all))
	for i, t := range all {
		list[i] = t.key()
	}
	return strings.Join(list, ", ")
}

// choose returns the entries that a comma-separated list names, in the order
// of the table; all of them for the empty list.
func choose[T named](option, list string, all []T) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(t T) bool { return t.key() == w }) {
			return nil, fmt.Errorf("%s: there is no %q: want some of %s", option, w, names(all))
		}
	}
	return slices.DeleteFunc(all, func(t T) bool { return !slices.Contains(wanted, t.key()) }), nil
}

// publish writes a table to w, or what the options name: data, charts and the
// report.
func publish(opt options, w io.Writer, res *results) error {
	rec := res.record()
	if opt.data != "" {
		if err := writeData(opt.data, rec, settings(res)); err != nil {
			return fmt.Errorf("write the data: %w", err)
		}
	}
	if opt.out == "" {
		_, err := io.WriteString(w, compact(res))
		return err
	}
	return publishRecord(opt, rec, opt.data)
}

// publishRecord writes the report of a record, whose files are in the folder
// data, and its charts. Each file is replaced as a whole.
func publishRecord(opt options, rec *record, data string) error {
	var images []image
	if opt.charts != "" {
		var err error
		if images, err = writeCharts(opt, rec); err != nil {
			return fmt.Errorf("write the charts: %w", err)
		}
	}
	if data != "" {
		near, err := filepath.Rel(filepath.Dir(opt.out), data)
		if err != nil {
			return err
		}
		data = filepath.ToSlash(near)
	}
	if err := replace(opt.out, report(rec, images, data)); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// replace writes a file as a whole.
func replace(path, text string) error {
	beside := path + ".new"
	if err := os.WriteFile(beside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(beside, path)
}
