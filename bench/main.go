//go:build linux

// Command bench measures txlb beside its peers: HAProxy in three settings, nginx's
// stream module and no proxy. All of them run on loopback, under the same load, with
// the same number of threads and the same congestion control.
//
// The programs of a comparison run at the same time and take turns: each works for a
// slice of 0.3 s. Figures are compared slice by slice, and a verdict is given only
// where an interval is on one side of the goal (stats.go).
//
//	go run ./bench -only short18k,keep64                     two workloads, as a table
//	go run ./bench -only keep64 -peers txlb,haproxy          two peers alone
//	go run ./bench -only keep64 -peers txlb,other -other old two builds of txlb
//	make bench                                               everything, as a document with data
//	go run ./bench -from bench/data -out BENCHMARKS.md       that document again, without measuring
//	go run ./bench tls                                       TLS, a program of one's own, sessions by goroutines
//	go run ./bench counts                                    system calls, segments, switches, bytes, memory
//	go run ./bench growth                                    1 to 10,000 hosts, services, listeners, sessions
//	go run ./bench counts -check bench/expected.tsv          has any of them grown?
//
// A workload is an entry in workloads (workloads.go), a peer one in peers
// (peers.go), a figure one in figures (figures.go), a goal one in goals
// (goals.go).
//
// Limits: Linux only, for it reads /proc. The load, the backends and the peer
// share the machine's cores, as they do for every peer alike. What other programs
// do meanwhile disturbs the figures; its share is shown. Root alone can have a
// network of its own; others measure under the machine's congestion control.
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options says what one run measures.
type options struct {
	args      []string // as typed
	suite     string   // usual or tlsWork
	workloads []workload
	peers     []peer
	asked     bool     // for these peers by name
	threads   []int    // none: one and two
	controls  []string // none: as the workloads say
	rounds    int      // of a visit
	length    time.Duration
	time      time.Duration // for everything
	sessions  int           // idle ones; 0: as many as the file limit allows
	quick     bool
	other     string // another txlb; "": none
	out       string // file for the report; "": a table on standard output
	charts    string // folder for charts; "": none
	data      string // folder for all slices and settings; "": none
	from      string // folder to take the slices from instead of measuring; "": measure
}

