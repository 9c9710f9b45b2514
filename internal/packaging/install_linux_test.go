package packaging

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
)

// The packages of a test in a sandbox, which cannot make them again.
const olderPackage, newerPackage = "TXLB_OLDER_DEB", "TXLB_NEWER_DEB"

// machine is this machine's file system in a state of its own: what is changed in it goes
// to a folder, and nobody else sees it.
type machine struct {
	t       *testing.T
	root    string
	changes string // what is other than on this machine
}

// newMachine is for a test in a sandbox with mounts of its own.
func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	m := &machine{t: t, root: dir + "/root", changes: dir + "/changes"}
	for _, folder := range []string{m.root, m.changes, dir + "/work"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", m.root, "overlay", 0, "lowerdir=/,upperdir="+m.changes+",workdir="+dir+"/work"); err != nil {
		t.Skipf("no overlay over / can be mounted: %v", err)
	}
	for _, folder := range []string{"/proc", "/dev", "/sys"} {
		if err := unix.Mount(folder, m.root+folder, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Skipf("%s cannot be mounted: %v", folder, err)
		}
	}
	// A machine where systemd does not run has no such folder.
	if err := unix.Mount("tmpfs", m.root+"/run", "tmpfs", 0, "mode=0755"); err != nil {
		t.Skipf("/run cannot be mounted: %v", err)
	}
	return m
}

// run runs a command on the machine, and fails the test if it fails.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	cmd := exec.Command("/usr/bin/env", args...) // it finds the command there
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: m.root}
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// dpkg runs dpkg with a database of its own: another test may be changing that of this
// machine.
func (m *machine) dpkg(args ...string) string {
	m.t.Helper()
	const database = "/dpkg"
	if err := os.MkdirAll(m.root+database+"/updates", 0o755); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"status", "available"} {
		f, err := os.OpenFile(m.root+database+"/"+name, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			m.t.Fatal(err)
		}
		_ = f.Close()
	}
	if err := os.MkdirAll(m.root+database+"/info", 0o755); err != nil {
		m.t.Fatal(err)
	}
	return m.run(append([]string{"dpkg", "--admindir=" + database, "--log=/dpkg/log", "--force-depends"}, args...)...)
}

// install installs a package.
func (m *machine) install(pkg string) {
	m.t.Helper()
	text, err := os.ReadFile(pkg)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.root+"/package.deb", text, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.dpkg("--install", "/package.deb")
}

func (m *machine) read(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.root + name)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) has(name string) bool {
	_, err := os.Lstat(m.root + name)
	return err == nil
}

// The package installs, upgrades without touching the configuration, which txlb may have
// saved, and leaves nothing after a purge but the user.
func TestPackageInstallsAndPurges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	debian.NeedFor(t, "dpkg", "systemd-sysusers")
	if os.Getenv(olderPackage) == "" {
		t.Setenv(olderPackage, first(t))
		t.Setenv(newerPackage, second(t))
	}
	if !sandbox.Mounts(t) {
		return
	}
	older, newer := os.Getenv(olderPackage), os.Getenv(newerPackage)
	m := newMachine(t)
	if m.has("/etc/txlb") {
		t.Skip("this machine has a txlb")
	}
	const configuration, enabled = "/etc/txlb/config.xml", "/etc/systemd/system/multi-user.target.wants/txlb.service"

	m.install(older)
	if got, want := m.read(configuration), m.read("/usr/share/txlb/config.xml"); got != want {
		t.Errorf("after the installation, the configuration is not the sample:\n%s", got)
	}
	if got := m.run("stat", "-c", "%U:%G %a", configuration); got != "txlb:txlb 640\n" {
		t.Errorf("the configuration is %s", got)
	}
	if got := m.run("stat", "-c", "%G %a", "/etc/txlb"); got != "txlb 770\n" {
		t.Errorf("/etc/txlb is %s", got)
	}
	if got := m.run("txlb", "version"); got != "txlb 9.8.7\n" {
		t.Errorf("installed is %q", got)
	}
	m.run("txlb", "check")
	if !m.has(enabled) {
		t.Error("the service is not enabled")
	}

	// The administrator has disabled the service and enabled the others, and txlb has saved its configuration.
	m.run("systemctl", "disable", "txlb.service")
	m.run("systemctl", "enable", "txlb.socket", "txlb-keeper.service")
	mine := strings.Replace(m.read(configuration), "<config>", "<!-- mine -->\n<config>", 1)
	for _, name := range []string{configuration, configuration + "-20261128120000"} {
		if err := os.WriteFile(m.root+name, []byte(mine), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	m.install(newer)
	if got := m.run("txlb", "version"); got != "txlb 9.8.8\n" {
		t.Errorf("after the upgrade there is %q", got)
	}
	if m.read(configuration) != mine {
		t.Error("the upgrade has changed the configuration")
	}
	if m.has(enabled) {
		t.Error("the upgrade has enabled the service again")
	}

	m.dpkg("--remove", "txlb")
	if m.has("/usr/bin/txlb") || !m.has(configuration) {
		t.Errorf("after the removal, the program is there: %v; and the configuration: %v", m.has("/usr/bin/txlb"), m.has(configuration))
	}
	m.install(newer)
	if m.read(configuration) != mine {
		t.Error("the new installation has changed the configuration")
	}

	for _, name := range []string{"/var/lib/txlb/key", "/var/log/txlb/txlb.log"} {
		if err := os.MkdirAll(filepath.Dir(m.root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.root+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.dpkg("--purge", "txlb")
	err := filepath.WalkDir(m.changes, func(name string, d fs.DirEntry, err error) error {
		name = strings.TrimPrefix(name, m.changes)
		if err == nil && strings.Contains(name, "txlb") && m.has(name) && !strings.HasPrefix(name, "/dpkg/") && !strings.Contains(name, "/tmp/") {
			t.Errorf("the purge has left %s", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
