package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/container"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/internal/uring"
)

// installed is a container where txlb is installed as `make install` does it.
type installed struct {
	*container.Machine
	t       *testing.T
	backend string // that echoes, in the container
}

const (
	installedConfig = "etc/txlb/config.xml"
	lowPort         = "127.0.0.1:80" // a low port
)

// binFolder returns a folder with the program, for the PATH of a container.
func binFolder(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "txlb"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

func install(t *testing.T) *installed {
	t.Helper()
	bin := binFolder(t)
	files := map[string]string{
		"etc/txlb/keep": "",
		// The test starts it more often than an operator.
		"etc/systemd/system/txlb.service.d/limit.conf": "[Unit]\nStartLimitIntervalSec=0\n",
	}
	for _, name := range []string{"systemd/txlb.service", "systemd/txlb.socket", "sysusers.d/txlb.conf", "tmpfiles.d/txlb.conf"} {
		text, err := os.ReadFile("../../etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files["etc/"+strings.Replace(name, "systemd/", "systemd/system/", 1)] = string(text)
	}
	m := &installed{Machine: container.Boot(t, container.Root(t, files), bin+":/usr/local/bin"), t: t}
	ln, err := m.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.backend = backendOn(t, ln, echo)
	m.configure("", "", "")
	m.Run("systemd-sysusers")
	m.Run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/txlb.conf")
	return m
}

// configure writes the configuration: attributes of engine and host, and more text.
func (m *installed) configure(engine, host, more string) {
	m.t.Helper()
	doc := fmt.Sprintf(`<config>
  <engine %s/>
  <service name="web">
    <listen ip="%s"/>
    <group name="main"><host name="a" ip="%s" %s/></group>
  </service>
  <admin><socket path="/run/txlb/admin.sock"/></admin>
  %s
</config>
`, engine, lowPort, m.backend, host, more)
	m.write(installedConfig, doc)
}

func (m *installed) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

// override writes a drop-in of a unit and makes systemd read it.
func (m *installed) override(unit, text string) {
	m.t.Helper()
	m.write("etc/systemd/system/"+unit+".d/test.conf", text)
	m.Run("systemctl", "daemon-reload")
}

func (m *installed) dial() (net.Conn, error) { return m.Dial(lowPort) }

// serves tells whether a client is served.
func (m *installed) serves() error {
	c, err := m.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return ask(c, "hello")
}

func (m *installed) mustServe() {
	m.t.Helper()
	if err := m.serves(); err != nil {
		m.t.Errorf("a client: %v", err)
	}
}

// TestInstalled runs the units under systemd itself.
func TestInstalled(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	m := install(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the journal:\n%s", m.Journal("txlb.service"))
		}
	})
	// In this order: each goes on from the state that the one before leaves.
	for _, test := range []struct {
		name string
		do   func(*testing.T, *installed)
	}{
		{"start", installedStart},
		{"reload", installedReload},
		{"typo at the start", installedTypo},
		{"watchdog", installedWatchdog},
		{"B55 upgrades under load", installedUpgrade},
		{"slow drain", installedDrain},
		{"B54 restart under load with txlb.socket", installedSocket},
		{"B54 restart and crash under load with the descriptor store", installedStore},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			m.t = t
			defer func() { m.t = nil }()
			test.do(t, m)
		}) {
			return
		}
	}
}

