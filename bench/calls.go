//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/servers"
)

// callCounter counts the system calls of a server: those of all its threads
// and of whatever they start. The kernel does this in the tracepoint
// raw_syscalls:sys_enter, as perf stat has it. That costs every system call of
// the machine some time, so calls are counted apart from everything else.
type callCounter struct{ fds []int }

// countCalls begins to count. It needs root or CAP_PERFMON.
func countCalls(s *servers.Server) (*callCounter, error) {
	id, err := tracepoint("raw_syscalls/sys_enter")
	if err != nil {
		return nil, err
	}
	pids, err := members(s.Group())
	if err != nil {
		return nil, err
	}
	c := &callCounter{}
	for _, dir := range taskDirs(pids) {
		thread, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
		attr.Size = unix.PERF_ATTR_SIZE_VER0
		fd, err := unix.PerfEventOpen(&attr, thread, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("count system calls (as root): %w", err), c.close())
		}
		c.fds = append(c.fds, fd)
	}
	return c, nil
}

// sum returns how many calls there have been.
func (c *callCounter) sum() (uint64, error) {
	var sum uint64
	for _, fd := range c.fds {
		var b [8]byte
		if n, err := unix.Read(fd, b[:]); err != nil || n != len(b) {
			return 0, fmt.Errorf("read a counter of system calls: %d bytes, %w", n, err)
		}
		sum += binary.NativeEndian.Uint64(b[:])
	}
	return sum, nil
}

func (c *callCounter) close() error {
	var all []error
	for _, fd := range c.fds {
		all = append(all, unix.Close(fd))
	}
	c.fds = nil
	return errors.Join(all...)
}

// tracepoint returns the kernel's number of a tracepoint. Where tracefs is not
// mounted it is, for a moment, in a folder of its own.
func tracepoint(name string) (id uint64, err error) {
	inside := filepath.Join("events", name, "id")
	for _, root := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if id, err = readNumber(filepath.Join(root, inside)); err == nil {
			return id, nil
		}
	}
	dir, err := os.MkdirTemp("", "txlb-tracing-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return 0, fmt.Errorf("mount tracefs to count system calls (as root): %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	return readNumber(filepath.Join(dir, inside))
}

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
