//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// kernelCounter counts what some processes ask of the kernel: system calls and
// the bytes that they return, by number; operations of io_uring and their bytes,
// by operation; context switches and wake-ups. A BPF program at each tracepoint
// adds to counters in the kernel, so nothing is lost and no process is stopped.
//
// It costs each call some 0.2 µs. Count apart from what measures times.
type kernelCounter struct {
	maps     map[string]*ebpf.Map
	programs []*ebpf.Program
	events   []int // descriptors of the tracepoints
}

// The kernel's counters: arrays of 64-bit numbers.
const (
	callsMap     = "calls"      // by number of the system call
	againMap     = "again"      // of these, those that returned EAGAIN
	bytesMap     = "bytes"      // sum of what they returned, where it was above 0
	ringMap      = "ring"       // by operation of io_uring
	ringBytesMap = "ring_bytes" // sum of the results above 0
	schedMap     = "sched"      // see the three indices

	membersMap  = "members"  // processes that count
	threadsMap  = "threads"  // their threads, as far as they have made a call
	inflightMap = "inflight" // operation of a request to the ring
)

const voluntary, involuntary, wakeups = 0, 1, 2

// newKernelCounter begins to count for processes. It needs root, or CAP_BPF and
// CAP_PERFMON. Children that start later are not counted, threads are.
func newKernelCounter(pids []int) (k *kernelCounter, err error) {
	k = &kernelCounter{maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("count in the kernel (as root): %w", err), k.close())
			k = nil
		}
	}()
	for _, m := range []ebpf.MapSpec{
		{Name: callsMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 512},
		{Name: againMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 512},
		{Name: bytesMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 512},
		{Name: ringMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 256},
		{Name: ringBytesMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 256},
		{Name: schedMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 3},
		{Name: membersMap, Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1024},
		{Name: threadsMap, Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 1 << 14},
		{Name: inflightMap, Type: ebpf.LRUHash, KeySize: 8, ValueSize: 4, MaxEntries: 1 << 14},
	} {
		if k.maps[m.Name], err = ebpf.NewMap(&m); err != nil {
			return k, fmt.Errorf("map %s: %w", m.Name, err)
		}
	}
	for _, pid := range pids {
		if err = k.maps[membersMap].Put(uint32(pid), uint32(1)); err != nil {
			return k, err
		}
	}
	root, done, err := tracefs()
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, done()) }()
	for _, p := range []struct {
		event string
		needs []string // fields of the event
		build func(field map[string]int16) asm.Instructions
	}{
		{"raw_syscalls/sys_enter", []string{"id"}, k.atEnter},
		{"raw_syscalls/sys_exit", []string{"id", "ret"}, k.atExit},
		{"sched/sched_switch", []string{"prev_state"}, k.atSwitch},
		{"sched/sched_wakeup", []string{"pid"}, k.atWakeup},
		{"io_uring/io_uring_submit_req", []string{"req", "opcode"}, k.atSubmit},
		{"io_uring/io_uring_complete", []string{"req", "res"}, k.atComplete},
	} {
		folder := filepath.Join(root, "events", p.event)
		format, e := os.ReadFile(filepath.Join(folder, "format"))
		if errors.Is(e, os.ErrNotExist) && strings.HasPrefix(p.event, "io_uring/") {
			continue // a kernel without it
		}
		if e != nil {
			return k, e
		}
		fields, e := offsets(string(format), p.needs)
		if e != nil {
			return k, fmt.Errorf("%s: %w", p.event, e)
		}
		if e := k.attach(folder, p.build(fields)); e != nil {
			return k, fmt.Errorf("%s: %w", p.event, e)
		}
	}
	return k, nil
}

// attach has the kernel run a program at a tracepoint, on every core.
func (k *kernelCounter) attach(folder string, code asm.Instructions) error {
	id, err := readNumber(filepath.Join(folder, "id"))
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.TracePoint, Instructions: code, License: "GPL"})
	if err != nil {
		return err
	}
	k.programs = append(k.programs, p)
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample: 1, Wakeup: 1, Size: unix.PERF_ATTR_SIZE_VER0}
	// A program at the event of one core runs on all of them.
	fd, err := unix.PerfEventOpen(attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("perf_event_open: %w", err)
	}
	k.events = append(k.events, fd)
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD()); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
}

// close ends counting.
func (k *kernelCounter) close() error {
	var all []error
	for _, fd := range k.events {
		all = append(all, unix.Close(fd))
	}
	for _, p := range k.programs {
		all = append(all, p.Close())
	}
	for _, m := range k.maps {
		if m != nil {
			all = append(all, m.Close())
		}
	}
	return errors.Join(all...)
}

// kernelCounts is a reading of a kernelCounter, or a difference of two.
type kernelCounts map[string][]uint64

// read returns the counters as they are.
func (k *kernelCounter) read() (kernelCounts, error) {
	counts := kernelCounts{}
	for _, name := range []string{callsMap, againMap, bytesMap, ringMap, ringBytesMap, schedMap} {
		m := k.maps[name]
		list := make([]uint64, m.MaxEntries())
		for i := range list {
			if err := m.Lookup(uint32(i), &list[i]); err != nil {
				return nil, fmt.Errorf("read the counter %s: %w", name, err)
			}
		}
		counts[name] = list
	}
	return counts, nil
}

