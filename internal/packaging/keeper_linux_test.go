package packaging

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// Where txlb and its sessions are in this test.
const keptAddress, echoAddress = "127.0.0.1:8090", "127.0.0.1:9002"

// keepsSessions: txlb-keeper.service keeps sessions over a crash of txlb.service and one of
// its own, and not over a restart, a stop, or an upgrade of the package, which is a restart.
func keepsSessions(t *testing.T, m booted, configuration string) {
	const n = 20
	m.write(configuration, `<config>
  <engine keeper="yes" drain="1s"/>
  <service name="web"><listen ip="`+keptAddress+`"/><group name="main"><host name="a" ip="`+echoAddress+`"/></group></service>
  <admin><socket path="/run/txlb/admin.sock"/></admin>
</config>
`)
	open := m.echo(echoAddress)
	m.Run("systemctl", "enable", "--now", "txlb-keeper")
	if state := m.Show("txlb-keeper", "ActiveState"); state != "active" {
		t.Fatalf("the keeper is %s:\n%s", state, m.Journal("txlb-keeper"))
	}
	m.Run("systemctl", "restart", "txlb")
	m.awaits("the keeper answers", func() bool { return m.metric(`txlb_facility{name="session_keeper"}`) == 1 })
	sockets := func() int { // of sessions that the keeper has
		out := m.Run("sh", "-c", "ls -l /proc/"+m.Show("txlb-keeper", "MainPID")+"/fd | grep -c socket: || true")
		count, _ := strconv.Atoi(strings.TrimSpace(out))
		return count
	}
	before := sockets()

	sessions := m.sessions(n)
	kept := func() bool { return m.metric("txlb_keeper_sessions") == n }
	m.awaits("the sessions are kept", kept)
	pid := m.Show("txlb-keeper", "MainPID")
	m.kill("txlb")
	for i, c := range sessions {
		if err := echoes(c); err != nil {
			t.Errorf("session %d after a crash: %v", i, err)
		}
	}
	if now := m.Show("txlb-keeper", "MainPID"); now != pid {
		t.Errorf("the keeper was process %s, and is %s", pid, now)
	}
	m.awaits("the sessions are kept again", kept)
	m.kill("txlb-keeper")
	m.awaits("the next keeper has the sessions", kept)
	m.kill("txlb")
	for i, c := range sessions {
		if err := echoes(c); err != nil {
			t.Errorf("session %d after crashes of both: %v", i, err)
		}
	}

	out, status := m.Try("txlb", "ctl", "upgrade")
	if status == 0 || !strings.Contains(out, `systemctl kill --signal=KILL txlb`) {
		t.Errorf("an upgrade: exit status %d, %s", status, out)
	}
	for _, how := range []struct {
		name string
		end  func()
	}{
		{"restart", func() { m.Run("systemctl", "restart", "txlb") }},
		{"package", func() { m.Run("dpkg", "--force-depends", "--install", "/newer.deb") }},
		{"stop", func() { m.Run("systemctl", "stop", "txlb") }},
	} {
		if how.name != "restart" {
			sessions = m.sessions(n)
		}
		m.awaits("the sessions are kept", kept)
		how.end()
		for i, c := range sessions {
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if k, err := c.Read(make([]byte, 1)); k > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: session %d has not ended: %v", how.name, i, err)
			}
			_ = c.Close()
		}
		m.awaits(how.name+": the sessions have ended at the host", func() bool { return open.Load() == 0 })
		m.awaits(how.name+": the keeper has closed its sockets", func() bool { return sockets() <= before })
		if how.name != "stop" {
			if revived := m.metric("txlb_keeper_revived_total"); revived != 0 {
				t.Errorf("%s: %d sessions were taken on", how.name, revived)
			}
		}
	}
	if state, result := m.Show("txlb", "ActiveState"), m.Show("txlb", "Result"); state != "inactive" || result != "success" {
		t.Errorf("after the stop, txlb is %s: %s", state, result)
	}
	if state := m.Show("txlb-keeper", "ActiveState"); state != "active" {
		t.Errorf("after the stop of txlb, the keeper is %s", state)
	}
}

// sessions makes some that have echoed.
func (m booted) sessions(n int) (list []net.Conn) {
	m.t.Helper()
	for range n {
		c, err := m.Dial(keptAddress)
		if err == nil {
			m.t.Cleanup(func() { _ = c.Close() })
			err = echoes(c)
		}
		if err != nil {
			m.t.Fatalf("%v\n%s", err, m.Journal("txlb"))
		}
		list = append(list, c)
	}
	return list
}

// kill kills a service, which systemd starts again.
func (m booted) kill(service string) {
	m.t.Helper()
	before := m.Show(service, "MainPID")
	m.Run("systemctl", "kill", "--signal=KILL", service)
	m.awaits(service+" runs again", func() bool {
		now := m.Show(service, "MainPID")
		return now != "0" && now != before && m.Show(service, "ActiveState") == "active"
	})
}

// metric returns a sample; -1: txlb does not tell.
func (m booted) metric(name string) int {
	m.t.Helper()
	out, _ := m.Try("txlb", "ctl", "show metrics")
	sample := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(out)
	if sample == nil {
		return -1
	}
	value, _ := strconv.Atoi(sample[1])
	return value
}

func (m booted) awaits(what string, is func() bool) {
	m.t.Helper()
	for end := time.Now().Add(testkit.Patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("%s: not within %v\n%s\n%s", what, testkit.Patience, m.Journal("txlb"), m.Journal("txlb-keeper"))
		}
	}
}

// echo sends back what comes to an address in the container. open is how many connections there
// are.
func (m booted) echo(address string) (open *atomic.Int64) {
	m.t.Helper()
	ln, err := m.Listen(address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = ln.Close() })
	open = new(atomic.Int64)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
				open.Add(-1)
			}()
		}
	}()
	return open
}

// echoes tells whether what is sent comes back.
func echoes(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	const word = "hello"
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}
