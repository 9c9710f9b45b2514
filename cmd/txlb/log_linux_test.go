//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin/socket"
)

// TestB67BadLogs has the log go where nobody takes it. Clients are served, a
// change takes effect, a check takes a host down, a reload is done, and SIGTERM
// ends the program. What is not written is counted.
func TestB67BadLogs(t *testing.T) {
	for name, sink := range map[string]func(*testing.T) badSink{
		"FIFO that nobody reads": func(t *testing.T) badSink { return badSink{file: mkfifo(t)} },
		"FIFO whose reader stops": func(t *testing.T) badSink {
			path := mkfifo(t)
			cat := run(t, "cat", path)
			return badSink{file: path, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGSTOP) }}
		},
		"FIFO whose reader exits": func(t *testing.T) badSink {
			path := mkfifo(t)
			cat := run(t, "cat", path)
			return badSink{file: path, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGKILL); cat.wait() }}
		},
		"standard error whose reader stops": func(t *testing.T) badSink {
			cat, to := reader(t)
			return badSink{stderr: to, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGSTOP) }}
		},
		"standard error whose reader exits": func(t *testing.T) badSink {
			cat, to := reader(t)
			return badSink{stderr: to, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGKILL); cat.wait() }}
		},
		"full disk": func(*testing.T) badSink { return badSink{file: "/dev/full"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink(t).run(t)
		})
	}
}

// badSink is a log that goes bad.
type badSink struct {
	file    string
	stderr  *os.File
	breakIt func() // nil: it is bad from the start
}

func mkfifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reader is a program that reads what is written to the pipe to.
func reader(t *testing.T) (cat *process, to *os.File) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	cmd := exec.Command("cat")
	cmd.Stdin = from
	cat = start(t, cmd)
	_ = from.Close()
	return cat, to
}

// naming is a backend that says its name.
type naming struct {
	ln net.Listener
}

func newNaming(t *testing.T, name string) *naming {
	t.Helper()
	ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	b := &naming{ln: ln}
	t.Cleanup(b.stop)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
	return b
}

func (b *naming) stop() { _ = b.ln.Close() }

func (s badSink) run(t *testing.T) {
	a, b := newNaming(t, "a"), newNaming(t, "b")
	front := freePort(t)
	admin := filepath.Join(socketFolder(t), "a.sock")
	doc := fmt.Sprintf(`<config><engine drain="1s"/>
		<service name="web"><listen ip="127.0.0.1:%d"/>
			<group name="main" scheduler="roundr"><check type="tcp" interval="200ms" fall="1" rise="1"/>
				<host name="a" ip="%s"/><host name="b" ip="%s"/></group></service>
		<admin><socket path="%s"/></admin><logging file="%s"/></config>`, front, a.ln.Addr(), b.ln.Addr(), admin, s.file)
	path := write(t, doc)
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "run", "-c", path)
	if s.stderr != nil {
		cmd.Stderr = s.stderr
	}
	p := start(t, cmd)
	if s.stderr != nil {
		_ = s.stderr.Close()
	}
	var client *socket.Client
	eventually(t, "the socket", func() bool { client, err = socket.Dial(admin); return err == nil })
	defer func() { _ = client.Close() }()
	do := func(line string) socket.Answer {
		t.Helper()
		a, err := client.Do(t.Context(), line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return a
	}
	must := func(line string) string {
		t.Helper()
		a := do(line)
		if a.Err() != nil {
			t.Fatalf("%s: %v", line, a.Err())
		}
		return a.Text
	}
	clients := func() string { // the hosts of four clients
		t.Helper()
		said := ""
		for range 4 {
			c, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", front), patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			text, err := io.ReadAll(c)
			_ = c.Close()
			if err != nil {
				t.Fatal(err)
			}
			said += string(text)
		}
		return said
	}
	if s.breakIt != nil {
		s.breakIt()
	}
	// More than fits into pipe and ring.
	long := "shutdownSession " + strings.Repeat("x", 7000)
	for range 200 {
		if a := do(long); a.Err() == nil {
			t.Fatal("a session with that name was closed")
		}
	}
	if got := clients(); strings.Count(got, "a") != 2 || strings.Count(got, "b") != 2 {
		t.Errorf("clients were served by %q", got)
	}
	must("setHost web main a state=drain")
	if got := clients(); got != "bbbb" {
		t.Errorf("after the change clients were served by %q", got)
	}
	b.stop()
	eventually(t, "host b is down", func() bool {
		return regexp.MustCompile(`(?m)^web +main +b .*\bdown: `).MatchString(must("show hosts web"))
	})
	if err := os.WriteFile(path, []byte(strings.Replace(doc, `<host name="a"`, `<host name="a" weight="7"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the reload", func() bool { return strings.Contains(must("show config"), `weight="7"`) })
	eventually(t, "the problem in status", func() bool {
		return regexp.MustCompile(`(?m)^The log has not been written since \d\d:\d\d:\d\d: .*; \d+ lines were dropped`).MatchString(must("status"))
	})
	m := regexp.MustCompile(`(?m)^txlb_log_dropped_total\{log="log"\} (\d+)$`).FindStringSubmatch(must("show metrics"))
	if m == nil || m[1] == "0" {
		t.Errorf("the metric of dropped lines: %q", m)
	}
	if text := must("show log"); !strings.Contains(text, "msg=reloaded") || !strings.Contains(text, `msg="host down"`) {
		t.Error("the log in memory lacks what was not written")
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("the end took %v", took)
	}
}

// TestB67BadLogRecovers: a log that is read again goes on, says what is missing,
// and status has it.
func TestB67BadLogRecovers(t *testing.T) {
	path := mkfifo(t)
	admin := filepath.Join(socketFolder(t), "a.sock")
	doc := strings.Replace(socketDoc(admin, ""), "</config>", `<logging file="`+path+`" format="json" audit="`+path+`.audit"/></config>`, 1)
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, name, "run", "-c", write(t, doc))
	var client *socket.Client
	eventually(t, "the socket", func() bool { client, err = socket.Dial(admin); return err == nil })
	defer func() { _ = client.Close() }()
	for range 200 {
		if _, err := client.Do(t.Context(), "shutdownSession "+strings.Repeat("x", 7000)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_ = f.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(f)
	dropped := 0
	for dropped == 0 {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var l struct {
			Msg   string
			Lines int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%.200q: %v", line, err)
		}
		dropped = l.Lines
	}
	eventually(t, "the gap in status", func() bool {
		a, err := client.Do(t.Context(), "status")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(a.Text, fmt.Sprintf("The log has gaps: %d lines were dropped, the last at ", dropped))
	})
	go func() { _, _ = io.Copy(io.Discard, in) }()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// Under systemd standard error is a socket, which /dev/stderr does not open. Lines
// have priorities there, and no time of their own.
func TestLogToTheJournal(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer func() { _ = ours.Close() }()
	var is syscall.Stat_t
	if err := syscall.Fstat(pair[1], &is); err != nil {
		t.Fatal(err)
	}
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	doc := `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main"/></service><logging file="/dev/stderr"/></config>`
	cmd := exec.Command(name, "run", "-c", write(t, doc))
	cmd.Stderr = theirs
	cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", is.Dev, is.Ino))
	p := start(t, cmd)
	_ = theirs.Close()
	in := bufio.NewReader(ours)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "msg=ready") {
			if !strings.HasPrefix(line, "<6>level=INFO msg=ready ") {
				t.Errorf("the journal has %q", line)
			}
			break
		}
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
