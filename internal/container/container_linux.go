// Package container boots systemd in a container for a test: the machine's own /usr, a fresh
// /etc and /var, and a network where only the loopback interface is (systemd-nspawn(1)). It
// needs no image and no download, and is up in seconds.
//
// Limit: it is for root on Linux with systemd. If the system does not allow a container, the
// test is skipped.
package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
)

// Machine is a container that runs. It ends with its test.
type Machine struct {
	t      *testing.T
	leader int // process 1 of the container
	net    *os.File
	Root   string // its files, but for /usr, which is the machine's
}

// target is what the container boots into: no unit of the machine that is not needed.
const target = "txlb-test.target"

// within bounds a command in the container, and its boot.
const within = 2 * time.Minute

// Root makes the files of a container in a folder of the test: users root and nobody, and what
// systemd needs. files are written there, by their paths from its root; the folders of a path
// are made.
func Root(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	all := map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		"etc/hosts":         "127.0.0.1 localhost\n",
		"etc/hostname":      "txlb-test\n",
		"etc/machine-id":    strings.Repeat("0123456789abcdef", 2) + "\n",
		"etc/os-release":    "ID=txlb-test\nNAME=\"txlb test\"\n",
		"etc/systemd/system/" + target: "[Unit]\nDescription=A test of txlb\n" +
			"Requires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
		"etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n",
	}
	for path, text := range files {
		all[path] = text
	}
	for path, text := range all {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"usr", "var", "run", "tmp", "root", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if to, err := os.Readlink("/" + name); err == nil {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// Boot boots a container with the files of root and the machine's /usr, unless root has one
// of its own. binds are further files or folders of the machine that it sees, read-only, as
// FROM:TO.
func Boot(t *testing.T, root string, binds ...string) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("user %d may not start containers", os.Geteuid())
	}
	debian.NeedFor(t, "systemd-nspawn", "systemctl", "journalctl", "nsenter")
	args := []string{
		"--quiet", "--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--directory=" + root,
	}
	if own, err := os.ReadDir(filepath.Join(root, "usr")); err == nil && len(own) == 0 {
		args = append(args, "--bind-ro=/usr")
	}
	for _, bind := range binds {
		args = append(args, "--bind-ro="+bind)
	}
	var said testkit.Log
	cmd := exec.Command("systemd-nspawn", append(args, "--boot", "systemd.unit="+target)...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // its own children have it, too
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the container dies with the thread that starts it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, Root: root}
	t.Cleanup(func() {
		if m.leader > 0 {
			_ = syscall.Kill(m.leader, syscall.SIGKILL)
		}
		_ = cmd.Process.Kill()
		<-ended
		if m.net != nil {
			_ = m.net.Close()
		}
		if t.Failed() {
			t.Logf("the container said:\n%s", &said)
		}
	})
	deadline := time.Now().Add(within)
	for up := false; !up; {
		select {
		case <-ended:
			t.Skipf("this system gives no container:\n%s", &said)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Skipf("systemd does not start in a container on this system:\n%s", &said)
		}
		if m.leader == 0 {
			m.leader = childOf(cmd.Process.Pid, "systemd")
			continue
		}
		_, status := m.Try("systemctl", "is-active", target)
		up = status == 0
	}
	var err error
	if m.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader)); err != nil {
		t.Fatal(err)
	}
	return m
}

// childOf returns the child of a process that has a name, 0 if there is none yet.
func childOf(pid int, name string) int {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			comm, err := os.ReadFile("/proc/" + word + "/comm")
			if err == nil && strings.TrimSpace(string(comm)) == name {
				child, _ := strconv.Atoi(word)
				return child
			}
		}
	}
	return 0
}

// Try runs a command in the container and returns what it said and its exit status.
func (m *Machine) Try(args ...string) (out string, status int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	// Unlike --all, without the cgroup: this process has none in there.
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--",
	}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "HOME=/root"}
	cmd.WaitDelay = time.Second
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	if ctx.Err() != nil {
		m.t.Fatalf("%s: no end within %v\n%s", strings.Join(args, " "), within, &text)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// Run runs a command in the container that succeeds, and returns what it said.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	out, status := m.Try(args...)
	if status != 0 {
		m.t.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// Show returns a property of a unit.
func (m *Machine) Show(unit, property string) string {
	m.t.Helper()
	return strings.TrimSpace(m.Run("systemctl", "show", "--value", "--property="+property, unit))
}

// Journal returns what a unit, and systemd about it, has said.
func (m *Machine) Journal(unit string) string {
	m.t.Helper()
	return m.Run("journalctl", "--no-pager", "--quiet", "--output=cat", "--unit="+unit)
}

// Listen listens on an address in the container.
func (m *Machine) Listen(address string) (ln net.Listener, err error) {
	err = sandbox.InNetwork(fmt.Sprintf("/proc/self/fd/%d", m.net.Fd()), func() (err error) {
		ln, err = net.Listen("tcp4", address)
		return err
	})
	return ln, err
}

// Dial connects to an address in the container.
func (m *Machine) Dial(address string) (c net.Conn, err error) {
	err = sandbox.InNetwork(fmt.Sprintf("/proc/self/fd/%d", m.net.Fd()), func() (err error) {
		c, err = net.DialTimeout("tcp4", address, testkit.Patience)
		return err
	})
	return c, err
}
