//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// sampleOf returns what a program or the kernel once printed.
func sampleOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLoadPrograms(t *testing.T) {
	for _, test := range []struct {
		file  string
		parse func(string) (tally, error)
		want  tally
	}{
		{"wrk.txt", parseWrk, tally{done: 18590}},
		{"wrk-errors.txt", parseWrk, tally{done: 14965, wrong: 7483, failed: 7482}},
		{"ab.txt", parseAb, tally{done: 15233}},
		{"ab-errors.txt", parseAb, tally{done: 1000, wrong: 22}},
	} {
		got, err := test.parse(sampleOf(t, test.file))
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; want %+v", test.file, got, err, test.want)
		}
	}
	for _, parse := range []func(string) (tally, error){parseWrk, parseAb} {
		if got, err := parse("unable to connect to 127.0.0.1:28112 Connection refused"); err == nil {
			t.Errorf("no report at all gives %+v", got)
		}
	}
	// A line of errors that cannot be read must not count as none.
	broken := strings.Replace(sampleOf(t, "wrk-errors.txt"), "timeout 0", "", 1)
	if got, err := parseWrk(broken); err == nil {
		t.Errorf("a broken line of errors gives %+v", got)
	}
}

func TestKernelCounters(t *testing.T) {
	if got, err := parseSchedstat("681415 49164 1\n"); err != nil || got != 681415*time.Nanosecond {
		t.Errorf("schedstat: %v, %v", got, err)
	}
	if got, err := parseSwitches("Name:\tcat\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t35\n"); err != nil || got != 42 {
		t.Errorf("switches: %v, %v", got, err)
	}
	if got, err := parseRollup(sampleOf(t, "smaps_rollup.txt")); err != nil || got != 1700<<10 {
		t.Errorf("smaps_rollup: %v, %v", got, err)
	}
	// user 69222, nice 0, system 83280, irq 0, softirq 21984.
	if got, err := parseStat(sampleOf(t, "stat.txt")); err != nil || got != (machine{busy: 69222 + 83280 + 21984, stolen: 778}) {
		t.Errorf("stat: %+v, %v", got, err)
	}
	if got, err := parseSegments(sampleOf(t, "snmp.txt")); err != nil || got != 70014679 {
		t.Errorf("snmp: %v, %v", got, err)
	}
	for name, err := range map[string]error{
		"schedstat": second(parseSchedstat("1 2")), "switches": second(parseSwitches("voluntary_ctxt_switches: 1\n")),
		"smaps_rollup": second(parseRollup("Pss: 1 kB\n")), "stat": second(parseStat("cpu 1 2 3\n")),
		"snmp": second(parseSegments("Tcp: InSegs\nTcp: 4\n")),
	} {
		if err == nil {
			t.Errorf("%s: nonsense was read", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestGrownCountsThreads(t *testing.T) {
	before := map[int]thread{1: {10, 1}, 2: {20, 2}}
	cpu, switches, err := grown(before, map[int]thread{1: {15, 4}, 2: {20, 2}, 3: {100, 5}})
	if err != nil || cpu != 105 || switches != 8 {
		t.Errorf("got %v, %d, %v; want 105ns and 8: a new thread counts from nothing", cpu, switches, err)
	}
	if _, _, err := grown(before, map[int]thread{1: {15, 4}}); err == nil {
		t.Error("a thread took its CPU time with it, and nobody noticed")
	}
}

// The counters that are parsed from samples exist on this machine too.
func TestReadingsGrow(t *testing.T) {
	before, err := read(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(60 * time.Millisecond); time.Now().Before(until); {
		// Use a core for some ticks.
	}
	after, err := read(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := after.since(before)
	if err != nil || u.busy < 2*tick || u.known < 2*tick || u.time < 60*time.Millisecond {
		t.Errorf("60 ms of work gave %+v, %v", u, err)
	}
}