// installedStart: it serves a low port as a user of its own, tells systemd its figures, uses
// io_uring and pipes, and saves its configuration.
func installedStart(t *testing.T, m *installed) {
	m.Run("systemctl", "start", "txlb")
	m.mustServe()
	eventually(t, "systemctl status has the figures", func() bool {
		return regexp.MustCompile(`^1 service, 1 of 1 host up, \d+ sessions?, \d+ new/s$`).MatchString(m.Show("txlb", "StatusText"))
	})
	process := m.Run("cat", "/proc/"+m.Show("txlb", "MainPID")+"/status")
	const lowPorts = "0000000000000400" // CAP_NET_BIND_SERVICE
	for _, want := range []string{`(?m)^Uid:\s+[1-9]`, `(?m)^CapEff:\s+` + lowPorts + `$`, `(?m)^CapBnd:\s+` + lowPorts + `$`, `(?m)^NoNewPrivs:\s+1$`, `(?m)^Seccomp:\s+2$`} {
		if !regexp.MustCompile(want).MatchString(process) {
			t.Errorf("the process has no %s:\n%s", want, process)
		}
	}
	ctl := func(words ...string) string { return m.Run(append([]string{"txlb", "ctl", "--yes"}, words...)...) }
	status := ctl("status")
	if ring, err := uring.New(false); err == nil {
		ring.Close()
		if !strings.Contains(status, "io_uring in use") {
			t.Errorf("io_uring: %s", status)
		}
	}
	// A fast stream goes through a pipe, whose quota is shown.
	soft, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if pages, _ := strconv.Atoi(strings.TrimSpace(string(soft))); err == nil && pages > 0 && pages < 60_000 {
		if want := fmt.Sprintf("pipes: %d MiB, the kernel's quota", pages>>8); !strings.Contains(status, want) {
			t.Errorf("no %q in %s", want, status)
		}
	}
	m.stream()
	if spliced := regexp.MustCompile(`(?m)^txlb_loop_spliced_bytes_total\{.*\} (\S+)$`).FindAllStringSubmatch(ctl("show metrics"), -1); !moved(spliced) {
		t.Errorf("nothing was spliced: %v", spliced)
	}
	ctl("setHost", "web", "main", "a", "weight=7")
	ctl("saveConfig")
	text, err := os.ReadFile(filepath.Join(m.Root, installedConfig))
	if err != nil || !strings.Contains(string(text), `weight="7"`) {
		t.Errorf("the saved file: %v\n%s", err, text)
	}
	if owner := strings.TrimSpace(m.Run("stat", "-c", "%U:%G %a", "/"+installedConfig)); owner != "txlb:txlb 640" {
		t.Errorf("the saved file belongs to %s", owner)
	}
}

