//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

const patience = testkit.Patience

var eventually = testkit.Eventually

// inherited is the program under test if this is a test in a sandbox that has been given one.
var inherited = os.Getenv(programVariable)

// binary is the program under test, built once, without the race detector: its
// memory and speed are looked at. portable is the one with the portable engine.
var (
	binary = sync.OnceValues(func() (string, error) {
		if inherited != "" {
			return inherited, nil
		}
		return build("txlb")
	})
	portable = sync.OnceValues(func() (string, error) { return build("portable", "-tags", "portable") })
)

// programs is a folder for what is built, which TestMain removes.
var programs string

func build(name string, flags ...string) (string, error) {
	path := filepath.Join(programs, name)
	if out, err := exec.Command("go", append(append([]string{"build", "-ldflags=-w"}, flags...), "-o", path, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// Tests that run at once wait most of the time, so more of them than there are
// processors do.
func TestMain(m *testing.M) {
	if order := os.Getenv(mischiefVariable); order != "" {
		os.Exit(mischievous(order))
	}
	_ = flag.Set("test.parallel", "4")
	var err error
	if programs, err = os.MkdirTemp("", "txlb-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// process is a program that a test runs.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // of Wait, once done is closed
}

// output keeps what a program writes and lets a test wait for a line.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // replaced at each write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.more)
	o.more = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// forget drops what was written so far.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Reset()
}

// run starts a program, which is killed at the end of the test.
func run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return start(t, exec.Command(name, args...))
}

// start is run for a command that is made already, as another user say.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: &output{more: make(chan struct{})}, done: make(chan struct{})}
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = p.out
	}
	p.cmd.Stdout = p.out
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p.out)
		}
	})
	return p
}

// expect waits until the program has written what matches, and returns the
// first submatch.
func (p *process) expect(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		p.out.mu.Lock()
		text, more := p.out.text.String(), p.out.more
		p.out.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-more:
		case <-p.done:
			if !re.MatchString(p.out.String()) {
				p.t.Fatalf("the program ended (%v) without %q", p.err, pattern)
			}
		case <-timeout:
			p.t.Fatalf("no %q within %v", pattern, patience)
		}
	}
}

// wait waits for the end and returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(2 * patience):
		p.t.Fatal("the program does not end")
		return -1
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

// write writes a configuration and returns its path.
func write(t *testing.T, doc string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.xml")
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// txlb runs a configuration and waits until it is ready.
func txlb(t *testing.T, doc string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, path, "run", "-c", write(t, doc))
	p.expect("msg=ready")
	return p
}

// addr returns where the n-th listener of a service is bound.
func (p *process) addr(service string, n int) string {
	p.t.Helper()
	re := regexp.MustCompile(`msg=listening service=` + service + ` addr=(\S+)`)
	all := re.FindAllStringSubmatch(p.out.String(), -1)
	if len(all) <= n {
		p.t.Fatalf("service %s has %d listeners", service, len(all))
	}
	return strings.Trim(all[n][1], `"`)
}

// call runs txlb to its end.
func call(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	text, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(text)
}

// freePort is servers.FreePort for a test.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// listenFree listens on a free port that no outgoing connection gets when the
// listener is closed. Another program may take a port that has just been free.
func listenFree(t *testing.T) net.Listener {
	t.Helper()
	var err error
	for range 20 {
		var ln net.Listener
		if ln, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", freePort(t))); err == nil {
			return ln
		}
	}
	t.Fatal(err)
	return nil
}

// nginx makes an nginx on a port, with a folder of pages.
func nginx(t *testing.T, name string, port int) *servers.Server {
	t.Helper()
	s, err := servers.New(t.TempDir(), name, fmt.Sprintf("127.0.0.1:%d", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	for file, body := range map[string][]byte{"index.html": []byte(name), "18k": bytes.Repeat([]byte("x"), 18<<10)} {
		if err := os.WriteFile(filepath.Join(s.Dir, file), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Nginx(fmt.Sprintf("server { listen %s backlog=1024; root %s; }", s.Addr, s.Dir)); err != nil {
		t.Fatal(err)
	}
	s.RunFor(t)
	return s
}

// get fetches a page over a connection of its own.
func get(url string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// metric returns a sample, -1 if it is not there.
func metric(t *testing.T, addr, sample string) float64 {
	t.Helper()
	body, err := get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, sample+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return -1
}

// statusField returns a field of /proc/PID/status in KiB.
func statusField(t *testing.T, pid int, field string) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if value, ok := strings.CutPrefix(sc.Text(), field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in the status of process %d", field, pid)
	return 0
}

// answering is server on a port that no outgoing connection gets when it is closed.
func answering(t *testing.T, talk func(net.Conn)) (address string) {
	t.Helper()
	return serveOn(t, listenFree(t), talk)
}

// repeat sends back what comes.
func repeat(c net.Conn) { _, _ = io.Copy(c, c) }
