//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
)

// comes makes a client that txlb rejects, and logs.
func comes(t *testing.T, p *process) {
	t.Helper()
	c, err := net.Dial("tcp4", p.addr("none", 0))
	if err != nil {
		t.Fatal(err)
	}
	reads(c, -1)
	_ = c.Close()
}

// loggingTo is a configuration whose only service rejects its clients.
func loggingTo(access string) string {
	return fmt.Sprintf(`<config><service name="none"><listen ip="127.0.0.1:0"/></service><logging access=%q/></config>`, access)
}

// TestAccessLogToRsyslog has a real rsyslogd read the access log, in each way.
func TestAccessLogToRsyslog(t *testing.T) {
	t.Parallel()
	debian.NeedFor(t, "rsyslogd")
	dir := socketFolder(t)
	udp, tcp, socket, out := freePort(t), freePort(t), filepath.Join(dir, "log"), filepath.Join(dir, "out")
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `module(load="imudp") module(load="imtcp") module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="%d")
input(type="imtcp" address="127.0.0.1" port="%d")
input(type="imuxsock" Socket="%s")
template(name="t" type="string" string="%%inputname%% %%pri%% %%app-name%% %%procid%% %%msg%%\n")
*.* action(type="omfile" file="%s" template="t")
`, udp, tcp, socket, out), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "rsyslogd", "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	eventually(t, "rsyslogd listens", func() bool {
		c, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", tcp))
		if err == nil {
			_ = c.Close()
		}
		_, there := os.Stat(socket)
		return err == nil && there == nil
	})
	for input, access := range map[string]string{
		"imudp": fmt.Sprint("syslog:udp:127.0.0.1:", udp), "imtcp": fmt.Sprint("syslog:tcp:127.0.0.1:", tcp), "imuxsock": "syslog:unix:" + socket,
	} {
		p := txlb(t, loggingTo(access))
		comes(t, p)
		want := fmt.Sprintf("%s 134 txlb %d ", input, p.cmd.Process.Pid)
		eventually(t, "rsyslogd writes the line of "+input, func() bool {
			text, _ := os.ReadFile(out)
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, want) && strings.HasSuffix(line, " 0 SC 1/1/0/0/0 0/0\n") {
					return true
				}
			}
			return false
		})
	}
}

// TestAccessLogToTheJournal has a real journald take the access log, in its own protocol.
func TestAccessLogToTheJournal(t *testing.T) {
	const program = "/lib/systemd/systemd-journald"
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no journald, and a test installs no init system")
	}
	if os.Getenv("TXLB_PROGRAM") == "" { // a sandbox cannot build it
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("TXLB_PROGRAM", path)
	}
	if !sandbox.Mounts(t) {
		return
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	for _, dir := range []string{"/run/systemd/journal", "/run/log/journal"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	daemon := run(t, program)
	eventually(t, "journald listens", func() bool {
		select {
		case <-daemon.done:
			t.Skip("journald does not run here: ", daemon.out)
		default:
		}
		_, err := os.Stat("/run/systemd/journal/socket")
		return err == nil
	})
	p := run(t, os.Getenv("TXLB_PROGRAM"), "run", "-c", write(t, loggingTo("journal")))
	p.expect("msg=ready")
	comes(t, p)
	eventually(t, "the journal has the line", func() bool {
		text, _ := exec.Command("journalctl", "-D", "/run/log/journal", "-t", "txlb", "-p", "info", "-o", "cat", "--no-pager").Output()
		return strings.HasSuffix(string(text), " 0 SC 1/1/0/0/0 0/0\n")
	})
}
