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
	"github.com/txlb/txlb/internal/servers"
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
	t.Helper()
	list, err := choose("test", strings.Join(names, ","), all)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The whole way, for a few seconds: every kind of figure is there, nothing
// fails, and nothing is left behind.
func TestSmoke(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "nginx", "wrk")
	fixed := pick(t, workloads(), "rate5k")[0]
	fixed.run = func(ctx context.Context, tr *trial) error {
		tr.length = 200 * time.Millisecond
		return latency(ctx, tr, lanes, 2000)
	}
	opt := options{
		workloads: append(pick(t, workloads(), "short18k", "idle"), fixed), peers: pick(t, peers(), "go", ours),
		rounds: 1, length: time.Second, sessions: 200,
	}
	if _, err := os.Stat("/usr/lib/nginx/modules/ngx_stream_module.so"); err == nil {
		opt.peers = append(opt.peers, pick(t, peers(), "nginx")...)
	}
	var progress bytes.Buffer
	res, err := measureAll(t.Context(), opt, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if len(res.broken) > 0 || len(res.leftOut) > 0 || res.failed() > 0 {
		t.Errorf("broken: %q, left out: %q, failed: %d", res.broken, res.leftOut, res.failed())
	}
	if want := 3 * len(opt.peers); len(res.samples) != want || strings.Count(progress.String(), "1/1 ") != want {
		t.Fatalf("%d measurements, want %d, each with a line of progress:\n%s", len(res.samples), want, progress.String())
	}
	for _, s := range res.samples {
		switch {
		case s.units < 50 || s.cpu <= 0 || s.busy <= 0 || s.switches == 0 || s.elsewhere() >= 2: // ticks of a busy machine are rounded up
			t.Errorf("%s with %s: %+v", s.workload, s.peer, s)
		case s.workload == "short18k" && float64(s.segments)/s.units < 8:
			t.Errorf("%s: %.1f segments cannot carry a connection", s.peer, float64(s.segments)/s.units)
		case s.workload == "rate5k" && !(s.noted[p50] > 0 && s.noted[p50] <= s.noted[p99] && s.noted[p99] <= s.noted[p999]):
			t.Errorf("%s: latencies %v", s.peer, s.noted)
		case s.workload == "idle" && s.noted[grown] <= 0 && s.peer != ours:
			t.Errorf("%s: 200 sessions took no memory", s.peer)
		}
	}
	rec := res.record()
	for _, p := range opt.peers {
		for _, w := range opt.workloads {
			if rec.find(w.name, p.name, failures, "").rounds != 1 {
				t.Errorf("the record lacks %s with %s:\n%s", w.name, p.name, rec.text())
			}
		}
	}
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
	_, err := measureAll(ctx, options{workloads: []workload{interrupt}, peers: []peer{p}, rounds: 5, length: time.Second}, io.Discard)
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
	once := workload{name: "once", unit: "thing", backend: streams, figures: figures("thing", "things"), run: func(_ context.Context, tr *trial) error {
		tr.units = 1
		return tr.measure(func() error { return probeStreams(tr.addr) })
	}}
	opt := options{workloads: []workload{once}, peers: append(pick(t, peers(), "direct", "go"), broken), rounds: 2, length: time.Second}
	res, err := measureAll(t.Context(), opt, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.samples) != 4 || len(res.broken) != 2 || !strings.Contains(res.broken[0], "no such setting") {
		t.Errorf("%d measurements, broken: %q", len(res.samples), res.broken)
	}
}

// Bulk through the plain Go proxy, both ways, without any other program.
func TestBulk(t *testing.T) {
	for _, op := range []byte{opDown, opUp} {
		w := workload{name: "bulk", unit: "MiB", backend: streams, figures: figures("MiB", "MiB"), run: func(ctx context.Context, tr *trial) error {
			tr.length = 500 * time.Millisecond // on a busy machine nothing may move for a while
			return bulk(ctx, tr, 2, op)
		}}
		testkit.BestOf(t, 5, func() error {
			res, err := measureAll(t.Context(), options{workloads: []workload{w}, peers: pick(t, peers(), "go"), rounds: 1, length: time.Second}, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.samples) != 1 || res.failed() != 0 || res.samples[0].units < 1 || res.samples[0].cpu <= 0 {
				return fmt.Errorf("%c: samples %+v, broken %q", op, res.samples, res.broken)
			}
			return nil
		})
	}
}

// The kernel counts the system calls of a server's threads.
func TestSystemCalls(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve(t.Context(), time.Minute, t.TempDir(), "streams", []string{self, roleStreams, addr})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Await(t.Context(), func() error { return probeStreams(addr) }); err != nil {
		t.Fatal(err)
	}
	tr := &trial{peer: s, counting: true}
	const times = 100
	err = tr.measure(func() error {
		for range times {
			if err := probeStreams(addr); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	// accept, two reads, two writes, close.
	if err != nil || tr.calls < 6*times || tr.calls > 60*times {
		t.Errorf("%d calls for %d small sessions, %v", tr.calls, times, err)
	}
}

func TestMissingProgramsLeaveOut(t *testing.T) {
	r := &rig{options: options{workloads: workloads(), peers: peers()}, progress: io.Discard}
	res := &results{}
	r.leaveOut(map[string]string{"haproxy": "not there", "ab": "not there", "txlb": "does not build"}, res)
	if got := names(r.peers); got != "direct, nginx, go" {
		t.Errorf("peers left: %s", got)
	}
	if got := names(r.workloads); strings.Contains(got, "-ab") || !strings.Contains(got, "short18k") {
		t.Errorf("workloads left: %s", got)
	}
	if !slices.Contains(res.leftOut, "peer txlb is left out: does not build") {
		t.Errorf("reported: %q", res.leftOut)
	}
}

func TestArguments(t *testing.T) {
	opt, err := parseArgs([]string{"-only", "keep64,short18k", "-peers", "txlb,haproxy", "-rounds", "3"}, io.Discard)
	if err != nil || names(opt.workloads) != "short18k, keep64" || names(opt.peers) != "haproxy, txlb" || opt.rounds != 3 || opt.length != time.Second {
		t.Errorf("got %+v, %v", opt, err)
	}
	quick, err := parseArgs([]string{"-quick"}, io.Discard)
	if err != nil || quick.roundsOf(quick.workloads[0]) != 1 || quick.length != time.Second || len(quick.workloads) >= len(workloads()) {
		t.Errorf("quick: %d rounds of %v, %s, %v", quick.rounds, quick.length, names(quick.workloads), err)
	}
	for _, bad := range []string{"-only=fast", "-peers=envoy", "-rounds=-1", "-length=100ms", "-length=1500ms", "-sessions=-5", "word", "-nonsense"} {
		if status := run(t.Context(), []string{bad}, io.Discard, io.Discard); status != 2 {
			t.Errorf("%s: exit status %d, want 2", bad, status)
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
