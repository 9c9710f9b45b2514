//go:build linux

// Command bench measures txlb beside its peers: no proxy at all, HAProxy in
// four settings, nginx's stream module and the plain Go proxy that anybody
// would write. All of them run on loopback, one at a time, under the same load
// and in the same run; what counts is the CPU time of the proxy for one unit
// of work and its ratio to the others, for absolute times are not stable.
//
//	go run ./bench                                   every workload, printed
//	go run ./bench -out BENCHMARKS.md                the same, as a file
//	go run ./bench -only short18k -rounds 3          one figure in a minute
//	go run ./bench -peers txlb,haproxy -only keep    two peers alone
//
// A workload is an entry in workloads (loads.go), a peer one in peers
// (peers.go), a figure one in figures (report.go).
//
// Limits: Linux only, for it reads /proc. The load, the backends and the peer
// share the machine's cores, as they do for every peer alike. What other
// programs do meanwhile disturbs the figures; its share is shown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	rounds    int
	length    time.Duration // of one measurement
	sessions  int           // idle ones; 0: as many as the file limit allows
	quick     bool
	out       string // file for the report; "": standard output
}

func main() {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	res, err := measureAll(ctx, opt, progress)
	if err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	if err := publish(opt.out, stdout, res); err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	if opt.out != "" {
		fmt.Fprintln(progress, "wrote", opt.out)
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
	flags.IntVar(&opt.rounds, "rounds", 0, "how often each peer is measured (default 5)")
	flags.DurationVar(&opt.length, "time", 0, "length of one measurement, whole seconds (default 2s)")
	flags.IntVar(&opt.sessions, "sessions", 0, "idle sessions (default: as many as the file limit allows)")
	flags.StringVar(&opt.out, "out", "", "`FILE` for the report (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	if flags.NArg() > 0 {
		return opt, fmt.Errorf("%q is one word too many", flags.Arg(0))
	}
	rounds, length := 5, 2*time.Second
	if opt.quick {
		rounds, length = 1, time.Second
	}
	if opt.rounds == 0 {
		opt.rounds = rounds
	}
	if opt.length == 0 {
		opt.length = length
	}
	if opt.rounds < 1 || opt.sessions < 0 {
		return opt, errors.New("-rounds and -sessions are numbers above 0")
	}
	if opt.length < time.Second || opt.length%time.Second != 0 {
		return opt, fmt.Errorf("-time %v: want whole seconds, 1s or more: wrk and ab know no others", opt.length)
	}
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

// publish writes the report: to the file path, replaced as a whole, or to w.
func publish(path string, w io.Writer, res *results) error {
	text := report(res)
	if path == "" {
		_, err := io.WriteString(w, text)
		return err
	}
	beside := path + ".new"
	if err := os.WriteFile(beside, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.Rename(beside, path); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
