//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/servers"
)

// tick is the unit of /proc/stat: USER_HZ, which is 100 on every architecture
// that Go runs on.
const tick = 10 * time.Millisecond

// usage is what one slice took.
type usage struct {
	time     time.Duration
	cpu      time.Duration // of the peer's processes
	wait     time.Duration // its threads could run and had no core
	switches uint64        // of the peer's threads, voluntary or not
	busy     time.Duration // of all cores together, all programs
	segments uint64        // TCP segments sent by anybody in this network
	others   float64       // share of the machine, 0 to 1, that other programs and its host took
}

// meter measures what a slice takes. What it reads of the peer and the clock lies
// next to the work, the rest around it.
type meter struct {
	peer     *servers.Server // nil for none
	backends []*servers.Server
	before   counters
}

// counters is one reading of everything that usage is a difference of.
type counters struct {
	at       time.Time
	peer     effort
	backends time.Duration
	self     time.Duration
	machine  machine
	segments uint64
}

// effort is what the processes of one server have used so far.
type effort struct {
	cpu     time.Duration
	threads map[int]thread
}

// thread is what the kernel forgets when one ends.
type thread struct {
	switches uint64
	wait     time.Duration
}

// machine is the first line of /proc/stat, in ticks.
type machine struct{ busy, stolen uint64 }

func (m *meter) start() error {
	m.before = counters{}
	err := m.around(&m.before)
	if err == nil {
		m.before.peer, err = effortOf(m.peer)
	}
	m.before.at = time.Now()
	return err
}

// stop returns the reading at the end.
func (m *meter) stop() (counters, error) {
	after := counters{at: time.Now()}
	var err error
	if after.peer, err = effortOf(m.peer); err == nil {
		err = m.around(&after)
	}
	return after, err
}

// around reads all but the peer.
func (m *meter) around(c *counters) error {
	for _, b := range m.backends {
		t, err := cpuTime(b)
		if err != nil {
			return err
		}
		c.backends += t
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} { // children: load programs that have ended
		var own syscall.Rusage
		if err := syscall.Getrusage(who, &own); err != nil {
			return fmt.Errorf("getrusage: %w", err)
		}
		c.self += time.Duration(own.Utime.Nano() + own.Stime.Nano())
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return err
	}
	if c.machine, err = parseStat(string(stat)); err != nil {
		return err
	}
	c.segments, err = segments()
	return err
}

// since returns what happened from the reading a to the reading c.
func (c counters) since(a counters) (usage, error) {
	cpu := c.peer.cpu - a.peer.cpu
	if cpu < 0 {
		return usage{}, errors.New("a process of the peer ended while it was measured, and its CPU time is lost")
	}
	u := usage{
		time: c.at.Sub(a.at), cpu: cpu,
		busy:     time.Duration(c.machine.busy-a.machine.busy) * tick,
		segments: c.segments - a.segments,
	}
	for id, now := range c.peer.threads {
		was := a.peer.threads[id] // zero for a new thread
		u.switches += now.switches - was.switches
		u.wait += now.wait - was.wait
	}
	return u, nil
}

// othersOf returns the share of the machine that was not taken by the peer, the
// backends, this program and a load program.
func othersOf(a, c counters, load time.Duration) float64 {
	all := c.at.Sub(a.at) * time.Duration(runtime.NumCPU())
	taken := time.Duration(c.machine.busy+c.machine.stolen-a.machine.busy-a.machine.stolen) * tick
	known := c.peer.cpu - a.peer.cpu + max(0, c.backends-a.backends) + c.self - a.self + load
	if all <= 0 {
		return 0
	}
	return min(1, max(0, float64(taken-known)/float64(all)))
}

// effortOf reads what a server has used; nothing for nil.
func effortOf(s *servers.Server) (effort, error) {
	e := effort{threads: map[int]thread{}}
	if s == nil {
		return e, nil
	}
	var err error
	if e.cpu, err = cpuTime(s); err != nil {
		return e, err
	}
	pids, err := members(s.Group())
	if err != nil {
		return e, err
	}
	for _, dir := range taskDirs(pids) {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return e, err
		}
		t, err := threadIn(dir)
		if gone(err) {
			continue
		}
		if err != nil {
			return e, err
		}
		e.threads[id] = t
	}
	return e, nil
}

// threadIn reads the folder below /proc of a thread.
func threadIn(dir string) (thread, error) {
	var t thread
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return t, err
	}
	schedstat, err := os.ReadFile(dir + "/schedstat")
	if err != nil {
		return t, err
	}
	if t.switches, err = parseSwitches(string(status)); err != nil {
		return t, err
	}
	t.wait, err = parseWait(string(schedstat))
	return t, err
}

// parseWait reads the second number of schedstat: nanoseconds on a run queue.
func parseWait(s string) (time.Duration, error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return 0, fmt.Errorf("schedstat: want three numbers, got %q", s)
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(n), err
}

