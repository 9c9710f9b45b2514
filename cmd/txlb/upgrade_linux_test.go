package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	"time"
)

// lineage is a program and those that have taken over from it, each the child of the test.
type lineage struct {
	t       *testing.T
	program string // a link that an upgrade follows
	file    string // configuration
	socket  string // of txlb ctl
	logFile string
	pid     int // of the one that serves
	pids    []int
	read    int // how much of the log expect has gone through
	ready   int // how many have said so
}

// newLineage starts a configuration, which gets a socket in its <admin>. env is added to the
// environment.
func newLineage(t *testing.T, services, admin string, env ...string) *lineage {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := socketFolder(t)
	l := &lineage{t: t, program: filepath.Join(dir, "txlb"), socket: filepath.Join(dir, "admin.sock"), logFile: filepath.Join(dir, "log")}
	l.install(path)
	l.file = write(t, fmt.Sprintf("<config>%s<admin><socket path=%q/>%s</admin></config>", services, l.socket, admin))
	log, err := os.Create(l.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(l.program, "run", "-c", l.file)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.follows(cmd.Process.Pid)
	t.Cleanup(func() {
		l.learnPIDs()
		for _, pid := range l.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			reap(pid)
		}
		if t.Failed() {
			t.Logf("the programs said:\n%s", l.log())
		}
	})
	l.expect("msg=ready")
	l.ready = 1
	return l
}

// reap waits for the end of a child.
func reap(pid int) (status syscall.WaitStatus) {
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			return status
		}
	}
}

func (l *lineage) follows(pid int) {
	l.pid = pid
	l.pids = append(l.pids, pid)
}

// learnPIDs finds those that the log tells of and the test has not seen.
func (l *lineage) learnPIDs() {
	known := map[int]bool{}
	for _, pid := range l.pids {
		known[pid] = true
	}
	for _, m := range regexp.MustCompile(`msg="handed over" pid=(\d+)`).FindAllStringSubmatch(l.log(), -1) {
		if pid, _ := strconv.Atoi(m[1]); !known[pid] {
			l.pids = append(l.pids, pid)
		}
	}
}

// install makes the program another one, at its path.
func (l *lineage) install(to string) {
	l.t.Helper()
	if err := os.Symlink(to, l.program+".new"); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(l.program+".new", l.program); err != nil {
		l.t.Fatal(err)
	}
}

// script installs a shell script.
func (l *lineage) script(text string) {
	l.t.Helper()
	l.install(executable(l.t, "#!/bin/sh\n"+text+"\n"))
}

// executable writes a program. It can be started at once: no process that is being started by
// another test has the descriptor that writes it (ETXTBSY).
func executable(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "program")
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func (l *lineage) log() string {
	text, err := os.ReadFile(l.logFile)
	if err != nil {
		l.t.Error(err)
	}
	return string(text)
}

// expect waits for what comes in the log behind what was expected before, and returns the
// last submatch.
func (l *lineage) expect(pattern string) string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	var found string
	eventually(l.t, "the log has "+pattern, func() bool {
		text := l.log()[l.read:]
		m := re.FindStringSubmatchIndex(text)
		if m == nil {
			return false
		}
		found = text[m[len(m)-2]:m[len(m)-1]]
		l.read += m[1]
		return true
	})
	return found
}

// ctl runs a command of the socket.
func (l *lineage) ctl(words ...string) (status int, out string) {
	l.t.Helper()
	return call(l.t, append([]string{"ctl", "--yes", "-s", l.socket}, words...)...)
}

var takenOver = regexp.MustCompile(`process (\d+) \(version \S+\) has taken over`)

// upgrade does one by txlb ctl, and waits for the end of the old process.
func (l *lineage) upgrade() {
	l.t.Helper()
	status, out := l.ctl("upgrade")
	m := takenOver.FindStringSubmatch(out)
	if status != 0 || m == nil {
		l.t.Fatalf("upgrade: status %d: %s", status, out)
	}
	pid, _ := strconv.Atoi(m[1])
	l.follows(pid)
	l.ready++
	eventually(l.t, "the new process is ready", func() bool { return strings.Count(l.log(), "msg=ready ") == l.ready })
}

