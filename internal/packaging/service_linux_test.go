package packaging

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/container"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
)

// The package under systemd: installed it runs at once, as its user; it reloads; an upgrade
// hands over to the new program under load, unless it is stopped; its keeper keeps sessions; a
// purge ends both.
func TestPackageUnderSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	debian.NeedFor(t, "dpkg", "systemd-nspawn")
	if os.Getenv(olderPackage) == "" {
		t.Setenv(olderPackage, first(t))
		t.Setenv(newerPackage, second(t))
	}
	if !sandbox.Mounts(t) {
		return
	}
	m := bootWithPackages(t)

	said := m.Run("dpkg", "--force-depends", "--install", "/older.deb")
	if state := m.Show("txlb", "ActiveState"); state != "active" {
		t.Fatalf("after the installation, the service is %s:\n%s\n%s", state, said, m.Journal("txlb"))
	}
	m.Run("systemctl", "is-enabled", "txlb")
	m.Run("txlb", "ctl", "status")
	if user := strings.TrimSpace(m.Run("stat", "-c", "%U", "/proc/"+m.Show("txlb", "MainPID"))); user != "txlb" {
		t.Errorf("it runs as %s", user)
	}
	serve(t, m.Machine, "127.0.0.1:9001")
	m.talks("127.0.0.1:8080")

	const configuration = "/etc/txlb/config.xml"
	text := m.Run("cat", configuration)
	reloaded := strings.Replace(text, `<listen ip="127.0.0.1:8081"/>`, `<listen ip="127.0.0.1:8082"/>`, 1)
	m.write(configuration, reloaded)
	m.Run("systemctl", "reload", "txlb")
	m.talks("127.0.0.1:8082")
	m.write(configuration, "<config>")
	if out, status := m.Try("systemctl", "reload", "txlb"); status == 0 {
		t.Errorf("a wrong configuration was reloaded: %s", out)
	}
	m.talks("127.0.0.1:8082")
	m.write(configuration, reloaded)

	before := m.Show("txlb", "MainPID")
	said = m.Run("env", "TXLB_HANDOVER=no", "dpkg", "--force-depends", "--install", "/newer.deb")
	if !strings.Contains(said, "txlb ctl upgrade --fleet") || m.Show("txlb", "MainPID") != before {
		t.Errorf("asked not to, the package has handed over, or does not say how to:\n%s", said)
	}
	if info, version := m.Run("txlb", "ctl", "show info"), m.Run("txlb", "version"); !strings.Contains(info, "Version: 9.8.7\n") || !strings.Contains(version, "9.8.8") {
		t.Errorf("without a hand-over, there is %s and there runs\n%s", version, info)
	}
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if err := m.asks("127.0.0.1:8082"); err != nil {
				failed <- err
				return
			}
		}
	}()
	said = m.Run("dpkg", "--force-depends", "--install", "/newer.deb")
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a client during the upgrade: %v", err)
	}
	if !strings.Contains(said, "has taken over") || m.Show("txlb", "NRestarts") != "0" {
		t.Errorf("the package has not handed over:\n%s", said)
	}
	if state, pid := m.Show("txlb", "ActiveState"), m.Show("txlb", "MainPID"); state != "active" || pid == before {
		t.Errorf("after the upgrade, the service is %s, and its process %s as before: %s\n%s", state, pid, before, m.Journal("txlb"))
	}
	if info := m.Run("txlb", "ctl", "show info"); !strings.Contains(info, "Version: 9.8.8\n") {
		t.Errorf("after the upgrade, there runs\n%s", info)
	}
	m.talks("127.0.0.1:8082")
	if m.Run("cat", configuration) != reloaded {
		t.Error("the upgrade has changed the configuration")
	}

	keepsSessions(t, m, configuration)
	if state := m.Show("txlb", "ActiveState"); state != "inactive" {
		t.Errorf("the service that was stopped is %s", state)
	}
	m.Run("dpkg", "--force-depends", "--install", "/newer.deb")
	if state := m.Show("txlb", "ActiveState"); state != "inactive" {
		t.Errorf("the upgrade has started a service that was stopped: %s", state)
	}
	m.Run("systemctl", "start", "txlb")

	m.Run("dpkg", "--purge", "txlb")
	if state := m.Show("txlb", "ActiveState"); state != "inactive" {
		t.Errorf("after the purge, the service is %s", state)
	}
	if state := m.Show("txlb-keeper", "ActiveState"); state != "inactive" {
		t.Errorf("after the purge, the keeper is %s", state)
	}
	if state := m.Show("txlb", "LoadState"); state != "not-found" {
		t.Errorf("after the purge, the unit is %s", state)
	}
	if left := m.Run("find", "/etc", "/run", "/usr/bin", "/usr/lib", "/usr/share", "/var/lib", "/var/log", "-name", "*txlb*", "-not", "-name", "txlb-test*", "-not", "-path", "/run/systemd/*"); left != "" {
		t.Errorf("the purge has left\n%s", left)
	}
}

// booted is a container with a database of dpkg and both packages.
type booted struct {
	*container.Machine
	t *testing.T
}

// bootWithPackages boots a container with a /usr that it can change. It is for a test in a
// sandbox with mounts of its own.
func bootWithPackages(t *testing.T) booted {
	t.Helper()
	files := map[string]string{"var/lib/dpkg/status": "", "var/lib/dpkg/available": "", "var/log/dpkg.log": ""}
	for name, variable := range map[string]string{"older.deb": olderPackage, "newer.deb": newerPackage} {
		text, err := os.ReadFile(os.Getenv(variable))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	root, changes := container.Root(t, files), t.TempDir()
	mount := func(what, at, kind, data string) {
		t.Helper()
		if err := unix.Mount(what, at, kind, 0, data); err != nil {
			t.Skipf("%s cannot be mounted: %v", at, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	mount("tmpfs", changes, "tmpfs", "mode=0755")
	for _, folder := range []string{"/upper", "/work"} {
		if err := os.Mkdir(changes+folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", root+"/usr", "overlay", "lowerdir=/usr,upperdir="+changes+"/upper,workdir="+changes+"/work")
	m := booted{container.Boot(t, root), t}
	m.Run("mkdir", "-p", "/var/lib/dpkg/updates", "/var/lib/dpkg/info")
	m.Run("rm", "-f", "/usr/sbin/policy-rc.d") // of a machine that starts no services
	return m
}

// write writes a file, in the place of the old one and with its owner.
func (m booted) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(m.Root+name, []byte(text), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

// serve answers on an address in the container: one line, and the end.
func serve(t *testing.T, m *container.Machine, address string) {
	t.Helper()
	ln, err := m.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello\n")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
}

// asks tells whether a client of an address reaches a host.
func (m booted) asks(address string) error {
	c, err := m.Dial(address)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		return fmt.Errorf("%q: %w", line, err)
	}
	return nil
}

// talks makes sure that a client of an address reaches a host.
func (m booted) talks(address string) {
	m.t.Helper()
	c, err := m.Dial(address)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", address, err, m.Journal("txlb"))
	}
	defer func(c net.Conn) { _ = c.Close() }(c)
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		m.t.Errorf("%s answers %q: %v\n%s", address, line, err, m.Journal("txlb"))
	}
}
