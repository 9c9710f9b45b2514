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
)

// tick is the unit of /proc/stat: USER_HZ, which is 100 on every architecture
// that Go runs on.
const tick = 10 * time.Millisecond

// usage is what one measurement took.
type usage struct {
	time     time.Duration
	cpu      time.Duration // of the peer's processes
	switches uint64        // of the peer's threads, voluntary or not
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
	peer     map[int]thread
	backend  map[int]thread
	self     time.Duration
	machine  machine
	segments uint64
}

// thread is what the kernel counts for one thread.
type thread struct {
	cpu      time.Duration
	switches uint64
}

// machine is the first line of /proc/stat, in ticks.
type machine struct{ busy, stolen uint64 }

// read takes a reading; peer may be nil.
func read(peer, backend *server) (counters, error) {
	var c counters
	var err error
	if c.peer, err = threads(peer); err != nil {
		return c, err
	}
	if c.backend, err = threads(backend); err != nil {
		return c, err
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
	snmp, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return c, err
	}
	if c.segments, err = parseSegments(string(snmp)); err != nil {
		return c, err
	}
	c.at = time.Now()
	return c, nil
}

// since returns what happened from the reading a to the reading c.
func (c counters) since(a counters) (usage, error) {
	cpu, switches, err := grown(a.peer, c.peer)
	if err != nil {
		return usage{}, fmt.Errorf("the peer: %w", err)
	}
	backend, _, err := grown(a.backend, c.backend)
	if err != nil {
		return usage{}, fmt.Errorf("the backend: %w", err)
	}
	return usage{
		time: c.at.Sub(a.at), cpu: cpu, switches: switches,
		busy:     time.Duration(c.machine.busy-a.machine.busy) * tick,
		stolen:   time.Duration(c.machine.stolen-a.machine.stolen) * tick,
		segments: c.segments - a.segments,
		known:    cpu + backend + c.self - a.self,
	}, nil
}

// grown adds up what threads have used between two readings. A thread that
// ended in between took its counts with it, which would flatter its program.
func grown(before, after map[int]thread) (cpu time.Duration, switches uint64, err error) {
	for id, b := range before {
		if a, ok := after[id]; !ok || a.cpu < b.cpu {
			return 0, 0, errors.New("a thread ended while it was measured, and its CPU time is lost")
		}
	}
	for id, a := range after {
		b := before[id] // zero for a new thread
		cpu += a.cpu - b.cpu
		switches += a.switches - b.switches
	}
	return cpu, switches, nil
}

// threads reads the counts of every thread of every process of a server.
func threads(s *server) (map[int]thread, error) {
	all := map[int]thread{}
	if s == nil {
		return all, nil
	}
	if err := s.alive(); err != nil {
		return nil, err
	}
	pids, err := members(s.group)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			id, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return nil, err
			}
			t, err := readThread(dir)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // ended just now: grown will say so if it counts
			}
			if err != nil {
				return nil, err
			}
			all[id] = t
		}
	}
	return all, nil
}

func readThread(dir string) (thread, error) {
	var t thread
	text, err := os.ReadFile(dir + "/schedstat")
	if err != nil {
		return t, err
	}
	if t.cpu, err = parseSchedstat(string(text)); err != nil {
		return t, err
	}
	if text, err = os.ReadFile(dir + "/status"); err != nil {
		return t, err
	}
	t.switches, err = parseSwitches(string(text))
	return t, err
}

// resident returns the resident memory of a server's processes in bytes.
// Pages that they share are counted for each, which a difference cancels.
func resident(s *server) (uint64, error) {
	if err := s.alive(); err != nil {
		return 0, err
	}
	pids, err := members(s.group)
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

// parseSchedstat reads the CPU time from "681415 49164 1": nanoseconds on a
// core, nanoseconds waiting for one, and how often it was given one.
func parseSchedstat(s string) (time.Duration, error) {
	fields := strings.Fields(s)
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat: want three numbers, got %q", s)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedstat: %w", err)
	}
	return time.Duration(n), nil
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
