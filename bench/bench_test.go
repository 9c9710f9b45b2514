//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// TestMain plays a role if this process was started for one, and else fails
// on a descriptor or a goroutine that outlives the tests.
func TestMain(m *testing.M) {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	testkit.Main(m)
}

// pick returns the entries of a table that have these names.
func pick[T named](t *testing.T, all []T, names ...string) []T {
	list, err := choose("test", strings.Join(names, ","), all)
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
	return list
}

// The whole way, for a few seconds: every kind of figure is there, nothing
// fails, and nothing is left behind.
func TestSmoke(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "nginx")
	opt := options{
		workloads: pick(t, workloads(), "short18k", "keep64", "file1", "rate5k", "idle"), peers: pick(t, peers(), direct, "go", ours), asked: true,
		threads: []int{2}, rounds: 2, length: 200 * time.Millisecond, time: time.Nanosecond, sessions: 200,
	}
	fixed := &opt.workloads[3]
	fixed.run = func(ctx context.Context, tr *trial) error { return latency(ctx, tr, lanes, 1000) }
	if _, err := os.Stat("/usr/lib/nginx/modules/ngx_stream_module.so"); err == nil {
		opt.peers = append(opt.peers, pick(t, peers(), "nginx")...)
	}
	testkit.BestOf(t, 3, func() error { return smoke(t, opt) })
}