// ends waits for the end of a process of the line.
func (l *lineage) ends(pid int) {
	l.t.Helper()
	done := make(chan syscall.WaitStatus, 1)
	go func() { done <- reap(pid) }()
	select {
	case status := <-done:
		if status.ExitStatus() != 0 {
			l.t.Errorf("process %d ended with %v", pid, status)
		}
	case <-time.After(3 * patience):
		l.t.Fatalf("process %d does not end", pid)
	}
	for i, one := range l.pids {
		if one == pid {
			l.pids = append(l.pids[:i], l.pids[i+1:]...)
			return
		}
	}
}

// first returns what the first process has said, a submatch.
func (l *lineage) first(pattern string) string {
	l.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(l.log())
	if m == nil {
		l.t.Fatalf("no %q in the log", pattern)
	}
	return strings.Trim(m[1], `"`)
}

// addr returns where the first TCP listener of a service is.
func (l *lineage) addr(service string) string {
	l.t.Helper()
	return l.first(`msg=listening service=` + service + ` addr=(\d\S+)`)
}

// visitors are clients that connect all the time, each to one address with many connections one after the
// other, and ask something each time.
type visitors struct {
	t       *testing.T
	stop    context.CancelFunc
	running sync.WaitGroup
	asked   atomic.Int64
	failed  atomic.Int64
}

func newVisitors(t *testing.T) (*visitors, context.Context) {
	ctx, stop := context.WithCancel(t.Context())
	c := &visitors{t: t, stop: stop}
	t.Cleanup(c.end)
	return c, ctx
}

