//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
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

// server is a running program with everything it has forked.
type server struct {
	name   string
	log    string // file with what it wrote
	group  int    // process group, which is the leader's process number
	cancel context.CancelFunc
	ended  chan struct{} // closed when the leader is gone
}

// serve starts argv with its output in dir/NAME.log. It runs until stop is
// called, and no longer than limit. Each of settle may change how it runs.
func serve(ctx context.Context, limit time.Duration, dir, name string, argv []string, settle ...func(*exec.Cmd)) (*server, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, limit)
	cmd := command(ctx, argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	for _, f := range settle {
		f(cmd)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &server{name: name, log: log.Name(), group: cmd.Process.Pid, cancel: cancel, ended: make(chan struct{})}
	go s.reap(cmd)
	return s, nil
}

func (s *server) reap(cmd *exec.Cmd) {
	defer close(s.ended)
	// Killing is how a server ends here, so its status says nothing; whether
	// it ended too early is asked of ended.
	_ = cmd.Wait()
}

// stop kills the group and waits until its leader is gone.
func (s *server) stop() {
	s.cancel()
	<-s.ended
}

// alive returns an error with the last words of a server that has ended.
func (s *server) alive() error {
	select {
	case <-s.ended:
	default:
		return nil
	}
	words, err := os.ReadFile(s.log)
	if err != nil {
		return fmt.Errorf("%s has ended", s.name)
	}
	const most = 600
	words = words[max(0, len(words)-most):]
	return fmt.Errorf("%s has ended: %s", s.name, strings.TrimSpace(string(words)))
}

// await calls probe until it succeeds. It gives up when the server ends or
// has not answered for 5 seconds.
func (s *server) await(ctx context.Context, probe func() error) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := probe()
		if err == nil {
			return s.alive()
		}
		pause := time.NewTimer(5 * time.Millisecond)
		select {
		case <-s.ended:
			pause.Stop()
			return s.alive()
		case <-ctx.Done():
			pause.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%s does not answer: %w", s.name, err)
			}
			return ctx.Err()
		case <-pause.C:
		}
	}
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