func main() {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	command, named := commands()[append(args, "")[0]]
	if named {
		args = args[1:]
	} else {
		command = run
		if err := ownNetwork(ctx, args, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	status := command(ctx, args, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// ownNetwork brings this process into a network of its own if args ask for
// measurements. What they need is fetched and built before: out there is no other
// network. It returns an error if this network has to do.
func ownNetwork(ctx context.Context, args []string, progress io.Writer) error {
	if inNetwork() {
		return settleNetwork()
	}
	opt, err := parseArgs(args, io.Discard)
	if err != nil || opt.from != "" || os.Getuid() != 0 {
		return nil // run says what is wrong
	}
	dir, err := os.MkdirTemp("", "txlb-bench-")
	if err != nil {
		return err
	}
	r := &rig{options: opt}
	_, _, err = provide(ctx, r.needed(), dir, progress)
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	return enterNetwork(args)
}

// commands are those with a name; without one it is run.
func commands() map[string]func(ctx context.Context, args []string, stdout, progress io.Writer) int {
	return map[string]func(context.Context, []string, io.Writer, io.Writer) int{"counts": countsCommand, "growth": growthCommand}
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
	var only, with, threads, controls string
	opt := options{args: args, suite: usual}
	most := 24 * time.Minute
	if len(args) > 0 && args[0] == tlsWork {
		opt.suite, args, most = tlsWork, args[1:], 8*time.Minute
	}
	flags.BoolVar(&opt.quick, "quick", false, "fewer workloads, two threads, one visit: two minutes")
	flags.StringVar(&only, "only", "", "workload `NAMES`, separated by commas: "+names(workloads()))
	flags.StringVar(&with, "peers", "", "peer `NAMES`, separated by commas: "+names(peers()))
	flags.StringVar(&threads, "threads", "", "`NUMBERS` of threads, separated by commas (default 1,2)")
	flags.StringVar(&controls, "control", "", "congestion control `NAMES`, separated by commas (default cubic, and bbr for bulk)")
	flags.IntVar(&opt.rounds, "rounds", usualRounds, "slices of each peer in one visit to a comparison")
	flags.DurationVar(&opt.length, "length", 300*time.Millisecond, "length of a slice")
	flags.DurationVar(&opt.time, "time", most, "time for everything; what is undecided is visited again until then")
	flags.IntVar(&opt.sessions, "sessions", 0, "idle sessions (default: as many as the file limit allows)")
	flags.StringVar(&opt.other, "other", "", "`FILE` of another build of txlb: it is the peer named other")
	flags.StringVar(&opt.out, "out", "", "`FILE` for a report in Markdown (default: a table on standard output)")
	flags.StringVar(&opt.charts, "charts", "", "`FOLDER` for charts (default: none)")
	flags.StringVar(&opt.data, "data", "", "`FOLDER` for all slices and settings (default: none)")
	flags.StringVar(&opt.from, "from", "", "write report and charts from the slices in `FOLDER`, without measuring")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	switch {
	case flags.NArg() > 0:
		return opt, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opt.rounds < 1 || opt.sessions < 0:
		return opt, errors.New("-rounds and -sessions are numbers above 0")
	case opt.length < 50*time.Millisecond:
		return opt, fmt.Errorf("-length %v is not 50ms or more", opt.length)
	case opt.from != "" && (opt.out == "" || opt.data != ""):
		return opt, errors.New("-from needs -out, and goes with -charts alone")
	}
	for _, n := range strings.FieldsFunc(threads, func(r rune) bool { return r == ',' }) {
		i, err := strconv.Atoi(n)
		if err != nil || i != 1 && i != 2 {
			return opt, fmt.Errorf("-threads: %q is not 1 or 2", n)
		}
		opt.threads = append(opt.threads, i)
	}
	if controls != "" {
		opt.controls = strings.Split(controls, ",")
	}
	opt.asked = with != ""
	var err error
	if opt.workloads, err = choose("-only", only, workloads()); err != nil {
		return opt, err
	}
	if only == "" {
		opt.workloads = slices.DeleteFunc(opt.workloads, func(w workload) bool {
			return w.suite != opt.suite || w.asked || opt.quick && !w.quick
		})
	}
	if opt.quick && threads == "" {
		opt.threads = []int{2}
	}
	if opt.quick && controls == "" {
		opt.controls = []string{usualControl, currentControl()}
		if inNetwork() {
			opt.controls = opt.controls[:1]
		}
	}
	if opt.peers, err = choose("-peers", with, peers()); err != nil {
		return opt, err
	}
	if !opt.asked {
		opt.peers = slices.DeleteFunc(opt.peers, func(p peer) bool {
			return p.role == extra && (p.name != other || opt.other == "") || p.role == shape && opt.suite == usual && only == ""
		})
	}
	return opt, nil
}

func orElse(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// usualRounds is how many slices of each peer a visit has.
const usualRounds = 8

// roundsOf returns how many slices of each peer a visit to a workload has.
func (o options) roundsOf(w workload) int {
	if w.rounds > 0 {
		return w.rounds
	}
	return o.rounds
}

// lengthOf returns the length of a slice of a workload.
func (o options) lengthOf(w workload) time.Duration {
	return o.length * time.Duration(max(1, w.longer))
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
	rec := &res.record
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
	near, counts := "", ""
	if data != "" {
		var err error
		if near, err = filepath.Rel(filepath.Dir(opt.out), data); err != nil {
			return err
		}
		near = filepath.ToSlash(near)
		if counts, err = countsReport(opt.suite, data, near); err != nil {
			return err
		}
	}
	text := ""
	if opt.suite == tlsWork {
		text = tlsReport(rec, near, counts)
	} else {
		text = report(rec, images, near, counts)
	}
	if err := replace(opt.out, text); err != nil {
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
