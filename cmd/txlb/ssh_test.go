//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
)

// sshUser makes a key and returns its file and the <user> that has it.
func sshUser(t *testing.T) (file, user string) {
	t.Helper()
	debian.NeedFor(t, "ssh", "ssh-keygen")
	file = filepath.Join(t.TempDir(), "id")
	if out, err := exec.Command(debian.Path("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, `<user name="admin" access="full"><key>` + strings.TrimSpace(string(key)) + `</key></user>`
}

// openssh runs a command line at a port. The host key is learned at the first
// call with a file of known ones, and has to be the same later.
func openssh(port int, key, known string, words ...string) (out string, err error) {
	args := append([]string{
		"-F", "/dev/null", "-p", fmt.Sprint(port), "-i", key, "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + known, "-o", fmt.Sprintf("ConnectTimeout=%.0f", patience.Seconds()), "admin@127.0.0.1",
	}, words...)
	text, err := exec.Command(debian.Path("ssh"), args...).CombinedOutput()
	return string(text), err
}

// TestSSHFollowsTheConfiguration has <ssh> off, on, on another port, and with
// another key, by reload; and the host key last across a restart.
func TestSSHFollowsTheConfiguration(t *testing.T) {
	key, user := sshUser(t)
	known := filepath.Join(t.TempDir(), "known")
	services := group("", backend(t, echo))
	doc := func(ssh string) string { return "<config>" + services + "<admin>" + ssh + user + "</admin></config>" }
	first, second := freePort(t), freePort(t)
	p, path := txlbFile(t, doc(`<ssh listen="None"/>`))
	if strings.Contains(p.out.String(), "part=ssh") {
		t.Error(`listen="None" is served`)
	}
	p.reload(path, doc(fmt.Sprintf(`<ssh listen="%d"/>`, first)))
	works := func(port int) {
		t.Helper()
		eventually(t, "SSH answers", func() bool {
			out, err := openssh(port, key, known, "status")
			return err == nil && strings.Contains(out, "1 service")
		})
	}
	works(first)
	made := filepath.Join(filepath.Dir(path), hostKeyFile)
	if info, err := os.Stat(made); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	hold, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", first)) // does not log in
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Close() }()
	p.reload(path, doc(fmt.Sprintf(`<ssh listen="*:%d" enable="yes"/>`, second)))
	works(second)
	eventually(t, "it is not where it was", func() bool {
		_, err := openssh(first, key, known, "status")
		return err != nil
	})
	// Off loopback it is off unless it is said to be on.
	p.reload(path, doc(fmt.Sprintf(`<ssh listen="*:%d"/>`, second)))
	eventually(t, "it is off", func() bool {
		_, err := openssh(second, key, known, "status")
		return err != nil
	})
	other := key // any key of the right kind and mode will do
	p.reload(path, doc(fmt.Sprintf(`<ssh listen="localhost:%d" hostKey="%s"/>`, second, other)))
	eventually(t, "the client sees another host key", func() bool {
		out, _ := openssh(second, key, known, "status")
		return strings.Contains(out, "HOST IDENTIFICATION HAS CHANGED")
	})
	p.reload(path, doc(fmt.Sprintf(`<ssh listen="%d"/>`, first)))
	works(first)
	if out, err := openssh(first, key, known, "shutdown"); err != nil {
		t.Errorf("shutdown: %v\n%s", err, out)
	}
	if status := p.wait(); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	bin, _ := binary()
	again := run(t, bin, "run", "-c", path)
	again.expect("msg=ready")
	works(first)
}

// window is a pseudo terminal with a program on it.
type window struct {
	*process
	master *os.File
	slave  *os.File
	was    unix.Termios // its modes before the program began
}

// onTerminal starts a program on a terminal of its own. What it shows is the
// process's output.
func onTerminal(t *testing.T, cmd *exec.Cmd, width, height uint16) *window {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &window{master: master, slave: slave}
	w.resize(t, width, height)
	w.was = w.modes(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Stdin = slave
	w.process = startOn(t, cmd, slave, master)
	t.Cleanup(func() {
		_ = slave.Close()
		_ = master.Close()
	})
	return w
}

// startOn is start for a program whose output a terminal shows.
func startOn(t *testing.T, cmd *exec.Cmd, slave, master *os.File) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: &output{more: make(chan struct{})}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = slave, slave
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = p.out.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("the terminal shows:\n%q", p.out)
		}
	})
	return p
}

func (w *window) resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

func (w *window) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := w.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

func (w *window) modes(t *testing.T) unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(w.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *modes
}

// TestTop looks at a running txlb from another process on a real terminal, in
// windows of several sizes, across a restart, and gives the terminal back
// however it ends.
func TestTop(t *testing.T) {
	dir, err := os.MkdirTemp("", "txlb-top") // a short path, as sockets need
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	doc := "<config>" + group("", backend(t, echo)) + `<admin><socket path="` + path + `"/></admin></config>`
	p, file := txlbFile(t, doc)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	const left = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	for name, end := range map[string]struct {
		do     func(*window)
		status int
	}{
		"q":       {func(w *window) { w.press(t, "q") }, exitOK},
		"Ctrl-C":  {func(w *window) { w.press(t, "\x03") }, exitOK},
		"SIGTERM": {func(w *window) { w.signal(syscall.SIGTERM) }, exitOK},
		"SIGINT":  {func(w *window) { w.signal(syscall.SIGINT) }, exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(bin, "top", "-s", path)
			cmd.Env = append(os.Environ(), "NO_COLOR=1")
			w := onTerminal(t, cmd, 40, 10)
			w.expect(`name +health +sess +new/s`)
			if w.modes(t) == w.was {
				t.Error("the terminal is not raw: keys would need Enter")
			}
			w.resize(t, 120, 20)
			w.expect(`total +fail .* address`)
			end.do(w)
			if status := w.wait(); status != end.status {
				t.Errorf("exit status %d", status)
			}
			eventually(t, "the terminal is given back", func() bool { return strings.HasSuffix(w.out.String(), "\x1b[?1049l") })
			if w.modes(t) != w.was {
				t.Error("the modes of the terminal are not as they were")
			}
			if regexp.MustCompile(`\x1b\[\d+m`).MatchString(w.out.String()) {
				t.Error("there is colour in spite of NO_COLOR")
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		w := onTerminal(t, exec.Command(bin, "top", "-s", path), 100, 10)
		w.expect(`generation 1`)
		p.signal(syscall.SIGTERM)
		p.wait()
		w.expect(`error: `)
		mark := len(w.out.String())
		run(t, bin, "run", "-c", file).expect("msg=ready")
		eventually(t, "it goes on", func() bool { return strings.Contains(w.out.String()[mark:], "generation 1") })
		w.press(t, "q")
		// The program may have ended before all that it wrote is read from the terminal.
		eventually(t, "the terminal is given back", func() bool { return strings.Contains(w.out.String()[mark:], left) })
	})
	if status, out := call(t, "top", "-s", path+"x"); status != exitFailed || !strings.Contains(out, "no socket") {
		t.Errorf("without a socket: %d, %s", status, out)
	}
	if status, out := call(t, "top", "word"); status != exitUsage || !strings.Contains(out, `unexpected argument "word"`) {
		t.Errorf("a word too many: %d, %s", status, out)
	}
}