func smoke(t *testing.T, opt options) error {
	var progress bytes.Buffer
	res, err := measureAll(t.Context(), opt, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if len(res.broken) > 0 || res.failed() > 0 {
		return fmt.Errorf("broken: %q, left out: %q, failed: %d", res.broken, res.leftOut, res.failed())
	}
	// Sessions that are idle have one round, and not without a proxy.
	n := len(opt.peers)
	if want := 4*n*2 + n - 1; len(res.samples) != want || strings.Count(progress.String(), "[visit 1, ") != 5 {
		return fmt.Errorf("%d slices, want %d, and a line of progress for each of 5 comparisons:\n%s", len(res.samples), want, progress.String())
	}
	for _, s := range res.samples {
		// On a busy machine a slice may see a few requests only.
		if s.units <= 0 || s.cpu <= 0 && s.peer != direct || s.others > 1 || s.segments == 0 || s.threads != 2 {
			return fmt.Errorf("%s with %s: %+v", s.workload, s.peer, s)
		}
		switch {
		case s.workload == "rate5k" && !(s.noted["p50"] > 0 && s.noted["p50"] <= s.noted[p99]):
			return fmt.Errorf("%s: latencies %v", s.peer, s.noted)
		case s.workload == "idle" && s.noted["sessions"] != 200:
			return fmt.Errorf("%s: %v", s.peer, s.noted)
		}
	}
	return nil
}

// An interrupted run ends everything that it has started.
func TestInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var groups []int
	var dir string
	interrupt := workload{name: "interrupt", unit: "thing", backend: streams, run: func(ctx context.Context, tr *trial) error {
		groups = []int{tr.peer.Group(), tr.backends[0].Group()}
		for _, g := range groups {
			if pids, err := members(g); err != nil || len(pids) == 0 {
				t.Errorf("group %d has processes %v, %v", g, pids, err)
			}
		}
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}
	p := pick(t, peers(), "go")[0]
	argv := p.argv
	p.argv = func(at place) []string {
		dir = at.dir
		return argv(at)
	}
	_, err := measureAll(ctx, options{workloads: []workload{interrupt}, peers: []peer{p}, asked: true, rounds: 5, length: time.Second}, io.Discard)
	if !errors.Is(err, context.Canceled) || len(groups) != 2 {
		t.Fatalf("the run ended with %v", err)
	}
	for _, g := range groups {
		if pids, err := members(g); err != nil || len(pids) > 0 {
			t.Errorf("group %d still has processes %v, %v", g, pids, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder %s is left: %v", dir, err)
	}
}

// A peer that does not start is reported with its last words; the others are
// measured.
func TestBrokenPeerIsReported(t *testing.T) {
	broken := peer{name: "broken", argv: func(place) []string { return []string{"sh", "-c", "echo no such setting; exit 1"} }}
	once := workload{name: "once", unit: "thing", backend: streams, once: true, figures: figures("thing", "things"), run: func(_ context.Context, tr *trial) error {
		tr.units = 1
		return tr.measure(func() (time.Duration, error) { return 0, probeStreams(tr.to()) })
	}}
	opt := options{workloads: []workload{once}, peers: append(pick(t, peers(), direct, "go"), broken), asked: true, rounds: 2, length: time.Second}
	res, err := measureAll(t.Context(), opt, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.samples) != 4 || len(res.broken) != 1 || !strings.Contains(res.broken[0], "no such setting") {
		t.Errorf("%d slices, broken: %q", len(res.samples), res.broken)
	}
}

// Bulk through the plain Go proxy, without any other program.
func TestBulk(t *testing.T) {
	w := workload{name: "bulk", unit: "MiB", backend: streams, once: true, figures: figures("MiB", "MiB"), run: func(ctx context.Context, tr *trial) error {
		return runBulk(ctx, tr, 2, readStream)
	}}
	opt := options{workloads: []workload{w}, peers: pick(t, peers(), "go"), asked: true, rounds: 1, length: 500 * time.Millisecond} // on a busy machine nothing may move for a while
	testkit.BestOf(t, 5, func() error {
		res, err := measureAll(t.Context(), opt, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.samples) != 1 || res.failed() != 0 || res.samples[0].units <= 0 || res.samples[0].cpu <= 0 {
			return fmt.Errorf("samples %+v, broken %q", res.samples, res.broken)
		}
		return nil
	})
}

// What a workload holds beside its slices is made once for each peer, is in all
// notes, and ends.
func TestHeldBesideSlices(t *testing.T) {
	made, ended := 0, 0
	w := workload{
		name: "held", unit: "thing", backend: streams, once: true, figures: figures("thing", "things"),
		hold: func(_ context.Context, tr *trial) (func(), error) {
			made++
			tr.held = map[string]float64{"held": 7}
			return func() { ended++ }, nil
		},
		run: func(_ context.Context, tr *trial) error {
			tr.units = 1
			return tr.measure(func() (time.Duration, error) { return 0, probeStreams(tr.to()) })
		},
	}
	res, err := measureAll(t.Context(), options{workloads: []workload{w}, peers: pick(t, peers(), "go"), asked: true, rounds: 3, length: time.Second}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.samples) != 3 || made != 1 || ended != 1 || res.samples[2].noted["held"] != 7 {
		t.Errorf("%d slices, made %d, ended %d times: %+v", len(res.samples), made, ended, res.samples)
	}
}

func TestMissingProgramsLeaveOut(t *testing.T) {
	r := &rig{options: options{workloads: workloads(), peers: peers()}, progress: io.Discard}
	res := &results{}
	r.leaveOut(map[string]string{"haproxy": "not there", "redis-benchmark": "not there", "txlb": "does not build", other: "not there"}, res)
	if got := names(r.peers); got != "direct, nginx, bare, bare-plain, bare-splice, go, embedded, embedded-spare, own-tcp, own-conns" {
		t.Errorf("peers left: %s", got)
	}
	if got := names(r.workloads); strings.Contains(got, "redis") || !strings.Contains(got, "short18k") {
		t.Errorf("workloads left: %s", got)
	}
	if !slices.Contains(res.leftOut, "peer txlb is left out: does not build") {
		t.Errorf("reported: %q", res.leftOut)
	}
}

func TestArguments(t *testing.T) {
	opt, err := parseArgs([]string{"-only", "keep64,short18k", "-peers", "txlb,haproxy", "-rounds", "3", "-threads", "1"}, io.Discard)
	if err != nil || names(opt.workloads) != "short18k, keep64" || names(opt.peers) != "txlb, haproxy" || opt.rounds != 3 || fmt.Sprint(opt.threads) != "[1]" {
		t.Errorf("got %+v, %v", opt, err)
	}
	quick, err := parseArgs([]string{"-quick"}, io.Discard)
	if err != nil || fmt.Sprint(quick.threads) != "[2]" || len(quick.workloads) >= len(workloads()) || names(quick.peers) != "direct, txlb, haproxy, nginx, haproxy-64k, haproxy-splice, bare, bare-splice" {
		t.Errorf("quick: %s, %s, %v", names(quick.workloads), names(quick.peers), err)
	}
	for _, bad := range []string{"-only=fast", "-peers=envoy", "-rounds=-1", "-length=1ms", "-threads=3", "-sessions=-5", "word", "-nonsense"} {
		if status := run(t.Context(), []string{bad}, io.Discard, io.Discard); status != 2 {
			t.Errorf("%s: exit status %d, want 2", bad, status)
		}
	}
}

// What a run asks for without options takes the time that is said for it, and so
// does a quick one.
func TestTheTimeIsEnough(t *testing.T) {
	t.Setenv(networkMark, "own")
	for _, test := range []struct {
		args  []string
		least int
		most  time.Duration
	}{{nil, 40, 20 * time.Minute}, {[]string{"-quick"}, 5, 2 * time.Minute}, {[]string{tlsWork}, 10, 4 * time.Minute}} {
		opt, err := parseArgs(test.args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		all := (&rig{options: opt}).plan()
		if f := newForecast(opt, all); len(all) < test.least || f.once > test.most || f.once > opt.time {
			t.Errorf("%v: %d comparisons, %v for one visit, limit %v", test.args, len(all), f.once, opt.time)
		}
	}
}

// Over the rounds every peer takes every place, and none is always behind the
// same one.
func TestPeersTakeTurns(t *testing.T) {
	all := peers()
	first, before := map[string]bool{}, map[string]map[string]bool{}
	for round := range len(all) * 2 {
		turn := inTurn(all, round)
		if len(turn) != len(all) {
			t.Fatalf("round %d has %d peers", round, len(turn))
		}
		first[turn[0].name] = true
		for i, p := range turn[1:] {
			if before[p.name] == nil {
				before[p.name] = map[string]bool{}
			}
			before[p.name][turn[i].name] = true
		}
	}
	for _, p := range all {
		if !first[p.name] || len(before[p.name]) < 2 {
			t.Errorf("%s: first %v, behind %v", p.name, first[p.name], before[p.name])
		}
	}
}
