//go:build linux

// Package servers runs real servers beside txlb for tests, the bench and the soak:
// PostgreSQL, Redis, nginx, HAProxy and others. It is not part of the program.
package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Patience is how long a server may take to answer, and to end.
const Patience = time.Minute

// Server is a program with its own process group. It can be killed and started
// again. It belongs to one goroutine at a time.
type Server struct {
	Name  string
	Addr  string // for Probe
	Argv  []string
	Dir   string                  // where it runs
	Log   string                  // file; each start appends to it
	User  *syscall.Credential     // nil: as this process
	End   syscall.Signal          // asks it to end; 0: Stop kills it
	Limit time.Duration           // it is stopped after that; 0: never
	Probe func(addr string) error // nil once it answers

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd is gone
}

// New returns a server with a new folder parent/name, which belongs to the user. It
// takes connections when it is ready.
func New(parent, name, addr string, as *syscall.Credential) (*Server, error) {
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	return &Server{Name: name, Addr: addr, Dir: dir, Log: filepath.Join(dir, "log"), User: as, Probe: Connects}, nil
}

// Start launches the server and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	if err := s.Launch(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return s.Await(ctx, func() error { return s.Probe(s.Addr) })
}

// Launch starts the server and does not wait. The server is stopped when ctx ends.
//
// The kernel ends it when the thread that has launched it dies, so that it cannot
// outlive this process.
func (s *Server) Launch(ctx context.Context) error {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	orphaned := s.End
	if orphaned == 0 {
		orphaned = syscall.SIGKILL
	}
	// Ctrl-C must reach this process alone: it decides who ends when.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned, Credential: s.User}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	cancel := func() {}
	if s.Limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Limit)
	}
	forget := context.AfterFunc(ctx, func() { stop(cmd, s.End, ended) })
	go func() {
		_ = cmd.Wait() // how it ended says nothing: most are killed
		close(ended)
		forget()
		cancel()
	}()
	return nil
}

// Await calls probe until it returns nil. It gives up when the server ends, ctx
// ends or [Patience] is over.
func (s *Server) Await(ctx context.Context, probe func() error) error {
	within, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe()
		if err == nil {
			return s.Alive()
		}
		select {
		case <-s.ended:
			return s.Alive()
		case <-within.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s does not answer: %w\n%s", s.Name, err, s.LastWords())
		case <-tick.C:
		}
	}
}

// Running tells whether the server has been launched and has not ended.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Alive returns an error with the last words of a server that does not run.
func (s *Server) Alive() error {
	if s.Running() {
		return nil
	}
	return fmt.Errorf("%s has ended: %s", s.Name, s.LastWords())
}

// Group returns the process group of the server, which is its process ID.
func (s *Server) Group() int { return s.cmd.Process.Pid }

// Kill kills the server as it is. When it returns, the kernel has closed every
// socket of the server: connects to it are refused.
func (s *Server) Kill() {
	if s.Running() {
		stop(s.cmd, 0, s.ended)
	}
}

// Freeze stops the server where it is. The kernel still takes connections for it,
// which wait in the queue; when the server is killed, they are reset before it has
// seen them.
func (s *Server) Freeze() error {
	if err := s.Alive(); err != nil {
		return err
	}
	if err := syscall.Kill(-s.Group(), syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop %s: %w", s.Name, err)
	}
	return nil
}

// Thaw lets a server go on that Freeze has stopped.
func (s *Server) Thaw() error {
	if err := syscall.Kill(-s.Group(), syscall.SIGCONT); err != nil {
		return fmt.Errorf("continue %s: %w", s.Name, err)
	}
	return nil
}

// Stop ends the server if it runs, and returns when it has ended.
func (s *Server) Stop() {
	if s.Running() {
		stop(s.cmd, s.End, s.ended)
	}
}

// stop asks a process to end by a signal, then kills its group. Without a signal it
// kills at once.
func stop(cmd *exec.Cmd, by syscall.Signal, ended <-chan struct{}) {
	if by != 0 {
		_ = cmd.Process.Signal(by) // it may end this moment
		select {
		case <-ended:
			return
		case <-time.After(Patience):
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-ended
}

// LastWords returns the end of the server's log.
func (s *Server) LastWords() string {
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	const most = 1000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// Test is what RunFor and Other want of a testing.TB.
type Test interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Failed() bool
	Fatal(...any)
	Logf(string, ...any)
}

// RunFor starts the server for a test and kills it at its end. A test that fails
// logs what the server has said.
func (s *Server) RunFor(t Test) {
	t.Helper()
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", s.Name, s.LastWords())
		}
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Connects is the probe of servers that accept as soon as they can serve.
func Connects(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Apart returns a folder for servers that refuse to be root, which ends with the test, and
// whom they run as.
func Apart(t Test) (dir string, as *syscall.Credential) {
	t.Helper()
	as, err := Unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	dir, err = os.MkdirTemp("", "apart") // that of the test is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, as
}

// Unprivileged returns whom servers run as that refuse to be root: nobody if this
// process is root; nil, the same user, otherwise.
func Unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("whom to run servers as: %w", err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(nobody.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("user nobody: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Call runs a program to its end and returns what it wrote. It is killed with
// everything it has started when ctx ends.
func Call(ctx context.Context, dir string, as *syscall.Credential, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, Tail(string(out)))
	}
	return string(out), err
}

// Tail makes one line of the end of what a program wrote.
func Tail(out string) string {
	const most = 300
	line := strings.Join(strings.Fields(out), " ")
	if len(line) > most {
		line = "..." + line[len(line)-most:]
	}
	return line
}
