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

// usage is what one measurement took.
type usage struct {
	time     time.Duration
	cpu      time.Duration // of the peer's processes
	switches uint64        // of the peer's threads, voluntary or not
	calls    uint64        // system calls of the peer, where they are counted
	busy     time.Duration // of all cores together, all programs
	stolen   time.Duration // wanted by this machine, given to another by its host
	segments uint64        // TCP segments sent by anybody here
	known    time.Duration // CPU time of the peer, the backends and the load
}

// elsewhere returns the share of the machine, 0 to 1, that programs outside
// the benchmark and the host took away.
func (u usage) elsewhere() float64 {
	all := u.time * time.Duration(runtime.NumCPU())
	if all <= 0 {
		return 0
	}
	return max(0, float64(u.busy+u.stolen-u.known)/float64(all))
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
	cpu      time.Duration
	switches map[int]uint64 // by thread
}

// machine is the first line of /proc/stat, in ticks.
type machine struct{ busy, stolen uint64 }

// read takes a reading; peer may be nil.
func read(peer *servers.Server, backends []*servers.Server) (counters, error) {
	var c counters
	var err error
	if c.peer, err = effortOf(peer); err != nil {
		return c, err
	}
	for _, b := range backends {
		t, err := cpuTime(b)
		if err != nil {
			return c, err
		}
		c.backends += t
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return c, fmt.Errorf("getrusage: %w", err)
	}
	c.self = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c, err
	}
	if c.machine, err = parseStat(string(stat)); err != nil {
		return c, err
	}
	if c.segments, err = segments(); err != nil {
		return c, err
	}
	c.at = time.Now()
	return c, nil
}

// since returns what happened from the reading a to the reading c.
func (c counters) since(a counters) (usage, error) {
	cpu := c.peer.cpu - a.peer.cpu
	if cpu < 0 {
		return usage{}, errors.New("a process of the peer ended while it was measured, and its CPU time is lost")
	}
	return usage{
		time: c.at.Sub(a.at), cpu: cpu, switches: switched(a.peer.switches, c.peer.switches),
		busy:     time.Duration(c.machine.busy-a.machine.busy) * tick,
		stolen:   time.Duration(c.machine.stolen-a.machine.stolen) * tick,
		segments: c.segments - a.segments,
		known:    cpu + max(0, c.backends-a.backends) + c.self - a.self,
	}, nil
}

// switched adds up the context switches between two readings. A thread that
// ended in between took its count with it: the kernel keeps none of it.
func switched(before, after map[int]uint64) uint64 {
	var sum uint64
	for id, n := range after {
		sum += n - before[id] // zero for a new thread
	}
	return sum
}

// effortOf reads what a server has used; nothing for nil.
func effortOf(s *servers.Server) (effort, error) {
	e := effort{switches: map[int]uint64{}}
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
		text, err := os.ReadFile(dir + "/status")
		if gone(err) {
			continue
		}
		if err != nil {
			return e, err
		}
		if e.switches[id], err = parseSwitches(string(text)); err != nil {
			return e, err
		}
	}
	return e, nil
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