// since returns what was counted after the reading before.
func (c kernelCounts) since(before kernelCounts) kernelCounts {
	difference := kernelCounts{}
	for name, list := range c {
		d := make([]uint64, len(list))
		for i, n := range list {
			d[i] = n - before[name][i]
		}
		difference[name] = d
	}
	return difference
}

// The programs. R6 holds the context from the start on, R7 who it is about.
const done = "done"

// ofMember ends the program unless the current process counts.
func (k *kernelCounter) ofMember() asm.Instructions {
	return append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetCurrentPidTgid.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.RSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
	}, k.find(membersMap, -4)...)
}

// find points R0 to the value whose key is at RFP+at, and ends the program without one.
func (k *kernelCounter) find(name string, at int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, k.maps[name].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, at),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, done),
	}
}

// add adds R8 to the counter whose index is the word at RFP-4.
func (k *kernelCounter) add(counter string) asm.Instructions {
	return append(k.find(counter, -4), asm.StoreXAdd(asm.R0, asm.R8, asm.DWord))
}

func assembled(parts ...asm.Instructions) asm.Instructions {
	var all asm.Instructions
	for _, p := range parts {
		all = append(all, p...)
	}
	return append(all, asm.Mov.Imm(asm.R0, 0).WithSymbol(done), asm.Return())
}

func (k *kernelCounter) atEnter(field map[string]int16) asm.Instructions {
	return assembled(k.ofMember(), asm.Instructions{
		// Remember the thread: a wake-up names no process.
		asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, k.maps[threadsMap].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "known"),
		asm.LoadMapPtr(asm.R1, k.maps[threadsMap].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.LoadMem(asm.R1, asm.R6, field["id"], asm.DWord).WithSymbol("known"),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R8, 1),
	}, k.add(callsMap))
}

func (k *kernelCounter) atExit(field map[string]int16) asm.Instructions {
	return assembled(k.ofMember(), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, field["id"], asm.DWord),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, field["ret"], asm.DWord),
		asm.JSGT.Imm(asm.R8, 0, "moved"),
		asm.JNE.Imm(asm.R8, -int32(unix.EAGAIN), done),
		asm.Mov.Imm(asm.R8, 1),
	}, k.add(againMap), asm.Instructions{
		asm.Ja.Label(done),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("moved"),
	}, k.add(bytesMap))
}

// atSwitch counts for the process that stops. One that still could run, or was
// preempted, has no bit of its state set below the one that says "preempted".
func (k *kernelCounter) atSwitch(field map[string]int16) asm.Instructions {
	return assembled(k.ofMember(), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, field["prev_state"], asm.DWord),
		asm.And.Imm(asm.R1, 0xff),
		asm.Mov.Imm(asm.R2, voluntary),
		asm.JNE.Imm(asm.R1, 0, "sleeps"),
		asm.Mov.Imm(asm.R2, involuntary),
		asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word).WithSymbol("sleeps"),
		asm.Mov.Imm(asm.R8, 1),
	}, k.add(schedMap))
}

func (k *kernelCounter) atWakeup(field map[string]int16) asm.Instructions {
	return assembled(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, field["pid"], asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
	}, k.find(threadsMap, -4), asm.Instructions{
		asm.StoreImm(asm.RFP, -4, wakeups, asm.Word),
		asm.Mov.Imm(asm.R8, 1),
	}, k.add(schedMap))
}

func (k *kernelCounter) atSubmit(field map[string]int16) asm.Instructions {
	return assembled(k.ofMember(), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, field["req"], asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, field["opcode"], asm.Byte),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, k.maps[inflightMap].FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -4),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R8, 1),
	}, k.add(ringMap))
}

func (k *kernelCounter) atComplete(field map[string]int16) asm.Instructions {
	return assembled(k.ofMember(), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, field["req"], asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
	}, k.find(inflightMap, -16), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, field["res"], asm.Word),
		asm.LSh.Imm(asm.R8, 32),
		asm.ArSh.Imm(asm.R8, 32),
		asm.JSLE.Imm(asm.R8, 0, done),
	}, k.add(ringBytesMap))
}

// offsets finds fields in the format of a tracepoint.
func offsets(format string, names []string) (map[string]int16, error) {
	all := map[string]int16{}
	for _, name := range names {
		m := regexp.MustCompile(`field:[^;]*\b` + name + `;\s*offset:(\d+);`).FindStringSubmatch(format)
		if m == nil {
			return nil, fmt.Errorf("the format has no field %q", name)
		}
		n, err := strconv.ParseInt(m[1], 10, 16)
		if err != nil {
			return nil, err
		}
		all[name] = int16(n)
	}
	return all, nil
}

// tracefs returns where the kernel's tracepoints are. Where tracefs is not
// mounted it is, until done is called, in a folder of its own.
func tracefs() (root string, done func() error, err error) {
	for _, root := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if _, err := os.Stat(filepath.Join(root, "events")); err == nil {
			return root, func() error { return nil }, nil
		}
	}
	dir, err := os.MkdirTemp("", "txlb-tracing-")
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount tracefs: %w", err), os.Remove(dir))
	}
	return dir, func() error { return errors.Join(unix.Unmount(dir, 0), os.Remove(dir)) }, nil
}

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
