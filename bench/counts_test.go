//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/servers"
	"golang.org/x/sys/unix"
)

// counted1 is a count of txlb with one loop.
func counted1(work string, values map[string]float64) []*count {
	return remember(nil, work, "txlb-1", values, nil)
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expected.tsv")
	all := counted1("short18k", map[string]float64{askedCounter: 13, segmentsCounter: 17, cpuCounter: 100})
	if err := judgeCounts(path, false, all, io.Discard); err == nil || !strings.Contains(err.Error(), "-update") {
		t.Errorf("without a file: %v", err)
	}
	if err := judgeCounts(path, true, all, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "short18k\ttxlb-1\tcalls\t13.000\nshort18k\ttxlb-1\tsegments\t17.000\n") || strings.Contains(string(text), "cpu") {
		t.Errorf("written: %s, %v", text, err)
	}
	// A hundredth more is play, four are not, and CPU time is never judged.
	for calls, grown := range map[float64]bool{13: false, 13.13: false, 13.52: true, 10: false} {
		var table strings.Builder
		err := judgeCounts(path, false, counted1("short18k", map[string]float64{askedCounter: calls, segmentsCounter: 17, cpuCounter: 900}), &table)
		if grown != (err != nil && strings.Contains(err.Error(), "calls of short18k with txlb-1")) || grown != strings.Contains(table.String(), "MORE") {
			t.Errorf("%v calls: %v\n%s", calls, err, table.String())
		}
	}
	// What is expected and cannot be counted is a fault.
	if err := judgeCounts(path, false, counted1("short18k", map[string]float64{askedCounter: 13}), io.Discard); err == nil {
		t.Error("no segments were counted, and nobody says so")
	}
	// What an update does not count stays.
	old := []expectation{{"keep64", "txlb-1", askedCounter, 2.1}, {"short18k", "txlb-1", askedCounter, 20}}
	got := updated(old, all)
	if len(got) != 3 || got[0] != old[0] || got[1].value != 13 || got[2].counter != segmentsCounter {
		t.Errorf("updated: %v", got)
	}
	for _, bad := range []string{"a b c", "w\ttxlb-1\tcalls\tx", "w\ttxlb-1\tcalls\t-1"} {
		if _, err := parseExpected(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What the file expects is something that a check counts.
func TestExpectedNamesWhatIsCounted(t *testing.T) {
	text, err := os.ReadFile("expected.tsv")
	if err != nil {
		t.Fatal(err)
	}
	expected, err := parseExpected(string(text))
	if err != nil || len(expected) == 0 {
		t.Fatalf("%d expectations, %v", len(expected), err)
	}
	for _, e := range expected {
		pick(t, countedWork(), e.work)
		pick(t, countedPeers(), e.program)
		if rows, _ := compare([]expectation{e}, remember(nil, e.work, e.program, map[string]float64{e.counter: e.value}, nil)); len(rows) != 2 {
			t.Errorf("a check does not compare %v", e)
		}
	}
}

// Counts are read back as they were kept, and the report has a table of them.
func TestCountsAreKept(t *testing.T) {
	dir := t.TempDir()
	if text, err := countsReport(usual, dir, "data"); text != "" || err != nil {
		t.Errorf("a report of nothing: %q, %v", text, err)
	}
	var all []*count
	for _, calls := range []float64{13, 14, 13.5} {
		all = remember(all, "short18k", "txlb-1", map[string]float64{askedCounter: calls, segmentsCounter: 17}, map[string]float64{"accept4": 1})
	}
	if err := writeCounts(dir, all); err != nil {
		t.Fatal(err)
	}
	back, err := readCounts(dir)
	if err != nil || len(back) != 1 || medianOf(back[0].values[askedCounter]) != 13.5 || back[0].byName() != "accept4 1.00" {
		t.Errorf("read back: %+v, %v", back, err)
	}
	text, err := countsReport(usual, dir, "data")
	if err != nil || !strings.Contains(text, "| connection | 13.5 · 17.0 |") || !strings.Contains(text, "](data/counts.md)") {
		t.Errorf("report: %v\n%s", err, text)
	}
	if page, err := os.ReadFile(filepath.Join(dir, countsPage)); err != nil || !strings.Contains(string(page), "| txlb-1 | 13.5 ±4% | 17.0 |") {
		t.Errorf("page: %v\n%s", err, page)
	}
}

// streamsBackend runs the streams backend until the end of the test.
func streamsBackend(t *testing.T) (s *servers.Server, addr string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr, err = servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err = serve(t.Context(), time.Minute, t.TempDir(), "streams", []string{self, roleStreams, addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	if err := s.Await(t.Context(), func() error { return probeStreams(dialer{address: addr}) }); err != nil {
		t.Fatal(err)
	}
	return s, addr
}

// The kernel counts what a program is known to do: the streams backend reads a
// message and sends it back.
func TestKernelCounter(t *testing.T) {
	s, addr := streamsBackend(t)
	pids, err := members(s.Group())
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKernelCounter(pids)
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	}()
	before, err := reading(t.Context(), s, k)
	if err != nil {
		t.Fatal(err)
	}
	const times = 100
	for range times {
		if err := probeStreams(dialer{address: addr}); err != nil {
			t.Fatal(err)
		}
	}
	after, err := reading(t.Context(), s, k)
	if err != nil {
		t.Fatal(err)
	}
	values, names := after.since(before).values(times)
	// Each message goes in and out once.
	if kib := values[copiedCounter]; kib < 0.06 || kib > 0.07 {
		t.Errorf("%.4f KiB copied for a message of 33 bytes each way", kib)
	}
	for name, want := range map[string]float64{callName(unix.SYS_ACCEPT4): 1, callName(unix.SYS_CLOSE): 1, callName(unix.SYS_WRITE): 2} {
		if got := names[name]; got < want-0.05 || got > 3*want {
			t.Errorf("%s: %.2f a session, want %.0f or some more; all: %v", name, got, want, names)
		}
	}
	if values[wakeupsCounter] <= 0 || values[waitsCounter] <= 0 {
		t.Errorf("it never waited: %v", values)
	}
}

// The load in steps through the plain Go proxy, in all its kinds.
func TestSteps(t *testing.T) {
	_, addr := streamsBackend(t)
	in, out := strings.NewReader(`{"Address":"`+addr+`","Lanes":2,"Warm":1,"Count":1} "go" "end"`), new(bytes.Buffer)
	if err := playSteps(in, out); err != nil || !strings.Contains(out.String(), `"Bytes":8388608`) {
		t.Errorf("%v, %s", err, out)
	}
}

func TestOffsets(t *testing.T) {
	const format = "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n\tfield:char comm[16];\toffset:8;\n\tfield:pid_t pid;\toffset:24;\n"
	got, err := offsets(format, []string{"id", "pid"})
	if err != nil || got["id"] != 8 || got["pid"] != 24 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := offsets(format, []string{"ret"}); err == nil || !strings.Contains(err.Error(), `"ret"`) {
		t.Errorf("a field that is not there: %v", err)
	}
}