// taskDirs returns the folders below /proc of all threads of processes.
func taskDirs(pids []int) []string {
	var dirs []string
	for _, pid := range pids {
		// The pattern is well-formed, and that is all Glob complains of.
		found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		dirs = append(dirs, found...)
	}
	return dirs
}

// gone reports whether err says that a process or thread has ended.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// cpuTime returns the CPU time of all processes of a server so far. A
// process's clock is the sum of what /proc/PID/task/*/schedstat says, in
// nanoseconds too, with the threads that have ended, which schedstat forgets.
// Processes that have ended are in their parent's account, in ticks.
func cpuTime(s *servers.Server) (time.Duration, error) {
	if err := s.Alive(); err != nil {
		return 0, err
	}
	pids, err := members(s.Group())
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		t, err := processTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// processTime is the part of [cpuTime] that one process has; none if it has
// ended just now.
func processTime(pid int) (time.Duration, error) {
	// The clock of a process, as clock_getcpuclockid(3) builds it.
	const scheduler = 2
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts)
	if errors.Is(err, unix.EINVAL) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("clock of process %d: %w", pid, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	p, err := parseProcess(string(text))
	return time.Duration(ts.Nano()) + p.children, err
}

// process is what /proc/PID/stat says of a process's family.
type process struct {
	parent   int
	children time.Duration // CPU time of those that have ended
}

// parseProcess reads /proc/PID/stat. The name in it may contain anything, but
// ends with its last parenthesis.
func parseProcess(s string) (process, error) {
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const parent, user, system = 1, 13, 14
	if len(f) <= system {
		return process{}, fmt.Errorf("/proc/PID/stat: too few numbers in %q", s)
	}
	var n [3]int
	for i, at := range []int{parent, user, system} {
		var err error
		if n[i], err = strconv.Atoi(f[at]); err != nil {
			return process{}, fmt.Errorf("/proc/PID/stat: %w", err)
		}
	}
	return process{parent: n[0], children: time.Duration(n[1]+n[2]) * tick}, nil
}

// resident returns the resident memory of a server's processes in bytes.
// Pages that they share are counted for each, which a difference cancels.
func resident(s *servers.Server) (uint64, error) {
	if err := s.Alive(); err != nil {
		return 0, err
	}
	pids, err := members(s.Group())
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parseRollup(string(text))
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

// parseSwitches adds the two context switch counts of /proc/PID/status.
func parseSwitches(s string) (uint64, error) {
	var sum uint64
	found := 0
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(line, ":")
		if name != "voluntary_ctxt_switches" && name != "nonvoluntary_ctxt_switches" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += n
		found++
	}
	if found != 2 {
		return 0, fmt.Errorf("status: want two context switch counts, found %d", found)
	}
	return sum, nil
}

// parseRollup reads the line "Rss: 1704 kB" of smaps_rollup, in bytes.
func parseRollup(s string) (uint64, error) {
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" && f[2] == "kB" {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("smaps_rollup: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("smaps_rollup has no Rss line")
}

// parseStat reads the line of all cores: user, nice, system, idle, iowait,
// irq, softirq, steal. What follows are guests, which user contains already.
func parseStat(s string) (machine, error) {
	line, _, _ := strings.Cut(s, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return machine{}, fmt.Errorf("/proc/stat: want cpu and 8 numbers first, got %q", line)
	}
	var n [8]uint64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseUint(f[i+1], 10, 64); err != nil {
			return machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
	}
	const idle, iowait, steal = 3, 4, 7
	var m machine
	for i, ticks := range n {
		switch i {
		case idle, iowait:
		case steal:
			m.stolen = ticks
		default:
			m.busy += ticks
		}
	}
	return m, nil
}

// segments returns how many TCP segments this machine has sent.
func segments() (uint64, error) {
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	return parseSegments(string(text))
}

// available returns how much memory is free or could be, in bytes.
func available() (int, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	return parseAvailable(string(text))
}

// parseAvailable reads the line "MemAvailable: 1704 kB" of /proc/meminfo, in
// bytes.
func parseAvailable(s string) (int, error) {
	n, err := number(s, `MemAvailable: +(\d+) kB`)
	return n << 10, err
}

// parseSegments reads OutSegs of TCP from /proc/net/snmp, where a line of
// names stands above a line of numbers.
func parseSegments(s string) (uint64, error) {
	var header []string
	for sc := bufio.NewScanner(strings.NewReader(s)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || f[0] != "Tcp:" {
			continue
		}
		if header == nil {
			header = f
			continue
		}
		for i, name := range header {
			if name == "OutSegs" && i < len(f) {
				return strconv.ParseUint(f[i], 10, 64)
			}
		}
	}
	return 0, errors.New("/proc/net/snmp has no OutSegs of TCP")
}
