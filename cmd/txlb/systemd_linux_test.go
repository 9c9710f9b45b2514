package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// manager takes what a program tells its service manager.
type manager struct {
	*process // its expect waits for messages
	socket   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{&process{t: t, out: &output{more: make(chan struct{})}, done: make(chan struct{})}, filepath.Join(socketFolder(t), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var reads sync.WaitGroup
	reads.Go(func() {
		for buf := make([]byte, 8192); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(m.out, "%s\n--\n", buf[:n])
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		reads.Wait()
		if t.Failed() {
			t.Logf("the service manager was told:\n%s", m.out)
		}
	})
	return m
}

// run runs a configuration as a service, and returns it with its file.
func (m *manager) run(doc string, env ...string) (p *process, file string) {
	m.t.Helper()
	path, err := binary()
	if err != nil {
		m.t.Fatal(err)
	}
	file = write(m.t, doc)
	cmd := exec.Command(path, "run", "-c", file)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+m.socket), env...)
	p = start(m.t, cmd)
	p.expect("msg=ready")
	return p, file
}

func rewrite(t *testing.T, file, doc string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A service manager is told when clients are served, of figures and problems, of a reload and
// its failure, of the end, and that it takes longer.
func TestB54WhatSystemdIsTold(t *testing.T) {
	t.Parallel()
	host := backend(t, echo)
	doc := `<config><engine drain="1h"/><service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip="` + host + `"%s/></group></service></config>`
	m := newManager(t)
	p, file := m.run(fmt.Sprintf(doc, ""))
	m.expect(`^READY=1\nSTATUS=1 service, 1 of 1 host up, 0 sessions, 0 new/s\n--`)
	c, err := net.Dial("tcp", p.addr("web", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := ask(c, "hello"); err != nil {
		t.Fatal(err)
	}
	m.expect(`\nSTATUS=1 service, 1 of 1 host up, 1 session, `)

	m.out.forget()
	rewrite(t, file, fmt.Sprintf(doc, ` weight="2"`))
	p.signal(syscall.SIGHUP)
	m.expect(`RELOADING=1\nMONOTONIC_USEC=\d+\n--\n(?s:.*)READY=1\nSTATUS=[^;]*\n--`)
	m.out.forget()
	rewrite(t, file, "<oops>")
	p.signal(syscall.SIGHUP)
	m.expect(`RELOADING=1\nMONOTONIC_USEC=\d+\n--\n(?s:.*)READY=1\nSTATUS=.*; The last reload failed`)

	m.out.forget()
	p.signal(syscall.SIGTERM)
	m.expect(`STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\n--`)
	m.expect(`\nSTATUS=.*1 session.*txlb is draining`)
	m.expect(`--\nEXTEND_TIMEOUT_USEC=20000000\n--`) // again, for as long as it takes
	_ = c.Close()
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if strings.Contains(m.out.String(), "WATCHDOG") {
		t.Error("a watchdog is fed that was not asked for")
	}
}

// During the grace after SIGTERM clients are served and /readyz says 503. Then the listeners
// close. A second SIGTERM ends it.
func TestB54Grace(t *testing.T) {
	t.Parallel()
	host := backend(t, echo)
	doc := `<config><engine grace="%s"/>` + group("", host) + `<admin><web listen="127.0.0.1:0" secure="no"/>` + operator + `</admin></config>`
	ready := func(p *process) int {
		status, _, err := visit("127.0.0.1", "http", p.pageOf(0), "/readyz")
		if err != nil {
			t.Error(err)
		}
		return status
	}
	m := newManager(t)
	p, _ := m.run(fmt.Sprintf(doc, "1h"))
	if status := ready(p); status != http.StatusOK {
		t.Errorf("readyz: %d", status)
	}
	p.signal(syscall.SIGTERM)
	p.expect("still accepted")
	if status := ready(p); status != http.StatusServiceUnavailable {
		t.Errorf("readyz in the grace: %d", status)
	}
	c, err := net.Dial("tcp", p.addr("web", 0))
	if err == nil {
		err = ask(c, "hello")
		_ = c.Close()
	}
	if err != nil {
		t.Errorf("a client in the grace: %v", err)
	}
	m.expect(`STATUS=.*it accepts new clients until`)
	p.signal(syscall.SIGTERM)
	p.wait()
	if status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("the second signal: %v", p.cmd.ProcessState)
	}

	p, _ = m.run(fmt.Sprintf(doc, "100ms"))
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// A crash, such as that by which the watchdog ends the program, is no wrong configuration: it
// does not exit with status 2, after which systemd would not start it again.
func TestCrashIsNoConfigurationError(t *testing.T) {
	t.Parallel()
	p := txlb(t, `<config><service name="web"><listen ip="127.0.0.1:0"/></service></config>`)
	p.signal(syscall.SIGABRT)
	p.wait()
	if status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGABRT {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	if !strings.Contains(p.out.String(), "goroutine") {
		t.Error("it has not written its stacks")
	}
}

// The watchdog is fed while everything answers.
func TestWatchdogIsFed(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p, _ := m.run(`<config><service name="web"><listen ip="127.0.0.1:0"/></service></config>`, "WATCHDOG_USEC=400000")
	m.expect(`(?s:(WATCHDOG=1\n--\n.*){5})`)
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// The watchdog gets nothing from the time on at which something does not answer, and is fed
// again when it does.
func TestFeed(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		stuck := make(chan struct{})
		var pats atomic.Int32
		var mu sync.Mutex
		go feed(ctx, 8*time.Second, func() {
			mu.Lock()
			wait := stuck
			mu.Unlock()
			<-wait
		}, func() { pats.Add(1) })
		fed := func(d time.Duration) int {
			before := pats.Load()
			time.Sleep(d)
			synctest.Wait()
			return int(pats.Load() - before)
		}
		if n := fed(time.Minute); n != 0 {
			t.Errorf("fed %d times without an answer", n)
		}
		close(stuck)
		if n := fed(40 * time.Second); n < 19 || n > 23 {
			t.Errorf("fed %d times in 40 s, want one each 2 s", n)
		}
		mu.Lock()
		stuck = make(chan struct{})
		mu.Unlock()
		if n := fed(time.Minute); n > 1 {
			t.Errorf("fed %d times without an answer", n)
		}
		close(stuck)
		stop()
		synctest.Wait()
	})
}

// What feeds the watchdog waits for every loop and for the director.
func TestStuckLoopOrDirectorIsNotAlive(t *testing.T) {
	eng, err := native.New(engine.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = eng.Close() }()
	cfg, problems := config.Parse("", []byte(`<config>`+group("", backend(t, echo))+`</config>`))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	dir, err := director.New(cfg, eng, director.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = dir.Run(ctx) })
	defer running.Wait()
	defer stop()
	c, err := net.Dial("tcp", eng.Listeners()[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := ask(c, "hello"); err != nil {
		t.Fatal(err)
	}
	alive := responding(eng, dir)
	alive()
	for what, hold := range map[string]func(entered chan<- struct{}, until <-chan struct{}){
		"loop": func(entered chan<- struct{}, until <-chan struct{}) {
			eng.Sessions(0, func(string, *sched.Host) bool {
				entered <- struct{}{}
				<-until
				return false
			})
		},
		"director": func(entered chan<- struct{}, until <-chan struct{}) {
			_, _ = dir.Do(ctx, director.Change{DryRun: true, Apply: func(*config.Config) error {
				entered <- struct{}{}
				<-until
				return nil
			}})
		},
	} {
		entered, until, answered := make(chan struct{}, 16), make(chan struct{}), make(chan struct{})
		running.Go(func() { hold(entered, until) })
		<-entered
		go func() {
			alive()
			close(answered)
		}()
		select {
		case <-answered:
			t.Errorf("all is well, although the %s hangs", what)
		case <-time.After(200 * time.Millisecond):
		}
		close(until)
		select {
		case <-answered:
		case <-time.After(patience):
			t.Errorf("nothing answers after the %s has hung", what)
		}
	}
}

// `txlb reload` succeeds and fails as the reload does, with the reason.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := socketFolder(t)
	const doc = `<config><service name="web"><listen ip="127.0.0.1:0"/>%s<group name="g"><host ip="127.0.0.1:1"/></group></service></config>`
	m := newManager(t)
	p, file := m.run(fmt.Sprintf(doc, ""), "RUNTIME_DIRECTORY="+dir)
	reload := func(env string, args ...string) (int, string) {
		cmd := exec.Command(path, append([]string{"reload", "-c", file}, args...)...)
		cmd.Env = append(os.Environ(), env)
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	pid := strconv.Itoa(p.cmd.Process.Pid)
	taken := listenFree(t)
	defer func() { _ = taken.Close() }()
	for _, test := range []struct {
		doc, pid, env string
		status        int
		says          string
	}{
		{"", pid, "", exitOK, `^$`},
		{`<listen ip="127.0.0.2:0"/>`, pid, "", exitOK, `^$`},
		{`<listen ip="` + taken.Addr().String() + `"/>`, pid, "", exitFailed, `^txlb: reload failed, keeping the current configuration: .*the address is in use by another process`},
		{`<lisen ip="127.0.0.1:0"/>`, pid, "", exitUsage, `config.xml:1: .*"?listen`},
		{"", "none", "", exitUsage, `"none" is not the number of a process`},
		{"", pid, "RUNTIME_DIRECTORY=", exitFailed, `RUNTIME_DIRECTORY`},
	} {
		rewrite(t, file, fmt.Sprintf(doc, test.doc))
		if test.env == "" {
			test.env = "RUNTIME_DIRECTORY=" + dir
		}
		status, says := reload(test.env, test.pid)
		if status != test.status || !regexp.MustCompile(test.says).MatchString(says) {
			t.Errorf("reload %s of %q: %d %q, want %d %s", test.pid, test.doc, status, says, test.status, test.says)
		}
	}
}

// activated starts the program with sockets as systemd passes them.
func activated(t *testing.T, doc string, sockets ...*os.File) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=$0 exec "$@"`, strconv.Itoa(len(sockets)), path, "run", "-c", write(t, doc))
	cmd.ExtraFiles = sockets
	return start(t, cmd)
}

// With a socket that is held, the program is ended and started again while clients come as fast
// as they can. None is refused or reset.
func TestB54RestartWithHeldSocket(t *testing.T) {
	t.Parallel()
	var how net.ListenConfig
	how.SetMultipathTCP(false) // Go's default
	held, err := how.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	file, err := held.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	doc := `<config><service name="web"><listen ip="` + held.Addr().String() + `"/><group name="main"><host name="a" ip="` + backend(t, echo) + `"/></group></service></config>`
	served := load(t, func() (net.Conn, error) { return net.DialTimeout("tcp", held.Addr().String(), patience) })
	for range 3 {
		p := activated(t, doc, file)
		p.expect("msg=ready")
		served.more(20)
		p.signal(syscall.SIGTERM)
		if status := p.wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	activated(t, doc, file).expect("msg=ready")
	served.end()
}

// clients are some that come one after the other.
type clients struct {
	t    *testing.T
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	served int
}

// load runs clients until end, which say hello and want an echo. Each failure is an error of
// the test.
func load(t *testing.T, dial func() (net.Conn, error)) *clients {
	ctx, stop := context.WithCancel(t.Context())
	l := &clients{t: t, stop: stop}
	for range 4 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				c, err := dial()
				if err == nil {
					err = ask(c, "hello")
					_ = c.Close()
				}
				if err != nil {
					t.Errorf("a client: %v", err)
					return
				}
				l.mu.Lock()
				l.served++
				l.mu.Unlock()
			}
		})
	}
	return l
}

// more waits until n further clients have been served.
func (l *clients) more(n int) {
	l.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.served
	}
	was := count()
	eventually(l.t, "clients are served", func() bool { return l.t.Failed() || count() >= was+n })
}

func (l *clients) end() {
	l.stop()
	l.wg.Wait()
}

// unit is a systemd unit for a program.
func unit(t *testing.T, name, program string) string {
	t.Helper()
	text, err := os.ReadFile("../../etc/systemd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "/usr/local/bin/txlb", program)
}

// systemd accepts the units, and the services are confined.
func TestUnits(t *testing.T) {
	t.Parallel()
	debian.NeedFor(t, "systemd-analyze")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	socket, err := os.ReadFile("../../etc/systemd/txlb.socket")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	// Each service has a table of its own.
	_, confinement, _ := strings.Cut(string(docs), "\n## Confinement\n")
	confinement, _, _ = strings.Cut(confinement, "\n## ")
	ofService, ofKeeper, _ := strings.Cut(confinement, "\n### The keeper\n")
	services := []struct {
		name      string
		most      float64
		explained string
	}{
		{"txlb.service", 1.7, ofService},
		{"txlb-keeper.service", 0.5, ofKeeper},
	}
	files := []string{filepath.Join(dir, "txlb.socket")}
	rewrite(t, files[0], string(socket)+"[Socket]\nListenStream=80\n")
	for _, service := range services {
		file := filepath.Join(dir, service.name)
		rewrite(t, file, unit(t, service.name, path))
		files = append(files, file)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, service := range services {
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", filepath.Join(dir, service.name)).CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		level := regexp.MustCompile(`exposure level for ` + service.name + `: ([\d.]+)`).FindSubmatch(out)
		if level == nil {
			t.Fatalf("no exposure level in\n%s", out)
		}
		if got, _ := strconv.ParseFloat(string(level[1]), 64); got > service.most {
			t.Errorf("exposure level of %s: %v, want %v at most\n%s", service.name, got, service.most, out)
		}
		// What remains is explained.
		for _, m := range regexp.MustCompile(`(?m)^✗ (\w+)`).FindAllSubmatch(out, -1) {
			if !strings.Contains(service.explained, "`"+string(m[1])+"`") {
				t.Errorf("docs/security.md does not explain what systemd-analyze says of %s in %s", m[1], service.name)
			}
		}
	}
}
