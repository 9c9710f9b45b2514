//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// command prepares a program that cannot outlive its use: it is the leader of
// a process group, which is killed as a whole when ctx ends, and it is asked
// to end when the bench dies without a chance to say so. The kernel ties the
// latter to the thread that starts the program: measureAll holds its thread.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// holdThread keeps the caller on one thread until release is called: for
// [command].
func holdThread() (release func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// serve launches argv with its output in dir/NAME.log. It runs until it is stopped,
// and no longer than limit.
func serve(ctx context.Context, limit time.Duration, dir, name string, argv []string) (*servers.Server, error) {
	s := &servers.Server{Name: name, Argv: argv, Dir: dir, Log: filepath.Join(dir, name+".log"), Limit: limit}
	return s, s.Launch(ctx)
}

// members returns the processes of a group and the children of its leader:
// PostgreSQL gives each of its own a group of its own.
func members(group int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One that has ended since the listing belongs to nobody.
		if g, err := syscall.Getpgid(pid); err != nil || g != group && !isChild(pid, group) {
			continue
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func isChild(pid, parent int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	p, err := parseProcess(string(text))
	return err == nil && p.parent == parent
}