// add begins n clients, each of which repeats ask, with a pause.
func (c *visitors) add(ctx context.Context, n int, name string, pause time.Duration, ask func() error) {
	for range n {
		c.running.Go(func() {
			for ctx.Err() == nil {
				if err := ask(); err != nil && ctx.Err() == nil {
					c.failed.Add(1)
					c.t.Errorf("%s: %v", name, err)
					return
				}
				c.asked.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
}

// polite is the pause of clients of admin interfaces, which limit the rate of strangers.
const polite = 50 * time.Millisecond

// end ends the clients and waits for that.
func (c *visitors) end() {
	c.stop()
	c.running.Wait()
}

// more waits until the clients have asked some times more.
func (c *visitors) more(n int64) {
	c.t.Helper()
	from := c.asked.Load()
	eventually(c.t, "clients are served", func() bool { return c.asked.Load() >= from+n || c.failed.Load() > 0 })
	if c.failed.Load() > 0 {
		c.t.FailNow()
	}
}

// short asks over a connection of its own.
func short(network, address string) error {
	c, err := net.DialTimeout(network, address, 2*patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return ask(c, "hello")
}

// Under load, a line of upgrades refuses and resets no connection: not of a service with
// several loops, not of a UNIX listener, not of the admin interfaces.
func TestB55UpgradesUnderLoad(t *testing.T) {
	t.Parallel()
	host := backend(t, echo)
	dir := socketFolder(t)
	services := fmt.Sprintf(`<engine loops="3"/><control socket=%q/>
<service name="web"><listen ip="127.0.0.1:0"/><listen ip=%q/><group name="main"><host name="a" ip=%q/></group></service>`,
		filepath.Join(dir, "control"), "unix:"+filepath.Join(dir, "web"), host)
	l := newLineage(t, services, `<metrics listen="127.0.0.1:0"/><web listen="127.0.0.1:0" secure="no"/>`+operator)
	page := "http://" + l.first(`msg="admin listening" part=web addr=(\S+)`)
	metrics := "http://" + l.first(`msg="admin listening" part=metrics addr=(\S+)`)
	address := l.addr("web")
	load, ctx := newVisitors(t)
	load.add(ctx, 4, "tcp", 0, func() error { return short("tcp", address) })
	load.add(ctx, 2, "unix", 0, func() error { return short("unix", filepath.Join(dir, "web")) })
	fetch := func(url, want string) func() error {
		return func() error {
			body, err := get(url)
			if err == nil && !strings.Contains(body, want) {
				err = fmt.Errorf("got %q", body)
			}
			return err
		}
	}
	load.add(ctx, 1, "page", polite, fetch(page+"/healthz", "ok"))
	load.add(ctx, 1, "metrics", polite, fetch(metrics+"/metrics", "txlb_sessions_total"))
	load.add(ctx, 1, "admin socket", polite, func() error { return says(l.socket, "show info", "Name: txlb") })
	load.add(ctx, 1, "control socket", polite, func() error {
		return says(filepath.Join(dir, "control"), "GetClientAddress 127.0.0.1:1", "error UNKNOWN_PORT")
	})
	load.more(50)
	for range 5 {
		before := l.pid
		l.upgrade()
		load.more(50)
		l.ends(before)
	}
	load.end()
	if status, out := l.ctl("show", "services"); status != 0 || !strings.Contains(out, "web") {
		t.Errorf("status %d: %s", status, out)
	}
	t.Logf("%d connections", load.asked.Load())
}

// says sends a line to a socket and wants something in the first line of the answer.
func says(path, line, want string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	text, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.Contains(text, want) {
		err = fmt.Errorf("%s: %q", line, text)
	}
	return err
}

// An upgrade that fails changes nothing: the old process serves on, with all its listeners,
// sessions and unsaved changes, and says why. The next one succeeds.
func TestB56TheOldProcessGoesOn(t *testing.T) {
	t.Parallel()
	host := backend(t, echo)
	services := fmt.Sprintf(`<engine loops="2"/><service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip=%q/></group></service>`, host)
	l := newLineage(t, services, `<web listen="127.0.0.1:0" secure="no"/>`+operator)
	page := "http://" + l.first(`msg="admin listening" part=web addr=(\S+)`)
	address := l.addr("web")
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	session, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	if status, out := l.ctl("setHost web main a weight=7"); status != 0 {
		t.Fatal(out)
	}
	load, ctx := newVisitors(t)
	load.add(ctx, 2, "tcp", 0, func() error { return short("tcp", address) })
	load.add(ctx, 1, "page", polite, func() error {
		_, err := get(page + "/healthz")
		return err
	})
	for _, c := range []struct{ name, script, want string }{
		{"missing", "", "cannot start .*: no such file or directory"},
		{"not a program", "\x7fELF", "cannot start .*: exec format error"},
		{"exits", "exit 3", `the new process \d+ has ended; what it said is in the log`},
		{"an older version, which takes it for a start", "exec env -u TXLB_HANDOVER " + program + ` "$@" 3<&-`, `the new process \d+ has ended`},
		{"too few descriptors", "ulimit -n 16; exec " + program + ` "$@"`, `the new process \d+: .*(too many open files|limit of open files)`},
	} {
		switch c.script {
		case "":
			l.install(filepath.Join(t.TempDir(), "none"))
		case "\x7fELF":
			l.install(executable(t, "\x7fELF nothing"))
		default:
			l.script(c.script)
		}
		status, out := l.ctl("upgrade")
		if status == 0 || !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%s: status %d, %q, want %q", c.name, status, out, c.want)
		}
		l.expect(`level=ERROR msg="upgrade failed, going on".*\n`)
		load.more(20)
		if err := ask(session, "still there"); err != nil {
			t.Errorf("%s: the session that was there: %v", c.name, err)
		}
	}
	l.install(program)
	l.upgrade()
	load.more(20)
	load.end()
	if _, out := l.ctl("show diff"); !strings.Contains(out, "weight=7") {
		t.Errorf("the change that was not saved: %s", out)
	}
	if _, out := l.ctl("show events"); !strings.Contains(out, "upgrade") {
		t.Errorf("the upgrade is no event: %s", out)
	}
}

// SIGUSR2 at once after ready is an upgrade, and two of them are one. A reload meanwhile is
// done before or refused with the reason.
func TestB55BySignalAndReload(t *testing.T) {
	t.Parallel()
	host := backend(t, echo)
	l := newLineage(t, fmt.Sprintf(`<service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip=%q/></group></service>`, host), "")
	before := l.pid
	for range 2 {
		if err := syscall.Kill(before, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	}
	// A machine that stops for a second here may let the old process end with the connection.
	if status, out := l.ctl("reload"); status != 0 && !strings.Contains(out, errUpgrading.Error()) && !strings.Contains(l.log(), `msg="handed over"`) {
		t.Errorf("a reload: status %d: %s", status, out)
	}
	pid, err := strconv.Atoi(l.expect(`msg="handed over" pid=(\d+)`))
	if err != nil {
		t.Fatal(err)
	}
	l.follows(pid)
	l.ends(before)
	eventually(t, "the new process is ready", func() bool { return strings.Count(l.log(), "msg=ready ") == 2 })
	if err := short("tcp", l.addr("web")); err != nil {
		t.Error(err)
	}
	if status, out := l.ctl("reload"); status != 0 {
		t.Errorf("a reload: status %d: %s", status, out)
	}
	if n := strings.Count(l.log(), `msg="handed over"`); n != 1 {
		t.Errorf("%d upgrades", n)
	}
}
