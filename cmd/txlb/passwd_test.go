//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/passwd"
)

// program returns a command that runs txlb.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}

// isHash tells whether a hash is that of a password. It asks the system's crypt(3) where perl
// gives it: with the race detector, package passwd takes ten seconds of a processor.
func isHash(hash, password string) (bool, error) {
	perl := exec.Command("perl", "-e", `local $/; print crypt(<STDIN>, $ARGV[0])`, hash)
	perl.Stdin = strings.NewReader(password)
	if out, err := perl.Output(); err == nil && strings.HasPrefix(string(out), "$y$") {
		return string(out) == hash, nil
	}
	return passwd.Verify(hash, password)
}

func TestPasswdReadsALine(t *testing.T) {
	long := strings.Repeat("x", passwd.MaxPassword)
	for _, test := range []struct{ in, password, wrong string }{
		{"secret\n", "secret", ""},
		{"secret", "secret", ""},
		{" a b € \r\nmore\n", " a b € ", ""},
		{long + "\r\n", long, ""},
		{"", "", "txlb passwd: the password is empty\n"},
		{"\nsecret\n", "", "txlb passwd: the password is empty\n"},
		{long + "x\n", "", "txlb passwd: the password has 257 bytes; want at most 256\n"},
		{"a\x00b\n", "", "txlb passwd: the password has a NUL, where some programs would stop reading\n"},
	} {
		cmd := program(t, "passwd")
		var out, told strings.Builder
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(test.in), &out, &told
		err := cmd.Run()
		if told.String() != test.wrong || (err == nil) != (test.wrong == "") || cmd.ProcessState.ExitCode() > exitFailed {
			t.Errorf("%.20q: %v, said %q, want %q", test.in, err, told.String(), test.wrong)
		}
		if test.wrong != "" {
			if out.Len() > 0 {
				t.Errorf("%.20q: printed %q", test.in, out.String())
			}
			continue
		}
		hash, whole := strings.CutSuffix(out.String(), "\n")
		if ok, err := isHash(hash, test.password); !whole || !ok || err != nil {
			t.Errorf("%.20q: printed %q: %v, %v", test.in, out.String(), ok, err)
		}
	}
	p := start(t, program(t, "passwd", "secret"))
	if status := p.wait(); status != exitUsage || !strings.Contains(p.out.String(), `unexpected argument "secret"`) {
		t.Errorf("with a word: %d, %s", status, p.out)
	}
}

// terminal is a pseudo-terminal (pty(7)): what is written to person comes from
// a keyboard, and what is read from it is on the screen.
type terminal struct {
	person, line *os.File
	fd           int // of person, which does not block
}

func newTerminal(t *testing.T) terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	person := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return terminal{person, line, fd}
}

// echoes tells whether the terminal shows what is typed.
func (x terminal) echoes(t *testing.T) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(x.line.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func (x terminal) types(t *testing.T, text string) {
	t.Helper()
	if _, err := x.person.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestPasswdAsksTwiceUnseen(t *testing.T) {
	for name, test := range map[string]struct {
		second string
		status int
		want   string
	}{
		"the same":  {"secret\n", exitOK, `(\$y\$j9T\$\S+)\n`},
		"another":   {"Secret\n", exitFailed, `txlb passwd: the passwords do not match\n`},
		"Control-C": {"\x03", exitFailed, `txlb passwd: interrupted\n`},
	} {
		x := newTerminal(t)
		cmd := program(t, "passwd")
		cmd.Stdin = x.line
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		p := start(t, cmd)
		p.expect(`Password: $`)
		eventually(t, name+": the terminal is mute", func() bool { return !x.echoes(t) })
		x.types(t, "secret\n")
		p.expect(`Password: \nAgain: $`)
		eventually(t, name+": the terminal is mute again", func() bool { return !x.echoes(t) })
		x.types(t, test.second)
		last := p.expect(test.want)
		if status := p.wait(); status != test.status {
			t.Errorf("%s: status %d", name, status)
		}
		if !x.echoes(t) {
			t.Errorf("%s: the terminal stays mute", name)
		}
		if test.status == exitOK {
			if ok, err := isHash(last, "secret"); !ok || err != nil {
				t.Errorf("%s: %q: %v, %v", name, last, ok, err)
			}
		}
		screen := make([]byte, 4096)
		if n, err := unix.Read(x.fd, screen); err == nil && strings.Contains(strings.ToLower(string(screen[:n])), "secret") {
			t.Errorf("%s: the terminal has shown %q", name, screen[:n])
		}
		if text := strings.ToLower(p.out.String()); strings.Contains(text, "secret") {
			t.Errorf("%s: said %s", name, text)
		}
	}
}

func TestCheckWarnsOfHashesThatAreNotTaken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.xml")
	doc := "<config><service name=\"a\"><listen ip=\":1\"/><group name=\"g\"><host ip=\"127.0.0.1:2\"/></group></service>\n<admin>\n" +
		"<user name=\"ann\" password=\"$2b$20$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\"/>\n" +
		"<user name=\"bob\" password=\"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\"/></admin></config>"
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := program(t, "check", "-c", file).CombinedOutput()
	want := file + `:3: warning: the password of user "ann" is not valid: a bcrypt hash of another cost than 04 to 13` + "\n" + file + " is valid: 1 service, 1 host\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, said\n%swant\n%s", err, out, want)
	}
}
