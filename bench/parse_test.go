//go:build linux

package main

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		{"pgbench.txt", parsePgbench, tally{done: 32214, perSecond: 33030.243374}},
		{"redis.txt", func(out string) (tally, error) { return parseRedis(out, 2000) }, tally{done: 2000, perSecond: 95238.09}},
	} {
		got, err := test.parse(sampleOf(t, test.file))
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; want %+v", test.file, got, err, test.want)
		}
	}
	redis := func(out string) (tally, error) { return parseRedis(out, 1) }
	for _, parse := range []func(string) (tally, error){parsePgbench, redis} {
		if got, err := parse("unable to connect to 127.0.0.1:28112 Connection refused"); err == nil {
			t.Errorf("no report at all gives %+v", got)
		}
	}
}

func TestKernelCounters(t *testing.T) {
	// A program may call itself anything.
	if got, err := parseProcess("7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 3 4 50 6 20 0"); err != nil || got != (process{parent: 1, children: 56 * tick}) {
		t.Errorf("stat of a process: %+v, %v", got, err)
	}
	if got, err := parseAvailable("MemTotal: 9 kB\nMemAvailable:    3000 kB\n"); err != nil || got != 3000<<10 {
		t.Errorf("meminfo: %v, %v", got, err)
	}
	if got, err := parseSwitches("Name:\tcat\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t35\n"); err != nil || got != 42 {
		t.Errorf("switches: %v, %v", got, err)
	}
	if got, err := parseWait("123 456 7\n"); err != nil || got != 456 {
		t.Errorf("schedstat: %v, %v", got, err)
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
		"stat of a process": second(parseProcess("1 (sh) S 2")), "meminfo": second(parseAvailable("MemFree: 1 kB")), "switches": second(parseSwitches("voluntary_ctxt_switches: 1\n")),
		"smaps_rollup": second(parseRollup("Pss: 1 kB\n")), "stat": second(parseStat("cpu 1 2 3\n")),
		"snmp": second(parseSegments("Tcp: InSegs\nTcp: 4\n")), "schedstat": second(parseWait("1 x 3")),
	} {
		if err == nil {
			t.Errorf("%s: nonsense was read", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestNewAndEndedThreads(t *testing.T) {
	before := counters{peer: effort{threads: map[int]thread{1: {1, 10}, 2: {2, 20}, 4: {9, 90}}}}
	after := counters{peer: effort{threads: map[int]thread{1: {4, 11}, 2: {2, 20}, 3: {5, 50}}}}
	if u, err := after.since(before); err != nil || u.switches != 8 || u.wait != 51 {
		t.Errorf("%+v, %v: a new thread counts from nothing, one that ended not at all", u, err)
	}
}

// A process's clock contains what its threads have used, those that have
// ended too.
func TestClockKeepsEndedThreads(t *testing.T) {
	self := os.Getpid()
	before, err := processTime(self)
	if err != nil {
		t.Fatal(err)
	}
	const work = 30 * time.Millisecond
	ended := make(chan time.Duration)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		ended <- burn(t, work)
	}()
	used := <-ended
	after, err := processTime(self)
	if err != nil || after-before < used || used < work {
		t.Errorf("the clock went on by %v while a thread used %v, %v", after-before, used, err)
	}
	if after, err = processTime(1 << 30); err != nil || after != 0 {
		t.Errorf("no process has used %v, %v", after, err)
	}
}

// burn keeps the calling thread busy until it has used d, and returns what it
// has used.
func burn(t *testing.T, d time.Duration) time.Duration {
	for first, used := threadTime(t), time.Duration(0); ; {
		if used = threadTime(t) - first; used >= d || t.Failed() {
			return used
		}
	}
}

func threadTime(t *testing.T) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Error(err)
	}
	return time.Duration(ts.Nano())
}

// The counters that are parsed from samples exist on this machine too.
func TestReadingsGrow(t *testing.T) {
	var m meter
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // burn looks at the clock of one thread
	defer runtime.UnlockOSThread()
	burn(t, 60*time.Millisecond)
	after, err := m.stop()
	if err != nil {
		t.Fatal(err)
	}
	u, err := after.since(m.before)
	if err != nil || u.busy < 2*tick || after.self-m.before.self < 2*tick || u.time < 60*time.Millisecond {
		t.Errorf("60 ms of work gave %+v, %v", u, err)
	}
	if all := othersOf(m.before, after, 0); all < 0 || all > 1 {
		t.Errorf("others took %v of the machine", all)
	}
}