// stream sends a long stream, and takes it back.
func (m *installed) stream() {
	m.t.Helper()
	c, err := m.dial()
	if err != nil {
		m.t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	const size = 64 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, size)
		sent <- err
	}()
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		m.t.Errorf("%d bytes of a stream: %v", n, err)
	}
	if err := <-sent; err != nil {
		m.t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func moved(samples [][]string) bool {
	for _, s := range samples {
		if s[1] != "0" {
			return true
		}
	}
	return false
}

// installedReload: systemctl reload fails if the file is wrong or cannot be followed, and says
// why.
func installedReload(t *testing.T, m *installed) {
	weight := func() string { return m.Run("txlb", "ctl", "show", "hosts") }
	m.configure("", `weight="3"`, "")
	m.Run("systemctl", "reload", "txlb")
	good := weight()
	if !regexp.MustCompile(`\b3\b`).MatchString(good) {
		t.Errorf("the reload has not changed the weight:\n%s", good)
	}
	pid := m.Show("txlb", "MainPID")
	fails := func(reason string) {
		t.Helper()
		if out, status := m.Try("systemctl", "reload", "txlb"); status == 0 {
			t.Errorf("systemctl reload has not failed: %s", out)
		}
		if journal := m.Journal("txlb.service"); !regexp.MustCompile(reason).MatchString(journal) {
			t.Errorf("the journal does not say %s:\n%s", reason, journal)
		}
		if state := m.Show("txlb", "ActiveState"); state != "active" {
			t.Errorf("after the failed reload it is %s", state)
		}
		m.mustServe()
	}
	m.configure("", `wieght="4"`, "")
	fails(`config.xml:5: .*wieght`)
	taken, err := m.Listen("127.0.0.1:81")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	m.configure("", `weight="5"`, `<service name="other"><listen ip="127.0.0.1:81"/><group name="g"><host ip="127.0.0.1:9"/></group></service>`)
	fails(`txlb: reload failed, .*127.0.0.1:81: the address is in use`)
	if now := m.Show("txlb", "MainPID"); now != pid {
		t.Errorf("process %s is now %s", pid, now)
	}
	m.configure("", `weight="6"`, "")
	m.Run("systemctl", "reload", "txlb")
}

// installedTypo: with a wrong file it does not start, and is not started again and again.
func installedTypo(t *testing.T, m *installed) {
	m.Run("systemctl", "stop", "txlb")
	m.configure("", `wieght="4"`, "")
	if out, status := m.Try("systemctl", "start", "txlb"); status == 0 {
		t.Errorf("it starts with a wrong file: %s", out)
	}
	for property, want := range map[string]string{"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "2"} {
		if got := m.Show("txlb", property); got != want {
			t.Errorf("%s=%s, want %s", property, got, want)
		}
	}
	m.configure("", "", "")
	m.Run("systemctl", "start", "txlb")
	m.mustServe()
}

// installedWatchdog: a process that hangs is replaced.
func installedWatchdog(t *testing.T, m *installed) {
	m.override("txlb.service", "[Service]\nWatchdogSec=5s\n")
	m.Run("systemctl", "restart", "txlb")
	pid := m.Show("txlb", "MainPID")
	m.Run("kill", "-STOP", pid)
	m.replaced(pid)
	if journal := m.Journal("txlb.service"); !strings.Contains(journal, "Failed with result 'watchdog'") {
		t.Error("it was not the watchdog")
	}
	m.override("txlb.service", "") // its next bite would disturb
	eventually(t, "clients are served again", func() bool { return m.serves() == nil })
}

// installedUpgrade: systemd sees the new process of an upgrade as the main one. The watchdog is
// fed, a reload reaches it, its crash is noticed at once, and a stop ends it.
func installedUpgrade(t *testing.T, m *installed) {
	m.override("txlb.service", "[Service]\nWatchdogSec=5s\n")
	m.Run("systemctl", "restart", "txlb")
	eventually(t, "clients are served", func() bool { return m.serves() == nil })
	served := load(t, m.dial)
	defer served.end()
	session, err := m.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	restarts := m.Show("txlb", "NRestarts")
	upgraded := func() (pid string) {
		t.Helper()
		before := m.Show("txlb", "MainPID")
		m.Run("txlb", "ctl", "upgrade")
		eventually(t, "systemd knows the new process", func() bool {
			pid = m.Show("txlb", "MainPID")
			return pid != before
		})
		eventually(t, "the old one has ended", func() bool {
			_, status := m.Try("test", "-e", "/proc/"+before)
			return status != 0
		})
		return pid
	}
	for range 2 {
		upgraded()
		served.more(10)
		if err := ask(session, "hello"); err != nil {
			t.Errorf("the session that was there: %v", err)
		}
	}
	pid := m.Show("txlb", "MainPID")
	time.Sleep(8 * time.Second) // the watchdog would have bitten
	m.configure("", `weight="3"`, "")
	m.Run("systemctl", "reload", "txlb")
	for property, want := range map[string]string{"MainPID": pid, "ActiveState": "active", "SubState": "running", "NRestarts": restarts} {
		if got := m.Show("txlb", property); got != want {
			t.Errorf("%s=%s, want %s", property, got, want)
		}
	}
	if journal := m.Journal("txlb.service"); strings.Contains(journal, "reception only permitted for main PID") {
		t.Error("a process that was not the main one has talked to systemd")
	}
	served.more(10)
	served.end()
	m.Run("kill", "-KILL", pid)
	m.replaced(pid)
	eventually(t, "clients are served again", func() bool { return m.serves() == nil })
	upgraded()
	m.Run("systemctl", "stop", "txlb")
	if state, result := m.Show("txlb", "ActiveState"), m.Show("txlb", "Result"); state != "inactive" || result != "success" {
		t.Errorf("after the stop it is %s, with the result %s", state, result)
	}
	m.override("txlb.service", "")
}

// installedDrain: a drain that takes longer than TimeoutStopSec is not cut off.
func installedDrain(t *testing.T, m *installed) {
	m.configure(`drain="1h"`, "", "")
	m.override("txlb.service", "[Service]\nTimeoutStopSec=8s\n")
	m.Run("systemctl", "restart", "txlb")
	c, err := m.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := ask(c, "hello"); err != nil {
		t.Fatal(err)
	}
	m.Run("systemctl", "stop", "--no-block", "txlb")
	eventually(t, "systemd is told that it drains", func() bool {
		return strings.Contains(m.Show("txlb", "StatusText"), "txlb is draining")
	})
	time.Sleep(10 * time.Second) // longer than TimeoutStopSec
	if err := ask(c, "hello"); err != nil {
		t.Errorf("a session is cut: %v", err)
	}
	_ = c.Close()
	eventually(t, "it has ended", func() bool { return m.Show("txlb", "ActiveState") == "inactive" })
	if result := m.Show("txlb", "Result"); result != "success" {
		t.Errorf("result %s", result)
	}
}

// installedSocket: with txlb.socket no client is refused by a restart that has to wait for
// sessions.
func installedSocket(t *testing.T, m *installed) {
	m.override("txlb.service", "")
	m.override("txlb.socket", "[Socket]\nListenStream="+lowPort+"\n")
	m.Run("systemctl", "start", "txlb.socket")
	m.Run("systemctl", "start", "txlb")
	served := load(t, m.dial)
	defer served.end()
	for range 2 {
		m.restart(served)
	}
	served.more(10)
	if state := m.Show("txlb.socket", "ActiveState"); state != "active" {
		t.Errorf("txlb.socket is %s", state)
	}
}

// restart restarts the service while it has long sessions and serves clients.
func (m *installed) restart(served *clients) {
	m.t.Helper()
	served.more(10)
	var long []net.Conn
	for range 5 {
		c, err := m.dial()
		if err == nil {
			err = ask(c, "hello")
		}
		if err != nil {
			m.t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		long = append(long, c)
	}
	pid := m.Show("txlb", "MainPID")
	m.Run("systemctl", "restart", "--no-block", "txlb")
	eventually(m.t, "it drains", func() bool { return strings.Contains(m.Show("txlb", "StatusText"), "txlb is draining") })
	for _, c := range long {
		if err := ask(c, "again"); err != nil {
			m.t.Errorf("a session while it drains: %v", err)
		}
		_ = c.Close()
	}
	m.replaced(pid)
}

// replaced waits until another process is there.
func (m *installed) replaced(pid string) {
	m.t.Helper()
	eventually(m.t, "there is another process", func() bool {
		now := m.Show("txlb", "MainPID")
		return now != "0" && now != pid && m.Show("txlb", "ActiveState") == "active"
	})
}

// installedStore: the descriptor store does the same, and outlives a crash.
func installedStore(t *testing.T, m *installed) {
	m.Run("systemctl", "stop", "txlb.socket", "txlb")
	dropIn, err := os.ReadFile("../../etc/systemd/txlb.service.d/keep-listeners.conf")
	if err != nil {
		t.Fatal(err)
	}
	m.override("txlb.service", string(dropIn))
	m.Run("systemctl", "start", "txlb")
	served := load(t, m.dial)
	defer served.end()
	for range 2 {
		m.restart(served)
	}
	served.more(10)
	served.end() // a session that is open now would be reset

	pid := m.Show("txlb", "MainPID")
	waits := make(chan error)
	m.Run("kill", "-STOP", pid) // so that the next client waits in the queue
	eventually(t, "the program is stopped", func() bool {
		states := m.Run("sh", "-c", "cat /proc/"+pid+"/task/*/stat | sed 's/.*) \\(.\\).*/\\1/' | sort -u")
		return strings.TrimSpace(states) == "T"
	})
	c, err := m.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	go func() { waits <- ask(c, "hello") }()
	m.Run("kill", "-KILL", pid)
	if err := <-waits; err != nil {
		t.Errorf("a client that was in the queue of a process that was killed: %v", err)
	}
	m.replaced(pid)
	// A listener that goes is not kept.
	m.configure(`drain="1h"`, "", `<service name="other"><listen ip="127.0.0.1:82"/><group name="g"><host ip="`+m.backend+`"/></group></service>`)
	m.Run("systemctl", "reload", "txlb")
	m.configure(`drain="1h"`, "", "")
	m.Run("systemctl", "reload", "txlb")
	if c, err := m.Dial("127.0.0.1:82"); err == nil {
		_ = c.Close()
		t.Error("a listener that has gone takes clients")
	}
	m.mustServe()
}
